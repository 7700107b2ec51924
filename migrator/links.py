"""Where a path of a project ends, and whether the repository itself leads it out: a clone brings links along.

A link that the person made, as to a dotfile, is followed. One that git has leads where somebody else wanted it to.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final

from instar.errors import InstarError
from instar.tracked import tracked

_LINK: Final = b"120000 "


def leads_out(root: Path, path: str) -> bool:
    """Say whether a path of the project ends, by a symbolic link, outside of it."""
    return not Path(os.path.realpath(root / path)).is_relative_to(root)  # `resolve` raises for a link to itself


def require_own(root: Path, path: str) -> None:
    """Raise InstarError for a path that leads out of the project, and not by a link of the person's."""
    if not leads_out(root, path):
        return
    if path.startswith(".instar/"):
        raise InstarError(f"{path} leads out of the project; remove the link and run instar-migrate again")
    if is_linked_by_git(root, path):
        raise InstarError(f"{path} leads out of the project by a link that is in git; remove it, or take it out of git")


def is_linked_by_git(root: Path, path: str) -> bool:
    """Say whether git has a link on the way to a path; not where git cannot be asked."""
    steps = [str(step) for step in (PurePosixPath(path), *PurePosixPath(path).parents) if step.name]
    return any(entry.startswith(_LINK) for entry in tracked(root, steps))
