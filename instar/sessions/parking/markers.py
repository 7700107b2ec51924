"""What of a parking is on disk: the intent, before anything is ended, and the marker, once it is.

In `.instar/state/lifecycle`, a folder for nobody else: `<identity>.idle-reaped.pending` is the intent, and renamed to
`<identity>.idle-reaped` the marker. Both say the same: the moment, in ISO 8601, on the first line, and an object of
JSON on the second. `<identity>.lock` is held by whoever parks, wakes or stops the session.
"""

from __future__ import annotations

import glob
import json
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.files import replace_file, sync_folder, unblocked
from instar.locks import alone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FOLDER: Final = ".instar/state/lifecycle"
MARKER: Final = ".idle-reaped"
INTENT: Final = f"{MARKER}.pending"
LOCK: Final = ".lock"
BYTES_AT_MOST: Final = 1 << 16
_IDENTITY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,159}")


@dataclass(frozen=True)
class Park:
    """One parking, as its intent and its marker tell it.

    `agent` and `tmux` are the stamps of what was judged. `resume` is `{argv, cwd}`, None where nothing proves that the
    session can be taken up. `freed` is the memory in bytes that its processes had. `options` are those of the pane
    before it was told to stay, by their names; None where it was not.
    """

    id: str
    session_id: str
    at: str
    by: str
    reason: str
    status: str
    agent: dict[str, Any]
    tmux: dict[str, Any] | None = None
    transcript: str = ""
    resume: dict[str, Any] | None = None
    freed: int | None = None
    options: dict[str, str] | None = None


def identity_of(record: Mapping[str, Any]) -> str:
    """Return the name that markers and locks of a session go by. Raise InstarError where it can name no file."""
    named = record.get("identity")
    identity = named if isinstance(named, str) and named else f"{record.get('client', 'unknown')}-{record.get('id')}"
    if not _IDENTITY.fullmatch(identity):
        raise InstarError(f"{identity!r:.80} can name no file: letters, digits, '.', '_' and '-' can")
    return identity


class Markers:
    """The intents and markers of a project. Its methods raise InstarError where a file cannot be used."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    @contextmanager
    def lock(self, identity: str) -> Iterator[None]:
        """Be the only one of all processes that parks, wakes or stops a session. Raise BusyError, without waiting."""
        busy = f"{identity} is parked, woken or stopped by another process"
        with alone(self.folder / f"{identity}{LOCK}", 0, busy):
            yield

    def identities(self) -> list[str]:
        """Return all identities with an intent or a marker."""
        try:
            names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        except OSError as error:
            raise InstarError(f"{self.folder} cannot be listed: {error.strerror}") from error
        ends = (INTENT, MARKER)
        found = {name[: -len(end)] for name in names for end in ends if name.endswith(end)}
        return sorted(identity for identity in found if _IDENTITY.fullmatch(identity))

    def write_intent(self, identity: str, park: Park) -> None:
        """Say what is about to be ended, so that it outlives a power cut. Only under the lock, as all below."""
        path = self._path(identity, INTENT)
        said = f"{park.at}\n{json.dumps(asdict(park))}\n"
        try:
            for left in self.folder.glob(f".{glob.escape(path.name)}.*"):
                left.unlink()
            replace_file(path, said.encode("ascii"))
            sync_folder(self.folder)
        except OSError as error:
            raise InstarError(f"{path} cannot be written: {error.strerror}") from error

    def intent(self, identity: str) -> Park | None:
        """Return what was about to be ended; None where nothing was."""
        return _read(self._path(identity, INTENT))

    def marker(self, identity: str) -> Park | None:
        """Return what was ended and can be resumed; None where nothing was."""
        return _read(self._path(identity, MARKER))

    def promote(self, identity: str) -> None:
        """Make the intent the marker, in one step."""
        try:
            self._path(identity, INTENT).replace(self._path(identity, MARKER))
        except OSError as error:
            raise InstarError(f"the marker of {identity} cannot be made: {error.strerror}") from error
        with suppress(OSError):  # it is there for all to see
            sync_folder(self.folder)

    def drop_intent(self, identity: str) -> None:
        """Remove the intent, if there is one."""
        self._drop(self._path(identity, INTENT))

    def drop_marker(self, identity: str) -> None:
        """Remove the marker, if there is one."""
        self._drop(self._path(identity, MARKER))

    def _path(self, identity: str, end: str) -> Path:
        return self.folder / f"{identity}{end}"

    def _drop(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise InstarError(f"{path} cannot be removed: {error.strerror}") from error


def _read(path: Path) -> Park | None:
    try:
        with open(path, "rb", opener=unblocked) as file:
            first, _, second = file.read(BYTES_AT_MOST).partition(b"\n")
        said = json.loads(second) if second.strip() else {}  # a bare marker tells only when
        if not isinstance(said, dict):
            raise TypeError("no JSON object")  # noqa: TRY301 - it is told as all that cannot be read
        known = {field.name: said[field.name] for field in fields(Park) if field.name in said}
        return replace(Park("", "", first.decode("ascii"), "", "", "", {}), **known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InstarError(f"{path} cannot be read: {type(error).__name__}") from error
