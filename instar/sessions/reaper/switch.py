"""Whether the reaper runs, by word of its operator: `.instar/state/session-reaper-mode.json`.

It outranks the configuration, and outlives whatever runs. It also holds that the reaper has stopped itself, and why;
then nobody is parked until a person says so. A file that cannot be used switches the reaper off.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.files import replace_file
from instar.locks import alone
from instar.sessions.clock import iso
from instar.sessions.policy import MODES, Mode, Policy

if TYPE_CHECKING:
    from pathlib import Path

PATH: Final = ".instar/state/session-reaper-mode.json"
LOCK: Final = ".instar/state/session-reaper-mode.lock"
LOCK_S: Final = 2.0
_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Switched:
    """What was set: `mode` is None where nothing was. `cause` is why the reaper stopped itself, "" where it did not.

    `trouble` is a sentence for a file that cannot be used; the mode is then "off".
    """

    mode: Mode | None = None
    at: str = ""
    by: str = ""
    reason: str = ""
    cause: str = ""
    disabled_at: str = ""
    trouble: str = ""

    @property
    def is_auto_disabled(self) -> bool:
        """Whether the reaper has stopped itself."""
        return bool(self.cause)

    def over(self, policy: Policy) -> Policy:
        """Return what holds: the configuration's word below the switch, and never live where it stopped itself."""
        mode = self.mode or policy.mode
        return replace(policy, mode="dry-run" if mode == "live" and self.is_auto_disabled else mode)


class Switch:
    """The switch of a project, for any number of processes."""

    def __init__(self, root: Path) -> None:
        self._path = root / PATH
        self._lock = root / LOCK

    def read(self) -> Switched:
        """Return what is set. Nothing is raised for what is on disk."""
        try:
            values = self._values()
        except (OSError, ValueError, RecursionError) as error:
            why = error.strerror if isinstance(error, OSError) else "it does not hold what it should"
            return Switched("off", trouble=f"{PATH} cannot be used ({why}): the reaper is off until it is set anew")
        return _switched(values)

    def set(self, mode: Mode, *, by: str, reason: str, now: float) -> Switched:
        """Set the mode, and return what is set; that the reaper stopped itself stays. Raise InstarError.

        `by` and `reason` are for people, `now` is in seconds since 1970. What cannot be used is replaced.
        """
        if mode not in MODES:
            raise InstarError(f"the mode of the reaper is {', '.join(MODES)}, and not {mode!r}")
        return self._change({"mode": mode, "at": iso(now), "by": by, "reason": reason})

    def auto_disable(self, cause: str, *, now: float) -> Switched:
        """Have nobody parked any more, for this cause; the first one stays. Raise InstarError."""
        return self._change({}, {"at": iso(now), "cause": cause or "it is not known"})

    def clear(self) -> Switched:
        """Forget that the reaper stopped itself. Raise InstarError."""
        return self._change({}, forget=True)

    def _change(
        self, changes: dict[str, Any], disabled: dict[str, str] | None = None, *, forget: bool = False
    ) -> Switched:
        try:
            with alone(self._lock, LOCK_S, f"{LOCK} is held by another program"):
                values = self._kept() | changes
                if forget:
                    values.pop("autoDisabled", None)
                elif disabled and not _switched(values).is_auto_disabled:
                    values["autoDisabled"] = disabled
                replace_file(self._path, json.dumps(values, indent=2).encode("ascii") + b"\n")
        except OSError as error:
            raise InstarError(f"{PATH} cannot be written: {error.strerror}") from error
        return _switched(values)

    def _kept(self) -> dict[str, Any]:
        """Return what is set. Of a file that cannot be used nobody knows what it said: off."""
        try:
            return self._values()
        except (ValueError, RecursionError):
            return {"mode": "off"}

    def _values(self) -> dict[str, Any]:
        """Return the object in the file, {} where there is none. Raise OSError, and ValueError for what is unsound."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return {}
        with os.fdopen(fd, "rb") as file:
            values = json.loads(file.read(_BYTES))
        if not isinstance(values, dict) or not _is_sound(values):
            raise ValueError("it does not hold what it should")
        return values


def _is_sound(values: dict[str, Any]) -> bool:
    disabled = values.get("autoDisabled")
    is_disabled_sound = disabled is None or (isinstance(disabled, dict) and isinstance(disabled.get("cause"), str))
    return values.get("mode") in (*MODES, None) and is_disabled_sound


def _switched(values: dict[str, Any]) -> Switched:
    disabled = values.get("autoDisabled")
    disabled = {"at": "", "cause": ""} if disabled is None else {"at": "", **disabled}
    said = {key: values[key] for key in ("at", "by", "reason") if isinstance(values.get(key), str)}
    cause = disabled["cause"] or ("it is not known" if values.get("autoDisabled") is not None else "")
    return Switched(values.get("mode"), cause=cause, disabled_at=str(disabled["at"]), **said)
