"""What does not work as it should, told in one file: `.instar/degradations.json`, the last hundred, the newest last."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from filelock import FileLock

from instar.files import private_folder, replace_file, set_aside
from instar.gate.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATH: Final = ".instar/degradations.json"
LOCK: Final = "state/degradations.lock"
LOCK_S: Final = 1.0
KEPT: Final = 100
QUIET_S: Final = 3600  # for which the same is only counted
WRITTEN_EVERY_S: Final = 60  # how often a count is written, at most
REASON_CHARACTERS: Final = 300
_FILE_BYTES: Final = 4 * 2**20
_PARTICULARS: Final = re.compile(r"[0-9a-f]{7,}|\d+", re.IGNORECASE)


@dataclass
class _Known:
    """A degradation that was told: its entry, when it began, was seen last, and was written last."""

    entry: dict[str, Any]
    began: float
    last: float
    written: float | None = None
    is_due: bool = True


class Degradations:
    """The degradations of a project. `report` never raises: there is nothing below it to tell."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = root / PATH
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], _Known] = {}

    def report(self, feature: str, reason: str, *, primary: str = "", fallback: str = "", impact: str = "") -> None:
        """Tell that something does not work; the same is one entry for an hour, with how often it was reported.

        Reasons that differ in numbers and hashes alone are the same.
        """
        try:
            told = redacted(reason)[:REASON_CHARACTERS]
            with self._lock:
                known = self._seen(feature, told, primary=primary, fallback=fallback, impact=impact)
                now = self._clock()
                if known.written is None or not 0 <= now - known.written < WRITTEN_EVERY_S:
                    self._write()
        except Exception:  # noqa: BLE001, S110 - whatever it is, no stop may wait for it
            pass

    def recent(self) -> list[dict[str, Any]]:
        """Return what this process reported in the last hour, the oldest first."""
        now = self._clock()
        with self._lock:
            known = sorted(self._known.values(), key=lambda each: each.last)
            return [dict(each.entry) for each in known if abs(now - each.last) < QUIET_S]

    def flush(self) -> None:
        """Write the counts that were not written yet. Never raises."""
        try:
            with self._lock:
                if any(each.is_due for each in self._known.values()):
                    self._write()
        except Exception:  # noqa: BLE001, S110 - as above
            pass

    def _seen(self, feature: str, reason: str, **texts: str) -> _Known:
        now = self._clock()
        key = (feature, _PARTICULARS.sub("#", reason))
        known = self._known.get(key)
        if known is None or not 0 <= now - known.began < QUIET_S:  # an hour, or a clock that was put back
            entry = {
                "feature": feature, "primary": texts["primary"], "fallback": texts["fallback"], "reason": reason,
                "impact": texts["impact"], "timestamp": _moment(now), "lastAt": _moment(now), "count": 0,
                "reported": False, "alerted": False,
            }  # fmt: skip
            known = self._known[key] = _Known(entry, now, now)
            self._forget(now)
        known.last, known.is_due = now, True
        known.entry.update(count=known.entry["count"] + 1, lastAt=_moment(now))
        return known

    def _forget(self, now: float) -> None:
        """Keep in mind what is of the last hour, and no more than the file does."""
        newest = sorted(self._known.items(), key=lambda item: item[1].last)[-KEPT:]
        self._known = {key: each for key, each in newest if abs(now - each.last) < QUIET_S}

    def _write(self) -> None:
        """Put our entries among those in the file; what others wrote there stays."""
        private_folder(self._path.parent / "state")
        with FileLock(self._path.parent / LOCK, timeout=LOCK_S):
            ours = {_name(each.entry): each for each in self._known.values()}
            entries = [ours.pop(_name(each)).entry if _name(each) in ours else each for each in self._read()]
            entries += [each.entry for each in ours.values() if each.written is None]
            replace_file(self._path, json.dumps(entries[-KEPT:], indent=2).encode("ascii") + b"\n")
        for each in self._known.values():
            each.written, each.is_due = self._clock(), False

    def _read(self) -> list[Any]:
        """Return the entries of the file; none where there is no file. One that cannot be used is moved away."""
        try:
            with self._path.open("rb") as file:
                entries = json.loads(file.read(_FILE_BYTES))
        except FileNotFoundError:
            return []
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list):
            set_aside(self._path, int(self._clock()))
            return []
        return entries


def _name(entry: object) -> tuple[object, ...]:
    """Return what tells an entry from others."""
    if not isinstance(entry, dict):
        return ()
    return tuple(entry.get(key) for key in ("feature", "reason", "timestamp"))


def _moment(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return moment.replace("+00:00", "Z")
