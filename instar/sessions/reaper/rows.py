"""Files of rows: one JSON object a line, for any number of writers; of a bounded size, and read from their end."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock, Timeout

from instar.files import append_line, private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BYTES_AT_MOST: Final = 16 * 2**20
TAIL_BYTES: Final = 2**20
_LOCK_S: Final = 1.0

Row = dict[str, Any]


def append(path: Path, row: Mapping[str, Any], bytes_at_most: int = BYTES_AT_MOST) -> None:
    """Write a row, as `append_line`. A file that would grow beyond its size becomes `<name>.1`. Raise OSError."""
    private_folder(path.parent)
    line = json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"
    with suppress(FileNotFoundError):
        if path.stat().st_size + len(line) > bytes_at_most:
            _rotate(path, bytes_at_most - len(line))
    append_line(path, line)


def tail(path: Path, count: int, bytes_at_most: int = TAIL_BYTES) -> list[Row]:
    """Return the newest rows, oldest first, of the file and of the one it was before; [] where there is none.

    No more than so many bytes of each are read. What is no whole row is passed over, as a blank line is.
    """
    rows = _rows(path, bytes_at_most)
    if len(rows) < count:
        rows = _rows(backup(path), bytes_at_most) + rows
    return rows[-count:] if count > 0 else []


def backup(path: Path) -> Path:
    """Return where a file of rows is put when it is full."""
    return path.with_name(f"{path.name}.1")


def _rotate(path: Path, bytes_at_most: int) -> None:
    """Put a full file aside, once, whoever else wants to; one that another has in hand grows on until next time."""
    with suppress(Timeout, FileNotFoundError), FileLock(path.with_name(f".{path.name}.lock"), _LOCK_S, mode=0o600):
        if path.stat().st_size > bytes_at_most:
            path.replace(backup(path))


def _rows(path: Path, bytes_at_most: int) -> list[Row]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        begin = max(0, os.fstat(fd).st_size - bytes_at_most)
        lines = os.pread(fd, bytes_at_most, begin).split(b"\n")
    except OSError:
        return []
    finally:
        os.close(fd)
    whole = lines[1 if begin else 0 : -1]  # the first may be cut, and what follows the last newline is torn
    return [row for line in whole if (row := _row(line)) is not None]


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
