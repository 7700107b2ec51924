"""The lifecycle with the machine for its edges: real records, real processes, real panes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from clients.waiting import wait_until
from instar.lifecycle import verbs
from instar.lifecycle.clients.launch import socket_of
from instar.lifecycle.context import context_tokens
from instar.lifecycle.lifecycle import Lifecycle
from instar.lifecycle.peers import Peer
from instar.services import Services
from instar.sessions.clock import Clock, boot_id
from instar.sessions.machine.processes import liveness
from stand_ins import BASH

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Project

BOB = "claude-code-bob"
NEW = ("set-option", "-g", "remain-on-exit", "on", ";", "new-session", "-d", "-P", "-F", "#{pane_pid}")


class Pane:
    """A stand-in for a client in a pane of the peers' server."""

    def __init__(self, project: Project, environ: dict[str, str], folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.socket = socket_of(environ)
        Path(self.socket).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.program = folder / "claude"
        self.program.symlink_to(BASH)
        self.pid = 0

    def tmux(self, *command: str) -> str:
        said = ["tmux", "-S", self.socket, "-f", os.devnull, *command]
        return subprocess.run(said, check=True, capture_output=True, text=True, env=self.project.env).stdout.strip()

    def start(self, end: str = "exit 0") -> int:
        """Have one live under the name of bob; told to end, it does as `end` says."""
        line = f"trap '{end}' TERM; echo It is up; while :; do read -r -t 0.2 line && eval \"$line\"; done"
        self.pid = int(self.tmux(*NEW, "-s", BOB, "-c", str(self.project.root), str(self.program), "-c", line))
        wait_until(lambda: "It is up" in self.tmux("capture-pane", "-p", "-t", BOB), "it can be told to end")
        return self.pid

    def start_wrapped(self) -> None:
        """Have one live below a wrapper, which ends a moment after it."""
        wrapper = f"{self.program} -c 'sleep 600; :'; status=$?; sleep 0.3; exit $status"
        first = int(self.tmux(*NEW, "-s", BOB, "-c", str(self.project.root), wrapper))
        self.pid = wait_until(lambda: psutil.Process(first).children(), "it is started")[0].pid

    def agent(self) -> dict[str, Any]:
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return {"pid": self.pid, "start": stat[19], "boot": boot_id()}

    def record(self, session: str, **said: Any) -> dict[str, Any]:
        """Put a session of it on record."""
        server, pane = self.tmux("list-panes", "-t", BOB, "-F", "#{pid} #{pane_id}").split()
        start = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[19]
        tmux = {"session": BOB, "server": int(server), "serverStart": start, "socket": self.socket, "pane": pane}
        record = {
            "id": session, "status": "running", "client": "claude-code", "cwd": str(self.project.root),
            "transcriptPath": str(self.transcript(session)), "agent": self.agent(), "tmux": tmux, "identity": BOB,
            **said,
        }  # fmt: skip
        place = self.project.root / f".instar/state/sessions/{session}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(record))
        return record

    def transcript(self, session: str) -> Path:
        slug = "".join(each if each.isalnum() or each == "-" else "-" for each in str(self.project.root))
        place = self.folder / "projects" / slug / f"{session}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        said = {"sessionId": session, "isSidechain": False, "version": "2.1.197"}
        usage = {"input_tokens": 3, "cache_read_input_tokens": 1000, "output_tokens": 20}
        answer = {
            "id": "m1", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "Done."}], "usage": usage,
        }  # fmt: skip
        rows = [
            {**said, "type": "user", "uuid": "1", "timestamp": "2026-01-01T00:00:00Z",
             "message": {"role": "user", "content": "Go."}},
            {**said, "type": "assistant", "uuid": "2", "parentUuid": "1", "timestamp": "2026-01-01T00:00:05Z",
             "requestId": "r", "message": answer},
        ]  # fmt: skip
        place.write_text("".join(json.dumps(each) + "\n" for each in rows))
        return place


@pytest.fixture
def environ(tmp_path: Path, project: Project) -> dict[str, str]:
    return {
        **project.env, "TMUX_TMPDIR": str(tmp_path / "t"), "INSTAR_SHARED_ROOT": str(tmp_path / "shared"),
        "INSTAR_PEER": "bob",
    }  # fmt: skip


@pytest.fixture
def pane(project: Project, environ: dict[str, str], tmp_path: Path) -> Iterator[Pane]:
    made = Pane(project, environ, tmp_path)
    yield made
    subprocess.run(["tmux", "-S", made.socket, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def life(project: Project, environ: dict[str, str], pane: Pane) -> Lifecycle:
    assert pane
    made = Lifecycle(project.root, environ, services=Services(), sleep=lambda _seconds: None)
    made.peers.add(Peer("bob", "claude-code", project.root))
    return made


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_who_has_no_session_is_asleep(life: Lifecycle) -> None:
    assert life.edges.live(BOB).state == "dead"
    assert [each["state"] for each in life.status()] == ["asleep"]
    assert life.own_name() == "bob"


def test_a_client_is_seen_by_its_pane_until_it_tells_of_itself(life: Lifecycle, pane: Pane) -> None:
    pane.start()
    found = life.edges.live(BOB)
    assert (found.state, found.session, found.agent) == ("alive", None, pane.agent())

    pane.record("s")
    found = life.edges.live(BOB)
    assert (found.state, found.session and found.session.id) == ("alive", "s")


def test_a_stop_ends_a_client_that_never_told_of_itself(life: Lifecycle, pane: Pane) -> None:
    pid = pane.start()
    said = verbs.stop("bob", life.edges)

    assert said["status"] == "DONE"
    wait_until(lambda: is_gone(pid), "it has ended")
    assert life.edges.live(BOB).state == "dead"
    assert [each["state"] for each in life.status()] == ["stopped"]
    assert not life.edges.marks.deaths(BOB)


def test_a_stop_parks_what_can_be_taken_up(life: Lifecycle, pane: Pane, project: Project) -> None:
    pid = pane.start()
    pane.record("s")
    assert verbs.stop("bob", life.edges)["status"] == "DONE"

    wait_until(lambda: is_gone(pid), "it has ended")
    (row,) = life.status()
    assert (row["state"], row["resume"]) == ("stopped", f"cd {project.root} && claude --resume s")
    assert row["tokens"] == 1023
    assert life.edges.end(life.edges.live(BOB)).cause == "parked"


@pytest.mark.parametrize(
    ("how", "cause", "text"),
    [
        (signal.SIGKILL, "crash", "signal 9"),
        ("exit 0", "clean-exit", ""),
        ("exit 3", "crash", "status 3"),
    ],
)
def test_how_it_ended_is_told_by_its_pane(life: Lifecycle, pane: Pane, how: Any, cause: str, text: str) -> None:
    pid = pane.start("exit 3" if how == "exit 3" else "exit 0")
    pane.record("s")
    life.edges.marks.save_session(BOB, {"sessionId": "s", "agent": pane.agent()})
    os.kill(pid, how if how is signal.SIGKILL else signal.SIGTERM)
    wait_until(lambda: life.edges.live(BOB).state == "dead", "it has ended")
    (row,) = life.supervisor.run()

    assert (row["action"], row["cause"]) == ("reaped-gone", cause)
    assert row.get("death", "") == text
    assert len(life.edges.marks.deaths(BOB)) == (cause == "crash")
    assert pane.socket
    assert BOB not in subprocess.run(
        ["tmux", "-S", pane.socket, "list-sessions"], check=False, capture_output=True, text=True
    ).stdout  # fmt: skip


def test_the_pane_of_a_wrapper_is_removed_once_that_has_ended_as_well(life: Lifecycle, pane: Pane) -> None:
    pane.start_wrapped()
    pane.record("s")
    life.edges.marks.save_session(BOB, {"sessionId": "s", "agent": pane.agent()})
    pane.tmux("new-session", "-d", "-s", "other", "sleep", "60")  # so that the server goes on
    os.kill(pane.pid, signal.SIGKILL)
    wait_until(lambda: is_gone(pane.pid), "it has ended")

    (row,) = life.supervisor.run()

    assert (row["action"], row["cause"]) == ("reaped-gone", "crash")
    assert pane.tmux("list-sessions", "-F", "#{session_name}") == "other"


def test_a_server_that_died_and_a_machine_that_was_started_anew_are_no_crashes(life: Lifecycle, pane: Pane) -> None:
    pid = pane.start("exit 0")
    pane.record("s")
    life.edges.marks.save_session(BOB, {"sessionId": "s", "agent": pane.agent()})
    pane.tmux("kill-server")
    wait_until(lambda: is_gone(pid), "it has ended")
    later = Lifecycle(
        life.root, {"TMUX_TMPDIR": str(Path(pane.socket).parents[1])}, Clock(boot=lambda: "another"),
        services=Services(),
    )  # fmt: skip

    assert later.edges.end(later.edges.live(BOB)).cause == "host-reboot"
    (row,) = life.supervisor.run()
    assert (row["cause"], life.edges.marks.deaths(BOB)) == ("server-dead", ())


def test_another_session_of_the_same_process_becomes_the_peers(life: Lifecycle, pane: Pane, project: Project) -> None:
    pane.start()
    pane.record("s")
    life.supervisor.run()
    pane.record("s", status="completed", endedReason="replaced")
    pane.record("after-clear", identity=None)
    life.supervisor.run()

    assert project.record("after-clear")["identity"] == BOB
    state = life.edges.marks.session(BOB)
    assert state
    assert state["sessionId"] == "after-clear"


def test_a_tmux_server_that_hangs_tells_nothing(life: Lifecycle, pane: Pane) -> None:
    pid = pane.start()
    server = int(pane.tmux("display-message", "-p", "#{pid}"))
    os.kill(server, signal.SIGSTOP)
    try:
        assert life.edges.live(BOB).state == "indeterminate"
        assert [each["action"] for each in life.supervisor.run()] == ["skipped-indeterminate"]
    finally:
        os.kill(server, signal.SIGCONT)
    assert not is_gone(pid)


def test_a_client_that_works_is_not_parked_for_being_idle(life: Lifecycle, pane: Pane, project: Project) -> None:
    pid = pane.start()
    pane.record("s")
    life.edges.marks.save_session(BOB, {"sessionId": "s", "agent": pane.agent(), "wokeAt": 0})
    (row,) = life.supervisor.run()

    assert (row["action"], row["outcome"]) == ("alive", "kept")
    assert not is_gone(pid)
    assert project.record("s")["status"] == "running"
    assert liveness(pane.agent()) == "alive"


def test_the_size_of_a_context_is_that_of_the_last_call(tmp_path: Path, pane: Pane) -> None:
    place = tmp_path / "rollout.jsonl"
    info = {"total_token_usage": {"total_tokens": 900}, "last_token_usage": {"total_tokens": 70}}
    place.write_text(json.dumps({"type": "event_msg", "payload": {"type": "token_count", "info": info}}) + "\n")

    assert context_tokens("codex-cli", place) == 70
    assert context_tokens("claude-code", pane.transcript("s")) == 1023
    assert context_tokens("claude-code", place) is None
    assert context_tokens("other", place) is None
    assert context_tokens("codex-cli", tmp_path / "nowhere") is None
