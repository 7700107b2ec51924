"""Our registrations: each where it belongs, once, as this release writes it, and naming what is there."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Final

from migrator import peer
from migrator.doctor.findings import Examined, Finding, broken, ok
from migrator.manifest import HOOKS_FOLDER
from migrator.registration import EVENTS, handlers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.doctor.findings import Level
    from migrator.doctor.settings_files import Handler, SettingsFile

SECONDS_AT_MOST: Final = 1000  # more of them were meant as milliseconds
_LAUNCHER: Final = f"{HOOKS_FOLDER}/run"
_PROJECT: Final = re.compile(r"\$\{?(CLAUDE_PROJECT_DIR|PWD)(:-\$PWD)?\}?|^\./")


def check(examined: Examined) -> Iterator[Finding]:
    """Yield what is wrong with the registrations in the project, and beside it in the person's own files."""
    found = [
        *_dangling(examined),
        *(each for file in examined.settings if file.is_ours for each in _of_file(examined, file)),
        *_fired_twice(examined.settings),
    ]
    yield from found
    names = [file.name for file in examined.settings if file.is_ours]
    if not found:
        yield ok("registrations", f"every hook is registered once in {' and '.join(names)}")


def _of_file(examined: Examined, file: SettingsFile) -> Iterator[Finding]:
    if file.problem:
        return  # named by the check of the client's settings
    ours = [handler for handler in file.handlers() if handler.role]
    left = _left_to_peer(examined, file)
    missing = [
        f"{role} at {event}"
        for event in EVENTS
        for role in handlers(file.client, event)
        if not any((handler.event, handler.role) == (event, role) for handler in ours) and (event, role) not in left
    ]
    if missing:
        yield broken("missing-registration", f"{file.name} does not register {', '.join(missing)}")
    places = [(handler.event, handler.role) for handler in ours]
    for event, role in dict.fromkeys(place for place in places if places.count(place) > 1):
        count = places.count((event, role))
        yield broken("duplicate-registration", f"{file.name} registers {role} {count} times at {event}")
    edited: dict[tuple[str, str], list[str]] = {}
    for handler in ours:
        if difference := _difference(file, handler):
            edited.setdefault(difference, []).append(handler.where)
    for (code, words), entries in edited.items():
        level: Level = "error" if code == "wrong-timeout" else "warning"
        yield broken(code, f"{', '.join(entries)} in {file.name} {words}", level=level)


def _left_to_peer(examined: Examined, file: SettingsFile) -> set[tuple[str, str | None]]:
    """Return what ours need not do, by event and role: the peer's own hook is registered for it, and is there."""
    roles = frozenset() if examined.project.takes_over else peer.standing(examined.root)
    held = {(handler.event, peer.role_of(handler.entry)) for handler in file.handlers()}
    return {(event, role) for event, role in held if role in roles}


def _difference(file: SettingsFile, handler: Handler) -> tuple[str, str] | None:
    """Return how an entry differs from what this release registers, as a code and in words."""
    timeout = handler.entry.get("timeout")
    if isinstance(timeout, (int, float)) and timeout >= SECONDS_AT_MOST:
        return "wrong-timeout", f"has a timeout of {timeout:g}: that is seconds, not milliseconds"
    wanted = handlers(file.client, handler.event).get(str(handler.role))
    if wanted is None:
        return "edited-registration", f"runs {handler.role} at an event that this release does not use"
    differing = [key for key, value in wanted.items() if handler.entry.get(key) != value]
    if not differing:
        return None
    return "edited-registration", f"is not what this release registers: its {', '.join(differing)} differs"


def _dangling(examined: Examined) -> Iterator[Finding]:
    """Yield the commands that run a file below .instar/hooks that is not there; Codex may loop on one."""
    in_project = [(file, each) for file in examined.settings if file.is_projects for each in file.handlers()]
    if not (examined.root / _LAUNCHER).exists():
        names = list(dict.fromkeys(file.name for file, handler in in_project if handler.role))
        if names:
            yield broken("dangling", f"the commands in {', '.join(names)} run {_LAUNCHER}, which is not there")
    for file, handler in in_project:
        for path in () if handler.role else _hook_paths(handler.command, str(examined.root)):
            if not (examined.root / path).exists():
                text = f"{handler.where} in {file.name} runs {path}, which is not there"
                yield Finding("dangling", "error", text, f"bring that file back, or take the hook out of {file.name}")


def _hook_paths(command: str, root: str) -> Iterator[str]:
    """Yield the files below .instar/hooks that a command names, as far as that can be told."""
    try:
        words = shlex.split(command)
    except ValueError:
        return
    for word in words:
        path = _PROJECT.sub(lambda found: "" if found[0] == "./" else root, word).rstrip(";")
        if ".instar/hooks/" in path and path.startswith(("/", ".instar/")) and "$" not in path:
            yield path.removeprefix(root + "/")


def _fired_twice(files: tuple[SettingsFile, ...]) -> Iterator[Finding]:
    """Yield what runs once more from another file. Claude runs one command once, wherever it stands; Codex does not."""
    for ours in (file for file in files if file.is_ours):
        known: dict[tuple[str, str | None], str] = {}
        known.update(((each.event, each.role), each.command) for each in ours.handlers() if each.role)
        for file in files:
            if file.client != ours.client or file.is_ours:
                continue
            again = [
                each
                for each in file.handlers()
                if (first := known.get((each.event, each.role))) is not None
                and (file.client == "codex" or first != each.command)
            ]
            if again:
                roles = ", ".join(dict.fromkeys(f"{each.role} at {each.event}" for each in again))
                text = f"{file.name} runs {roles} once more, beside {ours.name}"
                yield Finding("fires-twice", "error", text, f"take that hook out of {file.name}")
