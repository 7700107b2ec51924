"""The server of a project, as far as others depend on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from pathlib import Path

ENDPOINT: Final = ".instar/server-data/endpoint.json"


def runs(root: Path) -> bool:
    """Say whether there is a process of the number that the server wrote down."""
    try:
        pid = json.loads((root / ENDPOINT).read_bytes())["pid"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False
    return isinstance(pid, int) and psutil.pid_exists(pid)
