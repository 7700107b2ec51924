"""Turns in a transcript of Claude Code, as measured on 2.1.197.

The order of its lines is not that of the events: a prompt may stand after its answer, when both were written at once,
and a queued prompt before the end of the turn that it interrupts. So a record is taken to be over when a later record
descends from it (`parentUuid`), or is later by its place and its time.

- A prompt, a result of a tool, what a Stop hook says and what a command expands to wait for an answer; all are records
  of type "user". Only what a hook adds to a turn at its end is an attachment.
- An answer with the stop reason "end_turn" or "stop_sequence" ends a turn, as does a message of a failed call
  (`isApiErrorMessage`); other stop reasons go on. The client writes one line for each block of an answer, the stop
  reason in all of them.
- An interruption is a "user" record with nothing but a text of the client's own. It ends the turn that it descends
  from, and not a queued prompt that was let through by it.
- "turn_duration" is written when a turn is over, hooks and all, by the TUI; it counts what works on in the background.
- What a compaction and the commands of the client itself leave are no part of a turn.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.sessions.clock import epoch
from instar.sessions.transcripts.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Record = dict[str, Any]
Kind = Literal["prompt", "step", "end", "interruption", "other"]

_ENDS: Final = ("end_turn", "stop_sequence")
_INTERRUPTIONS: Final = ("[Request interrupted by user]", "[Request interrupted by user for tool use]")
_COMMAND: Final = re.compile(r"\s*<(local-command-caveat|local-command-stdout|local-command-stderr|command-name)>")
_WAITS: Final[dict[Kind, str]] = {
    "prompt": "what the agent was told last has no answer yet",
    "step": "the agent is between two steps",
}


def read(records: Sequence[Record]) -> Turn | None:
    """Return the last turn of the end of a transcript, None where it does not reach back far enough."""
    rows = [row for place, record in enumerate(records) if (row := _row(place, record)) is not None]
    times = [row.at for row in rows if row.at is not None]
    versions = [version for record in records if isinstance(version := record.get("version"), str)]
    state = _judged(rows, _queued(records))
    if state is None or not times:
        return None
    return Turn(*state, at=max(times), version=versions[-1] if versions else "")


@dataclass(frozen=True)
class _Row:
    """A record of the main conversation; `why` is what it waits for, where that is not told by its kind."""

    place: int
    kind: Kind
    id: str
    parent: str
    at: float | None
    why: str = field(default="")

    def is_before(self, other: _Row) -> bool:
        """Whether it came first, by its place and by its time."""
        return self.place < other.place and self.at is not None and other.at is not None and self.at < other.at


def _row(place: int, record: Record) -> _Row | None:
    if record.get("isSidechain") is True:
        return None
    kind, why = _kind(record)
    texts = (record.get(key) for key in ("uuid", "parentUuid"))
    own, parent = (text if isinstance(text, str) else "" for text in texts)
    return _Row(place, kind, own, parent, epoch(record.get("timestamp")), why)


def _kind(record: Record) -> tuple[Kind, str]:
    kind = record.get("type")
    if kind == "assistant":
        return _kind_of_answer(record), ""
    if kind == "user":
        return _kind_of_word(record), ""
    if kind == "attachment":
        return _kind_of_attachment(record.get("attachment")), ""
    if kind == "system" and record.get("subtype") == "turn_duration":
        is_waiting = any(_is_pending_count(key, value) for key, value in record.items())
        return ("prompt", "work in the background is not over") if is_waiting else ("end", "")
    return "other", ""


def _is_pending_count(key: str, value: object) -> bool:
    return key.startswith("pending") and isinstance(value, int) and value > 0


def _kind_of_answer(record: Record) -> Kind:
    message = record.get("message")
    if not isinstance(message, dict):
        return "step"
    calls = any(block.get("type") == "tool_use" for block in _blocks(message))
    is_end = message.get("stop_reason") in _ENDS or record.get("isApiErrorMessage") is True
    if not is_end or calls:
        return "step"
    # The client itself speaks where an answer failed, or was cut off: that ends no other turn.
    return "interruption" if message.get("model") == "<synthetic>" else "end"


def _kind_of_word(record: Record) -> Kind:
    message = record.get("message")
    message = message if isinstance(message, dict) else {}
    blocks = _blocks(message)
    if record.get("isCompactSummary") is True or _COMMAND.match(_text(message)):
        return "other"
    if len(blocks) == 1 and blocks[0].get("text") in _INTERRUPTIONS and "promptSource" not in record:
        return "interruption"
    return "step" if any(block.get("type") == "tool_result" for block in blocks) else "prompt"


def _kind_of_attachment(attachment: object) -> Kind:
    if not isinstance(attachment, dict) or attachment.get("hookEvent") not in ("Stop", "SubagentStop"):
        return "other"
    return "prompt" if attachment.get("type") == "hook_additional_context" else "other"


def _blocks(message: Record) -> list[Record]:
    content = message.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _text(message: Record) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _judged(rows: Sequence[_Row], queued: int) -> tuple[Literal["open", "closed"], str] | None:
    ends = [row for row in rows if row.kind in ("end", "interruption")]
    waiting = [row for row in rows if row.kind in ("prompt", "step")]
    if not ends and not waiting:
        return None
    over = _over(rows, ends)
    left = [row for row in waiting if row.place not in over]
    if left:
        return "open", left[-1].why or _WAITS[left[-1].kind]
    if queued:
        return "open", "a prompt is queued"
    return "closed", "the last turn was interrupted" if ends[-1].kind == "interruption" else "the last turn has ended"


def _over(rows: Sequence[_Row], ends: Sequence[_Row]) -> set[int]:
    """Return the places of what the ends of turns have settled."""
    by_id = {row.id: row for row in rows if row.id}
    over: set[int] = set()
    for end in ends:
        begun = end.place
        for row in _above(end, by_id):
            begun = min(begun, row.place)
            over.add(row.place)
            if row.kind == "prompt":
                break
        for row in rows:
            # What an interruption does not descend from it leaves alone, but for the steps that were cut off with it.
            reach = end.kind == "end" or row.kind == "step" or row.place < begun
            if reach and row.is_before(end):
                over.add(row.place)
    return over


def _above(row: _Row, by_id: dict[str, _Row]) -> Iterator[_Row]:
    """Yield what a record descends from, the nearest first."""
    seen = {row.id}
    while (parent := by_id.get(row.parent)) is not None and parent.id not in seen:
        yield parent
        seen.add(parent.id)
        row = parent


def _queued(records: Sequence[Record]) -> int:
    """Return how many prompts wait for the end of a turn."""
    queued = 0
    since = 0.0
    for record in records:
        if record.get("type") == "queue-operation":
            operation = record.get("operation")
            queued = queued + 1 if operation == "enqueue" else 0 if operation == "popAll" else max(0, queued - 1)
            since = epoch(record.get("timestamp")) or since
        elif record.get("promptSource") == "typed" and (epoch(record.get("timestamp")) or 0.0) > since:
            queued = 0  # nobody types past a queue: it died with an earlier process
    return queued
