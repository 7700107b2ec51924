"""Which messages a client takes as they are, and what of a message is to be seen on a screen, whatever draws it.

Measured on Claude Code 2.1.197 and the Codex CLI 0.169.0: what either would change, run or take for a command is told
here, before anything is typed. Both trim a message of the blanks at its two ends.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Final

# Codex takes a megabyte, too, but longer and longer: with half of one no Enter sent it in a quarter of a minute.
CHARACTERS_AT_MOST: Final = {"claude-code": 1 << 20, "codex-cli": 100_000}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LEAVES: Final = {"exit", "quit", ":q", ":q!", ":wq", ":wq!"}
_PICTURE: Final = re.compile(r"\.(?:png|jpe?g|gif|webp|bmp)$", re.IGNORECASE)


def unfit(client: str, message: str) -> str | None:
    """Return why a message cannot be carried as it is, in words for people; None where it can.

    `client` is claude-code or codex-cli.
    """
    text = message.strip()
    if not text:
        return "it is empty"
    if len(message) > CHARACTERS_AT_MOST[client]:
        return f"it has more than {CHARACTERS_AT_MOST[client]} characters: send the path of a file"
    if (found := _CONTROL.search(message)) is not None:
        return f"it holds the control character U+{ord(found[0]):04X}, which would steer the client"
    try:
        message.encode()
    except UnicodeEncodeError:
        return "it holds half of a character"
    return _unfit_for_claude(text) if client == "claude-code" else _unfit_for_codex(text)


def flat(text: str) -> str:
    """Return the letters, figures and signs of a text: what a screen, a record and a transcript show alike."""
    composed = unicodedata.normalize("NFC", text)
    return "".join(each for each in composed if each < "\U00010000" and unicodedata.category(each)[0] in "LNPS")


def _unfit_for_claude(text: str) -> str | None:
    if text.startswith("!"):
        return "it begins with '!', after which Claude Code runs what follows: put a word before it"
    if text.startswith("/"):
        return "it begins with '/', with which the commands of Claude Code do: put a word before it"
    if text.casefold() in _LEAVES:
        return "Claude Code ends when it is told that, and nothing else"
    if "\t" in text:
        return "it holds tabs, of which Claude Code makes blanks: send the path of a file"
    # It looks for pictures where a line or a path begins.
    if any(_is_picture(each) for each in re.split(r" (?=/)|\n", text)):
        return "it holds the path of a picture, in the place of which Claude Code puts the picture: put a word after it"
    return None


def _unfit_for_codex(text: str) -> str | None:
    if _is_picture(text):
        return "it is the path of a picture, in the place of which Codex puts the picture: put a word before it"
    return None


def _is_picture(text: str) -> bool:
    place = text.strip().strip("'\"").replace("\\ ", " ")
    if not _PICTURE.search(place):
        return False
    with suppress(OSError, ValueError):
        return Path(place).is_file()
    return True
