"""A migration brings back what a release before left otherwise, or what somebody changed: in place, and ours alone."""

from __future__ import annotations

import copy
import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.migrator.scratch import (
    AGENTS,
    CLAUDE,
    CLIENT_FILES,
    HOOKS,
    LOCAL,
    PINS,
    PYTHON,
    RECORD,
    SETTINGS,
    SKILL,
    Scratch,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Hooks = dict[str, list[dict[str, list[dict[str, object]]]]]

FOREIGN: dict[str, object] = {"type": "command", "command": "say done"}
OUR_FILES = [f"{HOOKS}/run", f"{HOOKS}/build-stop-hook.py", f"{HOOKS}/build-state.py"]
PLACES = [("Stop", 0), ("Stop", 1), ("SessionStart", 0), ("SessionEnd", 0)]
ROLES = {
    "Stop": ["stop-gate-router", "build-stop-hook"],
    "SessionStart": ["session-event-hook"],
    "SessionEnd": ["session-event-hook"],
}


def edit(scratch: Scratch, path: str, change: Callable[[Hooks], object]) -> None:
    """Change the hooks of a file as some program would that keeps their layout."""
    settings = scratch.json(path)
    change(settings["hooks"])
    scratch.write_json(path, settings)


# Our entries in the settings of a client


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(
    ("old", "new"),
    [('"timeout": 10', '"timeout": 5000'), ("; exit 0", '; echo \\"$r\\"; exit 0'), ('"command",', '"prompt",')],
    ids=["timeout", "command", "type"],
)
def test_old_registration_is_corrected_in_place(installed: Scratch, path: str, old: str, new: str) -> None:
    fresh = installed.read(path)
    installed.replace(path, old, new)
    installed.migrate()
    assert installed.read(path) == fresh


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_registration_without_a_timeout_gains_one(installed: Scratch, path: str) -> None:
    fresh = installed.json(path)
    edit(installed, path, lambda hooks: hooks["Stop"][0]["hooks"][1].pop("timeout"))
    installed.migrate()
    assert installed.json(path) == fresh


def test_what_the_user_wrote_into_a_registration_stays(installed: Scratch) -> None:
    edit(installed, SETTINGS, lambda hooks: hooks["Stop"][0]["hooks"][0].update(statusMessage="wait", timeout=5000))
    installed.migrate()
    handler = installed.json(SETTINGS)["hooks"]["Stop"][0]["hooks"][0]
    assert (handler["statusMessage"], handler["timeout"]) == ("wait", 10)


def test_registration_that_the_user_spelled_otherwise_stays(installed: Scratch) -> None:
    installed.replace(SETTINGS, '"type": "command"', '"type"  :  "comm\\u0061nd"')
    before = installed.read(SETTINGS)
    assert "nothing to do" in installed.migrate()
    assert installed.read(SETTINGS) == before


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(("event", "position"), PLACES)
def test_registration_that_moved_stays_where_it_is(installed: Scratch, path: str, event: str, position: int) -> None:
    def move(hooks: Hooks) -> None:
        handler = hooks[event][0]["hooks"].pop(position)
        hooks[event].insert(0, {"hooks": [FOREIGN, handler, FOREIGN]})
        hooks[event] = [group for group in hooks[event] if group["hooks"]]

    edit(installed, path, move)
    before = installed.read(path)
    assert "nothing to do" in installed.migrate()
    assert installed.read(path) == before


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(("event", "position"), PLACES)
def test_only_ours_is_corrected_in_a_group_with_others(
    installed: Scratch, path: str, event: str, position: int
) -> None:
    def share(hooks: Hooks) -> None:
        hooks[event][0]["hooks"].insert(position + 1, {**FOREIGN, "timeout": 5000})
        hooks[event][0]["hooks"].insert(0, {**FOREIGN, "timeout": 5000})

    edit(installed, path, share)
    wanted = installed.read(path)
    old = {"command": f'sh "$CLAUDE_PROJECT_DIR/{HOOKS}/run" {ROLES[event][position]}', "timeout": 5000}
    edit(installed, path, lambda hooks: hooks[event][0]["hooks"][position + 1].update(old))
    installed.migrate()
    assert installed.read(path) == wanted


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_of_two_alike_the_first_is_left(installed: Scratch, path: str) -> None:
    fresh = installed.read(path)

    def double(hooks: Hooks) -> None:
        for groups in hooks.values():
            second = [{**handler, "statusMessage": "the second"} for handler in groups[0]["hooks"]]
            groups[0]["hooks"].extend(second)
            groups.append({"hooks": second})

    edit(installed, path, double)
    installed.migrate()
    assert installed.read(path) == fresh


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(("event", "position"), PLACES)
def test_registration_that_was_deleted_comes_back(installed: Scratch, path: str, event: str, position: int) -> None:
    lost = hooks_of(installed, path)[event][0]["hooks"][position]
    edit(installed, path, lambda hooks: hooks[event][0]["hooks"].pop(position))
    installed.migrate()
    handlers = [handler for group in hooks_of(installed, path)[event] for handler in group["hooks"]]
    assert handlers.count(lost) == 1
    assert len(handlers) == len(ROLES[event])


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_event_that_was_deleted_comes_back(installed: Scratch, path: str) -> None:
    fresh = installed.json(path)
    edit(installed, path, lambda hooks: hooks.pop("Stop"))
    installed.migrate()
    assert installed.json(path) == fresh


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_registration_at_an_event_that_is_not_its_own_goes(installed: Scratch, path: str) -> None:
    fresh = installed.json(path)

    def spread(hooks: Hooks) -> None:
        hooks["Notification"] = copy.deepcopy(hooks["Stop"])
        hooks["SessionEnd"][0]["hooks"] += copy.deepcopy(hooks["Stop"][0]["hooks"])

    edit(installed, path, spread)
    installed.migrate()
    assert installed.json(path) == fresh


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_settings_that_were_deleted_come_back(installed: Scratch, path: str) -> None:
    fresh = installed.read(path)
    installed.place(path).unlink()
    installed.migrate()
    assert installed.read(path) == fresh


def hooks_of(scratch: Scratch, path: str) -> Hooks:
    hooks: Hooks = scratch.json(path)["hooks"]
    return hooks


# Files of ours


@pytest.mark.parametrize("path", OUR_FILES)
def test_edited_file_is_replaced_and_kept_as_a_copy(installed: Scratch, path: str) -> None:
    fresh = installed.read(path)
    installed.place(path).write_bytes(fresh + b"# mine\n")
    installed.migrate()
    assert installed.read(path) == fresh
    assert installed.copies(path) == [fresh + b"# mine\n"]


@pytest.mark.parametrize("mode", [0o644, 0o777])
@pytest.mark.parametrize("path", OUR_FILES)
def test_mode_of_a_file_is_mended(installed: Scratch, path: str, mode: int) -> None:
    installed.place(path).chmod(mode)
    installed.migrate()
    assert stat.S_IMODE(installed.place(path).stat().st_mode) == 0o755
    assert installed.copies(path) == []


@pytest.mark.parametrize("path", [*OUR_FILES, SKILL, RECORD, PYTHON, LOCAL, ".instar/.gitignore"])
def test_lost_file_comes_back(installed: Scratch, path: str) -> None:
    before = installed.files()
    installed.place(path).unlink()
    installed.migrate()
    assert installed.files() == before


def test_dead_link_to_the_interpreter_is_mended(installed: Scratch) -> None:
    wanted = installed.place(PYTHON).readlink()
    installed.place(PYTHON).unlink()
    installed.place(PYTHON).symlink_to("/nowhere/python3")
    installed.migrate()
    assert installed.place(PYTHON).readlink() == wanted


def test_interpreter_that_is_no_link_is_left_and_named(installed: Scratch) -> None:
    installed.place(PYTHON).unlink()
    installed.write(PYTHON, "mine")
    assert any(PYTHON in warning for warning in installed.report()["warnings"])
    assert installed.read(PYTHON) == b"mine"


@pytest.mark.parametrize("content", ["", "{,}", "[]", '{"clients": 5}', '{"clients": []}', "[" * 100_000, b"\xff"])
def test_broken_record_is_written_anew(installed: Scratch, content: str | bytes) -> None:
    fresh = installed.read(RECORD)
    installed.write(RECORD, content)
    installed.migrate()
    assert installed.json(RECORD)["clients"] == json.loads(fresh)["clients"]
    assert "nothing to do" in installed.migrate()


@pytest.mark.parametrize("path", [AGENTS, CLAUDE])
def test_section_that_was_taken_out_stays_out_until_its_pin_is_removed(scratch: Scratch, path: str) -> None:
    scratch.write(path, "# Rules\n")
    scratch.migrate()
    fresh = scratch.read(path)
    scratch.write(path, "# Rules\n")
    assert f"you took our section build out of {path}" in scratch.migrate()
    assert "nothing to do" in scratch.migrate()
    assert scratch.read(path) == b"# Rules\n"
    assert f"build@{path}" in json.loads(scratch.read(PINS))

    scratch.place(PINS).unlink()
    scratch.migrate()
    assert scratch.read(path) == fresh


@pytest.mark.parametrize("path", [AGENTS, CLAUDE])
@pytest.mark.parametrize(
    ("part", "shown_by"),
    [
        ("gate", ".instar/server-data/gate-on"),
        ("sessions", ".instar/state/session-reaper-mode.json"),
        ("peers", ".instar/agents/bob.json"),
    ],
)
def test_where_a_part_is_in_use_documents_say_so_beside_the_build(
    scratch: Scratch, path: str, part: str, shown_by: str
) -> None:
    scratch.write(path, "# Rules\n")
    scratch.migrate()
    assert f"instar:begin {part}" not in scratch.read(path).decode()
    scratch.write(shown_by, "{}")
    scratch.migrate()
    both = scratch.read(path)
    assert both.index(b"instar:begin build") < both.index(f"instar:begin {part}".encode())
    scratch.place(shown_by).unlink()
    assert "nothing to do" in scratch.migrate()
    assert scratch.read(path) == both
    scratch.migrate("--uninstall")
    assert scratch.read(path) == b"# Rules\n"


def test_sections_are_taken_out_one_by_one(scratch: Scratch) -> None:
    scratch.write(CLAUDE, "# Rules\n")
    scratch.write(".instar/server-data/gate-on", "shadow")
    scratch.migrate()
    text = scratch.read(CLAUDE).decode()
    begin, end = text.index("\n<!-- instar:begin gate"), text.index("<!-- instar:end gate -->\n")
    without = text[:begin] + text[end + len("<!-- instar:end gate -->\n") :]
    scratch.write(CLAUDE, without)
    scratch.migrate()
    assert scratch.read(CLAUDE).decode() == without
    assert list(json.loads(scratch.read(PINS))) == ["gate@CLAUDE.md"]
    assert "nothing to do" in scratch.migrate()


@pytest.mark.parametrize("pin", ["build", "build@CLAUDE.md"])
def test_pinned_section_is_left_alone(scratch: Scratch, pin: str) -> None:
    scratch.write(CLAUDE, "# Rules\n")
    scratch.write(PINS, json.dumps({pin: {"contentHash": "mine"}}))
    scratch.migrate()
    assert scratch.read(CLAUDE) == b"# Rules\n"
    assert json.loads(scratch.read(PINS)) == {pin: {"contentHash": "mine"}}


def test_with_pins_that_cannot_be_read_no_document_is_touched(scratch: Scratch) -> None:
    scratch.write(CLAUDE, "# Rules\n")
    scratch.write(PINS, "{torn")
    (error,) = scratch.errors()
    assert "no document is touched" in error
    assert scratch.read(CLAUDE) == b"# Rules\n"
    assert scratch.read(PINS) == b"{torn"


@pytest.mark.parametrize("text", ["@AGENTS.md\n", "# Rules\n@./AGENTS.md\n"])
def test_document_that_brings_in_the_other_one_gets_no_second_section(scratch: Scratch, text: str) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.write(CLAUDE, text)
    scratch.migrate()
    assert b"instar:begin build" in scratch.read(AGENTS)
    assert scratch.read(CLAUDE) == text.encode()
    scratch.migrate("--clients", "claude")
    assert scratch.read(AGENTS) == b"# Rules\n"
    assert b"instar:begin build" in scratch.read(CLAUDE)


def test_document_that_is_a_link_to_the_other_gets_one_section(scratch: Scratch) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.place(CLAUDE).symlink_to(AGENTS)
    scratch.migrate()
    assert scratch.read(AGENTS).count(b"instar:begin build") == 1
    assert scratch.place(CLAUDE).is_symlink()
    assert "nothing to do" in scratch.migrate()


def test_document_that_came_later_gains_our_section(installed: Scratch) -> None:
    installed.write(AGENTS, "# Rules\n")
    installed.migrate()
    assert b"instar:begin build" in installed.read(AGENTS)


def test_upgrade_of_a_clone_that_has_our_old_entries_needs_no_first_copy(installed: Scratch) -> None:
    fresh = installed.read(SETTINGS)
    installed.replace(SETTINGS, '"timeout": 10', '"timeout": 5000')
    clone = Scratch.create(installed.home / "clone")
    clone.write(SETTINGS, installed.read(SETTINGS))
    clone.migrate()
    assert clone.read(SETTINGS) == fresh
    clone.migrate("--uninstall")
    assert not clone.has(SETTINGS)


def test_hook_of_the_user_beside_ours_is_not_touched(installed: Scratch) -> None:
    before = os.lstat(installed.write(".instar/hooks/custom/mine.py", "mine", 0o700))
    installed.replace(f"{HOOKS}/run", "#!/bin/sh", "#!/bin/dash")
    installed.migrate()
    installed.migrate("--uninstall")
    assert os.lstat(installed.place(".instar/hooks/custom/mine.py")) == before
