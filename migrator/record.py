"""What a migration remembers for the next: the version, the clients that were chosen, what Codex trusted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pathlib import Path

RECORD: Final = ".instar/state/py-migrated-version.json"  # the peer keeps its own version in another file


def read(root: Path) -> dict[str, Any]:
    """Return what was remembered; nothing where it cannot be read."""
    place = root / RECORD
    try:
        record = json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
