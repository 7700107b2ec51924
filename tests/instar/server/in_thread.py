"""The server in a thread of the test, with stand-ins for the parts that it tells of."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from clients.waiting import wait_until
from gate_stand_in import StandIn
from instar.server.app import App
from instar.server.process import configuration
from support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "d" * 64


@contextmanager
def served(root: Path, **parts: Any) -> Iterator[httpx.Client]:
    """Serve a gate and these parts, `sessions` or `peers`; give a client with the token."""
    app = App(StandIn(root), **parts, agent="apricot", token=lambda: TOKEN)
    config = configuration(app)
    server = uvicorn.Server(config)
    config.host, config.port = "127.0.0.1", 0
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "the server listens")
        app.open()
        port = server.servers[0].sockets[0].getsockname()[1]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=DEADLINE_S) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(DEADLINE_S)
        app.close()
