"""How many tokens each session used, and when: a ledger of what the transcripts tell.

It lags behind the sessions, so it only says that a session used tokens, or that it is not known; that a session used
none is known only of a transcript that was read after its last change.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from instar.database import Database
from instar.sessions.tokens.tables import CALLS, CURSOR, FILES, STEPS, keep_most, put
from instar.sessions.tokens.usage import NEEDLES, used
from instar.sessions.transcripts.records import BYTES_AT_MOST, Unresolved, digest, opened, parsed
from instar.sessions.transcripts.rollouts import PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from instar.sessions.transcripts.records import Source

PLACE: Final = ".instar/server-data/tokens.db"
FILES_AT_MOST: Final = 500
AGE_S: Final = 30 * 86_400.0
HEAD: Final = 256
BYTES_A_SCAN: Final = 1 << 28  # of each file
BUSY_S: Final = 5.0
_BLOCK: Final = 1 << 23


@dataclass(frozen=True)
class Scanned:
    """What a scan came to: files that were read, files left for the next scan, and files that cannot be read."""

    files: int
    left: int
    unread: int


@dataclass(frozen=True)
class _File:
    path: str
    session: str
    client: str
    is_main: bool


class Ledger:
    """The ledger of a project. Each method may raise instar.database.StoreError, which is an InstarError."""

    def __init__(self, root: Path, *, busy_s: float = BUSY_S) -> None:
        self._database = Database(root / PLACE, busy_s=busy_s, steps=STEPS)

    @property
    def troubles(self) -> list[str]:
        """What was wrong with the database, a sentence each; whoever has told them may clear the list."""
        return self._database.troubles

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def scan(self, sessions: Mapping[str, tuple[str, Path | str]], now: float) -> Scanned:
        """Read what is new in the transcripts of sessions: their clients and paths by their ids.

        Of more than 500 files, the others are for the next scan. Those that were not written to for 30 days before
        `now`, seconds since 1970, are passed over.
        """
        found = [file for session, (client, path) in sessions.items() for file in _files(session, client, path)]
        files = sorted((file for file in found if _is_recent(file.path, now)), key=lambda file: file.path)
        due = self._due(files)
        read = sum(self._can_read(file, now) for file in due)
        return Scanned(read, len(files) - len(due), len(due) - read)

    def since(self, session: str, since_ms: int) -> dict[str, Any]:
        """Return what a session used since a moment, that included: `known`, `eventCount`, `tokens` and `lastTs`.

        Moments are in milliseconds since 1970; `lastTs` is None where there was nothing. With `known` False the session
        may have used more than is told.
        """
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(FILES).where(FILES.c.session == session)).all()
            query = sa.select(sa.func.count(), sa.func.sum(CALLS.c.tokens), sa.func.max(CALLS.c.ts))
            count, tokens, last = connection.execute(
                query.where(CALLS.c.session == session, CALLS.c.ts >= since_ms)
            ).one()
        return {"known": _is_known(rows), "eventCount": count, "tokens": tokens or 0, "lastTs": last}

    def totals(self) -> dict[str, dict[str, int]]:
        """Return what each session used in all, by its id: `eventCount`, `tokens` and `lastTs`."""
        query = sa.select(CALLS.c.session, sa.func.count(), sa.func.sum(CALLS.c.tokens), sa.func.max(CALLS.c.ts))
        with self._database.reading() as connection:
            return {
                session: {"eventCount": count, "tokens": tokens, "lastTs": last}
                for session, count, tokens, last in connection.execute(query.group_by(CALLS.c.session))
            }

    def _due(self, files: list[_File]) -> list[_File]:
        """Return the files to read now: those after the last one of the scan before, and on from the first."""
        if len(files) <= FILES_AT_MOST:
            return files
        with self._database.writing() as connection:
            last = connection.scalar(sa.select(CURSOR.c.value).where(CURSOR.c.name == "scan")) or ""
            ordered = [file for file in files if file.path > last] + [file for file in files if file.path <= last]
            due = ordered[:FILES_AT_MOST]
            put(connection, CURSOR, {"name": "scan", "value": due[-1].path})
        return due

    def _can_read(self, file: _File, now: float) -> bool:
        """Read on in a file, if that can be done."""
        try:
            self._read(file, now)
        except Unresolved:
            return False
        return True

    def _read(self, file: _File, now: float) -> None:
        """Read on in a file. Raise Unresolved."""
        with opened(file.path) as source:
            with self._database.reading() as connection:
                row = connection.execute(sa.select(FILES).where(FILES.c.path == file.path)).one_or_none()
            if row is not None and _is_as_read(row, source.status):
                return
            # One transaction a file: what another process does to the same one comes before or after it.
            with self._database.writing() as connection:
                row = connection.execute(sa.select(FILES).where(FILES.c.path == file.path)).one_or_none()
                goes_on = row is not None and _goes_on(row, source, file)
                running = row.running_total if row is not None and goes_on else 0
                if not goes_on and file.client == "codex-cli":
                    connection.execute(sa.delete(CALLS).where(CALLS.c.session == file.session))
                offset = row.offset if row is not None and goes_on else 0
                for line, end in _lines(source, offset, NEEDLES[file.client]):
                    offset = end
                    running = _record(connection, file, line, running)
                put(connection, FILES, {**_told(source), "path": file.path, "session": file.session,
                    "is_main": file.is_main, "offset": offset, "running_total": running,
                    "scanned_at": int(now * 1000)})  # fmt: skip


def _record(connection: sa.Connection, file: _File, line: bytes, running: int) -> int:
    """Record what a line tells; return how much the session has used in all, where its client counts that."""
    record = parsed(line) if line else None
    found = used(file.client, record, file.session) if record is not None else None
    if found is None:
        return running
    tokens = max(0, found.tokens - running) if found.is_running else found.tokens
    if tokens:
        keep_most(connection, file.session, found.call, found.ts, tokens)
    return max(running, found.tokens) if found.is_running else running


def _files(session: str, client: str, path: Path | str) -> Iterator[_File]:
    """Yield the transcript of a session, and those of its subagents."""
    if client not in NEEDLES:
        return
    yield _File(os.fspath(path), session, client, is_main=True)
    if client == "claude-code":
        for folder, _, names in os.walk(Path(path).with_suffix("") / "subagents"):
            for name in names:
                if name.endswith(".jsonl"):
                    yield _File(str(Path(folder) / name), session, client, is_main=False)


def _is_recent(path: str, now: float) -> bool:
    status = _status(path)
    return status is not None and status.st_mtime >= now - AGE_S


def _status(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def _is_as_read(row: sa.Row[Any], status: os.stat_result) -> bool:
    """Say whether a file was read to its end, and is as it was then."""
    seen = (row.dev, row.inode, row.size, row.offset, row.mtime_ns)
    now = (status.st_dev, status.st_ino, status.st_size, status.st_size, status.st_mtime_ns)
    return bool(seen == now)


def _is_known(rows: Sequence[sa.Row[Any]]) -> bool:
    """Say whether all that a session wrote was read: its files are as they were then, and there are no others."""
    main = max((row for row in rows if row.is_main), key=lambda row: row.scanned_at, default=None)
    if main is None:
        return False
    known = {row.path: row for row in rows}
    client = "codex-cli" if Path(main.path).name.startswith(PREFIX) else "claude-code"
    for file in _files(main.session, client, main.path):
        status = _status(file.path)
        row = known.get(file.path)
        if status is None or row is None or not _is_as_read(row, status):
            return False
    return True


def _goes_on(row: sa.Row[Any], source: Source, file: _File) -> bool:
    """Say whether a file is the one that was read, with more to it."""
    if (row.dev, row.inode, row.session) != (source.status.st_dev, source.status.st_ino, file.session):
        return False
    return bool(row.offset <= source.size and digest(source.read(0, min(row.head_size, source.size))) == row.head)


def _told(source: Source) -> dict[str, Any]:
    head = source.read(0, min(HEAD, source.size))
    return {
        "dev": source.status.st_dev, "inode": source.status.st_ino, "size": source.size,
        "mtime_ns": source.status.st_mtime_ns, "head": digest(head), "head_size": len(head),
    }  # fmt: skip


def _lines(source: Source, start: int, needle: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the whole lines that have a text in them, b"" for a run of others, each with where it ends."""
    rest = b""
    at = start
    end = min(source.size, start + BYTES_A_SCAN)
    for begin in range(start, end, _BLOCK):
        block = rest + source.read(begin, min(end, begin + _BLOCK))
        whole, newline, rest = block.rpartition(b"\n")
        if len(rest) > BYTES_AT_MOST:
            raise Unresolved("a record of the transcript is too big to be read")
        if newline:
            at += len(whole) + 1
            yield from ((line, at) for line in whole.split(b"\n") if needle in line)
            yield b"", at
