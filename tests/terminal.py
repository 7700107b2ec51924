"""The terminal of a stand-in for a client: what is typed into it, and what Claude Code draws of that.

Stand-ins run as programs, perhaps isolated: they put this folder on their path.
"""

from __future__ import annotations

import codecs
import os
import re

RULE = "─" * 60
TAKES_PASTES = "\x1b[?2004h"

_DECODER = codecs.getincrementaldecoder("utf-8")("surrogateescape")
_PASTE_OR_KEY = re.compile(r"\x1b\[200~(.*?)\x1b\[201~|(.)", re.DOTALL)


def read() -> str:
    """Return what was typed meanwhile; a character that is not whole yet comes with the next."""
    return _DECODER.decode(os.read(0, 1 << 16))


def read_keys() -> list[tuple[str, str]]:
    """Return what was typed meanwhile, each a paste that is whole, or else a key."""
    keys = read()
    while keys.count("\x1b[200~") != keys.count("\x1b[201~"):
        keys += read()
    return _PASTE_OR_KEY.findall(keys)


def composer(typed: str) -> str:
    """Return what Claude Code draws of what is typed and not sent."""
    footer = "" if typed else "  ? for shortcuts"
    return f"{RULE}\r\n❯ {typed}\r\n{RULE}\r\n{footer}\r\n"  # noqa: RUF001 - it is what Claude draws
