"""What the reaper and whoever ends sessions did, a row each, in `.instar/logs`.

`sentinel-events.jsonl`, `reaper-audit.jsonl` and `reap-log.jsonl` have no other writer. No row holds a path, a prompt
or what a screen showed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.clock import iso
from instar.sessions.reaper import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from instar.sessions.registry import Session
    from instar.sessions.verdict import Verdict

FOLDER: Final = ".instar/logs"
EVENTS: Final = "sentinel-events.jsonl"
DECISIONS: Final = "reaper-audit.jsonl"
ENDS: Final = "reap-log.jsonl"

LIMITS: Final = (1, 200, 1000)  # of rows that are told: at least, where nobody says, at most
_ROWS_LOOKED_AT: Final = 2000
_OF_ENDS: Final = (
    "session", "sessionId", "tmuxSession", "reason", "disposition", "origin", "skipped", "freed", "park", "midWork",
)  # fmt: skip

Row = dict[str, Any]


class Audit:
    """The rows of a project. Nothing raises: what could not be written is said by False, and counted in `lost`."""

    def __init__(self, root: Path, wall: Callable[[], float] = time.time) -> None:
        self._folder = root / FOLDER
        self._wall = wall
        self.lost = 0

    def event(self, event: str, session: Session | None = None, **detail: Any) -> bool:  # noqa: ANN401 - what JSON holds may be anything
        """Tell what the reaper did, or did not do, to a session, or by itself."""
        return self._append(EVENTS, event, session, detail)

    def decision(self, session: Session, verdict: Verdict, before: Sequence[str] | None, tier: str) -> tuple[str, str]:
        """Tell a verdict where it is another than the one `before`; return what tells it from the next."""
        said = verdict.as_json()
        now = (str(said["verdict"]), verdict.kept_by)
        if before is None or tuple(before) != now:
            inputs = {"why": said.pop("why")}
            self._append(DECISIONS, "decision", session, {**said, "tier": tier, "inputs": inputs})
        return now

    def reap(self, told: Mapping[str, Any]) -> bool:
        """Write what whoever ends sessions tells of one: `type` is "reaped", "skipped" or "recovered".

        That a session was not ended, for the same reason as last time, is not written again. Of the rest of `told`
        only `_OF_ENDS` is, for it may name files.
        """
        row = {"ts": iso(self._wall()), "type": told.get("type", "notify")}
        row |= {key: told[key] for key in _OF_ENDS if told.get(key) is not None}
        return self._is_repeated(row) or self._write(ENDS, row)

    def recent(self, limit: int | None = None) -> list[Row]:
        """Return the newest events and decisions, oldest first: 200, or as many as are asked for, 1000 at most."""
        least, usual, most = LIMITS
        count = usual if limit is None else min(max(limit, least), most)
        both = [row for name in (EVENTS, DECISIONS) for row in rows.tail(self._folder / name, count)]
        return sorted(both, key=lambda row: str(row.get("ts", "")))[-count:]

    def events(self) -> list[Row]:
        """Return the newest events of the reaper, oldest first."""
        return rows.tail(self._folder / EVENTS, _ROWS_LOOKED_AT)

    def _is_repeated(self, row: Row) -> bool:
        if row["type"] != "skipped":
            return False
        ends = rows.tail(self._folder / ENDS, _ROWS_LOOKED_AT)
        last = next((each for each in reversed(ends) if each.get("sessionId") == row.get("sessionId")), {})
        return {**last, "ts": row["ts"]} == row

    def _append(self, name: str, event: str, session: Session | None, detail: Row) -> bool:
        named = {} if session is None else _named(session)
        row = {"ts": iso(self._wall()), "kind": "session-reaper", "event": event, **named, **detail}
        return self._write(name, row)

    def _write(self, name: str, row: Row) -> bool:
        try:
            rows.append(self._folder / name, row)
        except (OSError, ValueError, TypeError):
            self.lost += 1
            return False
        return True


def name_of(session: Session) -> str:
    """Return how people call a session: by its tmux session, else by the beginning of its id."""
    return session.text("tmux", "session") or session.id[:8]


def _named(session: Session) -> Row:
    return {"session": name_of(session), "sessionId": session.id, "tmuxSession": session.text("tmux", "session")}
