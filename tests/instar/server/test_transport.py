"""What reaches the gate through the server, what is refused on the way, and that nothing sent can end the server."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from gate_stand_in import StandIn
from instar.server.app import App
from instar.server.process import configuration
from instar.server.protocol import Protocol
from support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOKEN = "d" * 64
GATE = "/internal/stop-gate"
EVALUATE = f"{GATE}/evaluate"
BODY_S = 0.4


class Hasty(Protocol):
    head_s = 0.4


class Patient(Protocol):
    head_s = DEADLINE_S


class Served:
    """A server in a thread of this process, and what a client may do to it."""

    def __init__(self, root: Path, protocol: type[Protocol] = Hasty, body_s: float = BODY_S) -> None:
        self.gate = StandIn(root)
        self.token = TOKEN
        self.app = App(self.gate, agent="apricot", token=lambda: self.token, body_s=body_s)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.server = uvicorn.Server(configuration(self.app, protocol))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    @contextmanager
    def running(self) -> Iterator[Served]:
        self.thread.start()
        try:
            until(lambda: self.server.started)
            yield self
        finally:
            self.server.should_exit = True
            self.thread.join(DEADLINE_S)
            self.app.close()

    def head(self, method: str, path: str, **headers: str) -> bytes:
        """Return the head of a request that is in order but for these headers; `_` stands for `-`."""
        whole = {"Host": f"127.0.0.1:{self.port}", "Authorization": f"Bearer {self.token}"}
        for name, value in headers.items():
            whole[name.replace("_", "-")] = value
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in whole.items() if value != "-")]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def send(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(data)
        return connection

    def raw(self, data: bytes) -> tuple[int, dict[str, Any]]:
        """Send bytes and return the status and the JSON of the answer."""
        with self.send(data) as connection:
            return answer_on(connection)

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        length = {"Content_Length": str(len(data))} if data else {}
        return self.raw(self.head(method, path, **{**length, **headers}) + data)


def answer_on(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    reply = http.client.HTTPResponse(connection)
    reply.begin()
    return reply.status, json.loads(reply.read() or b"{}")


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("project")).running() as it:
        yield it


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server that waits for as long as a client likes."""
    with Served(tmp_path_factory.mktemp("project"), Patient, DEADLINE_S).running() as it:
        yield it


@pytest.fixture
def served(running: Served) -> Iterator[Served]:
    """Return the server, with a gate that was asked nothing yet; at the end it must still answer."""
    running.gate.asked.clear()
    yield running
    running.token, running.gate.error, running.gate.seconds = TOKEN, None, 0.0
    running.gate.evaluated.clear()
    assert running.ask("GET", "/health")[0] == 200


def test_health_is_for_everybody_and_its_details_for_the_owner(served: Served) -> None:
    status, told = served.ask("GET", "/health", Authorization="-")

    assert status == 200
    assert told.keys() == {
        "status", "uptime", "uptimeHuman", "degradations", "gateRouteVersion", "gateRouteMinimumVersion"
    }  # fmt: skip
    assert (told["status"], told["degradations"]) == ("ok", 3)
    assert (told["gateRouteVersion"], told["gateRouteMinimumVersion"]) == (1, 1)
    assert served.ask("GET", "/health", Authorization="Bearer wrong")[1].keys() == told.keys()
    whole = served.ask("GET", "/health")[1]
    assert (whole["project"], whole["secret"]) == ("apricot", "for the owner")
    assert served.ask("GET", "/ping", Authorization="-") == (200, {"ok": True})


@pytest.mark.parametrize(
    ("method", "path", "body", "asked"),
    [
        ("GET", f"{GATE}/hot-path?session=abc", None, ("abc",)),
        ("GET", f"{GATE}/hot-path", None, ("",)),
        ("GET", f"{GATE}/hot-path?session=a&session=b", None, ("",)),
        ("GET", f"{GATE}/hot-path?session=..%2F..%2Fetc", None, ("",)),
        ("GET", f"{GATE}/hot-path?session={'a' * 129}", None, ("",)),
        ("GET", f"{GATE}/kill-switch", None, ()),
        ("POST", f"{GATE}/kill-switch", {"value": True}, ({"value": True},)),
        ("POST", f"{GATE}/mode", {"mode": "off"}, ({"mode": "off"},)),
        ("POST", EVALUATE, {"sessionId": "s"}, ({"sessionId": "s"}, None)),
        ("GET", f"{GATE}/log?tail=5&mode=shadow", None, ({"tail": "5", "mode": "shadow"},)),
        ("GET", f"{GATE}/report?since=7d", None, ({"since": "7d"},)),
        ("POST", f"{GATE}/annotations", {"eventId": "e"}, ({"eventId": "e"},)),
        ("GET", f"{GATE}/annotations/e-1", None, ("e-1",)),
        ("POST", f"{GATE}/reset-breaker", None, ()),
        ("POST", "/hooks/events", {"event": "SessionStart"}, ({"event": "SessionStart"},)),
        ("POST", "/hooks/events?instar_sid=x", {"event": "Stop"}, ({"event": "Stop", "instar_sid": "x"},)),
        ("GET", "/internal/session/known/started-at", None, ("known",)),
    ],
)
def test_every_route_asks_the_gate_once(
    served: Served, method: str, path: str, body: object, asked: tuple[object, ...]
) -> None:
    assert served.ask(method, path, body)[0] == 200
    assert served.gate.asked == [asked]


def test_a_heartbeat_of_a_build_is_heard(served: Served) -> None:
    assert served.ask("POST", "/build/heartbeat", {"runId": "r", "phase": "executing"}) == (200, {"ok": True})


def test_when_a_session_began_is_told_where_it_is_known(served: Served) -> None:
    path = "/internal/session/{}/started-at"
    assert served.ask("GET", path.format("known"))[1] == {"sessionId": "known", "startedAt": 7}
    assert served.ask("GET", path.format("other"))[0] == 404
    assert served.ask("GET", path.format("%2E%2E%2Fknown"))[0] == 404


@pytest.mark.parametrize(
    ("given", "taken"),
    [("200", 200), ("15000", 15000), ("199", None), ("15001", None), ("0", None), ("-500", None), ("5e2", None),
     ("", None), ("9" * 5000, None), ("\xb2000", None)],
)  # fmt: skip
def test_a_budget_is_a_sound_number_or_none(served: Served, given: str, taken: int | None) -> None:
    assert served.ask("POST", EVALUATE, {}, X_Instar_Gate_Budget_Ms=given)[1]["budget"] == taken


@pytest.mark.parametrize(
    "path",
    ["/", "/nothing", "/INTERNAL/stop-gate/mode", "/internal/stop-gate/Mode", "//internal/stop-gate/mode",
     "/internal/stop-gate/mode/", "/internal/../internal/stop-gate/mode", "/Health", "/health/", "/internal/stop-gate",
     "http://127.0.0.1/internal/stop-gate/mode", "/internal/stop-gate/annotations/a/b", "*",
     "/internal/stop-gate/annotations/..%2f..%2fmode", "/internal/stop-gate/annotations/"],
)  # fmt: skip
@pytest.mark.parametrize("authorization", ["-", f"Bearer {TOKEN}"])
def test_a_path_is_known_to_the_letter_or_not_at_all(served: Served, path: str, authorization: str) -> None:
    assert served.ask("POST", path, {"mode": "off"}, Authorization=authorization) == (404, {"error": "Not found"})
    assert served.gate.asked == []


def test_a_known_path_with_another_method_is_refused(served: Served) -> None:
    assert served.ask("GET", EVALUATE)[0] == 405
    assert served.ask("DELETE", f"{GATE}/mode")[0] == 405
    assert served.ask("POST", "/health", {}, Authorization="-")[0] == 405
    assert served.ask("GET", EVALUATE, Authorization="-")[0] == 401
    assert served.gate.asked == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]", "[::1]:4040"])
def test_this_machine_has_three_names(served: Served, host: str) -> None:
    assert served.ask("GET", "/health", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example",
     "localhost:80:80", "127.0.0.1:", "2130706433", "127.1", "localhost.", "", "[::ffff:127.0.0.1]"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/health", f"{GATE}/kill-switch"])
def test_another_name_for_this_machine_is_refused(served: Served, host: str, path: str) -> None:
    assert served.ask("GET", path, Host=host) == (403, {"error": "Host not allowed"})


def test_a_request_without_a_host_or_with_two_is_refused(served: Served) -> None:
    with served.send(b"GET /health HTTP/1.0\r\n\r\n") as connection:
        assert answer_on(connection)[0] == 403
    two = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n"
    with served.send(two) as connection:
        assert answer_on(connection)[0] == 403


@pytest.mark.parametrize("value", ["", "127.0.0.1", "for=127.0.0.1"])
@pytest.mark.parametrize(
    "header", ["X_Forwarded_For", "Forwarded", "X_Real_IP", "CF_Connecting_IP", "X_Forwarded_Host", "x_forwarded_for"]
)
def test_what_came_through_a_proxy_is_refused_before_the_token_is_looked_at(
    served: Served, header: str, value: str
) -> None:
    path = f"{GATE}/kill-switch"
    refused = (403, {"error": "Internal routes reject X-Forwarded-For requests"})
    assert served.ask("GET", path, **{header: value}) == refused
    assert served.ask("GET", path, **{header: value, "Authorization": "-"}) == refused
    assert served.gate.asked == []


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", ""])
def test_what_a_web_page_sends_is_refused(served: Served, origin: str) -> None:
    assert served.ask("POST", f"{GATE}/mode", {"mode": "off"}, Origin=origin)[0] == 403
    assert served.gate.asked == []


@pytest.mark.parametrize("peer", ["10.0.0.7", "::ffff:10.0.0.7", "", "fe80::1"])
def test_a_peer_from_elsewhere_is_refused(tmp_path: Path, peer: str) -> None:
    gate = StandIn(tmp_path)
    app = App(gate, agent="apricot", token=lambda: TOKEN).asgi()

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(f"{GATE}/hot-path", headers={"Authorization": f"Bearer {TOKEN}"})

    reply = asyncio.run(ask())
    assert (reply.status_code, reply.json()) == (403, {"error": "Internal routes are localhost-only"})
    assert gate.asked == []


def test_only_the_token_opens(served: Served) -> None:
    path = f"{GATE}/kill-switch"
    missing = (401, {"error": "Missing or invalid Authorization header"})
    wrong = (403, {"error": "Invalid auth token"})

    for header in ("-", "", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN):
        assert served.ask("GET", path, Authorization=header) == missing, header
    for header in ("Bearer x", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN.upper()}", "Bearer \xff"):
        assert served.ask("GET", path, Authorization=header) == wrong, header
    assert served.gate.asked == []
    assert served.ask("GET", path)[0] == 200


def test_without_a_token_nothing_is_open_and_a_new_one_holds_at_once(served: Served) -> None:
    path = f"{GATE}/kill-switch"
    served.token = ""
    assert served.ask("GET", path, Authorization="Bearer ")[0] == 401
    assert served.ask("GET", path, Authorization=f"Bearer {TOKEN}")[0] == 403
    served.token = TOKEN[1:]
    assert served.ask("GET", path, Authorization=f"Bearer {TOKEN}")[0] == 403
    assert served.ask("GET", path)[0] == 200


def test_a_client_of_another_project_is_told_so_before_its_token_is_looked_at(served: Served) -> None:
    path = f"{GATE}/kill-switch"
    assert served.ask("GET", path, X_Instar_AgentId="apricot")[0] == 200
    other = {"X_Instar_AgentId": "banana", "Authorization": "Bearer wrong"}
    assert served.ask("GET", path, **other) == (403, {"error": "agent_id_mismatch", "expected": "apricot"})


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b"[1]", b"null", b'"text"', b"\xff\xfe\xff", b"[" * 100_000, b"1" * 10_000]
)
@pytest.mark.parametrize("path", [EVALUATE, f"{GATE}/mode", "/hooks/events", "/build/heartbeat"])
def test_a_body_that_is_no_object_is_refused_behind_the_token(served: Served, path: str, body: bytes) -> None:
    assert served.ask("POST", path, body) == (400, {"error": "Invalid JSON"})
    assert served.ask("POST", path, body, Authorization="-")[0] == 401
    assert served.gate.asked == []


def test_a_text_that_is_no_unicode_goes_there_and_back(served: Served) -> None:
    assert served.ask("POST", f"{GATE}/mode", b'{"mode": "\\ud800"}') == (200, {"took": [{"mode": "\ud800"}]})


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_of_twelve_megabytes_is_taken_and_a_larger_one_refused(served: Served, *, is_chunked: bool) -> None:
    def post(size: int) -> int:
        filler = json.dumps({"x": "y" * (size - 9)}).encode()
        head = {"Transfer_Encoding": "chunked"} if is_chunked else {"Content_Length": str(len(filler))}
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(filler), filler) if is_chunked else filler
        return served.raw(served.head("POST", "/build/heartbeat", **head) + body)[0]

    assert post(12 * 2**20) == 200
    assert post(12 * 2**20 + 1) == 413


def test_a_read_has_no_use_for_a_large_body(served: Served) -> None:
    assert served.ask("GET", f"{GATE}/log", b"x" * 70_000)[0] == 413
    assert served.ask("GET", f"{GATE}/log", b"x" * 60_000)[0] == 200
    assert served.ask("GET", "/health", b"x" * 70_000, Authorization="-")[0] == 413


def test_a_body_that_does_not_come_is_refused_and_its_connection_closed(served: Served) -> None:
    with served.send(served.head("POST", EVALUATE, Content_Length="100") + b"{") as connection:
        status, told = answer_on(connection)
        assert (status, told["error"]) == (408, "Request timeout")
        assert connection.recv(1) == b""


def test_a_body_that_drips_is_refused_as_well(served: Served) -> None:
    with served.send(served.head("POST", EVALUATE, Content_Length="1000000")) as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012 - a pipe that breaks, or a connection reset
            while time.monotonic() - began < DEADLINE_S:
                connection.sendall(b"x")
                time.sleep(0.01)
        assert served.gate.asked == []


@pytest.mark.parametrize("beginning", [b"", b"GET /health HTT", b"GET /health HTTP/1.1\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(served: Served, beginning: bytes) -> None:
    with served.send(beginning) as connection:
        assert connection.recv(1) == b""


def test_a_head_that_drips_is_not_waited_for_either(served: Served) -> None:
    with served.send(b"GET /health HTTP/1.1\r\n") as connection:
        began = time.monotonic()
        with pytest.raises(OSError):  # noqa: PT011, PT012 - as above
            while time.monotonic() - began < DEADLINE_S:
                connection.sendall(b"X: y\r\n")
                time.sleep(0.02)


@pytest.mark.parametrize(
    "nonsense",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 100,
     b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET ?x HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"GET /h\xe9alth HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
     b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
     b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
     b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
)  # fmt: skip
def test_what_is_no_http_ends_only_its_own_connection(served: Served, nonsense: bytes) -> None:
    with served.send(nonsense) as connection:
        said = connection.recv(1000)
    assert said == b"" or said.split(b" ")[1] in {b"400", b"404"}, said
    assert served.ask("GET", "/health")[0] == 200


@pytest.mark.parametrize(
    ("beginning", "part"),
    [
        pytest.param(b"GET /", b"y", id="a path"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", b"y", id="a header"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"X: y\r\n", id="headers"),
        pytest.param(
            b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n",
            id="trailers",
        ),
        pytest.param(
            b"POST /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"y", id="a chunk's"
        ),
    ],
)  # fmt: skip
def test_what_has_no_end_is_not_kept_but_hung_up_on(patient: Served, beginning: bytes, part: bytes) -> None:
    def send_a_lot() -> None:
        for _ in range(1000):
            connection.sendall(part * (64 * 1024 // len(part)))

    with patient.send(beginning) as connection, pytest.raises(OSError):  # noqa: PT011 - a pipe that breaks, or a reset
        send_a_lot()
    assert patient.ask("GET", "/health")[0] == 200


def test_requests_that_come_in_one_piece_are_answered_in_turn_also_to_one_that_says_no_more(served: Served) -> None:
    hot, unknown = served.head("GET", f"{GATE}/hot-path"), served.head("GET", "/nothing")
    with served.send((hot + unknown) * 5) as connection:
        connection.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    assert re.findall(rb"HTTP/1\.1 (\d+) ", said) == [b"200", b"404"] * 5


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_the_gate_does_the_server_answers_and_goes_on(served: Served, error: BaseException) -> None:
    served.gate.error = error
    status, told = served.ask("POST", EVALUATE, {"sessionId": "s"})
    assert (status, told["decision"], told["reminder"], told["failOpen"]) == (200, "allow", "", "internal")
    assert served.ask("POST", f"{GATE}/mode", {}) == (500, {"error": "Internal server error"})
    if isinstance(error, Exception):
        assert served.ask("GET", f"{GATE}/hot-path")[0] == 500
    served.gate.error = None
    assert served.ask("GET", f"{GATE}/hot-path")[0] == 200


def test_many_requests_go_over_one_connection_also_behind_refused_ones(served: Served) -> None:
    refused = served.head("POST", EVALUATE, Authorization="-", Content_Length="200000") + b"x" * 200_000
    with served.send(b"") as connection:
        for _ in range(20):
            connection.sendall(refused)
            assert answer_on(connection)[0] == 401
            connection.sendall(served.head("GET", f"{GATE}/hot-path"))
            assert answer_on(connection)[0] == 200


@pytest.mark.parametrize("size", [10, 300_000])
def test_who_hangs_up_after_sending_is_evaluated_all_the_same(served: Served, size: int) -> None:
    sessions = {f"s{number}" for number in range(150)}
    for session in sessions:
        body = json.dumps({"sessionId": session, "text": "x" * size}).encode()
        served.send(served.head("POST", EVALUATE, Content_Length=str(len(body))) + body).close()

    until(lambda: len(served.gate.evaluated) == len(sessions))
    assert set(served.gate.evaluated) == sessions


def test_the_hot_path_answers_while_all_places_are_taken(served: Served) -> None:
    served.gate.go_on.clear()
    with ThreadPoolExecutor(100) as clients:
        replies = [clients.submit(served.ask, "POST", EVALUATE, {"sessionId": "s"}) for _ in range(100)]
        until(lambda: sum(len(each) == 2 for each in served.gate.asked) >= 56)
        assert served.ask("GET", f"{GATE}/hot-path")[0] == 200
        assert served.ask("GET", "/health")[0] == 200
        assert served.ask("POST", f"{GATE}/kill-switch", {"value": True})[0] == 200
        assert served.gate.evaluated == []
        served.gate.go_on.set()
        assert {reply.result()[0] for reply in replies} == {200}


def test_no_read_fails_while_many_stops_are_evaluated(served: Served) -> None:
    served.gate.seconds = 0.2

    def read(count: int) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=DEADLINE_S)
        statuses = []
        for _ in range(count):
            connection.request("GET", f"{GATE}/hot-path", headers={"Authorization": f"Bearer {TOKEN}"})
            reply = connection.getresponse()
            reply.read()
            statuses.append(reply.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(100) as stops, ThreadPoolExecutor(50) as readers:
        evaluations = [stops.submit(served.ask, "POST", EVALUATE, {"sessionId": "s"}) for _ in range(200)]
        reads = [status for statuses in readers.map(read, [40] * 50) for status in statuses]
    assert reads == [200] * 2000
    assert [evaluation.result()[0] for evaluation in evaluations] == [200] * 200


def test_the_gate_is_looked_after_and_closed(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with Served(tmp_path / "project").running() as served:
        until(lambda: served.gate.ticks >= 2)
    assert served.gate.is_closed
