"""The router asks the server about suspicious stops alone, believes only a whole verdict, and otherwise lets go."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import DEADLINE_S, Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Project

EXCUSE = "I'll stop here to preserve context; slice three can be done in a fresh session."
TOKEN = "f" * 64
VERDICT = {"decision": "continue", "mode": "enforce", "reminder": "Go on with the plan: docs/plans/alpha.md."}
LOG = ".instar/logs/stop-gate-router.log"


class Server:
    """A socket that answers every request with these bytes, and keeps what it was sent."""

    def __init__(self, reply: Callable[[socket.socket], None]) -> None:
        self.requests: list[bytes] = []
        self.reply = reply
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(read_request(connection))
                with suppress(OSError):
                    self.reply(connection)

    def close(self) -> None:
        self.is_over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(DEADLINE_S)

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in self.requests if request]


def read_request(connection: socket.socket) -> bytes:
    received = b""
    connection.settimeout(DEADLINE_S)
    while chunk := connection.recv(65536):
        received += chunk
        head, blank, body = received.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        if blank and lengths and len(body) >= int(lengths[0]):
            break
    return received


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def says(reply: object, status: str = "200 OK") -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(http(json.dumps(reply).encode(), status))


@pytest.fixture
def serve(project: Project) -> Iterator[Callable[..., Server]]:
    """Return what starts a server for the project, in this very process, and turns the gate on."""
    servers: list[Server] = []

    def start(reply: Callable[[socket.socket], None] | object, gate: str = "enforce 2000", **endpoint: Any) -> Server:
        servers.append(Server(reply if callable(reply) else says(reply)))
        switch(project, gate)
        stat = Path(f"/proc/{os.getpid()}/stat").read_text().rpartition(")")[2].split()
        known = {"port": servers[-1].port, "pid": os.getpid(), "start": stat[19], **endpoint}
        data(project, "endpoint.json", json.dumps(known))
        data(project, "token", TOKEN + "\n")
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def data(project: Project, name: str, text: str) -> None:
    place = project.root / ".instar/server-data" / name
    place.parent.mkdir(exist_ok=True)
    place.write_text(text)


def switch(project: Project, gate: str) -> None:
    data(project, "gate-on", gate)


def fire(
    project: Project, said: str = EXCUSE, session: Any = "s", env: dict[str, str] | None = None, **event: Any
) -> Stop:
    """Fire the registered router with a Stop event."""
    whole = {"session_id": session, "hook_event_name": "Stop", "last_assistant_message": said, "cwd": str(project.root)}
    with project.start_hook(role="stop-gate-router", **(env or {})) as hook:
        stdout, stderr = hook.communicate(json.dumps({**whole, **event}).encode(), timeout=DEADLINE_S)
    return Stop(hook.returncode, stdout, stderr)


def test_in_enforce_a_session_that_shall_go_on_is_held_with_the_servers_words(
    project: Project, serve: Callable[..., Server]
) -> None:
    server = serve(VERDICT)

    assert fire(project).answer == {"decision": "block", "reason": VERDICT["reminder"]}
    (question,) = server.questions
    assert question["sessionId"] == "s"
    assert question["cwd"] == str(project.root)
    assert question["evidenceMetadata"]["signals"] == {
        "mentionsContext": True, "mentionsFreshSession": True, "mentionsNaturalPause": True,
    }  # fmt: skip
    assert question["untrustedContent"]["stopReason"] == EXCUSE
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /internal/stop-gate/evaluate HTTP/1.1"
    assert f"Authorization: Bearer {TOKEN}".encode() in head
    assert b"X-Instar-Gate-Budget-Ms: 2000" in head


def test_in_shadow_the_stop_is_handed_over_and_not_waited_for(project: Project, serve: Callable[..., Server]) -> None:
    held = threading.Event()
    server = serve(lambda _: held.wait(DEADLINE_S), "shadow 2000")
    answered = fire(project).answer
    deadline = time.monotonic() + DEADLINE_S
    while not server.requests and time.monotonic() < deadline:
        held.wait(0.01)
    held.set()

    assert answered == {}
    assert server.questions[0]["sessionId"] == "s"
    assert not (project.root / LOG).exists()


SILENT: dict[str, dict[str, Any]] = {
    "no signal": {"said": "All slices are done, the tests pass, and the change is committed."},
    "the second stop of a prompt": {"stop_hook_active": True},
    "a child of an authority": {"env": {"INSTAR_GATE_CHILD": "1"}},
}


@pytest.mark.parametrize("stop", SILENT.values(), ids=SILENT)
@pytest.mark.parametrize("gate", ["shadow", "enforce"])
def test_what_is_not_to_be_judged_is_not_sent(
    project: Project, serve: Callable[..., Server], stop: dict[str, Any], gate: str
) -> None:
    server = serve(VERDICT, gate)

    assert fire(project, **stop).answer == {}
    assert server.requests == []


@pytest.mark.parametrize("gate", ["", "off", "ENFORCE", "on", "enforced 2000", "\xff"])
def test_any_other_word_is_off(project: Project, serve: Callable[..., Server], gate: str) -> None:
    server = serve(VERDICT, gate)

    assert fire(project).answer == {}
    assert server.requests == []


NO_VERDICT: dict[str, object] = {
    "shadow's": {**VERDICT, "mode": "shadow"},
    "no mode": {"decision": "continue", "reminder": "x"},
    "allow": {"decision": "allow", "mode": "enforce", "reminder": "x"},
    "force allow": {"decision": "force_allow", "mode": "enforce", "reminder": ""},
    "no reminder": {**VERDICT, "reminder": " \x00 "},
    "a reminder that is no text": {**VERDICT, "reminder": ["x"]},
}


@pytest.mark.parametrize("reply", NO_VERDICT.values(), ids=NO_VERDICT)
def test_only_a_whole_continue_in_enforce_holds(project: Project, serve: Callable[..., Server], reply: object) -> None:
    serve(reply)

    assert fire(project).answer == {}


def test_a_reminder_is_short_and_printable(project: Project, serve: Callable[..., Server]) -> None:
    serve({**VERDICT, "reminder": "\x1b[2Jé\n" + "x" * 5000})
    reason = fire(project).answer["reason"]

    assert reason.startswith("[2Jé\nxx")
    assert len(reason) == 1000


def drip(connection: socket.socket) -> None:
    for _ in range(200):
        connection.sendall(b"H")
        threading.Event().wait(0.05)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (4 << 20))


def hang(connection: socket.socket) -> None:
    connection.settimeout(DEADLINE_S)
    connection.recv(1)  # until the router gives up


FAILURES: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "hangs": (hang, "server_slow"),
    "drips": (drip, "server_slow"),
    "floods": (flood, "server_slow"),
    "closes": (lambda _: None, "server_refused"),
    "500": (says(VERDICT, "500 Internal Server Error"), "server_refused"),
    "302": (says(VERDICT, "302 Found"), "server_refused"),
    "401": (says({"error": "x"}, "401 Unauthorized"), "server_refused"),
    "503": (says({"error": "queue_shed_overload"}, "503 Service Unavailable"), "server_refused"),
    "no JSON": (lambda connection: connection.sendall(http(b"{torn")), "server_refused"),
    "a list": (says([VERDICT]), "server_refused"),
    "no HTTP": (lambda connection: connection.sendall(b"\xff\xfe"), "server_refused"),
}


@pytest.mark.parametrize(("reply", "code"), FAILURES.values(), ids=FAILURES)
def test_a_server_that_fails_lets_the_stop_go_with_a_line_in_the_log(
    project: Project, serve: Callable[..., Server], reply: Callable[[socket.socket], None], code: str
) -> None:
    serve(reply, "enforce 300")
    stop = fire(project)

    assert not stop.is_held
    assert code in stop.answer["systemMessage"]
    assert f" {code} " in (project.root / LOG).read_text()
    assert fire(project).answer == {}  # the person is told once an hour


def test_a_server_that_is_gone_is_said(project: Project) -> None:
    switch(project, "shadow")

    assert "instar-server start" in fire(project).answer["systemMessage"]


def test_nobody_listens_on_the_port(project: Project, serve: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve(VERDICT, port=port)

    assert "server_unreachable" in fire(project).answer["systemMessage"]


STRANGERS: dict[str, dict[str, Any]] = {
    "the process is gone": {"pid": 2**22 - 1},
    "the process is another": {"start": "1"},
    "no start": {"start": None},
    "the port is a text": {"port": "80"},
    "the port is huge": {"port": 10**10},
    "a pid of 0": {"pid": 0},
}


@pytest.mark.parametrize("endpoint", STRANGERS.values(), ids=STRANGERS)
def test_a_stranger_on_the_port_never_sees_the_token(
    project: Project, serve: Callable[..., Server], endpoint: dict[str, Any]
) -> None:
    server = serve(VERDICT, **endpoint)

    assert not fire(project).is_held
    assert server.requests == []


@pytest.mark.parametrize("session", ["", None, 7, "../x", "a b", "x" * 200])
def test_a_session_without_a_usable_name_is_not_sent(
    project: Project, serve: Callable[..., Server], session: Any
) -> None:
    server = serve(VERDICT)

    assert "unbound_session" in fire(project, session=session).answer["systemMessage"]
    assert server.requests == []


def test_a_token_of_two_lines_is_not_sent(project: Project, serve: Callable[..., Server]) -> None:
    server = serve(VERDICT)
    data(project, "token", "a\r\nX-Evil: 1")

    assert "bad_token" in fire(project).answer["systemMessage"]
    assert server.requests == []


def test_proxies_of_the_environment_are_not_asked(project: Project, serve: Callable[..., Server]) -> None:
    serve(VERDICT)

    assert fire(project, env={"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}).is_held


def test_a_session_that_its_build_still_holds_is_not_judged(project: Project, serve: Callable[..., Server]) -> None:
    server = serve(VERDICT)
    project.build("init", "a task", "--size", "SMALL", "--owner-session", "owner")
    assert fire(project, session="owner").answer == {}
    assert server.requests == []
    assert fire(project, session="another").is_held

    project.change_state(reinforcementsUsed=2)
    assert project.stop("owner").is_held
    assert fire(project, session="owner").answer == {}, "the last hold may be of this very stop"
    project.change_state(lastHeldAt="2020-01-01T00:00:00.000000+00:00")
    assert fire(project, session="owner").is_held


def test_a_build_that_cannot_be_read_keeps_no_stop_from_being_judged(
    project: Project, serve: Callable[..., Server]
) -> None:
    serve(VERDICT)
    project.state_path.parent.mkdir(parents=True)
    project.state_path.write_text("{torn")

    assert fire(project).is_held


@pytest.mark.parametrize("stdin", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_broken_input_is_let_go(project: Project, serve: Callable[..., Server], stdin: bytes) -> None:
    server = serve(VERDICT)
    done = subprocess.run(
        ["/bin/sh", "-c", project.registered(role="stop-gate-router")], input=stdin, capture_output=True, check=False,
        cwd=project.root, env=project.env, timeout=DEADLINE_S,
    )  # fmt: skip

    assert not Stop(done.returncode, done.stdout, done.stderr).is_held
    assert server.questions == []


def test_a_long_message_is_sent_by_its_end(project: Project, serve: Callable[..., Server]) -> None:
    server = serve(VERDICT)

    assert fire(project, "x " * 20_000 + EXCUSE).is_held
    assert 7990 < len(server.questions[0]["untrustedContent"]["stopReason"]) < 8000
    assert server.questions[0]["untrustedContent"]["stopReason"].startswith("x ")
    assert server.questions[0]["untrustedContent"]["stopReason"].endswith(EXCUSE)
