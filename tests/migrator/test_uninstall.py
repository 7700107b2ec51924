"""What `--uninstall` gives back: the bytes of the user, all of them, and no file of ours."""

from __future__ import annotations

import json
import stat

import pytest

from tests.migrator.scratch import (
    AGENTS,
    BACKUPS,
    CAP,
    CLIENT_FILES,
    CODEX,
    HOOKS,
    LOCAL,
    PYTHON,
    SETTINGS,
    SKILL,
    Scratch,
    snapshot,
)

FOREIGN_GROUP = {"matcher": "x", "hooks": [{"type": "command", "command": "say done"}]}

# Texts that our part cannot be cut out of again without a trace, and some that it can
SETTINGS_TEXTS = {
    "lines": '{\n  "model": "opus"\n}\n',
    "one line": '{"model": "opus"}',
    "crlf and byte order mark": '\ufeff{\r\n\t"model": "opus"\r\n}\r\n',
    "empty": "{}",
    "white space in an empty object": " {  \n\n } \n",
    "empty hooks": '{"hooks": { \t}}',
    "empty lists of hooks": '{\n "hooks": {"Stop": [ ], "SessionEnd": [\n]}}',
    "empty environment": '{"env": { }}',
    "foreign hooks": json.dumps({"hooks": {"Stop": [FOREIGN_GROUP], "Notification": []}}, indent=3),
}
DOCUMENTS = ["", "# Rules", "# Rules\n", "# Rules\n\n\n", "# Rules\r\n\r\n", "\n\n"]


def is_gone(scratch: Scratch) -> bool:
    """Whether below `.instar` nothing is left but what was kept for the user."""
    left = {path for path in scratch.files() if path.startswith(".instar/")}
    return left <= {".instar/.gitignore", ".instar/state", ".instar/logs"}


# An untouched file comes back whole


def test_project_without_files_has_none_afterwards(scratch: Scratch) -> None:
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.users_files().keys() == {"."}
    assert is_gone(scratch)


@pytest.mark.parametrize("text", SETTINGS_TEXTS.values(), ids=SETTINGS_TEXTS)
def test_untouched_settings_come_back_whole(scratch: Scratch, text: str) -> None:
    for path, mode in zip((*CLIENT_FILES, LOCAL), (0o600, 0o644, 0o664), strict=True):
        scratch.write(path, text, mode)
    before = scratch.users_files()
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.users_files() == before


@pytest.mark.parametrize("text", DOCUMENTS)
def test_untouched_document_comes_back_whole(scratch: Scratch, text: str) -> None:
    scratch.write(AGENTS, text)
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.read(AGENTS) == text.encode()


def test_settings_come_back_through_a_link(scratch: Scratch) -> None:
    dotfile = scratch.home / "settings.json"
    dotfile.write_text(SETTINGS_TEXTS["empty hooks"], encoding="utf-8")
    scratch.place(SETTINGS).parent.mkdir()
    scratch.place(SETTINGS).symlink_to(dotfile)
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.place(SETTINGS).readlink() == dotfile
    assert dotfile.read_text(encoding="utf-8") == SETTINGS_TEXTS["empty hooks"]


def test_folders_with_something_of_the_user_stay(scratch: Scratch) -> None:
    scratch.migrate()
    scratch.write(".claude/skills/other/SKILL.md", "mine")
    scratch.migrate("--uninstall")
    files = {path for path, (mode, _) in scratch.users_files().items() if not stat.S_ISDIR(mode)}
    assert files == {".claude/skills/other/SKILL.md"}
    assert not scratch.has(".claude/skills/build")
    assert not scratch.has(".codex")


def test_empty_folders_of_the_user_stay(scratch: Scratch) -> None:
    for folder in (".claude/skills/build", ".codex"):
        scratch.place(folder).mkdir(parents=True)
    before = scratch.users_files()
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.users_files() == before


# An edited file loses our part only


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_edited_settings_keep_the_edit_and_lose_ours(scratch: Scratch, path: str) -> None:
    scratch.write(path, '{\n  "model": "opus"\n}\n', 0o600)
    scratch.migrate()
    scratch.replace(path, '"opus"', '"sonnet"')
    scratch.place(path).chmod(0o640)
    scratch.migrate("--uninstall")
    assert scratch.read(path) == b'{\n  "model": "sonnet"\n}\n'
    assert stat.S_IMODE(scratch.place(path).stat().st_mode) == 0o640


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_hooks_that_came_later_stay(installed: Scratch, path: str) -> None:
    settings = installed.json(path)
    for event in ("Stop", "Notification"):
        settings["hooks"].setdefault(event, []).append(FOREIGN_GROUP)
    settings["hooks"]["SessionEnd"][0]["hooks"].append({"type": "command", "command": "x"})
    installed.write_json(path, settings)
    installed.migrate("--uninstall")
    assert installed.json(path) == {
        "hooks": {
            "Stop": [FOREIGN_GROUP],
            "SessionEnd": [{"hooks": [{"type": "command", "command": "x"}]}],
            "Notification": [FOREIGN_GROUP],
        }
    }


def test_settings_that_came_later_stay(installed: Scratch) -> None:
    installed.replace(LOCAL, '"env": {', '"model": "opus", "env": {')
    installed.migrate("--uninstall")
    assert installed.json(LOCAL) == {"model": "opus"}


def test_block_cap_that_was_changed_stays(installed: Scratch) -> None:
    installed.replace(LOCAL, '"11"', '"20"')
    installed.migrate("--uninstall")
    assert installed.json(LOCAL) == {"env": {CAP: "20"}}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_edited_document_keeps_the_edit_and_loses_our_section(scratch: Scratch, newline: str) -> None:
    scratch.write(AGENTS, f"# Rules{newline}")
    scratch.migrate()
    scratch.write(AGENTS, scratch.read(AGENTS) + f"{newline}More.{newline}".encode())
    scratch.migrate("--uninstall")
    assert scratch.read(AGENTS).decode() == f"# Rules{newline}{newline}More.{newline}"


def test_section_with_words_of_the_user_is_kept_as_a_copy(scratch: Scratch) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.migrate()
    scratch.replace(AGENTS, "## Builds", "## Our builds")
    edited = scratch.read(AGENTS)
    scratch.migrate("--uninstall")
    assert scratch.read(AGENTS) == b"# Rules\n"
    assert edited in scratch.copies(AGENTS)


def test_edited_skill_stays_and_is_named(installed: Scratch) -> None:
    installed.write(SKILL, "mine")
    assert any(SKILL in text for text in installed.report("--uninstall")["skipped"])
    assert installed.read(SKILL) == b"mine"


def test_edited_hook_file_is_kept_as_a_copy(installed: Scratch) -> None:
    installed.write(f"{HOOKS}/run", "mine", 0o755)
    installed.migrate("--uninstall")
    assert not installed.has(f"{HOOKS}/run")
    assert installed.copies(f"{HOOKS}/run") == [b"mine"]


def test_our_entries_go_wherever_they_were_moved(installed: Scratch) -> None:
    settings = installed.json(SETTINGS)
    settings["hooks"]["Notification"] = settings["hooks"].pop("Stop")
    installed.write_json(SETTINGS, settings)
    installed.migrate("--uninstall")
    assert not installed.has(SETTINGS)


def test_our_entries_go_without_any_memory_of_the_installation(installed: Scratch) -> None:
    clone = Scratch.create(installed.home / "clone")
    for path in (*CLIENT_FILES, SKILL):
        clone.write(path, installed.read(path))
    clone.migrate("--uninstall")
    left = {path for path, (mode, _) in clone.users_files().items() if not stat.S_ISDIR(mode)}
    assert left == set()


# What cannot be edited


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_broken_settings_with_something_of_ours_are_left_and_named(installed: Scratch, path: str) -> None:
    installed.replace(path, "{", "{,", 1)
    before = installed.read(path)
    (error,) = installed.errors("--uninstall")
    assert error.startswith(f"cannot edit {path}: line 1 column 2")
    assert installed.read(path) == before
    assert is_gone(installed)


def test_hook_file_that_is_a_folder_is_left_and_named(installed: Scratch) -> None:
    installed.place(f"{HOOKS}/run").unlink()
    installed.place(f"{HOOKS}/run").mkdir()
    (error,) = installed.errors("--uninstall")
    assert f"{HOOKS}/run" in error
    assert not installed.has(SETTINGS)
    assert not installed.has(f"{HOOKS}/build-state.py")


def test_hook_file_outside_of_the_project_stays(installed: Scratch) -> None:
    outside = installed.home / "run"
    installed.place(f"{HOOKS}/run").rename(outside)
    installed.place(f"{HOOKS}/run").symlink_to(outside)
    installed.errors("--uninstall")
    assert outside.exists()


# Never, twice, and again


UNTOUCHED = {
    SETTINGS: '{"hooks": {"Stop": [ ]}}',
    LOCAL: json.dumps({"env": {CAP: "11", "SHELL": "/opt/instar/sh"}}),
    CODEX: '{"hooks": {}}',
    AGENTS: "# Rules\n",
    SKILL: "mine",
}


@pytest.mark.parametrize("files", [{}, UNTOUCHED, dict.fromkeys(UNTOUCHED, "{,}"), dict.fromkeys(UNTOUCHED, "{}")])
def test_uninstall_without_an_installation_touches_nothing(scratch: Scratch, files: dict[str, str]) -> None:
    for path, text in files.items():
        scratch.write(path, text)
    before = snapshot(scratch.project.parent)
    assert "nothing to do" in scratch.migrate("--uninstall")
    assert snapshot(scratch.project.parent) == before


def test_folders_where_we_have_files_elsewhere_are_none_of_our_business(scratch: Scratch) -> None:
    for path in (SETTINGS, LOCAL, CODEX, AGENTS):
        scratch.place(path).mkdir(parents=True)
    assert "nothing to do" in scratch.migrate("--uninstall")


def test_second_uninstall_touches_nothing(installed: Scratch) -> None:
    installed.migrate("--uninstall")
    before = installed.snapshot()
    assert "nothing to do" in installed.migrate("--uninstall")
    assert installed.snapshot() == before


@pytest.mark.parametrize("text", ['{"hooks": {"Stop": [ ]}}', '{"hooks": { }}', "{}", "{,}"])
def test_second_uninstall_touches_nothing_that_came_later(installed: Scratch, text: str) -> None:
    installed.migrate("--uninstall")
    installed.write(SETTINGS, text)
    installed.run("--uninstall")
    assert installed.read(SETTINGS) == text.encode()


def test_block_cap_of_the_user_stays(scratch: Scratch) -> None:
    scratch.write_json(LOCAL, {"env": {CAP: "11"}})
    before = scratch.read(LOCAL)
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.read(LOCAL) == before


def test_what_can_be_needed_again_is_kept_and_named(installed: Scratch) -> None:
    installed.write(".instar/state/build/build-state.json", "{}")
    installed.write(".instar/logs/migrate.log", "said")
    (note,) = installed.report("--uninstall")["skipped"]
    for path in (".instar/state/build", BACKUPS, ".instar/logs"):
        assert path in note
    assert installed.read(".instar/state/build/build-state.json") == b"{}"
    assert installed.read(".instar/logs/migrate.log") == b"said"


def test_installation_after_an_uninstallation_is_the_first_again(scratch: Scratch) -> None:
    scratch.write(SETTINGS, "{}")
    scratch.migrate()
    first = scratch.files()
    scratch.migrate("--uninstall")
    scratch.migrate()
    assert scratch.files() == first


@pytest.mark.parametrize("text", SETTINGS_TEXTS.values(), ids=SETTINGS_TEXTS)
def test_second_installation_gives_back_what_was_there_before_it(scratch: Scratch, text: str) -> None:
    scratch.migrate()
    scratch.migrate("--uninstall")
    for path in (*CLIENT_FILES, LOCAL):
        scratch.write(path, text)
    before = scratch.users_files()
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.users_files() == before


def test_second_installation_gives_back_that_nothing_was_there(scratch: Scratch) -> None:
    for path in (*CLIENT_FILES, LOCAL):
        scratch.write(path, "{}\n")
    scratch.migrate()
    scratch.migrate("--uninstall")
    for path in (*CLIENT_FILES, LOCAL):
        scratch.place(path).unlink()
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert not any(scratch.has(path) for path in (*CLIENT_FILES, LOCAL))


def test_interpreter_goes_even_if_it_is_dead(installed: Scratch) -> None:
    installed.place(PYTHON).unlink()
    installed.place(PYTHON).symlink_to("/nowhere")
    installed.migrate("--uninstall")
    assert not installed.has(PYTHON)


def test_uninstall_is_for_both_clients(installed: Scratch) -> None:
    assert installed.run("--uninstall", "--clients", "codex").returncode == 2
    assert installed.has(CODEX)
