"""Our registrations in the settings of both clients; whatever else stands there is not touched.

A role that the peer's own hook holds at an event is left to it, until the person says `--take-over`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from instar.errors import InstarError
from migrator import peer
from migrator.changes import Change, Note
from migrator.files import look
from migrator.json_spans import MISSING, JsonTextError, append, delete, get, parse, put
from migrator.registration import CLIENTS, EVENTS, SETTINGS, Client, handlers, role_of
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from migrator.project import Project

# What has to be an object, or a list, for a hook to be registered.
KINDS: Final[dict[tuple[str, ...], type]] = {("hooks",): dict, **{("hooks", event): list for event in EVENTS}}


class Found(NamedTuple):
    """A handler of ours, or of the peer's in one of our roles, in a settings file."""

    group: int
    position: int
    role: str
    entry: dict[str, Any]

    def place(self) -> tuple[int, int]:
        """Return where it stands, for sorting."""
        return self.group, self.position


def install(project: Project) -> Iterator[Change | Note]:
    """Register with the chosen clients, and with no other."""
    for client in CLIENTS:
        if client in project.clients:
            yield from edited(project, _part(project, client), "register the hooks")
            yield from _left_to_peer(project, client)
        else:
            yield from _taken_out(project, client)
    for path in peer.flat_files(project.root):
        yield Note("warning", f"{path} is of instar's flat layout: let its own `instar migrate` sort that first")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Take our registrations out."""
    for client in CLIENTS:
        yield from _taken_out(project, client)


def _taken_out(project: Project, client: Client) -> Iterator[Change | Note]:
    """Take our registrations with a client out, and name what moves by it: Codex trusts a hook by its position."""
    found = list(restored(project, _part(project, client), "take our hooks out"))
    yield from found
    if client == "codex" and any(isinstance(each, Change) for each in found):
        moved = [event for event in EVENTS if _has_others_behind_ours(_text(project, client), event)]
        if moved:
            yield Note("warning", f"your own hooks move up at {', '.join(moved)}: start codex and trust them again")


def _has_others_behind_ours(text: str, event: str) -> bool:
    """Say whether a handler of others stands behind one of ours: in its group, or in a later one."""
    ours = _ours(text, event)
    everything = _among(get(text, ("hooks", event)), lambda _: "any")
    places = {found.place() for found in everything} - {found.place() for found in ours}
    return bool(ours) and any(place > ours[0].place() for place in places)


def _part(project: Project, client: Client) -> Part:
    left = _left(project)
    take = partial(unregister, gives_back=project.takes_over)
    return Part(SETTINGS[client], partial(register, client=client, left=left), take, KINDS)


def _left(project: Project) -> frozenset[str]:
    """Return the roles that are the peer's where it is registered for them."""
    return frozenset() if project.takes_over else peer.standing(project.root)


def _left_to_peer(project: Project, client: Client) -> Iterator[Note]:
    """Yield a note for each role that stays the peer's."""
    text = _text(project, client)
    held = {(event, each.role) for event in EVENTS for each in _peers(text, event)}
    for event, role in sorted(held):
        if role in _left(project):
            yield Note(
                "skipped", f"left {role} at {event} in {SETTINGS[client]} to instar's own; --take-over changes that"
            )


def _text(project: Project, client: Client) -> str:
    """Return the settings, and none where they cannot be read as ours to edit: that is told by the edit."""
    try:
        found = look(project.root, SETTINGS[client])
        text = found.data.decode() if found else "{}"
        for event in EVENTS:
            get(text, ("hooks", event))
    except (InstarError, JsonTextError, UnicodeDecodeError):
        return "{}"
    return text


def register(text: str | None, client: Client, left: frozenset[str] = frozenset()) -> str:
    """Return the settings with each of our hooks registered exactly once, but for what the peer has of `left`.

    Raise `JsonTextError`.
    """
    text = "{}\n" if text is None else text
    for event in _events(text):
        text = _register_event(text, client, event, left)
    return text


def _register_event(text: str, client: Client, event: str, left: frozenset[str]) -> str:
    ours, peers = _ours(text, event), _peers(text, event)
    held = {found.role for found in peers} & left
    wanted = {role: entry for role, entry in handlers(client, event).items() if role not in held}
    kept = {found.role: found for found in reversed(ours) if found.role in wanted}  # the first of each role
    replaced = [found for found in peers if found.role in wanted]
    for found in sorted((*ours, *replaced), reverse=True, key=Found.place):  # the positions before it stay true
        is_kept = found is kept.get(found.role)
        text = _correct(text, event, found, wanted[found.role]) if is_kept else _drop(text, event, found)
    if (ours or replaced) and not wanted and get(text, ("hooks", event)) == []:
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


def unregister(text: str, at_first: str | None, *, gives_back: bool = False) -> str | None:
    """Return the settings without our hooks, and without what is empty now and was not there at first.

    With `gives_back` the peer's handlers of our roles that stood there at first stand there again.
    """
    first = "{}" if at_first is None else at_first
    with_ours = text
    if gives_back:
        text = _given_back(text, first)
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


def _given_back(text: str, first: str) -> str:
    """Return the settings with each handler of the peer's that they had at first, at the end of its event."""
    for event in EVENTS:
        there = {found.role for found in _peers(text, event)}
        for found in _peers(first, event):
            if found.role not in there:
                group = get(first, ("hooks", event, found.group))
                text = append(text, ("hooks", event), {**group, "hooks": [found.entry]})
    return text


def _drop(text: str, event: str, found: Found) -> str:
    """Remove a handler of ours, and its group if there is no other in it."""
    group = ("hooks", event, found.group)
    is_alone = len(get(text, (*group, "hooks"))) == 1
    return delete(text, group if is_alone else (*group, "hooks", found.position))


def _ours(text: str, event: str) -> list[Found]:
    """Return our handlers at an event, in the order they stand."""
    return _among(get(text, ("hooks", event)), role_of)


def _peers(text: str, event: str) -> list[Found]:
    """Return the peer's handlers in our roles at an event."""
    roles = {role for role, _ in EVENTS.get(event, ())}
    return [found for found in _among(get(text, ("hooks", event)), peer.role_of) if found.role in roles]


def _among(groups: object, role_in: Callable[[object], str | None]) -> list[Found]:
    return [
        Found(number, index, role, entry)
        for number, group in enumerate(groups if isinstance(groups, list) else [])
        for index, entry in enumerate(_list(group, "hooks"))
        if (role := role_in(entry))
    ]


def _events(text: str) -> list[str]:
    """Return our events, and those of the file that have something of ours."""
    hooks = get(text, ("hooks",))
    if not isinstance(hooks, dict):
        return list(EVENTS)
    return [*EVENTS, *(event for event in hooks if event not in EVENTS and _among(hooks[event], role_of))]


def _list(values: object, key: str) -> list[Any]:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, list) else []
