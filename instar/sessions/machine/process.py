"""One process as the system shows it: from /proc where there is one, else through psutil.

/proc is read without psutil, which goes on from the terminals that it once found, and so misses those of panes opened
since, and which takes six times the processor time.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES: Final = 64 * 1024
_DATE: Final = "%a %b %d %H:%M:%S %Y"  # what `ps -o lstart` prints, in local time
_GONE: Final = (FileNotFoundError, ProcessLookupError)
_PSEUDO_TERMINALS: Final = range(136, 144)  # major numbers, of which Linux uses the first


@dataclass(frozen=True)
class Process:
    """A process at one moment; all of it is of one and the same process.

    `start` is as the hooks stamp it: clock ticks since boot where there is a /proc, else a date. `created` is in
    seconds since 1970, by the clock as it is set now. `cpu_s` is the processor time it used, in seconds, with that of
    children that ended and were waited for; None where that may not be known. `memory` is what is resident, in bytes.
    `argv` is empty for what has none, or may not be known. `uid` is whose rights it has. A zombie runs no more.
    """

    pid: int
    parent: int
    start: str
    created: float
    name: str
    argv: tuple[str, ...]
    cpu_s: float | None
    memory: int
    terminal: str | None
    uid: int
    is_zombie: bool

    def started_at(self, stamp: str) -> bool:
        """Say whether a stamped start is its own. Raise ValueError for what is no start, or none that can be told."""
        if stamp.isdecimal():
            if not self.start.isdecimal():
                raise ValueError("ticks are known only where there is a /proc")
            return self.start == stamp
        dated = datetime.strptime(stamp, _DATE)  # noqa: DTZ007 - `ps` prints local time
        return abs(self.created - dated.timestamp()) < 1


class Reader(Protocol):
    """What shows processes."""

    def pids(self) -> list[int]:
        """Return the ids of all that may be seen. Raise OSError, or psutil.Error."""

    def look(self, pid: int) -> Process | None:
        """Return the process; None where there is none. Raise PermissionError where it may not be looked at."""

    def environment(self, process: Process) -> dict[str, str]:
        """Return the environment a process was started in; empty where it ended or that may not be known."""


class ProcReader:
    """Reads /proc (proc(5)). A folder in it that is open is of one process, whoever gets its number afterwards."""

    def __init__(self, root: str = "/proc") -> None:
        self._root = root
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._page = os.sysconf("SC_PAGE_SIZE")

    def pids(self) -> list[int]:
        """Return the ids of all that may be seen."""
        return [int(name) for name in os.listdir(self._root) if name.isdecimal()]  # noqa: PTH208 - only the names are wanted

    def look(self, pid: int) -> Process | None:
        """Return the process; None where there is none."""
        try:
            with self._folder(pid) as folder:
                return self._process(pid, folder)
        except _GONE:
            return None

    def environment(self, process: Process) -> dict[str, str]:
        """Return the environment a process was started in."""
        with suppress(OSError), self._folder(process.pid) as folder:
            if self._process(process.pid, folder).start == process.start:
                pairs = _read("environ", folder).decode("utf-8", "replace").split("\0")
                return {name: value for name, mark, value in (pair.partition("=") for pair in pairs) if mark}
        return {}

    @contextmanager
    def _folder(self, pid: int) -> Iterator[int]:
        folder = os.open(f"{self._root}/{pid}", os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield folder
        finally:
            os.close(folder)

    def _process(self, pid: int, folder: int) -> Process:
        # The name stands in brackets and may hold any character.
        head, _, tail = _read("stat", folder).decode("utf-8", "replace").rpartition(")")
        fields = tail.split()
        argv = _read("cmdline", folder, at_most=_CHUNK_BYTES).decode("utf-8", "replace").rstrip("\0")
        return Process(
            pid=pid,
            parent=int(fields[1]),
            start=fields[19],
            created=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / self._ticks,
            name=head.partition("(")[2],
            argv=tuple(argv.split("\0")) if argv else (),
            cpu_s=sum(map(int, fields[11:15])) / self._ticks,
            memory=int(fields[21]) * self._page,
            terminal=_terminal(int(fields[4]) & 0xFFFFFFFF),
            uid=os.fstat(folder).st_uid,
            # Other threads may go on after the first one ended, which then looks like a zombie.
            is_zombie=fields[0] in "ZXx" and int(fields[17]) <= 1,
        )


class PsutilReader:
    """Asks psutil, for systems without a /proc."""

    def pids(self) -> list[int]:
        """Return the ids of all that may be seen."""
        with suppress(AttributeError):
            psutil._psposix.get_terminal_map.cache_clear()  # type: ignore[attr-defined]  # noqa: SLF001 - or new terminals are missed
        return psutil.pids()

    def look(self, pid: int) -> Process | None:
        """Return the process; None where there is none, or a zombie of which nothing is told."""
        try:
            process = psutil.Process(pid)
            found = self._process(process)
            return found if process.is_running() else self.look(pid)  # another process got its number
        except psutil.NoSuchProcess:
            return None
        except psutil.AccessDenied as error:
            raise PermissionError(str(error)) from error

    def environment(self, process: Process) -> dict[str, str]:
        """Return the environment a process was started in."""
        with suppress(psutil.Error, OSError):
            found = psutil.Process(process.pid)
            if found.create_time() == process.created:
                environment: dict[str, str] = found.environ()
                return environment
        return {}

    def _process(self, process: psutil.Process) -> Process:
        with process.oneshot():
            told = process.as_dict(["name", "cmdline", "cpu_times", "memory_info", "terminal", "uids"])
            created = process.create_time()
            times, memory, uids = told["cpu_times"], told["memory_info"], told["uids"]
            started = datetime.fromtimestamp(created)  # noqa: DTZ006 - `ps` prints local time
            return Process(
                pid=process.pid,
                parent=process.ppid(),
                start=started.strftime(_DATE),
                created=created,
                name=told["name"] or "",
                argv=tuple(told["cmdline"] or ()),
                cpu_s=sum(times[:4]) if times else None,  # user, system, and the same of its children
                memory=memory.rss if memory else 0,
                terminal=told["terminal"],
                uid=uids.effective if uids else -1,
                is_zombie=process.status() == psutil.STATUS_ZOMBIE,
            )


READER: Final[Reader] = ProcReader() if Path("/proc/self/stat").exists() else PsutilReader()


def _read(name: str, folder: int, at_most: int | None = None) -> bytes:
    """Return a file of /proc, which has no size; `open` with its buffers would cost five times as much."""
    file = os.open(name, os.O_RDONLY, dir_fd=folder)
    try:
        text = chunk = os.read(file, _CHUNK_BYTES)
        while chunk and (at_most is None or len(text) < at_most):
            chunk = os.read(file, _CHUNK_BYTES)
            text += chunk
        return text
    finally:
        os.close(file)


def _terminal(device: int) -> str | None:
    """Return the path of the terminal with this device number, under the name that tmux gives it; None for 0."""
    if not device:
        return None
    major, minor = os.major(device), os.minor(device)
    return f"/dev/pts/{minor}" if major in _PSEUDO_TERMINALS else f"/dev/char/{major}:{minor}"
