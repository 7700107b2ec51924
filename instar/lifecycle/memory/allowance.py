"""How often a peer may be woken and told something within an hour, so that two that answer each other come to rest.

`<identity>.allowance`, for any number of processes: `{wakes: [moment, ...], sends: [...]}`.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final, Literal, get_args

from instar.errors import InstarError
from instar.lifecycle.deaths import age_s
from instar.lifecycle.memory.folder import Folder
from instar.sessions.clock import Clock
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal["wakes", "sends"]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
FILE: Final = ".allowance"
HOUR_S: Final = 3600.0

_Spent = dict[Kind, tuple[Moment, ...]]


class Allowance:
    """The hourly budgets of all peers of a project. What cannot be locked or written raises InstarError."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._folder = Folder(root)

    def spend(self, identity: str, kind: Kind, per_hour: int) -> int | None:
        """Take one of the budget, so that nobody else can; return None.

        Where there is none left, take nothing and return in how many seconds there is: whole ones, an hour at most. A
        budget that cannot be read is put aside, and one of each kind counts as taken now.
        """
        with self._folder.lock(identity):
            now = Moment.of(self._clock)
            spent = self._read(identity, now)
            if spent is None:
                self._folder.set_aside(identity, FILE, now.wall)
                spent = _unknown(now)
                self._write(identity, spent)
            wait = _wait(spent[kind], now, per_hour)
            if wait is None:
                self._write(identity, {**spent, kind: (*spent[kind], now)})
        return wait

    def _read(self, identity: str, now: Moment) -> _Spent | None:
        """Return what still counts; None where that cannot be told."""
        try:
            spent = _parsed(self._folder.read(identity, FILE))
        except (InstarError, ValueError, OverflowError, RecursionError):
            return None
        return {kind: tuple(each for each in moments if _counts(each, now)) for kind, moments in spent.items()}

    def _write(self, identity: str, spent: _Spent) -> None:
        values = {kind: [each.as_json() for each in moments] for kind, moments in spent.items()}
        self._folder.write(identity, FILE, json.dumps(values).encode("ascii") + b"\n")


def _unknown(now: Moment) -> _Spent:
    return dict.fromkeys(KINDS, (now,))


def _wait(moments: tuple[Moment, ...], now: Moment, per_hour: int) -> int | None:
    if len(moments) < per_hour:
        return None
    ages = sorted(age_s(each, now) or 0.0 for each in moments)
    left = HOUR_S - ages[per_hour - 1] if per_hour > 0 else HOUR_S
    return max(1, math.ceil(left))


def _counts(moment: Moment, now: Moment) -> bool:
    age = age_s(moment, now)
    return age is not None and age < HOUR_S


def _parsed(found: bytes | None) -> _Spent:
    """Return what was written. Raise ValueError or RecursionError for what is none of it."""
    values = {} if found is None else json.loads(found)
    if not isinstance(values, dict) or not all(isinstance(values.get(kind, []), list) for kind in KINDS):
        raise ValueError("no budget")
    return {kind: tuple(map(Moment.from_json, values.get(kind, []))) for kind in KINDS}
