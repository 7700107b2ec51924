"""How long a session was seen idle, and whether that is long enough: pure, on the clock that nobody can set.

What counts is what was observed. A machine's sleep, a clock that is set and a reaper that was not there add nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from instar.sessions.clock import Clock
    from instar.sessions.policy import Policy
    from instar.sessions.reaper.pressure import Tier
    from instar.sessions.verdict import Verdict

Why = Literal["reaped-idle", "idle-zombie", "age-limit"]

TICKS_APART: Final = 2  # at most, for two observations to be of one run
REST_TICKS: Final = 32  # at most, after a refusal
_LEEWAY: Final = (0.2, 3600.0)  # beyond the age limit: a fifth of it, and an hour at most


@dataclass(frozen=True)
class Moment:
    """A moment by the three clocks of `Clock`, in seconds."""

    monotonic: float
    wall: float
    boot: str

    @classmethod
    def of(cls, clock: Clock) -> Moment:
        """Return the moment that it is."""
        return cls(clock.monotonic(), clock.wall(), clock.boot())

    def since(self, before: Moment) -> float | None:
        """Return the seconds that were lived through since; None where the machine was started anew."""
        passed = self.monotonic - before.monotonic
        return passed if self.boot == before.boot and passed >= 0 else None

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"monotonic": self.monotonic, "wall": self.wall, "boot": self.boot}

    @classmethod
    def from_json(cls, values: object) -> Moment:
        """Return it as it was written. Raise ValueError for what is none."""
        if not isinstance(values, dict) or not isinstance(values.get("boot"), str):
            raise ValueError("no moment")  # noqa: TRY004 - what is read is wrong, not what is called
        return cls(_number(values.get("monotonic")), _number(values.get("wall")), values["boot"])


@dataclass(frozen=True)
class Candidacy:
    """What the looks at a session came to. Times in seconds, as observed.

    `consecutive` are the looks of this run that found it idle and as it was; `window_s` is how long they span.
    `carried_s` is what was observed before a gap: it counts once the run has confirmed itself. `pending` is since when
    it waits for its end, and `why`. `refusals` are those in a row, and `rest` the ticks until it is tried again.
    `is_told` says that this candidacy's would-be end was told, `deferred` what last put its end off.
    """

    at: Moment
    consecutive: int = 0
    window_s: float = 0.0
    carried_s: float = 0.0
    pending: Moment | None = None
    why: str = ""
    refusals: int = 0
    rest: int = 0
    is_told: bool = False
    deferred: str = ""

    def is_confirmed(self, policy: Policy) -> bool:
        """Say whether enough looks, over enough time, agree."""
        return self.consecutive >= policy.confirm_observations and self.window_s >= policy.confirm_window_s

    def idle_s(self, policy: Policy) -> float:
        """Return for how long it was seen idle."""
        return self.window_s + (self.carried_s if self.is_confirmed(policy) else 0.0)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        pending = self.pending.as_json() if self.pending else None
        return {**vars(self), "at": self.at.as_json(), "pending": pending}

    @classmethod
    def from_json(cls, values: object) -> Candidacy:
        """Return it as it was written. Raise ValueError for what is none."""
        if not isinstance(values, dict):
            raise ValueError("no candidacy")  # noqa: TRY004 - as above
        pending = values.get("pending")
        return cls(
            at=Moment.from_json(values.get("at")),
            consecutive=int(_number(values.get("consecutive"))),
            window_s=_number(values.get("window_s")),
            carried_s=_number(values.get("carried_s")),
            pending=None if pending is None else Moment.from_json(pending),
            why=str(values.get("why") or ""),
            refusals=int(_number(values.get("refusals"))),
            rest=int(_number(values.get("rest"))),
            is_told=values.get("is_told") is True,
            deferred=str(values.get("deferred") or ""),
        )


def step(before: Candidacy | None, verdict: Verdict, *, is_still: bool, now: Moment, policy: Policy) -> Candidacy:
    """Return what one more look makes of it.

    `is_still` says that nothing of the session has changed since the look before. A state that was saved on this boot
    no more than two tick intervals ago goes on, in whichever process.
    """
    if not verdict.is_clear:
        return Candidacy(now)
    if before is None or before.consecutive == 0 or not is_still:
        return Candidacy(now, consecutive=1)
    passed = now.since(before.at)
    if passed is None or passed > TICKS_APART * policy.tick_s:
        # Nobody looked meanwhile. What was observed before is worth something once a whole window has gone by again.
        return Candidacy(
            now,
            consecutive=1,
            carried_s=before.carried_s + before.window_s,
            refusals=before.refusals,
            rest=before.rest,
            is_told=before.is_told,
        )
    return replace(
        before,
        at=now,
        consecutive=before.consecutive + 1,
        window_s=before.window_s + passed,
        rest=max(0, before.rest - 1),
    )


def why_due(candidacy: Candidacy, tier: Tier, policy: Policy, age_s: float | None) -> Why | None:
    """Return why a session is to be parked, or None. Only one whose idleness is confirmed ever is.

    `age_s` is how old it is known to be; None where that cannot be told.
    """
    if not candidacy.is_confirmed(policy) or candidacy.rest:
        return None
    idle, threshold = candidacy.idle_s(policy), threshold_s(tier, policy)
    if threshold is not None and idle >= threshold:
        return "reaped-idle"
    if policy.idle_kill_s is not None and idle > policy.idle_kill_s:
        return "idle-zombie"
    limit = policy.max_age_s
    if limit is not None and age_s is not None and age_s > limit + min(_LEEWAY[0] * limit, _LEEWAY[1]):
        return "age-limit"
    return None


def threshold_s(tier: Tier, policy: Policy) -> float | None:
    """Return how long a session is idle before pressure ends it; None where no pressure does."""
    if tier == "critical":
        return policy.idle_critical_s
    return policy.idle_moderate_s if tier == "moderate" or policy.reaps_in_normal else None


def pend(candidacy: Candidacy, why: Why, now: Moment) -> Candidacy:
    """Return it waiting for its end from now on."""
    return replace(candidacy, pending=now, why=why)


def grace_left_s(candidacy: Candidacy, now: Moment, policy: Policy) -> float | None:
    """Return how long a pending one still has, 0.0 when its time is over; None for one that is not pending."""
    if candidacy.pending is None:
        return None
    passed = now.since(candidacy.pending)
    return policy.grace_s if passed is None else max(0.0, policy.grace_s - passed)


def drop(candidacy: Candidacy) -> Candidacy:
    """Return it no longer waiting for its end."""
    return replace(candidacy, pending=None, why="")


def rest(candidacy: Candidacy) -> Candidacy:
    """Return it after a refusal: left in peace for 1, 2, 4 ... 32 ticks."""
    ticks = min(REST_TICKS, 2 ** min(candidacy.refusals, REST_TICKS))
    return replace(drop(candidacy), refusals=candidacy.refusals + 1, rest=ticks)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError("no number")  # nor are NaN, and what is greater than any time
    return value
