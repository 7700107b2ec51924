"""The reaper and the supervisor beside each other, in a server that runs: who ends whom, and what is never lost."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clients.waiting import wait_until
from instar.lifecycle.clients.launch import socket_of
from instar.lifecycle.lifecycle import Lifecycle
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.peers import Peer, Peers
from support import BIN, DEADLINE_S
from tests.faults.harness import DRIVER, Log, check_all, faults, run
from tests.instar.server.joint_scene import (
    BOB,
    CALM,
    OFF,
    PEERS,
    REAPER,
    UNATTENDED,
    Scene,
    is_locked,
    records,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stand_ins import Tmux
    from support import Project

CLIENT = Path(__file__).with_name("hooked_client.py")
PARKING = Path(__file__).parents[2] / "parking.py"


@pytest.fixture
def scene(project: Project, tmp_path: Path) -> Iterator[Scene]:
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    python, program = tmp_path / "lib/claude", tmp_path / "bin/claude"
    for each in (python, program):
        each.parent.mkdir()
    python.symlink_to(os.path.realpath(sys.executable))  # the hooks know a client by the name of its program
    program.write_text(f'#!/bin/sh\nexec {shlex.join([str(python), "-I", "-S", str(CLIENT)])} "$@"\n')
    program.chmod(0o755)
    made = Scene(project, tmp_path / "stand-in")
    made.folder.mkdir()
    project.env |= {
        "PATH": f"{program.parent}{os.pathsep}{project.env['PATH']}", "TMUX_TMPDIR": str(tmp_path),
        "STAND_IN": str(made.folder), "INSTAR_SHARED_ROOT": str(tmp_path / "shared"),
    }  # fmt: skip
    Peers(project.root).add(Peer("bob", "claude-code", project.root))
    yield made
    for hold in made.folder.glob("hold-*"):
        hold.unlink()
    subprocess.run(["tmux", "-S", socket_of(project.env), "kill-server"], check=False, capture_output=True)


def check_parked_once(scene: Scene, session: str) -> None:
    """Assert that a session was ended once, can be taken up, and that nobody takes it for a crash."""
    assert len(scene.lines("ends")) == 1
    assert [row["sessionId"] for row in scene.rows("reap-log") if row["type"] == "reaped"] == [session]
    marker = Marks(scene.root).parks.marker(BOB)
    assert marker
    assert (marker.session_id, marker.id) == (session, scene.record(session)["parked"]["id"])
    (row,) = scene.told("list")
    assert (row["state"], row["deaths"]) == ("parked", 0)
    assert row["resume"].endswith(f"claude --resume {session}")


def check_taken_up(scene: Scene, session: str) -> None:
    """Assert that the next message takes a parked session up, and reaches it once."""
    said = scene.told("send", "bob", "Go on.")
    assert (said["status"], said["woke"], said["mode"], said["sessionId"]) == ("READY", True, "resume", session)
    assert scene.lines("starts")[-1]["argv"] == ["--resume", session]
    assert scene.sent == ["Begin.", "Go on."]
    assert scene.record(session)["identity"] == BOB


# One of the two alone


def test_without_the_supervisor_the_reaper_parks_and_the_next_message_takes_it_up(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, REAPER, UNATTENDED):
        scene.until_parked(session)
    assert scene.parked_by(session) == "reaper"
    assert scene.decided() == []
    check_parked_once(scene, session)
    check_taken_up(scene, session)


def test_without_the_reaper_the_supervisor_parks_and_the_next_message_takes_it_up(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, OFF, PEERS):
        scene.until_parked(session)
        scene.until_put_away()
    assert scene.parked_by(session) == "supervisor"
    assert scene.rows("reaper-audit") == []
    check_parked_once(scene, session)
    check_taken_up(scene, session)


def test_a_conversation_that_was_begun_anew_is_its_peers_and_parked_as_such(scene: Scene) -> None:
    old = scene.wake()
    for words in ("/clear", "Go on."):  # as a person types it: nobody of ours looks at the peer meanwhile
        command = ["tmux", "-S", socket_of(scene.project.env), "send-keys", "-t", BOB, words, "Enter"]
        subprocess.run(command, check=True)
    told = wait_until(
        lambda: [each for each in records(scene) if each["id"] != old and "lastPrompt" in each], "it is told"
    )
    session = told[0]["id"]
    with serving(scene, REAPER, UNATTENDED):
        scene.until_parked(session)
    check_parked_once(scene, session)


# Both


def test_both_keep_what_works_and_one_of_them_parks_what_is_idle(scene: Scene) -> None:
    with scene.hold("turn"):
        session = scene.wake()
        with serving(scene, REAPER, PEERS):
            scene.until_kept_by_both("turn-open")
            kept = [row for row in scene.decided() if row.get("kept")]
            assert {(row["action"], row["outcome"]) for row in kept} == {("alive", "kept")}
            assert not scene.parked_by(session)
            scene.let_go("turn")
            scene.until_parked(session)
            scene.until_put_away()
    check_parked_once(scene, session)


def test_what_comes_back_each_time_is_kept_by_both(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, REAPER, PEERS):
        for number in (1, 2):
            wait_until(lambda: len(scene.record(session).get("parks", ())) == number, "it is parked", seen=scene.seen)  # noqa: B023 - it is waited for at once
            assert scene.told("send", "bob", "Go on.")["mode"] == "resume"
        scene.until_kept_by_both("park-thrash")
        assert not scene.parked_by(session)
    assert Marks(scene.root).deaths(BOB) == ()


def test_neither_ends_a_peer_that_a_service_runs(scene: Scene) -> None:
    session = scene.wake()
    unit = Path(scene.project.env["HOME"]) / ".config/systemd/user/instar-peer@bob.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    with serving(scene, REAPER, PEERS) as server:
        ticks = set[int]()
        wait_until(
            lambda: ticks.add(server.get("/sessions/reaper")["lastTickAt"]) or len(ticks) > 8, "it is looked at again"
        )
        (row,) = server.get("/sessions")["sessions"]
        assert (row["id"], row["reaper"]["keptBy"]) == (session, "protected")
        (peer,) = server.get("/peers")["peers"]
        assert (peer["state"], peer["sessionId"]) == ("managed", session)
    assert scene.lines("ends") == scene.decided() == []
    assert "systemd runs its peer" in scene.run("explain", session, program="instar-sessions")
    said = scene.told("terminate", session, "--reason", "room", program="instar-sessions", status=1)
    assert said["skipped"] == "protected"


# One lock


def test_what_is_being_told_something_is_not_ended(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, OFF, UNATTENDED), scene.hold("keys"), scene.begin("send", "bob", "Go on.", "--json") as sending:
        wait_until(lambda: is_locked(scene), "the message is on its way")
        scene.configure(REAPER, UNATTENDED)
        wait_until(
            lambda: scene.is_told("reap-skipped", skipped="in-flight"), "the reaper would end it", seen=scene.seen
        )
        scene.configure(OFF, UNATTENDED)
        assert [row["outcome"] for row in scene.told("supervise", "--once")] == ["in-flight"]
        scene.let_go("keys")
        said = json.loads(sending.communicate(timeout=DEADLINE_S)[0])
    assert (said["status"], said["woke"], said["sessionId"]) == ("READY", False, session)
    assert scene.sent == ["Begin.", "Go on."]
    assert scene.lines("ends") == []


def test_what_is_being_started_is_not_ended(scene: Scene) -> None:
    with scene.hold("start"), serving(scene, REAPER, PEERS):
        with scene.begin("wake", "bob", "--task", "Begin.", "--json") as waking:
            wait_until(lambda: scene.lines("starts"), "it starts")
            assert [row["outcome"] for row in scene.told("supervise", "--once")] == ["in-flight"]
            scene.let_go("start")
            said = json.loads(waking.communicate(timeout=DEADLINE_S)[0])
        assert (said["status"], said["taskDelivered"]) == ("READY", True)
        scene.until_parked(said["sessionId"])
    check_parked_once(scene, said["sessionId"])


def test_a_message_that_comes_while_a_session_ends_takes_it_up_again(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, REAPER, PEERS), scene.hold("end"):
        scene.until_told_to_end()
        with scene.begin("send", "bob", "Go on.", "--json") as sending:
            assert [row["outcome"] for row in scene.told("supervise", "--once")] == ["in-flight"]
            scene.configure(OFF, UNATTENDED)  # or the next one who looks parks it again
            scene.let_go("end")
            said = json.loads(sending.communicate(timeout=DEADLINE_S)[0])
    assert (said["status"], said["woke"], said["mode"], said["sessionId"]) == ("READY", True, "resume", session)
    first, second = scene.lines("starts")
    assert [(line["pid"], line["text"]) for line in scene.lines("sent")] == [
        (first["pid"], "Begin."), (second["pid"], "Go on."),
    ]  # fmt: skip
    assert Marks(scene.root).deaths(BOB) == ()


def test_a_stop_that_comes_while_a_session_ends_waits_for_that(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, REAPER, UNATTENDED), scene.hold("end"):
        scene.until_told_to_end()
        with scene.begin("stop", "bob", "--json") as stopping:
            wait_until(lambda: Marks(scene.root).stopped(BOB), "it is being stopped")
            scene.let_go("end")
            assert json.loads(stopping.communicate(timeout=DEADLINE_S)[0])["status"] == "DONE"
    assert scene.parked_by(session) == "reaper"
    assert len(scene.lines("ends")) == 1
    (row,) = scene.told("list")
    assert (row["state"], row["sessionId"]) == ("stopped", session)
    assert Marks(scene.root).deaths(BOB) == ()


def test_a_message_that_comes_in_the_grace_keeps_the_session(scene: Scene) -> None:
    session = scene.wake()
    with serving(scene, {**REAPER, "finalGraceSec": 3600}, UNATTENDED):
        wait_until(
            lambda: scene.is_told("reap-pending"), "it waits for its end", seen=lambda: str(scene.rows("reaper-audit"))
        )
        assert not scene.told("send", "bob", "Go on.")["woke"]
        wait_until(lambda: scene.is_told("reap-aborted", sessionId=session), "it does so no more")
    assert scene.sent == ["Begin.", "Go on."]
    assert scene.lines("ends") == []


def test_a_message_after_a_parking_that_broke_off_at_any_step_arrives_once(scene: Scene, tmp_path: Path) -> None:
    scene.configure(OFF, {**UNATTENDED, "maxSendsPerHour": 1000, "maxWakesPerHour": 1000})
    session, log = scene.wake(), Log(tmp_path / "calls")
    life = Lifecycle(scene.root, scene.project.env)

    def park(fault: str) -> None:
        words = [
            sys.executable,
            "-I",
            "-B",
            DRIVER,
            fault,
            PARKING,
            scene.root,
            tmp_path / "rows",
            "terminate",
            session,
        ]
        run(words, scene.root, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})

    def check(fault: str) -> None:
        assert life.send("bob", f"Before {fault}.")["status"] == "READY"  # it lives
        before = scene.sent
        park(fault)
        said = life.send("bob", fault)
        assert (said["status"], said["sessionId"]) == ("READY", session), said
        assert scene.sent == [*before, fault]
        record = scene.record(session)
        assert (record["status"], record["identity"], record.keys() & {"reaping", "parked"}) == ("running", BOB, set())
        assert record["agent"]["pid"] == scene.lines("sent")[-1]["pid"] == scene.lines("starts")[-1]["pid"]
        assert (Marks(scene.root).deaths(BOB), Marks(scene.root).parks.identities()) == ((), [])

    park(log.fault)
    assert scene.parked_by(session)
    # Each step begins or ends with a lock or with a file in its place; killed there, it is killed between two steps.
    points = {fault: call for fault, call in faults("kill", log.read()).items() if call.name in ("flock", "replace")}
    assert len(points) > 10
    check_all(points, check)


# What is nobody's, and how all are told of


def test_a_session_that_is_no_peers_is_parked_under_a_name_of_its_own(
    scene: Scene, start_tmux: Callable[[str], Tmux]
) -> None:
    tmux, env = start_tmux("main"), ["env", *(f"{name}={value}" for name, value in scene.project.env.items())]
    tmux.ask("new-session", "-d", "-s", "mine", "-c", str(scene.root), *env, "claude")
    wait_until(lambda: "shortcuts" in tmux.ask("capture-pane", "-p"), "it waits for a prompt")
    tmux.ask("send-keys", "Begin.", "Enter")
    (session,) = wait_until(lambda: [each["id"] for each in records(scene) if "lastPrompt" in each], "it is on record")
    with serving(scene, REAPER, PEERS):
        scene.until_parked(session)
        assert Marks(scene.root).parks.identities() == [f"claude-code-{session}"]
    tmux.ask("new-window", "-c", str(scene.root), *env, str(BIN / "instar-sessions"), "resume", session)
    wait_until(lambda: scene.record(session)["status"] == "running", "it is taken up")
    assert scene.lines("starts")[-1]["argv"] == ["--resume", session]
    assert "identity" not in scene.record(session)


def test_lists_tell_how_each_is_and_agree_with_each_other(scene: Scene) -> None:
    for name in ("eve", "dan", "cat", "meg"):
        Peers(scene.root).add(Peer(name, "claude-code", scene.root))
    live, parked = scene.wake(), scene.told("wake", "eve", "--task", "Begin.")["sessionId"]
    scene.told("terminate", parked, "--reason", "room", program="instar-sessions")
    scene.run("stop", "dan")
    for _ in range(3):
        Marks(scene.root).record_death("claude-code-cat")
    unit = Path(scene.project.env["HOME"]) / ".config/systemd/user/instar-peer@meg.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    with serving(scene, {**REAPER, "minAgeMinutes": 30}, CALM) as server:
        wait_until(lambda: server.get("/sessions")["sessions"][0]["reaper"], "the reaper has looked")
        told, seen = server.get("/peers"), server.get("/sessions")
        listed = {row["name"]: row for row in scene.told("list")}
    peers = {row["name"]: row for row in told["peers"]}
    assert {name: row["state"] for name, row in peers.items()} == {
        "bob": "alive", "eve": "parked", "dan": "stopped", "cat": "crashed", "meg": "managed",
    }  # fmt: skip
    assert {name: row["state"] for name, row in listed.items()} == {name: row["state"] for name, row in peers.items()}
    assert peers["eve"]["resume"] == listed["eve"]["resume"] == f"cd {scene.root} && claude --resume {parked}"
    assert peers["cat"]["deaths"] == 3
    assert 0 < peers["cat"]["nextTry"] <= 301
    assert (told["troubles"], seen["troubles"]) == ([], [])
    (session,) = seen["sessions"]
    assert (session["id"], session["identity"], session["state"]) == (live, BOB, "running")
    assert (session["reaper"]["sessionId"], session["reaper"]["keptBy"]) == (live, "spawn-grace")
    assert (peers["bob"]["sessionId"], peers["eve"]["sessionId"]) == (live, parked)


# What breaks


def test_a_client_that_is_killed_is_counted_once_whoever_looks(scene: Scene) -> None:
    scene.wake()
    with serving(scene, {**REAPER, "minAgeMinutes": 30}, CALM):
        os.kill(scene.lines("starts")[0]["pid"], signal.SIGKILL)
        words = [("wake", "bob", "--json"), ("supervise", "--once")] * 5
        with ExitStack() as stack:
            looking = [stack.enter_context(scene.begin(*each)) for each in words]
            said = [each.communicate(timeout=DEADLINE_S)[0] for each in looking]
        woken = [json.loads(each) for each in said[::2]]
    assert [each["status"] for each in woken] == ["READY"] * 5
    assert [each["woke"] for each in woken].count(True) == 1
    assert len(scene.lines("starts")) == 2
    assert len(Marks(scene.root).deaths(BOB)) == 1


@pytest.mark.parametrize(
    ("reaper", "peers", "by"), [(REAPER, CALM, "reaper"), (OFF, PEERS, "supervisor")], ids=["reaper", "supervisor"]
)
def test_a_server_that_is_killed_in_the_midst_of_an_end_leaves_it_to_the_next(
    scene: Scene, reaper: dict[str, Any], peers: dict[str, Any], by: str
) -> None:
    session = scene.wake()
    with scene.hold("end"), serving(scene, reaper, peers) as server:
        scene.until_told_to_end()
        server.process.kill()
        server.process.wait(DEADLINE_S)
    with serving(scene, reaper, peers) as server:
        wait_until(lambda: scene.parked_by(session) == by, "it is parked", seen=lambda: str(scene.record(session)))
        wait_until(lambda: server.get("/peers")["peers"][0]["state"] == "parked", "it is told as parked")
        total = int(by == "reaper")  # what the supervisor ends is not of the reaper's budget
        wait_until(lambda: server.get("/sessions/reaper")["reapsLastHour"] == total, "it is counted")
        told = server.get("/sessions/reaper")
        assert (told["hostBudget"]["used"], len(told["recent"]), told["autoDisabled"]) == (total, total, False)
    check_parked_once(scene, session)


def test_a_start_that_the_end_of_the_server_cuts_off_is_taken_over(scene: Scene) -> None:
    prompted = Peer("bob", "claude-code", scene.root, initial_prompt="You keep the roof.")
    Peers(scene.root).remove("bob")
    Peers(scene.root).add(prompted)
    scene.wake()
    scene.project.env["INSTAR_PEER"] = "bob"
    scene.run("self-fresh")
    del scene.project.env["INSTAR_PEER"]
    with scene.hold("start"):
        with serving(scene, OFF, CALM) as server:
            wait_until(lambda: len(scene.lines("starts")) == 2, "it starts anew", seen=lambda: str(scene.decided()))
            server.stop()
        assert not is_locked(scene)
        assert [row["action"] for row in scene.told("supervise", "--once")] == ["alive"]
    second = scene.lines("starts")[1]
    session = wait_until(
        lambda: next(
            (each for each in records(scene) if each["agent"]["pid"] == second["pid"] and "source" in each), None
        ),
        "it has started",
    )
    wait_until(lambda: scene.run("supervise", "--once") and len(scene.sent) > 1, "it is told its first prompt")
    (row,) = scene.told("list")
    assert (row["state"], row["sessionId"]) == ("alive", session["id"])
    said = scene.told("send", "bob", "Go on.")
    assert (said["status"], said["woke"], said["sessionId"]) == ("READY", False, session["id"])
    assert scene.record(session["id"])["identity"] == BOB
    assert scene.sent == ["You keep the roof.\n\nBegin.", "You keep the roof.", "Go on."]
    assert len(scene.lines("starts")) == 2
    assert Marks(scene.root).deaths(BOB) == ()
