"""What `instar-sessions reaper` tells people: how it stands, what it did, and how well it judges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli.listing import age, print_rows, printable
from instar.cli.moments import span
from instar.cli.session_views import GATE_COLUMNS, SHORT, STYLES, mib
from instar.sessions.clock import epoch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from instar.sessions.reaper.selftest import Result

    Row = Mapping[str, Any]

MODES: Final = {
    "off": "no session is looked at",
    "dry-run": "what would be parked is told, and nobody is",
    "live": "under memory pressure, idle sessions are parked",
}
SESSION_COLUMNS: Final = ("verdict", "session", "idle for", "looks", "memory", "why")
AUDIT_COLUMNS: Final = ("event", "time", "session", "")
WORDS: Final = {"keep": "kept", "reap-eligible": "idle"}
OUTCOMES: Final = {
    "": "", "worked-after": "went on working by itself", "came-back": "was prompted soon after",
    "prompted": "was prompted later", "over": "ended by itself",
}  # fmt: skip
ENDS: Final = 10
_VERDICTS: Final = {"kept": "yellow", "idle": "green", "due": "bold red", "waits for its end": "bold red"}
_NAMED: Final = ("ts", "kind", "event", "session", "sessionId", "tmuxSession")
_COUNTS: Final = (
    ("ticks", "looks at all sessions"), ("looks", "looks at a session"), ("wouldReap", "would have been parked"),
    ("reaped", "parked"), ("skipped", "refused at last"), ("falseOnes", "false: worked on by themselves"),
    ("cameBack", "came back within minutes"),
)  # fmt: skip


def print_status(told: Row) -> None:
    """Print how the reaper stands, and a line for each session."""
    print_rows(("reaper", ""), list(_standing(told)))
    print_sessions(told["sessions"])


def _standing(told: Row) -> Iterable[list[str]]:
    switch, mode = told["switch"], told["mode"]
    yield ["mode", f"{mode}: {MODES.get(mode, '')}"]
    yield ["because of", _because(switch)]
    if told.get("autoDisabled"):
        yield ["stopped itself", f"{told['autoDisableCause']}; instar-sessions reaper enable goes on"]
    if mode == "live" and told.get("dryRun"):
        yield ["but", "nobody is parked before the faults in the configuration are mended"]
    yield ["who looks", "the server" if told["server"]["running"] else "nobody: no server runs (instar-server start)"]
    last = told.get("lastTickAt")
    yield ["last look", f"{span(told.get('ageS'))} ago" if last else "never"]
    pressure = told.get("pressure") or {}
    if last and pressure:
        yield ["pressure", f"{pressure['tier']}{': ' if pressure['why'] else ''}{pressure['why']}"]
        yield ["parks", _parks(told.get("activeThresholdMinutes"))]
        yield ["in the last hour", _budget(told)]
    for end in (told.get("recent") or [])[:ENDS]:
        yield ["would have parked" if end["dryRun"] else "parked", _end(end)]
    yield from (["trouble", each] for each in told.get("troubles") or ())


def _because(switch: Row) -> str:
    if not switch["mode"]:
        return "the configuration"
    by = f" by {switch['by']}" if switch["by"] else ""
    reason = f": {switch['reason']}" if switch["reason"] else ""
    return f"set {age(str(switch['at']))} ago{by}{reason}"


def _parks(threshold: float | None) -> str:
    return "nobody at this pressure" if threshold is None else f"what is idle for {threshold:g} min"


def _budget(told: Row) -> str:
    host = told["hostBudget"]
    used = "-" if host["used"] is None else host["used"]
    blocked = f", and no more now: {host['blocked']}" if host["blocked"] else ""
    return f"{told['reapsLastHour']} parked here, {used} of {host['limit']} on this machine{blocked}"


def _end(end: Row) -> str:
    became = OUTCOMES.get(str(end.get("outcome") or ""), str(end.get("outcome")))
    words = f"{end['session']} {age(str(end['at']))} ago, idle for {span(end['idleMs'] / 1000)}, {mib(end['memory'])}"
    return f"{words}; it {became}" if became else words


def print_sessions(rows: Sequence[Row]) -> None:
    """Print a line for each session that was looked at."""
    lines = [
        [_verdict(each), str(each.get("sessionId"))[:SHORT], span(each["idleMs"] / 1000), str(each["consecutive"]),
         mib(each.get("memory")), _why(each)]
        for each in rows
    ]  # fmt: skip
    print_rows(SESSION_COLUMNS, lines, _VERDICTS)


def _verdict(row: Row) -> str:
    if row.get("due"):
        return "due"
    return "waits for its end" if row.get("reapPending") else WORDS.get(str(row.get("verdict")), "unknown")


def _why(row: Row) -> str:
    by = "" if row.get("verdict") == "reap-eligible" else f"{row.get('keptBy')}: "
    put_off = f" (put off: {row['deferred']})" if row.get("deferred") else ""
    old = " (not seen of late)" if row.get("stale") else ""
    return f"{by}{row.get('why')}{put_off}{old}"


def print_plan(values: Row) -> None:
    """Print what a look found, and whom it would park."""
    print_sessions(values["sessions"])
    tier = (values.get("pressure") or {}).get("tier", "unknown")
    due = values["due"]
    found = ", ".join(each[:SHORT] for each in due)
    what = f"would be parked: {found}" if due else "nobody would be parked now"
    click.echo(printable(f"{what} (pressure as of the last look: {tier}; {_parks(values['activeThresholdMinutes'])})"))
    for each in values["troubles"]:
        click.echo(printable(f"trouble: {each}"), err=True)


def ended_since(told: Row, moment: float) -> list[Row]:
    """Return what was parked, or would have been, since a moment in seconds since 1970."""
    return [each for each in told.get("recent") or () if (epoch(each["at"]) or 0.0) >= int(moment)]


def print_ticked(values: Row) -> None:
    """Print what a look came to."""
    print_sessions(values["sessions"])
    for each in values["ended"]:
        click.echo(printable(f"{'would have parked' if each['dryRun'] else 'parked'} {_end(each)}"))
    tier = values["pressure"]["tier"]
    count = len(values["sessions"])
    parks = _parks(values["activeThresholdMinutes"])
    click.echo(f"{values['mode']}: {count} session{'' if count == 1 else 's'} seen; pressure {tier}, parks {parks}")
    for each in values["troubles"]:
        click.echo(printable(f"trouble: {each}"), err=True)


def print_audit(rows: Iterable[Row]) -> None:
    """Print a line for each row of the audit."""
    lines = []
    for each in rows:
        more = ", ".join(f"{key} {value}" for key, value in each.items() if key not in _NAMED and value is not None)
        moment = str(each.get("ts", "-"))[:19].replace("T", " ")
        lines.append([str(each.get("event", "-")), moment, str(each.get("session") or "-"), more])
    print_rows(AUDIT_COLUMNS, lines)


def print_switched(values: Row) -> None:
    """Print what the reaper was set to."""
    prior = f" (was {values['prior']})" if values["prior"] not in (None, values["mode"]) else ""
    click.echo(printable(f"{values['mode']}: {MODES[values['mode']]}{prior}"))
    if values["cleared"]:
        click.echo(printable(f"it had stopped itself, and goes on: {values['cleared']}"))
    for each in values.get("against") or ():
        click.echo(printable(f"although {each}"), err=True)


def print_report(values: Row) -> None:
    """Print how well the reaper judges."""
    totals = values["totals"]
    days = values["days"]
    rows = [["days on record", f"{len(days)}, since {days[0]['day']}" if days else "0"]]
    rows += [[words, str(totals[key])] for key, words in _COUNTS]
    rows.append(["to be seen yet", str(values["open"])])
    missed = sorted(totals["missed"].items(), key=lambda item: -item[1]["memoryHoursGiB"])
    rows += [
        [f"missed by {gate}", f"{kept['hours']:g} h idle, {kept['memoryHoursGiB']:g} GiB hours"]
        for gate, kept in missed
    ]
    rows += [
        ["false", f"{each['session']} at {each['ts']}, seen idle for {span((each['idleMs'] or 0) / 1000)}"]
        for each in values["false"]
    ]
    print_rows(("what", "how much"), rows)
    if values["against"]:
        click.echo(printable(f"it should not park yet: {'; '.join(values['against'])}"))
    elif not totals["looks"]:
        click.echo("nothing was seen yet: instar-sessions reaper enable, and let it look for some days")
    else:
        click.echo("nothing speaks against it: instar-sessions reaper enable --live has it park")


def print_selftest(result: Result) -> None:
    """Print whether a harmless session would be parked, and what keeps it else."""
    took = f"after {result.minutes:.0f} minutes of the rules' time, in {result.ticks} looks"
    if result.was_parked:
        click.echo(f"works: a harmless idle session was parked {took}")
        return
    rows = [["keeps", gate.name, kept.by, kept.confidence, kept.why] for gate, kept in result.answers if kept]
    print_rows(GATE_COLUMNS, rows, STYLES)
    click.echo(printable(f"does not park: a harmless idle session is kept {took}, by {result.kept_by}: {result.why}"))
