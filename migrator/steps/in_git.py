"""Files of `.instar` that git has: who commits to the repository, and not who works here, decides what they say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from instar.tracked import tracked
from migrator.changes import Note

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from migrator.project import Project

FIX: Final = "read them, then take them out of git: git rm -r --cached .instar"
_SHARED: Final = (b".instar/.gitignore", b".instar/identity-pins.json", b".instar/hooks/custom/")


def install(project: Project) -> Iterator[Note]:
    """Yield a warning where there are such files."""
    if text := told(project.root):
        yield Note("warning", f"{text}; {FIX}")


def told(root: Path) -> str:
    """Return what is to be said of such files; "" where there are none but what may be shared."""
    names = [entry.partition(b"\t")[2] for entry in tracked(root, [".instar"])]
    names = [name for name in names if not name.startswith(_SHARED)]
    if not names:
        return ""
    count = f"{len(names)} file{'s' * (len(names) > 1)} of .instar"
    return f"git has {count}, as {os.fsdecode(names[0])}: whoever commits decides what runs here"
