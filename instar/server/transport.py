"""What every request has to pass before it reaches a route: who may ask, from where, and how much.

In this order: the path, the `Host`, traces of a browser or a proxy, the token, a free place, the body. What is refused
is refused in JSON; what goes wrong behind it is an answer, too, and a line in the log.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from instar.server.lanes import Shed

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from instar.server.lanes import Lane

OPEN: Final = frozenset({"/health", "/ping"})
BODY_BYTES: Final = 12 * 1024 * 1024
OTHER_BODY_BYTES: Final = 64 * 1024
BODY_S: Final = 5.0
AGENT_HEADER: Final = "x-instar-agentid"
_HOST: Final = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
_PROXY_HEADERS: Final = ("x-forwarded-for", "forwarded", "x-real-ip", "cf-connecting-ip", "x-forwarded-host")
_LOOPBACK: Final = ("127.", "::1", "::ffff:127.")
_log: Final = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer
    """A request is answered with this status and this error; a connection whose rest is not wanted is closed."""

    def __init__(self, status: int, error: str, *, is_last: bool = False, **more: Any) -> None:  # noqa: ANN401 - what JSON holds
        super().__init__(error)
        self.status = status
        self.body = {"error": error, **more}
        self.headers = {"connection": "close"} if is_last else {}


class Transport:
    """The guard before an app.

    `methods_of` tells the methods of a path, none where there is no such path; `token` what is right now; `agent` the
    name that clients may give the project; `lane_of` where a path is worked on, None for what memory answers.
    """

    def __init__(  # noqa: PLR0913 - all named
        self,
        app: ASGIApp,
        *,
        methods_of: Callable[[Scope], set[str]],
        token: Callable[[], str],
        agent: str,
        lane_of: Callable[[str], Lane | None],
        body_s: float = BODY_S,
    ) -> None:
        self._app = app
        self._methods_of = methods_of
        self._token = token
        self._agent = agent
        self._lane_of = lane_of
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the life of the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._serve(scope, receive, send)
        except Refusal as refusal:
            answer = JSONResponse(refusal.body, refusal.status, refusal.headers)
            await answer(scope, receive, send)
        except Shed:
            await JSONResponse({"error": "queue_shed_overload"}, 503)(scope, receive, send)
        except Exception:  # noqa: BLE001 - no request ends the process
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await JSONResponse({"error": "Internal server error"}, 500)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        methods = self._methods_of(scope)
        if not methods:
            raise Refusal(404, "Not found")
        headers, peer = Headers(scope=scope), (scope.get("client") or ("",))[0]
        check_origin(headers, peer, is_open=scope["path"] in OPEN)
        if scope["path"] not in OPEN:
            check_token(headers, self._token(), self._agent)
        if scope["method"] not in methods:
            raise Refusal(405, "Method not allowed", allow=sorted(methods))
        lane = self._lane_of(scope["path"])
        async with lane.place() if lane else nullcontext():
            body = await self._body(scope, headers, receive)
            await self._app(scope, _again(body, receive), send)

    async def _body(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        """Return the whole body. Raise Refusal for one that is too large, or not there in time."""
        if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
            return b""
        limit = BODY_BYTES if scope["method"] == "POST" else OTHER_BODY_BYTES
        try:
            return await asyncio.wait_for(_read(receive, limit), self._body_s)
        except asyncio.TimeoutError:
            raise Refusal(408, "Request timeout", is_last=True, timeoutMs=int(self._body_s * 1000)) from None


def check_origin(headers: Headers, peer: str, *, is_open: bool) -> None:
    """Raise Refusal for what may come from elsewhere: another name for this machine, a web page, a proxy."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        raise Refusal(403, "Host not allowed")
    if is_open:
        return
    if not peer.startswith(_LOOPBACK):
        raise Refusal(403, "Internal routes are localhost-only")
    if any(name in headers for name in _PROXY_HEADERS):
        raise Refusal(403, "Internal routes reject X-Forwarded-For requests")
    if "origin" in headers:
        raise Refusal(403, "Origin not allowed")


def check_token(headers: Headers, token: str, agent: str) -> None:
    """Raise Refusal for a request without the token; where there is none, every request is without it."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise Refusal(401, "Missing or invalid Authorization header")
    if headers.get(AGENT_HEADER, agent) != agent:
        raise Refusal(403, "agent_id_mismatch", expected=agent)
    if not token or not hmac.compare_digest(_digest(given.strip()), _digest(token)):
        raise Refusal(403, "Invalid auth token")


def _digest(text: str) -> bytes:
    """Return what can be compared in a time that tells nothing, not even the length."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


async def _read(receive: Receive, limit: int) -> bytes:
    """Read to the end, so that the client is free to read the answer, and keep no more than the limit."""
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(400, "Client disconnected", is_last=True)
        chunk = message.get("body", b"")
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
        if not message.get("more_body"):
            break
    if size > limit:
        raise Refusal(413, "Request body too large", is_last=True, limitBytes=limit)
    return b"".join(chunks)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives the app the body that was read, and then goes on as before."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
