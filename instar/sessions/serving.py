"""The sessions of a project as its server tells of them, and the reaper that runs in it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Final

import psutil

from instar import config
from instar.errors import InstarError
from instar.sessions import adoption, registry
from instar.sessions.assembly import Assembly
from instar.sessions.clock import boot_id
from instar.sessions.machine.processes import read_table
from instar.sessions.reaper import switch

if TYPE_CHECKING:
    from pathlib import Path

    from instar.sessions.registry import Session

STOP_S: Final = 4.0

_log: Final = logging.getLogger(__name__)


class Serving:
    """Tells of the sessions of the project at `root`; of what a look at them came to, only what the last one left."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._assembly = Assembly(root)
        self._mode: tuple[object, str] = (None, "off")

    def listed(self) -> dict[str, Any]:
        """Return all that are not over, on record or not, with the reaper's last verdict on each, None without one."""
        told = self._assembly.reaper.snapshot()
        verdicts = {row["sessionId"]: row for row in told["sessions"]}
        troubles = list(told["troubles"])
        try:
            running = [each for each in registry.sessions(self._root) if not each.is_over]
        except InstarError as error:
            running, troubles = [], [*troubles, str(error)]
        try:
            others = self._unrecorded(running)
        except (OSError, psutil.Error) as error:
            others, troubles = [], [*troubles, f"the processes cannot be read: {type(error).__name__}"]
        sessions = [{**each.as_json(), "reaper": verdicts.get(each.id)} for each in (*running, *others)]
        head = {"mode": told["mode"], "lastTickAt": told.get("lastTickAt", 0), "ageS": told.get("ageS")}
        return {**head, "sessions": sessions, "troubles": troubles}

    def snapshot(self, *, fresh: bool) -> dict[str, Any]:
        """Return what the reaper shows of itself."""
        return self._assembly.reaper.snapshot(fresh=fresh)

    def audit(self, limit: int | None) -> list[dict[str, Any]]:
        """Return the newest rows of the reaper's audit, oldest first."""
        return self._assembly.reaper.audit(limit)

    def mode(self) -> str:
        """Return the mode that holds; "off" where the configuration cannot be read. It is worked out once a change."""
        stamp = tuple(_stamp(self._root / path) for path in (config.PATH, switch.PATH))
        if stamp != self._mode[0]:
            try:
                self._mode = (stamp, self._assembly.policy().mode)
            except InstarError:
                self._mode = (stamp, "off")
        return self._mode[1]

    def start(self) -> None:
        """Have the reaper look, now and then."""
        self._assembly.reaper.start()

    def stop(self) -> bool:
        """Have it look no more; return whether its last look has ended.

        What one that is cut off leaves, the next reaper mends.
        """
        has_ended = self._assembly.reaper.stop(STOP_S)
        if not has_ended:
            _log.warning("the last look of the session reaper is cut off")
        return has_ended

    def _unrecorded(self, recorded: list[Session]) -> list[Session]:
        return list(adoption.unrecorded(self._root, read_table(), recorded, boot_id()))


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)  # noqa: PTH116 - it is asked every second
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
