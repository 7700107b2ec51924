"""Laws of a migration, for any settings and any document that a user could have."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.files import apply
from migrator.json_spans import put
from migrator.plan import plan
from migrator.project import Project
from migrator.registration import EVENTS, SETTINGS, Client, handlers
from migrator.steps import block_cap, client_hooks, documents
from tests.migrator.json_texts import ANY, DOCUMENTS, EDITABLE, VALUES, WITH_OURS, same
from tests.migrator.scratch import AGENTS, LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.plan import Plan, Step

LAW = settings(max_examples=40, deadline=None)
STEPS = (client_hooks, block_cap, documents)
INSTALL: tuple[Step, ...] = tuple(step.install for step in STEPS)
UNINSTALL: tuple[Step, ...] = tuple(step.uninstall for step in STEPS)
OUR_SHARE = ".instar/hooks/instar/run"

CLIENTS = pytest.mark.parametrize("client", get_args(Client))


class Files:
    """The files of a user in a project, and migrations of one client there."""

    def __init__(self, root: Path, client: Client) -> None:
        self.root, self.client = root, client
        self.paths = [SETTINGS[client], LOCAL, AGENTS]

    def migrate(self, steps: tuple[Step, ...]) -> Plan:
        planned = plan(Project(self.root, (self.client,)), steps)
        if planned.changes:
            apply(self.root, planned.changes)
        return planned

    def write(self, *texts: str | None) -> None:
        for path, text in zip(self.paths, texts, strict=False):
            place = self.root / path
            place.parent.mkdir(exist_ok=True)
            if text is not None:
                place.write_bytes(text.encode())

    def read(self) -> list[str | None]:
        places = [self.root / path for path in self.paths]
        return [place.read_bytes().decode() if place.exists() else None for place in places]

    def settings(self) -> Any:
        return parsed((self.root / self.paths[0]).read_bytes().decode())


@contextmanager
def files(client: Client, *texts: str | None) -> Iterator[Files]:
    with TemporaryDirectory() as folder:
        made = Files(Path(folder).resolve(), client)
        made.write(*texts)
        yield made


def parsed(text: str) -> Any:
    return json.loads(text.removeprefix("\ufeff"))


def is_ours(handler: object) -> bool:
    return isinstance(handler, dict) and OUR_SHARE in str(handler.get("command"))


def ours(value: Any) -> dict[str, list[dict[str, object]]]:
    """Return our handlers in settings, by event."""
    found = {}
    for event, groups in value.get("hooks", {}).items():
        inner = [group.get("hooks") for group in groups if isinstance(group, dict)]
        handlers = [each for hooks in inner if isinstance(hooks, list) for each in hooks if is_ours(each)]
        if handlers:
            found[event] = handlers
    return found


def foreign(value: Any) -> Any:
    """Return what in settings is not ours; what is empty without us, or was, is left out."""
    value = {**value, "hooks": {event: foreign_groups(groups) for event, groups in value.get("hooks", {}).items()}}
    value["hooks"] = {event: groups for event, groups in value["hooks"].items() if groups}
    return value if value["hooks"] else {key: each for key, each in value.items() if key != "hooks"}


def foreign_groups(groups: list[Any]) -> list[Any]:
    kept = []
    for group in groups:
        inner = group.get("hooks") if isinstance(group, dict) else None
        if isinstance(inner, list) and any(is_ours(each) for each in inner):
            left = [each for each in inner if not is_ours(each)]
            kept += [{**group, "hooks": left}] if left else []
        else:
            kept.append(group)
    return kept


@CLIENTS
@LAW
@given(ANY, ANY, DOCUMENTS)
def test_second_migration_changes_nothing(client: Client, shared: str, local: str, document: str) -> None:
    with files(client, shared, local, document) as user:
        first = user.migrate(INSTALL)
        before = user.read()
        second = user.migrate(INSTALL)
        assert second.changes == []
        assert second.notes == first.notes
        assert user.read() == before


@CLIENTS
@LAW
@given(ANY, ANY, DOCUMENTS)
def test_file_that_is_not_changed_is_named(client: Client, shared: str, local: str, document: str) -> None:
    with files(client, shared, local, document) as user:
        planned = user.migrate(INSTALL)
        errors = " ".join(planned.noted("error"))
        changed = {change.path for change in planned.changes}
        assert all(path not in changed for path in user.paths if f"cannot edit {path}:" in errors)
        assert changed | {path for path in user.paths if f"cannot edit {path}:" in errors} >= {SETTINGS[client]}


@CLIENTS
@LAW
@given(EDITABLE, EDITABLE, DOCUMENTS)
def test_uninstallation_gives_every_byte_back(client: Client, shared: str, local: str, document: str) -> None:
    with files(client, shared, local, document) as user:
        before = user.read()
        user.migrate(INSTALL)
        assert user.read() != before
        user.migrate(UNINSTALL)
        assert user.read() == before


@CLIENTS
@LAW
@given(st.tuples(ANY, ANY, DOCUMENTS), st.tuples(EDITABLE, EDITABLE, DOCUMENTS))
def test_second_uninstallation_gives_back_what_came_after_the_first(
    client: Client, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    with files(client, *first) as user:
        user.migrate(INSTALL)
        user.migrate(UNINSTALL)
        user.write(*second)
        user.migrate(INSTALL)
        user.migrate(UNINSTALL)
        assert user.read() == list(second)


@CLIENTS
@LAW
@given(WITH_OURS)
def test_each_hook_is_registered_exactly_once(client: Client, text: str) -> None:
    with files(client, text) as user:
        if user.migrate(INSTALL).noted("error"):
            return
        found = ours(user.settings())
        assert found.keys() == {event for event in EVENTS if handlers(client, event)}
        for event, entries in found.items():
            wanted = handlers(client, event)
            by_role = {role: entry for role in wanted for entry in entries if f" {role};" in str(entry["command"])}
            assert len(entries) == len(by_role)
            assert all({**by_role[role], **entry} == by_role[role] for role, entry in wanted.items())


@CLIENTS
@LAW
@given(WITH_OURS)
def test_what_is_not_ours_is_equal_throughout(client: Client, text: str) -> None:
    with files(client, text) as user:
        before = foreign(parsed(text))
        user.migrate(INSTALL)
        assert same(foreign(user.settings()), before)
        user.migrate(UNINSTALL)
        left = user.settings() if (user.root / SETTINGS[client]).exists() else {}
        assert same(foreign(left), before)


@CLIENTS
@LAW
@given(WITH_OURS)
def test_nothing_of_ours_is_left_by_an_uninstallation(client: Client, text: str) -> None:
    with files(client, text) as user:
        if user.migrate(INSTALL).noted("error"):
            return
        user.migrate(UNINSTALL)
        assert not (user.root / SETTINGS[client]).exists() or not ours(user.settings())


@CLIENTS
@LAW
@given(EDITABLE, VALUES)
def test_edit_of_the_user_outlives_the_uninstallation(client: Client, text: str, value: object) -> None:
    place = ("added by the user",)
    with files(client, text) as user:
        user.migrate(INSTALL)
        user.write(put(user.read()[0] or "", place, value))
        user.migrate(UNINSTALL)
        assert same(user.settings(), {**parsed(text), place[0]: value})


@LAW
@given(DOCUMENTS, DOCUMENTS)
def test_words_around_our_section_outlive_the_uninstallation(before: str, after: str) -> None:
    with files("codex", None, None, before) as user:
        user.migrate(INSTALL)
        user.write(None, None, (user.read()[2] or "") + after)
        user.migrate(UNINSTALL)
        left = user.read()[2]
        assert left in {before + newline + after for newline in ("", "\n", "\r\n")}
