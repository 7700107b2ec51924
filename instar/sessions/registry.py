"""The records of the sessions of a project, as the event hook writes them, and the one way to change them here.

One JSON file a session in `.instar/state/sessions`; what a record holds is said in `hooks/session_event_hook.py`.
Parking adds `reaping` while it lasts (`pid`, `by`, `reason`, `at`; `told` once the client was told to end), and
`parked` (`id`, `at`, `by`, `reason`, `resume`, `freed` in bytes); `parks` are the times of the latest ones.
"""

from __future__ import annotations

import glob
import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.errors import InstarError
from instar.files import replace_file
from instar.locks import alone
from instar.sessions.machine.processes import liveness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Edit = Callable[[dict[str, Any]], "dict[str, Any] | None"]

FOLDER: Final = ".instar/state/sessions"
LOCK: Final = ".lock"  # the hooks take the same
LOCK_S: Final = 1.0

State = Literal["running", "reaping", "unproven", "gone", "completed", "killed", "failed", "unreadable", "unrecorded"]

_SAID: Final[dict[object, State]] = {
    "reaping": "reaping",
    "completed": "completed",
    "killed": "killed",
    "failed": "failed",
}
_FOUND: Final[dict[str, State]] = {"alive": "running", "dead": "gone", "unknown": "unproven"}


@dataclass(frozen=True)
class Session:
    """A session by its record.

    `state` is what the record says, checked against the process table where it says that the session runs: "running"
    is proven, "gone" is disproven, "unproven" is neither, as for a Codex below its shared daemon. "reaping" is being
    parked, or was when its parking broke off. "unrecorded" has no record: a client that was seen, and no more.
    """

    project: Path
    id: str
    state: State
    record: dict[str, Any]

    @property
    def is_over(self) -> bool:
        """Whether the session has ended, one way or another."""
        return self.state in ("completed", "killed", "failed", "gone")

    def text(self, key: str, inner: str | None = None) -> str:
        """Return a text of the record, or of an object in it; "" where there is none."""
        return text(self.record, key, inner)

    def as_json(self) -> dict[str, Any]:
        """Return the record for a program, with the state as it was found."""
        return {"project": str(self.project), "state": self.state, **self.record, "id": self.id}


def text(record: dict[str, Any], key: str, inner: str | None = None) -> str:
    """Return a text of a record, or of an object in it; "" where there is none."""
    value = record.get(key)
    if inner is not None:
        value = value.get(inner) if isinstance(value, dict) else None
    return value if isinstance(value, str) else ""


def sessions(project: Path) -> list[Session]:
    """Return all recorded sessions, those of the newest event first. Raise InstarError where they cannot be listed."""
    try:
        places = list((project / FOLDER).glob("*.json"))
    except OSError as error:
        raise InstarError(f"cannot list {project / FOLDER}: {error.strerror}") from error
    found = [_read(project, place) for place in places]
    return sorted(found, key=lambda session: session.text("lastEvent", "at"), reverse=True)


def session(project: Path, session_id: str) -> Session | None:
    """Return the session with exactly this id; None where it is not on record. The id may be any text."""
    place = _place(project, session_id)
    return _read(project, place) if place and place.is_file() else None


def record(project: Path, session_id: str) -> dict[str, Any]:
    """Return what is written of the session with exactly this id, {} for nothing; no process is looked at for it."""
    place = _place(project, session_id)
    return (place and _load(place)) or {}


def _place(project: Path, session_id: str) -> Path | None:
    """Return where a session is recorded; None for a text that no session can have for its id."""
    is_none = not session_id or "/" in session_id or "\0" in session_id
    return None if is_none else project / FOLDER / f"{session_id}.json"


def find(project: Path, name: str) -> Session:
    """Return the session with this id, or the only one whose id begins so. Raise InstarError."""
    fitting = [session for session in sessions(project) if session.id.startswith(name)]
    exact = [session for session in fitting if session.id == name]
    if exact or len(fitting) == 1:
        return (exact or fitting)[0]
    if fitting:
        listed = ", ".join(session.id for session in fitting[:5])
        raise InstarError(f"{len(fitting)} sessions of {project} begin with {name!r}: {listed}; say more of the id")
    raise InstarError(f"no session of {project} is recorded as {name!r}; instar-sessions list --ended shows them all")


def change(
    project: Path,
    session_id: str,
    edit: Edit,
    seconds: float = LOCK_S,
    *,
    then: Callable[[], None] = lambda: None,
) -> dict[str, Any] | None:
    """Change a record: `edit` returns what it is to be, or None to leave it as it is. Return the new one, or None.

    The read, the change and the write are one, under the lock of the hooks. `edit` runs under it, and so does `then`
    once the change is written. Raise InstarError where the record is missing, or cannot be read, locked or written; it
    is then as it was.
    """
    place = project / FOLDER / f"{session_id}.json"
    with locked(project, seconds):
        record = _load(place)
        if record is None:
            raise InstarError(f"{place} is missing, or holds no record")
        after = edit(dict(record))
        if after is None:
            return None
        version = record.get("version")
        after = {**after, "version": version + 1 if type(version) is int else 1}
        try:
            _sweep(place)
            replace_file(place, json.dumps(after, indent=2).encode("ascii"))
        except OSError as error:
            raise InstarError(f"{place} cannot be written: {error.strerror}") from error
        then()
    return after


@contextmanager
def locked(project: Path, seconds: float = LOCK_S) -> Iterator[None]:
    """Keep the hooks from changing any record of a project for a moment. Raise InstarError."""
    folder = project / FOLDER
    with alone(folder / LOCK, seconds, f"{folder} was locked by another process for {seconds:g} s"):
        yield


def _sweep(place: Path) -> None:
    """Remove what killed writers of a record left. Under the lock nobody else's is in use."""
    for left in place.parent.glob(f".{glob.escape(place.name)}.*"):
        left.unlink()


def _read(project: Path, place: Path) -> Session:
    record = _load(place)
    if record is None:
        return Session(project, place.stem, "unreadable", {})
    return Session(project, place.stem, _state(record), record)


def _load(place: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(place.read_bytes()) if place.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _state(record: dict[str, Any]) -> State:
    status = record.get("status")
    said = _SAID.get(status) if isinstance(status, str) else None
    return said or _FOUND[liveness(record.get("agent"))]
