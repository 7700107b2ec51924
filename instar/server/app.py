"""The routes: what each asks of the gate, the sessions or the peers, and in which words the answer comes back."""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import re
import time
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from starlette.responses import JSONResponse
from starlette.routing import Match, Route, Router

from instar import __version__
from instar.server import peers as peers_routes
from instar.server import sessions as sessions_routes
from instar.server.lanes import EVALUATIONS, OTHERS, JobError, Lane
from instar.server.transport import BODY_S, OPEN, Refusal, Transport, check_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Scope

    from instar.server.peers import PeersApi
    from instar.server.sessions import SessionsApi

    Answer = tuple[int, dict[str, Any]]

GATE: Final = "/internal/stop-gate"
EVALUATE: Final = f"{GATE}/evaluate"
HOT_PATH: Final = f"{GATE}/hot-path"
HEARTBEAT: Final = "/build/heartbeat"
ROUTE_VERSION: Final = 1
BUDGETS_MS: Final = range(200, 15_001)
TICK_S: Final = 1.0
_BUDGET_HEADER: Final = "x-instar-gate-budget-ms"
_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
_log: Final = logging.getLogger(__name__)


class GateApi(Protocol):
    """What the routes need of a gate. All may block but `hot_path`, which answers from memory."""

    def evaluate(self, body: dict[str, Any], budget_ms: int | None) -> Answer:
        """Judge a stop."""

    def hot_path(self, session: str) -> dict[str, Any]:
        """Tell what a router has to know before it asks."""

    def kill_switch(self) -> dict[str, Any]:
        """Tell whether the kill switch is set."""

    def set_kill_switch(self, body: dict[str, Any]) -> Answer:
        """Set or clear the kill switch."""

    def set_mode(self, body: dict[str, Any]) -> Answer:
        """Change the mode."""

    def log(self, query: dict[str, str]) -> Answer:
        """Tell the newest events."""

    def annotate(self, body: dict[str, Any]) -> Answer:
        """Keep what a person thinks of an event."""

    def annotations(self, event_id: str) -> dict[str, Any]:
        """Tell what people thought of an event."""

    def reset_breaker(self) -> Answer:
        """Let the authority be asked again."""

    def report(self, query: dict[str, str]) -> Answer:
        """Tell the figures."""

    def health(self) -> dict[str, Any]:
        """Tell `status`, `degradations`, and what else is for the owner."""

    def hook_event(self, body: dict[str, Any]) -> Answer:
        """Take note of a client's event."""

    def open(self) -> None:
        """Have routers ask from now on: the server can be found."""

    def retire(self) -> None:
        """Have no router ask any more: the server is about to end. Called in a signal handler."""

    def tick(self) -> None:
        """Look after what changes by itself."""

    def close(self) -> None:
        """Write down what is not yet."""


class App:
    """The routes before a gate, and before the sessions and the peers, None where nothing can be told of them.

    `alive` is called once a second, beside the gate's own tick.
    """

    def __init__(  # noqa: PLR0913 - all named
        self,
        gate: GateApi,
        *,
        sessions: SessionsApi | None = None,
        peers: PeersApi | None = None,
        agent: str,
        token: Callable[[], str],
        alive: Callable[[], None] = lambda: None,
        body_s: float = BODY_S,
    ) -> None:
        self._gate = gate
        self._sessions = sessions
        self._peers = peers
        self._agent = agent
        self._token = token
        self._alive = alive
        self._body_s = body_s
        self._began = time.monotonic()
        self._evaluations = Lane("evaluation", EVALUATIONS)
        self._others = Lane("request", OTHERS)
        self._ticks = Lane("tick", 1)
        self._health: dict[str, Any] = {"status": "ok"}

    def asgi(self) -> ASGIApp:
        """Return the whole, the guard before it."""
        routes = self._routes()
        return Transport(
            Router(routes, redirect_slashes=False, lifespan=self._life),
            methods_of=_Methods(routes),
            token=self._token,
            agent=self._agent,
            lane_of=self._lane_of,
            body_s=self._body_s,
        )

    def open(self) -> None:
        """Have stops come, and the sessions and peers looked after: the server can be found."""
        self._gate.open()
        for each in (self._sessions, self._peers):
            if each:
                each.start()

    def retire(self) -> None:
        """Have no more stops come."""
        self._gate.retire()

    def close(self) -> bool:
        """Wait for what is being worked on, and have the gate write down what is not yet.

        Return whether nothing goes on: a look at the sessions or the peers may take longer than an end does.
        """
        stopped = [each.stop() for each in (self._peers, self._sessions) if each]
        for lane in (self._evaluations, self._others, self._ticks):
            lane.close()
        self._gate.close()
        return all(stopped)

    def _routes(self) -> list[Route]:
        gate = self._gate
        return [
            Route("/ping", self._ping),
            Route("/health", self._tell_health),
            Route(HOT_PATH, self._hot_path),
            Route(EVALUATE, self._evaluate, methods=["POST"]),
            self._get(f"{GATE}/kill-switch", lambda _: (200, gate.kill_switch())),
            self._post(f"{GATE}/kill-switch", gate.set_kill_switch),
            self._post(f"{GATE}/mode", gate.set_mode),
            self._get(f"{GATE}/log", lambda request: gate.log(dict(request.query_params))),
            self._get(f"{GATE}/report", lambda request: gate.report(dict(request.query_params))),
            self._post(f"{GATE}/annotations", gate.annotate),
            self._get(f"{GATE}/annotations/{{id}}", lambda request: (200, gate.annotations(_id(request)))),
            self._post(f"{GATE}/reset-breaker", lambda _: gate.reset_breaker()),
            self._get("/internal/session/{id}/started-at", self._started_at),
            self._post("/hooks/events", gate.hook_event),
            self._post(HEARTBEAT, lambda _: (200, {"ok": True})),
            *sessions_routes.routes(self._get, self._sessions),
            *peers_routes.routes(self._get, self._peers),
        ]

    def _lane_of(self, path: str) -> Lane | None:
        if path in OPEN or path == HOT_PATH:
            return None
        return self._evaluations if path == EVALUATE else self._others

    def _get(self, path: str, job: Callable[[Request], Answer]) -> Route:
        async def answer(request: Request) -> JSONResponse:
            return _reply(*await self._others.run(lambda: job(request)))

        return Route(path, answer, methods=["GET"])

    def _post(self, path: str, job: Callable[[dict[str, Any]], Answer]) -> Route:
        async def answer(request: Request) -> JSONResponse:
            raw = await request.body()
            values = await self._others.run(lambda: parsed(raw))
            if values is None:
                raise Refusal(400, "Invalid JSON")
            for sid in request.query_params.getlist("instar_sid")[-1:]:
                values.setdefault("instar_sid", sid)
            return _reply(*await self._others.run(lambda: job(values)))

        return Route(path, answer, methods=["POST"])

    async def _ping(self, _: Request) -> JSONResponse:
        return _reply(200, {"ok": True})

    async def _tell_health(self, request: Request) -> JSONResponse:
        """Tell everybody that the server is well, and its owner more."""
        uptime = time.monotonic() - self._began
        known = self._health
        told = {
            "status": known.get("status", "ok"),
            "uptime": int(uptime * 1000),
            "uptimeHuman": _human(int(uptime)),
            "degradations": known.get("degradations", 0),
            "gateRouteVersion": ROUTE_VERSION,
            "gateRouteMinimumVersion": ROUTE_VERSION,
        }
        with suppress(Refusal):
            check_token(request.headers, self._token(), self._agent)
            about = {"version": __version__, "project": self._agent, "python": platform.python_version()}
            told = {**known, **about, **told}
        return _reply(200, told)

    async def _hot_path(self, request: Request) -> JSONResponse:
        """Answer at once, without a thread: `session` counts when it is one id, and no path."""
        sessions = request.query_params.getlist("session")
        session = sessions[0] if len(sessions) == 1 and _ID.fullmatch(sessions[0]) else ""
        return _reply(200, self._gate.hot_path(session))

    async def _evaluate(self, request: Request) -> JSONResponse:
        """Have a stop judged; whatever goes wrong, it is let go."""
        raw, budget_ms = await request.body(), _budget(request.headers.get(_BUDGET_HEADER, ""))

        def judge() -> Answer:
            values = parsed(raw)
            return (400, {"error": "Invalid JSON"}) if values is None else self._gate.evaluate(values, budget_ms)

        try:
            return _reply(*await self._evaluations.run(judge))
        except (JobError, TypeError, ValueError):  # or a reply that is no JSON
            _log.exception("an evaluation failed")
            return _reply(200, _let_go())

    def _started_at(self, request: Request) -> Answer:
        session = _id(request)
        started = self._gate.hot_path(session).get("sessionStartTs") if _ID.fullmatch(session) else None
        if started is None:
            return 404, {"error": "Not found"}
        return 200, {"sessionId": session, "startedAt": started}

    @asynccontextmanager
    async def _life(self, _: object) -> AsyncIterator[None]:
        """Tick from before the first request until the last."""
        await self._tick()
        ticking = asyncio.create_task(self._keep_ticking())
        yield
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking

    def _state(self) -> dict[str, Any]:
        """Return how the gate is, the reaper, and the supervisor of the peers."""
        beside = {"reaper": self._sessions, "peers": self._peers}
        modes = {name: each.mode() if each else "unavailable" for name, each in beside.items()}
        return {**self._gate.health(), **modes}

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self._tick()

    async def _tick(self) -> None:
        try:
            self._alive()
            await self._ticks.run(self._gate.tick)
            self._health = await self._ticks.run(self._state)
        except JobError:
            _log.exception("a tick failed")


def parsed(raw: bytes) -> dict[str, Any] | None:
    """Return the object of a body, ``{}`` for no body; None for what is no JSON object."""
    if not raw:
        return {}
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


class _Methods:
    """The methods of each path, known beforehand where it has no part that varies; none for one that there is not."""

    def __init__(self, routes: list[Route]) -> None:
        self._routes = routes
        paths = [route.path for route in routes]
        self._known = {path: self._matching({"type": "http", "method": "GET", "path": path}) for path in paths}

    def __call__(self, scope: Scope) -> set[str]:
        return self._known.get(scope["path"]) or self._matching(scope)

    def _matching(self, scope: Scope) -> set[str]:
        found = [route.methods for route in self._routes if route.matches(scope)[0] is not Match.NONE]
        return {method for methods in found for method in methods or ()}


def _reply(status: int, values: dict[str, Any]) -> JSONResponse:
    return _Ascii(values, status)


class _Ascii(JSONResponse):
    """JSON that holds whatever text there is, also what is no Unicode."""

    def render(self, content: object) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def _let_go() -> dict[str, Any]:
    """Return the reply to a stop that could not be judged."""
    reasons = {"failOpen": "internal", "latencyMs": 0}
    return {"eventId": str(uuid.uuid4()), "decision": "allow", "rule": None, "reminder": "", **reasons}


def _budget(text: str) -> int | None:
    """Return the time that a client gives for the whole, in milliseconds; None for what is no such time."""
    budget_ms = int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
    return budget_ms if budget_ms in BUDGETS_MS else None


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _human(seconds: int) -> str:
    """Return a time in its two largest units."""
    parts = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        parts.append(f"{count}{unit}" if count else "")
    told = [part for part in parts if part]
    return " ".join(told[:2]) or "0s"
