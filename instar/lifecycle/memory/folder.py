"""The files of the lifecycle of a peer: small, whole, for nobody else to read, and each change there for good.

They lie in `.instar/state/lifecycle`, beside those of parkings: `<identity>.<what>`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from instar.files import replace_file, set_aside, sync_folder, unblocked
from instar.locks import alone
from instar.sessions.parking.markers import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK: Final = ".files.lock"
_LOCKS: Final = ".lock"
LOCK_S: Final = 5.0
BYTES_AT_MOST: Final = 1 << 16
_IDENTITY: Final = re.compile(r"[A-Za-z0-9_-]{1,160}")  # no dot: `bob` is not to own the files of `bob.b`


class Folder:
    """The files of all identities of a project. What cannot be done raises InstarError, and is then as it was."""

    def __init__(self, root: Path) -> None:
        self.path = root / FOLDER

    def place(self, identity: str, end: str) -> Path:
        """Return where a file is, or would be. Raise InstarError for an identity that can name none."""
        if not _IDENTITY.fullmatch(identity):
            raise InstarError(f"{identity!r:.80} names no files of a peer: letters, digits, '_' and '-' do")
        return self.path / f"{identity}{end}"

    @contextmanager
    def lock(self, identity: str) -> Iterator[None]:
        """Keep everybody else from changing the files of an identity, for the moment that a change takes.

        It is not the lock of the peer itself, and may be taken below it.
        """
        with alone(self.place(identity, LOCK), LOCK_S):
            yield

    def has(self, identity: str, end: str) -> bool:
        """Say whether a file is there, whatever it is."""
        place = self.place(identity, end)
        with _told(place, "looked at"):
            try:
                place.lstat()
            except FileNotFoundError:
                return False
        return True

    def read(self, identity: str, end: str) -> bytes | None:
        """Return what a file holds; None where there is none."""
        place = self.place(identity, end)
        with _told(place, "read"):
            try:
                with open(place, "rb", opener=unblocked) as file:
                    found = file.read(BYTES_AT_MOST + 1)
            except FileNotFoundError:
                return None
        if len(found) > BYTES_AT_MOST:
            raise InstarError(f"{place} cannot be read: it is too large")
        return found

    def write(self, identity: str, end: str, data: bytes) -> None:
        """Make this what a file holds, so that it outlives a power cut. Only under the lock, as all below."""
        place = self.place(identity, end)
        with _told(place, "written"):
            self._sweep(f".{place.name}.")  # what killed writers left: under the lock nobody else's is in use
            replace_file(place, data)
            sync_folder(self.path)

    def drop(self, identity: str, end: str) -> None:
        """Remove a file, if it is there."""
        place = self.place(identity, end)
        with _told(place, "removed"):
            try:
                place.unlink()
            except FileNotFoundError:
                return
            sync_folder(self.path)

    def move(self, identity: str, end: str, to: str) -> bool:
        """Rename a file, over one that is there; say whether there was one to rename."""
        place = self.place(identity, end)
        with _told(place, "renamed"):
            try:
                place.replace(self.place(identity, to))
            except FileNotFoundError:
                return False
            sync_folder(self.path)
        return True

    def set_aside(self, identity: str, end: str, epoch: float) -> Path | None:
        """Rename a file that cannot be used to `<name>.corrupt-<epoch>`; None where that failed."""
        return set_aside(self.place(identity, end), int(epoch))

    def with_end(self, end: str) -> list[str]:
        """Return all identities that have such a file."""
        with _told(self.path, "listed"):
            names = [name[: -len(end)] for name in self._names() if name.endswith(end)]
        return sorted(name for name in names if _IDENTITY.fullmatch(name))

    def clear(self, identity: str) -> None:
        """Remove all files of an identity but its locks: they say nothing, and somebody may be waiting for one."""
        prefix = self.place(identity, ".").name
        with _told(self.path, "cleared"):
            self._sweep(prefix)
            self._sweep(f".{prefix}")
            if self.path.is_dir():
                sync_folder(self.path)

    def _sweep(self, prefix: str) -> None:
        for name in self._names():
            if name.startswith(prefix) and not name.endswith(_LOCKS):
                (self.path / name).unlink(missing_ok=True)

    def _names(self) -> list[str]:
        try:
            return [path.name for path in self.path.iterdir()]
        except FileNotFoundError:
            return []


@contextmanager
def _told(place: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InstarError(f"{place} cannot be {what}: {error.strerror}") from error
