"""Our registrations in the settings of both clients; whatever else stands there is not touched."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from migrator.json_spans import MISSING, append, delete, get, parse, put
from migrator.registration import CLIENTS, EVENTS, SETTINGS, Client, handlers, role_of
from migrator.steps.user_files import Part, edited, restored

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
            yield from edited(project, _part(client), "register the hooks")
        else:
            yield from restored(project, _part(client), "take our hooks out")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Take our registrations out."""
    for client in CLIENTS:
        yield from restored(project, _part(client), "take our hooks out")


def _part(client: Client) -> Part:
    return Part(SETTINGS[client], partial(register, client=client), unregister)


def register(text: str | None, client: Client) -> str:
    """Return the settings with each of our hooks registered exactly once. Raise `JsonTextError`."""
    text = "{}\n" if text is None else text
    for event in _events(text):
        text = _register_event(text, client, event)
    return text


def _register_event(text: str, client: Client, event: str) -> str:
    wanted = handlers(client, event)
    ours = _ours(text, event)
    kept = {found.role: found for found in reversed(ours) if found.role in wanted}  # the first of each role
    for found in reversed(ours):  # from the end, so that the positions before it stay true
        is_kept = found is kept.get(found.role)
        text = _correct(text, event, found, wanted[found.role]) if is_kept else _drop(text, event, found)
    if ours and not wanted and get(text, ("hooks", event)) == []:
        return delete(text, ("hooks", event))
    missing = [entry for role, entry in wanted.items() if role not in kept]
    if missing and not kept:
        return append(text, ("hooks", event), {"hooks": missing})
    for entry in missing:
        text = append(text, ("hooks", event, _ours(text, event)[0].group, "hooks"), entry)
    return text


def _correct(text: str, event: str, found: Found, wanted: dict[str, Any]) -> str:
    """Set what differs in a handler of ours; what else the user wrote into it stays."""
    for key, value in wanted.items():
        if found.entry.get(key) != value:
            text = put(text, ("hooks", event, found.group, "hooks", found.position, key), value)
    return text


def unregister(text: str, at_first: str | None) -> str | None:
    """Return the settings without our hooks, and without what is empty now and was not there at first."""
    first = "{}" if at_first is None else at_first
    with_ours = text
    for event in _events(text):
        ours = _ours(text, event)
        for found in reversed(ours):
            text = _drop(text, event, found)
        if ours and get(text, ("hooks", event)) == [] and get(first, ("hooks", event)) is MISSING:
            text = delete(text, ("hooks", event))
    if text == with_ours:
        return text
    if get(text, ("hooks",)) == {} and get(first, ("hooks",)) is MISSING:
        text = delete(text, ("hooks",))
    return None if at_first is None and parse(text) == {} else text


def _drop(text: str, event: str, found: Found) -> str:
    """Remove a handler of ours, and its group if there is no other in it."""
    group = ("hooks", event, found.group)
    is_alone = len(get(text, (*group, "hooks"))) == 1
    return delete(text, group if is_alone else (*group, "hooks", found.position))


def _ours(text: str, event: str) -> list[Found]:
    """Return our handlers at an event, in the order they stand."""
    return _ours_among(get(text, ("hooks", event)))


def _ours_among(groups: object) -> list[Found]:
    return [
        Found(number, index, role, entry)
        for number, group in enumerate(groups if isinstance(groups, list) else [])
        for index, entry in enumerate(_list(group, "hooks"))
        if (role := role_of(entry))
    ]


def _events(text: str) -> list[str]:
    """Return our events, and those of the file that have something of ours."""
    hooks = get(text, ("hooks",))
    if not isinstance(hooks, dict):
        return list(EVENTS)
    return [*EVENTS, *(event for event in hooks if event not in EVENTS and _ours_among(hooks[event]))]


def _list(values: object, key: str) -> list[Any]:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, list) else []
