"""Rows of things for people: a table on a terminal, lines of tab-separated words in a pipe."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str] | None = None) -> None:
    """Print the rows below their columns. `styles` colours a row by the word in its first column."""
    plain = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in plain:
            sys.stdout.write("\t".join(row) + "\n")
        return
    if plain:
        Console().print(table(columns, plain, styles or {}))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], styles: dict[str, str]) -> Table:
    """Return the rows as a table; nothing in them steers a terminal, or is markup."""
    made = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        first, *others = [printable(cell) for cell in row]
        made.add_row(Text(first, style=styles.get(first, "")), *(Text(cell) for cell in others))
    return made


def printable(text: str) -> str:
    """Return a text as one line that cannot steer a terminal."""
    return "".join(each if each.isprintable() else " " for each in text).strip()


def age(moment: str, now: datetime | None = None) -> str:
    """Return how long ago an ISO 8601 time was, in its largest unit; "-" for what is none."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return "-"
    if then.tzinfo is None:
        return "-"
    seconds = max(0, int(((now or datetime.now(timezone.utc)) - then).total_seconds()))
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"
