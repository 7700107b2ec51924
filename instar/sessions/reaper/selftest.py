"""A harmless session that is idle for certain, and whether the reaper of this machine would park it.

It runs beside everything: in a project of its own, below a tmux server of its own, under pressure and by a clock that
are made up, and it is ended at last. The programs, the process table, tmux and the files are the real ones.
"""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.sessions import classifier, registry
from instar.sessions.assembly import Assembly
from instar.sessions.clock import Clock
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from instar.sessions.classifier import Gate
    from instar.sessions.verdict import Kept

SESSION: Final = "5e1f7e57-0000-4000-8000-000000000000"
MORE_TICKS: Final = 6  # for the pressure to be believed, and for the grace


@dataclass(frozen=True)
class Result:
    """What came of it. `ticks` and `minutes` are what it took, or how long it was tried, by the made-up clock.

    `kept_by` and `why` name what kept the session, "" where nothing did; `answers` are those of all gates at the end.
    """

    was_parked: bool
    ticks: int
    minutes: float
    kept_by: str = ""
    why: str = ""
    answers: tuple[tuple[Gate, Kept | None], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        kept = [{"gate": gate.name, "keptBy": word.by, "why": word.why} for gate, word in self.answers if word]
        said = {"parked": self.was_parked, "ticks": self.ticks, "minutes": round(self.minutes, 1)}
        return {**said, "keptBy": self.kept_by or None, "why": self.why, "gates": kept}


@dataclass
class MadeUpClock:
    """A clock that goes on only when it is told to, but for the little that the test itself takes."""

    passed: float = 0.0
    began: float = field(default_factory=time.monotonic)

    def clock(self) -> Clock:
        """Return it as the clock of everything."""
        return Clock(wall=lambda: time.time() + self.passed, monotonic=lambda: time.monotonic() + self.passed)


def selftest(root: Path, tell: Callable[[str], None] = lambda _line: None) -> Result:
    """Have a harmless session parked by the rules of a project; `tell` is told what happens. Raise InstarError."""
    if shutil.which("tmux") is None:
        raise InstarError("tmux is not on PATH: without it the reaper sees no screen, and parks nobody")
    with Stage(root) as stage:
        stage.start(SESSION)
        tell("a harmless session waits for a prompt, in a tmux server of its own")
        return _tried(stage, tell)


def _tried(stage: Stage, tell: Callable[[str], None]) -> Result:
    made_up, project = MadeUpClock(), stage.project
    shared = {"INSTAR_SHARED_ROOT": str(stage.folder / "shared")}
    assembly = Assembly(project, shared, made_up.clock(), read_pressure=lambda _before: Readings(available_percent=0.0))
    assembly.switch.set("live", by="selftest", reason="selftest", now=time.time())
    policy = assembly.policy()
    made_up.passed = max(policy.min_age_s, policy.recent_user_s)
    start = made_up.passed
    longest = max(policy.idle_critical_s, policy.confirm_window_s) + policy.grace_s
    most = math.ceil(longest / policy.tick_s) + policy.confirm_observations + MORE_TICKS
    for ticks in range(1, most + 1):
        assembly.reaper.tick()
        found = registry.session(project, SESSION)
        minutes = (made_up.passed - start) / 60
        if found is None or found.text("endedReason"):
            return _ended(found, Result(was_parked=True, ticks=ticks, minutes=minutes))
        if ticks % 5 == 0:
            tell(f"{minutes:.0f} minutes by the made-up clock: {_word(assembly)}")
        made_up.passed += max(1.0, min(policy.tick_s, assembly.reaper.next_due()))
    (sight,) = assembly.sights([found] if found else [])
    verdict, answers = classifier.judge(sight), tuple(classifier.explain(sight))
    return Result(False, most, minutes, verdict.kept_by, verdict.why, answers)  # noqa: FBT003 - as it is named


def _ended(found: registry.Session | None, result: Result) -> Result:
    """Return the result, if it was the reaper that ended the session."""
    reason = found.text("endedReason") if found else ""
    if reason == "reaped-idle":
        return result
    return Result(False, result.ticks, result.minutes, reason or "gone", "it ended by itself")  # noqa: FBT003 - as above


def _word(assembly: Assembly) -> str:
    rows = assembly.reaper.snapshot()["sessions"]
    return f"{rows[0]['keptBy']}, idle for {rows[0]['idleMs'] / 60_000:.0f} minutes" if rows else "nothing is seen"
