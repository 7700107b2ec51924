"""A scripted model server: all that the real clients get to talk to.

One loopback HTTP server speaks both clients' protocols. A script says what the model answers; every request of a
conversation is recorded, so that a test can assert what the model was told, and how often it was called.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Callable, Union
from urllib.parse import urlsplit

from . import messages_api, responses_api
from .wire import EVENTS_UP_TO_THE_TEXT, Answer, Call, News, Run, Say, Wire, event_stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Call", "FakeModel", "Request", "Run", "Say"]

DEFAULT_CEILING = 60
AFTER_THE_SCRIPT = Say("done.")
SIDE_ANSWER = Say("A side answer.")
CONNECTION_TIMEOUT_S = 10
LOOK_AGAIN_S = 0.05

_WIRES: dict[str, Wire] = {messages_api.PATH: messages_api, responses_api.PATH: responses_api}


@dataclass(frozen=True)
class Request(News):
    """A request for the next turn of a conversation: its news, and the whole of it as ``body``."""

    session_id: str = ""
    body: dict[str, Any] = field(default_factory=dict, repr=False)


Script = Union["Iterable[Answer]", Callable[[Request], "Answer | None"]]


class FakeModel:
    """A model server on a free loopback port, alive inside its ``with`` block.

    ``turns`` are the answers, one a call, or a function from the request to the answer (called for one request at a
    time). When they are used up, or the function returns None, the answer is "done.". Call number ``ceiling`` + 1 and
    all later ones are recorded, but get HTTP 400, which ends a turn of either client at once: so a client that calls
    in a loop stops soon, and ``calls`` tells. Whatever is no turn of a conversation gets ``side_answer``.

    What goes wrong in here (a function of the script that raises, say) is raised at the end of the ``with`` block,
    unless the block itself failed.
    """

    def __init__(
        self, turns: Script = (), *, ceiling: int = DEFAULT_CEILING, side_answer: Answer = SIDE_ANSWER
    ) -> None:
        self.ceiling = ceiling
        self.side_answer = side_answer
        self._decide = turns if callable(turns) else _one_by_one(turns)
        self._lock = Lock()
        self._requests: list[Request] = []
        self._side_calls = 0
        self._errors: list[BaseException] = []
        self._has_ended = Event()
        self._server = _Server(self)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if self._errors and error is None:
            raise self._errors[0]

    @property
    def url(self) -> str:
        """Where the server listens, without a path."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> tuple[Request, ...]:
        """The requests for a turn of a conversation so far, refused ones included."""
        with self._lock:
            return tuple(self._requests)

    @property
    def calls(self) -> int:
        """How often the model was called for a turn of a conversation."""
        return len(self.requests)

    @property
    def side_calls(self) -> int:
        """How often it was called for anything else (a title, a summary); the script knows nothing of these."""
        with self._lock:
            return self._side_calls

    def answer_side_call(self) -> tuple[Answer, int]:
        """Count a call that is no turn of a conversation, and answer it."""
        with self._lock:
            self._side_calls += 1
            return self.side_answer, -self._side_calls

    def answer(self, request: Request) -> tuple[Answer | None, int]:
        """Record ``request``; return what the script says to it, None to refuse it, and the number of the call."""
        with self._lock:
            self._requests.append(request)
            number = len(self._requests)
            if number > self.ceiling:
                return None, number
            return self._decide(request) or AFTER_THE_SCRIPT, number

    def wait_for(self, moment: Event) -> None:
        """Return at that moment, or at the end of the ``with`` block."""
        while not (moment.wait(LOOK_AGAIN_S) or self._has_ended.is_set()):
            pass

    def fail(self, error: BaseException) -> None:
        """Keep ``error`` for the end of the ``with`` block."""
        self._errors.append(error)


def _one_by_one(turns: Iterable[Answer]) -> Callable[[Request], Answer | None]:
    left = iter(turns)
    return lambda _request: next(left, None)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing the server waits for the answers under way, and leaks no socket

    def __init__(self, model: FakeModel) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        error = sys.exc_info()[1]
        # A client may be killed in the middle of an answer: that is no error of the model.
        if error is not None and not isinstance(error, (ConnectionError, TimeoutError)):
            self.model.fail(error)


class _Handler(BaseHTTPRequestHandler):
    """Serves one request; HTTP/1.0, so that each connection is closed after its answer."""

    server: _Server
    timeout = CONNECTION_TIMEOUT_S  # of a client that connects and stays silent

    def do_HEAD(self) -> None:
        """Claude looks once whether anybody is there."""
        self._send(b"")

    def do_GET(self) -> None:
        self._send(b"{}")

    def do_POST(self) -> None:
        path = urlsplit(self.path).path
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if path in _WIRES:
            self._answer(_WIRES[path], body)
        elif path.endswith("/count_tokens"):
            self._send(b'{"input_tokens":10}')
        else:
            self._refuse(f"no such path: {path}", HTTPStatus.NOT_FOUND)

    def _answer(self, wire: Wire, body: dict[str, Any]) -> None:
        try:
            answer, number = self._ask_model(wire, body)
        except Exception:
            self._refuse("the script failed")
            raise
        if answer is None:
            self._refuse("the ceiling of calls is reached")
        elif body.get("stream"):
            self._start("text/event-stream")
            for part in self._parts(wire, answer, number):
                self.wfile.write(part)
        else:
            self._send(json.dumps(wire.whole(answer, number)).encode())

    def _parts(self, wire: Wire, answer: Answer, number: int) -> Iterator[bytes]:
        events = wire.stream(answer, number)
        if isinstance(answer, Say) and answer.ends_at:
            yield event_stream(events[:EVENTS_UP_TO_THE_TEXT])
            self.server.model.wait_for(answer.ends_at)
            events = events[EVENTS_UP_TO_THE_TEXT:]
        yield event_stream(events)

    def _ask_model(self, wire: Wire, body: dict[str, Any]) -> tuple[Answer | None, int]:
        model = self.server.model
        if not wire.is_main(body):
            return model.answer_side_call()
        session_id = self.headers.get(wire.SESSION_HEADER, "")
        return model.answer(Request(**vars(wire.read_news(body)), session_id=session_id, body=body))

    def _refuse(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
        self._send(json.dumps(error).encode(), status=status)

    def _send(self, content: bytes, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._start("application/json", status)
        self.wfile.write(content)

    def _start(self, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: the test's output is for the test."""
