"""The files that are wholly ours: the hooks, their launcher, and the interpreter they run with."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from instar.errors import InstarError
from migrator.changes import Change, Content, Note
from migrator.files import look
from migrator.links import leads_out
from migrator.manifest import INSTALLED, Installed
from migrator.shipped import is_shipped, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from migrator.project import Project

IGNORE = ".instar/.gitignore"
PYTHON = ".instar/state/python"
# What people may miss, were it gone.
KEPT = ("agents", "state/build", "state/sessions", "state/lifecycle", "server-data", "backups", "logs")


def install(project: Project) -> Iterator[Change | Note]:
    """Yield what is missing or differs; a file that no release of ours shipped is kept as a copy."""
    try:
        if look(project.root, IGNORE) is None:
            yield Change(IGNORE, None, Content(b"*\n"), "keep all of .instar out of git")
    except InstarError as error:
        yield Note("error", str(error))
    for item in INSTALLED:
        wanted = Content(text(item.template).encode(), item.mode)
        try:
            found = look(project.root, item.path)
        except InstarError as error:
            yield Note("error", str(error))
            continue
        if found != wanted:
            is_known = _is_known(item, found)
            yield Change(item.path, found, wanted, _why(found, wanted, is_known=is_known), is_users=not is_known)
    yield from _python(project)


def _is_known(item: Installed, found: Content | None) -> bool:
    return found is None or is_shipped(item.template, found.data)


def _why(found: Content | None, wanted: Content, *, is_known: bool) -> str:
    if found is None:
        return "new"
    if found.data == wanted.data:
        return "its mode was changed"
    return "an older release" if is_known else "edited, or of an unknown release: a copy is kept"


def _python(project: Project) -> Iterator[Change | Note]:
    """Yield the link to the interpreter that hooks run with, where there is none that works.

    What lies in the project may be anybody's, and would run at every event.
    """
    if os.access(project.root / PYTHON, os.X_OK) and leads_out(project.root, PYTHON):
        return
    wanted = Content(os.fsencode(base_interpreter()), is_link=True)
    try:
        yield Change(PYTHON, look(project.root, PYTHON, is_link=True), wanted, "the interpreter that runs the hooks")
    except InstarError as error:
        yield Note("warning", str(error))


def base_interpreter() -> str:
    """Return our own, past virtual environments, which come and go, and version managers, whose shims are slow."""
    return getattr(sys, "_base_executable", None) or sys.executable


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the removal of our files; the state of builds and the user's own hooks stay."""
    for item in INSTALLED:
        try:
            found = look(project.root, item.path)
        except InstarError as error:
            yield Note("error", str(error))
            continue
        if found is not None:
            yield Change(item.path, found, None, "ours", is_users=not _is_known(item, found))
    if (project.root / PYTHON).is_symlink():
        yield Change(PYTHON, look(project.root, PYTHON, is_link=True), None, "ours")
    kept = [name for name in KEPT if _holds_something(project.root / ".instar" / name)]
    if kept:
        listed = ", ".join(f".instar/{name}" for name in kept)
        yield Note("skipped", f"kept {listed}: delete that yourself once you need it no more")


def _holds_something(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
