"""A peer can be stopped, started, begun anew and looked at; whatever happens in whatever order, the laws hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from instar.lifecycle import verbs
from instar.lifecycle.clients.launch import Launched
from instar.lifecycle.orders import Order
from instar.lifecycle.peers import Broken
from instar.lifecycle.supervise import Supervisor
from instar.lifecycle.wake import wake
from instar.services import Managed
from instar.sessions.clock import Clock
from tests.instar.lifecycle.machines import BOB, UP, Machine

if TYPE_CHECKING:
    from collections.abc import Callable

GONE = Launched("exited", "it ended with status 1", "/s")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.add()
    return made


def state(machine: Machine) -> dict[str, Any]:
    return verbs.status(machine.peers.get("bob"), machine.edges)


def test_a_stop_ends_it_and_keeps_it_asleep_until_a_start(machine: Machine) -> None:
    made = machine.begin_watched()
    said = verbs.stop("bob", machine.edges)

    assert (said["status"], said["stopped"]) == ("DONE", True)
    assert not machine.alive()
    assert machine.has(".stopped")
    assert machine.has(".idle-reaped")
    assert not machine.has(".session")
    assert machine.last("stopped") == {"ev": "stopped", "personality": "bob", "identity": BOB}
    assert wake(Order("bob", "go on"), machine.edges)["cause"] == "stopped"

    assert verbs.start("bob", machine.edges)["wasStopped"]
    assert machine.last("started")["identity"] == BOB
    assert not machine.launches
    wake(Order("bob", "go on"), machine.edges)
    assert machine.launches == [(BOB, "go on", made.id)]
    assert not machine.marks.deaths(BOB)


def test_a_stop_that_cannot_end_it_says_so_and_it_is_ended_by_the_next_pass(machine: Machine) -> None:
    machine.begin_watched()
    machine.kept = "kill-unverified"
    said = verbs.stop("bob", machine.edges)

    assert (said["status"], said["cause"], said["stopped"]) == ("FAILED", "kill-unverified", True)
    machine.kept = ""
    assert [each.outcome for each in Supervisor(machine.edges).tick()] == ["operator-halt-enforced"]


def test_a_stop_of_what_nobody_can_tell_leaves_it_alone(machine: Machine) -> None:
    made = machine.begin_watched()
    machine.unseen.add(BOB)

    assert verbs.stop("bob", machine.edges)["cause"] == "liveness-indeterminate"
    assert made.is_alive
    assert machine.has(".stopped")


def test_a_stop_waits_for_whoever_is_at_it(machine: Machine) -> None:
    machine.held.enter_context(machine.markers.lock(BOB))
    machine.on_wait = machine.held.close
    machine.begin_watched()

    assert verbs.stop("bob", machine.edges)["status"] == "DONE"
    assert not machine.alive()


def test_a_client_that_has_not_told_of_itself_can_be_stopped(machine: Machine) -> None:
    machine.begin(is_known=False)

    assert verbs.stop("bob", machine.edges)["status"] == "DONE"
    assert not machine.alive()


@pytest.mark.parametrize("verb", [verbs.stop, verbs.start, verbs.new, verbs.refresh, verbs.self_fresh, verbs.attach])
def test_what_others_run_and_who_is_not_there_is_left_alone(machine: Machine, verb: Callable[..., Any]) -> None:
    machine.begin_watched()
    machine.managed["bob"] = Managed("systemd", Path("/etc/x.service"), "systemd runs it")
    said = verb("bob", machine.edges)

    assert (said["status"], said["cause"], said["reason"]) == ("FAILED", "systemd-managed", "systemd runs it")
    assert machine.alive()
    assert {path.name.removeprefix(BOB) for path in machine.markers.folder.iterdir()} <= {".session", ".files.lock"}
    assert machine.lines()[-1]["cause"] == "systemd-managed"

    said = verb("nobody", machine.edges)
    assert said["status"] == "FAILED"
    assert "nobody" in said["reason"]
    assert verb("../up", machine.edges)["status"] == "FAILED"


def test_new_of_nobody_says_so(machine: Machine) -> None:
    assert verbs.new("nobody", machine.edges)["cause"] == "unknown-peer"


def test_new_ends_it_and_begins_clean_and_tells_what_it_left(machine: Machine) -> None:
    made = machine.begin_watched()
    machine.marks.set_stopped(BOB)
    said = verbs.new("bob", machine.edges, task="begin")

    assert (said["status"], said["woke"], said["cause"]) == ("READY", True, "folder-launch")
    assert said["previous"] == {"sessionId": made.id, "command": f"resume {made.id}"}
    assert machine.launches == [(BOB, "begin", None)]
    assert not made.is_alive
    assert not machine.has(".idle-reaped")
    assert not machine.has(".fresh-next")
    assert not machine.marks.deaths(BOB)


@pytest.mark.parametrize("was", ["asleep", "dead", "parked"])
def test_new_works_on_what_sleeps(machine: Machine, was: str) -> None:
    if was != "asleep":
        made = machine.begin_watched()
        machine.dies()
        if was == "parked":
            machine.park_marker(made)

    assert verbs.new("bob", machine.edges)["mode"] == "fresh"


def test_a_new_that_fails_stays_clean_and_loses_nothing(machine: Machine) -> None:
    made = machine.begin_watched()
    machine.launched = GONE
    assert verbs.new("bob", machine.edges)["cause"] == "exited"
    assert machine.has(".idle-reaped")
    machine.launched = UP
    machine.passes(61)
    assert wake(Order("bob", "go on"), machine.edges)["cause"] == "soft-reload"
    assert not made.is_alive


def test_a_new_that_cannot_end_it_starts_no_second_one(machine: Machine) -> None:
    machine.begin_watched()
    machine.kept = "kill-failed"

    assert verbs.new("bob", machine.edges)["cause"] == "kill-failed"
    assert not machine.launches


def test_refresh_lets_it_live_and_the_next_wake_be_clean(machine: Machine) -> None:
    machine.begin_watched()
    assert verbs.refresh("bob", machine.edges)["status"] == "DONE"
    assert machine.alive()
    assert machine.last("refresh")["identity"] == BOB
    machine.dies()
    assert wake(Order("bob"), machine.edges)["cause"] == "soft-reload"


def test_attach_takes_up_what_is_there_or_fails_loudly(machine: Machine) -> None:
    said = verbs.attach("bob", machine.edges)
    assert (said["status"], said["cause"], said["command"]) == ("FAILED", "attach-nothing-to-resume", None)

    machine.begin()
    machine.dies()
    machine.marks.set_fresh_next(BOB)
    said = verbs.attach("bob", machine.edges)
    assert (said["status"], said["mode"]) == ("READY", "resume")
    assert said["command"] == ["tmux", "-S", "/s", "attach-session", "-t", f"={BOB}"]
    assert machine.has(".fresh-next")
    assert verbs.attach("bob", machine.edges)["woke"] is False


def test_one_that_ends_while_it_is_attached_to_may_be_tried_again(machine: Machine) -> None:
    machine.begin()

    def live(identity: str) -> Any:
        found = machine.live(identity)
        machine.dies()
        return found

    said = verbs.attach("bob", replace(machine.edges, live=live))

    assert (said["status"], said["cause"], said["retryAfter"]) == ("FAILED", "ended", 5.0)
    assert said["command"] is None


def test_a_clean_start_is_asked_for_by_what_lives(machine: Machine) -> None:
    assert verbs.self_fresh("bob", machine.edges)["cause"] == "not-alive"
    machine.begin_watched()
    assert verbs.self_fresh("bob", machine.edges)["status"] == "DONE"
    assert machine.has(".new-eager")
    assert machine.alive()


def test_a_message_reaches_what_lives_and_wakes_what_sleeps(machine: Machine) -> None:
    assert verbs.send("bob", "first", machine.edges)["woke"]
    assert verbs.send("bob", "second", machine.edges)["taskDelivered"]
    assert machine.launches == [(BOB, "first", None)]
    assert machine.told == ["second"]
    assert verbs.send("nobody", "x", machine.edges)["cause"] == "unknown-peer"


def test_two_peers_that_answer_each_other_come_to_rest(machine: Machine) -> None:
    machine.add("ann")
    machine.configure(maxSendsPerHour=5)
    said = [verbs.send(name, "your turn", machine.edges) for _ in range(10) for name in ("bob", "ann")]

    assert [each["status"] for each in said] == ["READY"] * 10 + ["FAILED"] * 10
    assert (said[-1]["cause"], said[-1]["retryAfter"]) == ("hourly-budget", 3600)
    assert machine.last("send")["cause"] == "hourly-budget"
    machine.passes(3600)
    assert verbs.send("bob", "again", machine.edges)["status"] == "READY"


def test_what_a_person_does_at_a_terminal_is_not_counted(machine: Machine) -> None:
    machine.configure(maxWakesPerHour=1)

    assert [verbs.new("bob", machine.edges)["status"] for _ in range(3)] == ["READY"] * 3


@pytest.mark.parametrize(
    ("arrange", "expected"),
    [
        (lambda _it: None, {"state": "asleep", "deaths": 0, "resume": None}),
        (lambda it: it.begin_watched(), {"state": "alive", "sessionId": "session-1", "idleMinutes": 0}),
        (lambda it: it.park_marker(it.begin()), {"state": "parked", "resume": "resume session-1", "tokens": 1000}),
        (lambda it: it.marks.set_stopped(BOB), {"state": "stopped"}),
        (lambda it: it.unseen.add(BOB), {"state": "unknown", "reason": "tmux does not answer"}),
        (
            lambda it: [it.marks.record_death(BOB) for _ in range(3)],
            {"state": "crashed", "deaths": 3, "nextTry": 301, "reason": "3 deaths in 300s"},
        ),
        (
            lambda it: it.managed.update(bob=Managed("launchd", Path("/p"), "launchd runs it")),
            {"state": "managed", "reason": "launchd runs it"},
        ),
    ],
)
def test_a_list_tells_how_a_peer_is(machine: Machine, arrange: Callable[[Machine], Any], expected: Any) -> None:
    arrange(machine)
    before = sorted(machine.markers.folder.glob("*"))
    said = state(machine)

    assert {key: said.get(key) for key in expected} == expected
    assert [path for path in machine.markers.folder.glob("*") if path not in before] == []


def test_a_list_tells_of_a_dialog_and_of_a_profile_that_cannot_be_used(machine: Machine) -> None:
    machine.begin_watched()
    machine.shown = "trust-folder"
    assert (state(machine)["state"], state(machine)["dialog"]) == ("dialog", "trust-folder")
    assert verbs.status(Broken("x", Path("/x"), "it is no JSON"), machine.edges) == {
        "name": "x", "state": "broken", "reason": "it is no JSON",
    }  # fmt: skip
    machine.marks.save_session(BOB, {})
    (machine.markers.folder / f"{BOB}.session").write_text("{")
    assert state(machine)["state"] == "unknown"


def test_a_peer_of_two_clients_is_stopped_in_both(machine: Machine) -> None:
    machine.add("two", runtimes=("claude-code", "codex-cli"))
    said = verbs.stop("two", machine.edges)

    assert [each["identity"] for each in said["runtimes"]] == ["claude-code-two", "codex-cli-two"]
    assert machine.has(".stopped", "codex-cli-two")


@pytest.mark.parametrize("_again", range(5))
def test_a_stop_that_races_wakes_wins(tmp_path: Path, _again: int) -> None:
    machine = Machine(tmp_path)
    machine.add()
    machine.clock = Clock()
    edges = machine.edges
    wakers = [Thread(target=lambda: wake(Order("bob", "go on"), edges)) for _ in range(8)]
    stopper = Thread(target=lambda: verbs.stop("bob", edges))
    for each in (*wakers[:4], stopper, *wakers[4:]):
        each.start()
    for each in (*wakers, stopper):
        each.join()

    assert not machine.alive()
    assert machine.has(".stopped")
    assert not machine.marks.deaths(BOB)
    assert len(machine.launches) <= 1


class Life(RuleBasedStateMachine):
    """All that may happen to a peer, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.machine = Machine(Path(self.folder.name))
        self.machine.add()
        self.machine.configure(
            maxWakesPerHour=100_000, maxSendsPerHour=100_000, crashLoopMax=16, crashLoopWindowSec=1e4
        )
        self.crashes = 0
        self.failures = 0
        self.supervisor = Supervisor(self.machine.edges)

    @property
    def is_parked(self) -> bool:
        return self.machine.has(".idle-reaped") or self.machine.has(".idle-reaped.inuse")

    @rule(topic=st.sampled_from(["", "one", "two"]), want=st.sampled_from(["", "", "resume", "fresh"]))
    def wake(self, topic: str, want: Any) -> None:
        was_stopped, was_parked = self.machine.has(".stopped"), self.is_parked
        parked = self.machine.markers.marker(BOB)
        count, before = len(self.machine.launches), self.machine.alive()
        said = wake(Order("bob", "go on", topic, want), self.machine.edges)
        if was_stopped:
            assert said["stopped"]
            assert len(self.machine.launches) == count
        if said["status"] == "FAILED" and was_parked and not before:
            assert self.is_parked, "a park marker was lost"
        if said["woke"] and said["mode"] == "resume" and want == "":
            assert parked
            assert self.machine.launches[-1][2] == parked.session_id

    @rule()
    def wake_in_vain(self) -> None:
        was_parked, is_asleep = self.is_parked, not self.machine.alive() and not self.machine.has(".stopped")
        self.machine.launched = GONE
        said = wake(Order("bob", "go on"), self.machine.edges)
        self.machine.launched = UP
        self.failures += said["cause"] == "exited"
        if was_parked and is_asleep:
            assert self.is_parked, "a failed start lost a park marker"
        self.machine.passes(3600)

    @rule()
    def breaks_off(self) -> None:
        """Have whoever wakes it die in between."""
        was_parked = self.is_parked and not self.machine.alive() and not self.machine.has(".stopped")

        def die() -> None:
            raise KeyboardInterrupt

        self.machine.on_launch = die
        try:
            wake(Order("bob", "go on"), self.machine.edges)
        except KeyboardInterrupt:
            assert self.is_parked == was_parked
        self.machine.on_launch = lambda: None

    @precondition(lambda self: self.machine.alive())
    @rule()
    def crash(self) -> None:
        self.crashes += 1
        self.machine.dies()

    @precondition(lambda self: self.machine.alive())
    @rule()
    def is_idle(self) -> None:
        self.machine.passes(4000)

    @precondition(lambda self: self.machine.alive())
    @rule()
    def reaper_parks(self) -> None:
        self.machine.park(self.machine.alive()[0].id, "reaped-idle", False)  # noqa: FBT003 - as the edge has it

    @rule()
    def stop(self) -> None:
        said = verbs.stop("bob", self.machine.edges)
        assert said["status"] == "DONE"
        assert not self.machine.alive()

    @rule()
    def start(self) -> None:
        verbs.start("bob", self.machine.edges)
        assert not self.machine.has(".stopped")

    @rule()
    def new(self) -> None:
        said = verbs.new("bob", self.machine.edges)
        if said["status"] == "READY":
            assert self.machine.launches[-1][2] is None
            assert not self.is_parked

    @rule()
    def refresh(self) -> None:
        verbs.refresh("bob", self.machine.edges)

    @rule()
    def asks_for_a_clean_start(self) -> None:
        verbs.self_fresh("bob", self.machine.edges)

    @rule()
    def reboot(self) -> None:
        self.machine.reboots()

    @rule()
    def supervise(self) -> None:
        self.supervisor.run()

    @rule(seconds=st.sampled_from([1.0, 100.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.machine.passes(seconds)

    @invariant()
    def never_two(self) -> None:
        assert len(self.machine.alive()) <= 1

    @invariant()
    def only_crashes_count(self) -> None:
        deaths = self.machine.marks.deaths(BOB)
        assert sum(not each.is_failed_wake for each in deaths) <= self.crashes
        assert sum(each.is_failed_wake for each in deaths) <= self.failures

    def teardown(self) -> None:
        self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
