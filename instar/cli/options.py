"""What all commands have in common: options, how they warn and refuse, and who is at work."""

from __future__ import annotations

import getpass
import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from instar.cli.listing import printable
from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

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


def respond(values: object, words: str | Callable[[], object], *, as_json: bool) -> None:
    """Print what came of a command: `values` as JSON for a program, or for people a line, or what `words` prints."""
    if as_json:
        click.echo(json.dumps(values, indent=2))
    elif isinstance(words, str):
        click.echo(printable(words))
    else:
        words()


def warn(text: str) -> None:
    """Tell something beside what was asked for."""
    click.echo(printable(text), err=True)


def default_operator(root: Path) -> str:
    """Return who is at work: the e-mail address of git, else the login."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(root), "config", "user.email"], capture_output=True, timeout=5, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        found = asked.stdout.decode("utf-8", "replace").strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    if found:
        return found
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name
        return "unknown"
