"""A message brings a peer back the right way, once; every refusal and failure has its cause, and its line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from instar.errors import InstarError
from instar.lifecycle.clients.adapters import Dialog
from instar.lifecycle.clients.delivery import Delivered
from instar.lifecycle.clients.launch import Launched
from instar.lifecycle.ends import End
from instar.lifecycle.orders import Order
from instar.lifecycle.wake import wake
from instar.services import Managed
from tests.instar.lifecycle.machines import BOB, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = {
    "status", "woke", "cause", "reason", "taskDelivered", "retryAfter", "stopped", "resumable", "mode", "identity",
    "runtime", "sessionId", "delivery", "dialog",
}  # fmt: skip
GONE = Launched("exited", "it ended with status 1", "/s")
STUCK = Launched(
    "dialog", "it asks whether the folder is trusted", "/s", is_alive=True, dialog=Dialog("trust-folder", "asks")
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add()
    return made


def go(machine: Machine, task: str = "go on", **said: Any) -> dict[str, Any]:
    result = wake(Order("bob", task, **said), machine.edges)
    assert result.keys() == KEYS
    return result


def parked(machine: Machine) -> None:
    machine.park_marker(machine.begin())
    machine.marks.reset_topics(BOB, "old")


def is_stopped(machine: Machine) -> None:
    machine.marks.set_stopped(BOB)


def is_managed(machine: Machine) -> None:
    machine.managed["bob"] = Managed("systemd", Path("/etc/x.service"), "systemd runs it")


def has_no_folder(machine: Machine) -> None:
    (machine.root / "work").rmdir()


def is_unseen(machine: Machine) -> None:
    machine.unseen.add(BOB)


def crashed(machine: Machine) -> None:
    for _ in range(3):
        machine.marks.record_death(BOB)


def failed_once(machine: Machine) -> None:
    machine.marks.record_death(BOB, is_failed_wake=True)


def spent(machine: Machine) -> None:
    machine.configure(maxWakesPerHour=1)
    machine.allowance.spend(BOB, "wakes", 1)


@pytest.mark.parametrize(
    ("arrange", "order", "cause", "result"),
    [
        (None, {"name": "nobody"}, "unknown-peer", {"retryAfter": None}),
        (None, {"name": "../up"}, "unknown-peer", {"retryAfter": None}),
        (None, {"runtime": "codex-cli"}, "unknown-runtime", {}),
        (None, {"topic": "a\nb"}, "topic-refused", {}),
        (None, {"topic": "x" * 201}, "topic-refused", {}),
        (None, {"task": "a\x1bb"}, "message-refused", {}),
        (is_managed, {}, "systemd-managed", {}),
        (is_stopped, {}, "stopped", {"stopped": True}),
        (is_unseen, {}, "liveness-indeterminate", {"retryAfter": 5.0}),
        (has_no_folder, {}, "cwd-missing", {}),
        (crashed, {}, "crash-loop", {"retryAfter": 301}),
        (failed_once, {}, "wake-back-off", {"retryAfter": 60}),
        (spent, {}, "hourly-budget", {"retryAfter": 3600}),
        (None, {"want": "resume"}, "attach-nothing-to-resume", {"mode": "fail"}),
    ],
)
def test_a_refusal_starts_nothing_and_is_a_line_with_its_cause(
    machine: Machine,
    arrange: Callable[[Machine], None] | None,
    order: dict[str, Any],
    cause: str,
    result: dict[str, Any],
) -> None:
    if arrange:
        arrange(machine)
    said = wake(Order(**{"name": "bob", "task": "go on", **order}), machine.edges)

    assert (said["status"], said["woke"], said["taskDelivered"], said["cause"]) == ("FAILED", False, False, cause)
    assert said["reason"]
    assert {key: said[key] for key in result} == result
    assert not machine.launches
    line = machine.last("wake")
    assert (line["personality"], line["cause"]) == (order.get("name", "bob"), cause)
    assert line["mode"] == ("fail" if order.get("want") else "refused")
    assert line["reason"] == said["reason"]


def test_the_crash_guard_tells_how_many_deaths_there_were(machine: Machine) -> None:
    crashed(machine)
    go(machine)

    assert machine.last("wake")["reason"].startswith("3 deaths in 300s")
    machine.passes(302)
    assert go(machine)["status"] == "READY"


def new_topic(machine: Machine) -> dict[str, Any]:
    parked(machine)
    return {"topic": "new"}


def same_topic(machine: Machine) -> dict[str, Any]:
    parked(machine)
    return {"topic": " old "}


def no_topic(machine: Machine) -> dict[str, Any]:
    parked(machine)
    return {}


def topicless_fresh(machine: Machine) -> dict[str, Any]:
    machine.configure(topiclessWake="fresh")
    return no_topic(machine)


def human(machine: Machine) -> dict[str, Any]:
    machine.peers.remove("bob")
    machine.add(is_human=True)
    return new_topic(machine)


def renewed(machine: Machine) -> dict[str, Any]:
    machine.marks.set_fresh_next(BOB)
    return same_topic(machine)


def costly(machine: Machine) -> dict[str, Any]:
    machine.configure(resumeMaxTokens=10)
    return same_topic(machine)


def old(machine: Machine) -> dict[str, Any]:
    machine.configure(resumeMaxIdleMinutes=1)
    order = same_topic(machine)
    machine.passes(90)
    return order


def unresumable(machine: Machine) -> dict[str, Any]:
    parked(machine)
    machine.lives[BOB][0].fault = "its transcript is missing"
    return {}


def crashed_before(machine: Machine) -> dict[str, Any]:
    machine.begin()
    machine.dies()
    return {}


def rebooted(machine: Machine) -> dict[str, Any]:
    machine.begin()
    machine.reboots()
    return {}


def lost_server(machine: Machine) -> dict[str, Any]:
    machine.begin()
    machine.dies(End("server-dead", "", "/s:1"))
    return {}


def attached(machine: Machine) -> dict[str, Any]:
    crashed_before(machine)
    return {"want": "resume"}


@pytest.mark.parametrize(
    ("arrange", "mode", "cause"),
    [
        (lambda _machine: {"want": "fresh"}, "fresh", "folder-launch"),
        (attached, "resume", "attach"),
        (renewed, "fresh", "soft-reload"),
        (lambda _machine: {}, "fresh", "first-wake"),
        (crashed_before, "fresh", "crash-or-self-close"),
        (rebooted, "fresh", "host-reboot"),
        (lost_server, "fresh", "server-dead"),
        (human, "resume", "idle-reaped-human"),
        (no_topic, "resume", "idle-reaped-resume"),
        (topicless_fresh, "fresh", "idle-reaped-no-topic"),
        (new_topic, "fresh", "idle-reaped-new-topic"),
        (same_topic, "resume", "idle-reaped-resume"),
        (unresumable, "fresh", "idle-reaped-no-resume"),
        (costly, "fresh", "resume-too-costly"),
        (old, "fresh", "resume-too-costly"),
    ],
)
def test_a_peer_that_sleeps_comes_back_by_why_it_does(
    machine: Machine, arrange: Callable[[Machine], dict[str, Any]], mode: str, cause: str
) -> None:
    order = arrange(machine)
    before = machine.lives.get(BOB, [])[-1:]
    said = go(machine, **order)

    assert (said["status"], said["woke"], said["taskDelivered"]) == ("READY", True, True)
    assert (said["mode"], said["cause"]) == (mode, cause)
    assert machine.launches == [(BOB, "go on", before[0].id if mode == "resume" else None)]
    line = machine.last("wake")
    assert (line["mode"], line["cause"], line["identity"]) == (mode, cause, BOB)
    assert line.get("ref") == (before[0].id if mode == "resume" else None)
    assert not machine.has(".idle-reaped")
    assert not machine.has(".idle-reaped.inuse")
    assert not machine.has(".fresh-next")
    assert machine.has(".session")


def test_what_there_is_to_take_up_is_told_whether_it_is_taken_up_or_not(machine: Machine) -> None:
    order = costly(machine)
    machine.passes(600)

    assert go(machine, **order)["resumable"] == {
        "sessionId": "session-1", "command": "resume session-1", "idleMinutes": 10, "tokens": 1000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "task", "mode", "message"),
    [
        ("You are Bob.", "go on", "fresh", "You are Bob.\n\ngo on"),
        ("You are Bob.", "", "fresh", "You are Bob."),
        ("", "go on", "fresh", "go on"),
        ("", "", "fresh", ""),
        ("You are Bob.", "go on", "resume", "go on"),
    ],
)
def test_the_first_message_is_the_seed_and_the_task_and_a_resumed_one_hears_the_task(
    machine: Machine, seed: str, task: str, mode: str, message: str
) -> None:
    machine.peers.remove("bob")
    machine.add(initial_prompt=seed)
    if mode == "resume":
        parked(machine)

    assert go(machine, task)["mode"] == mode
    assert [each[1] for each in machine.launches] == [message]


def test_a_peer_that_lives_is_not_started_and_is_told_nothing_unless_that_is_wanted(machine: Machine) -> None:
    machine.begin()
    said = go(machine)

    assert (said["status"], said["woke"], said["taskDelivered"], said["mode"]) == ("READY", False, False, "live")
    assert not machine.told
    assert machine.has(".session")

    said = go(machine, delivers=True, topic="new")
    assert (said["status"], said["taskDelivered"], said["delivery"]) == (
        "READY", True, {"fate": "landed", "why": ""},
    )  # fmt: skip
    assert machine.told == ["go on"]
    assert machine.marks.topics(BOB) == ["new"]
    assert machine.marks.last_delivered(BOB) == machine.wall
    assert not machine.launches


@pytest.mark.parametrize(("fate", "again"), [("held", 5.0), ("refused", None)])
def test_a_message_that_does_not_arrive_is_no_success(machine: Machine, fate: Any, again: float | None) -> None:
    machine.begin()
    machine.delivered = Delivered(fate, "a draft is there")
    said = go(machine, delivers=True)

    assert (said["status"], said["taskDelivered"], said["cause"]) == ("FAILED", False, f"delivery-{fate}")
    assert said["retryAfter"] == again
    assert machine.last("send") == {
        "ev": "send", "personality": "bob", "identity": BOB, "outcome": fate, "reason": "a draft is there",
    }  # fmt: skip


@pytest.mark.parametrize("fate", ["held", "refused"])
def test_one_that_ends_while_it_is_told_is_woken_or_may_be_tried_again(machine: Machine, fate: Any) -> None:
    machine.begin_watched()

    def deliver(*_: object) -> Delivered:
        machine.dies()
        return Delivered(fate, "it has ended")

    said = wake(Order("bob", "go on", delivers=True), replace(machine.edges, deliver=deliver))

    if fate == "held":
        assert (said["status"], said["woke"], said["cause"]) == ("READY", True, "crash-or-self-close")
        assert [each[1] for each in machine.launches] == ["go on"]
    else:  # it may have it
        assert (said["status"], said["cause"], said["retryAfter"]) == ("FAILED", "delivery-refused", 5.0)
        assert not machine.launches
    assert len(machine.marks.deaths(BOB)) == len(machine.launches)


def test_one_that_ends_between_two_looks_has_died_once(machine: Machine) -> None:
    machine.begin_watched()

    def live(identity: str) -> Any:
        found = machine.live(identity)
        machine.dies()
        return found

    said = wake(Order("bob", "go on"), replace(machine.edges, live=live))

    assert (said["status"], said["cause"], len(machine.marks.deaths(BOB))) == ("READY", "crash-or-self-close", 1)
    assert [each["action"] for each in machine.lines("supervise")] == ["reaped-gone"]


def test_a_resume_adds_its_topic_and_a_clean_start_begins_with_its_own(machine: Machine) -> None:
    parked(machine)
    machine.marks.add_topic(BOB, "other")
    go(machine, topic="old")
    assert machine.marks.topics(BOB) == ["other", "old"]

    machine.dies()
    go(machine, topic="new")
    assert machine.marks.topics(BOB) == ["new"]


@pytest.mark.parametrize(
    "failure", [GONE, STUCK, InstarError("claude is not on the PATH"), replace(GONE, outcome="refused")]
)
def test_a_launch_that_fails_leaves_what_was_parked_as_it_was(machine: Machine, failure: Any) -> None:
    parked(machine)
    marker = (machine.markers.folder / f"{BOB}.idle-reaped").read_bytes()
    machine.launched = failure
    said = go(machine)
    line = machine.last("wake")

    assert (said["status"], said["taskDelivered"]) == ("FAILED", False)
    assert (machine.markers.folder / f"{BOB}.idle-reaped").read_bytes() == marker
    assert not machine.has(".idle-reaped.inuse")
    assert (line["mode"], line["cause"], line["reason"]) == ("failed", said["cause"], said["reason"])
    assert [each["mode"] for each in machine.lines("wake")] == ["resume", "failed"]


@pytest.mark.parametrize(
    ("failure", "deaths"),
    [(GONE, 1), (STUCK, 0), (InstarError("no program"), 1), (replace(GONE, outcome="refused"), 0)],
)
def test_a_launch_that_leaves_nothing_alive_is_a_death_and_a_survivor_is_watched(
    machine: Machine, failure: Any, deaths: int
) -> None:
    machine.launched = failure
    said = go(machine)

    assert len(machine.marks.deaths(BOB)) == deaths
    assert machine.has(".session") == bool(machine.alive())
    assert said["woke"] == bool(machine.alive())
    assert said["dialog"] == ("trust-folder" if machine.alive() else None)
    if deaths:
        assert said["retryAfter"] == 60
        assert go(machine)["cause"] == "wake-back-off"


def test_a_clean_start_that_stopped_at_a_dialog_owes_the_first_prompt_to_the_next_message(machine: Machine) -> None:
    machine.peers.remove("bob")
    machine.add(initial_prompt="You keep the roof.")
    machine.launched = STUCK
    go(machine)

    machine.delivered = Delivered("held", "a dialog is open")
    assert go(machine, delivers=True)["status"] == "FAILED"
    machine.delivered = Delivered("landed", "")
    assert go(machine, delivers=True)["status"] == "READY"
    assert go(machine, "and on", delivers=True)["status"] == "READY"

    assert machine.told == ["You keep the roof.\n\ngo on", "and on"]


def test_a_launch_that_raises_what_nobody_foresaw_keeps_the_right_to_resume(machine: Machine) -> None:
    parked(machine)

    def fail() -> None:
        raise RuntimeError("a fault of ours")

    machine.on_launch = fail
    with pytest.raises(RuntimeError):
        go(machine)
    machine.on_launch = lambda: None
    assert go(machine)["cause"] == "idle-reaped-resume"


def test_a_marker_that_cannot_be_read_is_put_aside_and_keeps_nobody_asleep(machine: Machine) -> None:
    machine.markers.folder.mkdir(parents=True, exist_ok=True)
    (machine.markers.folder / f"{BOB}.idle-reaped").write_text("\n{")
    said = go(machine)

    assert said["status"] == "READY"
    assert machine.last("warning")["cause"] == "marker-unreadable"
    assert [path.read_text() for path in machine.markers.folder.glob("*.corrupt-*")] == ["\n{"]


def test_who_is_at_it_already_is_waited_for_and_then_the_message_may_come_again(machine: Machine) -> None:
    with machine.markers.lock(BOB):
        said = go(machine)

    assert (said["cause"], said["retryAfter"]) == ("wake-lock-held", 5.0)
    assert machine.wall - 1_790_000_000 >= 360  # as long as a start may take
    assert machine.last("wake")["cause"] == "wake-lock-held"


def test_a_message_that_comes_while_it_is_parked_waits_and_resumes(machine: Machine) -> None:
    made = machine.begin_watched()
    machine.held.enter_context(machine.markers.lock(BOB))  # the reaper's

    def park() -> None:
        machine.park_marker(made)
        machine.held.close()
        machine.on_wait = lambda: None

    machine.on_wait = park
    said = go(machine)
    assert (said["status"], said["cause"]) == ("READY", "idle-reaped-resume")
    assert machine.launches == [(BOB, "go on", made.id)]


@pytest.mark.parametrize(
    ("arrange", "cause"), [(is_stopped, "stopped-mid-wake"), (is_managed, "systemd-managed-mid-wake")]
)
def test_who_is_stopped_or_taken_over_while_a_wake_waits_is_not_woken(
    machine: Machine, arrange: Callable[[Machine], None], cause: str
) -> None:
    machine.held.enter_context(machine.markers.lock(BOB))

    def meanwhile() -> None:
        arrange(machine)
        machine.held.close()
        machine.on_wait = lambda: None

    machine.on_wait = meanwhile
    assert go(machine)["cause"] == cause
    assert not machine.launches
    assert machine.last("wake")["cause"] == cause


def test_a_stop_during_the_start_wins(machine: Machine) -> None:
    machine.on_launch = lambda: machine.marks.set_stopped(BOB)
    said = go(machine)

    assert (said["status"], said["stopped"], said["cause"]) == ("FAILED", True, "stopped-mid-wake")
    assert machine.has(".session")  # so that whoever stops it finds it
    assert machine.last("wake")["cause"] == "stopped-mid-wake"


def test_what_cannot_be_put_down_after_the_start_is_told_and_keeps_it_alive(machine: Machine) -> None:
    place = machine.markers.folder / f"{BOB}.session"
    place.mkdir(parents=True)
    said = go(machine)

    assert (said["status"], said["woke"]) == ("READY", True)
    assert {line["cause"] for line in machine.lines("warning")} == {"unsupervised"}


def test_what_was_left_of_it_is_healed_before_it_is_woken(machine: Machine) -> None:
    machine.begin_watched()
    machine.dies()
    said = go(machine)

    assert (said["status"], said["cause"]) == ("READY", "crash-or-self-close")
    assert machine.last("supervise")["death"] == "signal 9"
    assert len(machine.marks.deaths(BOB)) == 1


def test_three_crashes_in_the_window_leave_it_asleep_with_the_time_of_the_next_try(machine: Machine) -> None:
    for _ in range(3):
        assert go(machine)["status"] == "READY"
        machine.passes(10)
        machine.dies()
    said = go(machine)

    assert (said["status"], said["cause"]) == ("FAILED", "crash-loop")
    assert said["retryAfter"] == 281
    machine.passes(282)
    assert go(machine)["status"] == "READY"


def test_slow_failures_back_off_too(machine: Machine) -> None:
    machine.launched = replace(GONE, outcome="never-ready")
    waits = []
    for _ in range(4):
        waits.append(go(machine)["retryAfter"])
        machine.passes(waits[-1])

    assert waits == [60, 120, 240, 480]


def test_fifty_wakes_at_once_start_one(tmp_path: Path, start_tmux: Callable[[str], Any]) -> None:
    server = start_tmux("peers")
    server.ask("new-session", "-d", "-s", "other", "sleep 600")
    machine = Machine(tmp_path / "project")
    machine.add()
    program = Path(__file__).with_name("waker.py")
    wakers = [
        subprocess.Popen(
            [sys.executable, str(program), str(machine.root), str(server.socket), "10"],
            stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )
        for _ in range(5)
    ]  # fmt: skip
    told = [json.loads(line) for each in wakers for line in each.communicate()[0].splitlines()]

    assert len(told) == 50
    assert {each["status"] for each in told} == {"READY"}
    assert sum(each["woke"] for each in told) == 1
    assert (machine.root / "spawns").read_text().count("\n") == 1
    assert server.ask("list-sessions", "-F", "#{session_name}").split() == [BOB, "other"]
