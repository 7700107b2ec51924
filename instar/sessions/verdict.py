"""What a look at a session comes to: kept, and by which gate, or all clear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Confidence = Literal["high", "low"]

ALL_CLEAR: Final = "all-clear"


@dataclass(frozen=True)
class Kept:
    """A gate's word for keeping a session: the name it is kept by, why, in words for people, and how sure that is.

    "low" stands for what could not be told. `why` tells no prompt, no text of a screen and no path of a user's file.
    """

    by: str
    why: str
    confidence: Confidence = "high"


@dataclass(frozen=True)
class Verdict:
    """`kept_by` is the first gate's word, or "all-clear"; only that, at "high", lets a session be parked."""

    kept_by: str
    why: str
    confidence: Confidence = "high"

    @property
    def is_clear(self) -> bool:
        """Whether no gate keeps the session."""
        return self.kept_by == ALL_CLEAR and self.confidence == "high"

    def as_json(self) -> dict[str, Any]:
        """Return it as the snapshot and the audit tell it."""
        word = "reap-eligible" if self.is_clear else "keep"
        return {"verdict": word, "keptBy": self.kept_by, "confidence": self.confidence, "why": self.why}
