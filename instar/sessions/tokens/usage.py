"""What a record of a transcript tells of the tokens that were used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from instar.sessions.clock import epoch

NEEDLES: Final = {"claude-code": b'"usage"', "codex-cli": b'"token_count"'}
_COUNTED: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_MOST: Final = 1 << 53  # beyond it a number is none that a client counted


@dataclass(frozen=True)
class Used:
    """What one call of a model used, or, with `is_running`, all calls of the session up to it; `ts` in milliseconds."""

    call: str
    ts: int
    tokens: int
    is_running: bool = False


def used(client: str, record: dict[str, Any], session: str) -> Used | None:
    """Return what a record tells of a session; None where it tells nothing."""
    at = epoch(record.get("timestamp"))
    if at is None:
        return None
    return _of_codex(record, int(at * 1000)) if client == "codex-cli" else _of_claude(record, int(at * 1000), session)


def _of_claude(record: dict[str, Any], ts: int, session: str) -> Used | None:
    message = record.get("message")
    if record.get("type") != "assistant" or not isinstance(message, dict):
        return None
    # A gateway may give its answers no id of a request; then the message has one.
    call = record.get("requestId") or message.get("id")
    tokens = sum(_number(message.get("usage"), name) for name in _COUNTED)
    if record.get("sessionId", session) != session or not isinstance(call, str) or not tokens:
        return None
    return Used(call, ts, tokens)


def _of_codex(record: dict[str, Any], ts: int) -> Used | None:
    payload = record.get("payload")
    if not isinstance(payload, dict) or payload.get("type") != "token_count":
        return None
    info = payload.get("info")
    total = _number(info.get("total_token_usage") if isinstance(info, dict) else None, "total_tokens")
    return Used(f"{ts}:{total}", ts, total, is_running=True) if total else None


def _number(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _MOST else 0
