"""Which versions of the clients were seen both idle and at work here: only of these is a screen believed.

The versions that the patterns were recorded on are known from the start. Another one is, once its screen has agreed
with its transcript on being idle, and on being at work. `<shared folder>/session-clients.json` remembers when.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock, Timeout

from instar.files import private_folder, replace_file
from instar.sessions.clock import iso
from instar.sessions.screens import screen

if TYPE_CHECKING:
    from pathlib import Path

State = Literal["idle", "live"]

NAME: Final = "session-clients.json"
LOCK_S: Final = 1.0
VERSIONS_KEPT: Final = 50


class Calibration:
    """What is known of the clients' versions, read once. `shared` is the folder of what concerns all projects."""

    def __init__(self, shared: Path) -> None:
        self._path = shared / NAME
        self._seen = self._read()

    def is_known(self, client: str, version: str) -> bool:
        """Say whether the screens of a version can be trusted; never those of an unknown one."""
        if not version:
            return False
        seen = self._seen.get(_key(client, version), {})
        return version in screen.measured(client) or {"idle", "live"} <= set(seen)

    def note(self, client: str, version: str, state: State, wall: float) -> None:
        """Remember that a version showed a state that its transcript agrees with. What cannot be written is not."""
        key = _key(client, version)
        if not version or version in screen.measured(client) or state in self._seen.get(key, {}):
            return
        try:
            private_folder(self._path.parent)
            with FileLock(self._path.with_name(f".{NAME}.lock"), timeout=LOCK_S):
                seen = self._read()
                seen.setdefault(key, {})[state] = iso(wall)
                newest = dict(sorted(seen.items(), key=lambda item: max(item[1].values()))[-VERSIONS_KEPT:])
                replace_file(self._path, json.dumps(newest, indent=2).encode("ascii") + b"\n")
        except (OSError, Timeout):
            return  # it will be seen again
        self._seen = newest

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            said: Any = json.loads(self._path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        entries = said.items() if isinstance(said, dict) else ()
        return {key: _texts(value) for key, value in entries if isinstance(value, dict) and _texts(value)}


def _key(client: str, version: str) -> str:
    return f"{client} {version}"


def _texts(value: dict[Any, Any]) -> dict[str, str]:
    return {key: each for key, each in value.items() if isinstance(each, str)}
