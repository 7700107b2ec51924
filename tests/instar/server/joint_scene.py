"""A project with a server to be run and a peer, and whatever can be seen of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from clients.waiting import wait_until
from instar.lifecycle.eventlog import EventLog
from instar.lifecycle.memory.marks import Marks
from instar.locks import BusyError
from instar.server import service
from instar.server.endpoint import endpoint, token
from instar.sessions.clock import Clock
from support import BIN, DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Project

BOB = "claude-code-bob"
# Whom nothing keeps is parked at the third look or so, without pressure and without a grace.
REAPER = {
    "enabled": True, "dryRun": False, "tickIntervalSec": 0.5, "minAgeMinutes": 0, "confirmObservations": 2,
    "confirmWindowMinutes": 0, "recentUserWindowMinutes": 0, "idleThresholdModerateMinutes": 0,
    "idleThresholdCriticalMinutes": 0, "normalTierReaps": True, "maxReapsPerHour": 1000, "cooldownSec": 0,
    "finalGraceSec": 0, "pressure": {"crossProcessJitterMs": 0},
}  # fmt: skip
PEERS = {"enabled": True, "superviseIntervalSec": 0.5, "idleMinutes": 0.001}
OFF: dict[str, Any] = {**REAPER, "enabled": False}
UNATTENDED: dict[str, Any] = {"enabled": False}
CALM = {**PEERS, "idleMinutes": 0}  # nobody is idle for too long


@dataclass
class Scene:
    """A project with a server to be run, and peers whose client is a stand-in."""

    project: Project
    folder: Path

    @property
    def root(self) -> Path:
        return self.project.root

    def configure(self, reaper: dict[str, Any], peers: dict[str, Any]) -> None:
        values = {"monitoring": {"sessionReaper": reaper}, "lifecycle": peers}
        (self.root / ".instar/config.json").write_text(json.dumps(values))

    def run(self, *words: str, program: str = "instar-peers", status: int = 0) -> str:
        done = subprocess.run(
            [str(BIN / program), *words], cwd=self.root, env=self.project.env, capture_output=True, text=True,
            check=False, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == status, done
        return done.stdout

    def told(self, *words: str, program: str = "instar-peers", status: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", program=program, status=status))

    def wake(self, task: str = "Begin.") -> str:
        """Have bob live, with a conversation; return its session."""
        said = self.told("wake", "bob", "--task", task)
        assert said["status"] == "READY", said
        return str(said["sessionId"])

    @contextmanager
    def begin(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start a command, and have it end with the block."""
        with subprocess.Popen(
            [str(BIN / "instar-peers"), *words], cwd=self.root, env=self.project.env, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    @contextmanager
    def hold(self, what: str) -> Iterator[None]:
        """Hold the client back where it next comes to its `what`."""
        place = self.folder / f"hold-{what}"
        place.touch()
        try:
            yield
        finally:
            place.unlink(missing_ok=True)

    def let_go(self, what: str) -> None:
        """Hold it back no longer."""
        (self.folder / f"hold-{what}").unlink()

    def lines(self, name: str) -> list[Any]:
        place = self.folder / name
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    @property
    def sent(self) -> list[str]:
        return [line["text"] for line in self.lines("sent")]

    def record(self, session: str) -> dict[str, Any]:
        return self.project.record(session)

    def rows(self, log: str) -> list[dict[str, Any]]:
        place = self.root / f".instar/logs/{log}.jsonl"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def decided(self, ev: str = "supervise") -> list[dict[str, str]]:
        return [row for row in EventLog(self.root, Clock()).tail(500) if row["ev"] == ev]

    def is_told(self, event: str, **detail: Any) -> bool:
        """Say whether the reaper has told of this."""
        return any(row["event"] == event and detail.items() <= row.items() for row in self.rows("sentinel-events"))

    def parked_by(self, session: str) -> str:
        """Return who has parked a session; "" where nobody has."""
        return str((self.record(session).get("parked") or {}).get("by", ""))

    def until_parked(self, session: str) -> str:
        """Wait until a session is parked, and return by whom."""
        return wait_until(lambda: self.parked_by(session), "it is parked", seen=self.seen)

    def until_put_away(self) -> None:
        wait_until(lambda: any(row["action"] == "reaped-idle" for row in self.decided()), "it is put away")

    def until_told_to_end(self) -> None:
        wait_until(lambda: self.lines("ends"), "the client is told to end", seen=self.seen)

    def until_kept_by_both(self, gate: str) -> None:
        """Wait until the reaper and the supervisor have said that a gate keeps a session."""
        wait_until(
            lambda: any(row["keptBy"] == gate for row in self.rows("reaper-audit"))
            and any(row.get("kept") == gate for row in self.decided()),
            f"{gate} keeps it", seen=self.seen,
        )  # fmt: skip

    def seen(self) -> str:
        """Return what was decided, for whoever waited for something else."""
        return f"{self.rows('reaper-audit')}\n{self.rows('sentinel-events')}\n{self.decided()}"


class Server:
    """A server that runs."""

    def __init__(self, project: Project) -> None:
        self._root = project.root
        self.process = subprocess.Popen(
            [sys.executable, "-m", "instar.cli.server", "run", "--project", str(project.root), "--port", "0"],
            env=project.env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: service.status(self._root).state == "running", "the server runs")

    def get(self, path: str) -> Any:
        found = endpoint(self._root)
        assert found
        headers = {"Authorization": f"Bearer {token(self._root)}"}
        return httpx.get(f"http://127.0.0.1:{found.port}{path}", headers=headers, timeout=DEADLINE_S).json()

    def stop(self) -> None:
        assert not service.stop(self._root).was_killed
        assert self.process.wait(DEADLINE_S) == 0


@contextmanager
def serving(scene: Scene, reaper: dict[str, Any], peers: dict[str, Any]) -> Iterator[Server]:
    """Have the server run with these two until the end of the block."""
    scene.configure(reaper, peers)
    server = Server(scene.project)
    try:
        yield server
        if server.process.poll() is None:
            server.stop()
    finally:
        server.process.kill()
        server.process.wait(DEADLINE_S)


def records(scene: Scene) -> list[dict[str, Any]]:
    return [json.loads(place.read_text()) for place in (scene.root / ".instar/state/sessions").glob("*.json")]


def is_locked(scene: Scene) -> bool:
    """Say whether somebody is at bob."""
    try:
        with Marks(scene.root).parks.lock(BOB):
            return False
    except BusyError:
        return True
