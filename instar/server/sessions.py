"""The routes of the sessions: who runs, and what the reaper makes of them. All only tell; none changes anything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import Route

    Answer = tuple[int, dict[str, Any]]

SESSIONS: Final = "/sessions"
REAPER: Final = "/sessions/reaper"
AUDIT: Final = f"{REAPER}/audit"
UNAVAILABLE: Final[Answer] = (503, {"error": "session reaper unavailable"})
_NUMBER: Final = re.compile("[0-9]{1,9}")


class SessionsApi(Protocol):
    """What the server needs of the sessions. All but `mode` may block, and none raises for what a session is like."""

    def listed(self) -> dict[str, Any]:
        """Tell who runs, and what the reaper's last look made of them."""

    def snapshot(self, *, fresh: bool) -> dict[str, Any]:
        """Tell what the reaper's last look found; `fresh`: what one finds now."""

    def audit(self, limit: int | None) -> list[dict[str, Any]]:
        """Tell the newest rows of what was decided and done; None stands for the usual number."""

    def mode(self) -> str:
        """Tell whether the reaper is off, in dry-run, or live."""

    def start(self) -> None:
        """Have the reaper look, now and then."""

    def stop(self) -> bool:
        """Have it look no more; return whether what it was at has ended, within seconds."""


def routes(get: Callable[[str, Callable[[Request], Answer]], Route], api: SessionsApi | None) -> list[Route]:
    """Return the routes; `get` makes one of a path and what answers there. Without an API all answer that."""
    if api is None:
        return [get(path, lambda _: UNAVAILABLE) for path in (SESSIONS, REAPER, AUDIT)]

    def audit(request: Request) -> Answer:
        limit = request.query_params.get("limit")
        if limit is not None and not _NUMBER.fullmatch(limit):
            return 400, {"error": "limit is no whole number"}
        return 200, {"rows": api.audit(None if limit is None else int(limit))}

    return [
        get(SESSIONS, lambda _: (200, api.listed())),
        get(REAPER, lambda request: (200, api.snapshot(fresh=request.query_params.get("fresh") == "1"))),
        get(AUDIT, audit),
    ]
