"""The Responses API, as far as Codex CLI 0.169.0 needs it from a model server."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, Any

from .wire import Answer, Call, Event, News, Say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PATH = "/v1/responses"
SESSION_HEADER = "session-id"

_OWN_CONTEXT = ("<environment_context>", "# AGENTS.md instructions", "<user_instructions>")
_FEEDBACK = re.compile(r'<hook_prompt hook_run_id="[^"]*">(.*)</hook_prompt>', re.DOTALL)
_INPUT_TYPES = ("message", "function_call_output")
_OUTPUT_HEADER = re.compile(r"Chunk ID: .*?\nOutput:\n", re.DOTALL)
_BACKGROUND_YIELD_MS = 250  # the shortest time that the tool accepts


def is_main(body: dict[str, Any]) -> bool:
    """Tell a turn of a conversation from anything else that Codex may ask."""
    return bool(body.get("stream") and body.get("tools"))


def read_news(body: dict[str, Any]) -> News:
    """Read what followed the last output of the model."""
    items = _new_input(body["input"])
    texts = [text for text in _user_texts(items) if not text.startswith(_OWN_CONTEXT)]
    feedback = [unescape(match[1]) for match in map(_FEEDBACK.fullmatch, texts) if match]
    outputs = [item["output"] for item in items if item["type"] == "function_call_output"]
    return News(
        user_texts=tuple(_unwrapped(text) for text in texts),
        hook_feedback=tuple(feedback),
        tool_results=tuple(_OUTPUT_HEADER.sub("", output, count=1).rstrip("\n") for output in outputs),
    )


def stream(answer: Answer, number: int) -> list[Event]:
    """Build the events of a streamed answer; ``number`` makes its ids unique."""
    item = _item(answer, number)
    events: list[Event] = [
        {"type": "response.created", "response": {"id": f"resp_{number}"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole(answer, number)},
    ]
    if isinstance(answer, Say):
        place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
        events.insert(2, {"type": "response.output_text.delta", **place, "delta": answer.text})
    return events


def whole(answer: Answer, number: int) -> dict[str, Any]:
    """Build the same answer as one response object."""
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    details = {"input_tokens_details": None, "output_tokens_details": None}
    return {"id": f"resp_{number}", "output": [_item(answer, number)], "usage": {**usage, **details}}


def _item(answer: Answer, number: int) -> dict[str, Any]:
    if isinstance(answer, Say):
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        return {
            "type": "message",
            "role": "assistant",
            "id": f"msg_{number}",
            "status": "completed",
            "content": content,
        }
    if isinstance(answer, Call):
        return _call(answer.tool, answer.arguments, number)
    arguments: dict[str, Any] = {"cmd": answer.command}
    if answer.background:
        arguments["yield_time_ms"] = _BACKGROUND_YIELD_MS
    return _call("exec_command", arguments, number)


def _call(tool: str, arguments: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{number}",
        "call_id": f"call_{number}",
        "name": tool,
        "arguments": json.dumps(arguments),
        "status": "completed",
    }


def _new_input(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    outputs = [index for index, item in enumerate(items) if not _is_input(item)]
    return items[outputs[-1] + 1 if outputs else 0 :]


def _is_input(item: dict[str, Any]) -> bool:
    return item["type"] in _INPUT_TYPES and item.get("role") != "assistant"


def _user_texts(items: Iterable[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        if item.get("role") == "user":
            yield from (part["text"] for part in item["content"] if part["type"] == "input_text")


def _unwrapped(text: str) -> str:
    match = _FEEDBACK.fullmatch(text)
    return unescape(match[1]) if match else text
