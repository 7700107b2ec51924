"""Stop hook of Claude Code and Codex: has the project's server look at a stop that excuses itself with its context.

stdin   the client's Stop event; used: `session_id`, `stop_hook_active`, `cwd`, and the last words of the agent
stdout  ``{"decision": "block", "reason": ...}`` when the server, in enforce, wants the session to go on; else ``{}``;
        `systemMessage` beside it tells the person what went wrong
exit    0, always
files   .instar/server-data/: `gate-on` (the mode, and for how many milliseconds the server may think), `endpoint.json`,
        `token`

Nothing is asked without a signal in the agent's words, about a session that its own build still holds, or twice in one
prompt. In shadow the stop is handed over and never waited for. The token goes to the living process of the server
alone, on this machine. Whatever fails, the session may stop, and the log has a line.
"""

from __future__ import annotations

import os
import time

from hooks.common.budget import is_spent
from hooks.common.clock import iso
from hooks.common.endpoint import server_of, token_of
from hooks.common.identity import Self
from hooks.common.jsontext import dumps, loads
from hooks.common.ownership import owned
from hooks.common.project import installed_root
from hooks.common.protocol import ALLOW, answer, block, let_go, read_event, secure_standard_streams
from hooks.common.records import Records, is_session_id
from hooks.common.signals import TEXT_CHARACTERS, detect
from hooks.common.statefile import Build
from hooks.common.trouble import Trouble
from hooks.common.values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROLE = "stop-gate-router"
ROUTE = "/internal/stop-gate/evaluate"
BUDGET_MS = 2000
BUDGET_MS_AT_MOST = 8000
GRACE_S = 0.5  # for the way there and back
HAND_OVER_S = 0.3
FRESH_S = 5.0
REPLY_BYTES_AT_MOST = 1 << 20
REMINDER_CHARACTERS_AT_MOST = 1000
STATUS_OK = b"200"


def main() -> int:
    """Answer one Stop event."""
    secure_standard_streams()
    root = installed_root(__file__)
    reply = ALLOW
    if root:
        try:
            reply = route(root, read_event())
        except Trouble as trouble:
            reply = let_go(root, ROLE, trouble)
        except Exception as error:  # noqa: BLE001 - a hook that dies holds nobody and says nothing
            reply = let_go(root, ROLE, Trouble("unexpected", f"{type(error).__name__}: {error}"))
    answer(reply)
    return 0


def route(root: str, event: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a Stop event."""
    mode, budget_ms = gate(root)
    if not mode or event.get("stop_hook_active") or os.environ.get("INSTAR_GATE_CHILD"):
        return ALLOW
    said = text_of(event, "stop_reason") or text_of(event, "reason") or text_of(event, "last_assistant_message")
    signals = detect(said)
    if not signals:
        return ALLOW
    session = text_of(event, "session_id")
    if not is_session_id(session):
        raise Trouble("unbound_session", f"a stop that names no session cannot be evaluated: {session!r:.80}")
    if is_held_by_its_build(root, session):
        return ALLOW
    question = {
        "sessionId": session,
        "cwd": text_of(event, "cwd"),
        "evidenceMetadata": {"artifacts": [], "evidenceSource": "server", "signals": dict.fromkeys(signals, True)},
        "untrustedContent": {"stopReason": ending(said), "recentTurns": []},
    }
    if mode == "shadow":
        consult(root, question, 0)
        return ALLOW
    return judged(consult(root, question, budget_ms))


def ending(said: str) -> str:
    """Return the end of a text, from the beginning of a word on: half of a secret could not be told as one."""
    return said if len(said) <= TEXT_CHARACTERS else said[-TEXT_CHARACTERS:].partition(" ")[2]


def gate(root: str) -> tuple[str, int]:
    """Return the mode of the gate, "" where it is off or cannot be told, and the server's time to think."""
    try:
        with open(os.path.join(root, ".instar", "server-data", "gate-on"), encoding="ascii") as file:
            words = file.read(100).split()
    except (OSError, ValueError):
        return "", 0
    mode = words[0] if words and words[0] in ("shadow", "enforce") else ""
    budget_ms = int(words[1]) if len(words) > 1 and words[1].isdecimal() else BUDGET_MS
    return mode, min(budget_ms, BUDGET_MS_AT_MOST)


def is_held_by_its_build(root: str, session: str) -> bool:
    """Say whether the build's own hook cares for this stop; what is wrong with a build, that hook tells.

    It runs at the same time, and may just have given the last hold: one that held since the last prompt counts still.
    """
    build = Build(root)
    try:
        found = owned(build, Self(session, os.environ)) if os.path.lexists(build.state_path) else None
        if found is None or not is_spent(found[0]):
            return found is not None
    except Trouble:
        return False
    prompt = Records(root).load(session).get("lastPrompt")
    prompted = text_of(prompt, "at") if isinstance(prompt, dict) else ""
    return text_of(found[0], "lastHeldAt") >= (prompted or iso(time.time() - FRESH_S))


def judged(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to the client for a reply of the server."""
    reminder = "".join(each for each in text_of(reply, "reminder") if each == "\n" or each.isprintable()).strip()
    if reply.get("decision") != "continue" or reply.get("mode") != "enforce" or not reminder:
        return ALLOW
    return block(reminder[:REMINDER_CHARACTERS_AT_MOST])


def consult(root: str, question: dict[str, Any], budget_ms: int) -> dict[str, Any]:
    """Send the question to the server and return its reply; without a budget it is not waited for.

    Raise `Trouble` where there is no server, or no reply in time that can be used.
    """
    import socket

    port = server_of(root)
    if port is None:
        raise Trouble(
            "server_gone", "the stop gate is on and its server is not running: start it with instar-server start"
        )
    body = dumps(question).encode("ascii")
    head = [
        f"POST {ROUTE} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token_of(root)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Instar-Gate-Budget-Ms: {budget_ms}",
        "Connection: close",
    ]
    if any("\n" in line or "\r" in line for line in head):
        raise Trouble("bad_token", "the token of the server is no single line")
    deadline = time.monotonic() + (budget_ms / 1000 + GRACE_S if budget_ms else HAND_OVER_S)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HAND_OVER_S) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body)
            received = receive(connection, deadline) if budget_ms else b""
    except OSError as error:
        raise Trouble("server_unreachable", f"the server of the stop gate cannot be asked: {error}") from error
    return parsed(received) if budget_ms else {}


def receive(connection: Any, deadline: float) -> bytes:
    """Return all that the server sends until it closes. Raise `Trouble` at the deadline, however it drips till then."""
    import socket

    received = b""
    while len(received) <= REPLY_BYTES_AT_MOST:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection.settimeout(left)
        try:
            chunk = connection.recv(1 << 16)
        except socket.timeout:
            break
        if not chunk:
            return received
        received += chunk
    raise Trouble("server_slow", "the server of the stop gate did not answer in time")


def parsed(received: bytes) -> dict[str, Any]:
    """Return the JSON object of an HTTP reply. Raise `Trouble` for any other reply."""
    head, _, body = received.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    try:
        reply = loads(body.decode("utf-8")) if status == [STATUS_OK] else None
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        told = status[0].decode("ascii", "replace") if status else "nothing"
        raise Trouble("server_refused", f"the server of the stop gate answered with no verdict: {told:.20}")
    return reply


if __name__ == "__main__":
    os._exit(main())  # nothing is left to flush, and taking the interpreter down costs a tenth of a start
