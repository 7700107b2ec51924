"""What a session of a peer is about, as it is kept: one topic a line, the newest last, none twice."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterable

KEPT: Final = 16
LETTERS_AT_MOST: Final = 200
_UNFIT: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, halves of characters, ends of lines


def clean_topic(topic: str) -> str:
    """Return a topic as it is kept and compared: trimmed. Raise InstarError for one that is no line, or too long."""
    trimmed = topic.strip()
    if any(unicodedata.category(letter) in _UNFIT for letter in trimmed):
        raise InstarError("a topic is one line, without control characters")
    if len(trimmed) > LETTERS_AT_MOST:
        raise InstarError(f"a topic has at most {LETTERS_AT_MOST} characters")
    return trimmed


def parsed(found: bytes) -> list[str]:
    """Return the topics of a file; lines that are none are passed over."""
    return _newest(topic for line in found.split(b"\n") if (topic := _topic(line)))


def written(topics: Iterable[str]) -> bytes:
    """Return topics as they are written."""
    return "".join(f"{topic}\n" for topic in _newest(topics)).encode()


def _newest(topics: Iterable[str]) -> list[str]:
    """Return the newest, each where it came up last."""
    return list(reversed(list(dict.fromkeys(reversed(list(topics))))[:KEPT]))


def _topic(line: bytes) -> str:
    try:
        return clean_topic(line.decode())
    except (ValueError, InstarError):
        return ""
