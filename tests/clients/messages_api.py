"""The Messages API, as far as Claude Code 2.1.197 needs it from a model server."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .wire import Answer, Call, Event, News, Say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = "/v1/messages"
SESSION_HEADER = "x-claude-code-session-id"

_FEEDBACK = "Stop hook feedback:\n"
# What Claude adds by itself: reminders, and the trace of a slash command.
_OWN_CONTEXT = re.compile(r"\s*<(system-reminder|local-command-caveat|command-name|local-command-stdout)>.*", re.DOTALL)


def is_main(body: dict[str, Any]) -> bool:
    """Tell a turn of a conversation (or of a subagent) from titles, summaries and the like."""
    return bool(body.get("stream") and body.get("tools"))


def read_news(body: dict[str, Any]) -> News:
    """Read what followed the last assistant message."""
    blocks = list(_new_user_blocks(body["messages"]))
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    said = [text for text in texts if not _OWN_CONTEXT.match(text)]
    return News(
        user_texts=tuple(text.removeprefix(_FEEDBACK) for text in said),
        hook_feedback=tuple(text.removeprefix(_FEEDBACK) for text in said if text.startswith(_FEEDBACK)),
        tool_results=tuple(_joined_text(block["content"]) for block in blocks if block["type"] == "tool_result"),
    )


def stream(answer: Answer, number: int) -> list[Event]:
    """Build the events of a streamed answer; ``number`` makes its ids unique."""
    final = whole(answer, number)
    block = final["content"][0]
    if block["type"] == "tool_use":
        opening = {**block, "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
    else:
        opening = {**block, "text": ""}
        delta = {"type": "text_delta", "text": block["text"]}
    return [
        {"type": "message_start", "message": {**final, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": opening},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": final["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": 1},
        },
        {"type": "message_stop"},
    ]


def whole(answer: Answer, number: int) -> dict[str, Any]:
    """Build the same answer as one message object."""
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "fake",
        "content": [_block(answer, number)],
        "stop_reason": "end_turn" if isinstance(answer, Say) else "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }


def _block(answer: Answer, number: int) -> dict[str, Any]:
    if isinstance(answer, Say):
        return {"type": "text", "text": answer.text}
    if isinstance(answer, Call):
        return {"type": "tool_use", "id": f"toolu_{number}", "name": answer.tool, "input": answer.arguments}
    arguments: dict[str, Any] = {"command": answer.command, "description": "scripted command"}
    if answer.background:
        arguments["run_in_background"] = True
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "Bash", "input": arguments}


def _new_user_blocks(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    answered = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    for message in messages[answered[-1] + 1 if answered else 0 :]:
        if message["role"] == "user":
            yield from _as_blocks(message["content"])


def _as_blocks(content: str | Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _joined_text(content: str | Iterable[dict[str, Any]]) -> str:
    return "".join(block.get("text", "") for block in _as_blocks(content))
