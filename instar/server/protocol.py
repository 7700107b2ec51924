"""HTTP/1.1 as the server speaks it: uvicorn's, for clients that are slow, hang up early, or have nothing to say."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

HEAD_S: Final = 5.0


class Protocol(H11Protocol):
    """A connection: it is closed when a request's head is not there in time, however its bytes drip.

    A client that has sent a whole request may hang up: the request is served to its end.
    """

    head_s: ClassVar[float] = HEAD_S
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head. An answer is two writes: the second must not wait until the first is confirmed."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and wait for the rest of a head that has begun."""
        super().data_received(data)
        if self._is_serving:
            self._stop_timer()
        else:
            self._expect_head()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Say whether the connection stays open for an answer to a request that is there as a whole."""
        is_whole = self._is_serving and not self.cycle.more_body
        if is_whole:
            self.cycle.keep_alive = False
        return is_whole

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_timer()
        super().connection_lost(exc)

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self._give_up)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_serving and not self.transport.is_closing():
            self.transport.close()
