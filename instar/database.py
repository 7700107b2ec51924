"""A database file: transactions on it, the steps that bring it to its tables, and what happens when it cannot be used.

All that is particular to SQLite is here; the tables and the questions to them are not.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import SQLAlchemyError

from instar.errors import InstarError
from instar.files import private_folder, set_aside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

BUSY_S: Final = 0.5  # for which a call waits for the threads, and then for the processes, before it

_STEPS_DONE: Final = sa.Table(
    "schema_steps", sa.MetaData(), sa.Column("name", sa.Text, primary_key=True),
    sa.Column("applied_at", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
)  # fmt: skip


class Step(NamedTuple):
    """One change of the schema. It finds a database at which all steps before it were done."""

    name: str
    apply: Callable[[sa.Connection], None]


class StoreError(InstarError):
    """The database could not be used: locked, full, read-only, damaged. Nothing of the call was written."""


class Database:
    """Transactions on one file, for the threads of one process; other processes may be at it.

    What stands in the way of a call is found anew at every call: a disk that has room again, or a lock that is gone,
    is enough for the next one.
    """

    def __init__(
        self,
        path: Path,
        *,
        is_read_only: bool = False,
        busy_s: float = BUSY_S,
        clock: Callable[[], float] = time.time,
        steps: Sequence[Step],
    ) -> None:
        self.path = path
        self.troubles: list[str] = []
        self._is_read_only = is_read_only
        self._busy_s = busy_s
        self._clock = clock
        self._steps = steps
        self._prepared: tuple[int, int] | None = None  # which file it was that was found sound
        self._turn = threading.Lock()
        # The pool makes as many connections as there are threads: none waits for another's.
        self._engine = sa.create_engine(
            "sqlite://", creator=self._connect, poolclass=sa.pool.QueuePool, pool_size=8, max_overflow=-1
        )
        sa.event.listen(self._engine, "begin", _begin)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a transaction that sees one state of the database. Raise StoreError."""
        with self._told():
            self._prepare()
            with self._engine.connect() as connection, connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a transaction that is alone at the database; it is written whole, or not at all. Raise StoreError."""
        with self._told(), self._in_turn():
            self._prepare_in_turn()
            with self._connection_to_write() as connection, connection.begin():
                yield connection

    def close(self) -> None:
        """Let go of the file; a call after this opens it again."""
        self._engine.dispose()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Have every way a database can fail be a StoreError."""
        try:
            yield
        except StoreError:
            raise
        except Timeout as error:
            raise StoreError(f"{self.path} is locked") from error
        except (SQLAlchemyError, sqlite3.Error, OSError, ValueError, OverflowError) as error:
            # What is wrong may be gone with the connections, and a file that was removed must be made again.
            self._engine.dispose()
            self._prepared = None
            raise StoreError(f"cannot use {self.path}: {getattr(error, 'orig', None) or error}") from error

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Let the threads write one after the other: SQLite has those that wait try at random."""
        if not self._turn.acquire(timeout=self._busy_s):
            raise StoreError(f"{self.path} is locked")
        try:
            yield
        finally:
            self._turn.release()

    def _prepare(self) -> None:
        if not self._is_read_only and not self._is_prepared():
            with self._in_turn():
                self._prepare_in_turn()

    def _prepare_in_turn(self) -> None:
        """Have the file be a sound database with our tables."""
        if self._is_read_only:
            raise StoreError(f"{self.path} is open for reading only")
        if self._is_prepared():
            return
        self._engine.dispose()  # what is connected may be a file that was removed
        private_folder(self.path.parent)
        with FileLock(f"{self.path}.lock", timeout=self._busy_s, mode=0o600):
            if _is_corrupt(self.path, self._busy_s):
                self._start_anew()
            _touch(self.path)
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode=WAL")  # where that is refused the old one serves as well
            self._migrate()
        self._prepared = _identity(self.path)

    def _is_prepared(self) -> bool:
        return self._prepared is not None and self._prepared == _identity(self.path)

    def _start_anew(self) -> None:
        aside = set_aside(self.path, int(self._clock()))
        if aside is None:
            raise StoreError(f"{self.path} is damaged, and cannot be moved away")
        for end in ("-wal", "-shm"):  # they belong to the damaged one: none of it may get into the new one
            left = self.path.with_name(self.path.name + end)
            if left.exists():
                left.rename(aside.with_name(aside.name + end))
        self.troubles.append(f"{self.path} was damaged: it is kept as {aside.name}, and a new one begun")

    def _migrate(self) -> None:
        with self._engine.connect() as connection:
            steps = _pending(connection, self._steps)
        for step in steps:
            with self._connection_to_write() as connection, connection.begin():
                _apply(connection, step, int(self._clock() * 1000))

    def _connection_to_write(self) -> sa.Connection:
        return self._engine.connect().execution_options(writes=True)

    def _connect(self) -> sqlite3.Connection:
        kind = "ro" if self._is_read_only else "rw"
        connection = sqlite3.connect(
            f"file:{quote(os.fspath(self.path))}?mode={kind}", uri=True, timeout=self._busy_s, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection


def _begin(connection: sa.Connection) -> None:
    """Begin a transaction: one that writes takes the lock at once, so that what it read cannot be outdated."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one at its place; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _touch(path: Path) -> None:
    """Have a file be there by itself, for its owner alone; SQLite gives the files beside it the same mode."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(fd, 0o600)
    finally:
        os.close(fd)


def _is_corrupt(path: Path, busy_s: float) -> bool:
    """Say whether a file is proven to be no sound database. Raise sqlite3.OperationalError where it cannot be told."""
    if not path.exists():
        return False
    try:
        with closing(sqlite3.connect(f"file:{quote(os.fspath(path))}?mode=rw", uri=True, timeout=busy_s)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",))
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:  # "not a database", "malformed"
        return True


def _pending(connection: sa.Connection, steps: Sequence[Step]) -> list[Step]:
    """Return the steps that a database has not seen, in their order."""
    if not sa.inspect(connection).has_table(_STEPS_DONE.name):
        return list(steps)
    done = set(connection.scalars(sa.select(_STEPS_DONE.c.name)))
    return [step for step in steps if step.name not in done]


def _apply(connection: sa.Connection, step: Step, now_ms: int) -> None:
    """Do one step and record it, both in the transaction of this connection."""
    step.apply(connection)
    connection.execute(sa.schema.CreateTable(_STEPS_DONE, if_not_exists=True))
    connection.execute(sa.insert(_STEPS_DONE).values(name=step.name, applied_at=now_ms))
