"""Turns in a rollout of the Codex CLI, as measured on 0.169.0.

The client writes down when a turn begins ("task_started") and when it is over ("task_complete", after its hooks, or
"turn_aborted"), each with the id of the turn, in the order of the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from instar.sessions.clock import epoch
from instar.sessions.transcripts.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

_BEGINNINGS: Final = ("task_started", "user_message")
_ENDS: Final = {"task_complete": "the last turn has ended", "turn_aborted": "the last turn was interrupted"}


def read(records: Sequence[dict[str, Any]]) -> Turn | None:
    """Return the last turn of the end of a rollout, None where it does not reach back far enough."""
    times = [at for record in records if (at := epoch(record.get("timestamp"))) is not None]
    state = _judged(records)
    if state is None or not times:
        return None
    return Turn(*state, at=max(times), version=version(records))


def _judged(records: Sequence[dict[str, Any]]) -> tuple[Literal["open", "closed"], str] | None:
    state: tuple[Literal["open", "closed"], str] | None = None
    begun: object = None
    for record in records:
        payload = record.get("payload")
        payload = payload if isinstance(payload, dict) else {}
        kind = payload.get("type") if record.get("type") == "event_msg" else None
        if kind in _BEGINNINGS:
            begun = payload.get("turn_id", begun)
            state = "open", "a turn has begun, and has not ended"
        elif kind in _ENDS and payload.get("turn_id", begun) == (begun or payload.get("turn_id")):
            state = "closed", _ENDS[kind]
        elif record.get("type") == "response_item" and _is_work(payload):
            state = "open", "a turn goes on"
    return state


def _is_work(payload: dict[str, Any]) -> bool:
    """Say whether an item is one of a turn: a word of the agent or to it, or a call of a tool."""
    kind = payload.get("type")
    return kind != "message" or payload.get("role") in ("user", "assistant")


def version(records: Sequence[dict[str, Any]]) -> str:
    """Return the version of the client that began a rollout or went on with it; "" where that is not among these."""
    for record in reversed(records):
        payload = record.get("payload")
        if record.get("type") == "session_meta" and isinstance(payload, dict):
            told = payload.get("cli_version")
            return told if isinstance(told, str) else ""
    return ""
