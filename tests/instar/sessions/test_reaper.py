"""The reaper: who is idle for certain is parked in good time, whoever may work never is."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from clients.waiting import wait_until
from instar.errors import InstarError
from instar.sessions.reaper.budget import FILE as BUDGET_FILE
from instar.sessions.reaper.budget import LOCK as BUDGET_LOCK
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.reaper import LOCK
from instar.sessions.reaper.state import PATH as STATE
from instar.sessions.reaper.switch import Switch
from instar.sessions.verdict import Verdict

from .worlds import CLEAR, CRITICAL, NORMAL, NOW, TICK, WORKS, Agent, World

if TYPE_CHECKING:
    from pathlib import Path

PENDING_AT = 9  # looks, under critical pressure
UNSURE = Verdict("frame-unreadable", "", "low")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    world.agents["idle"] = Agent()
    return world


def pending(world: World) -> None:
    """Let it become pending."""
    world.ticks(PENDING_AT)
    assert world.row("idle")["reapPending"]


# When


def test_an_idle_session_is_parked_under_pressure(world: World) -> None:
    pending(world)
    assert world.parked == []
    assert world.reaper.next_due() == 60
    world.ticks(1, 60)

    assert world.parked == [("idle", "reaped-idle")]
    assert world.events() == ["reap-pending", "reaped"]
    first, last = world.rows()
    assert (first["tier"], first["idleMs"], first["thresholdMs"]) == ("critical", 960_000, 900_000)
    assert (last["idleMs"], last["reason"], last["dryRun"], last["memory"]) == (1_020_000, "reaped-idle", False, 100)


def test_not_before_its_grace_is_over(world: World) -> None:
    pending(world)
    world.ticks(1, 59)
    assert world.parked == []
    world.ticks(1, 1)
    assert len(world.parked) == 1


@pytest.mark.parametrize(("readings", "ticks"), [(Readings(available_percent=8.0), 25), (CRITICAL, 10)])
def test_the_tier_tells_when(world: World, readings: Readings, ticks: int) -> None:
    world.readings = readings
    world.ticks(ticks - 1)
    assert world.parked == []
    world.ticks(1)
    assert len(world.parked) == 1


@pytest.mark.parametrize("readings", [NORMAL, Readings(), RuntimeError("no pressure")])
def test_without_pressure_nobody_is_parked(world: World, readings: Readings | Exception) -> None:
    world.readings = readings
    world.ticks(100)

    assert world.parked == []
    assert world.events() == []


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"monitoring": {"sessionReaper": {"enabled": True, "dryRun": False, "normalTierReaps": True}}}, "reaped-idle"),
        ({"sessions": {"idleKillMinutes": 15}}, "idle-zombie"),
        ({"sessions": {"maxAgeMinutes": 60}}, "age-limit"),
    ],
)
def test_rules_that_need_no_pressure(world: World, config: dict[str, Any], reason: str) -> None:
    world.readings = NORMAL
    world.config = {"monitoring": world.config["monitoring"], **config}
    world.ticks(30)

    assert world.parked == [("idle", reason)]


@pytest.mark.parametrize("verdict", [WORKS, UNSURE, Verdict("all-clear", "", "low")])
def test_one_that_may_work_is_never_parked(world: World, verdict: Verdict) -> None:
    world.agents["idle"].verdict = verdict
    world.ticks(200)

    assert world.parked == []
    assert world.row("idle")["consecutive"] == 0


def test_one_that_moves_between_the_looks_is_never_parked(world: World) -> None:
    for _ in range(100):
        world.agents["idle"].picture += 1
        world.ticks()

    assert world.parked == []
    assert world.row("idle")["consecutive"] == 1


# The grace


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"verdict": WORKS}, {"keptBy": "turn-open"}),
        ({"verdict": UNSURE}, {"keptBy": "frame-unreadable"}),
        ({"picture": 5}, {"reason": "frame-changed-during-grace"}),
        ({"pid": 5}, {"reason": "identity-changed"}),
        ({"is_over": True}, {"reason": "vanished"}),
    ],
)
@pytest.mark.parametrize("seconds", [30, 60])
def test_what_happens_in_the_grace_ends_it(
    world: World, change: dict[str, Any], detail: dict[str, str], seconds: float
) -> None:
    pending(world)
    for name, value in change.items():
        setattr(world.agents["idle"], name, value)
    world.ticks(1, seconds)
    assert world.events() == ["reap-pending", "reap-aborted"]
    assert detail.items() <= world.rows()[-1].items()

    world.agents["idle"].verdict = CLEAR
    world.ticks(PENDING_AT - 2)
    assert world.parked == []


@pytest.mark.parametrize(
    ("change", "moments"),
    [({"verdict": WORKS}, [False, True]), ({"picture": 5}, [False, True]), ({"pid": 5}, [True, False])],
)
def test_what_the_last_look_shows_ends_it(world: World, change: dict[str, Any], moments: list[bool]) -> None:
    pending(world)
    agent = world.agents["idle"]
    looks = iter(moments)

    def on_look() -> None:
        if next(looks):
            vars(agent).update(change)

    agent.on_look = on_look
    world.ticks(1, 60)

    assert world.parked == []
    assert world.events() == ["reap-pending", "reap-aborted"]


def test_one_that_is_gone_at_the_last_look_is_forgotten(world: World) -> None:
    pending(world)
    world.agents["other"] = Agent()
    world.agents["other"].on_look = lambda: setattr(world.agents["idle"], "is_over", True)
    world.ticks(1, 60)

    assert world.parked == []
    assert world.rows()[-1]["reason"] == "vanished"
    assert list(world.state()["watched"]) == ["other"]


@pytest.mark.parametrize(("by", "count"), [("reaper", 1), ("operator", 0)])
def test_an_end_that_a_reaper_did_not_live_to_put_down_is_put_down_by_the_next(
    world: World, by: str, count: int
) -> None:
    pending(world)
    agent, _ = world.agents["idle"], world.process()
    agent.is_over = agent.is_ending = True  # it has ended, and what a reaper left of that is not settled yet
    world.ticks(2)
    assert world.events() == ["reap-pending"]
    agent.is_ending, agent.parked = False, {"by": by, "reason": "reaped-idle"}
    world.ticks(2)

    assert world.events().count("reaped") == world.reaper.snapshot()["reapsLastHour"] == count
    assert [each["reason"] for each in world.reaper.snapshot()["recent"]] == ["reaped-idle"] * count


def test_pressure_that_fell_meanwhile_puts_the_end_off(world: World) -> None:
    pending(world)
    world.readings = NORMAL
    world.ticks(1, 60)

    assert world.parked == []
    assert world.rows()[-1]["event"] == "reap-deferred"
    assert not world.row("idle")["reapPending"]
    world.readings = CRITICAL
    world.ticks(2)
    assert len(world.parked) == 1


def test_pressure_is_read_before_each_end(world: World) -> None:
    world.agents["second"] = Agent()
    world.config["monitoring"]["sessionReaper"]["cooldownSec"] = 0
    pending(world)
    world.agents["idle"].on_look = lambda: None
    park = world.park

    def relieving(session_id: str, reason: str) -> Any:
        world.readings = NORMAL
        return park(session_id, reason)

    world.park = relieving  # type: ignore[method-assign]  # the world changes with it
    world.process()
    world.ticks(1, 60)

    assert len(world.parked) == 1
    assert world.events()[-1] == "reap-deferred"


# Budgets


def test_the_longest_idle_go_first_and_of_equals_the_largest(tmp_path: Path) -> None:
    world = World(tmp_path, cooldownSec=0, maxReapsPerTick=2)
    world.agents = {"small": Agent(memory=1), "large": Agent(memory=9), "middle": Agent(memory=5)}
    world.ticks(2)
    world.agents["late"] = Agent(memory=99)
    world.ticks(PENDING_AT - 2)
    waiting = {each["sessionId"] for each in world.reaper.snapshot()["sessions"] if each["reapPending"]}
    assert waiting == {"large", "middle"}
    world.ticks(10)

    assert [each for each, _ in world.parked] == ["large", "middle", "small", "late"]


def test_no_more_wait_for_their_end_than_may_be_ended(tmp_path: Path) -> None:
    world = World(tmp_path, maxReapsPerTick=2, cooldownSec=0)
    world.agents = {str(number): Agent() for number in range(10)}
    for _ in range(20):
        world.ticks(1, 30)
        assert sum(each["reapPending"] for each in world.reaper.snapshot()["sessions"]) <= 2


def test_the_hour_has_an_end(tmp_path: Path) -> None:
    world = World(tmp_path, maxReapsPerHour=3, cooldownSec=0)
    world.agents = {str(number): Agent() for number in range(10)}
    world.ticks(25)

    assert len(world.parked) == 3
    assert world.reaper.snapshot()["hostBudget"] == {"used": 3, "limit": 3, "blocked": "spent"}
    assert world.reaper.snapshot()["reapsLastHour"] == 3
    assert len(world.rows("reap-deferred")) == 1
    world.ticks(30)
    assert len(world.parked) == 6


def test_between_two_the_machine_is_measured_again(tmp_path: Path) -> None:
    world = World(tmp_path, cooldownSec=90)
    world.agents = {str(number): Agent() for number in range(3)}
    world.ticks(PENDING_AT)
    world.ticks(1, 60)
    assert len(world.parked) == 1
    assert world.reaper.next_due() == 90

    world.ticks(1, 89)
    assert len(world.parked) == 1
    world.ticks(1, 1)
    assert len(world.parked) == 2
    assert len(world.rows("reap-deferred")) == 2  # each once, however often it is looked at


def test_projects_share_the_budget_of_their_machine(tmp_path: Path) -> None:
    worlds = []
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        world = World(folder, maxReapsPerHour=3, cooldownSec=0)
        world.shared = tmp_path / "shared"
        world.process()
        world.agents = {str(number): Agent() for number in range(4)}
        worlds.append(world)
    for _ in range(20):
        for world in worlds:
            world.ticks()

    assert sum(len(world.parked) for world in worlds) == 3


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"hour": ["x"]}'])
def test_a_budget_that_cannot_be_used_ends_nobody(world: World, content: bytes) -> None:
    world.shared.mkdir()
    (world.shared / BUDGET_FILE).write_bytes(content)
    world.ticks(60)

    assert world.parked == []
    assert world.reaper.snapshot()["hostBudget"]["blocked"] == "unusable"
    assert len(world.rows("reap-deferred")) == 1
    (world.shared / BUDGET_FILE).unlink()
    world.ticks(2)
    assert len(world.parked) == 1


def test_a_budget_that_is_spoilt_in_the_grace_ends_nobody(world: World) -> None:
    pending(world)
    world.shared.mkdir()
    (world.shared / BUDGET_FILE).write_bytes(b"{")
    world.ticks(1, 60)

    assert world.parked == []
    assert world.events()[:2] == ["reap-pending", "reap-deferred"]
    assert world.row("idle")["restTicks"] == 1


def test_a_budget_in_another_reapers_hand_ends_nobody_just_now(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instar.sessions.reaper.budget.LOCK_S", 0.0)
    pending(world)
    world.shared.mkdir()
    with FileLock(world.shared / BUDGET_LOCK):
        world.ticks(1, 60)
        assert world.parked == []
        assert world.row("idle")["deferred"] == "busy"
    world.ticks(1, 1)
    assert len(world.parked) == 1


# What a park says


@pytest.mark.parametrize("skipped", ["in-flight", "turn-open", "identity-mismatch", "not-found", "lease:me"])
def test_a_refusal_with_a_reason_is_a_normal_thing(world: World, skipped: str) -> None:
    world.agents["idle"].answer = {"terminated": False, "skipped": skipped}
    world.ticks(60)

    assert not Switch(world.root).read().is_auto_disabled
    told = world.rows("reap-skipped")
    assert {row["skipped"] for row in told} == {skipped}
    assert len(told) == 6  # 1, 2, 4, 8, 16 ticks apart, and the grace
    assert world.reaper.snapshot()["hostBudget"]["used"] == 0
    world.agents["idle"].answer = {"terminated": True, "skipped": None}
    world.ticks(40)
    assert len(world.parked) == 1


@pytest.mark.parametrize(
    ("answer", "event"),
    [
        ({"terminated": False, "skipped": "kill-failed"}, "reap-skipped-auto-disable"),
        ({"terminated": False, "skipped": "kill-unverified"}, "reap-skipped-auto-disable"),
        ({"terminated": False, "skipped": None}, "reap-skipped-auto-disable"),
        ({"terminated": False, "skipped": ""}, "reap-skipped-auto-disable"),
        ({"terminated": False}, "reap-skipped-auto-disable"),
        ({"terminated": "yes", "skipped": ["x"]}, "reap-skipped-auto-disable"),
        (RuntimeError("/secret/place"), "reap-failed-auto-disable"),
        (KeyError("x"), "reap-failed-auto-disable"),
        (None, "reap-failed-auto-disable"),
        ({}, "reap-failed-auto-disable"),
    ],
)
def test_what_nobody_understands_stops_the_reaper_for_good(world: World, answer: object, event: str) -> None:
    world.agents["idle"].answer = answer
    world.agents["other"] = Agent()
    pending(world)
    world.ticks(1, 60)
    assert world.events()[-1] == event
    assert world.parked == []

    world.process()
    world.ticks(60)

    assert world.parked == []
    told = world.reaper.snapshot()
    assert (told["autoDisabled"], told["dryRun"], told["mode"]) == (True, True, "dry-run")
    assert told["autoDisableCause"]
    assert "secret" not in json.dumps([told, world.rows()])
    world.agents["idle"].answer = {"terminated": True, "skipped": None}
    Switch(world.root).clear()
    world.ticks(2)
    assert world.parked


def test_that_it_stopped_itself_holds_where_it_cannot_be_written(world: World) -> None:
    world.agents["idle"].answer = RuntimeError()
    pending(world)
    switch = world.root / ".instar/state/session-reaper-mode.lock"
    switch.mkdir()
    world.ticks(1, 60)
    assert not Switch(world.root).read().is_auto_disabled
    world.agents["idle"].answer = {"terminated": True, "skipped": None}

    world.ticks(30)
    assert world.parked == []
    switch.rmdir()
    world.ticks(30)
    assert world.parked == []
    assert Switch(world.root).read().is_auto_disabled


def test_the_switch_holds_in_the_last_moment(world: World) -> None:
    pending(world)
    switch = Switch(world.root)
    looks = iter([False, True])
    world.agents["idle"].on_look = lambda: next(looks) and switch.set("off", by="me", reason="", now=NOW)  # type: ignore[func-returns-value]
    world.ticks(1, 60)

    assert world.parked == []
    assert world.ticks() == "off"


# What fails


def test_one_bad_session_hides_no_other(tmp_path: Path) -> None:
    world = World(tmp_path, cooldownSec=0)
    world.agents = {str(number): Agent() for number in range(20)}

    def fail() -> None:
        raise RuntimeError("/secret/place")

    world.agents["7"].on_look = fail
    world.ticks(60)

    assert {each for each, _ in world.parked} == {str(number) for number in range(20)} - {"7"}
    assert (world.row("7")["keptBy"], world.row("7")["confidence"]) == ("eval-error", "low")
    assert "secret" not in (world.root / STATE).read_text()


def test_a_session_that_fails_at_the_last_look_is_kept(world: World) -> None:
    pending(world)
    looks = iter([False, True])

    def fail() -> None:
        if next(looks):
            raise RuntimeError

    world.agents["idle"].on_look = fail
    world.ticks(1, 60)

    assert world.parked == []
    assert world.rows()[-1]["keptBy"] == "eval-error"


@pytest.mark.parametrize(("fails", "is_told"), [([True], False), ([False, True], True)])
def test_where_the_sessions_cannot_be_listed_nobody_is_parked(world: World, fails: list[bool], is_told: bool) -> None:  # noqa: FBT001 - a column
    pending(world)
    calls = iter(fails)

    def fail() -> None:
        if next(calls, False):
            raise InstarError("/secret/place")

    world.on_list = fail
    world.ticks(1, 60)

    assert world.parked == []
    assert [row["sessionId"] for row in world.rows("reap-deferred")] == ["idle"] * is_told
    assert ("the sessions cannot be listed: InstarError" in world.state()["troubles"]) is not is_told
    assert "secret" not in json.dumps([world.state(), world.rows()])
    world.ticks(3)
    assert len(world.parked) == 1


def test_looking_that_takes_too_long_ends(tmp_path: Path) -> None:
    world = World(tmp_path, maxTickSec=60)
    world.agents = {str(number): Agent() for number in range(64)}

    def fail() -> None:
        world.passes(10)
        raise RuntimeError

    for agent in world.agents.values():
        agent.on_look = fail
    world.ticks(1)

    assert len(world.looks) < 20
    assert {each["keptBy"] for each in world.reaper.snapshot()["sessions"]} == {"eval-error"}


def test_what_a_look_leaves_out_is_kept(world: World) -> None:
    world.look = lambda *_: []  # type: ignore[method-assign]  # it says nothing
    world.process()
    world.ticks(20)

    assert world.parked == []
    assert world.row("idle")["keptBy"] == "eval-error"


def test_where_nothing_can_be_settled_nobody_is_parked(world: World) -> None:
    world.recovery = InstarError("/secret/place")
    world.ticks(30)
    assert world.parked == []
    assert any("settled" in each for each in world.reaper.snapshot()["troubles"])

    world.recovery = None
    world.ticks(2)
    assert len(world.parked) == 1


def test_a_configuration_with_faults_parks_nobody(world: World) -> None:
    world.config["monitoring"]["sessionReaper"]["tickIntervalSec"] = "120"
    world.ticks(30)

    assert world.parked == []
    assert world.rows("would-reap")
    assert any("tickIntervalSec" in each for each in world.reaper.snapshot()["troubles"])


def test_a_tick_that_took_too_long_says_so_once_an_hour(world: World) -> None:
    world.looking_takes = 70.0
    world.agents["idle"].verdict = WORKS
    world.ticks(15)

    assert len(world.rows("tick-overrun")) == 1
    world.ticks(20)
    assert len(world.rows("tick-overrun")) == 2


# Alone, and in several processes


def test_off_is_off(tmp_path: Path) -> None:
    world = World(tmp_path, "off")
    world.agents["idle"] = Agent()

    assert world.ticks(30) == "off"
    assert (world.looks, world.recovered) == ([], 0)
    assert not (world.root / STATE).exists()
    assert world.reaper.snapshot()["enabled"] is False


def test_one_at_a_time_ticks(world: World) -> None:
    world.ticks(1)
    with FileLock(world.root / LOCK):
        assert world.ticks(1) == "standby"
        assert world.reaper.snapshot()["standby"]
        assert world.reaper.next_due() == TICK
    assert world.ticks(1) == "done"
    assert not world.reaper.snapshot()["standby"]


HOLDER = """
import sys
from filelock import FileLock

with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_was_killed_in_its_tick_holds_up_nobody(world: World) -> None:
    world.ticks(1)
    command = [sys.executable, "-c", HOLDER, str(world.root / LOCK)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert world.ticks(1) == "standby"
        holder.kill()
        holder.wait()
        assert world.ticks(1) == "done"


def test_a_tick_within_a_tick_is_none(world: World) -> None:
    said: list[str] = []
    world.agents["idle"].on_look = lambda: said.append(world.reaper.tick())

    assert world.ticks(1) == "done"
    assert said == ["busy"]


def test_a_process_a_tick_is_as_good_as_one_for_all(world: World) -> None:
    for _ in range(PENDING_AT):
        world.process()
        world.ticks(1)
    world.process()
    world.ticks(1, 60)

    assert len(world.parked) == 1


@pytest.mark.parametrize("gap", [2 * TICK + 1, 86_400.0])
def test_after_a_gap_a_whole_window_is_looked_at_first(world: World, gap: float) -> None:
    pending(world)
    world.ticks(1, gap)
    assert world.events() == ["reap-pending", "reap-aborted"]
    assert world.rows()[-1]["reason"] == "gap-during-grace"
    world.ticks(5)
    assert world.parked == []
    assert world.row("idle")["reapPending"]
    world.ticks(1, 60)
    assert len(world.parked) == 1


def test_a_machine_that_slept_shows_as_a_clock_that_was_set(world: World) -> None:
    world.ticks(4)
    world.passes(0, wall=86_400)
    world.ticks(4)

    assert world.row("idle")["idleMs"] == 7 * TICK * 1000
    assert world.parked == []


def test_restarts_that_leave_no_window_are_told_once_an_hour(world: World) -> None:
    for _ in range(20):
        world.ticks(3)
        world.passes(300)

    assert world.parked == []
    told = world.rows("reaper-starved")
    assert 2 <= len(told) <= 4
    assert "window" in told[0]["why"]


def test_one_gate_that_keeps_all_for_a_day_is_told(world: World) -> None:
    world.agents["idle"].verdict = WORKS
    world.agents["other"] = Agent(verdict=WORKS)
    world.ticks(720)
    assert world.rows("reaper-starved") == []
    world.ticks(10)
    assert [row["keptBy"] for row in world.rows("reaper-starved")] == ["turn-open"]
    world.ticks(700)
    assert len(world.rows("reaper-starved")) == 1


SAVED: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b'{"schema": 99}',
    b'{"schema": 1}',
    b'{"schema": 1, "host": "host"}',
    b"[" * 90_000,
]


@pytest.mark.parametrize("content", SAVED, ids=lambda each: repr(each)[:30])
def test_a_state_that_cannot_be_used_is_put_aside(world: World, content: bytes) -> None:
    world.ticks(8)
    (world.root / STATE).write_bytes(content)
    world.process()
    world.ticks(1)

    assert world.events() == ["state-discarded"]
    kept = [each for each in (world.root / STATE).parent.iterdir() if ".corrupt-" in each.name]
    assert [each.read_bytes() for each in kept] == [content]
    assert world.row("idle")["consecutive"] == 1


@pytest.mark.parametrize("spoil", ["host", "future boot clock", "future wall clock", "candidacy"])
def test_a_state_of_another_place_or_time_is_put_aside(world: World, spoil: str) -> None:
    world.ticks(8)
    if spoil == "host":
        world.host = "another"
    elif spoil == "future boot clock":
        world.monotonic -= 10_000
    elif spoil == "future wall clock":
        world.boot, world.wall = "another", world.wall - 10_000
    else:
        values = world.state()
        values["watched"]["idle"]["candidacy"]["window_s"] = -5
        (world.root / STATE).write_text(json.dumps(values))
    world.process()
    world.ticks(1)

    assert world.events() == ["state-discarded"]


def test_who_lost_what_it_knew_looks_for_as_long_as_at_a_new_session(world: World) -> None:
    world.ticks(1)
    (world.root / STATE).write_bytes(b"{")
    world.ticks(15)
    assert world.parked == []
    assert not world.row("idle")["reapPending"]
    world.ticks(3)
    assert len(world.parked) == 1


def test_a_mode_that_changes_ends_what_waited(world: World) -> None:
    world.mode("dry-run")
    pending(world)
    world.mode("live")
    world.ticks(1, 60)
    assert world.parked == []
    assert world.row("idle")["reapPending"]
    world.ticks(1, 60)
    assert len(world.parked) == 1


# Dry runs


def test_a_dry_run_tells_once_and_changes_nothing_but_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, "dry-run")
    world.agents = {str(number): Agent() for number in range(4)}
    world.ticks(100)

    assert (world.parked, world.recovered) == ([], 0)
    assert len(world.rows("would-reap")) == 4
    assert all(row["dryRun"] for row in world.rows("would-reap"))
    files = {str(each.relative_to(tmp_path)) for each in tmp_path.rglob("*") if each.is_file()}
    own = {STATE, LOCK, ".instar/logs/sentinel-events.jsonl", ".instar/logs/reaper-audit.jsonl"}
    assert files <= {f"project/{each}" for each in own}


def test_a_new_candidacy_is_told_anew(tmp_path: Path) -> None:
    world = World(tmp_path, "dry-run")
    world.agents["idle"] = Agent()
    world.ticks(12)
    world.agents["idle"].is_prompted(world.wall)
    world.ticks(1)
    world.agents["idle"].is_idle()
    world.ticks(12)

    assert len(world.rows("would-reap")) == 2


def test_what_was_told_in_a_dry_run_may_be_done_later(tmp_path: Path) -> None:
    world = World(tmp_path, "dry-run")
    world.agents["idle"] = Agent()
    world.ticks(20)
    world.mode("live")
    world.ticks(2)

    assert len(world.parked) == 1


# What is shown


def test_a_snapshot_tells_what_the_last_tick_left(world: World) -> None:
    before = world.reaper.snapshot()
    assert (before["lastTickAt"], before["sessions"], before["ageS"]) == (0, [], None)
    pending(world)
    world.passes(30)
    looked = len(world.looks)

    told = world.reaper.snapshot()

    assert len(world.looks) == looked
    assert told["lastTickAt"] == round((world.wall - 30) * 1000)
    assert (told["ageS"], told["activeThresholdMinutes"], told["enabled"], told["dryRun"]) == (30, 15, True, False)
    assert told["pressure"]["tier"] == "critical"
    assert told["pressure"]["inputs"]["availablePercent"] == 1.0
    row = told["sessions"][0]
    assert (row["verdict"], row["keptBy"], row["consecutive"]) == ("reap-eligible", "all-clear", 9)
    assert (row["idleMs"], row["reapPending"], row["stale"], row["name"]) == (960_000, True, False, "tmux-idle")
    world.passes(1000)
    assert world.row("idle")["stale"]
    assert "secret" not in json.dumps(told)


@pytest.mark.parametrize("ask", ["snapshot", "fresh", "evaluate", "audit", "report", "next_due"])
def test_asking_changes_nothing(world: World, tmp_path: Path, ask: str) -> None:
    def files() -> dict[str, bytes]:
        return {str(each): each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}

    pending(world)
    before = files()
    world.passes(60)
    for _ in range(3):
        if ask == "fresh":
            world.reaper.snapshot(fresh=True)
        elif ask == "evaluate":
            assert world.reaper.evaluate("idle")["verdict"] == "reap-eligible"
        else:
            getattr(world.reaper, ask)()

    assert files() == before
    assert world.parked == []


def test_a_fresh_snapshot_looks_again(world: World) -> None:
    world.ticks(3)
    world.agents["idle"].works()

    assert world.reaper.snapshot()["sessions"][0]["verdict"] == "reap-eligible"
    assert world.reaper.snapshot(fresh=True)["sessions"][0]["keptBy"] == "turn-open"


def test_a_signal_that_fails_is_a_word_on_its_session(world: World) -> None:
    def fail() -> None:
        raise RuntimeError

    world.agents["idle"].on_look = fail

    assert world.reaper.evaluate("idle")["keptBy"] == "eval-error"
    with pytest.raises(InstarError, match="no session"):
        world.reaper.evaluate("other")


def test_a_state_that_cannot_be_used_is_told_and_left(world: World) -> None:
    world.ticks(1)
    (world.root / STATE).write_bytes(b"{")

    assert any(STATE in each for each in world.reaper.snapshot()["troubles"])
    assert (world.root / STATE).read_bytes() == b"{"


def test_what_was_done_is_told(world: World) -> None:
    world.ticks(10)

    assert [row["event"] for row in world.reaper.audit()] == ["decision", "reap-pending", "reaped"]
    recent = world.reaper.snapshot()["recent"]
    assert [(each["sessionId"], each["reason"], each["dryRun"]) for each in recent] == [("idle", "reaped-idle", False)]
    assert len(world.reaper.audit(1)) == 1


def test_the_next_thing_to_do_is_known(world: World) -> None:
    assert world.reaper.next_due() == 0
    world.ticks(1)
    assert world.reaper.next_due() == TICK
    world.passes(100)
    assert world.reaper.next_due() == 20
    world.process()
    assert world.reaper.next_due() == 20
    world.passes(1000)
    assert world.reaper.next_due() == 0


def test_a_configuration_that_is_none_is_told(world: World) -> None:
    world.ticks(1)
    whole = world.reaper.snapshot().keys()
    world.config_error = InstarError("it is no JSON")

    assert world.ticks(1) == "failed"
    told = world.reaper.snapshot()
    assert (told["mode"], told["troubles"], told.keys()) == ("off", ["it is no JSON"], whole)
    assert world.reaper.next_due() == 60


# The thread


def test_a_thread_ticks_until_it_is_stopped(tmp_path: Path) -> None:
    world = World(tmp_path, tickIntervalSec=0.1)
    ticked = threading.Event()
    world.agents["idle"] = Agent(on_look=lambda: (world.passes(1), ticked.set())[1])
    world.reaper.start()
    world.reaper.start()
    try:
        wait_until(lambda: len(world.looks) >= 3, "it looks again and again")
    finally:
        assert world.reaper.stop()
    assert ticked.is_set()
    looked = len(world.looks)
    assert world.reaper.stop()
    assert len(world.looks) == looked


def test_a_tick_that_fails_is_not_the_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.config_error = InstarError("it is no JSON")
    assert world.ticks(3) == "failed"
    assert len(caplog.records) == 1
    world.config_error = None
    assert world.ticks(1) == "done"
