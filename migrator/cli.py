"""The command `instar-migrate`."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import click

from instar import __version__, projects
from instar.errors import InstarError
from migrator import codex_status, report, upgrades
from migrator.changes import Note
from migrator.files import ChangedError, apply, remove_leftovers
from migrator.plain import plain
from migrator.plan import INSTALL, UNINSTALL, Plan, Step, plan
from migrator.project import Project, open_project
from migrator.record import read
from migrator.registration import CLIENTS, Client
from migrator.steps import record

if TYPE_CHECKING:
    from migrator.codex_status import CodexStatus

_project = click.option(
    "--project", "--dir", "folder", metavar="DIR", type=click.Path(exists=True, file_okay=False),
    help="The project [default: the one around this folder].",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@dataclass(frozen=True)
class Options:
    """What a migration was asked for."""

    dry_run: bool
    check: bool
    as_diff: bool
    uninstall: bool
    trust_codex: bool
    as_json: bool

    @property
    def writes(self) -> bool:
        """Whether anything is to be written at all."""
        return not (self.dry_run or self.check or self.as_diff)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the migration."""
        return UNINSTALL if self.uninstall else INSTALL


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-migrate")
@_project
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@click.option("--check", is_flag=True, help="The same, and exit 1 if something would change.")
@click.option("--diff", "as_diff", is_flag=True, help="Show it as a unified diff; write nothing.")
@click.option("--uninstall", is_flag=True, help="Take everything of ours out again; your own edits stay.")
@click.option(
    "--clients", multiple=True, type=click.Choice(CLIENTS), help="Only this client; remembered. [default: both]"
)
@click.option("--trust-codex", is_flag=True, help="Have Codex trust our hooks in this project.")
@click.option("--take-over", is_flag=True, help="Replace instar's own hooks where they hold our roles; remembered.")
@click.option("--repair", is_flag=True, help="Set a settings file up anew that cannot be edited; a copy is kept.")
@_json
@click.pass_context
def main(
    context: click.Context,
    /,
    folder: str | None,
    clients: tuple[Client, ...],
    *,
    take_over: bool,
    repair: bool,
    **flags: bool,
) -> None:
    """Set a project up for builds that hold their session, and bring it up to date after an upgrade.

    Writes the hooks below .instar/ and registers them in .claude/settings.json and .codex/hooks.json, where it touches
    nothing but its own entries. Run twice it changes nothing; --uninstall takes all of it out again.
    """
    if context.invoked_subcommand:
        return
    options = Options(**flags)
    if options.uninstall and (clients or take_over or repair):
        raise click.UsageError("--clients, --take-over and --repair say how to install: use them without --uninstall")
    try:
        project = open_project(folder, clients, takes_over=take_over, repairs=repair)
        planned, codex = _migrate(project, options)
    except InstarError as error:
        raise click.ClickException(plain(str(error))) from error
    except OSError as error:
        raise click.ClickException(plain(f"{error.filename or 'the working folder'}: {error.strerror}")) from error
    _show(project, planned, codex, options)
    sys.exit(1 if planned.noted("error") or (options.check and planned.changes) else 0)


@main.command()
@_project
@click.option("--fix", is_flag=True, help="Mend what can be mended without you.")
@_json
@click.pass_context
def doctor(context: click.Context, folder: str | None, *, fix: bool, as_json: bool) -> None:
    """Fire every registered hook as the clients would, and name what keeps it from doing its work."""
    from migrator.doctor import examine  # noqa: PLC0415 - a migration does not wait for it

    asked = context.parent.params if context.parent else {}  # the same options may stand before the command
    sys.exit(examine(folder or asked.get("folder"), fix=fix, as_json=as_json or asked.get("as_json", False)))


def _migrate(project: Project, options: Options) -> tuple[Plan, CodexStatus | None]:
    """Do what was asked for; return what was planned, and what Codex makes of it."""
    planned = _carry_out(project, options.steps) if options.writes else plan(project, options.steps)
    planned.notes.extend(_list_project(project, is_there=not options.uninstall, writes=options.writes))
    if "codex" not in project.clients or options.uninstall:
        return planned, None
    return planned, _settle_codex(project, planned, options)


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


def _list_project(project: Project, *, is_there: bool, writes: bool) -> list[Note]:
    """Keep the machine's list of projects true, as far as that can be; nothing of a migration hangs on it."""
    folder = projects.shared_root(os.environ) / "projects"
    try:
        if projects.is_enlisted(project.root, os.environ) == is_there:
            return []
        if writes:
            (projects.enlist if is_there else projects.strike)(project.root, os.environ)
    except OSError as error:
        return [Note("warning", f"cannot keep the list of projects in {folder}: {error.strerror}")]
    return [Note("also", f"{'put on' if is_there else 'taken off'} the list of projects in {folder}")]


def _settle_codex(project: Project, planned: Plan, options: Options) -> CodexStatus:
    """Grant trust if that was asked for, and return and remember what Codex makes of our hooks."""
    if options.writes and options.trust_codex:
        try:
            codex_status.trust(project, os.environ)
        except InstarError as error:
            planned.notes.append(Note("error", str(error)))
    current = replace(project, record=read(project.root))
    status = codex_status.look_up(current, os.environ)
    if options.writes:
        _carry_out(current, (partial(record.install, **codex_status.learned(current, status, os.environ)),))
    return status


def _show(project: Project, planned: Plan, codex: CodexStatus | None, options: Options) -> None:
    """Print what was planned or done, in the form that was asked for."""
    guides = [] if options.uninstall else upgrades.since(project.record.get("version"))
    if options.as_json:
        click.echo(report.for_programs(project, planned, codex, guides, is_done=options.writes))
    elif options.as_diff:
        for line in report.diff(planned):
            click.echo(line)
        for note in (note for note in planned.notes if note.level != "also"):
            click.echo(report.note_line(note), err=True)
    else:
        click.echo("\n".join(report.for_people(project, planned, is_done=options.writes)))
        if not (options.uninstall or options.check):
            report.print_guides(guides)
            click.echo("\n".join(report.next_steps(project, codex)))
