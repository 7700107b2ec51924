"""Whether the gate runs at all, only looks, or holds: the kill switch, the mode file, the configuration.

All three are files, so that the switch works with the server down, and outlives it. What cannot be read never makes
the gate hold anybody.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from instar.files import replace_file, set_aside
from instar.gate.budget import budget_ms
from instar.gate.settings import FEATURE, gate_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Mode = Literal["off", "shadow", "enforce"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
DEFAULT: Final[Mode] = "shadow"

FOLDER: Final = ".instar/server-data"
GATE_ON: Final = "gate-on"
MODE_FILE: Final = "stop-gate-mode.json"
KILL_FILE: Final = "stop-gate-kill-switch.json"
DATABASE: Final = "stop-gate.db"

EXPIRY_MS: Final = (1000, 30 * 86_400_000)  # for which a kill switch may be set, at least and at most
CLOCK_BACK_MS: Final = 5 * 60_000  # before its setting, which a clock that was put back explains
_FILE_BYTES: Final = 64 * 1024

Source = Literal["kill switch", "mode file", "configuration", "default", "mode file that cannot be used"]


class _Watched:
    """A file with one object, read again when it is another than the one that was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._values: dict[str, Any] | str | None = None
        self._unwritten: tuple[tuple[int, ...] | None, dict[str, Any]] | None = None

    def read(self) -> dict[str, Any] | str | OSError | None:
        """Return the object in the file, None where there is no file.

        A text says why what is there is none, an OSError why nobody can tell.
        """
        try:
            seen = _look(self.path)
            if self._unwritten is not None and self._unwritten[0] == seen:
                return self._unwritten[1]
            self._unwritten = None
            if seen != self._seen:
                self._values = _object(self.path) if seen else None
                self._seen = seen
        except OSError as error:
            self._seen = None
            return error
        return self._values

    def write(self, values: dict[str, Any]) -> str:
        """Write an object; return "" or why that failed. It is then what is read until the file is another."""
        try:
            replace_file(self.path, json.dumps(values, indent=2).encode("ascii") + b"\n")
        except OSError as error:
            with suppress(OSError):
                self._unwritten = (_look(self.path), values)
            return error.strerror or str(error)
        self._unwritten = None
        return ""


class Switch:
    """The mode of a project's gate, for all threads of a process. Nothing here raises for what is on disk.

    `on_trouble` is told a feature and a reason of what could not be read or written. Changes of other programs to the
    files hold from the next question on.
    """

    def __init__(
        self,
        root: Path,
        config: Mapping[str, Any],
        on_trouble: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = root / FOLDER
        self._config = config
        self._on_trouble = on_trouble
        self._clock = clock
        self._lock = threading.RLock()
        self._mode_file = _Watched(self.folder / MODE_FILE)
        self._kill_file = _Watched(self.folder / KILL_FILE)
        self._was_corrupt = False

    def effective(self) -> Mode:
        """Return the mode that holds now: off under the kill switch, else `mode()`."""
        return "off" if self.kill()["value"] else self.mode()

    def mode(self) -> Mode:
        """Return the mode that is set, whether killed or not."""
        return self._mode()[0]

    def source(self) -> Source:
        """Return what the mode that holds comes from."""
        return "kill switch" if self.kill()["value"] else self._mode()[1]

    def set_mode(self, mode: Mode) -> bool:
        """Set the mode; say whether it was written, too. What could not be written holds for this process.

        What else the mode file holds stays. Raise ValueError for what is no mode.
        """
        if mode not in MODES:
            raise ValueError("mode must be off | shadow | enforce")
        with self._lock:
            self._mode()  # a file that cannot be used is moved away first
            kept = self._mode_file.read()
            now = datetime.fromtimestamp(self._clock(), timezone.utc).isoformat(timespec="milliseconds")
            values = {**(kept if isinstance(kept, dict) else {}), "mode": mode, "updatedAt": now.replace("+00:00", "Z")}
            return self._is_written(self._mode_file, values, "modeFile")

    def kill(self) -> dict[str, Any]:
        """Return the kill switch: `value`, and of one that is set `setAt`, `expiresAt`, `operator`, `reason`.

        One whose file cannot be read is set. Times are in milliseconds.
        """
        with self._lock:
            values = self._kill_file.read()
            if values is None:
                return {"value": False}
            if not isinstance(values, dict) or not _is_kill_record(values):
                why = "it is no kill switch" if isinstance(values, dict) else str(values)
                reason = f"{KILL_FILE} cannot be read ({why}): that counts as set"
                self._on_trouble(f"{FEATURE}.killSwitchFile", reason)
                return {"value": True, "setAt": None, "expiresAt": None, "operator": None, "reason": reason}
            return self._of_now(values)

    def set_kill(
        self, value: bool, expires_in_ms: int | None = None, operator: str = "", reason: str = ""  # noqa: FBT001
    ) -> bool:  # fmt: skip
        """Set or clear the kill switch; say whether it was written, too. What could not be holds for this process.

        Without `expires_in_ms` it stays set until it is cleared. Raise ValueError for a time that is too short or long.
        """
        if expires_in_ms is not None and not EXPIRY_MS[0] <= expires_in_ms <= EXPIRY_MS[1]:
            raise ValueError("a kill switch expires after 1 second to 30 days")
        now = int(self._clock() * 1000)
        expires = now + expires_in_ms if value and expires_in_ms is not None else None
        values = {"value": value, "setAt": now, "expiresAt": expires, "operator": operator, "reason": reason}
        with self._lock:
            return self._is_written(self._kill_file, {**values, "version": 1}, "killSwitchFile")

    def keep_gate_on(self, mode: Mode | None = None, *, is_serving: bool = True) -> None:
        """Have the file that the router asks for say what holds: the mode, and no file when the gate is off.

        `mode` is what stops are judged in where that is less than what is set. Without a server nobody could answer a
        router: then the file is never made, only removed.
        """
        self._end_expired_kill()
        mode = mode or self.effective()
        path = self.folder / GATE_ON
        try:
            if mode == "off":
                path.unlink(missing_ok=True)
            elif is_serving and _word(path) != (said := f"{mode} {budget_ms(self._config)}"):
                replace_file(path, said.encode())
        except OSError as error:
            self._on_trouble(f"{FEATURE}.gateOn", f"{GATE_ON} cannot be kept: {error.strerror}")

    def withdraw(self) -> None:
        """Have no router ask: nobody is there to answer."""
        try:
            (self.folder / GATE_ON).unlink(missing_ok=True)
        except OSError as error:
            self._on_trouble(f"{FEATURE}.gateOn", f"{GATE_ON} cannot be removed: {error.strerror}")

    def _mode(self) -> tuple[Mode, Source]:
        with self._lock:
            values = self._mode_file.read()
            if isinstance(values, dict) and values.get("mode") in MODES:
                self._was_corrupt = False
                mode: Mode = values["mode"]
                return mode, "mode file"
            if isinstance(values, OSError):
                self._on_trouble(f"{FEATURE}.modeFile", f"{MODE_FILE} cannot be read: {values.strerror}")
            elif values is not None:
                self._put_corrupt_aside(values)
            configured, source = self._configured()
            if values is not None or self._was_corrupt:
                # Nobody knows what was set: it may have been less than the configuration wants.
                return "shadow" if configured == "enforce" else configured, "mode file that cannot be used"
            return configured, source

    def _configured(self) -> tuple[Mode, Source]:
        mode = gate_settings(self._config).get("mode")
        if mode is None:
            return DEFAULT, "default"
        if isinstance(mode, str) and mode in MODES:
            return mode, "configuration"
        self._on_trouble(f"{FEATURE}.config", f"{FEATURE}.mode is none of {', '.join(MODES)}")
        return DEFAULT, "default"

    def _put_corrupt_aside(self, values: dict[str, Any] | str) -> None:
        """Move a mode file that cannot be used away; where enforce is configured, leave a sound one in its place.

        Without that, the next process would find no mode file, and take the configuration's word.
        """
        self._was_corrupt = True
        why = values if isinstance(values, str) else "it names no mode"
        aside = set_aside(self._mode_file.path, int(self._clock()))
        kept = f"kept as {aside.name}" if aside else "and cannot be moved away"
        self._on_trouble(f"{FEATURE}.modeFile", f"{MODE_FILE} cannot be used ({why}); it is {kept}")
        if aside and self._configured()[0] == "enforce":
            self._is_written(self._mode_file, {"mode": "shadow"}, "modeFile")

    def _of_now(self, values: dict[str, Any]) -> dict[str, Any]:
        told = {key: values.get(key) for key in ("value", "setAt", "expiresAt", "operator", "reason")}
        return {"value": False} if not told["value"] or self._is_expired(values) else told

    def _is_expired(self, values: dict[str, Any]) -> bool:
        now, expires, since = int(self._clock() * 1000), values.get("expiresAt"), values.get("setAt")
        is_clock_back = isinstance(since, int) and now < since - CLOCK_BACK_MS
        return bool(values.get("value")) and isinstance(expires, int) and now >= expires and not is_clock_back

    def _end_expired_kill(self) -> None:
        """Write down that a kill switch has expired, so that no clock that is put back sets it again."""
        with self._lock:
            values = self._kill_file.read()
            if isinstance(values, dict) and _is_kill_record(values) and self._is_expired(values):
                self.set_kill(value=False, operator="expiry", reason="its time is over")

    def _is_written(self, file: _Watched, values: dict[str, Any], feature: str) -> bool:
        why = file.write(values)
        if why:
            self._on_trouble(f"{FEATURE}.{feature}", f"{file.path.name} cannot be written: {why}")
        return not why


def _look(path: Path) -> tuple[int, ...] | None:
    """Return what tells a file from any later one at its place, or None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _object(path: Path) -> dict[str, Any] | str:
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
        return "it is no regular file"
    with path.open("rb") as file:
        data = file.read(_FILE_BYTES + 1)
    if len(data) > _FILE_BYTES:
        return "it is too long"
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return "it is no JSON"
    return values if isinstance(values, dict) else "it holds no object"


def _is_kill_record(values: dict[str, Any]) -> bool:
    times = (values.get("setAt"), values.get("expiresAt"))
    return isinstance(values.get("value"), bool) and all(each is None or type(each) is int for each in times)


def _word(path: Path) -> str:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        with os.fdopen(fd, "rb") as file:
            return file.read(16).decode("ascii", "replace")
    return ""
