"""How a session comes back: the client's own command for it, and the proof that the client can take it up."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.transcripts.probe import belongs, is_begun

if TYPE_CHECKING:
    from collections.abc import Mapping

_COMMANDS: Final = {"claude-code": ("claude", "--resume"), "codex-cli": ("codex", "resume")}
_PROJECTS: Final = "projects"  # the folder in which Claude keeps the transcripts, by the folder it was started in
_NO_SLUG: Final = re.compile(r"[^A-Za-z0-9-]")


class Unresumable(Exception):  # noqa: N818 - it is an answer
    """Nothing proves that the session can be taken up again; the text says why, and names no path."""


@dataclass(frozen=True)
class Resumption:
    """The command of a client that takes a session up, and the folder to run it in."""

    argv: tuple[str, ...]
    cwd: str

    @property
    def text(self) -> str:
        """The command as a person types it, wherever they are."""
        return f"cd {shlex.quote(self.cwd)} && {self.line}"

    @property
    def line(self) -> str:
        """The command as a person types it in that folder."""
        return shlex.join(self.argv)

    def as_json(self) -> dict[str, Any]:
        """Return it as records and markers hold it."""
        return {"argv": list(self.argv), "cwd": self.cwd}


def command(record: Mapping[str, Any]) -> Resumption:
    """Return what takes a recorded session up. Raise Unresumable where the record does not say enough."""
    words, session_id, cwd = _COMMANDS.get(record.get("client", "")), record.get("id"), record.get("cwd")
    if words is None:
        raise Unresumable("its client is not known")
    if not isinstance(session_id, str) or not isinstance(cwd, str) or not cwd.startswith("/"):
        raise Unresumable("its record names no folder to start in")
    if session_id.startswith("-"):
        raise Unresumable("its id would be an option of its client")
    return Resumption((*words, session_id), _started_in(record, cwd))


def proven(record: Mapping[str, Any]) -> Resumption:
    """Return what takes a session up that has all it takes: a folder, and its own transcript with a conversation.

    Raise Unresumable where one of that is missing or cannot be told.
    """
    found = command(record)
    if not Path(found.cwd).is_dir():
        raise Unresumable("the folder it was started in is gone")
    place = record.get("transcriptPath")
    if not isinstance(place, str) or not place:
        raise Unresumable("its record names no transcript")
    path = Path(place)
    if not path.is_file():
        raise Unresumable("its transcript is missing")
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        raise Unresumable(f"its transcript cannot be read: {error.strerror}") from error
    if is_empty:
        raise Unresumable("its transcript is empty")
    if belongs(record["client"], path, record["id"]) is not True:
        raise Unresumable("its transcript does not show that it is its own")
    if is_begun(record["client"], path) is not True:
        raise Unresumable("its transcript shows no conversation that could go on")
    return found


def slug(folder: Path) -> str:
    """Return how Claude 2.1.197 names the folder of the transcripts of what was started in a folder."""
    return _NO_SLUG.sub("-", str(folder))


def _started_in(record: Mapping[str, Any], cwd: str) -> str:
    """Return the folder a session was started in; Claude finds a session only there, and its events follow `cd`."""
    place = record.get("transcriptPath")
    transcript = Path(place) if isinstance(place, str) and place else None
    if record.get("client") != "claude-code" or transcript is None or transcript.parent.parent.name != _PROJECTS:
        return cwd
    for folder in (Path(cwd), *Path(cwd).parents):
        if slug(folder) == transcript.parent.name:
            return str(folder)
    raise Unresumable("the folder it was started in cannot be told")
