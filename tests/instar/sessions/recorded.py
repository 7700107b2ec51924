"""Transcripts that the real clients wrote, scrubbed and cut: only what they are made of is as it was."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent / "transcripts"

_CLOSED = {
    "claude-code": """
        after-tool after-turn api-error background-agent-reported background-shell compacted compacted-after-kill
        cron-after-clear cron-created cron-deleted cron-fired cron-listed cron-once cron-resumed headless-after-turn
        headless-forked headless-resumed interrupted-mid-stream interrupted-mid-tool local-command max-tokens
        permission-rejected queued-and-answered queued-and-taken queued-through-interruption refusal
        shell-of-the-person stop-hook-over stop-hook-running subagent-over turn-after-clear turn-after-compaction
        two-tools-interrupted
    """,
    "codex-cli": """
        after-turn agent-behind api-error background-shell compacted goal headless-after-turn headless-resumed
        interrupted-mid-stream interrupted-mid-tool permission-rejected queued-and-taken queued-through-interruption
        shell-of-the-person stop-hook-over turn-after-clear turn-after-compaction
    """,
}
_OPEN = {
    "claude-code": """
        background-agent-running in-tool interrupted-before-output killed local-command-mid-stream mid-message
        mid-stream permission-dialog queued-mid-stream queued-mid-tool resumed-after-kill stop-hook-blocked
        stop-hook-context subagent-running two-tools waiting
    """,
    "codex-cli": """
        agent-of-another in-tool killed mid-stream permission-dialog queued-mid-tool resumed-after-kill
        stop-hook-blocked stop-hook-running
    """,
}
_UNKNOWN = {"claude-code": "cleared"}

STATES = {
    (client, name): state
    for state, named in (("closed", _CLOSED), ("open", _OPEN), ("unknown", _UNKNOWN))
    for client, names in named.items()
    for name in names.split()
}
VERSIONS = {"claude-code": "2.1.197", "codex-cli": "0.169.0"}


def recorded(client: str, name: str) -> Path:
    """Return where a recorded transcript is."""
    return FOLDER / client / f"{name}.jsonl"
