"""What a router asks: a stop, the signals in its words, and the words themselves, which nobody vouches for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from instar.errors import InstarError
from instar.gate.redaction import redacted
from instar.project import main_checkout

SIGNALS: Final = (
    "mentionsContext",
    "mentionsCompaction",
    "mentionsFreshSession",
    "mentionsLaterSession",
    "mentionsBreakPoint",
    "mentionsNaturalPause",
    "mentionsClarityPause",
    "suspiciouslyQuiet",
)
REASON_CHARACTERS: Final = 8000
_SESSION: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class BadQuestionError(InstarError):
    """The body of the request is no question; the text is what the asker is told."""


@dataclass(frozen=True)
class Question:
    """One stop to be judged."""

    session: str
    cwd: str
    signals: tuple[str, ...]
    stop_reason: str  # redacted

    @property
    def is_quiet_only(self) -> bool:
        """Whether nothing speaks for a look but that next to nothing was said."""
        return self.signals == ("suspiciouslyQuiet",)


def question_of(body: dict[str, Any]) -> Question:
    """Return the question in the body of a request. Raise BadQuestionError where it has none.

    What is inside is coerced and never trusted: a text that is none is empty, an unknown signal is none, and what the
    asker says of the evidence is not looked at.
    """
    session = body.get("sessionId")
    if not isinstance(session, str) or not _SESSION.fullmatch(session):
        raise BadQuestionError("sessionId required")
    metadata, content = body.get("evidenceMetadata"), body.get("untrustedContent")
    if not isinstance(metadata, dict) or not isinstance(content, dict):
        raise BadQuestionError("evidenceMetadata and untrustedContent required")
    fired = metadata.get("signals")
    known = fired if isinstance(fired, dict) else {}
    return Question(
        session=session,
        cwd=_text(body.get("cwd")),
        signals=tuple(name for name in SIGNALS if known.get(name) is True),
        stop_reason=redacted(_text(content.get("stopReason")))[-REASON_CHARACTERS:],
    )


def checkout_of(root: Path, cwd: str) -> Path:
    """Return the checkout of the project that a session works in: a linked worktree of it, or the project itself."""
    try:
        place = Path(cwd).resolve(strict=True) if cwd.startswith("/") else root
        top = next((folder for folder in (place, *place.parents) if (folder / ".git").exists()), root)
        return top if main_checkout(top) == root else root
    except (OSError, ValueError, RuntimeError):
        return root


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
