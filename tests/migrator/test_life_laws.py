"""Laws of a project's whole life: installed, edited, upgraded, taken over and uninstalled in any order.

What a person wrote is told apart from what is ours by a reading of its own, that shares nothing with the migrator's.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from instar.config import DEFAULTS
from migrator import config_defaults
from migrator.cli import main
from migrator.registration import EVENTS, handlers
from tests.migrator.json_texts import ANY, DOCUMENTS, EDITABLE, OBJECTS, VALUES, WITH_PEERS, documents, same
from tests.migrator.scratch import (
    AGENTS,
    CAP,
    CLAUDE,
    CODEX,
    CONFIG,
    HOOKS,
    LOCAL,
    PINS,
    RECORD,
    SETTINGS,
    Scratch,
    look,
)

if TYPE_CHECKING:
    from random import Random

CLIENT_OF = {SETTINGS: "claude", CODEX: "codex", CLAUDE: "claude", AGENTS: "codex"}
JSON_FILES = (SETTINGS, LOCAL, CODEX, CONFIG, PINS)
WORDS_FILES = (AGENTS, CLAUDE)
USERS = (*JSON_FILES, *WORDS_FILES)
PEERS = {"stop-gate-router.js": "stop-gate-router", "build-stop-hook.sh": "build-stop-hook"}
SECTION = re.compile(r"<!-- instar:begin build -->.*<!-- instar:end build -->(\r?\n)?", re.DOTALL)


# What is whose


def role_of_ours(handler: object) -> str | None:
    command = str(handler.get("command")) if isinstance(handler, dict) else ""
    found = re.search(rf"{HOOKS}/run.* (stop-gate-router|build-stop-hook|session-event-hook);", command)
    return found[1] if found else None


def role_of_peer(handler: object) -> str | None:
    command = str(handler.get("command")) if isinstance(handler, dict) else ""
    return next((role for name, role in PEERS.items() if command.endswith(f"{HOOKS}/{name}")), None)


def registered(value: Any, event: str) -> list[Any]:
    """Return all handlers at an event, in the order they stand."""
    hooks = value.get("hooks") if isinstance(value, dict) else None
    groups = hooks.get(event) if isinstance(hooks, dict) else None
    inner = [group.get("hooks") for group in groups if isinstance(group, dict)] if isinstance(groups, list) else []
    return [each for some in inner if isinstance(some, list) for each in some]


def has_ours(path: str, text: str | None) -> bool:
    """Say whether something that only we write is in a file."""
    if text is None:
        return False
    if path in WORDS_FILES:
        return SECTION.search(text) is not None
    value = parsed(text)
    if path == LOCAL:
        return isinstance(value, dict) and isinstance(value.get("env"), dict) and value["env"].get(CAP) == "11"
    hooks = value.get("hooks") if isinstance(value, dict) else None
    return any(
        role_of_ours(each) for event in (hooks if isinstance(hooks, dict) else ()) for each in registered(value, event)
    )


def parsed(text: str | None) -> Any:
    """Return the value of a text; None where it has none."""
    try:
        return json.loads((text or "").removeprefix("\ufeff"))
    except ValueError:
        return None


# A text without what is ours, byte for byte


def at_paths(value: Any, path: Steps = ()) -> dict[Steps, Any]:
    """Return each value inside an object, by its path."""
    found = {(*path, key): inner for key, inner in value.items()}
    for here, inner in list(found.items()):
        found.update(at_paths(inner, here) if isinstance(inner, dict) else {})
    return found


decode = json.JSONDecoder().raw_decode
Steps = tuple[object, ...]
Drop = Callable[[Steps, Any], bool]
DEFAULT_AT = at_paths(DEFAULTS)


class Member(NamedTuple):
    """A member or an item that is not ours, as it is spelled; the gap before it, if what is before it is not ours."""

    gap: str | None
    key: str
    value: Any


def blank(text: str, position: int) -> int:
    while text[position] in " \t\r\n":
        position += 1
    return position


def members(text: str, start: int) -> Iterator[tuple[int, object, int, int]]:
    """Yield start, key or number, start of the value, and end of each thing in the object or list at `start`."""
    position, number = blank(text, start + 1), 0
    while text[position] not in "]}":
        begin = value = blank(text, position + (text[position] == ","))
        step: object = number
        if text[start] == "{":
            step, end = decode(text, begin)
            value = blank(text, blank(text, end) + 1)
        end = decode(text, value)[1]
        yield begin, step, value, end
        position, number = blank(text, end), number + 1


def is_opened(path: Steps) -> bool:
    """Say whether something of ours may stand in what is at a path; all else is taken as it is spelled."""
    if path and path[0] == "hooks":
        return len(path) < 4 or (len(path) == 4 and path[3] == "hooks")
    return path in {(), ("env",), *(here for here, default in DEFAULT_AT.items() if isinstance(default, dict))}


def skeleton(text: str, drop: Drop, start: int, path: Steps = ()) -> Any:
    """Return the value at `start` without what is ours, and without what is empty then, or was."""
    value, end = decode(text, start)
    if not (is_opened(path) and isinstance(value, dict | list)):
        return text[start:end]
    kept: list[Member] = []
    last: int | None = None
    for begin, step, at, stop in members(text, start):
        here = (*path, step)
        inner = [] if drop(here, decode(text, at)[0]) else skeleton(text, drop, at, here)
        if inner:
            kept.append(Member(None if last is None else text[last:begin], text[begin:at], inner))
        last = stop if inner else None
    return kept


def are_alike(one: Any, other: Any) -> bool:
    """Say whether two skeletons are the same, byte for byte, but for gaps that something of ours was in."""
    if not (isinstance(one, list) and isinstance(other, list)):
        return bool(one == other)
    return len(one) == len(other) and all(
        (None in (a.gap, b.gap) or a.gap == b.gap) and a.key == b.key and are_alike(a.value, b.value)
        for a, b in zip(one, other, strict=True)
    )


def check_json(before: str | None, after: str | None, drop: Drop) -> None:
    """Assert that two texts differ in nothing but what is ours."""
    texts = [text if text is not None and text.strip("\ufeff \t\r\n") else "{}" for text in (before, after)]
    starts = [blank(text, int(text.startswith("\ufeff"))) for text in texts]
    ends = [decode(text, start)[1] for text, start in zip(texts, starts, strict=True)]
    found = [skeleton(text, drop, start) for text, start in zip(texts, starts, strict=True)]
    assert are_alike(*found), f"{before!r}\n{after!r}"
    if before and after:
        assert texts[0][: starts[0]] == texts[1][: starts[1]], "what stands before the value"
        assert texts[0][ends[0] :] == texts[1][ends[1] :], "what stands after the value"


def check_words(before: str | None, after: str | None) -> None:
    """Assert that two documents differ in nothing but our section, and an empty line before it."""
    assert (before is None) == (after is None)
    if before is None or after is None:
        return
    old, new = SECTION.search(before), SECTION.search(after)
    if old and new:
        assert (before[: old.start()], before[old.end() :]) == (after[: new.start()], after[new.end() :])
    elif old or new:
        found = old or new
        whole, bare = (before, after) if old else (after, before)
        assert found
        above, below = whole[: found.start()], whole[found.end() :]
        assert bare in {above.removesuffix(gap) + below for gap in ("", "\n", "\r\n", "\n\n", "\r\n\r\n")}
    else:
        assert before == after


# What people have, and do

COMMENTED = EDITABLE.map(lambda text: text.replace("{", "{ // mine\n", 1))
SETTINGS_TEXTS = st.none() | EDITABLE | WITH_PEERS | WITH_PEERS | ANY | COMMENTED
CONFIGS = st.none() | documents(
    st.builds(
        lambda others, known: {**others, **known},
        OBJECTS,
        st.fixed_dictionaries(
            {},
            optional={
                "sessions": st.sampled_from([{}, {"maxSessions": 3}, {"keepEndedDays": 7}, [], None]),
                "_instar_noMigrate": st.sampled_from([["sessions"], ["sessions.keepEndedDays"], 7]),
                "agentType": st.sampled_from(["standalone", "managed-project", 7]),
            },
        ),
    )
).map(lambda document: document.text)
PINS_TEXTS = st.sampled_from(
    [
        None,
        None,
        '{"soul": {"contentHash": "x"}}',
        '\ufeff{\r\n\t"a" : 1.0\r\n}',
        '{"build@CLAUDE.md": {}}',
        "{torn",
        "[]",
    ]
)
CHOICES = st.sampled_from([(), (), (), ("claude",), ("codex",), ("claude", "codex")])
STYLES: list[dict[str, Any]] = [{"indent": 2}, {"indent": "\t"}, {}, {"separators": (",", ":")}]
OTHER: dict[str, object] = {"type": "command", "command": "say done"}


def add_a_key(value: Any, chance: Random) -> None:
    value[f"added {chance.randrange(9)}"] = {"by": ["me", None, 1.5]}


def add_a_group(value: Any, chance: Random) -> None:
    groups = some_groups(value, chance)
    groups.insert(chance.randint(0, len(groups)), {"matcher": "x", "hooks": [dict(OTHER)]})


def add_a_handler(value: Any, chance: Random) -> None:
    inner = some_handlers(value, chance)
    inner.insert(chance.randint(0, len(inner)), dict(OTHER))


def delete_a_handler(value: Any, chance: Random) -> None:
    inner = some_handlers(value, chance)
    del inner[chance.randrange(len(inner) or 1) :][:1]


def double_a_handler(value: Any, chance: Random) -> None:
    inner = some_handlers(value, chance)
    some_groups(value, chance).append({"hooks": inner[:1]})


def change_a_timeout(value: Any, chance: Random) -> None:
    for handler in some_handlers(value, chance):
        if isinstance(handler, dict):
            handler.update(timeout=chance.choice([1, 5000]), statusMessage="wait")


def delete_an_event(value: Any, chance: Random) -> None:
    value["hooks"].pop(chance.choice([*value["hooks"]] or [""]), None)


def reformat(value: Any, chance: Random) -> None:
    """Change nothing but the form."""


EDITS = (
    add_a_key, add_a_group, add_a_handler, delete_a_handler, double_a_handler, change_a_timeout, delete_an_event,
    reformat,
)  # fmt: skip


def some_groups(value: Any, chance: Random) -> list[Any]:
    groups = value["hooks"].setdefault(chance.choice([*EVENTS]), [])
    return groups if isinstance(groups, list) else []


def some_handlers(value: Any, chance: Random) -> list[Any]:
    groups = [group["hooks"] for group in some_groups(value, chance) if isinstance(group, dict) and "hooks" in group]
    lists = [inner for inner in groups if isinstance(inner, list)]
    return chance.choice(lists) if lists else []


class Life(RuleBasedStateMachine):
    """A project, the person in it, and what each file of theirs was when ours came in."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.scratch = Scratch.create(Path(self.folder.name).resolve() / "life")
        self.clients: tuple[str, ...] = ("claude", "codex")
        self.takes_over = False
        self.first: dict[str, str | None] = {}  # where nobody edited it since
        self.is_eager = False
        self.taken_out: set[str] = set()

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(
        texts=st.tuples(SETTINGS_TEXTS, SETTINGS_TEXTS, SETTINGS_TEXTS, CONFIGS, PINS_TEXTS),
        words=st.tuples(st.none() | DOCUMENTS, st.none() | DOCUMENTS),
        peers=st.sets(st.sampled_from(sorted(PEERS))),
        mode=st.sampled_from([0o644, 0o600]),
        is_eager=st.booleans(),
    )
    def begin(
        self,
        texts: tuple[str | None, ...],
        words: tuple[str | None, ...],
        peers: set[str],
        mode: int,
        *,
        is_eager: bool,
    ) -> None:
        for path, text in zip(USERS, (*texts, *words), strict=True):
            if text is not None:
                self.scratch.write(path, text, mode)
        for name in peers:
            self.scratch.write(f"{HOOKS}/{name}", "// the peer's")
        self.is_eager = is_eager
        self.go_on()

    # What the person does

    @rule(chosen=CHOICES, take_over=st.sampled_from([False, False, True]))
    def migrate(self, chosen: tuple[str, ...], *, take_over: bool) -> None:
        if take_over and not self.takes_over:  # who holds a role changes: the way back is not the way here
            self.forget(SETTINGS, CODEX)
        self.clients, self.takes_over = chosen or self.clients, self.takes_over or take_over
        options = [word for client in chosen for word in ("--clients", client)]
        self.run(*options, *(["--take-over"] if take_over else []))
        self.check_registrations()
        assert not [path for path in self.taken_out if "instar:begin" in (self.text(path) or "")]
        self.check_second()

    @rule()
    def uninstall(self) -> None:
        errors = self.run("--uninstall")
        for path in (SETTINGS, CODEX, *WORDS_FILES):
            text = self.text(path)
            is_hidden = "instar" not in (text or "")  # by escapes, and no migration was ever here
            assert not has_ours(path, text) or is_hidden or f"cannot edit {path}:" in errors
        assert not self.scratch.has(RECORD)
        if self.scratch.has(PINS) and "{torn" not in (self.text(PINS) or ""):
            pins = parsed(self.text(PINS))
            self.taken_out = {path for path in self.taken_out if f"build@{path}" in pins}
        self.clients, self.takes_over, self.first = ("claude", "codex"), False, {}
        before = self.scratch.snapshot()
        assert self.report("--uninstall")["changes"] == []
        assert self.scratch.snapshot() == before

    @rule(
        path=st.sampled_from([SETTINGS, SETTINGS, CODEX, LOCAL]), change=st.sampled_from(EDITS), chance=st.randoms(),
        style=st.sampled_from(STYLES), newline=st.sampled_from(["\n", "\r\n"]), tail=st.sampled_from(["", "\n"]),
    )  # fmt: skip
    def edit(
        self, path: str, change: Callable[[Any, Random], None], chance: Random, style: dict[str, Any], newline: str,
        tail: str,
    ) -> None:  # fmt: skip
        value = parsed(self.text(path))
        if isinstance(value, dict) and isinstance(value.setdefault("hooks", {}), dict):
            change(value, chance)
            self.write(path, (json.dumps(value, **style) + tail).replace("\n", newline))
            self.go_on()

    @rule(key=st.sampled_from(["projectName", "sessions", "other"]), value=VALUES)
    def configure(self, key: str, value: object) -> None:
        config = parsed(self.text(CONFIG))
        if isinstance(config, dict):
            self.write(CONFIG, json.dumps({**config, key: value}))
            self.go_on()

    @rule(path=st.sampled_from(WORDS_FILES), above=DOCUMENTS, below=DOCUMENTS)
    def add_words(self, path: str, above: str, below: str) -> None:
        self.write(path, above + (self.text(path) or "") + below)
        self.go_on()

    @precondition(lambda self: not self.taken_out)
    @rule(path=st.sampled_from(WORDS_FILES))
    def take_our_section_out(self, path: str) -> None:
        text = self.text(path) or ""
        if SECTION.search(text) and CLIENT_OF[path] in self.clients and parsed(self.text(PINS) or "{}") != []:
            self.write(path, SECTION.sub("", text))
            self.run()
            if f"build@{path}" in (parsed(self.text(PINS)) or {}):
                self.taken_out.add(path)

    @rule()
    def have_an_older_release(self) -> None:
        """Be as a release before left it; the migration after it ends where one from nothing does."""
        if not self.scratch.has(RECORD) or self.report()["errors"]:
            return
        now = {path: self.text(path) for path in (SETTINGS, CODEX)}
        if any(not has_ours(path, now[path]) for path in now):
            return
        for path, text in now.items():
            walk, older = '[ -d \\"$d/.git\\" ] && break;', '[ -e \\"$d/.git\\" ] && break;'
            if walk in (text or ""):  # spelled as we do
                self.scratch.write(path, (text or "").replace(walk, older))
        self.scratch.write(f"{HOOKS}/run", "#!/bin/sh\n# older\nexit 0\n", 0o644)
        record = {key: each for key, each in self.scratch.json(RECORD).items() if key != "codex"}
        self.scratch.write_json(RECORD, {**record, "version": "0.1.0"})
        assert self.report()["upgradeGuide"]
        assert {path: self.text(path) for path in now} == now
        assert b"older" not in self.scratch.read(f"{HOOKS}/run")
        self.check_second()

    @rule(name=st.sampled_from(sorted(PEERS)))
    def have_the_peer_come_or_go(self, name: str) -> None:
        self.forget(SETTINGS, CODEX)
        if self.scratch.has(f"{HOOKS}/{name}"):
            self.scratch.place(f"{HOOKS}/{name}").unlink()
        else:
            self.scratch.write(f"{HOOKS}/{name}", "// the peer's")
        self.go_on()

    # What is done with it

    def go_on(self) -> None:
        """Migrate at once, where the person does so after each thing they do."""
        if self.is_eager:
            self.migrate((), take_over=False)

    def text(self, path: str) -> str | None:
        return self.scratch.read(path).decode() if self.scratch.has(path) else None

    def write(self, path: str, text: str) -> None:
        self.forget(path)
        self.scratch.write(path, text)

    def forget(self, *paths: str) -> None:
        """Know no more what a file was before it had something of ours."""
        for path in paths:
            self.first.pop(path, None)

    def report(self, *options: str) -> Any:
        arguments = ["--project", str(self.scratch.project), "--json", *options]
        done = CliRunner().invoke(main, arguments, env=self.scratch.environ)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        report = json.loads(done.output)
        assert done.exit_code == bool(report["errors"])
        return report

    def run(self, *options: str) -> str:
        """Run instar-migrate, assert what holds for any run, and return the errors it names."""
        before = {path: self.text(path) for path in USERS}
        modes = {path: self.scratch.place(path).stat().st_mode for path in USERS if before[path] is not None}
        errors, is_over = " ".join(self.report(*options)["errors"]), "--uninstall" in options
        after = {path: self.text(path) for path in USERS}
        for path in USERS:
            if f"cannot edit {path}:" in errors:
                assert after[path] == before[path]
            elif path in WORDS_FILES:
                check_words(before[path], after[path])
            elif before[path] != after[path] and not (is_over and path in self.first):  # that is given back as it was
                check_json(before[path], after[path], self.dropping(path, is_over=is_over))
            if before[path] is not None and after[path] is not None:
                assert self.scratch.place(path).stat().st_mode == modes[path]
            self.check_first(path, before[path], after[path], is_over=is_over)
        return errors

    def check_first(self, path: str, before: str | None, after: str | None, *, is_over: bool) -> None:
        """Assert that a file that nobody edited is given back as it was, whenever what is ours leaves it."""
        if path == PINS:  # what a person decided stays
            return
        is_in = after != before if path == CONFIG else has_ours(path, after)
        was_in = path in self.first if path == CONFIG else has_ours(path, before)
        if is_in and not was_in and not is_over:
            self.first[path] = before
        elif path in self.first and (is_over or (was_in and not is_in and path != CONFIG)):
            assert after == self.first.pop(path), "not given back as it was"

    def dropping(self, path: str, *, is_over: bool) -> Drop:
        """Return what says whether a value in a file is ours, or the peer's in a role that is ours."""

        def is_ours(event: object, handler: object) -> bool:
            peers = None if is_over else role_of_peer(handler)
            return role_of_ours(handler) is not None or (
                peers in dict(EVENTS.get(str(event), ())) and not self.is_held_by_peer(str(peers))
            )

        def drop(where: Steps, value: Any) -> bool:
            if where[0] == "hooks" and len(where) == 5:
                return is_ours(where[1], value)
            if where[0] == "hooks" and len(where) == 3:
                inner = value.get("hooks") if isinstance(value, dict) else None
                return isinstance(inner, list) and bool(inner) and all(is_ours(where[1], each) for each in inner)
            if path == CONFIG:
                return where in DEFAULT_AT and not isinstance(value, dict) and same(value, DEFAULT_AT[where])
            is_pin = path == PINS and str(where[0]).startswith("build@")
            return is_pin or (path == LOCAL and where == ("env", CAP) and bool(value == "11"))

        return drop

    def is_held_by_peer(self, role: str) -> bool:
        name = next(name for name, each in PEERS.items() if each == role)
        return not self.takes_over and self.scratch.has(f"{HOOKS}/{name}")

    def check_registrations(self) -> None:
        """Assert that each role is run exactly once at its events, by us or by the peer, and ours as it has to be."""
        for path in (SETTINGS, CODEX):
            client, value = CLIENT_OF[path], parsed(self.text(path))
            hooks = value.get("hooks") if isinstance(value, dict) else None
            if any(f"cannot edit {path}:" in error for error in self.report("--check")["errors"]):
                continue
            for event in {*EVENTS, *(hooks if isinstance(hooks, dict) else ())}:
                found = registered(value, event)
                wanted = handlers(client, event) if client in self.clients else {}  # type: ignore[arg-type]
                peers = {role for each in found if (role := role_of_peer(each)) in wanted}
                assert all(self.is_held_by_peer(str(role)) for role in peers)
                ours = sorted(role for each in found if (role := role_of_ours(each)))
                assert ours == sorted(wanted.keys() - peers), (path, event)
                entries = [each for each in found if role_of_ours(each)]
                assert all(wanted[str(role_of_ours(each))].items() <= each.items() for each in entries)

    def check_second(self) -> None:
        """Assert that one more migration changes nothing at all: no byte, no mode, no time, and keeps no copy."""
        before = self.scratch.snapshot()
        assert self.report()["changes"] == []
        assert self.scratch.snapshot() == before


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=8, deadline=None)


# What a life can bring that the machine above leaves out


def section_in(scratch: Scratch, path: str) -> bool:
    return b"instar:begin build" in scratch.read(path)


def test_both_sections_that_were_taken_out_at_once_stay_out(scratch: Scratch) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate()
    for path in WORDS_FILES:
        scratch.write(path, "# Rules\n")
    scratch.migrate()
    assert scratch.json(PINS).keys() == {f"build@{path}" for path in WORDS_FILES}
    assert "nothing to do" in scratch.migrate()


@pytest.mark.parametrize("clients", [(), ("--clients", "claude")])
def test_a_second_migration_changes_nothing_beside_a_document_that_is_no_text(
    scratch: Scratch, clients: tuple[str, ...]
) -> None:
    scratch.write(CLAUDE, b"caf\xe9\n")
    assert "not UTF-8" in " ".join(scratch.errors(*clients))
    before = scratch.snapshot()
    assert "not UTF-8" in " ".join(scratch.errors(*clients))
    assert scratch.snapshot() == before


def test_a_document_whose_marks_were_mended_gains_our_section(scratch: Scratch) -> None:
    scratch.write(CLAUDE, "# Rules\n<!-- instar:begin build -->\n")
    assert "do not pair up" in " ".join(scratch.errors())
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate()
    assert section_in(scratch, CLAUDE)


def test_a_section_that_was_taken_out_stays_out_also_when_its_client_comes_back(scratch: Scratch) -> None:
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate()
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate("--clients", "codex")
    scratch.migrate("--clients", "claude", "--clients", "codex")
    assert not section_in(scratch, CLAUDE)


def test_defaults_of_several_releases_are_all_taken_out_again(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch.write(CONFIG, '{ "projectName": "mine" }')
    runner, project = CliRunner(), ["--project", str(scratch.project)]
    for defaults in ({"sessions": {"keepEndedDays": 30}}, {"sessions": {"keepEndedDays": 30}, "later": {"a": 1}}):
        monkeypatch.setattr(config_defaults, "DEFAULTS", defaults)
        runner.invoke(main, project, env=scratch.environ)
        assert scratch.json(CONFIG).keys() == {"projectName", *defaults}
    runner.invoke(main, [*project, "--uninstall"], env=scratch.environ)
    assert scratch.read(CONFIG) == b'{ "projectName": "mine" }'


def peer(scratch: Scratch, *files: str) -> list[str]:
    """Register the peer's hooks, with these of its files; return the commands."""
    commands = [f"node {HOOKS}/stop-gate-router.js", f"bash {HOOKS}/build-stop-hook.sh"]
    hooks = [{"hooks": [{"type": "command", "command": command}]} for command in commands]
    scratch.write_json(SETTINGS, {"hooks": {"Stop": hooks}})
    for name in files:
        scratch.write(f"{HOOKS}/{name}", "// the peer's")
    return commands


def test_what_was_taken_over_is_given_back_also_to_settings_that_were_edited(scratch: Scratch) -> None:
    commands = peer(scratch, *PEERS)
    scratch.migrate("--take-over")
    scratch.write_json(SETTINGS, {**scratch.json(SETTINGS), "model": "opus"})
    scratch.migrate("--uninstall")
    assert [each["command"] for each in registered(scratch.json(SETTINGS), "Stop")] == commands


def test_settings_taken_over_role_by_role_are_given_back_whole(scratch: Scratch) -> None:
    peer(scratch, "stop-gate-router.js")
    before = scratch.read(SETTINGS)
    scratch.migrate()
    scratch.migrate("--take-over")
    scratch.migrate("--uninstall")
    assert scratch.read(SETTINGS) == before


# Files of the user's that are odd: a faithful edit, or a clear error, and never a loss

NO_FILES: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda place: place.symlink_to("nowhere"),
    "a link to itself": lambda place: place.symlink_to(place.name),
}
NO_JSON = {
    "torn": b'{"a": 1',
    "nothing": b"",
    "a comment": b'{"a": 1} // mine',
    "a trailing comma": b'{"a": 1,}',
    "not UTF-8": b'{"a": "\xe9"}',
    "no object": b"[]",
    "no number": b'{"a": NaN}',
}
ODD_JSON = {
    "a byte order mark": '\ufeff{\n  "soul": 1\n}\n',
    "carriage returns": '{\r\n    "soul": 1.50e+2\r\n}\r\n',
    "tabs and no final newline": '{\n\t"soul": [ "\\u00e9", "é" ]\n}',
    "one line": '{"soul":{}}',
    "a key twice": '{\n  "soul": 1,\n  "soul": 2\n}\n',
    "blank lines": '\n{\n\n  "soul": 1\n\n}\n\n',
}


@pytest.mark.parametrize(
    ("path", "make"),
    [
        pytest.param(path, make, id=f"{path}-{name}")
        for path in (CONFIG, CLAUDE, PINS)
        for name, make in NO_FILES.items()
    ],
)
def test_what_is_no_file_is_left_and_named(scratch: Scratch, path: str, make: Callable[[Path], object]) -> None:
    scratch.place(path).parent.mkdir(exist_ok=True)
    make(scratch.place(path))
    before = look(scratch.place(path))
    (error,) = scratch.errors()
    assert path in error
    assert look(scratch.place(path)) == before
    assert scratch.has(SETTINGS)


@pytest.mark.parametrize("path", [CONFIG, PINS])
@pytest.mark.parametrize("content", NO_JSON.values(), ids=NO_JSON)
def test_what_is_no_json_is_left_and_named(scratch: Scratch, path: str, content: bytes) -> None:
    scratch.write(path, content, 0o600)
    scratch.write(CLAUDE, "# Rules\n")
    before = look(scratch.place(path))
    (error,) = scratch.errors()
    assert path in error
    assert look(scratch.place(path)) == before
    assert section_in(scratch, CLAUDE) == (path == CONFIG)


@pytest.mark.parametrize("mode", [0o600, 0o444])
@pytest.mark.parametrize("path", [CONFIG, PINS])
@pytest.mark.parametrize("text", ODD_JSON.values(), ids=ODD_JSON)
def test_odd_json_gains_what_is_ours_and_loses_no_character(scratch: Scratch, path: str, text: str, mode: int) -> None:
    scratch.write(path, text, mode)
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate()
    scratch.write(CLAUDE, "# Rules\n")
    scratch.migrate()
    after = scratch.read(path).decode()
    assert after != text
    check_json(text, after, lambda where, _value: where[0] != "soul")
    assert ("\r\n" in after) == ("\r\n" in text)
    assert re.search(r"(?<!\r)\n", after) is None or "\r\n" not in text
    assert scratch.place(path).stat().st_mode & 0o777 == mode
    if path == CONFIG:
        scratch.migrate("--uninstall")
        assert scratch.read(path).decode() == text
