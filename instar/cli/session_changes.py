"""What `instar-sessions` does to a session: it is leased, ended or taken up again."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli.listing import printable
from instar.cli.moments import duration_option, told
from instar.cli.options import json_option, project_option, refusals, respond, warn
from instar.cli.patience import patience
from instar.cli.session_look import recorded
from instar.cli.session_views import lease_json, mib, name
from instar.errors import InstarError
from instar.project import open_root
from instar.sessions import classifier, leases
from instar.sessions.assembly import Assembly
from instar.sessions.leases import Lease
from instar.sessions.parking import resumption

if TYPE_CHECKING:
    from instar.sessions.parking.resumption import Resumption
    from instar.sessions.registry import Session

_session: Final = click.argument("session_id", metavar="ID")


@click.command()
@_session
@click.argument("kind")
@project_option
@click.option("--for", "for_ms", required=True, metavar="TIME", callback=duration_option,
              help="For how long: 30m, 12h, 7d at most.")  # fmt: skip
@click.option("--note", default="", metavar="TEXT", help="Why, for those who ask what keeps the session.")
@json_option
def lease(  # noqa: PLR0913 - an option each
    session_id: str, kind: str, folder: str | None, *, for_ms: int, note: str, as_json: bool
) -> None:
    """Keep a session from being parked for a while; KIND names the reason in a word, as deploy or waiting-for-ci."""
    now = time.time()
    with refusals():
        session = recorded(open_root(folder), session_id)
        if session.is_over:
            raise InstarError(f"{session.id} has ended: a lease would keep nothing")
        taken = Lease(kind, note, now + for_ms / 1000)
        leases.take(session.project, session.id, taken, now)
    until = told(round((now + for_ms / 1000) * 1000))
    words = f"{name(session)} is not parked until {until} (lease:{kind})"
    respond({"sessionId": session.id, **lease_json(taken)}, words, as_json=as_json)


@click.command()
@_session
@click.argument("kind")
@project_option
@json_option
def release(session_id: str, kind: str, folder: str | None, *, as_json: bool) -> None:
    """Give a lease back before its time."""
    with refusals():
        session = recorded(open_root(folder), session_id)
        was_held = leases.release(session.project, session.id, kind)
    words = f"lease:{kind} is given back" if was_held else f"there was no lease:{kind}"
    values = {"sessionId": session.id, "kind": kind, "released": was_held}
    respond(values, f"{name(session)}: {words}", as_json=as_json)


@click.command()
@_session
@project_option
@click.option("--reason", required=True, metavar="TEXT", help="Why, for the record and its pane.")
@json_option
def terminate(session_id: str, folder: str | None, *, reason: str, as_json: bool) -> None:
    """Park a session that is idle: end it, and tell how it is taken up again.

    It is kept where anything shows it at work, or where nothing proves that it can come back.
    """
    if not reason.strip():
        raise click.UsageError("--reason needs a reason")
    with refusals():
        session = recorded(open_root(folder), session_id)
        with patience("looking at the session twice, and parking it"):
            result = Assembly(session.project).terminate(session.id, reason)
    _tell_end(session, result, "parked", as_json=as_json)


@click.command()
@_session
@project_option
@click.option("--force", is_flag=True, help="Also one that the configuration protects.")
@json_option
def kill(session_id: str, folder: str | None, *, force: bool, as_json: bool) -> None:
    """End a session, whatever it is doing: what it has not written down is lost."""
    with refusals():
        session = recorded(open_root(folder), session_id)
        assembly = Assembly(session.project)
        if any(classifier.itself(sight) for sight in assembly.sights([session])):
            raise InstarError("this command runs within that session: end it from elsewhere")
        with patience("ending the session"):
            result = assembly.kill(session.id, force=force)
    _tell_end(session, result, "killed", as_json=as_json)


@click.command()
@_session
@project_option
@click.option("--print", "is_print", is_flag=True, help="Only tell the command.")
@json_option
def resume(session_id: str, folder: str | None, *, is_print: bool, as_json: bool) -> None:
    """Take a session up again here: run its client's own command for it, in its folder."""
    with refusals():
        session = recorded(open_root(folder), session_id)
        found = _proven(session)
        if as_json or is_print:
            values = {"sessionId": session.id, "state": session.state, **found.as_json(), "text": found.text}
            respond(values, found.text, as_json=as_json)
            if not session.is_over:
                warn(f"{session.id} {_lives(session)}")
            return
        if not session.is_over:
            raise InstarError(f"{session.id} {_lives(session)}: two of it would write one conversation")
        _run(found)


COMMANDS: Final = (lease, release, terminate, kill, resume)


def _proven(session: Session) -> Resumption:
    try:
        return resumption.proven({**session.record, "id": session.id})
    except resumption.Unresumable as error:
        raise InstarError(f"{session.id} cannot be taken up again: {error}") from error


def _lives(session: Session) -> str:
    agent = session.record.get("agent")
    pid = f", process {agent.get('pid')}" if isinstance(agent, dict) else ""
    return {"running": f"runs{pid}", "reaping": f"is being parked{pid}"}.get(session.state, "may still run")


def _run(found: Resumption) -> None:
    """Become the client. Raise InstarError or OSError where that cannot be."""
    program = shutil.which(found.argv[0])
    if program is None:
        raise InstarError(f"{found.argv[0]} is not on PATH; it would be: {found.text}")
    os.chdir(found.cwd)
    os.execv(program, found.argv)  # noqa: S606 - no shell is wanted


def _tell_end(session: Session, result: dict[str, Any], word: str, *, as_json: bool) -> None:
    """Tell how a session was ended, or that it was not: then the status is 1, but for one that has ended before."""
    has_ended = str(result["skipped"]).startswith("already-")
    if as_json:
        click.echo(json.dumps(result, indent=2))
        raise click.exceptions.Exit(0 if result["terminated"] or has_ended else 1)
    if has_ended:
        click.echo(f"{name(session)} has ended already")
        return
    if not result["terminated"]:
        hint = {"protected": "; --force ends it" if word == "killed" else "", "not-found": ""}
        more = hint.get(result["skipped"], f"; instar-sessions explain {session.id[:8]} shows more")
        raise click.ClickException(printable(f"{session.id} is kept by {result['skipped']}: {result['why']}{more}"))
    how = " (it had to be killed)" if result.get("forced") and word == "parked" else ""
    freed = f", {mib(result.get('freed'))} freed" if result.get("freed") else ""
    click.echo(printable(f"{name(session)} is {word}{how}{freed}"))
    if result.get("resume"):
        click.echo(printable(f"to take it up again: {result['resume']}"))
    else:
        warn("nothing proves that it can be taken up again")
    for each in result.get("unfinished") or ():
        warn(f"not done yet, the next end of a session does it: {each}")
