"""The command `instar-sessions`."""

from __future__ import annotations

import json
import os

import click

from instar import __version__
from instar.cli.listing import age, print_rows, printable
from instar.cli.options import json_option, project_option, refusals
from instar.project import open_root
from instar.projects import known
from instar.sessions.processes import memory
from instar.sessions.registry import Session, find, sessions

STYLES = {"running": "green", "unproven": "yellow", "unreadable": "red", "gone": "red", "failed": "red"}
COLUMNS = ("state", "session", "client", "pane", "started", "last event", "memory", "prompt")
SHORT = 8  # of an id, which is a UUID
PROMPT_CHARACTERS = 60


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-sessions")
def main() -> None:
    """Show the coding-agent sessions that are on record: who they are, where they run, what they did last.

    A session is on record since its first event after instar-migrate; nothing here ends or changes one.
    """


@main.command("list")
@project_option
@click.option("--all", "is_all", is_flag=True, help="Those of every project that instar-migrate set up.")
@click.option("--ended", is_flag=True, help="Those that have ended, too.")
@json_option
def list_(folder: str | None, *, is_all: bool, ended: bool, as_json: bool) -> None:
    """List the sessions, those of the newest event first."""
    if is_all and folder:
        raise click.UsageError("--all lists every project: use it without --project")
    with refusals():
        roots = known(os.environ) if is_all else [open_root(folder)]
        found = [each for root in roots for each in sessions(root)]
    shown = [session for session in found if ended or not session.is_over]
    if as_json:
        click.echo(json.dumps([session.as_json() for session in shown], indent=2))
        return
    columns = (*COLUMNS, "project") if is_all else COLUMNS
    print_rows(columns, [_row(session, is_all=is_all) for session in shown], STYLES)
    if not shown:
        over = f"; {len(found)} have ended: --ended shows them" if found else ""
        click.echo(f"no session is on record as running{over}", err=True)


@main.command()
@click.argument("session_id", metavar="ID")
@project_option
@json_option
def show(session_id: str, folder: str | None, *, as_json: bool) -> None:
    """Show the whole record of a session; the beginning of its ID does."""
    with refusals():
        session = find(open_root(folder), session_id)
    if as_json:
        click.echo(json.dumps(session.as_json(), indent=2))
        return
    for key, value in session.as_json().items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} {each}" for name, each in value.items())
            click.echo(f"{key:<16} {printable(inner)}")
        else:
            click.echo(f"{key:<16} {printable(str(value))}")


def _row(session: Session, *, is_all: bool) -> list[str]:
    is_running = session.state == "running"
    used = memory(session.record["agent"]) if is_running else None
    tmux = session.record.get("tmux")
    pane = f"{tmux.get('session')} {tmux.get('pane')}" if isinstance(tmux, dict) else "-"
    row = [
        session.state,
        session.id[:SHORT],
        session.text("client") or "-",
        pane,
        age(session.text("startedAt")),
        f"{session.text('lastEvent', 'name') or '-'} {age(session.text('lastEvent', 'at'))}",
        f"{used / 2**20:.0f} MiB" if used is not None else "-",
        session.text("lastPrompt", "text")[:PROMPT_CHARACTERS],
    ]
    return [*row, str(session.project)] if is_all else row
