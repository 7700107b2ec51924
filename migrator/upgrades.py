"""The upgrade guides: what a release changed for the people who run it, shown once after migrating to it."""

from __future__ import annotations

from typing import NamedTuple

from instar import __version__
from migrator.inlined import GUIDES


class Guide(NamedTuple):
    """What one release has to say."""

    version: str
    text: str


def since(version: object) -> list[Guide]:
    """Return the guides of the releases after `version`, up to this one, oldest first.

    None for what is no version: a project that is set up for the first time has nothing to be told.
    """
    had = _parsed(version)
    if had is None:
        return []
    now = _parsed(__version__) or had
    found = {parsed: Guide(name, text) for name, text in GUIDES.items() if (parsed := _parsed(name))}
    return [found[parsed] for parsed in sorted(found) if had < parsed <= now]


def _parsed(version: object) -> tuple[int, ...] | None:
    """Return a version as it is compared."""
    words = version.split(".") if isinstance(version, str) else [""]
    return tuple(map(int, words)) if all(word.isdecimal() and word.isascii() for word in words) else None
