"""One look of the reaper for a command: what it would do, and what went wrong with it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from instar.cli.session_look import Looks, is_unrecorded
from instar.sessions.look import memory
from instar.sessions.reaper.audit import name_of

if TYPE_CHECKING:
    from typing_extensions import Self

    from instar.cli.session_look import Looked
    from instar.sessions.assembly import Assembly

_LOGGER: Final = logging.getLogger("instar.sessions")


class Heard(logging.Handler):
    """Hears why a look failed, in the place of the log that a server has."""

    def __init__(self) -> None:
        super().__init__()
        self.words = "the server's log says why"

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the newest reason."""
        error = record.exc_info[1] if record.exc_info else None
        self.words = f"{type(error).__name__}: {error}" if error else record.getMessage()

    def __enter__(self) -> Self:
        _LOGGER.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LOGGER.removeHandler(self)


def plan(assembly: Assembly) -> dict[str, Any]:
    """Return what a look finds now, and whom it would park by what was seen before; nothing changes. Raise InstarError.

    `due` are the ids of those that are idle for certain and were seen so for as long as the pressure asks for.
    """
    told = assembly.reaper.snapshot()
    known = {each["sessionId"]: each for each in told["sessions"]}
    looked = [each for each in Looks([assembly.root]).settled() if each.verdict and not is_unrecorded(each.session)]
    rows = [_row(each, known.get(each.session.id, {}), told.get("activeThresholdMinutes")) for each in looked]
    return {
        "mode": told["mode"],
        "pressure": told.get("pressure"),
        "activeThresholdMinutes": told.get("activeThresholdMinutes"),
        "due": [each["sessionId"] for each in rows if each["due"]],
        "sessions": rows,
        "troubles": told["troubles"],
    }


def _row(looked: Looked, known: dict[str, Any], threshold_minutes: float | None) -> dict[str, Any]:
    verdict, idle_ms = looked.verdict, known.get("idleMs", 0)
    is_clear = verdict is not None and verdict.is_clear and not known.get("stale", True)
    is_due = is_clear and threshold_minutes is not None and idle_ms >= threshold_minutes * 60_000
    return {
        "name": name_of(looked.session),
        "sessionId": looked.session.id,
        **(verdict.as_json() if verdict else {}),
        "consecutive": known.get("consecutive", 0),
        "idleMs": idle_ms,
        "memory": memory(looked.sight) if looked.sight else None,
        "due": is_due or (is_clear and bool(known.get("reapPending"))),
    }
