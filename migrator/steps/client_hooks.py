"""Our registrations in the settings of both clients; whatever else stands there is not touched."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from migrator.json_spans import MISSING, JsonTextError, append, delete, get, parse, put
from migrator.registration import CLIENTS, EVENTS, SETTINGS, Client, handlers, role_of
from migrator.steps.user_files import edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change, Note
    from migrator.project import Project


class Found(NamedTuple):
    """One of our handlers in a settings file."""

    group: int
    position: int
    role: str
    entry: dict[str, Any]


def install(project: Project) -> Iterator[Change | Note]:
    """Register with the chosen clients, and with no other."""
    for client in CLIENTS:
        if client in project.clients:
            yield from edited(project, SETTINGS[client], partial(register, client=client), "register the hooks")
        else:
            yield from _restored(project, client)


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Take our registrations out."""
    for client in CLIENTS:
        yield from _restored(project, client)


def _restored(project: Project, client: Client) -> Iterator[Change | Note]:
    edit = partial(register, client=client)
    return restored(project, SETTINGS[client], edit, unregister, "take our hooks out")


def register(text: str | None, client: Client) -> str:
    """Return the settings with each of our hooks registered exactly once. Raise `JsonTextError`."""
    text = "{}\n" if text is None else text
    for event in _events(text):
        text = _register_event(text, client, event)
    return text


def _register_event(text: str, client: Client, event: str) -> str:
    wanted = handlers(client, event)
    first = {found.role: found for found in reversed(_ours(text, event))}
    for found in reversed(_ours(text, event)):
        where = ("hooks", event, found.group, "hooks", found.position)
        if found != first[found.role] or found.role not in wanted:
            text = _drop(text, event, found)
        elif any(found.entry.get(key) != value for key, value in wanted[found.role].items()):
            text = put(text, where, {**found.entry, **wanted[found.role]})
    here = _ours(text, event)
    missing = [entry for role, entry in wanted.items() if role not in {found.role for found in here}]
    if missing and not here:
        return append(text, ("hooks", event), {"hooks": missing})
    for entry in missing:
        text = append(text, ("hooks", event, here[0].group, "hooks"), entry)
    return text


def unregister(text: str, at_first: str | None) -> str | None:
    """Return the settings without our hooks, and without what is empty now and was not there at first."""
    original = _parsed(at_first)
    for event in _events(text):
        for found in reversed(_ours(text, event)):
            text = _drop(text, event, found)
        if get(text, ("hooks", event)) == [] and event not in _object(original, "hooks"):
            text = delete(text, ("hooks", event))
    if get(text, ("hooks",)) == {} and "hooks" not in original:
        text = delete(text, ("hooks",))
    return None if at_first is None and parse(text) == {} else text


def _drop(text: str, event: str, found: Found) -> str:
    """Remove a handler of ours, and its group if there is no other in it."""
    group = ("hooks", event, found.group)
    is_alone = len(get(text, (*group, "hooks"))) == 1
    return delete(text, group if is_alone else (*group, "hooks", found.position))


def _ours(text: str, event: str) -> list[Found]:
    """Return our handlers at an event, in the order they stand."""
    groups = get(text, ("hooks", event))
    if groups is MISSING:
        return []
    if not isinstance(groups, list):
        raise JsonTextError(f'key "hooks.{event}" is no list')
    return [
        Found(number, index, role, entry)
        for number, group in enumerate(groups)
        for index, entry in enumerate(_list(group, "hooks"))
        if (role := role_of(entry))
    ]


def _events(text: str) -> list[str]:
    """Return our events, and those of the file that have something of ours."""
    hooks = get(text, ("hooks",))
    if not isinstance(hooks, dict):
        return list(EVENTS)
    others = [event for event in hooks if event not in EVENTS and isinstance(hooks[event], list) and _ours(text, event)]
    return [*EVENTS, *others]


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        value = parse(text) if text is not None else {}
    except JsonTextError:
        return {}
    return value if isinstance(value, dict) else {}


def _object(values: dict[str, Any], key: str) -> dict[str, Any]:
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _list(values: object, key: str) -> list[Any]:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, list) else []
