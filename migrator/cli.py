"""The command `instar-migrate`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from instar import __version__
from instar.errors import InstarError
from migrator import codex_status, report
from migrator.changes import Note
from migrator.files import ChangedError, apply, remove_leftovers
from migrator.plan import INSTALL, UNINSTALL, Plan, Step, plan
from migrator.project import Project, open_project
from migrator.record import read
from migrator.registration import CLIENTS, Client
from migrator.steps import record

if TYPE_CHECKING:
    from migrator.codex_status import CodexStatus


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-migrate")
@click.option(
    "--project", "--dir", "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False),
    help="The project [default: the one around this folder].",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option("--check", is_flag=True, help="The same, and exit 1 if something would change.")
@click.option("--diff", "as_diff", is_flag=True, help="Show it as a unified diff; write nothing.")
@click.option("--uninstall", is_flag=True, help="Take everything of ours out again; your own edits stay.")
@click.option(
    "--clients", multiple=True, type=click.Choice(CLIENTS), help="Only this client; remembered. [default: both]"
)
@click.option("--trust-codex", is_flag=True, help="Have Codex trust our hooks in this project.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def main(  # noqa: PLR0913 - a parameter is an option
    context: click.Context,
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
    if context.invoked_subcommand:
        return
    if uninstall and clients:
        raise click.UsageError("--clients says what stays installed: use it without --uninstall")
    is_done = not (dry_run or check or as_diff)
    steps = UNINSTALL if uninstall else INSTALL
    try:
        project = open_project(folder, clients)
        planned = _carry_out(project, steps) if is_done else plan(project, steps)
        codex = None
        if "codex" in project.clients and not uninstall:
            codex = _settle_codex(project, planned, grants=is_done and trust_codex, remembers=is_done)
    except InstarError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'the working folder'}: {error.strerror}") from error
    if as_json:
        click.echo(report.for_programs(project, planned, codex, is_done=is_done))
    elif as_diff:
        for line in report.diff(planned):
            click.echo(line)
        for note in planned.notes:
            click.echo(report.note_line(note), err=True)
    else:
        click.echo("\n".join(report.for_people(project, planned, is_done=is_done)))
        if not (uninstall or check):
            click.echo("\n".join(report.next_steps(project, codex)))
    sys.exit(1 if planned.noted("error") or (check and planned.changes) else 0)


@main.command()
@click.option(
    "--project", "--dir", "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False),
    help="The project [default: the one around this folder].",
)  # fmt: skip
@click.option("--fix", is_flag=True, help="Mend what can be mended without you.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(folder: str | None, *, fix: bool, as_json: bool) -> None:
    """Fire every registered hook as the clients would, and name what keeps it from doing its work."""
    from migrator.doctor import examine  # noqa: PLC0415 - a migration does not wait for it

    sys.exit(examine(folder, fix=fix, as_json=as_json))


def _carry_out(project: Project, steps: tuple[Step, ...], tries: int = 3) -> Plan:
    """Plan and apply; with nothing to do, nothing at all is touched.

    What changed meanwhile, mostly by another migration, is looked at once more.
    """
    planned = plan(replace(project, record=read(project.root)), steps)
    try:
        if planned.changes:
            apply(project.root, planned.changes)
        if steps is UNINSTALL:
            remove_leftovers(project.root)
    except ChangedError:
        if tries == 1:
            raise
        return _carry_out(project, steps, tries - 1)
    return planned


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
        _carry_out(current, (partial(record.install, **codex_status.learned(current, status, os.environ)),))
    return status
