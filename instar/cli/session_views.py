"""What `instar-sessions` tells people of sessions: a line each, or one of them in full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli.listing import age, print_rows, printable
from instar.cli.moments import told
from instar.cli.session_look import NOT_ON_RECORD, is_unrecorded
from instar.sessions.clock import iso
from instar.sessions.look import memory
from instar.sessions.verdict import ALL_CLEAR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from instar.cli.session_look import Looked
    from instar.sessions.classifier import Gate
    from instar.sessions.leases import Lease
    from instar.sessions.registry import Session
    from instar.sessions.verdict import Kept, Verdict

STYLES: Final = {
    "working": "green", "background": "green", "asking": "yellow", "draft": "yellow", "unknown": "yellow",
    "parked": "cyan", "unreadable": "red", "gone": "red", "failed": "red", "decides": "bold red", "keeps": "yellow",
    "passes": "green",
}  # fmt: skip
COLUMNS: Final = ("doing", "session", "client", "pane", "idle for", "memory", "why", "prompt")
GATE_COLUMNS: Final = ("", "gate", "kept by", "sure", "why")
SHORT: Final = 8  # of an id, which is a UUID
PROMPT_CHARACTERS: Final = 60
_MIB: Final = 2**20


def columns(*, with_project: bool) -> tuple[str, ...]:
    """Return what a line tells of a session."""
    return (*COLUMNS, "project") if with_project else COLUMNS


def row(looked: Looked, *, with_project: bool) -> list[str]:
    """Return the line of a session."""
    session, sight = looked.session, looked.sight
    pane = session.record.get("tmux")
    line = [
        looked.doing,
        name(session),
        session.text("client") or "-",
        f"{pane.get('session')} {pane.get('pane')}" if isinstance(pane, dict) else "-",
        "-" if looked.idle_since is None else age(iso(looked.idle_since)),
        mib(memory(sight) if sight else None),
        _why(looked),
        session.text("lastPrompt", "text")[:PROMPT_CHARACTERS],
    ]
    return [*line, str(session.project)] if with_project else line


def name(session: Session) -> str:
    """Return how a session is called in a line."""
    return f"{session.id}, not on record" if is_unrecorded(session) else session.id[:SHORT]


def mib(count: object) -> str:
    """Return a number of bytes as people read it; "-" for none."""
    return f"{count / _MIB:.0f} MiB" if isinstance(count, int) else "-"


def _why(looked: Looked) -> str:
    """Return what keeps a session from being parked, or what became of it."""
    session, verdict = looked.session, looked.verdict
    if looked.is_parked:
        parked = session.record["parked"]
        return f"{parked.get('reason')} {age(str(parked.get('at')))} ago: instar-sessions resume {session.id[:SHORT]}"
    if session.is_over:
        return f"{session.text('endedReason') or 'ended'} {age(session.text('endedAt'))} ago"
    if verdict is None:
        return "-"
    return verdict.why if verdict.kept_by == ALL_CLEAR else f"{verdict.kept_by}: {verdict.why}"


def print_list(found: Iterable[Looked], *, with_project: bool) -> None:
    """Print a line for each session."""
    rows = [row(each, with_project=with_project) for each in found]
    print_rows(columns(with_project=with_project), rows, STYLES)


def print_record(values: dict[str, Any], leases: Sequence[Lease]) -> None:
    """Print the whole record of a session, and the leases that hold."""
    for key, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} {each}" for name, each in value.items())
            click.echo(printable(f"{key:<16} {inner}"))
        else:
            click.echo(printable(f"{key:<16} {value}"))
    for each in leases:
        until = f"until {told(round(each.expires_at * 1000))}" if each.expires_at else "as long as its owner lives"
        click.echo(printable(f"{'lease':<16} {each.kind} {until}{': ' if each.note else ''}{each.note}"))


def lease_json(lease: Lease) -> dict[str, Any]:
    """Return a lease for a program."""
    expires = iso(lease.expires_at) if lease.expires_at else None
    return {"kind": lease.kind, "note": lease.note, "expiresAt": expires, "isSure": lease.is_sure}


def answers_json(answers: Sequence[tuple[Gate, Kept | None]], verdict: Verdict) -> list[dict[str, Any]]:
    """Return what each gate answered, for a program."""
    words = _words(answers)
    return [
        {
            "gate": gate.name, "group": gate.group, "keeps": kept is not None, "decides": word == "decides",
            "keptBy": kept.by if kept else None, "why": kept.why if kept else None,
            "confidence": kept.confidence if kept else verdict.confidence if verdict.is_clear else None,
        }
        for word, (gate, kept) in zip(words, answers)
    ]  # fmt: skip


def print_answers(session: Session, answers: Sequence[tuple[Gate, Kept | None]], verdict: Verdict) -> None:
    """Print what each gate answered, the one that decides marked, and what that comes to."""
    rows = [
        [word, gate.name, kept.by if kept else "-", kept.confidence if kept else "-", kept.why if kept else "-"]
        for word, (gate, kept) in zip(_words(answers), answers)
    ]
    print_rows(GATE_COLUMNS, rows, STYLES)
    unsure = " (it could not be told)" if verdict.confidence == "low" else ""
    comes_to = "it may be parked" if verdict.is_clear else f"it is kept by {verdict.kept_by}{unsure}"
    click.echo(printable(f"{name(session)}: {comes_to}: {verdict.why}"))
    if is_unrecorded(session):
        click.echo(f"it is not on record: {NOT_ON_RECORD}")


def _words(answers: Sequence[tuple[Gate, Kept | None]]) -> list[str]:
    """Return a word for each answer: the first gate that keeps a session decides."""
    first = next((number for number, (_, kept) in enumerate(answers) if kept), None)
    return ["decides" if number == first else "keeps" if kept else "passes" for number, (_, kept) in enumerate(answers)]
