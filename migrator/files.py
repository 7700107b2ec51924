"""The files of a project as they are and as they shall be, and the only code that writes them.

A change is written atomically: a temporary file in the same folder, flushed, then renamed over the old one; through
a symbolic link, to the file it leads to. All changes of a plan are written, or none: before the first write every
file is checked to be still what the plan saw, and when a write fails, what was written is put back.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from instar.errors import InstarError
from migrator.changes import Change, Content

LOCK_S = 10.0
TEMPORARY = ".instar-"  # in the name of every temporary file
PRISTINE = ".instar/backups/pristine"
ABSENT = ".was-absent"  # marks, among the pristine copies, what did not exist
BACKUPS_KEPT = 10


class ApplyError(InstarError):
    """Nothing was changed, or everything was put back; the text says why."""


def look(root: Path, path: str, *, is_link: bool = False) -> Content | None:
    """Return what stands at `path`; None when nothing does. Raise InstarError for what is no readable file."""
    place = root / path
    try:
        if is_link:
            return Content(os.fsencode(place.readlink()), is_link=True)
        with place.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InstarError(f"{path} is no regular file; move it away and run instar-migrate again")
            return Content(file.read(), stat.S_IMODE(status.st_mode))
    except FileNotFoundError:
        if place.is_symlink():
            raise InstarError(f"{path} is a link to nothing; mend or remove it") from None
        return None
    except OSError as error:
        raise InstarError(f"cannot read {path}: {error.strerror}; left as it is") from error


def pristine(root: Path, path: str) -> tuple[bool, bytes | None]:
    """Return whether it is known what `path` was before the first installation, and its bytes, if it was there."""
    copy = root / PRISTINE / path
    if copy.is_file():
        return True, copy.read_bytes()
    return copy.with_name(copy.name + ABSENT).exists(), None


def apply(root: Path, changes: list[Change]) -> None:
    """Write all changes, or none of them. Raise `ApplyError` when that could not be done."""
    inside = root / ".instar"
    try:
        inside.mkdir(exist_ok=True)
        ignore = inside / ".gitignore"
        if not ignore.is_symlink() and not ignore.exists():  # before any other file, so that git sees none of them
            _write(ignore, Content(b"*\n"))
        (inside / "state").mkdir(exist_ok=True)
        with FileLock(inside / "state" / "migrate.lock", timeout=LOCK_S):
            _apply_locked(root, changes)
    except Timeout as error:
        raise ApplyError(f"another instar-migrate is at work in {root}; try again") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ApplyError(f"nothing was changed in {root}: {where}{error.strerror}") from error


def _apply_locked(root: Path, changes: list[Change]) -> None:
    for change in changes:
        if look(root, change.path, is_link=_is_link(change)) not in (change.before, change.after):
            raise ApplyError(f"{change.path} changed while the migration was planned; nothing was written, try again")
    _keep_copies(root, [change for change in changes if change.is_users])
    with ExitStack() as undo:
        for change in changes:
            _make_parents(root, change, undo)
            _write(root / change.path, change.after)
            undo.callback(_write, root / change.path, change.before)
        undo.pop_all()
    for change in changes:
        if change.after is None:
            _remove_empty_parents(root, change.path)


def _is_link(change: Change) -> bool:
    return any(content is not None and content.is_link for content in (change.before, change.after))


def _make_parents(root: Path, change: Change, undo: ExitStack) -> None:
    if change.after is None:
        return
    for folder in reversed((root / change.path).parents):
        if folder.is_relative_to(root) and not folder.exists():
            folder.mkdir()
            undo.callback(_remove_folder, folder)


def _remove_folder(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _remove_empty_parents(root: Path, path: str) -> None:
    """Remove the folders that the installation made for `path`, as far as they are empty."""
    for folder in (root / path).parents:
        below = folder.relative_to(root).as_posix()
        made_by_us = below.startswith(".instar/hooks") or pristine(root, below) == (True, None)
        if folder == root or not made_by_us:
            return
        _remove_folder(folder)


def _write(place: Path, content: Content | None) -> None:
    """Make `place` what `content` says, atomically; files are written through links that are the user's."""
    if content is None:
        place.unlink(missing_ok=True)
        return
    target = place if content.is_link else place.resolve()
    _sweep(target.parent)
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
    try:
        if content.is_link:
            temporary.symlink_to(os.fsdecode(content.data))
        else:
            with temporary.open("xb") as file:
                os.fchmod(file.fileno(), content.mode)
                file.write(content.data)
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    """Remove what a killed migration left; under the lock no temporary file is in use."""
    for leftover in folder.glob(f"{TEMPORARY}[0-9]*-*"):
        leftover.unlink(missing_ok=True)


def _keep_copies(root: Path, changes: list[Change]) -> None:
    """Copy the user's files: as they are now, and once for all as they were before the first installation."""
    run = root / ".instar" / "backups" / time.strftime("migrate-%Y%m%dT%H%M%SZ", time.gmtime())
    for change in changes:
        _keep_pristine(root, change)
        if change.before is not None:
            _copy(run / change.path, change.before.data)
    older = sorted(run.parent.glob("migrate-*"))[:-BACKUPS_KEPT]
    for folder in older:
        _remove_tree(folder)


def _keep_pristine(root: Path, change: Change) -> None:
    if change.after is None or pristine(root, change.path)[0]:
        return
    if change.before is not None:
        _copy(root / PRISTINE / change.path, change.before.data)
        return
    for place in (Path(change.path), *Path(change.path).parents):
        if place.name and not (root / place).exists():
            marker = root / PRISTINE / place
            _copy(marker.with_name(marker.name + ABSENT), b"")


def _copy(place: Path, data: bytes) -> None:
    """Write a copy that only its owner can read: a settings file may hold a secret."""
    place.parent.mkdir(parents=True, exist_ok=True)
    _write(place, Content(data, 0o600))


def _remove_tree(folder: Path) -> None:
    for place in sorted(folder.rglob("*"), reverse=True):
        if place.is_dir() and not place.is_symlink():
            place.rmdir()
        else:
            place.unlink()
    folder.rmdir()
