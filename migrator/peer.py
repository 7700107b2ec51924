"""The peer's installation: the hooks of instar itself, which hold the same roles and may be there before us.

A role is run once at an event. Where the peer's hook holds it and is there, ours steps back, until `--take-over`; where
its file is missing, ours takes its place.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS: Final = (".instar/hooks/instar", ".instar/hooks")  # the newer layout, and the flat one before it
FILES: Final = {"stop-gate-router.js": "stop-gate-router", "build-stop-hook.sh": "build-stop-hook"}
FLAT: Final = ("session-start.sh", "dangerous-command-guard.sh", *FILES)
_COMMAND: Final = re.compile(rf"\.instar/hooks/(?:instar/)?({'|'.join(map(re.escape, FILES))})(?![\w.-])")


def role_of(entry: object) -> str | None:
    """Return the role that a settings entry of the peer's runs; None for any other entry."""
    command = entry.get("command") if isinstance(entry, dict) else None
    found = _COMMAND.search(command) if isinstance(command, str) else None
    return FILES[found[1]] if found else None


def standing(root: Path) -> frozenset[str]:
    """Return the roles whose hook of the peer's is there to be run."""
    return frozenset(
        role for name, role in FILES.items() if any((root / folder / name).is_file() for folder in FOLDERS)
    )


def flat_files(root: Path) -> Iterator[str]:
    """Yield the peer's hooks that lie in its flat layout, which its own migration sorts into folders."""
    for name in FLAT:
        if (root / FOLDERS[1] / name).is_file():
            yield f"{FOLDERS[1]}/{name}"
