"""Writing below `.instar` so that a reader, a crash or a full disk finds the old file or the new one, whole."""

from __future__ import annotations

import os


def replace_file(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace the content of `path` durably; a file that is there keeps its mode. Raise OSError, with it untouched."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            keep_mode(path, fd)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        remove_if_there(temporary)
        raise
    sync_folder(folder)


def keep_mode(path: str, fd: int) -> None:
    """Give `fd` the mode of `path`, if there is such a file."""
    try:
        os.fchmod(fd, os.stat(path, follow_symlinks=False).st_mode & 0o777)
    except FileNotFoundError:
        pass


def sync_folder(folder: str) -> None:
    """Make a rename in `folder` survive a power cut, if the system lets us: what was renamed can be seen by all."""
    try:
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    except OSError:
        pass


def sweep(folder: str) -> None:
    """Remove what killed writers left in a folder. Only where no temporary file can be in use."""
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(".tmp"):
            os.unlink(os.path.join(folder, name))


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`: a disk that fills up, or a signal, makes a write a short one."""
    while data:
        data = data[os.write(fd, data) :]


def remove_if_there(path: str) -> None:
    """Remove a file that may not exist."""
    try:
        os.unlink(path)
    except OSError:
        pass


def make_folder(root: str, folder: str) -> None:
    """Create a folder below `.instar`, which git ignores and nobody else may enter from its first moment on."""
    if os.path.isdir(folder):
        return
    inside = os.path.join(root, ".instar")
    os.makedirs(inside, 0o700, exist_ok=True)
    ignore = os.path.join(inside, ".gitignore")
    if not os.path.lexists(ignore):
        with open(ignore, "w", encoding="ascii") as file:
            file.write("*\n")
    os.makedirs(folder, exist_ok=True)
