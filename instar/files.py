"""Files of a running part: written whole or not at all, and for nobody else to read."""

from __future__ import annotations

import os
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
            os.unlink(temporary)  # noqa: PTH108
        raise


def private_folder(path: Path) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is. Raise OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def set_aside(path: Path, epoch: int) -> Path | None:
    """Rename a file that cannot be used to `<name>.corrupt-<epoch>`; return where it is, None where that failed."""
    aside = path.with_name(f"{path.name}.corrupt-{epoch}")
    try:
        path.rename(aside)
    except OSError:
        return None
    return aside
