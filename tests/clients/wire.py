"""What both model protocols share: the words of a script, what a request brings, and server-sent events."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Iterable
    from threading import Event as Moment

EVENTS_UP_TO_THE_TEXT: Final = 3  # in both protocols: what is streamed when the text is there, and its end is not


@dataclass(frozen=True)
class Say:
    """The model says this and ends its turn; with `ends_at` its words are there at once, and the end at that moment."""

    text: str
    ends_at: Moment | None = None


@dataclass(frozen=True)
class Run:
    """The model runs a shell command with the client's own tool, and is called again with the outcome.

    In the background the client answers at once and the command goes on.
    """

    command: str
    background: bool = False


@dataclass(frozen=True)
class Call:
    """The model calls a tool of the client by its name, and is called again with the outcome."""

    tool: str
    arguments: dict[str, Any]


Answer = Union[Say, Run, Call]
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
