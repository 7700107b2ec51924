"""What the clients say to a hook at each event that we register for: measured, with a session that owns nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from migrator.doctor.findings import DOCTOR_SESSION

if TYPE_CHECKING:
    from migrator.registration import Client

_ID: Final = "00000000-0000-4000-8000-000000000000"
_STOP: Final = {"stop_hook_active": False, "last_assistant_message": "This is instar-migrate doctor."}
_CODEX_TURN: Final = {"turn_id": _ID, "model": "gpt-5", "permission_mode": "default"}

# client -> event -> what it says beside session, transcript, folder and event
_FIELDS: Final[dict[Client, dict[str, dict[str, Any]]]] = {
    "claude": {
        "Stop": {
            "prompt_id": _ID,
            "permission_mode": "default",
            "effort": {"level": "high"},
            **_STOP,
            "background_tasks": [],
            "session_crons": [],
        },
        "SessionStart": {"source": "startup"},
        "UserPromptSubmit": {"prompt_id": _ID, "permission_mode": "default", "prompt": "Hello."},
        "SessionEnd": {"prompt_id": _ID, "reason": "other"},
        "PreCompact": {"prompt_id": _ID, "trigger": "manual", "custom_instructions": ""},
    },
    "codex": {
        "Stop": {**_CODEX_TURN, **_STOP},
        "SessionStart": {"model": "gpt-5", "permission_mode": "default", "source": "startup"},
        "UserPromptSubmit": {**_CODEX_TURN, "prompt": "Hello."},
        "SessionEnd": {"reason": "other"},
        "PreCompact": {**_CODEX_TURN, "trigger": "manual"},
    },
}


def payload(client: Client, event: str, cwd: str) -> str:
    """Return what the client writes to a hook's stdin."""
    base = {
        "session_id": DOCTOR_SESSION,
        "transcript_path": os.devnull,
        "cwd": cwd,
        "hook_event_name": event,
    }
    said = json.dumps({**base, **_FIELDS[client].get(event, {})}, separators=(",", ":"))
    return said + "\n" if client == "claude" else said
