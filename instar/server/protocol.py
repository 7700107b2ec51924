"""HTTP/1.1 as the server speaks it: uvicorn's on llhttp, for clients that are slow, hang up early, or never end a head.

That parser is C, where h11 takes more time than all else that answers a read from memory.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

HEAD_S: Final = 5.0
HEAD_BYTES: Final = 64 * 1024


class Protocol(HttpToolsProtocol):
    """A connection: it is closed when a request's head is not there in time, however its bytes drip, or is too long.

    A client that has sent a whole request may hang up: the request is served to its end. A target that is no path, as
    a proxy is sent, is a path that there is not.
    """

    head_s: ClassVar[float] = HEAD_S
    _head_timer: asyncio.TimerHandle | None = None
    _kept_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head. An answer is two writes: the second must not wait until the first is confirmed."""
        super().connection_made(transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come, and wait for the rest of a head that has begun."""
        self._kept_bytes += len(data)
        super().data_received(data)
        if self._kept_bytes > HEAD_BYTES:
            self.transport.close()
        elif self._is_serving:
            self._stop_timer()
        else:
            self._expect_head()

    def on_headers_complete(self) -> None:
        """Have a request served; the parser keeps nothing of its head any more."""
        self._kept_bytes = 0
        super().on_headers_complete()
        if not self.url.startswith(b"/"):
            self.scope["path"] = self.url.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take a part of a body; what else comes in between, or behind the last, is as limited as a head."""
        self._kept_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Be ready for the next head."""
        self._kept_bytes = 0
        super().on_message_complete()

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
