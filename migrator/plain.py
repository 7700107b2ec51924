"""Words of others, as a terminal may be told them."""

from __future__ import annotations

import sys
from typing import Final

LINE_CHARACTERS: Final = 200


def plain(text: str) -> str:
    """Return a text on one line with nothing in it that steers a terminal: names and texts of files are anybody's."""
    return "".join(each if each.isprintable() else " " for each in text)


def plain_line(text: object) -> str:
    """Return what somebody wrote, whatever it is, as the beginning of such a line."""
    return plain(str(text))[:LINE_CHARACTERS].strip()


def plain_on_terminal(text: str) -> str:
    """Return the same where a terminal reads it, tabs kept; a pipe gets a text as it is."""
    return "\t".join(map(plain, text.split("\t"))) if sys.stdout.isatty() else text
