"""How much of a conversation is in the context of its client, as its transcript tells of the last call."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from instar.sessions.tokens.usage import NEEDLES, used
from instar.sessions.transcripts.records import Unresolved, opened, parsed, tails

if TYPE_CHECKING:
    from pathlib import Path


def context_tokens(client: str, path: Path | str) -> int | None:
    """Return how many tokens the last call of the model read and wrote; None where the transcript does not tell."""
    needle = NEEDLES.get(client)
    if needle is None:
        return None
    with suppress(Unresolved), opened(path) as source:
        for tail in tails(source):
            for line in reversed(tail.records):
                if needle in line and (tokens := _tokens(client, parsed(line) or {})):
                    return tokens
    return None


def _tokens(client: str, record: dict[str, Any]) -> int | None:
    if client != "codex-cli":
        found = None if record.get("isSidechain") else used(client, record, str(record.get("sessionId", "")))
        return found.tokens if found else None
    payload = record.get("payload")
    info = payload.get("info") if isinstance(payload, dict) and payload.get("type") == "token_count" else None
    last = info.get("last_token_usage") if isinstance(info, dict) else None
    total = last.get("total_tokens") if isinstance(last, dict) else None
    return total if isinstance(total, int) and not isinstance(total, bool) and total > 0 else None
