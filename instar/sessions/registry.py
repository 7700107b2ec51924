"""The records of the sessions of a project, as the event hook writes them.

One JSON file a session in `.instar/state/sessions`; what a record holds is said in `hooks/session_event_hook.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from instar.errors import InstarError
from instar.sessions.processes import liveness

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".instar/state/sessions"

State = Literal["running", "unproven", "gone", "completed", "failed", "unreadable"]


@dataclass(frozen=True)
class Session:
    """A session by its record.

    `state` is what the record says, checked against the process table where it says that the session runs: "running"
    is proven, "gone" is disproven, "unproven" is neither, as for a Codex below its shared daemon.
    """

    project: Path
    id: str
    state: State
    record: dict[str, Any]

    @property
    def is_over(self) -> bool:
        """Whether the session has ended, one way or another."""
        return self.state in ("completed", "failed", "gone")

    def text(self, key: str, inner: str | None = None) -> str:
        """Return a text of the record, or of an object in it; "" where there is none."""
        value = self.record.get(key)
        if inner is not None:
            value = value.get(inner) if isinstance(value, dict) else None
        return value if isinstance(value, str) else ""

    def as_json(self) -> dict[str, Any]:
        """Return the record for a program, with the state as it was found."""
        return {"project": str(self.project), "state": self.state, **self.record, "id": self.id}


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
    place = project / FOLDER / f"{session_id}.json"
    if "/" in session_id or "\0" in session_id or not place.is_file():
        return None
    return _read(project, place)


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


def _read(project: Path, place: Path) -> Session:
    try:
        record = json.loads(place.read_bytes()) if place.is_file() else None
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        return Session(project, place.stem, "unreadable", {})
    return Session(project, place.stem, _state(record), record)


def _state(record: dict[str, Any]) -> State:
    status = record.get("status")
    if status in ("completed", "failed"):
        return "failed" if status == "failed" else "completed"
    return {"alive": "running", "dead": "gone", "unknown": "unproven"}[liveness(record.get("agent"))]  # type: ignore[return-value]  # a table of states
