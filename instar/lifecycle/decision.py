"""Whether a peer that sleeps is started clean or takes up what it left: one table, whose first row that fits holds.

A parked session was whole when it was ended, so it may be taken up. One that ended by itself may be broken: a message
never takes it up, but the answer says that a person can.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.lifecycle.policy import Policy

Mode = Literal["fresh", "resume", "fail"]
Consumed = Literal["park", "fresh-next"]

Cause = Literal[
    "folder-launch",
    "attach",
    "attach-nothing-to-resume",
    "soft-reload",
    "host-reboot",
    "server-dead",
    "first-wake",
    "crash-or-self-close",
    "idle-reaped-human-no-resume",
    "idle-reaped-no-topic",
    "idle-reaped-new-topic",
    "idle-reaped-no-resume",
    "resume-too-costly",
    "idle-reaped-human",
    "idle-reaped-resume",
]


@dataclass(frozen=True)
class Resumable:
    """What can be taken up, and what that costs: for how long nothing was said in it, and the size of its context.

    Both are None where they are not known; what is not known is never too much.
    """

    idle_s: float | None = None
    tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as results tell it: `{idleMinutes, tokens}`."""
        return {"idleMinutes": None if self.idle_s is None else int(self.idle_s // 60), "tokens": self.tokens}


@dataclass(frozen=True)
class Situation:
    """What is known of a peer that has no session, and what is wanted of it.

    `want` is "" where a message wakes it. `is_parked` is whether a park marker is there that speaks of what it would
    take up. `resumable` is None where nothing is proven to be there. `is_renewed` is whether it was told to begin anew
    at its next wake. `end` is what became of its last session, where that was no doing of its own. `is_human` is
    whether people talk to it. `topic` and `topics` are as `Marks` keeps them.
    """

    want: Literal["", "fresh", "resume"] = ""
    is_parked: bool = False
    resumable: Resumable | None = None
    is_renewed: bool = False
    end: Literal["", "server-dead", "host-reboot"] = ""
    is_human: bool = False
    topic: str = ""
    topics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """How a peer is woken. `why` is for people.

    `consumes` are the marks that are used up once the peer is ready, and stay if it does not get there. `resumable` is
    what there is to take up, whether it is taken up or not.
    """

    mode: Mode
    cause: Cause
    why: str
    consumes: frozenset[Consumed] = frozenset()
    resumable: Resumable | None = None


class Row(NamedTuple):
    """A row of the table: what has to hold, and what follows."""

    fits: Callable[[Situation, Policy], bool]
    mode: Mode
    cause: Cause
    consumes: frozenset[Consumed]
    why: str


def decide(situation: Situation, policy: Policy) -> Decision:
    """Return how a peer is to be woken."""
    row = next(row for row in ROWS if row.fits(situation, policy))
    return Decision(row.mode, row.cause, row.why, row.consumes, situation.resumable)


def _anything(_: Situation, __: Policy) -> bool:
    return True


def _wants_fresh(it: Situation, _: Policy) -> bool:
    return it.want == "fresh"


def _attaches(it: Situation, _: Policy) -> bool:
    return it.want == "resume" and it.resumable is not None


def _attaches_to_nothing(it: Situation, _: Policy) -> bool:
    return it.want == "resume"


def _is_renewed(it: Situation, _: Policy) -> bool:
    return it.is_renewed


def _met_reboot(it: Situation, _: Policy) -> bool:
    return not it.is_parked and it.end == "host-reboot"


def _lost_server(it: Situation, _: Policy) -> bool:
    return not it.is_parked and it.end == "server-dead"


def _left_nothing(it: Situation, _: Policy) -> bool:
    return not it.is_parked and it.resumable is None


def _is_not_parked(it: Situation, _: Policy) -> bool:
    return not it.is_parked


# Below here it is parked.


def _is_human_without_past(it: Situation, _: Policy) -> bool:
    return it.is_human and it.resumable is None


def _is_topicless(it: Situation, policy: Policy) -> bool:
    return not it.is_human and not it.topic and policy.topicless == "fresh"


def _has_new_topic(it: Situation, _: Policy) -> bool:
    return not it.is_human and bool(it.topic) and it.topic not in it.topics


def _has_no_past(it: Situation, _: Policy) -> bool:
    return it.resumable is None


def _is_too_costly(it: Situation, policy: Policy) -> bool:
    cost = it.resumable or Resumable()
    return _is_over(cost.idle_s, policy.resume_idle_s) or _is_over(cost.tokens, policy.resume_tokens)


def _is_over(known: float | None, limit: float | None) -> bool:
    return known is not None and limit is not None and known > limit


def _is_human(it: Situation, _: Policy) -> bool:
    return it.is_human


_NOTHING: Final[frozenset[Consumed]] = frozenset()
_PARK: Final[frozenset[Consumed]] = frozenset({"park"})
_BOTH: Final[frozenset[Consumed]] = frozenset({"park", "fresh-next"})

# What is wanted goes before all marks, the marks before what the peer is for, and what a resume costs comes last. A
# park that a wake passes over is used up too: else the end of the new session would be taken for a parking.
ROWS: Final[tuple[Row, ...]] = (
    Row(_wants_fresh, "fresh", "folder-launch", _BOTH, "a clean start was asked for"),
    Row(_attaches, "resume", "attach", _PARK, "its last session was asked for"),
    Row(_attaches_to_nothing, "fail", "attach-nothing-to-resume", _NOTHING, "there is nothing that it can take up"),
    Row(_is_renewed, "fresh", "soft-reload", _BOTH, "it was told to begin anew at its next wake"),
    Row(_met_reboot, "fresh", "host-reboot", _NOTHING, "the machine was started anew while it ran"),
    Row(_lost_server, "fresh", "server-dead", _NOTHING, "its tmux server ended, and it with it"),
    Row(_left_nothing, "fresh", "first-wake", _NOTHING, "there is nothing that it could take up"),
    Row(_is_not_parked, "fresh", "crash-or-self-close", _NOTHING, "its last session ended without being parked"),
    Row(_is_human_without_past, "fresh", "idle-reaped-human-no-resume", _PARK, "its parked session cannot be taken up"),
    Row(_is_topicless, "fresh", "idle-reaped-no-topic", _PARK, "the message has no topic, and such begin anew"),
    Row(_has_new_topic, "fresh", "idle-reaped-new-topic", _PARK, "its parked session was about other topics"),
    Row(_has_no_past, "fresh", "idle-reaped-no-resume", _PARK, "its parked session cannot be taken up"),
    Row(_is_too_costly, "fresh", "resume-too-costly", _PARK, "its parked session is older or larger than is wanted"),
    Row(_is_human, "resume", "idle-reaped-human", _PARK, "its talk with people was parked"),
    Row(_anything, "resume", "idle-reaped-resume", _PARK, "its work was parked"),
)
