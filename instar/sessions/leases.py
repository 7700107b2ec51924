"""What others know of a session: a file for each reason to leave it alone, `.instar/state/sessions/<id>.leases/<kind>`.

Any tool may write one: a JSON object with `expiresAt` (ISO 8601), or `pid` (and `start`, `boot`, as records stamp a
process), or both. It holds until that moment, and as long as that process lives. One that cannot be read holds for a
day after its last change, for what it says may matter.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.files import replace_file, unblocked
from instar.sessions.clock import epoch, iso
from instar.sessions.machine.processes import liveness
from instar.sessions.registry import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_S: Final = 7 * 86_400.0
UNREADABLE_S: Final = 86_400.0
BYTES_AT_MOST: Final = 1 << 16
_KIND: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Lease:
    """A reason to leave a session alone. `is_sure` is False for a file that cannot be read."""

    kind: str
    note: str
    expires_at: float | None = None
    is_sure: bool = True


def active(root: Path, session_id: str, now: float) -> list[Lease]:
    """Return the leases of a session that hold at `now`, seconds since 1970, by their kinds. Raise OSError."""
    folder = _folder(root, session_id)
    if not folder.is_dir():
        return []
    return [lease for path in sorted(folder.iterdir()) for lease in _holding(path, now)]


def take(root: Path, session_id: str, lease: Lease, now: float) -> None:
    """Leave a session alone till the lease expires, which it has to; one of its kind is replaced. Raise InstarError."""
    if not _KIND.fullmatch(lease.kind):
        raise InstarError(f"{lease.kind!r} is no kind of lease: take small letters, digits and hyphens, 32 at most")
    if lease.expires_at is None or not now < lease.expires_at <= now + LONGEST_S:
        raise InstarError(f"a lease is for {LONGEST_S / 86_400:g} days at most, and for more than no time")
    said = {"kind": lease.kind, "note": lease.note, "takenAt": iso(now), "expiresAt": iso(lease.expires_at)}
    path = _folder(root, session_id) / lease.kind
    try:
        replace_file(path, json.dumps(said, indent=2).encode("ascii") + b"\n")
    except OSError as error:
        raise InstarError(f"{path} cannot be written: {error.strerror}") from error


def release(root: Path, session_id: str, kind: str) -> bool:
    """Give a lease back; return whether there was one. Raise InstarError."""
    path = _folder(root, session_id) / kind
    if not _KIND.fullmatch(kind):
        return False
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InstarError(f"{path} cannot be removed: {error.strerror}") from error
    return True


def _folder(root: Path, session_id: str) -> Path:
    return root / FOLDER / f"{session_id}.leases"


def _holding(path: Path, now: float) -> Iterator[Lease]:
    if not _KIND.fullmatch(path.name):
        return  # a temporary file of a writer, or nothing of ours
    said = _read(path)
    expires = epoch(said.get("expiresAt")) if said else None
    owner = said.get("pid") if said else None
    if said is None or (expires is None and not isinstance(owner, int)):
        if abs(now - _changed(path, now)) <= UNREADABLE_S:
            yield Lease(path.name, "it cannot be read", is_sure=False)
    elif (expires is None or expires > now) and not (isinstance(owner, int) and _is_dead(said)):
        note = said.get("note")
        yield Lease(path.name, note if isinstance(note, str) else "", expires)


def _is_dead(said: dict[str, Any]) -> bool:
    """Say whether the owner has ended for certain; without a start, whether no process has its number."""
    if isinstance(said.get("start"), str):
        return liveness(said) == "dead"
    try:
        os.kill(said["pid"], 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False
    return False


def _read(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb", opener=unblocked) as file:
            said = json.loads(file.read(BYTES_AT_MOST))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _changed(path: Path, now: float) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return now
