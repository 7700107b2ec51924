"""What an authority decided about a stop, and why an answer of one cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from instar.gate.rules import Pointer

if TYPE_CHECKING:
    from instar.gate.rules import Decision

FailureKind = Literal["malformed", "invalidRule", "missingPointer", "invalidEvidence", "llmUnavailable", "timeout"]


@dataclass(frozen=True)
class Verdict:
    """A valid answer: a decision by a rule; `rationale` is for the log alone."""

    decision: Decision
    rule: str
    pointer: Pointer = field(default_factory=Pointer)
    rationale: str = ""


class Unusable(Exception):  # noqa: N818 - it is an answer that cannot be used, and lets the stop go
    """No verdict: the stop is allowed. `kind` is recorded, the text says more."""

    def __init__(self, kind: FailureKind, text: str) -> None:
        super().__init__(text)
        self.kind: FailureKind = kind
