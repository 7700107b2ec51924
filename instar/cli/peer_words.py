"""Words that a person gives in a command, or has it read from standard input with `-`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import click
from rich.markup import escape

from instar.lifecycle.profile import shown

if TYPE_CHECKING:
    from click import Context, Parameter

READ: Final = "-"
_BYTES_AT_MOST: Final = 4 * 2**20  # no client takes more in a message


def words_option(_context: Context, _parameter: Parameter, value: str) -> str:
    """Return the words as they were given; those of standard input without the last line's end."""
    return value if value != READ else _read()


def fit(name: str) -> str:
    """Return what is to be a name as it may stand in what shows that something is under way."""
    return escape(shown(name))


def _read() -> str:
    if sys.stdin is None:
        raise click.BadParameter("there is no standard input to read")
    text = sys.stdin.buffer.read(_BYTES_AT_MOST + 1)
    if len(text) > _BYTES_AT_MOST:
        raise click.BadParameter(f"it is longer than {_BYTES_AT_MOST} bytes: send the path of a file")
    try:
        return text.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise click.BadParameter("what is read is no UTF-8") from error
