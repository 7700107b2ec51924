"""The commands `instar-sessions reaper`: what parks idle sessions by itself, and whether it may."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli import reaper_views as views
from instar.cli.options import default_operator, json_option, project_option, refusals, respond, warn
from instar.cli.patience import patience
from instar.cli.reaper_tick import Heard, plan
from instar.errors import InstarError
from instar.project import open_root
from instar.server.endpoint import endpoint
from instar.sessions.assembly import Assembly
from instar.sessions.reaper.audit import LIMITS, Audit
from instar.sessions.reaper.report import may_go_live
from instar.sessions.reaper.selftest import selftest as run_selftest

if TYPE_CHECKING:
    from instar.sessions.policy import Mode
    from instar.sessions.reaper.switch import Switched

_LEAST, _USUAL, _MOST = LIMITS
REFUSED: Final = {
    "off": "the reaper is off: instar-sessions reaper enable switches it on, tick --dry-run looks all the same",
    "standby": "another process is at it: one reaper looks at a time",
    "busy": "it is at it already",
}


@click.group()
def reaper() -> None:
    """Park idle sessions under memory pressure: see what it would do, switch it on, see what it did.

    The server of the project looks every two minutes (instar-server start); tick looks once, without it.
    """


@reaper.command()
@project_option
@json_option
def status(folder: str | None, *, as_json: bool) -> None:
    """Show how the reaper stands, and what its last look found."""
    with refusals():
        root = open_root(folder)
        assembly = Assembly(root)
        told, switched, server = assembly.reaper.snapshot(), assembly.switch.read(), endpoint(root)
    values = {"project": str(root), "server": {"running": server is not None}, "switch": _said(switched), **told}
    respond(values, lambda: views.print_status(values), as_json=as_json)


@reaper.command()
@project_option
@click.option("--dry-run", is_flag=True, help="Look now and tell what would be parked; nothing changes.")
@json_option
def tick(folder: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Look at all sessions once, as the server does by itself, and do what is due."""
    with refusals():
        assembly = Assembly(open_root(folder))
        if dry_run:
            with patience("looking at the sessions"):
                values = plan(assembly)
            respond(values, lambda: views.print_plan(values), as_json=as_json)
            return
        with patience("looking at the sessions"), Heard() as heard:
            before = time.time()
            outcome = assembly.reaper.tick()
            told = assembly.reaper.snapshot()
        if outcome in REFUSED:
            raise InstarError(REFUSED[outcome])
        if outcome == "failed":
            raise InstarError(f"the look failed: {heard.words}")
    values = {"outcome": outcome, "ended": views.ended_since(told, before), **told}
    respond(values, lambda: views.print_ticked(values), as_json=as_json)


@reaper.command()
@project_option
@click.option("--limit", type=click.IntRange(_LEAST, _MOST), default=_USUAL, show_default=True, help="How many.")
@json_option
def audit(folder: str | None, *, limit: int, as_json: bool) -> None:
    """List what the reaper decided and did, the newest last."""
    with refusals():
        rows = Audit(open_root(folder)).recent(limit)
    respond(rows, lambda: views.print_audit(rows), as_json=as_json)
    if not rows and not as_json:
        warn("nothing is on record")


@reaper.command()
@project_option
@click.option("--live", "is_live", is_flag=True, help="Park sessions, and do not only tell which it would.")
@click.option("--force", metavar="REASON", help="Park although something speaks against it; the reason is kept.")
@json_option
def enable(folder: str | None, *, is_live: bool, force: str | None, as_json: bool) -> None:
    """Switch the reaper on: it looks, and tells whom it would park; with --live it parks.

    That it had stopped itself is forgotten.
    """
    if force is not None and not is_live:
        raise click.UsageError("--force belongs to --live")
    if force is not None and not force.strip():
        raise click.UsageError("--force needs a reason")
    with refusals():
        root = open_root(folder)
        assembly = Assembly(root)
        policy, report = assembly.policy(), assembly.reaper.report()
        against = [*may_go_live(report), *(f"the configuration has a fault: {each}" for each in policy.faults)]
        if is_live and against and not force:
            raise InstarError("; ".join([*against, "--force REASON insists"]))
        values = _switch(assembly, "live" if is_live else "dry-run", f"forced: {force}" if force else "")
        values |= {"forced": bool(force and against), "against": against}
    respond(values, lambda: views.print_switched(values), as_json=as_json)
    if is_live and policy.faults:
        warn("nobody is parked before the faults in the configuration are mended")
    if is_live and not report["totals"]["looks"]:
        warn("no look is on record yet: nobody has seen whom it would have parked")
    if endpoint(root) is None:
        warn("no server runs, so nobody looks: instar-server start, or now and then instar-sessions reaper tick")


@reaper.command()
@project_option
@json_option
def disable(folder: str | None, *, as_json: bool) -> None:
    """Switch the reaper off: no session is looked at, and none is parked."""
    with refusals():
        values = _switch(Assembly(open_root(folder)), "off", "")
    respond(values, lambda: views.print_switched(values), as_json=as_json)


@reaper.command()
@project_option
@json_option
def report(folder: str | None, *, as_json: bool) -> None:
    """Show how well the reaper judges: whom it would have parked by mistake, and what it kept for nothing."""
    with refusals():
        values = Assembly(open_root(folder)).reaper.report()
    values = {**values, "against": may_go_live(values)}
    respond(values, lambda: views.print_report(values), as_json=as_json)


@reaper.command()
@project_option
@json_option
def selftest(folder: str | None, *, as_json: bool) -> None:
    """Start a harmless idle session and see whether it would be parked; the status is 1 where it would not."""
    with refusals():
        root = open_root(folder)
        with patience("waiting for the reaper to park a session of our own"):
            result = run_selftest(root, lambda line: None if as_json else click.echo(line, err=True))
    respond(result.as_json(), lambda: views.print_selftest(result), as_json=as_json)
    raise click.exceptions.Exit(0 if result.was_parked else 1)


def _switch(assembly: Assembly, mode: Mode, reason: str) -> dict[str, Any]:
    """Set the mode, and have the reaper forget that it stopped itself where it is switched on. Raise InstarError."""
    before = assembly.switch.read()
    prior: str | None = (
        None if before.trouble else before.over(assembly.policy()).mode if mode != "off" else before.mode
    )
    who = default_operator(assembly.root)
    assembly.switch.set(mode, by=who, reason=reason, now=time.time())
    cleared = before.cause if mode != "off" else ""
    if cleared:
        assembly.switch.clear()
        Audit(assembly.root).event("auto-disable-cleared", why=cleared, by=who)
    return {"mode": mode, "prior": prior, "reason": reason, "cleared": cleared or None}


def _said(switched: Switched) -> dict[str, Any]:
    said = {"mode": switched.mode, "at": switched.at, "by": switched.by, "reason": switched.reason}
    return {key: value or None for key, value in said.items()}
