"""The server tells how the peers are, looks after them where that is wanted, and ends with that."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from clients.waiting import wait_until
from instar.lifecycle.eventlog import EventLog
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.peers import Peer, Peers
from instar.lifecycle.serving import Serving
from instar.server import process, service
from instar.server.endpoint import endpoint, token
from instar.sessions.clock import Clock
from support import DEADLINE_S
from tests.instar.server.in_thread import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Project

BOB = "claude-code-bob"


class Listed:
    """What the server needs of the peers, remembering what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def listed(self) -> dict[str, Any]:
        return {"enabled": True, "peers": [{"name": "bob"}], "troubles": []}

    def mode(self) -> str:
        return "troubled"

    def start(self) -> None:
        self.asked.append("start")

    def stop(self) -> bool:
        self.asked.append("stop")
        return True


def test_the_peers_are_told_and_looked_after_until_the_end(tmp_path: Path) -> None:
    peers = Listed()
    with served(tmp_path, peers=peers) as client:
        assert client.get("/peers").json()["peers"] == [{"name": "bob"}]
    assert peers.asked == ["start", "stop"]


def test_they_are_told_to_nobody_without_the_token_and_changed_by_nobody(tmp_path: Path) -> None:
    with served(tmp_path, peers=Listed()) as client:
        assert client.get("/peers", headers={"Authorization": "Bearer wrong"}).status_code == 403
        assert client.get("/peers", headers={"Authorization": ""}).status_code == 401
        assert client.get("/peers", headers={"Origin": "http://example.com"}).status_code == 403
        assert [client.request(method, "/peers").status_code for method in ("POST", "PUT", "DELETE")] == [405] * 3


def test_without_them_the_server_says_so(tmp_path: Path) -> None:
    with served(tmp_path, peers=None) as client:
        answer = client.get("/peers")
        assert (answer.status_code, answer.json()) == (503, {"error": "peers unavailable"})
        assert client.get("/ping").status_code == 200
        wait_until(lambda: client.get("/health").json().get("peers") == "unavailable", "the health says so")


def test_the_health_tells_its_owner_whether_they_are_looked_after(tmp_path: Path) -> None:
    with served(tmp_path, peers=Listed()) as client:
        wait_until(lambda: client.get("/health").json().get("peers") == "troubled", "the health says so")
        assert "peers" not in client.get("/health", headers={"Authorization": ""}).json()


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Return the peers of a project with one that has died."""
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    Peers(tmp_path).add(Peer("bob", "claude-code", tmp_path))
    agent = {"pid": 2**22 + 1, "start": "5", "boot": "another"}
    Marks(tmp_path).save_session(BOB, {"sessionId": "s", "agent": agent, "wokeAt": 0})
    made = Serving(tmp_path)
    yield made
    assert made.stop()


def configure(root: Path, **values: Any) -> None:
    (root / ".instar").mkdir(exist_ok=True)
    (root / ".instar/config.json").write_text(json.dumps({"lifecycle": values}))


def is_looked_after(root: Path) -> bool:
    return bool(EventLog(root, Clock()).tail(1)) and Marks(root).session(BOB) is None


def test_peers_are_looked_after_where_the_configuration_says_so(serving: Serving, tmp_path: Path) -> None:
    configure(tmp_path, enabled=True, superviseIntervalSec=0.1)
    serving.start()
    wait_until(lambda: is_looked_after(tmp_path), "who died is put away")

    assert serving.listed()["enabled"]
    assert serving.mode() == "on"
    assert serving.stop()


def test_nobody_is_looked_after_unasked(serving: Serving, tmp_path: Path) -> None:
    serving.start()
    assert serving.stop()  # after the look that it is at

    assert not is_looked_after(tmp_path)
    assert not serving.listed()["enabled"]
    assert serving.mode() == "off"
    assert [each["name"] for each in serving.listed()["peers"]] == ["bob"]


def test_a_configuration_that_is_none_is_a_trouble_and_no_end(serving: Serving, tmp_path: Path) -> None:
    configure(tmp_path)
    (tmp_path / ".instar/config.json").write_text("{")
    serving.start()
    wait_until(lambda: serving.mode() == "troubled", "it is told")

    assert serving.listed()["troubles"]
    assert serving.listed()["peers"] == []


def test_the_server_of_a_project_tells_of_its_peers_and_looks_after_them(project: Project, tmp_path: Path) -> None:
    Peers(project.root).add(Peer("bob", "claude-code", project.root))
    agent = {"pid": 2**22 + 1, "start": "5", "boot": "another"}
    Marks(project.root).save_session(BOB, {"sessionId": "s", "agent": agent, "wokeAt": 0})
    configure(project.root, enabled=True)
    with subprocess.Popen(
        [sys.executable, "-m", "instar.cli.server", "run", "--project", str(project.root), "--port", "0"],
        env={**project.env, "TMUX_TMPDIR": str(tmp_path)}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            wait_until(lambda: service.status(project.root).state == "running", "the server runs")
            found = endpoint(project.root)
            assert found
            headers = {"Authorization": f"Bearer {token(project.root)}"}
            answer = httpx.get(f"http://127.0.0.1:{found.port}/peers", headers=headers, timeout=DEADLINE_S)
            assert [each["name"] for each in answer.json()["peers"]] == ["bob"]
            wait_until(lambda: is_looked_after(project.root), "who died is put away")
            assert not service.stop(project.root).was_killed
            assert server.wait(DEADLINE_S) == 0
        finally:
            server.kill()


def test_whatever_keeps_the_peers_from_being_told_of_the_gate_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "instar.lifecycle.serving", None)

    assert process._peers(tmp_path) is None  # noqa: SLF001 - what `run` does by itself
