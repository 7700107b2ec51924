"""The records of the sessions of a project: one JSON object a file, named by the session id, for its owner's eyes only.

Every change is a whole read, change and replace under one lock; keys that are not ours survive. A file that cannot be
read is copied before it is written anew.
"""

from __future__ import annotations

import os
import time

from hooks.common.files import make_folder, replace_file, sweep
from hooks.common.jsontext import dumps, loads
from hooks.common.lock import Lock
from hooks.common.trouble import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

RECORD_BYTES_AT_MOST = 1 << 20
ID_CHARACTERS_AT_MOST = 128


class Records:
    """The folder of the records. Its methods raise `Trouble` where a file cannot be used."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.folder = os.path.join(root, ".instar", "state", "sessions")

    def lock(self, seconds: float) -> Lock:
        """Return the lock that every change is made under."""
        return Lock(self.root, self.folder, seconds)

    def path(self, session: str) -> str:
        """Return the file of a session."""
        return os.path.join(self.folder, f"{session}.json")

    def load(self, session: str) -> dict[str, Any]:
        """Return the record of a session; ``{}`` when there is none, or none that can be read."""
        try:
            fd = os.open(self.path(session), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                record = loads(os.read(fd, RECORD_BYTES_AT_MOST).decode("utf-8"))
            finally:
                os.close(fd)
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def others(self, session: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each other session that has a record, with it."""
        for name in sorted(os.listdir(self.folder)):
            other, extension = os.path.splitext(name)
            if extension == ".json" and other != session and is_session_id(other):
                record = self.load(other)
                if record:
                    yield other, record

    def save(self, session: str, record: dict[str, Any]) -> None:
        """Replace the record of a session, one version on. Only under the lock."""
        version = record.get("version")
        counted = {**record, "version": version + 1 if isinstance(version, int) else 1}
        path = self.path(session)
        try:
            make_folder(self.root, self.folder)
            sweep(self.folder)
            if os.path.lexists(path) and not self.load(session):
                os.replace(path, f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            replace_file(path, dumps(counted, indent=2).encode("ascii"), 0o600)
        except OSError as error:
            raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error

    def remove(self, session: str) -> None:
        """Remove a record. Only under the lock."""
        try:
            os.unlink(self.path(session))
        except OSError as error:
            raise Trouble("unwritable", f"{self.path(session)} cannot be removed: {error.strerror}") from error


def is_session_id(text: str) -> bool:
    """Say whether a session id can name a file: letters, digits, `.`, `_` and `-`, not beginning with a dot."""
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return plain.isascii() and plain.isalnum() and text[0] != "." and len(text) <= ID_CHARACTERS_AT_MOST
