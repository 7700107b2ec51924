"""Whatever happens to sessions, clocks, files and reapers: who works is never parked, and no budget is overdrawn.

`INSTAR_REAPER_STEPS=100000` takes so many steps; a few thousand are taken where nobody says.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from instar.sessions.reaper.budget import FILE as BUDGET_FILE
from instar.sessions.reaper.budget import HOUR_S
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.reaper import LOCK
from instar.sessions.reaper.state import PATH as STATE
from instar.sessions.reaper.switch import PATH as SWITCH
from instar.sessions.reaper.switch import Switch
from instar.sessions.verdict import Verdict

from .worlds import CLEAR, CRITICAL, NORMAL, NOW, TICK, WORKS, Agent, World

STEPS_A_RUN = 50
STEPS = int(os.environ.get("INSTAR_REAPER_STEPS", "2500"))
PER_HOUR, COOLDOWN_S = 4, 30

NAMES = st.sampled_from(["a", "b", "c", "d"])
SECONDS = st.sampled_from([0.0, 1.0, 30.0, 60.0, TICK, TICK, TICK, 2 * TICK])
VERDICTS = st.sampled_from([WORKS, Verdict("all-clear", "", "low"), Verdict("lease:me", "")])
ANSWERS: list[Any] = [
    {"terminated": False, "skipped": "in-flight"},
    {"terminated": False, "skipped": "kill-failed"},
    {"terminated": False, "skipped": None},
    RuntimeError("no"),
]
PRESSURES = st.sampled_from(
    [CRITICAL, CRITICAL, CRITICAL, Readings(available_percent=8.0), NORMAL, Readings(), RuntimeError()]
)


class Reaping(RuleBasedStateMachine):
    """A project with sessions, one of which always works, and a world that plays tricks."""

    @initialize(mode=st.sampled_from(["live", "live", "dry-run"]))
    def begin(self, mode: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="reaper-"))
        self.world = World(self.folder, mode, maxReapsPerHour=PER_HOUR, cooldownSec=COOLDOWN_S)
        self.world.agents = {each: Agent() for each in "abcd"}
        self.world.agents["worker"] = Agent(WORKS, is_quiet=False)
        self.lived = self.began = 0.0  # by the clock that nobody sets, through all boots; and at the last look
        self.at: list[float] = []  # of each end
        self.idle: dict[str, float] = {}
        self.idle_at = 0.0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)

    def passes(self, seconds: float, wall: float | None = None) -> None:
        self.lived += seconds
        self.world.passes(seconds, wall)

    def tick(self) -> None:
        world = self.world
        shown = {name: (agent.verdict, agent.picture, agent.pid) for name, agent in world.agents.items()}
        was_off, before, last = self.is_off(), len(world.parked), self.watched()
        began = self.lived
        outcome = world.reaper.tick()
        self.began = began if outcome == "done" else self.began

        assert outcome in {"done", "off"}
        for name, _ in world.parked[before:]:
            assert not was_off
            assert shown[name][0] is CLEAR
            assert last[name]["marks"]["picture"] == shown[name][1], "the screen had changed"
            assert last[name]["agent"]["pid"] == shown[name][2], "it was another process"
            self.at.append(self.lived)

    def watched(self) -> dict[str, Any]:
        """Return what the reaper knows of its sessions; nothing where its file is spoilt."""
        try:
            watched: dict[str, Any] = self.world.state()["watched"]
        except (OSError, ValueError, KeyError, AssertionError):
            return {}
        return watched

    def is_off(self) -> bool:
        switched = Switch(self.world.root).read()
        configured = self.world.config["monitoring"]["sessionReaper"]
        live = configured["enabled"] and not configured["dryRun"]
        return bool(switched.cause or (switched.mode or ("live" if live else "off")) != "live")

    @rule(seconds=SECONDS, count=st.integers(1, 12))
    def time_goes_by(self, seconds: float, count: int) -> None:
        for _ in range(count):
            self.passes(seconds)
            self.world.agents["worker"].picture += 1
            self.tick()

    @rule()
    def a_quiet_time_comes(self) -> None:
        """Have somebody wait for the end, unless what came before forbids it."""
        self.world.readings = CRITICAL
        for name in "abcd":
            agent = self.world.agents[name]
            agent.pid, agent.is_over = agent.pid + agent.is_over, False
            agent.is_idle()
        for _ in range(9):
            self.passes(TICK)
            self.tick()

    @rule()
    def the_time_comes_that_it_waits_for(self) -> None:
        self.passes(self.world.reaper.next_due())
        self.tick()

    @rule(seconds=st.sampled_from([300.0, 4000.0, 90_000.0]))
    def nobody_ticks(self, seconds: float) -> None:
        self.passes(seconds)

    @rule(wall=st.sampled_from([-90_000.0, -3600.0, -60.0, 60.0, 3600.0, 90_000.0]))
    def the_clock_is_set_or_the_machine_sleeps(self, wall: float) -> None:
        self.passes(0, wall)

    @rule(name=NAMES, verdict=VERDICTS)
    def one_is_kept(self, name: str, verdict: Verdict) -> None:
        self.world.agents[name].verdict = verdict

    @rule(name=NAMES)
    def one_works(self, name: str) -> None:
        self.world.agents[name].is_prompted(self.world.wall)

    @rule(name=NAMES)
    def one_is_idle(self, name: str) -> None:
        self.world.agents[name].is_idle()

    @rule(name=NAMES)
    def one_redraws(self, name: str) -> None:
        self.world.agents[name].picture += 1

    @rule(name=NAMES)
    def one_goes_on_in_another_process(self, name: str) -> None:
        agent = self.world.agents[name]
        agent.pid += 1
        agent.is_over = False

    @rule(name=NAMES, seconds=st.sampled_from([0.0, 5.0]))
    def one_begins_to_work_as_it_is_looked_at(self, name: str, seconds: float) -> None:
        agent = self.world.agents[name]

        def on_look() -> None:
            self.passes(seconds)
            agent.works()
            agent.on_look = lambda: None

        agent.on_look = on_look

    @rule(name=NAMES)
    def looking_at_one_fails_once(self, name: str) -> None:
        agent = self.world.agents[name]

        def on_look() -> None:
            agent.on_look = lambda: None
            raise RuntimeError

        agent.on_look = on_look

    @rule(name=NAMES, answer=st.sampled_from([*ANSWERS, {"terminated": True, "skipped": None}]))
    def parking_one_goes_so(self, name: str, answer: Any) -> None:
        self.world.agents[name].answer = answer

    @rule(readings=PRESSURES)
    def the_pressure_is(self, readings: Any) -> None:
        self.world.readings = readings

    @rule()
    def another_process_takes_over(self) -> None:
        self.world.process()

    @rule()
    def another_process_ticks_just_now(self) -> None:
        with FileLock(self.world.root / LOCK):
            assert self.world.reaper.tick() in {"standby", "off"}

    @rule()
    def the_machine_is_started_anew(self) -> None:
        self.passes(100)
        self.world.boot += "+"
        self.world.monotonic = 5.0
        self.world.wall = NOW + self.lived
        self.world.process()

    @rule(mode=st.sampled_from(["off", "dry-run", "live", "live"]), is_set=st.booleans())
    def the_operator_wants(self, mode: Any, is_set: bool) -> None:  # noqa: FBT001 - hypothesis calls it
        if is_set:
            Switch(self.world.root).set(mode, by="me", reason="", now=self.world.wall)
        else:
            self.world.mode(mode)

    @rule()
    def the_operator_has_it_go_on(self) -> None:
        Switch(self.world.root).clear()

    @rule(path=st.sampled_from([STATE, SWITCH]), content=st.sampled_from([b"", b"[", b"null", b'{"mode": 5}']))
    def a_file_is_spoilt(self, path: str, content: bytes) -> None:
        place = self.world.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    @precondition(lambda self: self.world.shared.exists())
    @rule(is_mended=st.booleans())
    def the_budget_is_spoilt(self, is_mended: bool) -> None:  # noqa: FBT001 - hypothesis calls it
        place = self.world.shared / BUDGET_FILE
        before = place.read_bytes() if place.exists() else None
        place.write_bytes(b"{")
        ended = len(self.world.parked)
        self.passes(TICK)
        self.tick()
        assert len(self.world.parked) == ended
        if is_mended and before is not None:
            place.write_bytes(before)
        else:
            place.unlink()
            self.at.clear()  # nobody can know of them any more

    @invariant()
    def who_works_is_there(self) -> None:
        assert not self.world.agents["worker"].is_over
        assert not [name for name, _ in self.world.parked if name == "worker"]

    @invariant()
    def the_budget_holds(self) -> None:
        for at in self.at:
            assert sum(at <= each < at + HOUR_S for each in self.at) <= PER_HOUR
        assert all(later - at >= COOLDOWN_S for at, later in zip(self.at, self.at[1:]))

    @invariant()
    def idleness_is_what_was_observed(self) -> None:
        watched = self.watched()
        now = {name: each["candidacy"]["window_s"] + each["candidacy"]["carried_s"] for name, each in watched.items()}
        passed = self.lived - self.idle_at
        for name, seconds in now.items():
            assert seconds <= self.idle.get(name, 0.0) + passed + 1e-6
        self.idle, self.idle_at = now, self.began

    @invariant()
    def one_that_waits_is_idle_for_certain(self) -> None:
        for each in self.watched().values():
            if each["candidacy"]["pending"]:
                assert each["verdict"]["keptBy"] == "all-clear"
                assert each["candidacy"]["consecutive"] >= 3
                assert each["candidacy"]["window_s"] >= 600

    @invariant()
    def a_dry_run_leaves_no_trace_elsewhere(self) -> None:
        if not self.at and not self.world.parked and self.world.recovered == 0:
            assert not self.world.shared.exists()


@pytest.mark.timeout(max(120, STEPS // 20))
def test_who_works_is_never_parked() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis says nothing of it
        Reaping,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_A_RUN),
            stateful_step_count=STEPS_A_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_streams_hold_ends(tmp_path: Path) -> None:
    """Without any the test above would prove nothing: in a plain world all but who works are parked."""
    world = World(tmp_path, maxReapsPerHour=PER_HOUR, cooldownSec=COOLDOWN_S)
    world.agents = {each: Agent(prompted_at=NOW) for each in "abcd"} | {"worker": Agent(WORKS)}
    for _ in range(30):
        world.passes(world.reaper.next_due())
        world.reaper.tick()

    assert sorted(name for name, _ in world.parked) == list("abcd")
