"""The server as a service: begun, looked at and ended from outside, by what it wrote down of itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.errors import InstarError
from instar.server import logs
from instar.server.endpoint import Endpoint, Taken, endpoint, only_server, prepare, recorded, token, withdraw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

START_S: Final = 15.0
STOP_S: Final = 15.0
KILL_S: Final = 5.0
ASK_S: Final = 2.0
POLL_S: Final = 0.05
LOG_LINES: Final = 10
_FOREIGN: Final = ("INSTAR_GATE_CHILD",)


@dataclass(frozen=True)
class Status:
    """The server of a project; `health` is what it says of itself, {} when it says nothing."""

    state: Literal["running", "unresponsive", "stopped"]
    project: str
    port: int | None
    pid: int | None
    health: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return it as an object."""
        return asdict(self)


@dataclass(frozen=True)
class Ending:
    """How a server ended."""

    was_running: bool
    pid: int | None = None
    was_killed: bool = False


def status(root: Path, seconds: float = ASK_S) -> Status:
    """Return how the server is. It is asked, and told the token, only while its own process lives."""
    found = endpoint(root)
    if found is None:
        return Status("stopped", str(root), None, None, {})
    health = _health(root, found, seconds)
    state: Literal["running", "unresponsive"] = "running" if health else "unresponsive"
    return Status(state, str(root), found.port, found.pid, health)


def start(root: Path, port: int | None = None, command: Sequence[str] | None = None) -> tuple[Status, bool]:
    """Return once the server answers, and whether it was begun just now. Raise InstarError when it does not.

    `command` is what serves in its stead.
    """
    now = status(root)
    if now.state == "running":
        return now, False
    prepare(root)
    command = command or _command(root, port)
    child = _spawn(root, command)
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        now = status(root)
        if now.state == "running":
            return now, now.pid == child.pid
        if child.poll():
            raise InstarError(_failure(root, f"the server ended with status {child.returncode}"))
        if child.returncode == 0 and endpoint(root) is None:
            child = _spawn(root, command)  # it made way for one that was about to end
        time.sleep(POLL_S)
    if child.poll() is None:
        child.kill()
        child.wait()
    raise InstarError(_failure(root, f"the server did not answer within {START_S:g} s"))


def stop(root: Path, seconds: float = STOP_S) -> Ending:
    """End the server: ask it to, wait for its end, and kill it when that takes too long. Raise InstarError."""
    found = endpoint(root)
    if found is None:
        return Ending(was_running=False)
    _signal(found, signal.SIGTERM)
    if _is_gone(found, seconds):
        return Ending(was_running=True, pid=found.pid)
    _signal(found, signal.SIGKILL)
    if not _is_gone(found, KILL_S):
        raise InstarError(f"process {found.pid} does not end, not even killed")
    _tidy(root)
    return Ending(was_running=True, pid=found.pid, was_killed=True)


def _command(root: Path, port: int | None) -> list[str]:
    command = [sys.executable, "-m", "instar.cli.server", "run", "--project", str(root)]
    return command if port is None else [*command, "--port", str(port)]


def _spawn(root: Path, command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one and its terminal; what it dies of goes to the log.

    It begins in the root folder: `-m` would import modules of a project's own first.
    """
    environ = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    said = logs.open_private(str(logs.make_folder(root)))
    try:
        return subprocess.Popen(
            command, cwd="/", env=environ, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
    finally:
        os.close(said)


def _failure(root: Path, what: str) -> str:
    return "\n".join([f"{what}; the end of {root / logs.PATH}:", *logs.tail(root, LOG_LINES)])


def _health(root: Path, found: Endpoint, seconds: float) -> dict[str, Any]:
    """Return what the server says of itself, past every proxy; {} for no answer."""
    import httpx  # noqa: PLC0415 - only where a server is said to run

    with suppress(httpx.HTTPError, ValueError), httpx.Client(trust_env=False, timeout=seconds) as client:
        headers = {"Authorization": f"Bearer {token(root)}"}
        reply = client.get(f"http://127.0.0.1:{found.port}/health", headers=headers)
        values = reply.json() if reply.is_success else None
        return values if isinstance(values, dict) else {}
    return {}


def _signal(found: Endpoint, number: signal.Signals) -> None:
    """Signal that very process; one that is gone already is as good."""
    if found.is_alive:
        with suppress(ProcessLookupError):
            os.kill(found.pid, number)


def _is_gone(found: Endpoint, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while found.is_alive:
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _tidy(root: Path) -> None:
    """Remove what a killed server left, unless another has begun."""
    with suppress(Taken, OSError), only_server(root):
        left = recorded(root)
        if left and not left.is_alive:
            withdraw(root, left)
