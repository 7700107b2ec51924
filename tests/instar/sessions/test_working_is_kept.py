"""A session at work is never parked, whatever its machine shows of it, hides, or gets wrong.

A client goes through its life as it does, and shows it by its screen, its title, its transcript and its processes; any
of these may be hidden or belated, clocks are set, the machine sleeps, the reaper is restarted. Whenever the reaper
parks the session, it has to be idle, and to have been so for as long as the policy asks.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.sessions.clock import Clock, iso
from instar.sessions.look import seen
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.reaper import SessionReaper
from instar.sessions.reaper.seen import Deps
from instar.sessions.reaper.switch import Switch
from tests.instar.sessions.world import AGENT, FRAMES, ONE, World

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = int(os.environ.get("INSTAR_STREAMS", "60"))  # of some 30 looks each
TICK_S = 120.0
CONFIG = {
    "minAgeMinutes": 1, "recentUserWindowMinutes": 1, "confirmWindowMinutes": 4, "idleThresholdCriticalMinutes": 6,
    "finalGraceSec": 30, "cooldownSec": 0, "maxReapsPerHour": 1000, "maxReapsPerTick": 10,
    "pressure": {"crossProcessJitterMs": 0},
}  # fmt: skip
THRESHOLD_S = 6 * 60.0

# What a client is at -> its frame, its title.
SHOWN = {
    "idle": ("claude-2.1.197-idle-after-turn", "✳ Claude Code"),
    "streaming": ("claude-2.1.197-working-streaming", "⠂ Claude Code"),
    "thinking": ("claude-2.1.197-working-streaming-2", "⠐ Claude Code"),
    "tool": ("claude-2.1.197-working-long-tool", "⠂ Claude Code"),
    "stop hook": ("claude-2.1.197-stop-hook-running", "⠂ Claude Code"),
    "permission": ("claude-2.1.197-permission-dialog", "✳ Claude Code"),
    "draft": ("claude-2.1.197-typed-not-sent", "✳ Claude Code"),
    "background": ("claude-2.1.197-idle-with-background-task", "✳ Claude Code"),
}
IN_A_TURN = {"streaming", "thinking", "tool", "stop hook", "permission"}
FAULTS = ("frame", "view", "table", "transcript", "status", "old frame", "old title")


def assistant(stop_reason: str, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "stop_reason": stop_reason, "content": [block]}}


@dataclass
class Machine:
    """A client's life, and a reaper that looks at it."""

    world: World
    shared: Path
    doing: str = "idle"
    faults: frozenset[str] = frozenset()
    monotonic: float = 10_000.0
    boot: str = "boot"
    idle_s: float = 0.0
    turns: int = 0
    parks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.world.config = {"monitoring": {"sessionReaper": CONFIG}}
        Switch(self.world.root).set("live", by="test", reason="test", now=self.world.now)
        self.shown = "idle"
        self.reaper = self.process()

    def process(self) -> SessionReaper:
        deps = Deps(
            policy=self.world.policy, look=self.look, park=self.park, recover=lambda: None,
            read_pressure=lambda _: Readings(available_percent=0.0), shared=self.shared, host="host",
            clock=Clock(lambda: self.world.now, lambda: self.monotonic, lambda: self.boot),
            sessions=lambda _: [self.world.look({}).session], sleep=lambda _: None,
        )  # fmt: skip
        return SessionReaper(self.world.root, deps=deps)

    def goes_on(self, doing: str) -> None:
        """Have the client begin something else, and write of it what it writes."""
        if doing == self.doing:
            if doing in {"streaming", "thinking"}:
                self.world.pane = replace(self.world.pane, activity=self.world.pane.activity + 1)
            return
        if doing in IN_A_TURN and self.doing not in IN_A_TURN:
            self.turns += 1
            self.write({"type": "user", "message": {"role": "user", "content": "more"}})
        if doing in {"tool", "permission"}:
            self.write(assistant("tool_use", {"type": "tool_use", "id": f"t{self.turns}", "name": "Bash", "input": {}}))
        if doing not in IN_A_TURN and self.doing in IN_A_TURN:
            if self.doing in {"tool", "permission"}:
                result = {"type": "tool_result", "tool_use_id": f"t{self.turns}", "content": "ok"}
                self.write({"type": "user", "message": {"role": "user", "content": [result]}})
            self.write(assistant("end_turn", {"type": "text", "text": "Done."}))
        self.has_process("tool", doing == "tool")
        self.has_process("background", doing == "background")
        self.doing, self.idle_s = doing, 0.0

    def has_process(self, name: str, is_there: bool) -> None:  # noqa: FBT001 - as it is
        pid = {"tool": 41, "background": 42}[name]
        self.world.processes.pop(pid, None)
        if is_there:
            self.world.add(pid, AGENT if name == "tool" else 1, "bash", self.world.now)
            self.world.environments.told[pid] = {"CLAUDE_CODE_SESSION_ID": ONE}

    def write(self, entry: dict[str, Any]) -> None:
        said = {"sessionId": ONE, "isSidechain": False, "version": "2.1.197", "timestamp": iso(self.world.now)}
        with self.world.transcript.open("a") as file:
            file.write(json.dumps({**said, "uuid": os.urandom(8).hex(), **entry}) + "\n")

    def look(self, sessions: Any, marks: Any, _policy: Any) -> list[Any]:
        """Look at the world as it shows itself, with what is hidden hidden."""
        assert [each.id for each in sessions] == [ONE]
        may_be_late = self.doing in IN_A_TURN  # of what is typed nothing else would tell
        world, shown = self.world, SHOWN[self.shown if may_be_late and "old frame" in self.faults else self.doing]
        title = SHOWN[self.shown if may_be_late and "old title" in self.faults else self.doing][1]
        world.frame = None if "frame" in self.faults else (FRAMES / f"{shown[0]}.txt").read_text()
        world.pane = replace(world.pane, title=title)
        world.view = replace(world.view, state="indeterminate" if "view" in self.faults else "answered")
        world.is_table_readable = "table" not in self.faults
        world.record["transcriptPath"] = "/nowhere" if "transcript" in self.faults else str(world.transcript)
        status = {"idle": "idle", "draft": "idle", "permission": "waiting", "background": "shell"}.get(
            self.doing, "busy"
        )
        world.say(**({} if "status" in self.faults else {"status": status}))
        world.monotonic = self.monotonic
        return [seen(world.look(marks.get(ONE, {})))]

    def park(self, _session: str, reason: str) -> dict[str, Any]:
        self.parks.append(reason)
        if self.doing != "idle" or self.idle_s < THRESHOLD_S - 2 * TICK_S:
            self.wrong.append(f"parked while it was at this for {self.idle_s} s: {self.doing}")
        return {"terminated": False, "skipped": "in-flight"}

    def is_upset(self, what: str, how: int) -> None:
        """Have the machine do what machines do."""
        if what == "set the clock":
            self.world.now += how
        elif what == "sleep":
            self.passes(how, is_asleep=True)
        elif what == "restart":
            self.reaper = self.process()
            self.boot = "another" if how else self.boot

    def passes(self, seconds: float, *, is_asleep: bool = False) -> None:
        self.world.now += seconds
        self.monotonic += 0 if is_asleep else seconds
        self.idle_s += 0 if is_asleep else seconds


UPSETS = st.one_of(
    st.just(("none", 0)),
    st.tuples(st.just("set the clock"), st.integers(-100_000, 100_000)),
    st.tuples(st.just("sleep"), st.integers(1, 100_000)),
    st.tuples(st.just("restart"), st.integers(0, 1)),
)
HIDDEN = st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(FAULTS), max_size=3))
EPISODES = st.lists(st.tuples(st.sampled_from(list(SHOWN)), st.integers(1, 12), HIDDEN, UPSETS), min_size=3, max_size=8)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(episodes=EPISODES)
def test_a_session_at_work_is_never_parked(tmp_path_factory: Any, episodes: list[Any]) -> None:
    folder = tmp_path_factory.mktemp("stream")
    machine = Machine(World(folder), folder / "shared")
    for doing, ticks, hidden, upset in episodes:
        machine.goes_on(doing)
        machine.faults = hidden
        for number in range(ticks):
            machine.reaper.tick()
            machine.shown = machine.doing
            machine.passes(min(TICK_S, max(1.0, machine.reaper.next_due())))
            if number == ticks // 2:
                machine.is_upset(*upset)
            machine.goes_on(doing)
            assert machine.wrong == []


def test_an_idle_one_is_parked_in_the_same_world(tmp_path: Path) -> None:
    machine = Machine(World(tmp_path), tmp_path / "shared")
    for _ in range(12):
        machine.reaper.tick()
        machine.passes(min(TICK_S, max(1.0, machine.reaper.next_due())))

    assert machine.parks[:1] == ["reaped-idle"]
