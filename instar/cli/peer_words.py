"""What a person gives in a command: the project of the peers, and words, which `-` has read from standard input."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click
from rich.markup import escape

from instar import config
from instar.cli.options import warn
from instar.errors import InstarError
from instar.lifecycle.lifecycle import Lifecycle
from instar.lifecycle.profile import shown
from instar.project import open_root

if TYPE_CHECKING:
    from click import Context, Parameter

READ: Final = "-"
_BYTES_AT_MOST: Final = 4 * 2**20  # no client takes more in a message


def lifecycle(folder: str | None) -> Lifecycle:
    """Return the peers of a project, and warn of each fault in its configuration. Raise InstarError for no project."""
    life = Lifecycle(open_root(folder))
    with suppress(InstarError):  # what needs the configuration says so
        for fault in life.policy().faults:
            warn(f"{config.PATH}: {fault}; the default holds")
    return life


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
