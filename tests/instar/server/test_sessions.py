"""The server tells of the sessions and their reaper, has the reaper look, and ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from clients.waiting import wait_until
from instar.server import process, service
from instar.server.endpoint import endpoint, token
from instar.sessions.reaper.audit import Audit
from instar.sessions.reaper.switch import Switch
from support import DEADLINE_S
from tests.instar.server.in_thread import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stand_ins import Client
    from support import Project

PATHS = ("/sessions", "/sessions/reaper", "/sessions/reaper/audit")


class Sessions:
    """What the server needs of the sessions, remembering what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def listed(self) -> dict[str, Any]:
        return {"sessions": [{"id": "s"}]}

    def snapshot(self, *, fresh: bool) -> dict[str, Any]:
        self.asked.append(fresh)
        return {"mode": "dry-run"}

    def audit(self, limit: int | None) -> list[dict[str, Any]]:
        self.asked.append(limit)
        return [{"event": "decision"}]

    def mode(self) -> str:
        return "dry-run"

    def start(self) -> None:
        self.asked.append("start")

    def stop(self) -> bool:
        self.asked.append("stop")
        return True


def test_the_sessions_are_told(tmp_path: Path) -> None:
    sessions = Sessions()
    with served(tmp_path, sessions=sessions) as client:
        assert client.get("/sessions").json() == {"sessions": [{"id": "s"}]}
        assert client.get("/sessions/reaper").json() == {"mode": "dry-run"}
        assert client.get("/sessions/reaper?fresh=1").status_code == 200
        assert client.get("/sessions/reaper?fresh=no").status_code == 200
        assert client.get("/sessions/reaper/audit").json() == {"rows": [{"event": "decision"}]}
        assert client.get("/sessions/reaper/audit?limit=7").status_code == 200
        for nonsense in ("-1", "x", "", "1" * 10, "1.5"):
            answer = client.get("/sessions/reaper/audit", params={"limit": nonsense})
            assert (answer.status_code, answer.json()) == (400, {"error": "limit is no whole number"})
    assert sessions.asked == ["start", False, True, False, None, 7, "stop"]


@pytest.mark.parametrize("path", PATHS)
def test_they_are_told_to_nobody_without_the_token_and_changed_by_nobody(tmp_path: Path, path: str) -> None:
    with served(tmp_path, sessions=Sessions()) as client:
        assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 403
        assert client.get(path, headers={"Authorization": ""}).status_code == 401
        assert client.get(path, headers={"Origin": "http://example.com"}).status_code == 403
        assert [client.request(method, path).status_code for method in ("POST", "PUT", "DELETE")] == [405] * 3


@pytest.mark.parametrize("path", PATHS)
def test_without_them_the_server_says_so_and_serves_the_gate(tmp_path: Path, path: str) -> None:
    with served(tmp_path, sessions=None) as client:
        answer = client.get(path)
        assert (answer.status_code, answer.json()) == (503, {"error": "session reaper unavailable"})
        wait_until(lambda: client.get("/health").json().get("reaper") == "unavailable", "the health says so")
        assert client.post("/internal/stop-gate/evaluate", json={"sessionId": "s"}).status_code == 200


def test_the_health_tells_its_owner_whether_the_reaper_runs(tmp_path: Path) -> None:
    with served(tmp_path, sessions=Sessions()) as client:
        wait_until(lambda: client.get("/health").json().get("reaper") == "dry-run", "the health says so")
        assert "reaper" not in client.get("/health", headers={"Authorization": ""}).json()


def test_whatever_keeps_the_sessions_from_being_told_of_the_gate_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "instar.sessions.serving", None)

    assert process._sessions(tmp_path) is None  # noqa: SLF001 - what `run` does by itself


# The real ones


@contextmanager
def running(project: Project) -> Iterator[httpx.Client]:
    """Have the real server of a project run until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", "instar.cli.server", "run", "--project", str(project.root), "--port", "0"],
        env=project.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as server:  # fmt: skip
        try:
            wait_until(lambda: service.status(project.root).state == "running", "the server runs")
            found = endpoint(project.root)
            assert found
            base = f"http://127.0.0.1:{found.port}"
            headers = {"Authorization": f"Bearer {token(project.root)}"}
            with httpx.Client(base_url=base, headers=headers, timeout=DEADLINE_S) as client:
                yield client
            ending = service.stop(project.root)
            assert not ending.was_killed
            assert server.wait(DEADLINE_S) == 0
        finally:
            server.kill()


def switch_on(project: Project, **reaper: Any) -> None:
    values = {"monitoring": {"sessionReaper": {"tickIntervalSec": 0.2, **reaper}}}
    (project.root / ".instar/config.json").write_text(json.dumps(values))
    Switch(project.root).set("dry-run", by="me", reason="", now=1.0)


def test_the_reaper_looks_by_itself_while_the_server_runs(
    project: Project, start_client: Callable[..., Client]
) -> None:
    start_client("claude").tell("SessionStart", "s", source="startup")
    switch_on(project)
    with running(project) as client:
        first = wait_until(lambda: client.get("/sessions/reaper").json()["lastTickAt"], "the first look")
        wait_until(lambda: client.get("/sessions/reaper").json()["lastTickAt"] > first, "the next one")
        told = client.get("/sessions").json()
        assert (told["mode"], told["troubles"]) == ("dry-run", [])
        assert told["ageS"] < DEADLINE_S
        (session,) = told["sessions"]
        assert (session["id"], session["state"]) == ("s", "running")
        assert (session["reaper"]["keptBy"], session["reaper"]["verdict"]) == ("spawn-grace", "keep")
        (fresh,) = client.get("/sessions/reaper?fresh=1").json()["sessions"]
        assert fresh["keptBy"] == "spawn-grace"
        (row,) = client.get("/sessions/reaper/audit").json()["rows"]
        assert (row["event"], row["keptBy"]) == ("decision", "spawn-grace")
        wait_until(lambda: client.get("/health").json().get("reaper") == "dry-run", "the health says so")
        Switch(project.root).set("off", by="me", reason="", now=2.0)
        wait_until(lambda: client.get("/health").json().get("reaper") == "off", "the health says so")


def test_to_ask_changes_nothing(project: Project, start_client: Callable[..., Client]) -> None:
    start_client("claude").tell("SessionStart", "s", source="startup")
    state = project.root / ".instar/state"
    with running(project) as client:
        before = {path: path.stat().st_mtime_ns for path in state.rglob("*")}
        for _ in range(2):
            for path in ("/sessions", "/sessions/reaper", "/sessions/reaper?fresh=1", "/sessions/reaper/audit"):
                assert client.get(path).status_code == 200
        (session,) = client.get("/sessions").json()["sessions"]
        assert (session["id"], session["reaper"]) == ("s", None)
        assert {path: path.stat().st_mtime_ns for path in state.rglob("*")} == before


def test_what_cannot_be_read_is_told_and_is_no_error(project: Project) -> None:
    (project.root / ".instar/config.json").write_text("{")
    place = project.root / ".instar/state/sessions/torn.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("{")
    (project.root / ".instar/state/session-reaper.json").write_text("[]")
    Audit(project.root).event("x\n\ud800\x1b")
    with running(project) as client:
        told = client.get("/sessions")
        assert told.status_code == 200
        assert [(each["id"], each["state"]) for each in told.json()["sessions"]] == [("torn", "unreadable")]
        assert any("config.json" in each for each in told.json()["troubles"])
        assert client.get("/sessions/reaper").json()["mode"] == "off"
        assert client.get("/sessions/reaper?fresh=1").status_code == 200
        assert client.get("/sessions/reaper/audit").json()["rows"][0]["event"] == "x\n\ud800\x1b"


def test_a_look_that_hangs_delays_the_end_by_no_more_than_it_may(
    project: Project, start_client: Callable[..., Client]
) -> None:
    programs, asked = project.root.parent / "bin", project.root.parent / "asked"
    programs.mkdir(exist_ok=True)
    hangs = programs / "tmux"
    hangs.write_text(f"#!/bin/sh\necho $$ >{asked}\nexec sleep 600\n")  # as if its server were stopped
    hangs.chmod(0o755)
    client = start_client("claude")
    client.tell("SessionStart", "s", source="startup")
    place = project.root / ".instar/state/sessions/s.json"
    record = json.loads(place.read_bytes())
    stamp = {"session": "x", "server": os.getpid(), "socket": "/nowhere/s", "pane": "%0"}
    place.write_text(json.dumps({**record, "tmux": stamp}))
    switch_on(project, maxProbeSec=60, minAgeMinutes=0)
    project.env["PATH"] = f"{programs}:{project.env['PATH']}"
    try:
        with running(project):
            wait_until(lambda: asked.exists() and asked.read_text().strip(), "a look is under way")
    finally:
        os.kill(int(asked.read_text()), signal.SIGKILL)
