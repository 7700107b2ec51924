"""Run a Python script with one thing broken: ``python [-I -S] driver.py FAULT SCRIPT [ARGUMENT ...]``.

The script runs as `__main__`, unchanged. Its edge calls, those that change something outside the process or start
another one, are counted from 1: opening a file for writing, write, fsync, replace, rename, unlink, mkdir and their
like, taking a lock, starting a program. FAULT says which of them goes wrong and how, in words with blanks between:

none             nothing is broken
kill-before@N    the process is killed (SIGKILL) when it is about to make call N
kill-after@N     ... when it has just made it
ENOSPC@N         call N raises this error instead (any name of `errno`)
ENOSPC@N+        ... and so does every call after it, but for standard output and error
short@N          call N, if it is a write, writes only half
reads            opening a file for reading is an edge call, too
calls=PATH       each call is appended to this file before it is made: number, name and subject, between tabs
wall=+S  wall=S  the wall clock is S seconds ahead (-S: behind); or stands still at S
steady=S         the monotonic clock stands still at S

What C code writes by itself (sqlite3, a program that is started) is not seen.
"""

from __future__ import annotations

import _posixsubprocess
import builtins
import errno
import fcntl
import io
import itertools
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SIGKILL = 9
STANDARD_STREAMS = (0, 1, 2)
REAL_OPEN, REAL_OS_OPEN, REAL_WRITE = open, os.open, os.write
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
OF_OS = (
    "write", "pwrite", "writev", "fsync", "fdatasync", "replace", "rename", "unlink", "remove", "rmdir", "mkdir",
    "mkfifo", "symlink", "link", "chmod", "fchmod", "chown", "fchown", "utime", "truncate", "ftruncate",
    "copy_file_range", "sendfile", "fork", "forkpty", "posix_spawn", "posix_spawnp", "execv", "execve", "system",
)  # fmt: skip


class Edge:
    """The edge of the process: every call that goes over it is counted, and one of them goes wrong."""

    def __init__(self, words: list[str]) -> None:
        self.numbers = itertools.count(1)
        self.how, self.at, self.lasts = "none", 0, False
        self.reads = "reads" in words
        self.log = -1
        for word in words:
            how, _, where = word.partition("@")
            if where:
                self.how, self.at, self.lasts = how, int(where.rstrip("+")), where.endswith("+")
            elif word.startswith("calls="):
                opened = REAL_OS_OPEN(word[len("calls=") :], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                self.log = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, 100)  # out of the way of closed streams
                os.close(opened)

    def call(self, name: str, subject: object, real: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call, or what the fault makes of it."""
        number = next(self.numbers)
        subject = os.fspath(subject) if hasattr(subject, "__fspath__") else subject
        if self.log >= 0:
            REAL_WRITE(self.log, f"{number}\t{name}\t{subject!r}\n".encode("utf-8", "backslashreplace"))
        is_due = number == self.at
        if is_due and self.how == "kill-before":
            os.kill(os.getpid(), SIGKILL)
        if self.how.startswith("E") and (is_due or (self.lasts and number > self.at and not is_standard(subject))):
            code = getattr(errno, self.how)
            raise OSError(code, os.strerror(code), subject if isinstance(subject, str) else None)
        if is_due and self.how == "short" and name == "write":
            *before, data = arguments
            arguments = (*before, bytes(data)[: max(1, len(data) // 2)])
        result = real(*arguments, **named)
        if is_due and self.how == "kill-after":
            os.kill(os.getpid(), SIGKILL)
        return result


def is_standard(subject: object) -> bool:
    """Say whether a call is about a standard stream."""
    return subject in STANDARD_STREAMS


class File(io.FileIO):
    """A file that is written to, below the buffers that Python puts above it."""

    edge: Edge

    def write(self, data: Any) -> Any:
        """Write what a buffer hands down."""
        return self.edge.call("write", self.name, super().write, data)

    def truncate(self, size: int | None = None) -> int:
        """Change the length."""
        return int(self.edge.call("truncate", self.name, super().truncate, size))


def opener(edge: Edge) -> Callable[..., Any]:
    """Return what stands in for `open`."""

    def open_file(
        file: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None, errors: str | None = None,
        newline: str | None = None, closefd: bool = True, opener: Any = None,  # noqa: FBT001, FBT002 - as `open` has it
    ) -> Any:  # fmt: skip
        def make() -> File:
            return File(file, mode.replace("b", "").replace("t", ""), closefd, opener)

        def read() -> Any:
            return REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)

        if not set(mode) & set("wax+"):
            return edge.call("open for reading", file, read) if edge.reads else read()
        raw = make() if isinstance(file, int) else edge.call("open", file, make)
        if buffering == 0:
            return raw
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, max(buffering, 1 << 13))
        if "b" in mode:
            return buffered
        text = io.TextIOWrapper(buffered, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode
        return text

    return open_file


def os_opener(edge: Edge) -> Callable[..., int]:
    """Return what stands in for `os.open`."""

    def open_descriptor(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = "open" if flags & WRITING else "open for reading" if edge.reads else ""
        if not name:
            return REAL_OS_OPEN(path, flags, mode, dir_fd=dir_fd)
        return int(edge.call(name, path, REAL_OS_OPEN, path, flags, mode, dir_fd=dir_fd))

    return open_descriptor


def watched(edge: Edge, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """Return what stands in for a call that is counted, and otherwise made as it is."""

    def call(*arguments: Any, **named: Any) -> Any:
        return edge.call(name, arguments[0] if arguments else "", real, *arguments, **named)

    return call


def watch(edge: Edge) -> None:
    """Put the edge between the process and all that it will import from now on."""
    File.edge = edge
    builtins.open = io.open = opener(edge)
    stand_ins = {"open": os_opener(edge)}
    stand_ins.update((name, watched(edge, name, getattr(os, name))) for name in OF_OS if hasattr(os, name))
    for supported in (os.supports_dir_fd, os.supports_follow_symlinks, os.supports_fd):
        supported.update(new for name, new in stand_ins.items() if getattr(os, name) in supported)
    for name, new in stand_ins.items():
        setattr(os, name, new)
    for name in ("flock", "lockf"):
        setattr(fcntl, name, watched(edge, name, getattr(fcntl, name)))
    _posixsubprocess.fork_exec = watched(edge, "spawn", _posixsubprocess.fork_exec)  # of `subprocess`
    for name, fd in (("stdout", 1), ("stderr", 2)):
        old = getattr(sys, name)
        if old is not None:  # it was closed when the process was started
            raw = io.BufferedWriter(File(fd, "w", closefd=False))
            new = io.TextIOWrapper(raw, old.encoding, old.errors, line_buffering=old.line_buffering)
            setattr(sys, name, new)


def set_clocks(words: list[str]) -> None:
    """Replace the clocks that `words` name."""
    for word in words:
        which, _, value = word.partition("=")
        if which == "wall":
            set_wall_clock(value)
        elif which == "steady":
            time.monotonic = lambda stands=float(value): stands


def set_wall_clock(value: str) -> None:
    """Step or stop the wall clock; `value` is what `wall=` says."""
    import datetime as dt

    real = time.time

    def now() -> float:
        return real() + float(value) if value[0] in "+-" else float(value)

    class Clocked(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(now(), tz)

    def default(name: str, position: int) -> None:
        original = getattr(time, name)

        def call(*given: Any) -> Any:
            return original(*given) if len(given) > position else original(*given, stand_in())

        def stand_in() -> Any:
            return time.localtime(now()) if name in ("strftime", "asctime") else now()

        setattr(time, name, call)

    for name, position in (("gmtime", 0), ("localtime", 0), ("ctime", 0), ("asctime", 0), ("strftime", 1)):
        default(name, position)
    time.time = now
    time.time_ns = lambda: int(now() * 1e9)
    dt.datetime = Clocked


def main() -> None:
    """Break what FAULT names, and become the script."""
    words, script = sys.argv[1].split(), sys.argv[2]
    with REAL_OPEN(script, "rb") as file:
        code = compile(file.read(), script, "exec")
    sys.argv = sys.argv[2:]
    module = type(sys)("__main__")
    module.__file__ = script
    module.__builtins__ = builtins
    sys.modules["__main__"] = module
    set_clocks(words)
    watch(Edge(words))
    exec(code, module.__dict__)  # noqa: S102 - the script is what the test is about


if __name__ == "__main__":
    main()
