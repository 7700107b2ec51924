"""What is to be done about a parking that broke off, by what of it is found; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from instar.sessions.machine.processes import Liveness

Action = Literal["none", "roll-back", "roll-forward", "finish", "revert", "drop-intent", "drop-marker"]


@dataclass(frozen=True)
class Found:
    """What is found of a parking, when nobody else is at it.

    `status` is that of the record, "unreadable", or "" where there is none. `is_judged` tells whether the record's
    agent is the one that the intent or marker names, `is_parked` whether the record tells of that very parking.
    `process` is what has become of that agent. `names_session` is False for a marker that says only when.
    """

    has_intent: bool
    has_marker: bool
    status: str
    is_judged: bool = False
    is_parked: bool = False
    process: Liveness = "unknown"
    names_session: bool = True


def action(found: Found) -> Action:
    """Return what is to be done.

    "roll-back": it was not ended; drop the intent, the session runs. "roll-forward": it was ended; do what is left.
    "finish": it was ended and told; complete the record. "revert": it was never attempted; the session runs.
    """
    if found.status == "unreadable" or not found.names_session:
        return "none"
    if found.has_intent:
        return _by_intent(found)
    if found.has_marker:
        return _by_marker(found)
    return "revert" if found.status == "reaping" else "none"


def _by_intent(found: Found) -> Action:
    if not found.is_judged:
        return "drop-intent"
    by_process: dict[Liveness, Action] = {"alive": "roll-back", "dead": "roll-forward", "unknown": "none"}
    return by_process[found.process]


def _by_marker(found: Found) -> Action:
    if not found.status:  # it is remembered by its marker alone
        return "none"
    if not found.is_judged:  # the session went on in another process since
        return "drop-marker"
    by_process: dict[Liveness, Action] = {
        "alive": "drop-marker",
        "dead": "none" if found.is_parked else "finish",
        "unknown": "none",
    }
    return by_process[found.process]
