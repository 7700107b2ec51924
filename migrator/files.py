"""The files of a project as they are and as they shall be, and the only code that writes them.

A change is written atomically: a temporary file in the same folder, flushed, then renamed over the old one; through
a symbolic link, to the file it leads to. All changes of a plan are written, or none: before the first rename every
file is checked to be still what the plan saw, and all that is new is on disk; when a step fails after that, what was
renamed is put back.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from instar.errors import InstarError
from migrator.changes import Change, Content
from migrator.links import require_own

LOCK_S = 10.0
TEMPORARY = ".instar-"  # in the name of every temporary file
PRISTINE = ".instar/backups/pristine"
ABSENT = ".was-absent"  # marks, among the pristine copies, what did not exist
BACKUPS_KEPT = 10


class ApplyError(InstarError):
    """Nothing was changed, or everything was put back, as far as the text does not name a file; it says why."""


class ChangedError(ApplyError):
    """A file is not what the plan saw any more; nothing was changed."""


def look(root: Path, path: str, *, is_link: bool = False) -> Content | None:
    """Return what stands at `path`; None when nothing does.

    Raise InstarError for what is no readable file, or leads out of the project and is not the person's.
    """
    place = root / path
    try:
        if is_link:
            return Content(os.fsencode(place.readlink()), is_link=True)
        require_own(root, path)
        mode = place.stat().st_mode
        if not stat.S_ISREG(mode):  # asked before it is opened, which for a pipe would wait for ever
            raise InstarError(f"{path} is no regular file; move it away and run instar-migrate again")
        return Content(place.read_bytes(), stat.S_IMODE(mode))
    except FileNotFoundError:
        for each in (place, *place.parents):
            if each.is_symlink() and not each.exists():
                raise InstarError(f"{each.relative_to(root)} is a link to nothing; mend or remove it") from None
        return None
    except OSError as error:
        raise InstarError(f"cannot read {path}: {error.strerror}; left as it is") from error


def pristine(root: Path, path: str) -> tuple[bool, bytes | None]:
    """Return whether it is known what `path` was before we came, and its bytes, if it was there."""
    copy = root / PRISTINE / path
    if copy.is_file():
        return True, copy.read_bytes()
    return copy.with_name(copy.name + ABSENT).exists(), None


def apply(root: Path, changes: list[Change]) -> None:
    """Write all changes, or none of them. Raise `ApplyError` when that could not be done."""
    inside = root / ".instar"
    try:
        inside.mkdir(mode=0o700, exist_ok=True)
        _ignore(inside / ".gitignore")
        for name in ("state", "logs"):  # the launcher writes what a hook dies of into `logs`, if it is there
            (inside / name).mkdir(exist_ok=True)
        with FileLock(inside / "state" / "migrate.lock", timeout=LOCK_S, mode=0o600):
            _apply_locked(root, changes)
    except Timeout as error:
        raise ApplyError(f"another instar-migrate is at work in {root}; try again") from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ApplyError(f"nothing was changed in {root}: {where}{error.strerror}") from error


def _ignore(place: Path) -> None:
    """Have git see none of our files, before there is any other; one of the user's stays."""
    if place.is_symlink() or place.exists():
        return
    with ExitStack() as undo:
        staged = _stage(place, Content(b"*\n"), undo)
        # Another migration may be quicker; having written its own, it may also sweep ours away.
        with suppress(FileExistsError, FileNotFoundError):
            os.link(staged.temporary or place, place)


def _apply_locked(root: Path, changes: list[Change]) -> None:
    _sweep(root / ".instar")
    changes = [change for change in changes if _is_due(root, change)]
    _keep_copies(root, [change for change in changes if change.is_users])
    with ExitStack() as undo:
        for change in changes:
            _make_parents(root, change, undo)
        for folder in {_target(root / change.path, change.after).parent for change in changes}:
            _sweep(folder)
        staged = [_stage(root / change.path, change.after, undo) for change in changes]
        for change, each in zip(changes, staged, strict=True):
            each.finish()
            undo.callback(_put_back, root, change)
        undo.pop_all()
    for change in changes:
        if change.after is None:
            _remove_empty_parents(root, change.path)


def remove_leftovers(root: Path) -> None:
    """Remove the empty folders that the installation made, which an uninstallation leaves when it is killed."""
    markers = [marker.relative_to(root / PRISTINE) for marker in (root / PRISTINE).rglob(f"*{ABSENT}")]
    places = [root / marker.with_name(marker.name.removesuffix(ABSENT)) for marker in markers]
    places += [root / ".instar/hooks", root / ".instar/hooks/instar"]
    for place in sorted(places, reverse=True):  # the deepest first
        if not place.is_symlink():
            _remove_folder(place)


def _is_due(root: Path, change: Change) -> bool:
    """Say whether a change is still to be made. Raise `ChangedError` when what it starts from is gone."""
    is_link = any(content is not None and content.is_link for content in (change.before, change.after))
    now = look(root, change.path, is_link=is_link)
    if now not in (change.before, change.after):
        raise ChangedError(f"{change.path} changed while the migration was planned; nothing was written, try again")
    return now != change.after


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


def _put_back(root: Path, change: Change) -> None:
    try:
        replace(root / change.path, change.before)
    except OSError as error:
        message = f"{change.path} was changed and could not be put back: {error.strerror}"
        raise ApplyError(f"{message}; mend that and run instar-migrate again") from error


class _Staged(NamedTuple):
    """What shall stand at `target`, on disk beside it; without a temporary file, nothing shall."""

    target: Path
    temporary: Path | None

    def finish(self) -> None:
        if self.temporary is None:
            self.target.unlink(missing_ok=True)
        else:
            self.temporary.replace(self.target)


def replace(place: Path, content: Content | None) -> None:
    """Make `place` what `content` says, atomically; its caller has to be its only writer."""
    _sweep(_target(place, content).parent)
    with ExitStack() as undo:
        _stage(place, content, undo).finish()


def _stage(place: Path, content: Content | None, undo: ExitStack) -> _Staged:
    """Write `content` to a temporary file, which is removed by `undo` if it is still there."""
    target = _target(place, content)
    if content is None:
        return _Staged(target, None)
    temporary = target.with_name(f"{TEMPORARY}{os.getpid()}-{target.name}")
    undo.callback(temporary.unlink, missing_ok=True)
    if content.is_link:
        temporary.symlink_to(os.fsdecode(content.data))
        return _Staged(target, temporary)
    with temporary.open("xb") as file:
        _keep_owner(file.fileno(), target)
        os.fchmod(file.fileno(), content.mode)
        file.write(content.data)
        file.flush()
        os.fsync(file.fileno())
    return _Staged(target, temporary)


def _target(place: Path, content: Content | None) -> Path:
    """Return what is replaced: a file through links that are the user's, a link or what is removed in its place."""
    return place if content is None or content.is_link else place.resolve()


def _keep_owner(fd: int, target: Path) -> None:
    """Give a new file to whom the old one belongs, as far as the system lets us; it matters below sudo."""
    with suppress(FileNotFoundError, PermissionError):
        status = target.stat()
        os.fchown(fd, status.st_uid, status.st_gid)


def _sweep(folder: Path) -> None:
    """Remove what a killed migration left; under the lock no temporary file is in use."""
    for leftover in folder.glob(f"{TEMPORARY}[0-9]*-*"):
        leftover.unlink(missing_ok=True)


def _keep_copies(root: Path, changes: list[Change]) -> None:
    """Copy the user's files: as they are now, and where we come to one for the first time, for the uninstallation."""
    for leftover in (root / ".instar" / "backups").rglob(f"{TEMPORARY}[0-9]*-*"):  # of a migration that was killed
        leftover.unlink()
    run = root / ".instar" / "backups" / datetime.now(timezone.utc).strftime("migrate-%Y%m%dT%H%M%S.%fZ")
    for change in changes:
        _keep_pristine(root, change)
        if change.before is not None:
            _copy(run / change.path, change.before.data)
    earlier = sorted(folder for folder in run.parent.glob("migrate-*") if folder != run)
    for folder in earlier[: 1 - BACKUPS_KEPT]:
        shutil.rmtree(folder)


def _keep_pristine(root: Path, change: Change) -> None:
    if not change.is_first:
        return
    copy = root / PRISTINE / change.path
    if change.before is not None:
        _copy(copy, change.before.data)
        return
    copy.unlink(missing_ok=True)  # of an installation before this one
    for place in (Path(change.path), *Path(change.path).parents):
        if place.name and not (root / place).exists():
            marker = root / PRISTINE / place
            _copy(marker.with_name(marker.name + ABSENT), b"")


def _copy(place: Path, data: bytes) -> None:
    """Write a copy that only its owner can read: a settings file may hold a secret."""
    place.parent.mkdir(parents=True, exist_ok=True)
    replace(place, Content(data, 0o600))
