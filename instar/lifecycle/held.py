"""The lock of a peer, waited for: whoever wakes, parks, stops or tells it something is the only one at it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from instar.locks import BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.lifecycle.edges import Edges

FIRST_S: Final = 0.02
LONGEST_S: Final = 0.5


@contextmanager
def held(edges: Edges, identity: str, seconds: float = 0.0) -> Iterator[None]:
    """Be the only one of all processes that is at a peer. Raise BusyError after so many seconds, and InstarError."""
    deadline, pause = edges.clock.monotonic() + seconds, FIRST_S
    with ExitStack() as stack:
        while not _is_had(edges, identity, stack, deadline):
            edges.sleep(pause)
            pause = min(pause * 2, LONGEST_S)
        yield


def _is_had(edges: Edges, identity: str, stack: ExitStack, deadline: float) -> bool:
    try:
        stack.enter_context(edges.markers.lock(identity))
    except BusyError:
        if edges.clock.monotonic() >= deadline:
            raise
        return False
    return True
