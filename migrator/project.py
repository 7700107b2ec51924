"""The project that a migration is about."""

from __future__ import annotations

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
    record = read(root)
    remembered = tuple(client for client in CLIENTS if client in record.get("clients", CLIENTS))
    return Project(root, clients or remembered or CLIENTS, record)


def find_root(start: Path) -> Path:
    """Return the nearest folder upwards that is installed already, else the repository's top, else `start`."""
    for folder in (start, *start.parents):
        checkout = main_checkout(folder)
        if (checkout / ".instar" / "hooks").is_dir() or (checkout / ".git").is_dir():
            return checkout
    return start


def main_checkout(folder: Path) -> Path:
    """Return the main checkout where `folder` is the top of a linked git worktree, else `folder`."""
    try:
        line = (folder / ".git").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return folder
    git_folder = (folder / line.removeprefix("gitdir: ").rstrip("\n")).resolve()
    is_linked = git_folder.parent.name == "worktrees" and git_folder.parent.parent.name == ".git"
    return git_folder.parents[2] if is_linked else folder
