"""The route of the peers: how each is. It only tells; nobody is woken or ended over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.routing import Route

    Answer = tuple[int, dict[str, Any]]

PEERS: Final = "/peers"
UNAVAILABLE: Final[Answer] = (503, {"error": "peers unavailable"})


class PeersApi(Protocol):
    """What the server needs of the peers. `listed` may block; none raises for what a peer is like."""

    def listed(self) -> dict[str, Any]:
        """Tell how each peer is, and whether they are looked after."""

    def mode(self) -> str:
        """Tell whether they are looked after: on, off or troubled. May not block."""

    def start(self) -> None:
        """Have the peers looked after, now and then, as long as the configuration says so."""

    def stop(self) -> bool:
        """Have them looked after no more; return whether what was under way has ended, within seconds."""


def routes(get: Callable[[str, Callable[[Request], Answer]], Route], api: PeersApi | None) -> list[Route]:
    """Return the routes; `get` makes one of a path and what answers there. Without an API it answers that."""
    return [get(PEERS, lambda _: UNAVAILABLE if api is None else (200, api.listed()))]
