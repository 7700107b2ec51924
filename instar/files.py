"""Files of a running part: written whole or not at all, and for nobody else to read."""

from __future__ import annotations

import errno
import glob
import os
import stat
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Make `data` what a file holds, in one step: whoever reads sees the old bytes or the new ones.

    The folder is made where it is missing. Raise OSError where that cannot be done; the old file is then as it was.
    """
    private_folder(path.parent)
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - `temporary` is a name, as it was made
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise


def sweep(path: Path) -> None:
    """Remove what killed writers of a file left. Only under a lock that all of its writers take. Raise OSError."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}"):
        left.unlink(missing_ok=True)


def private_folder(path: Path) -> None:
    """Make a folder, and those above it, for its owner alone; one that is there stays as it is. Raise OSError."""
    if not path.is_dir():
        for folder in reversed((path, *path.parents)):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)


def append_line(path: Path, line: bytes) -> None:
    """Add a line, which ends with a newline, in one step. Raise OSError where it is not there whole.

    A line that a writer left torn is ended first, so that it spoils no other. So is, rarely, one that another is
    writing at this very moment: it is whole, and a blank line follows it. Nothing but a file is written to, and through
    no link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    fd = os.open(path, flags, 0o600)
    try:
        state = os.fstat(fd)
        is_torn = state.st_size > 0 and os.pread(fd, 1, state.st_size - 1) != b"\n"
        text = b"\n" + line if is_torn else line
        if not stat.S_ISREG(state.st_mode) or os.write(fd, text) < len(text):
            raise OSError(errno.EIO, f"{path} took no whole line")
    finally:
        os.close(fd)


def unblocked(path: str, flags: int) -> int:
    """Open a file, whatever it turns out to be, without waiting for anybody, and through no link: an `opener`."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def sync_folder(path: Path) -> None:
    """Make what was renamed or removed in a folder outlive a power cut. Raise OSError."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def set_aside(path: Path, epoch: int) -> Path | None:
    """Rename a file that cannot be used to `<name>.corrupt-<epoch>`; return where it is, None where that failed."""
    aside = path.with_name(f"{path.name}.corrupt-{epoch}")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside
