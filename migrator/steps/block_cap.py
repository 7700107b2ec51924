"""How often Claude Code lets a Stop hook hold a session in a row.

It ends a turn at the 9th block without a tool call in between, and the largest build may be held 10 times; an 11th
block is never given. (Measured on 2.1.197: a cap of N ends the turn at block N + 1.)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from migrator.changes import Change, Note
from migrator.files import look, pristine
from migrator.json_spans import MISSING, JsonTextError, delete, get, parse, put
from migrator.registration import SETTINGS
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.project import Project

VARIABLE: Final = "CLAUDE_CODE_STOP_HOOK_BLOCK_CAP"
CAP: Final = "11"
LOCAL: Final = ".claude/settings.local.json"  # of this machine alone: what others work with is theirs to set
_WHERE: Final = ("env", VARIABLE)


def install(project: Project) -> Iterator[Change | Note]:
    """Set the cap in the project's local settings, where nobody has set it anywhere."""
    if "claude" not in project.clients:
        yield from uninstall(project)
        return
    for place, value in _found(project):
        if not value.isdecimal() or 0 < int(value) < int(CAP):
            yield Note("warning", f"{VARIABLE} is {value!r} in {place}: Claude Code may end a turn that a build holds")
        return
    yield from edited(project, PART, "let Claude Code hold the largest build 10 times")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Take the cap out, if it is ours: it is not where we never changed the file."""
    if pristine(project.root, LOCAL)[0]:
        yield from restored(project, PART, "take our block cap out")


def set_cap(text: str | None) -> str:
    """Return the settings with the cap set; one that is there stays."""
    text = "{}\n" if text is None else text
    return text if get(text, _WHERE) is not MISSING else put(text, _WHERE, CAP)


def remove_cap(text: str, at_first: str | None) -> str | None:
    """Return the settings without our cap, and without what is empty now and was not there at first."""
    first = "{}" if at_first is None else at_first
    if get(text, _WHERE) != CAP or get(first, _WHERE) is not MISSING:
        return text
    text = delete(text, _WHERE)
    if get(text, _WHERE[:1]) == {} and get(first, _WHERE[:1]) is MISSING:
        text = delete(text, _WHERE[:1])
    return None if at_first is None and parse(text) == {} else text


PART: Final = Part(LOCAL, set_cap, remove_cap, {("env",): dict})


def _found(project: Project) -> Iterator[tuple[str, str]]:
    """Yield each place that sets the cap, the strongest first: the project's settings, and the user's own."""
    home = os.environ.get("CLAUDE_CONFIG_DIR") or str(Path.home() / ".claude")
    for root, path in ((project.root, LOCAL), (project.root, SETTINGS["claude"]), (Path(home), "settings.json")):
        try:
            found = look(root, path)
            value = get(found.data.decode(), _WHERE) if found else MISSING
        except (InstarError, JsonTextError, UnicodeDecodeError):
            continue
        if value is not MISSING:
            yield str(root / path), str(value)
