"""What a session's transcript shows without its words being read: that it grew, was touched, or is another file.

Of a file, its beginning and its end are read, however big it is.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.sessions.clock import epoch
from instar.sessions.transcripts import planned, rollouts
from instar.sessions.transcripts.records import Source, Tail, Unresolved, digest, first_record, opened, parsed, tails

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HEAD", "Change", "Probe", "Unresolved", "belongs", "children_at", "delta", "is_begun", "probe", "scheduled"]

Change = Literal["static", "touched", "grew", "unknown"]

HEAD: Final = 256  # bytes that tell a file from another one
DEPTH: Final = 4
CHILDREN_AT_MOST: Final = 20_000
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float | None": (float, int, type(None)),
}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """A transcript at one moment. Times in seconds since 1970, but for `mtime_ns`.

    `dev` and `inode` are those of the file itself, wherever links led to. `head` and `last` are digests: of the first
    256 bytes, and of the last whole record, "" where there is none. `last_at` is the newest time that a record of the
    end tells; None where none does. `is_whole` tells that nothing follows the last whole record.
    """

    path: str
    dev: int
    inode: int
    size: int
    mtime_ns: int
    head: str
    last: str
    last_at: float | None
    is_whole: bool

    def as_json(self) -> dict[str, Any]:
        """Return it for a file of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> Probe | None:
        """Return what `as_json` gave; None for anything else."""
        if not isinstance(value, dict) or value.keys() != {each.name for each in fields(cls)}:
            return None
        fits = all(_fits(str(each.type), value[each.name]) for each in fields(cls))
        return cls(**value) if fits else None


def probe(path: Path | str) -> Probe:
    """Look at a transcript. Raise Unresolved."""
    with opened(path) as source:
        if not source.size:
            raise Unresolved("the transcript is empty")
        tail = next(tails(source))
        times = [at for record in tail.records if (at := epoch((parsed(record) or {}).get("timestamp"))) is not None]
        return Probe(
            path=os.fspath(path),
            dev=source.status.st_dev,
            inode=source.status.st_ino,
            size=source.size,
            mtime_ns=source.status.st_mtime_ns,
            head=digest(source.read(0, min(HEAD, source.size))),
            last=digest(tail.records[-1]) if tail.records else "",
            last_at=max(times, default=None),
            is_whole=not tail.rest,
        )


def delta(before: Probe | None, now: Probe | None) -> tuple[Change, str]:
    """Return what happened to a transcript between two looks, and the same in words; None is a look that failed."""
    if before is None or now is None:
        return "unknown", "the transcript could not be looked at"
    if (fault := _fault(before, now)) is not None:
        return "unknown", fault
    if now.size > before.size:
        return "grew", "the transcript grew" if now.is_whole else "a record is being written to the transcript"
    if (now.last, now.is_whole) != (before.last, before.is_whole):
        return "unknown", "the transcript was changed in place"
    if now.mtime_ns > before.mtime_ns:
        return "touched", "the transcript was saved with nothing new"
    return "static", "the transcript stayed as it was"


def children_at(path: Path | str) -> float | None:
    """Return when a subagent of a session last wrote, in seconds since 1970; None where it has none.

    Those of Claude Code write below a folder named for the transcript, those of the Codex CLI write rollouts of their
    own, which count where they are newer than the session's. Raise Unresolved where that cannot be told.
    """
    transcript = Path(path)
    if transcript.name.startswith(rollouts.PREFIX):
        return rollouts.children_at(transcript)
    newest = None
    for number, entry in enumerate(_below(transcript.with_suffix("") / "subagents", DEPTH)):
        if number >= CHILDREN_AT_MOST:
            raise Unresolved("the session has too many subagents to look at")
        newest = max(newest or 0.0, entry)
    return newest


def belongs(client: str, path: Path | str, session_id: str) -> bool | None:
    """Say whether a transcript is that of a session, by the id in it; None where that cannot be told."""
    try:
        with opened(path) as source:
            if client == "codex-cli":
                found = rollouts.thread_id(parsed(first_record(source) or b""))
            else:
                found = _session_id(source) if client == "claude-code" else None
    except Unresolved:
        return None
    return None if found is None else found == session_id


def is_begun(client: str, path: Path | str) -> bool | None:
    """Say whether a transcript holds anything of a conversation; None where that cannot be told.

    Claude 2.1.197 writes its mode and the last prompt before any of that, and takes up no session of these alone. The
    Codex CLI 0.169.0 begins a rollout with the first prompt.
    """
    if client == "codex-cli":
        return True
    try:
        with opened(path) as source:
            return any(_is_said(parsed(record) or {}) for tail in tails(source) for record in reversed(tail.records))
    except Unresolved:
        return None


def scheduled(client: str, path: Path | str, since: float | None, now: float) -> str | None:
    """Return what a session has planned to wake up for, in words for people; None where there is nothing.

    `since` is when the agent's process began, `now` is this moment, both in seconds since 1970. The Codex CLI 0.169.0
    gives its model no way to plan. Raise Unresolved where it cannot be told.
    """
    if client == "codex-cli":
        return None
    if client != "claude-code":
        raise Unresolved("the transcripts of this client are not known")
    return planned.pending(Path(path), since, now)


def _fits(kind: str, value: object) -> bool:
    return isinstance(value, _KINDS[kind]) and (kind == "bool" or not isinstance(value, bool))


def _fault(before: Probe, now: Probe) -> str | None:
    if now.path != before.path:
        return "the session writes to another transcript"
    if (now.dev, now.inode) != (before.dev, before.inode):
        return "another file took the place of the transcript"
    # What was shorter than a head had another one, and may have kept its beginning.
    if now.size < before.size or (before.size >= HEAD and now.head != before.head):
        return "the transcript was written anew"
    if now.mtime_ns < before.mtime_ns:
        return "the transcript is older than it was"
    return None


def _below(folder: Path, depth: int) -> Iterator[float]:
    """Yield when each file below a folder was last written. Raise Unresolved."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unresolved(f"the subagents of the session cannot be looked at: {error.strerror}") from error
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            if depth > 1:
                yield from _below(Path(entry.path), depth - 1)
        elif entry.is_file(follow_symlinks=False) and (at := _written(entry)) is not None:
            yield at


def _written(entry: os.DirEntry[str]) -> float | None:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return None  # it is gone


def _is_said(record: dict[str, Any]) -> bool:
    return "uuid" in record or record.get("type") in ("user", "assistant")


def _session_id(source: Source) -> str | None:
    tail: Tail
    for tail in tails(source):
        for record in reversed(tail.records):
            said = (parsed(record) or {}).get("sessionId")
            if isinstance(said, str):
                return said
    return None
