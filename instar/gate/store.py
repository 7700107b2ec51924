"""What the stop gate remembers: evaluations, how often a session was sent on, what people thought of it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from instar.database import BUSY_S, Database, StoreError
from instar.gate.schema import AGGREGATE, ANNOTATIONS, AUDIT, CONTINUES, COUNTERS, EVENTS, SESSIONS, STEPS, STUCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from sqlalchemy.dialects import postgresql

    from instar.database import Step

__all__ = ["CEILING", "DWELL_MS", "Event", "Store", "StoreError", "day_of"]

CEILING: Final = "continue-ceiling"  # the short circuit of a session that was sent on as often as it may be
DWELL_MS: Final = 15_000  # for which a person must have seen an event before what they think of it counts


@dataclass(frozen=True)
class Event:
    """An evaluation, with the columns of `events`. Texts are redacted by who makes it.

    A row without a decision is one of a failure, which `invalid_kind` names.
    """

    event_id: str
    session_id: str
    ts: int  # milliseconds since 1970
    mode: str
    decision: str | None = None
    rule: str | None = None
    invalid_kind: str | None = None
    evidence_pointer_json: str | None = None
    latency_ms: int = 0
    reason_preview: str = ""
    agent_id: str = "unknown"
    signals_json: str | None = None
    artifacts_summary_json: str | None = None
    rationale: str | None = None
    short_circuit: str | None = None
    provider: str | None = None


class Store:
    """The memory of the gate. Each method is one transaction, and raises StoreError where it cannot be done."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        is_read_only: bool = False,
        busy_s: float = BUSY_S,
        clock: Callable[[], float] = time.time,
        steps: Sequence[Step] = STEPS,
    ) -> Store:
        """Open a database, making it where it is missing, and a new one where it is damaged; that never fails.

        `troubles` tells what was found. What cannot be used now is tried again at every call. Open for reading only,
        nothing is made and nothing moved.
        """
        database = Database(path, is_read_only=is_read_only, busy_s=busy_s, clock=clock, steps=steps)
        store = cls(database, clock)
        if not is_read_only:
            try:
                with database.reading():
                    pass
            except StoreError as error:
                database.troubles.append(str(error))
        return store

    @property
    def troubles(self) -> list[str]:
        """What was wrong with the database, a sentence each; whoever has told them may clear the list."""
        return self._database.troubles

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()

    def record(self, event: Event, ceiling: int | None = None) -> bool:
        """Record an evaluation with all that counts it; say whether it stands as it was given.

        With a ceiling, a continue is counted for its session. One more than the ceiling does not stand: it is recorded
        as `force_allow`, and the session as stuck. Exactly `ceiling` stand, however many threads and processes ask.
        """
        with self._database.writing() as connection:
            stands = event.decision != "continue" or ceiling is None or _count_continue(connection, event, ceiling)
            if not stands:
                event = replace(
                    event, decision="force_allow", rule=None, evidence_pointer_json=None, short_circuit=CEILING
                )
            connection.execute(sa.insert(EVENTS).values(asdict(event)))
            _aggregate(connection, event)
            if event.short_circuit:
                _add(connection, COUNTERS, {"day_key": day_of(event.ts), "name": event.short_circuit}, {"value": 1})
            if event.short_circuit == CEILING:
                _set(connection, STUCK, {"session_id": event.session_id}, {"last_ceiling_hit_at": event.ts})
        return stands

    def continues(self, session: str) -> int:
        """Return how often a session was sent on under a ceiling."""
        with self._database.reading() as connection:
            query = sa.select(CONTINUES.c.count).where(CONTINUES.c.session_id == session)
            return connection.scalar(query) or 0

    def session_started(self, session: str, at_ms: int, agent: str = "unknown") -> None:
        """Record when a session began; the first word on it stays."""
        with self._database.writing() as connection:
            row = {"session_id": session, "agent_id": agent, "started_at": at_ms}
            connection.execute(_insert(connection, SESSIONS).values(row).on_conflict_do_nothing())

    def session_start(self, session: str) -> int | None:
        """Return when a session began; None where that is not known."""
        with self._database.reading() as connection:
            return connection.scalar(sa.select(SESSIONS.c.started_at).where(SESSIONS.c.session_id == session))

    def count(self, name: str, day: str | None = None) -> None:
        """Count one thing of a name on a day, as `day_of` gives it, or today. `record` counts its own short circuit."""
        with self._database.writing() as connection:
            key = {"day_key": day or day_of(self._now_ms()), "name": name}
            _add(connection, COUNTERS, key, {"value": 1})

    def counters(self, since_day: str = "") -> dict[str, int]:
        """Return what was counted since a day, by name."""
        query = sa.select(COUNTERS.c.name, sa.func.sum(COUNTERS.c.value)).where(COUNTERS.c.day_key >= since_day)
        with self._database.reading() as connection:
            return {name: int(value) for name, value in connection.execute(query.group_by(COUNTERS.c.name))}

    def events(  # noqa: PLR0913 - each is a filter
        self,
        tail: int | None = 100,
        *,
        mode: str | None = None,
        outcome: str | None = None,
        since: int | None = None,
        session: str | None = None,
        rule: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return the newest evaluations, the newest first; all with a `tail` of None.

        `outcome` is a decision, or `fail:` and the kind of a failure; `since` is in milliseconds.
        """
        query = sa.select(EVENTS).limit(tail)
        if outcome is not None and outcome.startswith("fail:"):
            query = query.where(EVENTS.c.invalid_kind == outcome.removeprefix("fail:"))
        elif outcome is not None:
            query = query.where(EVENTS.c.decision == outcome)
        if since is not None:
            query = query.where(EVENTS.c.ts >= since)
        for column, wanted in ((EVENTS.c.mode, mode), (EVENTS.c.session_id, session), (EVENTS.c.rule, rule)):
            query = query if wanted is None else query.where(column == wanted)
        with self._database.reading() as connection:
            return _rows(connection.execute(query.order_by(EVENTS.c.ts.desc(), *_latest(connection))))

    def event(self, event_id: str) -> dict[str, Any] | None:
        """Return one evaluation; None where there is none of this id."""
        with self._database.reading() as connection:
            found = _rows(connection.execute(sa.select(EVENTS).where(EVENTS.c.event_id == event_id)))
        return found[0] if found else None

    def events_named(self, beginning: str, limit: int = 5) -> list[dict[str, Any]]:
        """Return evaluations whose id begins so."""
        query = sa.select(EVENTS).where(EVENTS.c.event_id.startswith(beginning, autoescape=True)).limit(limit)
        with self._database.reading() as connection:
            return _rows(connection.execute(query))

    def annotate(self, event_id: str, operator: str, verdict: str, rationale: str = "", dwell_ms: int = 0) -> bool:
        """Record what a person thinks of an evaluation; say whether it counts, which takes having looked at it.

        Their later word supersedes the earlier one. Raise LookupError for an event that is not on record.
        """
        with self._database.writing() as connection:
            if connection.scalar(sa.select(EVENTS.c.event_id).where(EVENTS.c.event_id == event_id)) is None:
                raise LookupError(event_id)
            earlier = sa.select(sa.func.max(ANNOTATIONS.c.created_at)).where(
                ANNOTATIONS.c.event_id == event_id, ANNOTATIONS.c.operator == operator
            )
            # Also where the clock went back, the later word has the later time.
            at_ms = max(self._now_ms(), (connection.scalar(earlier) or 0) + 1)
            row = {"event_id": event_id, "operator": operator, "verdict": verdict, "rationale": rationale}
            connection.execute(sa.insert(ANNOTATIONS).values(**row, dwell_ms=dwell_ms, created_at=at_ms))
        return dwell_ms >= DWELL_MS

    def annotations(self, event_id: str | None = None) -> list[dict[str, Any]]:
        """Return what people think of an evaluation, or of all; the oldest first."""
        query = sa.select(ANNOTATIONS).order_by(ANNOTATIONS.c.created_at)
        if event_id is not None:
            query = query.where(ANNOTATIONS.c.event_id == event_id)
        with self._database.reading() as connection:
            return _rows(connection.execute(query))

    def audit(self, kind: str, prior: str | None, next_: str | None, operator: str | None, reason: str | None) -> None:
        """Record who changed what of the gate, and why."""
        row = {"ts": self._now_ms(), "kind": kind, "prior": prior, "next": next_, "operator": operator}
        with self._database.writing() as connection:
            connection.execute(sa.insert(AUDIT).values(**row, reason=reason))

    def audits(self) -> list[dict[str, Any]]:
        """Return all changes, in the order in which they were made."""
        with self._database.reading() as connection:
            return _rows(connection.execute(sa.select(AUDIT).order_by(AUDIT.c.id)))

    def stuck(self) -> list[dict[str, Any]]:
        """Return the sessions that were sent on as often as they may be, the latest first."""
        with self._database.reading() as connection:
            return _rows(connection.execute(sa.select(STUCK).order_by(STUCK.c.last_ceiling_hit_at.desc())))

    def prune(self, before_ms: int) -> None:
        """Forget what is older; not the changes that were made, nor the sums of the days."""
        with self._database.writing() as connection:
            old = sa.select(EVENTS.c.event_id).where(EVENTS.c.ts < before_ms)
            connection.execute(sa.delete(ANNOTATIONS).where(ANNOTATIONS.c.event_id.in_(old)))
            for column in (
                EVENTS.c.ts, SESSIONS.c.started_at, CONTINUES.c.updated_at, STUCK.c.last_ceiling_hit_at,
            ):  # fmt: skip
                connection.execute(sa.delete(column.table).where(column < before_ms))
            connection.execute(sa.delete(COUNTERS).where(COUNTERS.c.day_key < day_of(before_ms)))

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def day_of(ms: int) -> str:
    """Return the day of a time, as things are counted by: the UTC date. Any number is of some day."""
    with suppress(ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(ms / 1000, timezone.utc).date().isoformat()
    return "0001-01-01" if ms < 0 else "9999-12-31"


def _count_continue(connection: sa.Connection, event: Event, ceiling: int) -> bool:
    """Count one more continue of a session, unless it has had as many as it may."""
    if ceiling < 1:
        return False
    row = {"session_id": event.session_id, "count": 1, "updated_at": event.ts}
    counted = _insert(connection, CONTINUES).values(row).on_conflict_do_update(
        index_elements=[CONTINUES.c.session_id],
        set_={"count": CONTINUES.c.count + 1, "updated_at": event.ts},
        where=CONTINUES.c.count < ceiling,
    )  # fmt: skip
    return connection.execute(counted).rowcount > 0


def _aggregate(connection: sa.Connection, event: Event) -> None:
    decision = "allow" if event.decision == "force_allow" else event.decision
    one_more = {"triggered_count": True, "shadow_count": event.mode == "shadow",
                "failure_count": event.invalid_kind is not None}  # fmt: skip
    one_more |= {f"{each}_count": decision == each for each in ("continue", "allow", "escalate")}
    key = {"agent_id": event.agent_id, "day_key": day_of(event.ts)}
    _add(connection, AGGREGATE, key, {name: int(is_due) for name, is_due in one_more.items()}, {"updated_at": event.ts})


def _add(
    connection: sa.Connection, table: sa.Table, key: dict[str, Any], numbers: dict[str, int],
    values: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Add numbers to those of a row, and set values in it; the row is made where it is missing."""
    row = _insert(connection, table).values(**key, **numbers, **(values or {}))
    more = {name: table.c[name] + number for name, number in numbers.items()}
    connection.execute(row.on_conflict_do_update(index_elements=list(key), set_={**more, **(values or {})}))


def _set(connection: sa.Connection, table: sa.Table, key: dict[str, Any], values: dict[str, Any]) -> None:
    row = _insert(connection, table).values(**key, **values)
    connection.execute(row.on_conflict_do_update(index_elements=list(key), set_=values))


def _insert(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """Return an insertion that can say what to do about a row that is there, in the words of the database."""
    if connection.dialect.name != "postgresql":
        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 - a sixth of a start, for nothing where it is SQLite

    return postgresql.insert(table)


def _latest(connection: sa.Connection) -> list[sa.ColumnElement[Any]]:
    """Return what orders rows of the same time by when they were written, where the database knows that."""
    return [sa.literal_column("events.rowid").desc()] if connection.dialect.name == "sqlite" else []


def _rows(result: Iterable[sa.Row[Any]]) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in result]  # noqa: SLF001 - the public name of it
