"""The transcripts of the Codex CLI: `sessions/<year>/<month>/<day>/rollout-<time>-<id>.jsonl`, measured on 0.169.0.

The first record of each tells its id, and for a subagent also the id of the session that it works for (`session_id`).
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.transcripts.records import Unresolved, first_record, opened, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREFIX: Final = "rollout-"
ROLLOUTS_AT_MOST: Final = 4096
_DAY_DEPTH: Final = 3  # year, month and day


def thread_id(first: dict[str, Any] | None) -> str | None:
    """Return the id that the first record of a rollout tells."""
    return _told(first, "id")


def children_at(path: Path) -> float | None:
    """Return when a rollout of a session's subagents was written last, if after its own. Raise Unresolved."""
    try:
        own = path.stat()
        newer = sorted(_newer(path, own.st_mtime_ns), reverse=True)
    except OSError as error:
        raise Unresolved(f"the rollouts of the session cannot be looked at: {error.strerror}") from error
    session = _root_of(os.fspath(path), own.st_dev, own.st_ino)
    if len(newer) > ROLLOUTS_AT_MOST or session is None:
        raise Unresolved("which rollouts are the session's cannot be told")
    for written, other, dev, inode in newer:
        if _root_of(other, dev, inode) == session:
            return written / 1e9
    return None


def _newer(path: Path, than_ns: int) -> Iterator[tuple[int, str, int, int]]:
    """Yield the rollouts, of this day and those after it, that were written after a moment."""
    days = path.parents[_DAY_DEPTH] if len(path.parents) > _DAY_DEPTH else path.parent
    first = path.parent.relative_to(days).parts
    for day in days.glob("/".join("*" * len(first))) if first else [days]:
        if day.relative_to(days).parts < first or not day.is_dir():
            continue
        with os.scandir(day) as entries:
            for entry in entries:
                if entry.name.startswith(PREFIX) and entry.name != path.name and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_mtime_ns > than_ns:
                        yield status.st_mtime_ns, entry.path, status.st_dev, status.st_ino


@lru_cache(maxsize=ROLLOUTS_AT_MOST)
def _root_of(path: str, _dev: int, _inode: int) -> str | None:
    """Return the session that a rollout is part of; its first record stays as it is."""
    try:
        with opened(path) as source:
            return _told(parsed(first_record(source) or b""), "session_id")
    except Unresolved:
        return None


def _told(first: dict[str, Any] | None, key: str) -> str | None:
    payload = first.get("payload") if first and first.get("type") == "session_meta" else None
    value = (payload.get(key) or payload.get("id")) if isinstance(payload, dict) else None
    return value if isinstance(value, str) else None
