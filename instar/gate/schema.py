"""The tables of the stop gate, and the ordered steps that bring any older database to them.

The tables that the gate shares with instar's have its names and columns, so that a database of instar's is taken over
as it is.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from instar.database import Step

METADATA: Final = sa.MetaData()
_Number: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # milliseconds do not fit four bytes


def _text(name: str, *, is_key: bool = False, is_needed: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=is_key, nullable=not (is_key or is_needed))


def _number(name: str, *, is_needed: bool = True) -> sa.Column[int]:
    return sa.Column(name, _Number, nullable=not is_needed)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, _Number, nullable=False, server_default="0")


SESSIONS: Final = sa.Table(
    "sessions", METADATA,
    _text("session_id", is_key=True), _text("agent_id", is_needed=True), _number("started_at"),
)  # fmt: skip
CONTINUES: Final = sa.Table(
    "session_continue_counts", METADATA,
    _text("session_id", is_key=True), _count("count"), _number("updated_at"),
)  # fmt: skip
STUCK: Final = sa.Table(
    "session_stuck_state", METADATA,
    _text("session_id", is_key=True), _number("last_ceiling_hit_at"),
)  # fmt: skip
EVENTS: Final = sa.Table(
    "events", METADATA,
    _text("event_id", is_key=True), _text("session_id", is_needed=True), _text("agent_id", is_needed=True),
    _number("ts"), _text("mode", is_needed=True), _text("decision"), _text("rule"), _text("invalid_kind"),
    _text("evidence_pointer_json"), _number("latency_ms"), _text("reason_preview", is_needed=True),
    # Those of instar's later versions stay empty.
    _number("self_deferral", is_needed=False), _text("confidence"), _number("agent_ownable", is_needed=False),
    _number("turn_ending", is_needed=False), _text("allow_class_rule"), _text("prompt_hash"), _text("surface"),
    _number("context_turns", is_needed=False),
    _text("signals_json"), _text("artifacts_summary_json"), _text("rationale"), _text("short_circuit"),
    _number("late", is_needed=False), _number("first_after_server_start", is_needed=False), _text("provider"),
)  # fmt: skip
ANNOTATIONS: Final = sa.Table(
    "annotations", METADATA,
    sa.Column("event_id", sa.Text, sa.ForeignKey("events.event_id"), primary_key=True),
    _text("operator", is_key=True), _text("verdict", is_needed=True), _text("rationale", is_needed=True),
    _number("dwell_ms"), sa.Column("created_at", _Number, primary_key=True, autoincrement=False),
    sa.CheckConstraint("verdict IN ('correct', 'incorrect', 'unclear')"),
)  # fmt: skip
AGGREGATE: Final = sa.Table(
    "agent_eval_aggregate", METADATA,
    _text("agent_id", is_key=True), _text("day_key", is_key=True), _count("triggered_count"), _count("shadow_count"),
    _count("continue_count"), _count("allow_count"), _count("escalate_count"), _count("failure_count"),
    _number("updated_at"),
)  # fmt: skip
AUDIT: Final = sa.Table(
    "gate_audit", METADATA,
    sa.Column("id", _Number, primary_key=True), _number("ts"), _text("kind", is_needed=True), _text("prior"),
    _text("next"), _text("operator"), _text("reason"),
)  # fmt: skip
COUNTERS: Final = sa.Table(
    "gate_counters", METADATA,
    _text("day_key", is_key=True), _text("name", is_key=True), _count("value"),
)  # fmt: skip

INDICES: Final = (
    sa.Index("idx_gate_events_session", EVENTS.c.session_id, EVENTS.c.ts.desc()),
    sa.Index("idx_gate_events_ts", EVENTS.c.ts.desc()),
    sa.Index("idx_gate_events_agent", EVENTS.c.agent_id, EVENTS.c.ts),
    sa.Index("idx_gate_events_outcome", EVENTS.c.mode, EVENTS.c.decision, EVENTS.c.invalid_kind),
    sa.Index("idx_gate_annotations_event", ANNOTATIONS.c.event_id),
)


def _make_tables(connection: sa.Connection) -> None:
    for table in METADATA.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))


def _add_columns(connection: sa.Connection) -> None:
    """Add what a table of another program's lacks. What must not be empty is in its tables, too."""
    for table in METADATA.sorted_tables:
        known = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
        for column in table.columns:
            if column.name not in known and column.nullable:
                kind = column.type.compile(connection.dialect)
                connection.execute(sa.text(f"ALTER TABLE {table.name} ADD COLUMN {column.name} {kind}"))


def _make_indices(connection: sa.Connection) -> None:
    for index in INDICES:
        index.create(connection, checkfirst=True)


STEPS: Final[tuple[Step, ...]] = (
    Step("1-tables", _make_tables),
    Step("2-columns", _add_columns),
    Step("3-indices", _make_indices),
)
