"""A person judges the verdicts of the gate, one after the other, and not before having looked at them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import click

from instar.cli.gate_views import print_explained
from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from instar.cli.gate_access import Access

CHOICES: Final = {"c": "correct", "i": "incorrect", "u": "unclear"}
DWELL_S: Final = 15.0
clock: Callable[[], float] = time.monotonic
pause: Callable[[float], None] = time.sleep

Row = dict[str, Any]


class Records(Protocol):
    """What is read of the gate's memory."""

    def events(self, tail: int | None) -> list[Row]:
        """Return events, the newest first."""

    def annotations(self) -> list[Row]:
        """Return what people thought of them."""


def waiting(records: Records, operator: str) -> Iterator[Row]:
    """Yield the verdicts that somebody has not judged: those that hold first, since they are the rare ones."""
    done = {
        word["event_id"]
        for word in records.annotations()
        if word["operator"] == operator and word["dwell_ms"] >= DWELL_S * 1000
    }
    verdicts = [
        row for row in records.events(None)
        if row["decision"] in ("continue", "allow", "escalate") and not row["short_circuit"]
        and row["event_id"] not in done
    ]  # fmt: skip
    yield from sorted(verdicts, key=lambda row: row["decision"] != "continue")  # stable: the newest first


def review(access: Access, events: Sequence[Row], operator: str) -> int:
    """Show events, ask what the operator thinks of each, and record it; return how many were recorded."""
    recorded = 0
    for index, event in enumerate(events, 1):
        click.echo(f"--- {index} of {len(events)}")
        print_explained(event, ())
        said = _judgement()
        if said is None:
            break
        if said.verdict:
            _record(access, event, operator, said)
            recorded += 1
    return recorded


class _Said(NamedTuple):
    verdict: str  # "" to skip the event
    rationale: str
    dwell_ms: int


def _judgement() -> _Said | None:
    """Return what the operator says of the event on the screen; None to end."""
    began = clock()
    while True:
        answer = _asked("Was the verdict [c]orrect, [i]ncorrect, [u]nclear? [s]kip, [q]uit")
        if answer is None or answer.startswith("q"):
            return None
        if answer.startswith("s"):
            return _Said("", "", 0)
        verdict = CHOICES.get(answer[:1])
        rationale = _asked("Why? (a reason is needed)") if verdict == "incorrect" else ""
        if rationale is None:
            return None
        if verdict is None or (verdict == "incorrect" and not rationale):
            continue
        left = DWELL_S - (clock() - began)
        if left > 0:
            click.echo(f"Look at it for {left:.0f} s more; your word is taken then.")
            pause(left)
        return _Said(verdict, rationale, int((clock() - began) * 1000))


def _asked(question: str) -> str | None:
    """Return an answer; None where nobody is there to give one."""
    try:
        return str(click.prompt(question, default="", show_default=False)).strip()
    except click.Abort:
        return None


def _record(access: Access, event: Row, operator: str, said: _Said) -> None:
    body = {"eventId": event["event_id"], "operator": operator, "verdict": said.verdict,
            "rationale": said.rationale, "dwellMs": said.dwell_ms}  # fmt: skip
    if access.ask("POST", "/annotations", body) is None:
        raise InstarError("a review is recorded by the server: start it with instar-server start, and review again")
