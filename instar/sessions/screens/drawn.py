"""A pane's text as tmux draws it: its rows without the escapes, and which characters of a row stand out by them.

What `capture-pane -e` puts between characters are SGR sequences, links (OSC 8) and shifts to line-drawing characters.
Of the SGR attributes two matter: dim (2), by which clients set a placeholder apart from typed text, and reverse (7),
by which they draw a cursor of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPE: Final = re.compile(
    r"\x1b\[(?P<sgr>[0-9;:]*)m|\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x1b\\|\x07)|\x1b[ -/]*[0-~]|[\x0e\x0f]"
)
_RESET: Final = "\x1b[0"
_COLOURS: Final = {"38", "48", "58"}
_OPERANDS: Final = {"5": 1, "2": 3}  # of a colour: its number, or its red, green and blue


@dataclass(frozen=True)
class Character:
    """A character on the screen, and how it is drawn."""

    text: str
    is_dim: bool = False
    is_reverse: bool = False


def has_escapes(frame: str) -> bool:
    """Say whether a frame tells how its characters are drawn."""
    return "\x1b" in frame


def rows(frame: str) -> list[str]:
    """Return the rows of a frame without escapes and trailing blanks; none for the blank ones at its end."""
    return [row.rstrip() for row in _ESCAPE.sub("", frame).rstrip().split("\n")]


def characters(frame: str, first: int, last: int) -> Iterator[list[Character]]:
    """Yield the rows from number `first` to before number `last`, character by character."""
    lines = frame.split("\n")
    before, wanted = "\n".join(lines[:first]), lines[first:last]
    start = max(before.rfind(_RESET), 0)  # nothing before a reset matters any more
    style = Character("")
    for match in _ESCAPE.finditer(before, start):
        style = _styled(style, match["sgr"])
    for line in wanted:
        row: list[Character] = []
        end = 0
        for match in _ESCAPE.finditer(line):
            row += _drawn(line[end : match.start()], style)
            style, end = _styled(style, match["sgr"]), match.end()
        yield row + _drawn(line[end:], style)


def _drawn(text: str, style: Character) -> list[Character]:
    return [Character(each, style.is_dim, style.is_reverse) for each in text]


def _styled(style: Character, sgr: str | None) -> Character:
    """Return the style after a sequence; what is no SGR sequence leaves it as it was."""
    if sgr is None:
        return style
    is_dim, is_reverse = style.is_dim, style.is_reverse
    left = iter(sgr.split(";"))
    for code in left:
        if code in _COLOURS:
            for _ in range(_OPERANDS.get(next(left, ""), 0)):
                next(left, "")
        elif code in {"", "0"}:
            is_dim = is_reverse = False
        elif code in {"2", "22"}:
            is_dim = code == "2"
        elif code in {"7", "27"}:
            is_reverse = code == "7"
    return Character("", is_dim, is_reverse)
