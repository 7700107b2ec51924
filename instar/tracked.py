"""What git has of a project: who commits to the repository, and not who works here, decides what stands there."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_GIT_S: Final = 5.0


def tracked(root: Path, paths: list[str]) -> list[bytes]:
    """Return what git has at these paths and below them, by mode and name; nothing where it cannot be asked."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    # No program that the repository names for that is run.
    command = ["git", "-c", "core.fsmonitor=false", "--literal-pathspecs", "ls-files", "-s", "-z", "--", *paths]
    try:
        done = subprocess.run(
            command, cwd=root, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [entry for entry in done.stdout.split(b"\0") if entry]


def is_tracked(root: Path, path: str) -> bool:
    """Say whether git has a file of the project; not where it cannot be asked."""
    return bool(tracked(root, [path]))
