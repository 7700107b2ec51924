"""The project that a migration is about."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instar.errors import InstarError
from migrator.record import read
from migrator.registration import CLIENTS, Client


@dataclass(frozen=True)
class Project:
    """A folder, the clients it is set up for, and what the migration before remembered."""

    root: Path
    clients: tuple[Client, ...] = CLIENTS
    record: dict[str, Any] = field(default_factory=dict)


def open_project(folder: str | None, clients: tuple[Client, ...]) -> Project:
    """Return the project in `folder`, or the one that the working folder lies in.

    Raise InstarError for the home folder: what is registered there runs in all projects.
    """
    root = main_checkout(Path(folder).resolve()) if folder else find_root(Path.cwd())
    if root == Path.home().resolve() or root == Path(root.anchor):
        raise InstarError(f"{root} is no project: go into one, or name it with --project")
    if leads_out(root, ".instar"):
        raise InstarError(f"{root / '.instar'} leads out of the project; remove that link and run instar-migrate again")
    record = read(root)
    return Project(root, clients or _remembered(record) or CLIENTS, record)


def _remembered(record: dict[str, Any]) -> tuple[Client, ...]:
    clients = record.get("clients")
    return tuple(client for client in CLIENTS if isinstance(clients, list) and client in clients)


def leads_out(root: Path, path: str) -> bool:
    """Say whether a path of the project ends, by a symbolic link, outside of it."""
    return not Path(os.path.realpath(root / path)).is_relative_to(root)  # `resolve` raises for a link to itself


def find_root(start: Path) -> Path:
    """Return the nearest folder upwards that is installed already, else the repository's top, else `start`.

    A folder with a `.git` folder ends the search, as it does for the registered command. One with a `.git` file is a
    top as well (a submodule, a worktree of a bare repository), but may belong to a project that is installed above.
    """
    top = None
    for folder in (start, *start.parents):
        checkout = main_checkout(folder)
        if (checkout / ".instar" / "hooks").is_dir():
            return checkout
        if top is None and (checkout / ".git").exists():
            top = checkout
        if (checkout / ".git").is_dir():
            break
    return top or start


def main_checkout(folder: Path) -> Path:
    """Return the main checkout where `folder` is the top of a linked git worktree, else `folder`."""
    try:
        line = (folder / ".git").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return folder
    git_folder = (folder / line.removeprefix("gitdir: ").rstrip("\n")).resolve()
    is_linked = git_folder.parent.name == "worktrees" and git_folder.parent.parent.name == ".git"
    return git_folder.parents[2] if is_linked and git_folder.is_dir() else folder
