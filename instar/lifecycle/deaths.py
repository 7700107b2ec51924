"""Whether a peer dies too often to be woken: pure, by the last of its deaths, and by the clock that nobody can set.

A death is an end that nothing explains, or a wake that left nothing alive. Wakes that fail slowly never make up a crash
loop, so those are waited out as well: 1, 2, 4 ... 60 minutes after the first, the second, the third in a row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from instar.lifecycle.policy import Policy
    from instar.sessions.reaper.candidacy import Moment

KEPT: Final = 16
AHEAD_S: Final = 60.0  # that a clock may have been ahead
FIRST_WAIT_S: Final = 60.0
LONGEST_WAIT_S: Final = 3600.0
_FAR: Final = 1e15  # milliseconds that no clock shows
_ROUNDING_S: Final = 0.001  # what a clock loses by being written


@dataclass(frozen=True)
class Death:
    """A death of a peer. `wall` in seconds since 1970, `monotonic` in seconds of the boot that `boot` names.

    `is_failed_wake` is whether it was a wake that came to nothing. `of` names the session, so that a death that is told
    twice counts once; "" where there is no name.
    """

    wall: float
    monotonic: float = 0.0
    boot: str = ""
    is_failed_wake: bool = False
    of: str = ""

    @classmethod
    def at(cls, now: Moment, *, is_failed_wake: bool = False, of: str = "") -> Death:
        """Return a death of this moment."""
        return cls(now.wall, now.monotonic, now.boot, is_failed_wake, of)

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON; `at` in milliseconds since 1970."""
        said = {"failedWake": self.is_failed_wake, "of": self.of}
        return {"at": round(self.wall * 1000), "monotonic": self.monotonic, "boot": self.boot, **said}

    @classmethod
    def from_json(cls, values: object) -> Death:
        """Return it as it was written, or as milliseconds alone tell it. Raise ValueError for what is none."""
        if not isinstance(values, dict):
            return cls(_number(values) / 1000)
        boot, of = values.get("boot", ""), values.get("of", "")
        if not isinstance(boot, str) or not isinstance(of, str):
            raise ValueError("no death")  # noqa: TRY004 - what is read is wrong, not what is called
        is_failed_wake = values.get("failedWake") is True
        return cls(_number(values.get("at")) / 1000, _number(values.get("monotonic", 0)), boot, is_failed_wake, of)


Ring = tuple[Death, ...]


@dataclass(frozen=True)
class Refusal:
    """Why a peer is left asleep, in words, and in how many seconds it may be tried again: whole ones, at least 1.

    `deaths` is how many there were within the window, `failures` how many wakes in a row came to nothing.
    """

    cause: Literal["crash-loop", "wake-back-off"]
    reason: str
    retry_after_s: int
    deaths: int = 0
    failures: int = 0


def record(ring: Ring, death: Death) -> Ring:
    """Return the deaths with one more, the newest last; those that are too many are forgotten."""
    others = (each for each in ring if not (death.of and each.of == death.of))
    return (*others, death)[-KEPT:]


def trimmed(ring: Ring, now: Moment, policy: Policy) -> Ring:
    """Return the deaths after a wake that went well: those of late go on counting, and so do wakes that failed."""
    return tuple(each for each in ring if each.is_failed_wake or _is_recent(each, now, policy))


def settled(ring: Ring, now: Moment, policy: Policy) -> Ring:
    """Return the deaths once a session has outlived the window: no wake in a row has failed any more."""
    return tuple(each for each in trimmed(ring, now, policy) if not each.is_failed_wake)


def guard(ring: Ring, now: Moment, policy: Policy) -> Refusal | None:
    """Return why a peer must not be woken now; None where it may.

    Deaths of more than a minute from now are none. When both rules refuse, the one that does so longer answers.
    """
    refusals = [each for each in (_loop(ring, now, policy), _back_off(ring, now)) if each]
    return max(refusals, key=lambda each: each.retry_after_s, default=None)


def recent(ring: Ring, now: Moment, policy: Policy) -> int:
    """Return how many deaths there were within the window."""
    return sum(_is_recent(each, now, policy) for each in ring)


def parsed(found: bytes | None) -> Ring:
    """Return deaths as they were written; none where nothing was. Raise ValueError or RecursionError."""
    values = [] if found is None else json.loads(found)
    if not isinstance(values, list):
        raise ValueError("no deaths")  # noqa: TRY004 - what is read is wrong, not what is called
    return tuple(Death.from_json(each) for each in values)[-KEPT:]


def written(ring: Ring) -> bytes:
    """Return deaths as they are written: an array of JSON, the newest last."""
    return json.dumps([each.as_json() for each in ring]).encode("ascii") + b"\n"


def age_s(at: Moment | Death, now: Moment) -> float | None:
    """Return how long ago something was; None for what lies ahead of now, which no clock that was right has told.

    Within one boot that is what the machine has lived through since; across boots only the wall tells.
    """
    is_same = bool(now.boot) and at.boot == now.boot
    passed = now.monotonic - at.monotonic if is_same else now.wall - at.wall
    return max(0.0, passed) if passed >= -AHEAD_S else None


def _loop(ring: Ring, now: Moment, policy: Policy) -> Refusal | None:
    window = policy.crash_window_s
    ages = sorted(age for each in ring if (age := age_s(each, now)) is not None and age <= window)
    if len(ages) < policy.crash_max:
        return None
    # It may be tried once the oldest of the newest that are too many is out of the window, which its edge is still in.
    left = window - ages[policy.crash_max - 1]
    return Refusal("crash-loop", f"{len(ages)} deaths in {window:g}s", math.floor(left) + 1, deaths=len(ages))


def _back_off(ring: Ring, now: Moment) -> Refusal | None:
    ages = [age for each in ring if each.is_failed_wake and (age := age_s(each, now)) is not None]
    if not ages:
        return None
    left = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (len(ages) - 1)) - min(ages)
    if left <= _ROUNDING_S:
        return None
    count = len(ages)
    reason = "the last wake failed" if count == 1 else f"the last {count} wakes failed"
    return Refusal("wake-back-off", reason, math.ceil(left), failures=count)


def _is_recent(death: Death, now: Moment, policy: Policy) -> bool:
    age = age_s(death, now)
    return age is not None and age <= policy.crash_window_s


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _FAR:
        raise ValueError("no number")
    return value
