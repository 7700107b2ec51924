"""What a client says to a hook on standard input, and what a hook may answer.

Both clients send one JSON object and read one back. The only answers both accept are ``{}`` (go on as if there
were no hook) and ``{"decision": "block", "reason": "<not empty>"}`` (do not stop), each with exit status 0 and
nothing else on standard output; ``systemMessage`` is the one extra key that neither of them rejects. Measured on
Claude Code 2.1.197 and Codex CLI 0.169.0.
"""

from __future__ import annotations

import os
import time

from hooks.common.files import write_all
from hooks.common.jsontext import dumps, loads
from hooks.common.trouble import tell
from hooks.common.values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hooks.common.trouble import Trouble

ALLOW: dict[str, Any] = {}

EVENT_BYTES_AT_MOST = 8 * 1024 * 1024
EVENT_SECONDS_AT_MOST = 0.8


def secure_standard_streams() -> None:
    """Give descriptors 0 to 2 something to be, so that no file opened later becomes standard output."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one


def read_event(fd: int = 0) -> dict[str, Any]:
    """Return the event on standard input, or ``{}`` where none can be read in time.

    A client that never closes the pipe is answered as soon as what it sent is a whole object.
    """
    import select  # not at the top: a start with nothing to read must not pay for it

    deadline = time.monotonic() + EVENT_SECONDS_AT_MOST
    received = bytearray()
    try:
        while len(received) < EVENT_BYTES_AT_MOST:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                break
            chunk = os.read(fd, 1 << 16)
            received += chunk
            if not chunk:
                break
            if len(chunk) < 1 << 16 and chunk.rstrip().endswith(b"}"):
                event = parse_event(received)
                if event:
                    return event
    except (OSError, ValueError):
        pass
    return parse_event(received)


def parse_event(received: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in `received`; ``{}`` for anything else. Broken UTF-8 costs only its own text."""
    try:
        event = loads(received.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def prompt_id(event: dict[str, Any]) -> str:
    """Return the id of the prompt that an event belongs to: the one of Claude Code, or the other of Codex."""
    return text_of(event, "prompt_id") or text_of(event, "turn_id")


def let_go(root: str, role: str, trouble: Trouble) -> dict[str, Any]:
    """Return the answer to a stop that cannot be judged: it is allowed, and the person told why."""
    message = tell(root, role, trouble)
    return {"systemMessage": f"{message} The stop was allowed."} if message else ALLOW


def block(reason: str) -> dict[str, Any]:
    """Return the answer that keeps the session from stopping; the model receives `reason`."""
    return {"decision": "block", "reason": reason}


def answer(reply: dict[str, Any], fd: int = 1) -> None:
    """Write `reply` as ASCII JSON. A client that no longer listens is no error."""
    try:
        write_all(fd, dumps(reply).encode("ascii"))
    except OSError:
        pass
