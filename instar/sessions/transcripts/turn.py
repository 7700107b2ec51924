"""What the end of a transcript comes to: a turn that has ended, one that goes on, or what cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "unknown"]


@dataclass(frozen=True)
class Turn:
    """The last turn of a session.

    `why` tells the state in words for people, and nothing of what was said. `at` is the newest time that a record of
    the end tells, in seconds since 1970; None where none does. `version` is that of the client as the transcript tells
    it, "" where it does not.
    """

    state: State
    why: str
    at: float | None = None
    version: str = ""
