"""One server for a project: it says where it is, outlives who started it, and ends with everything written down."""

from __future__ import annotations

import http.client
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import gate_stand_in
from hooks.common.endpoint import server_of, token_of
from instar.errors import InstarError
from instar.server import endpoint, logs, service
from support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STAND_IN = [sys.executable, gate_stand_in.__file__]
EVALUATE = "/internal/stop-gate/evaluate"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Return a project; what runs for it in the end is killed."""
    folder = tmp_path / "project"
    folder.mkdir()
    yield folder
    service.stop(folder, 0.0)


def begin(root: Path, seconds: float = 0.0) -> subprocess.Popen[str]:
    """Begin to start the server with the stand-in."""
    return subprocess.Popen(
        [*STAND_IN, "start", str(root), str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def start(root: Path, seconds: float = 0.0) -> dict[str, Any]:
    return told(begin(root, seconds))


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def command(root: Path, *words: str, status: int = 0) -> str:
    """Run instar-server and return what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "instar.cli.server", *words, "--project", str(root)], capture_output=True, text=True,
        check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stdout + done.stderr


def hand_over(root: Path, session: str) -> None:
    """Send a stop to be evaluated, and hang up."""
    body = json.dumps({"sessionId": session}).encode()
    head = f"POST {EVALUATE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token_of(str(root))}\r\n"
    with socket.create_connection(("127.0.0.1", server_of(str(root)) or 0), timeout=DEADLINE_S) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def evaluated(root: Path) -> list[str]:
    path = root.parent / "evaluated"
    return path.read_text().split() if path.exists() else []


def test_what_is_started_answers_until_it_is_stopped(root: Path) -> None:
    begun = start(root)

    assert (begun["state"], begun["started"], begun["health"]["status"]) == ("running", True, "ok")
    shown = json.loads(command(root, "status", "--json"))
    assert (shown["state"], shown["pid"], shown["port"]) == ("running", begun["pid"], begun["port"])
    assert f"127.0.0.1:{begun['port']}" in command(root, "status")
    assert str(begun["pid"]) in command(root, "stop")
    assert json.loads(command(root, "status", "--json", status=1))["state"] == "stopped"
    assert not (root / ".instar/server-data/endpoint.json").exists()
    assert "no server is running" in command(root, "stop")
    assert evaluated(root) == ["closed"]


def test_what_it_writes_is_for_nobody_else_and_for_no_repository(root: Path) -> None:
    start(root)
    data = root / ".instar/server-data"

    assert mode(data) == 0o700
    assert {mode(file) for file in [*data.iterdir(), root / logs.PATH]} == {0o600}
    assert (root / ".instar/.gitignore").read_text() == "*\n"
    assert len(bytes.fromhex((data / "token").read_text())) == 32


def test_the_hooks_find_it_and_its_token(root: Path) -> None:
    begun = start(root)
    port, token = server_of(str(root)), token_of(str(root))

    assert port == begun["port"]
    connection = http.client.HTTPConnection("127.0.0.1", port or 0, timeout=DEADLINE_S)
    connection.request("POST", "/build/heartbeat", "{}", {"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 200
    connection.close()
    service.stop(root)
    assert server_of(str(root)) is None


def test_of_two_that_start_at_once_one_runs_and_the_other_says_so(root: Path) -> None:
    both = [told(process) for process in [begin(root), begin(root)]]

    assert sorted(each["started"] for each in both) == [False, True]
    assert both[0]["pid"] == both[1]["pid"]
    assert both[0]["port"] == both[1]["port"]
    again = json.loads(command(root, "start", "--json"))
    assert (again["started"], again["pid"]) == (False, both[0]["pid"])
    assert command(root, "start").startswith("already running\n")
    assert "runs already" in subprocess.run(
        [*STAND_IN, "run", str(root)], capture_output=True, text=True, check=True, timeout=DEADLINE_S
    ).stderr  # fmt: skip


def test_after_a_kill_the_old_place_is_not_believed_and_the_next_start_works(root: Path) -> None:
    begun = start(root)
    os.kill(begun["pid"], signal.SIGKILL)
    until(lambda: endpoint.start_of(begun["pid"]) is None)
    assert endpoint.recorded(root) is not None

    with endpoint.only_server(root, DEADLINE_S):  # the last of its threads holds its files no more
        stranger = socket.create_server(("127.0.0.1", begun["port"]))
    with stranger:
        assert service.status(root).state == "stopped"
        assert server_of(str(root)) is None
        assert service.stop(root) == service.Ending(was_running=False)
        assert select.select([stranger], [], [], 0) == ([], [], [])
        after = start(root)
    assert after["started"]
    assert after["pid"] != begun["pid"]


def test_another_process_of_that_id_is_not_taken_for_the_server(root: Path) -> None:
    endpoint.prepare(root)
    with subprocess.Popen(["sleep", "600"]) as other:
        stamp = endpoint.start_of(other.pid)
        assert stamp
        earlier = endpoint.Endpoint(1, other.pid, str(int(stamp) - 1) if stamp.isdecimal() else "another")
        endpoint.publish(root, earlier)
        assert service.status(root).state == "stopped"
        assert not service.stop(root).was_running
        assert start(root)["started"]
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize(
    "nonsense", ["", "{", "[]", '{"port": 1}', '{"port": "80", "pid": 1, "start": "1"}',
                 '{"port": true, "pid": 1, "start": ""}',
                 '{"port": 70000, "pid": 1, "start": "1"}', '{"port": 80, "pid": -1, "start": "1"}'],
)  # fmt: skip
def test_a_place_that_cannot_be_read_is_none(root: Path, nonsense: str) -> None:
    endpoint.prepare(root)
    (root / ".instar/server-data/endpoint.json").write_text(nonsense)

    assert service.status(root).state == "stopped"


def test_a_stop_lets_what_is_being_evaluated_end(root: Path) -> None:
    begun = start(root, 0.5)
    for number in range(3):
        hand_over(root, f"s{number}")
    assert service.status(root).state == "running"  # so those before have been taken
    assert service.stop(root) == service.Ending(was_running=True, pid=begun["pid"])
    *sessions, last = evaluated(root)

    assert (sorted(sessions), last) == (["s0", "s1", "s2"], "closed")


def test_what_does_not_end_in_time_is_killed_and_that_is_said(root: Path) -> None:
    begun = start(root, 60)
    hand_over(root, "s")
    until(lambda: service.status(root).state == "running")

    assert "killed" in command(root, "stop", "--grace", "0.2")
    assert endpoint.start_of(begun["pid"]) is None
    assert endpoint.recorded(root) is None
    assert start(root)["started"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_a_signal_ends_it_in_order(root: Path, number: signal.Signals) -> None:
    with subprocess.Popen([*STAND_IN, "run", str(root)]) as server:
        until(lambda: service.status(root).state == "running")
        server.send_signal(number)
        assert server.wait(DEADLINE_S) == 0
    assert evaluated(root) == ["closed"]
    assert endpoint.recorded(root) is None


def test_a_port_that_is_taken_is_named_and_nothing_is_left(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        endpoint.prepare(root)
        (root / ".instar/config.json").write_text(json.dumps({"port": port}))
        process = begin(root)
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 1
        assert f"port {port} of 127.0.0.1 cannot be had" in said
        assert endpoint.recorded(root) is None
    assert start(root)["port"] == port


def test_a_server_that_dies_is_reported_with_its_last_words(root: Path) -> None:
    dies = [sys.executable, "-c", "import sys; sys.exit('no way\\nat all')"]
    with pytest.raises(InstarError, match=r"ended with status 1(?s:.*)no way\nat all"):
        service.start(root, command=dies)


@pytest.mark.parametrize("config", ["{", '{"port": true, "projectName": 7}', '{"port": 99999}'])
def test_a_configuration_that_is_none_keeps_no_server_from_running(root: Path, config: str) -> None:
    endpoint.prepare(root)
    (root / ".instar/config.json").write_text(config)

    assert start(root)["health"]["project"] == "unknown"


def test_what_is_lost_of_its_place_is_written_again_and_without_its_lock_it_ends(root: Path) -> None:
    begun = start(root)
    data = root / ".instar/server-data"
    (data / "endpoint.json").unlink()
    until(lambda: service.status(root).state == "running")
    assert service.status(root).pid == begun["pid"]

    (data / "server.lock").unlink()
    until(lambda: endpoint.start_of(begun["pid"]) is None)
    assert evaluated(root) == ["closed"]
    assert start(root)["started"]


def test_a_token_is_made_once_and_never_beside_one_that_there_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = root / ".instar/server-data/token"
    (root / ".instar").mkdir()
    (root / ".instar/config.json").write_text('{"authToken": "of the configuration"}')
    endpoint.prepare(root)
    assert (endpoint.token(root), kept.exists()) == ("of the configuration", False)

    (root / ".instar/config.json").write_text('{"authToken": {"secret": true}}')
    assert endpoint.token(root) == ""
    kept.write_text(" \n")
    kept.chmod(0o644)
    endpoint.prepare(root)
    made = endpoint.token(root)
    assert len(made) == 64
    endpoint.prepare(root)
    assert (endpoint.token(root), mode(kept)) == (made, 0o600)
    assert token_of(str(root)) == made
    monkeypatch.setenv("INSTAR_AUTH_TOKEN", "of the environment")
    assert endpoint.token(root) == token_of(str(root)) == "of the environment"


@pytest.fixture
def log(root: Path) -> Iterator[logging.Handler]:
    """Have this process write the log of a server."""
    before, level = list(logging.root.handlers), logging.root.level
    for each in before:
        logging.root.removeHandler(each)
    handler = logs.configure(root)
    yield handler
    logging.root.removeHandler(handler)
    handler.close()
    for each in before:
        logging.root.addHandler(each)
    logging.root.setLevel(level)


def test_the_log_is_bounded_and_its_newest_lines_are_read_across_its_files(root: Path, log: logging.Handler) -> None:
    for number in range(10_000):
        said = {"msg": f"{number} {'x' * 500} \x1b[2J\udcff", "levelno": logging.INFO, "levelname": "INFO"}
        log.handle(logging.makeLogRecord(said))  # past pytest, whose workers cannot tell each other such a text
    files = sorted((root / logs.PATH).parent.iterdir())

    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert sum(file.stat().st_size for file in files) <= (logs.OLD_FILES + 1) * logs.BYTES
    assert {mode(file) for file in files} == {0o600}
    lines = logs.tail(root, 3000)
    assert [int(line.split()[3]) for line in lines] == list(range(7000, 10_000))
    assert "\x1b" not in lines[-1]
    assert len(command(root, "logs", "-n", "7").splitlines()) == 7
    assert log.level == logging.NOTSET


def test_a_log_is_followed_through_its_rotation(root: Path, log: logging.Handler) -> None:
    logging.info("first")  # noqa: LOG015
    seen: list[str] = []

    def look() -> None:
        for line in logs.follow(root, 5):
            seen.append(line.rpartition(" ")[2])
            if seen[-1] == "last":
                return

    watching = threading.Thread(target=look)
    watching.start()
    until(lambda: seen == ["first"])
    logging.info("second")  # noqa: LOG015
    log.doRollover()  # type: ignore[attr-defined]
    logging.info("last")  # noqa: LOG015
    watching.join(DEADLINE_S)
    assert seen == ["first", "second", "last"]


def test_following_ends_without_a_complaint(root: Path) -> None:
    endpoint.prepare(root)
    logs.make_folder(root).write_text("one\ntwo\nthree\n")
    with subprocess.Popen(
        [sys.executable, "-m", "instar.cli.server", "logs", "-n", "2", "--follow", "--project", str(root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as following:  # fmt: skip
        assert following.stdout
        assert [following.stdout.readline() for _ in range(2)] == ["two\n", "three\n"]
        following.send_signal(signal.SIGINT)
        assert following.communicate(timeout=DEADLINE_S) == ("", "")
        assert following.returncode == 0
    assert command(root, "logs") == "one\ntwo\nthree\n"


def test_without_a_log_nothing_is_shown(root: Path) -> None:
    assert command(root, "logs") == ""


def test_the_gate_itself_is_served_while_the_server_runs(root: Path) -> None:
    begun = json.loads(command(root, "start", "--json"))
    gate_on = root / ".instar/server-data/gate-on"
    headers = {"Authorization": f"Bearer {token_of(str(root))}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{begun['port']}/internal/stop-gate", headers=headers) as client:
        assert gate_on.read_text().split()[0] == client.get("/hot-path?session=s").json()["mode"] == "shadow"
        reply = client.post("/evaluate", json={"sessionId": "s"})
        assert reply.status_code == 400
        body = {
            "sessionId": "s",
            "evidenceMetadata": {},
            "untrustedContent": {"stopReason": "Stopping: context is full"},
        }
        judged = client.post("/evaluate", json=body).json()
        assert (judged["decision"], judged["mode"]) == ("allow", "shadow")
        assert client.get("/log").status_code == 200
        assert client.post("/mode", json={"mode": "off"}).json()["persisted"]
        assert not gate_on.exists()
        assert client.post("/mode", json={"mode": "shadow"}).json()["changed"]
        assert gate_on.exists()
        for path in ("/kill-switch", "/report", "/annotations/none"):
            assert client.get(path).status_code == 200, path
        assert client.post("/reset-breaker").json()["reset"]
    assert command(root, "stop").startswith("stopped")
    assert not gate_on.exists()
