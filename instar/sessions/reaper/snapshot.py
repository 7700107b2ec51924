"""What the reaper shows of itself: made of what its last tick left, without looking at anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.clock import iso
from instar.sessions.reaper.budget import HOUR_S
from instar.sessions.reaper.candidacy import TICKS_APART, Moment, grace_left_s, threshold_s
from instar.sessions.reaper.state import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.sessions.policy import Policy
    from instar.sessions.reaper.budget import Answer
    from instar.sessions.reaper.state import State, Watched
    from instar.sessions.reaper.switch import Switched

RECENT: Final = 20


@dataclass(frozen=True)
class Around:
    """What there is to tell beside the state: the policy that holds, the switch, the machine's budget, and the moment.

    `standby` says that another process ticks.
    """

    policy: Policy
    switched: Switched
    budget: Answer
    now: Moment
    standby: bool = False


def snapshot(state: State, around: Around) -> dict[str, Any]:
    """Return it for JSON. `stale` is what was not looked at for two intervals."""
    policy, switched, now = around.policy, around.switched, around.now
    age = now.since(state.at) if state.at else None
    threshold = threshold_s(state.dwell.tier, policy)
    return {
        "schema": SCHEMA,
        "mode": policy.mode,
        "enabled": policy.mode != "off",
        "dryRun": not policy.may_park,
        "autoDisabled": switched.is_auto_disabled,
        "autoDisableCause": switched.cause or None,
        "standby": around.standby,
        "lastTickAt": round(state.at.wall * 1000) if state.at else 0,
        "ageS": age,
        "pressure": {"tier": state.dwell.tier, "why": state.why_tier, "inputs": _inputs(state)},
        "activeThresholdMinutes": None if threshold is None else threshold / 60,
        "reapsLastHour": sum(not end.is_dry and abs(now.wall - end.at) < HOUR_S for end in state.ends),
        "hostBudget": {"used": around.budget.used, "limit": policy.reaps_per_hour, "blocked": around.budget.blocked},
        "sessions": [
            row(session_id, each, now, policy) for session_id, each in _longest_idle_first(state.watched, policy)
        ],
        "recent": [end.told() for end in reversed(state.ends[-RECENT:])],
        "probeErrors": sum(each.verdict.get("confidence") == "low" for each in state.watched.values()),
        "troubles": [each for each in (switched.trouble, *state.troubles) if each],
    }


def row(session_id: str, watched: Watched, now: Moment, policy: Policy) -> dict[str, Any]:
    """Return what is told of one session."""
    candidacy = watched.candidacy
    left, age = grace_left_s(candidacy, now, policy), now.since(candidacy.at)
    return {
        "name": watched.name,
        "sessionId": session_id,
        **watched.verdict,
        "consecutive": candidacy.consecutive,
        "idleMs": round(candidacy.idle_s(policy) * 1000),
        "reapPending": candidacy.pending is not None,
        "pendingUntil": None if left is None else iso(now.wall + left),
        "deferred": candidacy.deferred or None,
        "restTicks": candidacy.rest,
        "memory": watched.memory,
        "stale": age is None or age > TICKS_APART * policy.tick_s,
    }


def _longest_idle_first(watched: Mapping[str, Watched], policy: Policy) -> list[tuple[str, Watched]]:
    return sorted(watched.items(), key=lambda item: -item[1].candidacy.idle_s(policy))


def _inputs(state: State) -> dict[str, Any]:
    read = state.readings.as_json() if state.readings else {}
    return {
        "availablePercent": read.get("available_percent"),
        "stallSome": read.get("stall_some"),
        "stallFull": read.get("stall_full"),
        "swapInRate": read.get("swap_in_rate"),
        "loadPerCore": read.get("load_per_core"),
        "denials": read.get("denials"),
    }
