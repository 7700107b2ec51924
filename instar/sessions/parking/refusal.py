"""Why a session is not ended, by a word that stays the same and a sentence for people."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psutil

from instar.sessions.clock import boot_id


class RefusedError(Exception):
    """A session is not ended: `skipped` is the stable word for why, the text the sentence."""

    def __init__(self, skipped: str, why: str) -> None:
        super().__init__(why)
        self.skipped = skipped


def gone(record: dict[str, Any]) -> RefusedError:
    """Return the refusal for a session whose agent is not there."""
    agent = record["agent"]
    if agent.get("boot") == boot_id() and _is_taken(agent["pid"]):
        return RefusedError("identity-mismatch", "another process has the number of the recorded one")
    return RefusedError("already-gone", "its process has ended by itself")


def word_of(record: dict[str, Any]) -> RefusedError:
    """Return the refusal for a record that somebody else has written meanwhile."""
    status = record.get("status")
    if status == "running":
        return RefusedError("recent-user-message", "it was active in this very moment")
    return RefusedError(f"already-{status or 'over'}", "it ended by itself, or is being ended")


def _is_taken(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False
