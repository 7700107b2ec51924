"""The process of the server: one for a project, on the loopback alone, until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from instar.config import load
from instar.errors import InstarError
from instar.server import logs
from instar.server.app import App
from instar.server.endpoint import (
    PLACE,
    PORTS,
    Endpoint,
    Lock,
    only_server,
    prepare,
    publish,
    start_of,
    token,
    withdraw,
)
from instar.server.protocol import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import FrameType

    from instar.server.app import GateApi
    from instar.server.peers import PeersApi
    from instar.server.sessions import SessionsApi

    GateMaker = Callable[[Path, dict[str, Any]], GateApi]
    SessionsMaker = Callable[[Path], SessionsApi | None]
    PeersMaker = Callable[[Path], PeersApi | None]

HOST: Final = "127.0.0.1"
CONNECTIONS: Final = 512
FILES: Final = 2048
FLUSH_S: Final = 8
IDLE_S: Final = 5
SWITCH_S: Final = 0.001
_log: Final = logging.getLogger("instar.server")


def run(
    root: Path,
    port: int | None = None,
    make_gate: GateMaker | None = None,
    make_sessions: SessionsMaker | None = None,
    make_peers: PeersMaker | None = None,
) -> None:
    """Serve a project until SIGTERM or SIGINT; then finish what is being answered, and write all down.

    Without a port, that of the configuration, else a free one. Raise Taken when another server of the project runs,
    InstarError when this one cannot.
    """
    os.umask(0o077)
    prepare(root)
    with only_server(root) as lock:
        handler = logs.configure(root)
        try:
            makers = (make_gate or _gate, make_sessions or _sessions, make_peers or _peers)
            is_quiet = _serve(root, port, makers, lock)
        except InstarError as error:
            _log.error("%s", error)
            raise
        except Exception as error:
            _log.exception("the server cannot go on")
            raise InstarError(f"the server cannot go on: {type(error).__name__}: {error}") from error
        finally:
            handler.flush()
    if not is_quiet:  # Python would wait for its threads, and tmux may keep one for a minute
        logging.shutdown()
        os._exit(0)


def _gate(root: Path, config: dict[str, Any]) -> GateApi:
    from instar.gate.gate import Gate  # noqa: PLC0415 - only a server that runs pays for it

    return Gate(root, config)


def _sessions(root: Path) -> SessionsApi | None:
    """Return what is told of the sessions; whatever keeps that from being, the gate is served all the same."""
    try:
        from instar.sessions.serving import Serving  # noqa: PLC0415 - as above

        return Serving(root)
    except InstarError as error:
        _log.warning("nothing can be told of the sessions: %s", error)
    except Exception:  # noqa: BLE001 - whatever it is
        _log.exception("nothing can be told of the sessions")
    return None


def _peers(root: Path) -> PeersApi | None:
    """Return what is told of the peers; whatever keeps that from being, the gate is served all the same."""
    try:
        from instar.lifecycle.serving import Serving  # noqa: PLC0415 - as above

        return Serving(root)
    except InstarError as error:
        _log.warning("nothing can be told of the peers: %s", error)
    except Exception:  # noqa: BLE001 - whatever it is
        _log.exception("nothing can be told of the peers")
    return None


def _serve(root: Path, port: int | None, makers: tuple[GateMaker, SessionsMaker, PeersMaker], lock: Lock) -> bool:
    """Serve until the end, and return whether nothing goes on after it."""
    config = _config(root)
    _allow_files()
    with _listening(_port(config) if port is None else port) as listener:
        here = Endpoint(listener.getsockname()[1], os.getpid(), start_of(os.getpid()) or "")
        gate, sessions, peers = makers[0](root, config), makers[1](root), makers[2](root)
        app = App(
            gate, sessions=sessions, peers=peers, agent=_agent(config), token=lambda: token(root),
            alive=lambda: _stay_one(root, here, server),
        )  # fmt: skip
        server = _Server(app, root, here, lock)
        _stay_quick()
        try:
            server.run(sockets=[listener])
        except SystemExit as error:
            raise InstarError("the server cannot begin to serve: its log says why") from error
        finally:
            _log.info("ending")
            is_quiet = app.close()
            withdraw(root, here)
    _log.info("ended")
    return is_quiet


def configuration(app: App, protocol: type[Protocol] = Protocol) -> uvicorn.Config:
    """Return how uvicorn serves the app: without what it would believe of a proxy or tell of itself."""
    return uvicorn.Config(
        app.asgi(), loop="asyncio", http=protocol, ws="none", lifespan="on", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS, backlog=CONNECTIONS,
        timeout_keep_alive=IDLE_S, timeout_graceful_shutdown=FLUSH_S,
    )  # fmt: skip


class _Server(uvicorn.Server):
    """uvicorn's server, with its place written down for as long as it listens."""

    def __init__(self, app: App, root: Path, here: Endpoint, lock: Lock) -> None:
        super().__init__(configuration(app))
        self.lock = lock
        self._app = app
        self._root = root
        self._here = here
        for each in (signal.SIGTERM, signal.SIGINT):
            # uvicorn raises them again when it is done: there is more to do then, and before it listens for them.
            signal.signal(each, self._end)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets=sockets)
        if self.started:
            publish(self._root, self._here)
            self._app.open()
            _log.info("listening on %s:%d, process %d", HOST, self._here.port, self._here.pid)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, while it listens: no more stops come from now on."""
        self._app.retire()
        super().handle_exit(sig, frame)

    def _end(self, *_: object) -> None:
        self._app.retire()
        self.should_exit = True


def _stay_one(root: Path, here: Endpoint, server: _Server) -> None:
    """Write down again where the server is, if that was lost; end it where a second one cannot be kept away."""
    if not server.lock.is_ours:
        _log.error("%s was removed: the server ends", server.lock.path)
        server.should_exit = True
    elif server.started and not server.should_exit:
        with suppress(OSError):
            if not (root / PLACE).exists():
                publish(root, here)


def _config(root: Path) -> dict[str, Any]:
    try:
        return load(root)
    except InstarError as error:
        _log.warning("%s: nothing is taken from it", error)
        return {}


def _port(config: dict[str, Any]) -> int:
    """Return the port that is asked for; 0 stands for any."""
    port = config.get("port", 0)
    if type(port) is int and (port == 0 or port in PORTS):
        return port
    _log.warning("the port of the configuration is none: %.80r", port)
    return 0


def _agent(config: dict[str, Any]) -> str:
    name = config.get("projectName")
    return name if isinstance(name, str) and name else "unknown"


def _listening(port: int) -> socket.socket:
    """Return a socket on this machine's loopback. Raise InstarError for a port that cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what lingers of a server before does not count
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise InstarError(f"port {port} of {HOST} cannot be had: {error.strerror}; --port 0 takes any") from error
    return listener


def _stay_quick() -> None:
    """Keep what answers from memory from waiting: for the threads of evaluations, and for the collection of modules."""
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()


def _allow_files() -> None:
    """Ask for as many open files as connections and their work may take; some systems give few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
