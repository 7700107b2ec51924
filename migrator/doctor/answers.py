"""What a hook may answer to a client, and what is wrong with an answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from migrator.doctor.findings import Level
    from migrator.doctor.programs import Ran

_STOP_KEYS: Final = frozenset({"decision", "reason", "systemMessage"})
_EXCERPT: Final = 120


class Complaint(NamedTuple):
    """What is wrong with an answer; the words follow the name of the hook."""

    code: str
    words: str
    level: Level = "error"


def complaint(event: str, ran: Ran, seconds: float, *, is_bare: bool = False) -> Complaint | None:
    """Return what a client would reject, or a person suffer from, in the answer to a session that owns nothing."""
    if ran.is_flood:
        return Complaint("hook-output", "prints without an end")
    if ran.status is None:
        return Complaint("hook-hangs", f"does not end within its {seconds:g} s")
    if is_bare and (ran.status or ran.stderr.strip()):
        return Complaint("hook-dies", f"ends with status {ran.status} and says {_quoted(_last_line(ran.stderr))}")
    if ran.status:
        words = " and makes the client call its model again and again" if ran.status == 2 else ""  # noqa: PLR2004
        return Complaint("hook-status", f"ends with status {ran.status}, where only 0 is let pass{words}")
    return _said(event, ran.stdout) if ran.stdout.strip() else None


def _said(event: str, stdout: str) -> Complaint | None:
    try:
        answer = json.loads(stdout)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not stdout.isascii():
        return Complaint("hook-output", f"prints {_quoted(stdout)}, which is not one ASCII JSON object")
    unknown = sorted(answer.keys() - (_STOP_KEYS if event == "Stop" else {"systemMessage"}))
    if unknown:
        return Complaint("hook-output", f"answers with {', '.join(unknown)}, for which Codex drops the whole answer")
    if answer.get("decision") == "block":
        return Complaint("hook-holds-strangers", "holds a session that owns nothing")
    if "decision" in answer or "reason" in answer:
        return Complaint("hook-output", f"answers {_quoted(stdout)}, which Codex calls failed")
    if "systemMessage" in answer:
        return Complaint("hook-trouble", f"lets go and says {_quoted(str(answer['systemMessage']))}", "warning")
    return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]


def _quoted(text: str) -> str:
    words = " ".join(text.split())
    return f'"{words[:_EXCERPT]}{"..." if len(words) > _EXCERPT else ""}"'
