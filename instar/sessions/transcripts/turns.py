"""Whether a client is in a turn, by the structure of its transcript: what was said is not looked at.

Measured on Claude Code 2.1.197 and Codex CLI 0.169.0. A kind of record that is not known says nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from instar.sessions.transcripts import claude as claude_turns
from instar.sessions.transcripts import codex as codex_turns
from instar.sessions.transcripts.records import Unresolved, first_record, opened, parsed, tails
from instar.sessions.transcripts.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any

    from instar.sessions.transcripts.records import Source

    Reader = Callable[[Sequence[dict[str, Any]]], Turn | None]

_READERS: Final[dict[str, Reader]] = {"claude-code": claude_turns.read, "codex-cli": codex_turns.read}


def turn(client: str, path: Path | str) -> Turn:
    """Return the last turn of a transcript of "claude-code" or "codex-cli"; what cannot be told is "unknown"."""
    reader = _READERS.get(client)
    if reader is None:
        return Turn("unknown", f"the transcripts of {client or 'an unnamed client'} are not known")
    try:
        return _turn(reader, path)
    except Unresolved as error:
        return Turn("unknown", str(error))


def _turn(reader: Reader, path: Path | str) -> Turn:
    with opened(path) as source:
        for tail in tails(source):
            if tail.rest:
                return Turn("unknown", "a record is being written")
            objects = [parsed(record) for record in tail.records]
            if objects and objects[-1] is None:
                return Turn("unknown", "the last record cannot be read")
            read = reader([each for each in objects if each is not None])
            if read is not None:
                return read if read.version else replace(read, version=_first_version(source))
    return Turn("unknown", "the transcript tells of no turn")


def _first_version(source: Source) -> str:
    """Return the version that a file tells at its beginning only."""
    return codex_turns.version([parsed(first_record(source) or b"") or {}])
