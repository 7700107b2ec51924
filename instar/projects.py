"""The projects of this machine: a link to each in `~/.instar/projects`, made when it is set up.

A link is made and removed in one step, holds any path, and shows by itself when its project is gone.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from instar.files import private_folder

if TYPE_CHECKING:
    from collections.abc import Mapping


def shared_root(environ: Mapping[str, str]) -> Path:
    """Return the folder of what concerns all projects: `$INSTAR_SHARED_ROOT`, or `.instar` in the home."""
    named = environ.get("INSTAR_SHARED_ROOT")
    return Path(named) if named else Path(environ.get("HOME") or Path.home()) / ".instar"


def known(environ: Mapping[str, str]) -> list[Path]:
    """Return the projects that are there, in the order of their paths."""
    folder = shared_root(environ) / "projects"
    links = [link for link in folder.iterdir() if link.is_symlink()] if folder.is_dir() else []
    return sorted(Path(os.path.realpath(link)) for link in links if link.is_dir())


def is_enlisted(root: Path, environ: Mapping[str, str]) -> bool:
    """Say whether a project is on the list."""
    return os.path.realpath(_link(root, environ)) == str(root) and _link(root, environ).is_symlink()


def enlist(root: Path, environ: Mapping[str, str]) -> None:
    """Put a project on the list. Raise OSError where that cannot be done."""
    if is_enlisted(root, environ):
        return
    link = _link(root, environ)
    private_folder(link.parent)
    with suppress(FileExistsError):
        link.symlink_to(root, target_is_directory=True)


def strike(root: Path, environ: Mapping[str, str]) -> None:
    """Take a project off the list. Raise OSError where that cannot be done."""
    if is_enlisted(root, environ):
        _link(root, environ).unlink(missing_ok=True)


def _link(root: Path, environ: Mapping[str, str]) -> Path:
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    name = os.fsdecode(os.fsencode(root.name)[:100])
    return shared_root(environ) / "projects" / f"{name}-{digest}"
