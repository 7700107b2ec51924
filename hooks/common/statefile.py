"""The build's files: `build-state.json` and `audit.jsonl`, read and written by any number of processes at once.

Every change is a whole read, change and replace under one lock. The bytes are those the peer's own build-state.py
writes: indent 2, ASCII, no final newline; keys that are not ours survive every rewrite.
"""

from __future__ import annotations

import os

from hooks.common.clock import now_iso
from hooks.common.files import replace_file, sweep, write_all
from hooks.common.jsontext import dumps, loads
from hooks.common.lock import Lock
from hooks.common.trouble import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATE_BYTES_AT_MOST = 2 * 1024 * 1024  # some 10,000 steps; more than that is not a build's state


class Build:
    """The files of the one build a checkout can have. Its methods raise `Trouble` where a file cannot be used."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = os.path.join(root, ".instar", "state", "build")
        self.state_path = os.path.join(self.folder, "build-state.json")
        self.audit_path = os.path.join(self.folder, "audit.jsonl")
        self.unaudited: list[Trouble] = []

    def lock(self, seconds: float, name: str = ".lock") -> Lock:
        """Return the lock that every change of the files is made under."""
        return Lock(self.root, self.folder, seconds, name)

    def load(self) -> dict[str, Any] | None:
        """Return the state, and None when there is none."""
        try:
            fd = os.open(self.state_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                data = os.read(fd, STATE_BYTES_AT_MOST + 1)  # all of it: this is a regular file
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Trouble("state_corrupt", f"{self.state_path} cannot be read: {error.strerror}") from error
        return self.parse(data)

    def parse(self, data: bytes) -> dict[str, Any]:
        """Return the state in `data`."""
        if len(data) > STATE_BYTES_AT_MOST:
            raise Trouble("state_corrupt", f"{self.state_path} is larger than {STATE_BYTES_AT_MOST} bytes")
        try:
            state = loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Trouble("state_corrupt", f"{self.state_path} is not JSON: {error}") from error
        if not isinstance(state, dict):
            raise Trouble("state_corrupt", f"{self.state_path} holds no JSON object")
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the state durably. Only under the lock: no temporary file is in use then but this one."""
        data = dumps(state, indent=2).encode("ascii")
        if len(data) > STATE_BYTES_AT_MOST:  # it could not be read again
            raise Trouble("unwritable", f"{self.state_path} would be larger than {STATE_BYTES_AT_MOST} bytes")
        try:
            sweep(self.folder)
            sweep(os.path.join(self.folder, "history"))
            replace_file(self.state_path, data)
        except OSError as error:
            raise Trouble("unwritable", f"{self.state_path} cannot be written: {error.strerror}") from error

    def audit(self, event: str, **fields: Any) -> None:
        """Append one event, on something that is done. Only under the lock.

        Where it cannot be written, what was done stays done, and `unaudited` says so. A line torn by a killed writer
        stays a line of its own.
        """
        line = dumps({"event": event, "timestamp": now_iso(), **fields}).encode("ascii") + b"\n"
        try:
            fd = os.open(self.audit_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                write_all(fd, b"\n" + line if torn else line)
            finally:
                os.close(fd)
        except OSError as error:
            text = f"{self.audit_path} cannot be written: {error.strerror}"
            self.unaudited.append(Trouble("unaudited", text))
