"""What Claude Code says of itself: the file it keeps for each of its processes.

`<its folder>/sessions/<pid>.json`, measured on 2.1.197: `status` is "idle", "busy", "waiting" (with `waitingFor`) or
"shell" (the turn is over, a background shell runs). It is documented nowhere, so it only ever adds a reason to keep.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BYTES_AT_MOST: Final = 1 << 16
_FOLDERS_ABOVE: Final = 2  # a transcript is in `<its folder>/projects/<name of the project>/`


@dataclass(frozen=True)
class ClientStatus:
    """A client's own word; texts are "" where it says nothing."""

    session_id: str
    status: str
    waiting_for: str
    version: str


def client_status(transcript: str, agent: dict[str, Any]) -> ClientStatus | None:
    """Return what the process says of itself; None where it says nothing that can be believed to be its own."""
    parents = Path(transcript).parents
    if not transcript or len(parents) <= _FOLDERS_ABOVE:
        return None
    try:
        with (parents[_FOLDERS_ABOVE] / "sessions" / f"{agent['pid']}.json").open("rb") as file:
            said = json.loads(file.read(BYTES_AT_MOST))
    except (OSError, ValueError, RecursionError, KeyError):
        return None
    if not isinstance(said, dict) or str(said.get("procStart")) != agent.get("start"):
        return None
    texts = {key: value for key, value in said.items() if isinstance(value, str)}
    return ClientStatus(
        texts.get("sessionId", ""), texts.get("status", ""), texts.get("waitingFor", ""), texts.get("version", "")
    )
