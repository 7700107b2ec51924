"""What a wake is asked for, and what it answers: shared by its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.lifecycle.peers import BrokenError

if TYPE_CHECKING:
    from instar.errors import InstarError
    from instar.lifecycle.peers import Peer

Want = Literal["", "fresh", "resume"]

AGAIN_S: Final = 5.0  # until something that is under way has come to an end
ARRIVED: Final = ("landed", "accepted")


@dataclass(frozen=True)
class Order:
    """Whom to wake, and what for.

    `want` is "" for what the decision says, "fresh" or "resume". `runtime` is one of the peer's, "" for its own.
    `delivers` is whether a peer that lives already is to get the task, too. `is_counted` is whether the hourly budget
    counts it: what a person does at a terminal is not. `waits_s` is how long to wait for others that are at the peer;
    None: as long as a start may take.
    """

    name: str
    task: str = ""
    topic: str = ""
    want: Want = ""
    runtime: str = ""
    delivers: bool = False
    is_counted: bool = True
    waits_s: float | None = None


class Refused(Exception):  # noqa: N818 - it is an answer
    """The peer is not woken. `mode` is "refused", "failed" if it was tried, or "fail" with nothing to take up."""

    def __init__(self, cause: str, reason: str, *, mode: str = "refused", **result: Any) -> None:  # noqa: ANN401 - what JSON holds
        super().__init__(reason)
        self.cause = cause
        self.mode = mode
        self.result = result


def unknown(error: InstarError) -> Refused:
    """Return the refusal where there is no such peer, or its profile cannot be used: nobody tells where it works."""
    return Refused("profile-unreadable" if isinstance(error, BrokenError) else "unknown-peer", str(error))


def result(peer: Peer | None, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - what JSON holds
    """Return a result, whole: what is not said is as it is for a peer that was not woken."""
    base: dict[str, Any] = {
        "status": "FAILED", "woke": False, "cause": "", "reason": "", "taskDelivered": False, "retryAfter": None,
        "stopped": False, "resumable": None, "mode": "refused", "identity": peer.identity if peer else None,
        "runtime": peer.runtime if peer else None, "sessionId": None, "delivery": None, "dialog": None,
    }  # fmt: skip
    return {**base, **said}
