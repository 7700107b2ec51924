"""The command `instar-sessions`."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import click

from instar import __version__
from instar.cli import reaper, session_changes, session_tokens
from instar.cli import session_views as views
from instar.cli.options import json_option, project_option, refusals, respond
from instar.cli.session_look import Looks, known
from instar.cli.session_watch import watch
from instar.errors import InstarError
from instar.project import open_root
from instar.projects import known as known_projects
from instar.sessions import classifier, leases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.cli.session_look import Looked

EVERY_S = 2.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-sessions")
def main() -> None:
    """Show the coding-agent sessions of a project: what they do, and what keeps each from being parked.

    A session is on record since its first event after instar-migrate. Parking ends an idle one so that it can be taken
    up again: by hand with terminate, by itself with reaper.
    """


@main.command("list")
@project_option
@click.option("--all", "is_all", is_flag=True, help="Those of every project that instar-migrate set up.")
@click.option("--ended", is_flag=True, help="Those that have ended, too.")
@click.option("--watch", "is_watching", is_flag=True, help="Go on looking until q or Ctrl-C.")
@click.option("--every", type=click.FloatRange(0.2, 3600), metavar="SECONDS",
              help="How often --watch looks. [default: 2]")  # fmt: skip
@json_option
def list_(  # noqa: PLR0913 - an option each
    folder: str | None, *, is_all: bool, ended: bool, is_watching: bool, every: float | None, as_json: bool
) -> None:
    """List the sessions that run and those that are parked, those of the newest event first."""
    if is_all and folder:
        raise click.UsageError("--all lists every project: use it without --project")
    if is_watching and as_json:
        raise click.UsageError("--watch is for people: use it without --json")
    if every is not None and not is_watching:
        raise click.UsageError("--every belongs to --watch")
    with refusals():
        looks = Looks(known_projects(os.environ) if is_all else [open_root(folder)])
        if is_watching:
            watch(lambda: _shown(looks.once(), ended=ended), every or EVERY_S, with_project=is_all)
            return
        found = looks.settled()
        shown = _shown(found, ended=ended)
        values = [each.as_json() for each in shown]
        respond(values, lambda: views.print_list(shown, with_project=is_all), as_json=as_json)
    if not shown and not as_json:
        over = f"; {len(found)} have ended: --ended shows them" if found else ""
        click.echo(f"no session is on record as running{over}", err=True)


@main.command()
@click.argument("session_id", metavar="ID")
@project_option
@json_option
def show(session_id: str, folder: str | None, *, as_json: bool) -> None:
    """Show the whole record of a session; the beginning of its ID does."""
    with refusals():
        session = known(open_root(folder), session_id)
        held = leases.active(session.project, session.id, time.time())
    values = {**session.as_json(), "leases": [views.lease_json(each) for each in held]}
    respond(values, lambda: views.print_record(session.as_json(), held), as_json=as_json)


@main.command()
@click.argument("session_id", metavar="ID")
@project_option
@json_option
def explain(session_id: str, folder: str | None, *, as_json: bool) -> None:
    """Show what each gate says of a session, in their order; the first that keeps it decides."""
    with refusals():
        root = open_root(folder)
        session = known(root, session_id)
        if session.is_over:
            raise InstarError(f"{session.id} has ended: nothing keeps it; instar-sessions show tells how it ended")
        sight = Looks([root]).at(session)
        answers, verdict = classifier.explain(sight), classifier.judge(sight)
    gates = views.answers_json(answers, verdict)
    values = {"sessionId": session.id, "state": session.state, **verdict.as_json(), "gates": gates}
    respond(values, lambda: views.print_answers(session, answers, verdict), as_json=as_json)


def _shown(found: Sequence[Looked], *, ended: bool) -> list[Looked]:
    return [each for each in found if ended or each.is_parked or not each.session.is_over]


for _command in (*session_changes.COMMANDS, session_tokens.tokens, reaper.reaper):
    main.add_command(_command)


if __name__ == "__main__":
    main()
