"""What `instar-peers` tells people of peers: a line each, one of them in full, and what came of a wake."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli.listing import print_rows, printable
from instar.cli.moments import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from instar.lifecycle.peers import Peer

    Row = Mapping[str, Any]

STYLES: Final = {
    "alive": "green", "dialog": "bold yellow", "parked": "cyan", "asleep": "", "stopped": "dim", "crashed": "bold red",
    "managed": "dim", "unknown": "yellow", "broken": "red",
}  # fmt: skip
COLUMNS: Final = ("state", "peer", "client", "idle for", "context", "folder", "what")
EVENT_COLUMNS: Final = ("event", "time", "peer", "")
_WORDS: Final = {
    "alive": "lives", "dialog": "waits at a dialog", "parked": "is parked", "asleep": "sleeps",
    "stopped": "is stopped", "crashed": "crashed, and is left asleep", "managed": "is managed by others",
    "unknown": "may live", "broken": "has a profile that cannot be used",
}  # fmt: skip
_SHORT: Final = 8  # of an id, which is a UUID
_THOUSAND: Final = 1000


def print_list(found: Iterable[Row]) -> None:
    """Print a line for each peer."""
    print_rows(COLUMNS, [_line(each) for each in found], STYLES)


def _line(row: Row) -> list[str]:
    idle = row.get("idleMinutes")
    return [
        str(row["state"]), str(row["name"]), str(row.get("runtime") or "-"),
        "-" if idle is None else span(60 * idle), tokens(row.get("tokens")), str(row.get("cwd") or "-"), what(row),
    ]  # fmt: skip


def what(row: Row) -> str:
    """Return what there is to know of a peer in its state, or to do about it."""
    state = row["state"]
    if state == "dialog":
        return f"{row['dialog']}: instar-peers attach {row['name']} shows it"
    if state == "alive":
        session = str(row.get("sessionId") or "not on record yet")[:_SHORT]
        return f"session {session}{', stopped and about to end' if row.get('isStopped') else ''}"
    if state == "stopped":
        return f"instar-peers start {row['name']} lets it be woken"
    if state == "crashed":
        return f"{row['reason']}; {row['deaths']} times; next try in {span(row['nextTry'])}"
    if state in ("parked", "asleep"):
        deaths = f"{row['deaths']} crashed lately; " if row.get("deaths") else ""
        return f"{deaths}{row['resume']}" if row.get("resume") else f"{deaths}nothing to take up"
    return str(row.get("reason") or "-")


def in_words(row: Row) -> str:
    """Return how a peer is, as the rest of a sentence."""
    return _WORDS.get(str(row["state"]), str(row["state"]))


def print_peer(peer: Peer, states: Sequence[Row]) -> None:
    """Print the profile of a peer, and how it is."""
    for key, value in profile_json(peer).items():
        words = ", ".join(map(str, value)) if isinstance(value, list) else value
        words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else words
        click.echo(printable(f"{key:<18} {words if words not in (None, '') else '-'}"))
    for each in states:
        runtime = f"{each['runtime']}: " if len(states) > 1 else ""
        click.echo(printable(f"{'state':<18} {runtime}{each['state']}: {what(each)}"))
        if each["state"] not in ("parked", "asleep") and each.get("resume"):
            click.echo(printable(f"{'resume':<18} {each['resume']}"))


def profile_json(peer: Peer) -> dict[str, Any]:
    """Return a profile for a program. Of the client's variables only the names: some hold secrets."""
    return {
        "name": peer.name, "runtime": peer.runtime, "runtimes": list(peer.runtimes), "cwd": str(peer.cwd),
        "human": peer.is_human, "trustFolder": peer.trusts_folder, "bypassPermissions": peer.bypasses_permissions,
        "initialPrompt": peer.initial_prompt or None, "args": list(peer.args), "env": sorted(peer.env),
        "path": str(peer.path) if peer.path else None,
    }  # fmt: skip


def print_woken(name: str, said: Row) -> None:
    """Print what came of a wake that ended well."""
    if not said["woke"]:
        click.echo(printable(f"{name} lives already{_session(said)}"))
        return
    how = "takes up where it left off" if said["mode"] == "resume" else "starts with an empty context"
    why = f": {said['reason']}" if said.get("reason") else ""
    click.echo(printable(f"{name} is awake{_session(said)}, and {how} ({said['cause']}){why}"))
    resumable = said.get("resumable")
    if resumable:
        cost = f"idle for {_idle(resumable)}, {tokens(resumable.get('tokens'))} tokens of context"
        took = "it took up" if said["mode"] == "resume" else "it left"
        more = "" if said["mode"] == "resume" else f"; to take that up: {resumable['command']}"
        click.echo(printable(f"{took} session {resumable['sessionId'][:_SHORT]}, {cost}{more}"))


def print_sent(name: str, said: Row) -> None:
    """Print what came of a message that arrived."""
    if said["woke"]:
        print_woken(name, said)
        return
    accepted = said["delivery"]["fate"] == "accepted"
    words = "took the message, and reads it when its turn is over" if accepted else "has the message"
    click.echo(printable(f"{name} {words}{_session(said)}"))


def failure(said: Row) -> str:
    """Return the sentence for what failed."""
    again = said.get("retryAfter")
    more = f"; again in {span(again)}" if isinstance(again, (int, float)) else ""
    return printable(f"{said['reason'] or 'it failed'} ({said['cause']}){more}")


def print_events(events: Iterable[Row]) -> None:
    """Print a line for each event of the log."""
    print_rows(EVENT_COLUMNS, [_event(each) for each in events])


def event_words(event: Row) -> str:
    """Return an event as one line of tab-separated words."""
    return "\t".join(printable(each) for each in _event(event))


def _event(event: Row) -> list[str]:
    named = ("ts", "ev", "personality", "identity")
    more = ", ".join(f"{key} {value}" for key, value in event.items() if key not in named)
    peer = str(event.get("identity") or event.get("personality") or "-")
    return [str(event.get("ev", "-")), str(event.get("ts", "-"))[:19].replace("T", " "), peer, more]


def print_pass(rows: Sequence[Row]) -> None:
    """Print what a look at all peers came to."""
    lines = []
    for each in rows:
        more = ", ".join(
            f"{key} {value}" for key, value in each.items() if key in ("reason", "kept", "cause") and value
        )
        outcome = each.get("outcome") or each.get("status") or "-"
        lines.append([str(each["action"]), str(each["identity"]), str(outcome), more or "-"])
    print_rows(("action", "peer", "outcome", "why"), lines)


def tokens(count: object) -> str:
    """Return a number of tokens as people read it; "-" for none."""
    if not isinstance(count, int):
        return "-"
    return f"{count / _THOUSAND:.0f}k" if count >= _THOUSAND else str(count)


def shell_words(command: Iterable[str]) -> str:
    """Return a command as one types it."""
    return shlex.join(command)


def _session(said: Row) -> str:
    return f", as session {str(said['sessionId'])[:_SHORT]}" if said.get("sessionId") else ""


def _idle(resumable: Row) -> str:
    minutes = resumable.get("idleMinutes")
    return "an unknown time" if minutes is None else span(60 * minutes)
