"""Where a project is on disk, and how its own commands are called from anywhere."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

INSTALLED_BELOW = os.path.join(".instar", "hooks", "instar")


def installed_root(script: str) -> str | None:
    """Return the project that `script` is installed in, or None when it lies elsewhere."""
    folder = os.path.dirname(os.path.abspath(script))
    root = os.path.normpath(os.path.join(folder, "..", "..", ".."))
    return main_checkout(root) if folder == os.path.join(root, INSTALLED_BELOW) else None


def find_root(start: str, environ: Mapping[str, str]) -> str:
    """Return the project that a command started in `start` is about.

    `INSTAR_PROJECT_DIR` names it; else it is the nearest folder upwards that is a project, seen from the main
    checkout where `start` lies in a linked worktree; else `start` itself.
    """
    named = environ.get("INSTAR_PROJECT_DIR")
    if named:
        return main_checkout(os.path.abspath(named))
    folder = start = os.path.abspath(start)
    while True:
        checkout = main_checkout(folder)
        if is_project(checkout):
            return checkout
        parent = os.path.dirname(folder)
        # A repository without `.instar` ends the search. It has a HEAD: Codex's sandbox puts an empty `.git` into each
        # folder that may be written, while a command runs in it.
        if parent == folder or os.path.exists(os.path.join(folder, ".git", "HEAD")):
            return main_checkout(start)
        folder = parent


def is_project(folder: str) -> bool:
    """Say whether `folder` holds hooks or state of ours; a bare `~/.instar` does not make the home a project."""
    inside = os.path.join(folder, ".instar")
    return any(os.path.isdir(os.path.join(inside, name)) for name in ("hooks", "state"))


def main_checkout(folder: str) -> str:
    """Return the main checkout when `folder` is the top of a linked git worktree, else `folder`.

    A linked worktree's `.git` is a file with one line, ``gitdir: <main>/.git/worktrees/<name>``, where the path may
    be relative to it (git 2.48, `worktree.useRelativePaths`).
    """
    try:
        with open(os.path.join(folder, ".git"), encoding="utf-8", errors="surrogateescape") as file:
            line = file.read(1 << 16)
    except OSError:  # a folder: this is a main checkout; missing: no checkout at all
        return folder
    if not line.startswith("gitdir: "):
        return folder
    git_folder = os.path.normpath(os.path.join(folder, line[len("gitdir: ") :].rstrip("\n")))
    main, separator, _ = git_folder.rpartition(os.sep + os.path.join(".git", "worktrees") + os.sep)
    return main if separator else folder


def build_command(root: str) -> str:
    """Return the start of a shell command that runs the project's `build-state` from any folder.

    Isolated, and without site-packages: neither can break it then, nor cost it half of its time.
    """
    python = os.path.join(root, ".instar", "state", "python")
    script = os.path.join(root, INSTALLED_BELOW, "build-state.py")
    is_ours = os.path.islink(python) and os.access(python, os.X_OK)
    return f"{shell_word(python if is_ours else 'python3')} -I -S {shell_word(script)}"


def shell_word(text: str) -> str:
    """Quote `text` as one word of a POSIX shell."""
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    return text if plain.isalnum() and plain.isascii() else "'" + text.replace("'", "'\"'\"'") + "'"
