"""A pass puts away who died, counts what nothing explains, ends who was stopped, and parks who is idle."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from instar.errors import InstarError
from instar.lifecycle.clients.delivery import Delivered
from instar.lifecycle.clients.launch import Launched
from instar.lifecycle.ends import End, Remains, end
from instar.lifecycle.orders import Order
from instar.lifecycle.supervise import Supervisor
from instar.lifecycle.wake import wake
from instar.services import Managed
from tests.instar.lifecycle.machines import BOB, UP, Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ANN = "claude-code-ann"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add()
    return made


def row(machine: Machine, identity: str = BOB, **said: Any) -> dict[str, Any]:
    """Make a pass, and return what was done about a peer."""
    outcomes = {each.identity: each.as_json() for each in Supervisor(machine.edges, **said).tick()}
    return {key: value for key, value in outcomes[identity].items() if key != "identity"}


def nothing(_machine: Machine) -> None:
    """Leave it as it is."""


def lives(machine: Machine) -> None:
    machine.begin_watched()


def is_managed(machine: Machine) -> None:
    lives(machine)
    machine.dies()
    machine.managed["bob"] = Managed("launchd", machine.root / "p", "launchd runs it")


def is_unseen(machine: Machine) -> None:
    lives(machine)
    machine.unseen.add(BOB)


def died(machine: Machine) -> None:
    lives(machine)
    machine.dies(End("crash", "status 1"))


def died_stopped(machine: Machine) -> None:
    died(machine)
    machine.marks.set_stopped(BOB)


def died_eager(machine: Machine) -> None:
    died(machine)
    machine.marks.set_new_eager(BOB)


def was_parked(machine: Machine) -> None:
    machine.park_marker(machine.begin_watched())


def left(cause: Any) -> Callable[[Machine], None]:
    def arrange(machine: Machine) -> None:
        lives(machine)
        machine.dies(End(cause, "", "/s:1" if cause == "server-dead" else ""))

    return arrange


def stopped(machine: Machine) -> None:
    lives(machine)
    machine.marks.set_stopped(BOB)


def idle(machine: Machine) -> None:
    lives(machine)
    machine.passes(3601)


def idle_at_work(machine: Machine) -> None:
    idle(machine)
    machine.kept = "active-process"


def is_torn(machine: Machine) -> None:
    lives(machine)
    machine.torn.add(BOB)


def is_busy(machine: Machine) -> None:
    lives(machine)
    machine.held.enter_context(machine.markers.lock(BOB))


GONE = {"action": "reaped-gone", "outcome": "fresh-next-msg"}
IDLE = {"action": "reaped-idle", "outcome": "resume-eligible"}
FAILED = {"action": "skipped-error", "outcome": "peer-error-isolated", "reason": "ValueError: a look that fails"}
UNSEEN = {"action": "skipped-indeterminate", "outcome": "unknown", "reason": "tmux does not answer"}
HALTED = {"action": "reaped-idle", "outcome": "operator-halt-enforced", "reason": "alive-but-stopped"}
KEPT = {"action": "alive", "outcome": "kept", "age": "3601s", "kept": "active-process"}
MANAGED = {"action": "skipped-launchd", "outcome": "read-only-h4", "reason": "launchd runs it"}


@pytest.mark.parametrize(
    ("arrange", "expected", "left_over"),
    [
        (is_torn, FAILED, "told watched"),
        (is_managed, MANAGED, "watched"),
        (is_unseen, UNSEEN, "told watched"),
        (died_stopped, {"action": "skipped-stopped", "outcome": "resume-on-start"}, "told"),
        (died_eager, {"action": "needs-eager-fresh", "outcome": "eager-fresh"}, "told"),
        (died, {**GONE, "cause": "crash", "death": "status 1"}, "told counted"),
        (was_parked, {**IDLE, "cause": "parked", "by": "reaper"}, "told parked"),
        (left("host-reboot"), {**GONE, "cause": "host-reboot"}, "told"),
        (left("server-dead"), {**GONE, "cause": "server-dead", "server": "/s:1"}, "told"),
        (left("clean-exit"), {**GONE, "cause": "clean-exit"}, "told"),
        (stopped, HALTED, "told parked"),
        (idle, {**IDLE, "age": "3601s"}, "told parked"),
        (idle_at_work, KEPT, "told watched"),
        (lives, {"action": "alive", "outcome": "alive", "age": "0s"}, "watched"),
        (nothing, {"action": "asleep", "outcome": "nothing-to-do"}, ""),
        (is_busy, {"action": "skipped-busy", "outcome": "in-flight"}, "watched"),
    ],
)
def test_each_row_has_its_effect_and_its_line(
    machine: Machine, arrange: Callable[[Machine], None], expected: dict[str, Any], left_over: str
) -> None:
    arrange(machine)

    assert row(machine) == expected
    line = {"ev": "supervise", "personality": "bob", "identity": BOB, **expected}
    assert machine.lines("supervise") == ([line] if "told" in left_over else [])
    assert len(machine.marks.deaths(BOB)) == ("counted" in left_over)
    assert machine.has(".session") == ("watched" in left_over)
    assert machine.has(".idle-reaped") == ("parked" in left_over)
    assert not machine.has(".session.reaping")


@pytest.mark.parametrize("arrange", [lives, nothing, is_managed])
def test_what_was_not_decided_is_told_where_that_is_wanted(
    machine: Machine, arrange: Callable[[Machine], None]
) -> None:
    arrange(machine)

    assert row(machine, is_verbose=True)["action"] == machine.last("supervise")["action"]


def test_what_goes_on_is_told_once(machine: Machine) -> None:
    is_unseen(machine)
    supervisor = Supervisor(machine.edges)
    for _ in range(3):
        supervisor.tick()
    machine.unseen.clear()
    machine.kept = "turn-open"
    machine.passes(4000)
    for _ in range(3):
        supervisor.tick()

    assert [each["action"] for each in machine.lines("supervise")] == ["skipped-indeterminate", "alive"]


def test_what_cannot_be_told_changes_nothing_on_disk(machine: Machine) -> None:
    for arrange in (is_unseen, died_eager, is_unseen):
        arrange(machine)

    def on_disk() -> dict[str, bytes]:
        folder = machine.markers.folder
        return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}

    before = on_disk()
    row(machine)

    assert on_disk() == before


def test_one_bad_peer_keeps_no_other_from_being_looked_after(machine: Machine) -> None:
    machine.add("ann")
    (machine.root / ".instar/agents/bad.json").write_text("{")
    (machine.root / ".instar/agents/bad.json").chmod(0o600)
    machine.begin_watched(ANN)
    machine.dies(identity=ANN)
    for end_of in (".session", ".idle-reaped", ".deaths"):
        (machine.markers.folder / f"{BOB}{end_of}").write_text("\x00{")

    assert row(machine)["action"] == "skipped-error"
    assert machine.marks.deaths(ANN)
    assert machine.last("supervise")["outcome"] == "peer-error-isolated"


def test_a_file_that_cannot_be_read_for_long_is_put_aside(machine: Machine) -> None:
    machine.markers.folder.mkdir(parents=True)
    place = machine.markers.folder / f"{BOB}.session"
    place.write_text("{")
    os.utime(place, (machine.wall, machine.wall))
    actions = []
    for _ in range(4):  # each by a process of its own, as cron would have it
        actions.append(Supervisor(machine.edges).tick()[0].action)
        machine.passes(301)

    assert actions == ["skipped-error"] * 3 + ["asleep"]
    assert [path.read_text() for path in machine.markers.folder.glob(f"{BOB}.session.corrupt-*")] == ["{"]


def test_a_claim_whose_owner_died_is_taken_over(machine: Machine) -> None:
    died(machine)
    assert machine.marks.claim(BOB)
    (place,) = machine.markers.folder.glob("*.session.reaping")
    place.write_text(place.read_text().replace('"pid": ', '"pid": 9999'))
    machine.passes(61)

    assert row(machine)["death"] == "status 1"
    assert not place.exists()


def test_a_death_counts_once_however_often_it_is_found(machine: Machine) -> None:
    died(machine)
    saved = (machine.markers.folder / f"{BOB}.session").read_bytes()
    row(machine)
    (machine.markers.folder / f"{BOB}.session").write_bytes(saved)
    row(machine)

    assert len(machine.marks.deaths(BOB)) == 1


def test_a_server_that_dies_is_told_once_for_all_that_were_in_it(machine: Machine) -> None:
    machine.add("ann")
    for identity in (BOB, ANN):
        machine.begin_watched(identity)
        machine.dies(End("server-dead", "", "/s:1"), identity)
    row(machine)

    assert machine.lines("server-dead") == [{"ev": "server-dead", "server": "/s:1", "peers": "2"}]
    assert not machine.marks.deaths(BOB)


def test_a_session_that_lives_is_watched_also_where_its_wake_broke_off(machine: Machine) -> None:
    made = machine.begin(is_known=False)
    machine.marks.parks.folder.mkdir(parents=True, exist_ok=True)
    row(machine)
    state = machine.marks.session(BOB)

    assert state
    assert state["agent"] == made.agent
    assert made.is_known


def breaks_off(machine: Machine) -> None:
    """End the process that starts a peer when its client lives, and has not been told anything."""

    def start(*_: object) -> Launched:
        machine.begin()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wake(Order("bob", "go on"), replace(machine.edges, launch=start))


def test_one_whose_clean_start_broke_off_is_told_its_first_prompt_once(machine: Machine) -> None:
    machine.peers.remove("bob")
    machine.add(initial_prompt="You keep the roof.")
    breaks_off(machine)
    machine.delivered = Delivered("held", "a dialog is open")
    row(machine)
    machine.delivered = Delivered("landed", "")
    row(machine)
    row(machine)

    assert machine.told == ["You keep the roof."]
    assert [each["outcome"] for each in machine.lines("send")] == ["landed"]


def test_one_whom_somebody_has_prompted_since_is_past_its_first_prompt(machine: Machine) -> None:
    machine.peers.remove("bob")
    machine.add(initial_prompt="You keep the roof.")
    breaks_off(machine)
    machine.alive()[0].is_prompted = True
    row(machine)

    assert machine.told == []
    assert not machine.has(".untold")


def test_a_wake_that_broke_off_after_the_start_has_used_its_marker_up(machine: Machine) -> None:
    made = machine.begin()
    machine.park_marker(made)
    assert machine.marks.take_park(BOB)
    made.is_alive = True
    row(machine)

    assert not machine.has(".idle-reaped.inuse")
    assert not machine.has(".idle-reaped")


def test_idle_is_what_was_said_began_or_was_delivered_last(machine: Machine) -> None:
    made = machine.begin_watched()
    machine.passes(3500)
    machine.marks.set_last_delivered(BOB)
    machine.passes(3500)
    assert row(machine)["age"] == "3500s"
    machine.passes(200)
    made.spoke_at = machine.wall
    assert row(machine)["age"] == "0s"
    assert not machine.parks


def test_a_moment_ahead_of_now_is_no_idleness(machine: Machine) -> None:
    machine.begin_watched()
    machine.wall -= 9000

    assert row(machine)["age"] == "0s"


def test_an_idle_peer_goes_through_the_same_door_as_any(machine: Machine) -> None:
    idle(machine)
    row(machine)

    assert machine.parks == [("session-1", "supervise-idle", False)]


def test_a_limit_of_nought_parks_nobody(machine: Machine) -> None:
    machine.configure(idleMinutes=0)
    idle(machine)

    assert row(machine)["action"] == "alive"


def test_who_asked_for_a_clean_start_gets_it_once_its_turn_is_over(machine: Machine) -> None:
    lives(machine)
    machine.marks.set_new_eager(BOB)
    supervisor = Supervisor(machine.edges)
    machine.kept = "turn-open"
    assert [each["action"] for each in supervisor.run()] == ["alive"]
    assert machine.alive()
    machine.kept = ""
    done = supervisor.run()

    assert [each["action"] for each in done] == ["needs-eager-fresh", "eager-relaunch"]
    assert machine.parks[-1] == ("session-1", "self-fresh", True)
    assert machine.launches == [(BOB, "", None)]
    assert not machine.marks.deaths(BOB)
    assert not machine.has(".new-eager")
    assert not machine.has(".fresh-next")
    assert not machine.has(".idle-reaped")


def test_a_clean_start_that_was_asked_for_is_what_the_next_message_gets(machine: Machine) -> None:
    was_parked(machine)
    machine.marks.set_new_eager(BOB)
    machine.launched = InstarError("no program")
    Supervisor(machine.edges).run()
    machine.launched = UP
    machine.passes(61)

    assert machine.has(".idle-reaped")
    assert wake(Order("bob", "go on"), machine.edges)["cause"] == "soft-reload"


def test_three_clean_starts_are_no_crash_loop(machine: Machine) -> None:
    supervisor = Supervisor(machine.edges)
    lives(machine)
    for _ in range(4):
        machine.marks.set_new_eager(BOB)
        assert supervisor.run()[-1]["status"] == "READY"

    assert len(machine.launches) == 4


@pytest.mark.parametrize("failure", [Launched("exited", "it ended", "/s"), InstarError("no program")])
def test_a_clean_start_that_fails_is_tried_once_more_and_then_left(machine: Machine, failure: Any) -> None:
    died_eager(machine)
    machine.launched = failure
    tries = []
    for _ in range(6):
        done = Supervisor(machine.edges).run()  # each by another process, as from cron
        tries.append([each["action"] for each in done].count("eager-relaunch"))
        machine.passes(61)

    assert tries == [1, 1, 0, 0, 0, 0]
    assert len(machine.lines("attention")) == 2
    assert len(machine.marks.deaths(BOB)) == 2


def test_a_mark_is_used_up_before_the_start(machine: Machine) -> None:
    died_eager(machine)
    marks: list[bool] = []
    machine.on_launch = lambda: marks.append(machine.has(".new-eager"))
    Supervisor(machine.edges).run()

    assert marks == [False]


def test_a_session_that_outlived_the_window_has_failed_no_wake_in_a_row(machine: Machine) -> None:
    machine.marks.record_death(BOB, is_failed_wake=True)
    lives(machine)
    row(machine)
    assert machine.marks.deaths(BOB)
    machine.passes(301)
    row(machine)
    assert not machine.marks.deaths(BOB)


CLEAN = Remains(is_of_this_boot=True, server="alive", status=0, is_turn_over=True)


@pytest.mark.parametrize(
    ("remains", "cause", "text"),
    [
        (replace(CLEAN, is_parked=True, status=None, signal=15), "parked", ""),
        (replace(CLEAN, is_of_this_boot=False), "host-reboot", ""),
        (replace(CLEAN, server="dead"), "server-dead", ""),
        (CLEAN, "clean-exit", ""),
        (replace(CLEAN, status=None, reason="prompt_input_exit"), "clean-exit", ""),
        (replace(CLEAN, is_turn_over=False), "crash", "status 0"),
        (replace(CLEAN, status=1), "crash", "status 1"),
        (replace(CLEAN, status=None, signal=9), "crash", "signal 9"),
        (replace(CLEAN, status=0, signal=9), "crash", "signal 9"),
        (replace(CLEAN, status=None), "crash", "unknown"),
        (replace(CLEAN, status=None, reason="other"), "crash", "unknown"),
        (replace(CLEAN, status=1, server="unknown"), "crash", "status 1"),
        (Remains(), "crash", "unknown"),
    ],
)
def test_only_what_nothing_explains_is_a_crash(remains: Remains, cause: str, text: str) -> None:
    found = end(remains, "/s:1")

    assert (found.cause, found.is_crash) == (cause, cause == "crash")
    assert found.text == text or not text
    assert found.server == ("/s:1" if cause == "server-dead" else "")
