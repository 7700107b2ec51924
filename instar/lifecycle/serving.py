"""The peers of a project as its server tells of them, and the supervisor that runs in it."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.lifecycle.lifecycle import Lifecycle

if TYPE_CHECKING:
    from pathlib import Path

STOP_S: Final = 4.0
ASK_S: Final = 5.0  # how soon it is seen that the configuration switches it on

_log: Final = logging.getLogger(__name__)


class Serving:
    """Tells of the peers of the project at `root`, and looks after them as long as `lifecycle.enabled` is true."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._told = Lifecycle(root)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._is_on = False

    def listed(self) -> dict[str, Any]:
        """Return `enabled`, `peers` (see `verbs.status`) and `troubles`, sentences for what could not be told."""
        troubles = [self._trouble] if self._trouble else []
        is_enabled, peers = False, []
        try:
            is_enabled = self._told.policy().is_enabled
            peers = self._told.status()
        except InstarError as error:
            troubles.append(str(error))
        return {"enabled": is_enabled, "peers": peers, "troubles": sorted(set(troubles))}

    def mode(self) -> str:
        """Return "on" or "off" as the last look found it, or "troubled": it could not be made, and the log says why."""
        return "troubled" if self._trouble else "on" if self._is_on else "off"

    def start(self) -> None:
        """Have a thread look, until `stop`."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="peers", daemon=True)
            self._thread.start()

    def stop(self) -> bool:
        """Look no more; return whether the last look has ended. What one that is cut off leaves, the next mends."""
        self._stopping.set()
        if self._thread is None:
            return True
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            _log.warning("the last look at the peers is cut off")
            return False
        self._thread = None
        return True

    def _run(self) -> None:
        life, wait = Lifecycle(self._root), 0.0
        while not self._stopping.wait(wait):
            wait = self._looked(life)

    def _looked(self, life: Lifecycle) -> float:
        """Look once, where that is wanted; return in how many seconds to do so again. Raise nothing."""
        try:
            rules = life.policy()
            self._is_on = rules.is_enabled
            if rules.is_enabled:
                life.supervisor.run()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do
            self._tell(str(error) if isinstance(error, InstarError) else f"{type(error).__name__}: {error}")
            return ASK_S
        self._tell("")
        return rules.interval_s if rules.is_enabled else ASK_S

    def _tell(self, trouble: str) -> None:
        """Log a trouble once, not at each look."""
        if trouble and trouble != self._trouble:
            _log.warning("the peers are not looked after: %s", trouble)
        self._trouble = trouble
