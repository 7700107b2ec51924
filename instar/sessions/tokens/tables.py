"""The tables of the token ledger, and how rows get into them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from instar.database import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA: Final = sa.MetaData()

# How far each file is read: `size` and `mtime_ns` are those at the last read, `offset` is where the next one begins.
FILES: Final = sa.Table(
    "files", METADATA,
    sa.Column("path", sa.Text, primary_key=True), sa.Column("session", sa.Text, nullable=False, index=True),
    sa.Column("is_main", sa.Boolean, nullable=False), sa.Column("dev", sa.Integer, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False), sa.Column("head", sa.Text, nullable=False),
    sa.Column("head_size", sa.Integer, nullable=False), sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False), sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("running_total", sa.Integer, nullable=False), sa.Column("scanned_at", sa.Integer, nullable=False),
)  # fmt: skip
# One row for each call of a model: `ts` is in milliseconds since 1970.
CALLS: Final = sa.Table(
    "calls", METADATA,
    sa.Column("session", sa.Text, primary_key=True), sa.Column("call", sa.Text, primary_key=True),
    sa.Column("ts", sa.Integer, nullable=False, index=True), sa.Column("tokens", sa.Integer, nullable=False),
)  # fmt: skip
CURSOR: Final = sa.Table(
    "cursor", METADATA,
    sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False),
)  # fmt: skip

STEPS: Final = (Step("1-tables", METADATA.create_all),)


def keep_most(connection: sa.Connection, session: str, call: str, ts: int, tokens: int) -> None:
    """Record a call, or the most that was seen of it: an answer is written several times while it grows."""
    row = sqlite.insert(CALLS).values(session=session, call=call, ts=ts, tokens=tokens)
    most = {
        "ts": sa.func.max(CALLS.c.ts, row.excluded.ts),
        "tokens": sa.func.max(CALLS.c.tokens, row.excluded.tokens),
    }
    connection.execute(row.on_conflict_do_update(index_elements=["session", "call"], set_=most))


def put(connection: sa.Connection, table: sa.Table, values: Mapping[str, Any]) -> None:
    """Have a row be there as it is given."""
    keys = [column.name for column in table.primary_key]
    row = sqlite.insert(table).values(**values)
    others = {name: value for name, value in values.items() if name not in keys}
    connection.execute(row.on_conflict_do_update(index_elements=keys, set_=others))
