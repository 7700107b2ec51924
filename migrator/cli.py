"""The command `instar-migrate`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from instar import __version__
from instar.errors import InstarError
from migrator import codex_status, report
from migrator.changes import Note
from migrator.files import apply
from migrator.plan import INSTALL, UNINSTALL, Plan, plan
from migrator.project import Project, open_project
from migrator.record import read
from migrator.registration import CLIENTS, Client
from migrator.steps import record

if TYPE_CHECKING:
    from migrator.codex_status import CodexStatus


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-migrate")
@click.option("--project", "--dir", "folder", metavar="DIR", help="The project [default: the one around this folder].")
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option("--check", is_flag=True, help="The same, and exit 1 if something would change.")
@click.option("--diff", "as_diff", is_flag=True, help="Show it as a unified diff; write nothing.")
@click.option("--uninstall", is_flag=True, help="Take everything of ours out again; your own edits stay.")
@click.option(
    "--clients", multiple=True, type=click.Choice(CLIENTS), help="Only this client; remembered. [default: both]"
)
@click.option("--trust-codex", is_flag=True, help="Have Codex trust our hooks in this project.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def main(  # noqa: PLR0913 - a parameter is an option
    folder: str | None,
    clients: tuple[Client, ...],
    *,
    dry_run: bool,
    check: bool,
    as_diff: bool,
    uninstall: bool,
    trust_codex: bool,
    as_json: bool,
) -> None:
    """Set a project up for builds that hold their session, and bring it up to date after an upgrade.

    Writes the hooks below .instar/ and registers them in .claude/settings.json and .codex/hooks.json, where it touches
    nothing but its own entries. Run twice it changes nothing; --uninstall takes all of it out again.
    """
    is_done = not (dry_run or check or as_diff)
    try:
        project = open_project(folder, clients)
        planned = plan(project, UNINSTALL if uninstall else INSTALL)
        if is_done and planned.changes:
            apply(project.root, planned.changes)
        codex = None
        if "codex" in project.clients and not uninstall:
            codex = _settle_codex(project, planned, grants=is_done and trust_codex, remembers=is_done)
    except InstarError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(report.for_programs(project, planned, codex, is_done=is_done))
    elif as_diff:
        click.echo("\n".join(report.diff(planned)))
    else:
        click.echo("\n".join(report.for_people(project, planned, is_done=is_done)))
        if not (uninstall or check):
            click.echo("\n".join(report.next_steps(project, codex)))
    sys.exit(1 if planned.noted("error") or (check and planned.changes) else 0)


def _settle_codex(project: Project, planned: Plan, *, grants: bool, remembers: bool) -> CodexStatus:
    """Grant trust if that was asked for, and return and remember what Codex makes of our hooks."""
    if grants:
        try:
            codex_status.trust(project, os.environ)
        except InstarError as error:
            planned.notes.append(Note("error", str(error)))
    current = Project(project.root, project.clients, read(project.root))
    status = codex_status.look_up(current, os.environ)
    if remembers:
        changes = list(record.install(current, **codex_status.learned(current, status, os.environ)))
        if changes:
            apply(project.root, changes)
    return status
