"""A parking, broken at every edge call: the session is kept or parked, and after the next recovery nothing between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from clients.waiting import wait_until
from instar.sessions.clock import boot_id
from instar.sessions.machine.processes import liveness, read_table
from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.park import SessionManager
from instar.sessions.policy import policy
from instar.sessions.verdict import ALL_CLEAR, Verdict
from parking import GRACES
from stand_ins import BASH
from tests.faults.harness import DRIVER, Done, Log, check_all, faults, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stand_ins import Tmux as Server

PARKING = Path(__file__).parent.parent / "parking.py"
SESSIONS, LIFECYCLE = ".instar/state/sessions", ".instar/state/lifecycle"
IDLE = "while :; do read -r -t 0.2; done"


class Scene:
    """A project with one session, whose agent is started anew for each try."""

    def __init__(self, root: Path) -> None:
        self.root, self.rows_at = root, root.parent / "rows"
        self.program = root.parent / "bin" / "claude"
        self.program.parent.mkdir()
        self.program.symlink_to(BASH)
        self.record_at = root / SESSIONS / "s.json"
        self.record_at.parent.mkdir(parents=True)
        self.transcript = root.parent / "s.jsonl"
        self.transcript.write_text('{"type":"user","sessionId":"s","timestamp":"2026-01-01T00:00:00.000Z"}\n')
        self.agent: subprocess.Popen[bytes] | None = None

    def begin(self) -> dict[str, Any]:
        """Have an agent, and its record as the hooks leave it; return the stamp."""
        self.end()
        for folder in (SESSIONS, LIFECYCLE):
            for path in (self.root / folder).glob("*") if (self.root / folder).exists() else ():
                path.unlink()
            for path in (self.root / folder).glob(".*"):
                path.unlink()
        self.rows_at.unlink(missing_ok=True)
        self.agent = subprocess.Popen([self.program, "-c", IDLE], stdin=subprocess.PIPE, cwd=self.root)
        return self.recorded(self.agent.pid)

    def recorded(self, pid: int, **fields: Any) -> dict[str, Any]:
        process = wait_until(lambda: (found := read_table().get(pid)) and found.name == "claude" and found, "it runs")
        stamp = {"pid": pid, "start": process.start, "boot": boot_id()}
        record = {
            "id": "s", "status": "running", "client": "claude-code", "cwd": str(self.root), "agent": stamp,
            "version": 3, "transcriptPath": str(self.transcript), "mine": {"of": "another"}, **fields,
        }  # fmt: skip
        self.record_at.write_text(json.dumps(record))
        return stamp

    def end(self) -> None:
        if self.agent:
            self.agent.kill()
            self.agent.communicate()

    def park(self, fault: str) -> Done:
        """Park the session in a process of its own, broken by `fault`."""
        command: list[str | Path] = [sys.executable, "-I", "-B", DRIVER, fault, PARKING, self.root, self.rows_at]
        return run([*command, "terminate", "s"], self.root, {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"})

    def manager(self) -> SessionManager:
        def tell(row: dict[str, Any]) -> None:
            with self.rows_at.open("a") as file:
                file.write(json.dumps(row) + "\n")

        clear = Verdict(ALL_CLEAR, "")
        return SessionManager(
            self.root, policy({}), tmux=Tmux(), look=lambda *_: clear, tell=tell, graces=GRACES
        )  # fmt: skip

    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.record_at.read_text()))

    def left(self) -> set[str]:
        folders = [self.root / SESSIONS, self.root / LIFECYCLE]
        names = {path.name for folder in folders if folder.exists() for path in folder.iterdir()}
        return {name for name in names if not name.endswith(".lock")}

    def reaped(self) -> list[str]:
        """Return the ids of the parkings that were told of."""
        lines = self.rows_at.read_text().splitlines() if self.rows_at.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return [row["park"] for row in rows if row["type"] == "reaped"]


def kept(scene: Scene, stamp: dict[str, Any]) -> None:
    """Assert that the session goes on as if nothing had been."""
    record = scene.record()
    assert liveness(stamp) == "alive"
    assert record["status"] == "running"
    assert not record.keys() & {"reaping", "parked", "endedAt"}
    assert record["mine"] == {"of": "another"}
    assert not {name for name in scene.left() if name.startswith("claude-code-s.")}
    assert scene.reaped() == []


def parked(scene: Scene, *, is_once: bool) -> None:
    """Assert that the session is over, and can be taken up."""
    record = scene.record()
    assert (record["status"], record["endedReason"], record["parked"]["by"]) == ("completed", "reaped-idle", "reaper")
    assert record["parked"]["resume"]["argv"] == ["claude", "--resume", "s"]
    assert record["mine"] == {"of": "another"}
    assert "reaping" not in record
    assert scene.left() == {"s.json", "claude-code-s.idle-reaped"}
    marker = (scene.root / LIFECYCLE / "claude-code-s.idle-reaped").read_text()
    assert json.loads(marker.splitlines()[1])["id"] == record["parked"]["id"]
    assert {*scene.reaped()} <= {record["parked"]["id"]}
    assert not is_once or len(scene.reaped()) <= 1


def check(scene: Scene, fault: str, stamp: dict[str, Any]) -> None:
    """Break one parking; then recover, and assert that the session is kept or parked, and can be parked if kept."""
    done = scene.park(fault)
    is_killed = done.was_killed
    assert is_killed or done.status == 0, done.stderr
    if not is_killed and done.answer["terminated"]:
        assert liveness(stamp) == "dead"
    recovered = scene.manager().recover()
    assert "failed" not in {row["action"] for row in recovered}, recovered
    if liveness(stamp) == "alive":
        assert is_killed or not done.answer["terminated"]
        kept(scene, stamp)
        assert scene.manager().terminate("s", "reaped-idle", by="reaper")["terminated"]
    parked(scene, is_once=not is_killed and not fault.endswith("+"))  # or told once more, under the same id
    assert scene.manager().recover() == []


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    (tmp_path / "project").mkdir()
    made = Scene(tmp_path / "project")
    yield made
    made.end()


def calls_of(scene: Scene, log: Log) -> list[Any]:
    scene.begin()
    done = scene.park(log.fault)
    assert done.answer["terminated"], done
    return log.read()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["kill", "disk"])
def test_a_broken_parking_leaves_the_session_kept_or_parked(scene: Scene, log: Log, kind: str) -> None:
    points = faults(kind, calls_of(scene, log))
    assert len(points) > 10

    check_all(points, lambda fault: check(scene, fault, scene.begin()))


@pytest.mark.timeout(300)
def test_a_disk_that_stays_full_loses_nothing(scene: Scene, log: Log) -> None:
    points = {f"{fault}+": call for fault, call in faults("ENOSPC", calls_of(scene, log)).items()}

    check_all(points, lambda fault: check(scene, fault, scene.begin()))


@pytest.mark.timeout(300)
def test_a_pane_is_left_as_it_was_or_says_how_to_go_on(
    scene: Scene, log: Log, start_tmux: Callable[[str], Server]
) -> None:
    server = start_tmux("main")
    server.ask("new-session", "-d", "-s", "keep", "-x", "100", "-y", "8", "sleep 600")
    pane = ""

    def option(name: str) -> str:
        return server.ask("show-options", "-pqv", "-t", pane, name)

    def begin() -> dict[str, Any]:
        nonlocal pane
        scene.begin()
        scene.end()
        pane = server.ask("new-window", "-d", "-P", "-F", "#{pane_id}", f"exec {scene.program} -c '{IDLE}'")
        pid, number = server.ask("display-message", "-p", "-t", pane, "#{pane_pid} #{pid}").split()
        start = read_table().get(int(number))
        assert start
        tmux = {"server": int(number), "serverStart": start.start, "socket": str(server.socket), "pane": pane}
        return scene.recorded(int(pid), tmux=tmux)

    def check_pane(fault: str) -> None:
        stamp = begin()
        scene.park(fault)
        scene.manager().recover()
        if liveness(stamp) == "alive":
            kept(scene, stamp)
            assert (option("remain-on-exit"), option("remain-on-exit-format")) == ("", "")
            psutil.Process(stamp["pid"]).kill()
            return
        assert server.ask("display-message", "-p", "-t", pane, "#{pane_dead}") == "1"
        server.ask("run-shell", ":")
        assert "instar-sessions resume s" in server.ask("capture-pane", "-p", "-t", pane)
        server.ask("kill-pane", "-t", pane)

    begin()
    assert scene.park(log.fault).answer["terminated"]
    points = faults("kill", log.read())
    check_all(points, check_pane)
