"""Where the server of a project is, the word it asks for, and that there is only one: `.instar/server-data`."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from instar.files import replace_file, unblocked
from instar.sessions.machine.process import READER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA: Final = ".instar/server-data"
PLACE: Final = f"{DATA}/endpoint.json"
LOCK_S: Final = 0.3
TOKEN_BYTES: Final = 4096
PORTS: Final = range(1, 65536)


@dataclass(frozen=True)
class Endpoint:
    """A server: its port, and its process by id and start, so that another process of that id is not taken for it."""

    port: int
    pid: int
    start: str

    @property
    def is_alive(self) -> bool:
        """Whether that very process runs."""
        return start_of(self.pid) == self.start


def start_of(pid: int) -> str | None:
    """Return the start of a living process as the hooks compare it; None when there is none, or it cannot be told."""
    try:
        found = READER.look(pid)
    except PermissionError:
        return None
    return None if found is None or found.is_zombie else found.start


def endpoint(root: Path) -> Endpoint | None:
    """Return the server of a project as long as its process runs; what a dead one left is not believed."""
    found = recorded(root)
    return found if found and found.is_alive else None


def recorded(root: Path) -> Endpoint | None:
    """Return the server that is written down, dead or alive; None without one that can be read."""
    values = _object(root / PLACE)
    port, pid, start = values.get("port"), values.get("pid"), values.get("start")
    if type(port) is not int or port not in PORTS or type(pid) is not int or pid < 1 or not isinstance(start, str):
        return None
    return Endpoint(port, pid, start)


def publish(root: Path, found: Endpoint) -> None:
    """Write down where the server is. Raise OSError."""
    replace_file(root / PLACE, json.dumps(asdict(found)).encode() + b"\n")


def withdraw(root: Path, found: Endpoint) -> None:
    """Remove what `found` wrote down, and nothing that another server has written since."""
    if recorded(root) == found:
        with suppress(OSError):
            (root / PLACE).unlink()


def prepare(root: Path) -> None:
    """Make the folder and the token, neither for anybody else's eyes. Raise OSError, and InstarError for a link."""
    inside = root / ".instar"
    inside.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError), (inside / ".gitignore").open("x", encoding="ascii") as file:
        file.write("*\n")  # before there is anything that git must not see
    folder = root / DATA
    if folder.is_symlink():
        raise InstarError(f"{folder} is a link, and what lies where it leads may be anybody's: remove it")
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    # One that others could read, as what comes with a repository, is no secret: it gives way to a new one.
    if not (_is_private(folder / "token") if _kept(root) else token(root)):
        replace_file(folder / "token", secrets.token_hex(32).encode() + b"\n")


def token(root: Path) -> str:
    """Return what a client has to say, read afresh so that it can be changed; "" where nothing is right.

    As to the hooks: the environment, the server's own file, or a text of the configuration, which is only read.
    """
    named = os.environ.get("INSTAR_AUTH_TOKEN") or _kept(root)
    if named:
        return named
    configured = _object(root / ".instar" / "config.json").get("authToken")
    return configured if isinstance(configured, str) else ""


def _kept(root: Path) -> str:
    try:  # at every request, so without what reads texts of any length
        with open(f"{root}/{DATA}/token", "rb", buffering=0, opener=unblocked) as file:
            return file.read(TOKEN_BYTES).decode().strip()
    except (OSError, ValueError):
        return ""


def _is_private(path: Path) -> bool:
    state = path.lstat()
    return stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & 0o077


def _object(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


class Taken(InstarError):  # noqa: N818 - no error: the server that is wanted runs
    """Another server of the project runs, or is about to."""


@dataclass(frozen=True)
class Lock:
    """The lock of the one server, held by an open file; the kernel drops it with the process."""

    path: Path
    fd: int

    @property
    def is_ours(self) -> bool:
        """Whether the path still leads to the file that is held: else nothing keeps a second server away."""
        try:
            there, held = os.stat(self.path), os.fstat(self.fd)  # noqa: PTH116 - as the other one
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


@contextmanager
def only_server(root: Path, seconds: float = LOCK_S) -> Iterator[Lock]:
    """Be the one server of the project till the end of the block. Raise Taken, or OSError."""
    path = root / DATA / "server.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        _lock(fd, time.monotonic() + seconds)
        yield Lock(path, fd)
    finally:
        os.close(fd)


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # noqa: PERF203 - tried again is what is meant
            if time.monotonic() >= deadline:
                raise Taken("another server of this project runs already") from None
            time.sleep(0.02)
