"""What a reaper knows from tick to tick: `.instar/state/session-reaper.json`, written whole.

What is there goes on in any process. What cannot be used, or is of another machine or of the future, is put aside.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from instar.files import replace_file, sweep
from instar.sessions.reaper.candidacy import Candidacy, Moment
from instar.sessions.reaper.pressure import Dwell, Readings
from instar.sessions.reaper.report import End, Sums

if TYPE_CHECKING:
    from pathlib import Path

    from instar.sessions.evidence import Marks

PATH: Final = ".instar/state/session-reaper.json"
SCHEMA: Final = 1
AHEAD_S: Final = 60.0  # that the clock of another boot may have been ahead
_BYTES: Final = 64 * 2**20


@dataclass
class Watched:
    """A session as the last tick left it. `agent` is the stamp of its process, `verdict` is as the snapshot tells it.

    `decided` is the verdict that was told in the audit last.
    """

    name: str
    agent: object
    candidacy: Candidacy
    marks: Marks
    verdict: dict[str, Any]
    decided: tuple[str, str] | None = None
    memory: int | None = None
    age_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**vars(self), "candidacy": self.candidacy.as_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Watched:
        """Return it as it was written. Raise ValueError or KeyError for what is none."""
        decided, marks, verdict = values["decided"], values["marks"], values["verdict"]
        if not isinstance(marks, dict) or not isinstance(verdict, dict):
            raise ValueError("no marks")  # noqa: TRY004 - what is read is wrong, not what is called
        return cls(
            name=str(values["name"]),
            agent=values["agent"],
            candidacy=Candidacy.from_json(values["candidacy"]),
            marks=marks,
            verdict=verdict,
            decided=(str(decided[0]), str(decided[1])) if decided else None,
            memory=values["memory"],
            age_s=values["age_s"],
        )


@dataclass
class State:
    """All that is known. `at` is the moment of the last tick, None before the first; times in seconds.

    `run_s` is how long ticks followed each other, `gaps` how often they did not since a whole window fitted.
    `held` is the gate that alone keeps all sessions, and for how long. `settling_s` is for how long the reaper has
    looked since it lost what it knew; None when it has looked long enough. `told` holds when what is told but now and
    then was told, `troubles` what went wrong in the last tick. `mode` is what held there.
    """

    host: str
    at: Moment | None = None
    mode: str = ""
    watched: dict[str, Watched] = field(default_factory=dict)
    dwell: Dwell = field(default_factory=Dwell)
    readings: Readings | None = None
    why_tier: str = ""
    sums: Sums = field(default_factory=Sums)
    ends: list[End] = field(default_factory=list)
    run_s: float = 0.0
    gaps: int = 0
    held: tuple[str, float] = ("", 0.0)
    settling_s: float | None = None
    told: dict[str, Moment] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    budget_why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "schema": SCHEMA,
            **vars(self),
            "at": self.at.as_json() if self.at else None,
            "watched": {key: each.as_json() for key, each in self.watched.items()},
            "dwell": self.dwell.as_json(),
            "readings": self.readings.as_json() if self.readings else None,
            "sums": self.sums.days,
            "ends": [each.as_json() for each in self.ends],
            "told": {key: each.as_json() for key, each in self.told.items()},
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> State:
        """Return it as it was written. Raise ValueError, KeyError, TypeError or AttributeError for what is none."""
        by, seconds = values["held"]
        settling = values["settling_s"]
        return cls(
            host=values["host"],
            at=Moment.from_json(values["at"]) if values["at"] else None,
            mode=str(values["mode"]),
            watched={str(key): Watched.from_json(each) for key, each in values["watched"].items()},
            dwell=Dwell.from_json(values["dwell"]),
            readings=Readings.from_json(values["readings"]),
            why_tier=str(values["why_tier"]),
            sums=Sums(values["sums"]),
            ends=[End.from_json(each) for each in values["ends"]],
            run_s=float(values["run_s"]),
            gaps=int(values["gaps"]),
            held=(str(by), float(seconds)),
            settling_s=None if settling is None else float(settling),
            told={str(key): Moment.from_json(each) for key, each in values["told"].items()},
            troubles=[str(each) for each in values["troubles"]],
            budget_why=str(values["budget_why"]),
        )


def load(root: Path, host: str, now: Moment) -> tuple[State, str]:
    """Return what is known, and "" or why what is there cannot be used; nothing is known then. Nothing is changed."""
    try:
        fd = os.open(root / PATH, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            values = json.loads(file.read(_BYTES))
    except FileNotFoundError:
        return State(host), ""
    except OSError as error:
        return State(host, settling_s=0.0), error.strerror or "it cannot be read"
    except (ValueError, RecursionError):
        return State(host, settling_s=0.0), "it is no JSON"
    why = _fault(values, host)
    if not why:
        try:
            state = State.from_json(values)
        except (ValueError, KeyError, TypeError, AttributeError):
            why = "it does not hold what it should"
        else:
            why = "it is from the future" if state.at and _is_ahead(state.at, now) else ""
            if not why:
                return state, ""
    return State(host, settling_s=0.0), why


def save(root: Path, state: State) -> None:
    """Write what is known; only by the one that ticks. Raise OSError."""
    sweep(root / PATH)
    replace_file(root / PATH, json.dumps(state.as_json(), separators=(",", ":")).encode("ascii") + b"\n")


def _fault(values: object, host: str) -> str:
    if not isinstance(values, dict):
        return "it holds no object"
    if values.get("schema") != SCHEMA:
        return "it is of another version"
    return "" if values.get("host") == host else "it is of another machine"


def _is_ahead(then: Moment, now: Moment) -> bool:
    """Say whether a moment lies ahead. Within a boot the clock that nobody can set tells."""
    if then.boot == now.boot:
        return then.monotonic > now.monotonic
    return then.wall > now.wall + AHEAD_S
