"""The log of the server: `.instar/logs/server.log`, of a bounded size, for its owner's eyes."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import deque
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATH: Final = ".instar/logs/server.log"
BYTES: Final = 1024 * 1024
OLD_FILES: Final = 2
FOLLOW_S: Final = 0.2


def configure(root: Path) -> logging.Handler:
    """Have all loggers write to the log of a project, and to the terminal where there is one."""
    path = make_folder(root)
    handlers: list[logging.Handler] = [_PrivateFile(path, maxBytes=BYTES, backupCount=OLD_FILES, encoding="utf-8")]
    if sys.stderr.isatty():
        handlers.append(logging.StreamHandler())
    form = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    for handler in handlers:
        handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    for name in ("httpx", "httpcore", "asyncio", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return handlers[0]


def make_folder(root: Path) -> Path:
    """Make the folder of the logs, and return the server's. Raise OSError."""
    path = root / PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def open_private(path: str, flags: int = os.O_WRONLY | os.O_CREAT | os.O_APPEND) -> int:
    """Open a log that nobody else may read, through no link."""
    fd = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    os.fchmod(fd, 0o600)
    return fd


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> TextIO:  # type: ignore[override]
        return open(self.baseFilename, "a", encoding="utf-8", errors="backslashreplace", opener=open_private)


def tail(root: Path, count: int) -> list[str]:
    """Return the newest lines, oldest first; [] without a log."""
    path = root / PATH
    lines = deque(_older(path), maxlen=count)
    with suppress(OSError), _reading(path) as file:
        lines.extend(plain(line) for line in file)
    return list(lines)


def follow(root: Path, count: int) -> Iterator[str]:
    """Yield the newest lines, and then each that is written, for ever and through every rotation."""
    path = root / PATH
    lines = deque(_older(path), maxlen=count)
    is_first = True
    while True:
        with suppress(FileNotFoundError), _reading(path) as file:
            if is_first:
                lines.extend(_whole_lines(file))
                yield from map(plain, lines)
            is_first = False
            while True:
                is_over = _is_replaced(path, file)  # asked before the last look: nothing is written to it any more
                yield from map(plain, _whole_lines(file))
                if is_over:
                    break
                time.sleep(FOLLOW_S)
        time.sleep(FOLLOW_S)


def _older(path: Path) -> Iterator[str]:
    for number in range(OLD_FILES, 0, -1):
        with suppress(OSError), _reading(path.with_name(f"{path.name}.{number}")) as file:
            yield from map(plain, file)


def _reading(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")


def _whole_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines that are there to their end; the next look begins with one that is not."""
    while True:
        begin = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(begin)
            return
        yield line


def _is_replaced(path: Path, file: TextIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except OSError:
        return False


def plain(line: str) -> str:
    """Return a line that cannot steer a terminal; its indent stays."""
    return "".join(each if each.isprintable() else " " for each in line.rstrip("\r\n"))
