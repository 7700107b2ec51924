"""What both model protocols share: the words of a script, what a request brings, and server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Say:
    """The model says this and ends its turn."""

    text: str


@dataclass(frozen=True)
class Run:
    """The model runs a shell command with the client's own tool, and is called again with the outcome.

    In the background the client answers at once and the command goes on.
    """

    command: str
    background: bool = False


Answer = Union[Say, Run]
Event = dict[str, Any]


@dataclass(frozen=True)
class News:
    """What a request brings that came after the model's last answer, in the order of the request.

    ``user_texts`` holds what the person or a hook said, without the client's wrapping and without the context that
    the client adds by itself. ``hook_feedback`` holds those of them that are reasons of a Stop hook.
    """

    user_texts: tuple[str, ...] = ()
    hook_feedback: tuple[str, ...] = ()
    tool_results: tuple[str, ...] = ()


def event_stream(events: Iterable[Event]) -> bytes:
    """Encode ``events`` as server-sent events, each named by its own ``type``."""
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


class Wire(Protocol):
    """One client's protocol, as the server uses it; the modules ``messages_api`` and ``responses_api`` are such."""

    PATH: str
    SESSION_HEADER: str

    def is_main(self, body: dict[str, Any]) -> bool:
        """Tell a turn of a conversation from titles, summaries and the like."""

    def read_news(self, body: dict[str, Any]) -> News:
        """Read what came after the model's last answer."""

    def stream(self, answer: Answer, number: int) -> list[Event]:
        """Build the events of a streamed answer; ``number`` makes its ids unique."""

    def whole(self, answer: Answer, number: int) -> dict[str, Any]:
        """Build the same answer as one object."""
