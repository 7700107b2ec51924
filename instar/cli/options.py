"""What all commands have in common: the options for the project and for JSON, and how they refuse."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterator

project_option = click.option(
    "--project", "--dir", "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False),
    help="The project [default: the one around this folder].",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@contextmanager
def refusals() -> Iterator[None]:
    """End the command with one sentence and status 1 where something cannot be done."""
    try:
        yield
    except InstarError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the working folder'}: {error.strerror}") from error
