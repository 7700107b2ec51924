"""The files of records that clients write: one JSON object a line, each line ended with a newline.

What follows the last newline is a record that is being written. A file may have any size, and be anything at all at the
path where a transcript is looked for: so it is opened without waiting, and read from one end up to a limit.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WINDOW: Final = 1 << 18
BYTES_AT_MOST: Final = 1 << 26  # of one end of a file
_CHUNK: Final = 1 << 20


class Unresolved(InstarError):  # noqa: N818 - it is what the transcript is
    """A transcript cannot be told about: the text says why, for people, without its path."""


@dataclass(frozen=True)
class Source:
    """An open file, as it was when it was opened: what is written after that is for the next look."""

    fd: int
    status: os.stat_result

    @property
    def size(self) -> int:
        """How many bytes it had."""
        return self.status.st_size

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes between two places. Raise Unresolved where they are gone."""
        parts = []
        while start < end:
            try:
                part = os.pread(self.fd, min(_CHUNK, end - start), start)
            except OSError as error:
                raise Unresolved(f"the transcript cannot be read: {error.strerror}") from error
            if not part:
                raise Unresolved("the transcript became shorter while it was read")
            parts.append(part)
            start += len(part)
        return b"".join(parts)


@dataclass(frozen=True)
class Tail:
    """The end of a file: its last whole records, the oldest first, and the bytes that follow them.

    `is_all` is whether it reaches back to the beginning of the file.
    """

    records: tuple[bytes, ...]
    rest: bytes
    is_all: bool


@contextmanager
def opened(path: Path | str) -> Iterator[Source]:
    """Open a file of records that belongs to this user, wherever links lead to. Raise Unresolved."""
    try:
        _check(os.stat(path))  # noqa: PTH116 - before it is opened: that may be an act, as with a device
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise Unresolved("there is no transcript") from error
    except (OSError, ValueError) as error:
        raise Unresolved(f"the transcript cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    try:
        status = os.fstat(fd)
        _check(status)
        yield Source(fd, status)
    finally:
        os.close(fd)


def tails(source: Source) -> Iterator[Tail]:
    """Yield the end of a file in windows that double, each with a whole record at least, until one is all of it.

    Raise Unresolved where the next one would be bigger than may be read.
    """
    data, start, window = b"", source.size, WINDOW
    while True:
        begin = max(0, source.size - window)
        data, start = source.read(begin, start) + data, begin
        tail = _tail(data, start)
        if tail.records or tail.is_all:
            yield tail
        if tail.is_all:
            return
        if window >= BYTES_AT_MOST:
            raise Unresolved(f"the last {BYTES_AT_MOST >> 20} MiB of the transcript do not tell")
        window *= 2


def first_record(source: Source) -> bytes | None:
    """Return the first record; None where it is not whole. Raise Unresolved."""
    end = 0
    data = b""
    while end < min(source.size, BYTES_AT_MOST):
        begin, end = end, min(source.size, BYTES_AT_MOST, max(WINDOW, 2 * end))
        data += source.read(begin, end)
        record, newline, _ = data.partition(b"\n")
        if newline:
            return record
    return None


def digest(data: bytes) -> str:
    """Return what tells bytes from others."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def parsed(record: bytes) -> dict[str, Any] | None:
    """Return the object that a record holds; None where it holds none."""
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Unresolved("the transcript is no file")
    if status.st_uid != os.geteuid():
        raise Unresolved("the transcript belongs to another user")


def _tail(data: bytes, start: int) -> Tail:
    begin = 0 if start == 0 else data.find(b"\n") + 1
    if start and not begin:
        return Tail((), b"", is_all=False)
    *records, rest = data[begin:].split(b"\n")
    return Tail(tuple(record for record in records if record.strip()), rest, is_all=start == 0)
