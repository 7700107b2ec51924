"""The command `instar-gate`."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any, Final, get_args

import click

from instar import __version__
from instar.cli import gate_views as views
from instar.cli.gate_access import Access
from instar.cli.gate_change import Change, change_mode
from instar.cli.gate_review import review as hold_review
from instar.cli.gate_review import waiting
from instar.cli.moments import duration_option, moment_option, now_ms
from instar.cli.options import default_operator, json_option, project_option, refusals, respond, warn
from instar.errors import InstarError
from instar.gate.mode import FOLDER, GATE_ON, Mode
from instar.project import open_root

WEEK_MS: Final = 7 * 86_400_000
LONGEST_TAIL: Final = 1000

_mode = click.Choice(get_args(Mode))
_operator = click.option("--operator", metavar="NAME", help="Who does this [default: the e-mail address of git].")
_reason = click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
_force = click.option("--force", metavar="REASON", help="Enforce although not enough was seen; the reason is kept.")
_check = click.option(
    "--check-thresholds", "is_check", is_flag=True, help="Only show what enforce asks for; 1 if not met."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="instar-gate")
def main() -> None:
    """Watch and steer the stop gate: which stops of sessions it would hold, and whether it may.

    Without a running server it works on the project's files, and says so.
    """


@main.command()
@project_option
@json_option
@click.pass_context
def status(context: click.Context, folder: str | None, *, as_json: bool) -> None:
    """Show how the gate stands. The exit status is 1 where no server runs: then nothing is judged."""
    with refusals():
        access = Access(open_root(folder))
        values = _status(access)
    respond(values, lambda: views.print_status(values), as_json=as_json)
    context.exit(0 if values["server"]["running"] else 1)


@main.command()
@click.argument("mode", type=_mode)
@project_option
@_check
@_force
@_reason
@_operator
@json_option
def mode(mode: Mode, folder: str | None, **options: Any) -> None:  # noqa: ANN401 - what click was told above
    """Turn the gate off, have it only look (shadow), or have it hold sessions (enforce)."""
    change_mode(folder, mode, Change(**options))


@main.command("set")
@click.argument("subject", type=click.Choice(["unjustified-stop"]))
@click.option("--mode", type=_mode, help="The mode to set.")
@project_option
@_check
@_force
@_reason
@_operator
@json_option
def set_(subject: str, mode: Mode | None, folder: str | None, **options: Any) -> None:  # noqa: ANN401, ARG001 - as above
    """Set the mode of the gate, as `instar-gate mode` does."""
    if mode is None and not options["is_check"]:
        raise click.UsageError("name a --mode, or ask with --check-thresholds")
    change_mode(folder, mode, Change(**options))


@main.command("kill-switch")
@project_option
@click.option("--set", "is_set", is_flag=True, help="Let every stop go, whatever the mode.")
@click.option("--clear", "is_clear", is_flag=True, help="Have the mode hold again.")
@click.option(
    "--expires-in",
    "expires_in_ms",
    metavar="TIME",
    callback=duration_option,
    help="Clear it by itself after 30m, 12h, 7d ...",
)
@_reason
@_operator
@json_option
def kill_switch(
    folder: str | None,
    *,
    is_set: bool,
    is_clear: bool,
    expires_in_ms: int | None,
    operator: str | None,
    **rest: Any,  # noqa: ANN401 - as above
) -> None:
    """Set or clear the kill switch."""
    if is_set == is_clear:
        raise click.UsageError("say one of --set and --clear")
    if is_clear and expires_in_ms is not None:
        raise click.UsageError("--expires-in belongs to --set")
    with refusals():
        access = Access(open_root(folder))
        was_set = access.switch.kill()["value"]
        who = operator or default_operator(access.root)
        try:
            access.set_kill(value=is_set, expires_in_ms=expires_in_ms, operator=who, reason=rest["reason"])
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        values = {"killSwitch": access.switch.kill(), "changed": was_set != is_set}
    text = "set: every stop is let go" if is_set else f"clear: the mode is {access.switch.mode()}"
    respond(values, f"the kill switch is {text}", as_json=rest["as_json"])


@main.command()
@project_option
@click.option("--tail", default=20, type=click.IntRange(1, LONGEST_TAIL), help="How many. [default: 20]")
@click.option("--mode", type=_mode, help="Only of this mode.")
@click.option("--outcome", metavar="WORD", help="Only this decision, or fail:KIND.")
@click.option("--since", metavar="TIME", callback=moment_option, help="Only since 7d ago, a date, or milliseconds.")
@click.option("--session", metavar="ID", help="Only of this session.")
@click.option("--rule", metavar="ID", help="Only by this rule.")
@json_option
def log(folder: str | None, *, as_json: bool, **filters: Any) -> None:  # noqa: ANN401 - as above
    """List the stops that were looked at, the newest first."""
    with refusals():
        access = Access(open_root(folder))
        answer = access.ask("GET", "/log", query=filters)
        events = answer.get("events") if answer else None
        if not isinstance(events, list):
            with access.records() as store:
                events = store.events(**filters) if store else []
    respond(events, lambda: views.print_log(events), as_json=as_json)
    if not events and not as_json:
        warn("no such stop is on record")


@main.command()
@project_option
@click.option(
    "--since", metavar="TIME", callback=moment_option, help="Since 7d ago, a date, or milliseconds. [default: 7d]"
)
@json_option
def report(folder: str | None, since: int | None, *, as_json: bool) -> None:
    """Sum up what the gate saw, and show what is missing for enforce."""
    from instar.gate.report import as_json as plain  # noqa: PLC0415 - with it comes the database
    from instar.gate.report import report as summed  # noqa: PLC0415 - as above
    from instar.gate.report import summary  # noqa: PLC0415 - as above

    with refusals():
        access = Access(open_root(folder))
        since_ms = now_ms() - WEEK_MS if since is None else since
        values = access.ask("GET", "/report", query={"since": since_ms})
        if values is None:
            with access.records() as store:
                nothing = {"since": since_ms, "until": now_ms(), **summary([], []), "counters": {}, "stuck": []}
                values = summed(store, since_ms, now_ms()) if store else nothing
        values.setdefault("thresholds", plain(access.thresholds()))
    respond(values, lambda: views.print_report(values), as_json=as_json)


@main.command()
@click.argument("event_id", metavar="EVENT")
@project_option
@json_option
def explain(event_id: str, folder: str | None, *, as_json: bool) -> None:
    """Say why a stop was held or let go; the beginning of its id does."""
    with refusals():
        access = Access(open_root(folder))
        event, words = _event(access, event_id)
    values = {**event, "meaning": views.why(event), "annotations": words}
    respond(values, lambda: views.print_explained(event, words), as_json=as_json)


@main.command()
@click.argument("event_id", metavar="[EVENT]", required=False)
@project_option
@_operator
@click.option("--limit", default=20, type=click.IntRange(1, LONGEST_TAIL), help="How many at most. [default: 20]")
@json_option
def review(event_id: str | None, folder: str | None, *, operator: str | None, limit: int, as_json: bool) -> None:
    """Look at verdicts and say whether they were right; a word counts after 15 seconds of looking.

    With --json, list what waits for you.
    """
    with refusals():
        access = Access(open_root(folder))
        who = operator or default_operator(access.root)
        events = [_event(access, event_id)[0]] if event_id else []
        if not event_id:
            with access.records() as store:
                events = list(islice(waiting(store, who), limit)) if store else []
        if as_json:
            click.echo(json.dumps(events, indent=2))
            return
        if not events:
            warn(f"nothing waits for a review by {who}")
            return
        if access.server is None:
            raise InstarError("a review is recorded by the server: start it with instar-server start")
        click.echo(f"{hold_review(access, events, who)} recorded")


@main.command("reset-breaker")
@project_option
@json_option
def reset_breaker(folder: str | None, *, as_json: bool) -> None:
    """Have the authority asked again at once, after it failed."""
    with refusals():
        access = Access(open_root(folder))
        answer = access.ask("POST", "/reset-breaker", {})
        if answer is None and access.server is not None:
            raise InstarError("the breaker was not reset")
    values = answer or {"reset": False}
    text = "the breaker is reset" if answer else "without a server there is no breaker to reset"
    respond(values, text, as_json=as_json)


def _status(access: Access) -> dict[str, Any]:
    hot = access.ask("GET", "/hot-path", query={"session": "status-probe"})
    switch, server = access.switch, access.server
    stuck = []
    try:
        with access.records() as store:
            stuck = store.stuck() if store else []
    except InstarError as error:
        warn(str(error))
    kill = switch.kill()
    here = "shadow" if switch.mode() == "enforce" and access.are_rules_mute else switch.mode()
    running = hot["mode"] if hot and isinstance(hot.get("mode"), str) else here
    return {
        "project": str(access.root),
        "server": {"running": hot is not None, "port": server.port if server and hot is not None else None},
        "mode": switch.mode(),
        "effective": "off" if kill["value"] else running,
        "source": switch.source(),
        "killSwitch": kill,
        "gateOn": (access.root / FOLDER / GATE_ON).exists(),
        "authority": access.config["unjustifiedStopGate"]["authority"]["provider"],
        "breaker": (hot or {}).get("breaker"),
        "stuck": stuck,
    }


def _event(access: Access, beginning: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the one event whose id is or begins so, and what people think of it. Raise InstarError."""
    with access.records() as store:
        exact = store.event(beginning) if store else None
        found = [exact] if exact else store.events_named(beginning) if store else []
        if store is None or not found:
            raise InstarError(f"no event is on record as {beginning!r}; instar-gate log lists them")
        if len(found) > 1:
            raise InstarError(f"several events begin with {beginning!r}; say more of the id")
        return found[0], store.annotations(found[0]["event_id"])
