"""How many sessions a whole machine ends, and how fast: one file for the reapers of all projects.

`session-reaper-budget.json` in the shared folder: `{hour: [seconds since 1970, ...], lastReapAt}`, and the same by the
clock that nobody can set. Who cannot read it, or have its lock, ends nobody.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock, Timeout

from instar.files import private_folder, replace_file, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from instar.sessions.reaper.candidacy import Moment

FILE: Final = "session-reaper-budget.json"
LOCK: Final = "session-reaper-budget.lock"
HOUR_S: Final = 3600.0
LOCK_S: Final = 1.0
_BYTES: Final = 2**20

Blocked = Literal["busy", "unusable", "spent", "cooldown"]


@dataclass(frozen=True)
class Limits:
    """How many may be ended in an hour, and how many seconds lie between two at least."""

    per_hour: int
    cooldown_s: float


@dataclass(frozen=True)
class Answer:
    """Whether one more may be ended now. If not: by what it is blocked, in words too, and for how long, if known.

    `taken` is the moment under which one was taken, `last` when the one before it was.
    """

    used: int | None
    blocked: Blocked | None = None
    why: str = ""
    wait_s: float | None = None
    taken: Moment | None = None
    last: float | None = None


@dataclass(frozen=True)
class _Spent:
    """The ends of the last hour: by the wall, and by the clock of this boot that nobody can set."""

    wall: tuple[float, ...] = ()
    last: float | None = None
    boot: str = ""
    monotonic: tuple[float, ...] = ()

    def at(self, now: Moment) -> _Spent:
        """Return what still counts. A moment that lies ahead of now is now, and one before this boot is its beginning.

        So after a restart the last ones count for an hour again: how long the machine was off, no clock tells for sure.
        """
        wall = tuple(min(each, now.wall) for each in self.wall)
        is_same = self.boot == now.boot and max(self.monotonic, default=0.0) <= now.monotonic
        since_boot = self.monotonic if is_same else (0.0,) * len(self.monotonic)
        return _Spent(
            wall=tuple(each for each in wall if now.wall - each < HOUR_S),
            last=None if self.last is None else min(self.last, now.wall),
            boot=now.boot,
            monotonic=tuple(each for each in since_boot if now.monotonic - each < HOUR_S),
        )

    def used(self) -> int:
        """Return how many there were, by whichever clock says more: one of them may have been set ahead."""
        return max(len(self.wall), len(self.monotonic))

    def since_last(self, now: Moment) -> float:
        """Return the seconds since the last one, by the clock that nobody can set if it was of late."""
        if self.monotonic:
            return now.monotonic - max(self.monotonic)
        return math.inf if self.last is None else now.wall - self.last

    def as_json(self) -> dict[str, Any]:
        return {"hour": self.wall, "lastReapAt": self.last, "boot": self.boot, "monotonic": self.monotonic}


class Budget:
    """The budget of a machine, for any number of processes. Nothing here raises for what is on disk."""

    def __init__(self, shared: Path, *, sleep: Callable[[float], None], chance: Callable[[], float]) -> None:
        self._path = shared / FILE
        self._lock = shared / LOCK
        self._sleep = sleep
        self._chance = chance

    def look(self, limits: Limits, now: Moment) -> Answer:
        """Return whether one more might be ended now, and change nothing."""
        try:
            return _answer(self._read().at(now), limits, now)
        except (OSError, ValueError, RecursionError) as error:
            return _unusable(error)

    def take(self, limits: Limits, moment: Callable[[], Moment], jitter_s: float) -> Answer:
        """Take one of the budget, if there is one, so that nobody else can; `blocked` is None then.

        Reapers that come at once are spread over `jitter_s` first.
        """
        if jitter_s > 0:
            self._sleep(jitter_s * self._chance())
        try:
            private_folder(self._path.parent)
            with FileLock(self._lock, LOCK_S, mode=0o600):
                return self._take(limits, moment())
        except Timeout:
            return Answer(None, "busy", f"{LOCK} is held by another reaper")
        except (OSError, ValueError, RecursionError) as error:
            return _unusable(error)

    def give_back(self, answer: Answer) -> bool:
        """Give back what was taken and not used; say whether that was done."""
        taken = answer.taken
        if taken is None:
            return False
        try:
            with FileLock(self._lock, LOCK_S, mode=0o600):
                spent = self._read()
                wall = _without(spent.wall, taken.wall)
                monotonic = _without(spent.monotonic, taken.monotonic) if spent.boot == taken.boot else spent.monotonic
                last = answer.last if spent.last == taken.wall else spent.last
                self._write(replace(spent, wall=wall, last=last, monotonic=monotonic))
        except (Timeout, OSError, ValueError, RecursionError):
            return False
        return True

    def _take(self, limits: Limits, now: Moment) -> Answer:
        read = self._read()
        spent = read.at(now)
        answer = _answer(spent, limits, now)
        if answer.blocked is None:
            times = (*spent.monotonic, now.monotonic)
            self._write(replace(spent, wall=(*spent.wall, now.wall), last=now.wall, monotonic=times))
            return replace(answer, used=spent.used() + 1, taken=now, last=spent.last)
        if max((*read.wall, read.last or 0.0), default=0.0) > now.wall:
            self._write(spent)  # now is when those ahead begin to be over
        return answer

    def _read(self) -> _Spent:
        """Return what is on disk, nothing where there is no file. Raise OSError, and ValueError for what is unsound."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return _Spent()
        with os.fdopen(fd, "rb") as file:
            values = json.loads(file.read(_BYTES))
        if not isinstance(values, dict) or not isinstance(values.get("hour"), list):
            raise ValueError("it holds no hour")  # noqa: TRY004 - the file is wrong, not the call
        last = values.get("lastReapAt")
        boot, monotonic = values.get("boot", ""), values.get("monotonic", [])
        if not isinstance(boot, str) or not isinstance(monotonic, list):
            raise ValueError("it holds no boot")  # noqa: TRY004 - as above
        return _Spent(
            tuple(map(_number, values["hour"])),
            None if last is None else _number(last),
            boot,
            tuple(map(_number, monotonic)),
        )

    def _write(self, spent: _Spent) -> None:
        sweep(self._path)
        replace_file(self._path, json.dumps(spent.as_json()).encode("ascii") + b"\n")


def _answer(spent: _Spent, limits: Limits, now: Moment) -> Answer:
    used = spent.used()
    if used >= limits.per_hour:
        return Answer(used, "spent", f"{used} of {limits.per_hour} were ended on this machine in the last hour")
    left = limits.cooldown_s - spent.since_last(now)
    if left > 0:
        return Answer(used, "cooldown", "the last one was ended on this machine a moment ago", left)
    return Answer(used)


def _unusable(error: Exception) -> Answer:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Answer(None, "unusable", f"{FILE} cannot be used: {why}; it has to be repaired or removed by hand")


def _without(times: tuple[float, ...], time: float) -> tuple[float, ...]:
    """Return times without one that is this one; all of them where it is not there."""
    place = next((number for number, each in enumerate(times) if each == time), None)
    return times if place is None else times[:place] + times[place + 1 :]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("it holds what is no time")
    return value
