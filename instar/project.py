"""Where a project is: the folder that a command is about, seen from any folder in it and from its linked worktrees."""

from __future__ import annotations

from pathlib import Path

from instar.errors import InstarError


def open_root(folder: str | None) -> Path:
    """Return the project in `folder`, or the one that the working folder lies in.

    Raise InstarError for the home folder: what is registered there runs in all projects.
    """
    root = main_checkout(Path(folder).resolve()) if folder else find_root(Path.cwd())
    if root == Path.home().resolve() or root == Path(root.anchor):
        raise InstarError(f"{root} is no project: go into one, or name it with --project")
    return root


def find_root(start: Path) -> Path:
    """Return the nearest folder upwards that is installed already, else the repository's top, else `start`.

    A folder with a repository in its `.git` ends the search; an empty `.git` is none, as Codex's sandbox puts into each
    folder that may be written, while a command runs. One with a `.git` file is a top as well (a submodule, a worktree
    of a bare repository), but may belong to a project that is installed above.
    """
    top = None
    for folder in (start, *start.parents):
        checkout = main_checkout(folder)
        if (checkout / ".instar" / "hooks").is_dir():
            return checkout
        is_repository = (checkout / ".git/HEAD").exists()
        if top is None and (is_repository or (checkout / ".git").is_file()):
            top = checkout
        if is_repository:
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
