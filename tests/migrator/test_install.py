"""What a migration puts where, and what of the user's it leaves as it is."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

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
    RECORD,
    SETTINGS,
    SKILL,
    Scratch,
    look,
    noted,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TEMPLATES = Path(__file__).parents[2] / "templates"
MANIFEST = json.loads((TEMPLATES / "manifest.json").read_bytes())

OWN_FILES = {
    entry["installedPath"]: (template, int(entry["mode"], 8))
    for template, entry in MANIFEST.items()
    if "installedPath" in entry
}
OTHER_FILES = {SETTINGS, LOCAL, CODEX, RECORD, ".instar/.gitignore"}

EVENTS = ["Stop", "SessionStart", "UserPromptSubmit", "SessionEnd"]  # with both clients

FOREIGN_STOP = {"hooks": [{"type": "command", "command": "say done"}]}
FOREIGN_START = {"matcher": "resume", "hooks": [{"type": "command", "command": "welcome"}]}
FOREIGN = {"hooks": {"Stop": [FOREIGN_STOP], "SessionStart": [FOREIGN_START], "Notification": []}}

HAND_WRITTEN = {
    "two spaces": '{\n  "model": "opus",\n  "env": {"A": "1"}\n}\n',
    "tabs": '{\n\t"model": "opus",\n\t"permissions": {\n\t\t"allow": [ "Bash(ls)" ]\n\t}\n}\n',
    "crlf": '{\r\n    "model": "opus"\r\n}\r\n',
    "byte order mark": '\ufeff{\n  "model": "opus"\n}\n',
    "no final newline": '{\n  "model": "opus"\n}',
    "comma before the line": '{ "model" : "opus"\n, "a": 1.50e+2\n}\n',
    "escapes and raw text": '{\n  "\\u0061": "é \\u00e9 \\/",\n  "b": "\u2028"\n}\n',
    "blank lines": '\n{\n\n  "model": "opus"\n\n\n}\n\n',
    "foreign hooks": json.dumps(FOREIGN, indent=4),
    "empty lists of hooks": '{\n  "hooks": {\n    "Stop": [],\n    "SessionEnd": [ ]\n  }\n}\n',
    "empty object": "{\n}\n",
    "one line": '{"model":"opus","hooks":{"Stop":[{"hooks":[{"type":"command","command":"x"}]}]}}',
    "one line with spaces": '{ "model": "opus" }\n',
}

NO_JSON = {
    "comment": ('{\n  // mine\n  "model": "opus"\n}\n', "line 2 column 3"),
    "trailing comma": ('{\n  "model": "opus",\n}\n', "line "),
    "nothing": ("", "line 1 column 1"),
    "not a number": ('{"a": NaN}', "line 1 column 7"),
    "not utf-8": (b'{"a": "\xe9"}', "byte 7"),
    "a list": ("[]", "the outermost value is a list"),
    "a key twice": ('{"hooks": {}, "hooks": {}}', 'key "hooks" stands twice'),
    "hooks is a list": ('{"hooks": []}', 'key "hooks" is a list, expected an object'),
    "hooks is null": ('{"hooks": null}', 'key "hooks" is null, expected an object'),
    "an event is an object": ('{"hooks": {"Stop": {}}}', 'key "hooks.Stop" is an object, expected a list'),
    "a later event is a string": ('{"hooks": {"SessionEnd": "x"}}', 'key "hooks.SessionEnd" is a string'),
}

DOCUMENTS = {
    "empty": "",
    "lines": "# Rules\n\nBe kind.\n",
    "no final newline": "# Rules",
    "crlf": "# Rules\r\n\r\nBe kind.\r\n",
    "byte order mark": "\ufeff# Rules\n",
    "blank lines at the end": "# Rules\n\n\n\n",
}


def is_ours(handler: dict[str, object]) -> bool:
    return f"{HOOKS}/run" in str(handler["command"])


# What lands where


def test_files_of_ours_land_as_the_templates_are(installed: Scratch) -> None:
    assert {f"{HOOKS}/run", f"{HOOKS}/build-stop-hook.py", f"{HOOKS}/build-state.py", SKILL} <= OWN_FILES.keys()
    for path, (template, mode) in OWN_FILES.items():
        assert installed.read(path) == (TEMPLATES / template).read_bytes()
        assert stat.S_IMODE(installed.place(path).stat().st_mode) == mode


def test_nothing_else_lands_in_the_project(installed: Scratch) -> None:
    files = {path for path, seen in installed.snapshot().items() if stat.S_ISREG(seen.mode)}
    assert {path for path in files if not path.startswith(BACKUPS)} == {
        *OWN_FILES, *OTHER_FILES, ".instar/state/migrate.lock",
    }  # fmt: skip


def test_nothing_lands_in_the_home(installed: Scratch) -> None:
    assert snapshot(installed.home).keys() == {"."}


def test_git_sees_nothing_below_instar(installed: Scratch) -> None:
    git(installed.project, "init", "-q")
    assert ".instar" not in git(installed.project, "status", "--porcelain", "-uall")


def test_gitignore_of_the_user_stays(scratch: Scratch) -> None:
    scratch.write(".instar/.gitignore", "state/\n")
    scratch.migrate()
    assert scratch.read(".instar/.gitignore") == b"state/\n"


def test_interpreter_is_none_of_a_virtual_environment(installed: Scratch) -> None:
    show = "import sys; print(sys.prefix == sys.base_prefix)"
    done = subprocess.run([installed.place(PYTHON), "-I", "-S", "-c", show], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_interpreter_chosen_by_the_user_stays(scratch: Scratch) -> None:
    scratch.place(PYTHON).parent.mkdir(parents=True)
    scratch.place(PYTHON).symlink_to("/bin/sh")
    scratch.migrate()
    assert str(scratch.place(PYTHON).readlink()) == "/bin/sh"


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_every_event_is_registered_with_each_client(installed: Scratch, path: str) -> None:
    hooks = installed.json(path)["hooks"]
    assert list(hooks) == [*EVENTS, *(["PreCompact"] if path == CODEX else [])]
    assert all(is_ours(handler) for (group,) in hooks.values() for handler in group["hooks"])


def test_user_without_a_home_folder_is_served(scratch: Scratch) -> None:
    scratch.home.rmdir()
    scratch.migrate()


# Twice is once


def test_second_run_changes_nothing(installed: Scratch) -> None:
    before = installed.snapshot()
    assert "nothing to do" in installed.migrate()
    assert installed.snapshot() == before


@pytest.mark.parametrize("text", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_second_run_changes_nothing_in_a_project_of_a_user(scratch: Scratch, text: str) -> None:
    for path in (*CLIENT_FILES, LOCAL):
        scratch.write(path, text)
    scratch.write(AGENTS, "# Rules")
    scratch.migrate()
    before = scratch.snapshot()
    assert "nothing to do" in scratch.migrate()
    assert scratch.snapshot() == before


# The user's settings


@pytest.mark.parametrize("text", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_user_loses_no_character_of_settings(scratch: Scratch, text: str) -> None:
    places = [scratch.write(path, text) for path in (*CLIENT_FILES, LOCAL)]
    scratch.migrate()
    assert [is_insertion(text, place.read_bytes().decode()) for place in places] == [True] * 3


def is_insertion(before: str, after: str) -> bool:
    """Whether every character of `before` stands in `after`, in this order, with others in between."""
    left = iter(after)
    return before != after and all(character in left for character in before)


@pytest.mark.parametrize("text", [HAND_WRITTEN["tabs"], HAND_WRITTEN["crlf"]], ids=["tabs", "crlf"])
def test_what_is_added_is_written_as_the_file_is(scratch: Scratch, text: str) -> None:
    scratch.write(SETTINGS, text)
    scratch.migrate()
    after = scratch.read(SETTINGS).decode()
    assert after.count("\n") == after.count("\r\n") * ("\r" in text) or "\r" not in after
    assert ("\n  " in after.replace("    ", "\t")) is False


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_foreign_hooks_stay_in_place_and_before_ours(scratch: Scratch, path: str) -> None:
    scratch.write_json(path, FOREIGN)
    scratch.migrate()
    hooks = scratch.json(path)["hooks"]
    assert hooks["Stop"][0] == FOREIGN_STOP
    assert hooks["SessionStart"][0] == FOREIGN_START
    assert hooks["Notification"] == []
    for event in EVENTS:
        *others, ours = hooks[event]
        assert others == FOREIGN["hooks"].get(event, [])
        assert all(is_ours(handler) for handler in ours["hooks"])


def test_settings_are_written_through_a_link(scratch: Scratch) -> None:
    dotfile = scratch.home / "claude-settings.json"
    dotfile.write_text('{"model": "opus"}', encoding="utf-8")
    scratch.place(SETTINGS).parent.mkdir()
    scratch.place(SETTINGS).symlink_to(dotfile)
    scratch.migrate()
    assert scratch.place(SETTINGS).readlink() == dotfile
    assert not dotfile.is_symlink()
    assert json.loads(dotfile.read_bytes())["hooks"].keys() == set(EVENTS)


def test_mode_of_settings_stays(scratch: Scratch) -> None:
    modes = {SETTINGS: 0o600, CODEX: 0o640, LOCAL: 0o664}
    for path, mode in modes.items():
        scratch.write(path, "{}", mode)
    scratch.migrate()
    assert {path: stat.S_IMODE(scratch.place(path).stat().st_mode) for path in modes} == modes


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_mode_of_new_settings_is_the_users_choice(scratch: Scratch, umask: int, mode: int) -> None:
    scratch.run(umask=umask)
    assert {stat.S_IMODE(scratch.place(path).stat().st_mode) for path in (SETTINGS, LOCAL, CODEX)} == {mode}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_settings_stays(scratch: Scratch) -> None:
    place = scratch.write(SETTINGS, "{}")
    os.chown(place, 4242, 2424)
    scratch.migrate()
    assert (place.stat().st_uid, place.stat().st_gid) == (4242, 2424)


# What cannot be edited


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(("content", "problem"), NO_JSON.values(), ids=NO_JSON)
def test_settings_that_cannot_be_edited_are_left_and_named(
    scratch: Scratch, path: str, content: str | bytes, problem: str
) -> None:
    before = scratch.write(path, content).read_bytes()
    (error,) = scratch.errors()
    assert error.startswith(f"cannot edit {path}: ")
    assert problem in error
    assert error.endswith(
        "it is left as it is: mend it, or let --repair set it up anew beside a copy, and run instar-migrate again"
    )
    assert scratch.read(path) == before


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_all_else_is_installed_beside_what_cannot_be_edited(scratch: Scratch, path: str) -> None:
    scratch.write(path, "{,}")
    scratch.errors()
    for other in {*OWN_FILES, *OTHER_FILES} - {path}:
        assert scratch.has(other)


def test_settings_that_were_mended_are_done_by_the_next_run(scratch: Scratch) -> None:
    scratch.write(SETTINGS, "{,}")
    scratch.errors()
    scratch.write(SETTINGS, "{}")
    assert scratch.report()["upgraded"] == [f"{SETTINGS} (register the hooks)"]


def make_folder(place: Path) -> None:
    place.mkdir()


def make_pipe(place: Path) -> None:
    os.mkfifo(place)


def make_dead_link(place: Path) -> None:
    place.symlink_to("nowhere")


def make_loop(place: Path) -> None:
    place.symlink_to(place.name)


def make_file(place: Path) -> None:
    place.touch()


@pytest.mark.parametrize("make", [make_folder, make_pipe, make_dead_link, make_loop])
@pytest.mark.parametrize("path", [CODEX, SKILL, f"{HOOKS}/build-state.py", ".instar/.gitignore", RECORD])
def test_what_is_no_file_is_left_and_named(scratch: Scratch, path: str, make: Callable[[Path], None]) -> None:
    check_left_and_named(scratch, path, path, make)


@pytest.mark.parametrize("make", [make_file, make_dead_link, make_loop])
@pytest.mark.parametrize("path", [CODEX, SKILL])
def test_what_is_no_folder_is_left_and_named(scratch: Scratch, path: str, make: Callable[[Path], None]) -> None:
    check_left_and_named(scratch, path, str(Path(path).parent), make)


def check_left_and_named(scratch: Scratch, path: str, odd: str, make: Callable[[Path], None]) -> None:
    scratch.place(odd).parent.mkdir(parents=True, exist_ok=True)
    make(scratch.place(odd))
    before = look(scratch.place(odd))
    (error,) = scratch.errors()
    assert odd in error
    assert look(scratch.place(odd)) == before
    for other in {*OWN_FILES, *OTHER_FILES} - {path}:
        assert scratch.has(other)


def test_document_that_is_a_folder_is_left_and_named(scratch: Scratch) -> None:
    check_left_and_named(scratch, AGENTS, AGENTS, make_folder)


@pytest.mark.parametrize("make", [make_file, make_dead_link, make_loop])
def test_without_a_folder_of_ours_nothing_is_done(scratch: Scratch, make: Callable[[Path], None]) -> None:
    make(scratch.place(".instar"))
    before = scratch.snapshot()
    assert ".instar" in scratch.refused()
    assert scratch.snapshot() == before


def test_file_of_ours_that_leads_out_of_the_project_is_not_written(scratch: Scratch) -> None:
    outside = scratch.home / "run"
    outside.write_text("mine", encoding="utf-8")
    scratch.place(HOOKS).mkdir(parents=True)
    scratch.place(f"{HOOKS}/run").symlink_to(outside)
    (error,) = scratch.errors()
    assert f"{HOOKS}/run leads out of the project" in error
    assert outside.read_text(encoding="utf-8") == "mine"


def test_instar_that_leads_out_of_the_project_is_refused(scratch: Scratch) -> None:
    scratch.place(".instar").symlink_to(scratch.home)
    before = snapshot(scratch.home)
    assert "leads out of the project" in scratch.refused()
    assert "leads out of the project" in scratch.refused("--uninstall")
    assert snapshot(scratch.home) == before
    assert not scratch.has(".claude")


# AGENTS.md


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_document_gains_one_section(scratch: Scratch, text: str) -> None:
    scratch.write(AGENTS, text)
    scratch.migrate()
    after = scratch.read(AGENTS).decode()
    section = after.removeprefix(text)
    assert after == text + section
    assert section.lstrip("\r\n").startswith("<!-- instar:begin build -->")
    assert after.count("instar:begin build") == 1
    assert after.count("\n") == after.count("\r\n") or "\r" not in after


def test_document_is_not_created(installed: Scratch) -> None:
    assert not installed.has(AGENTS)


def test_document_is_written_through_a_link(scratch: Scratch) -> None:
    scratch.write("CLAUDE.md", "# Rules\n")
    scratch.place(AGENTS).symlink_to("CLAUDE.md")
    scratch.migrate()
    assert str(scratch.place(AGENTS).readlink()) == "CLAUDE.md"
    assert "instar:begin build" in scratch.read("CLAUDE.md").decode()


def test_section_that_the_user_edited_is_kept_and_named(scratch: Scratch) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.migrate()
    scratch.replace(AGENTS, "## Builds", "## Our builds")
    before = scratch.read(AGENTS)
    assert any(AGENTS in text for text in scratch.report()["skipped"])
    assert scratch.read(AGENTS) == before


@pytest.mark.parametrize(
    "text",
    [
        "<!-- instar:begin build -->\n",
        "<!-- instar:end build -->\n",
        "<!-- instar:end build -->\n<!-- instar:begin build -->\n",
        "<!-- instar:begin build --> x <!-- instar:end build -->\n",
        "<!-- instar:begin build -->\n<!-- instar:end build -->\n" * 2,
    ],
)
def test_document_with_marks_that_do_not_pair_up_is_left_and_named(scratch: Scratch, text: str) -> None:
    scratch.write(AGENTS, text)
    (error,) = scratch.errors()
    assert error.startswith(f"cannot edit {AGENTS}: the marks ")
    assert scratch.read(AGENTS) == text.encode()


# The skill


def test_skill_of_the_user_is_kept_and_named(scratch: Scratch) -> None:
    scratch.write(SKILL, "mine")
    assert any(SKILL in text for text in scratch.report()["skipped"])
    assert scratch.read(SKILL) == b"mine"


def test_skill_comes_once_the_users_own_is_gone(scratch: Scratch) -> None:
    scratch.write(SKILL, "mine")
    scratch.migrate()
    scratch.place(SKILL).unlink()
    scratch.migrate()
    assert scratch.read(SKILL) == (TEMPLATES / "skills/build/SKILL.md").read_bytes()


# The block cap


def test_block_cap_is_set_for_this_machine_where_nobody_has(installed: Scratch) -> None:
    assert installed.json(LOCAL) == {"env": {CAP: "11"}}


@pytest.mark.parametrize("value", ["20", "0", 20])
@pytest.mark.parametrize("place", [SETTINGS, LOCAL, "~/.claude/settings.json", "~/elsewhere/settings.json"])
def test_block_cap_that_somebody_set_stays(scratch: Scratch, place: str, value: str | int) -> None:
    set_cap(scratch, place, value)
    report = scratch.report()
    assert report["warnings"] == []
    assert LOCAL not in [change["path"] for change in report["changes"]]


@pytest.mark.parametrize("value", ["5", "many", "²", "", True])
@pytest.mark.parametrize("place", [SETTINGS, LOCAL, "~/.claude/settings.json"])
def test_block_cap_that_is_too_low_is_named(scratch: Scratch, place: str, value: object) -> None:
    set_cap(scratch, place, value)
    (warning,) = scratch.report()["warnings"]
    assert CAP in warning
    assert place.removeprefix("~/") in warning


def test_settings_of_a_user_with_another_folder_are_not_looked_at(scratch: Scratch) -> None:
    set_cap(scratch, "~/.claude/settings.json", "20")
    scratch.environ["CLAUDE_CONFIG_DIR"] = str(scratch.home / "elsewhere")
    scratch.migrate()
    assert scratch.json(LOCAL) == {"env": {CAP: "11"}}


def test_broken_settings_in_the_home_do_not_matter(scratch: Scratch) -> None:
    set_cap(scratch, "~/.claude/settings.json", "20")
    (scratch.home / ".claude/settings.json").write_text("{,}", encoding="utf-8")
    scratch.migrate()
    assert scratch.json(LOCAL) == {"env": {CAP: "11"}}


def set_cap(scratch: Scratch, place: str, value: object) -> None:
    path = scratch.home / place[2:] if place.startswith("~") else scratch.place(place)
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"env": {CAP: value}}), encoding="utf-8")
    if "elsewhere" in place:
        scratch.environ["CLAUDE_CONFIG_DIR"] = str(path.parent)


# The clients

FILES_OF = {"claude": {SETTINGS, LOCAL, SKILL}, "codex": {CODEX}}


@pytest.mark.parametrize(("client", "other"), [("claude", "codex"), ("codex", "claude")])
def test_chosen_client_is_the_only_one_and_remembered(scratch: Scratch, client: str, other: str) -> None:
    scratch.write(AGENTS, "# Rules\n")
    scratch.migrate("--clients", client)
    before = scratch.snapshot()
    assert FILES_OF[client] <= before.keys()
    assert not FILES_OF[other] & before.keys()
    assert (b"instar:begin" in scratch.read(AGENTS)) == (client == "codex")
    assert "nothing to do" in scratch.migrate()
    assert scratch.snapshot() == before


@pytest.mark.parametrize(("client", "other"), [("claude", "codex"), ("codex", "claude")])
def test_other_client_is_left_clean_after_a_switch(scratch: Scratch, client: str, other: str) -> None:
    for path in (*CLIENT_FILES, LOCAL):
        scratch.write(path, HAND_WRITTEN["tabs"])
    scratch.write(AGENTS, "# Rules")
    before = scratch.files()
    scratch.migrate("--clients", client)
    scratch.migrate("--clients", other)
    scratch.migrate("--clients", client)
    after = scratch.files()
    kept = FILES_OF[other] | ({AGENTS} if client == "claude" else set())
    assert {path: after.get(path) for path in kept} == {path: before.get(path) for path in kept}


def test_both_clients_can_be_asked_for_again(scratch: Scratch) -> None:
    scratch.migrate("--clients", "codex")
    scratch.migrate("--clients", "claude", "--clients", "codex")
    assert scratch.has(SETTINGS)
    assert scratch.has(CODEX)


def test_broken_settings_of_a_client_that_is_not_wanted_do_not_matter(scratch: Scratch) -> None:
    scratch.write(SETTINGS, "{,}")
    scratch.write(LOCAL, "{,}")
    scratch.migrate("--clients", "codex")
    assert scratch.read(SETTINGS) == b"{,}"
    assert scratch.read(LOCAL) == b"{,}"


# Which project


def git(folder: Path, *arguments: str) -> str:
    options = ("-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always")
    done = subprocess.run(["git", *options, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def repository(folder: Path, *options: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "-q", *options)
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def subfolder(folder: Path) -> Path:
    folder.joinpath("a/b").mkdir(parents=True)
    return folder / "a/b"


def acted_on(scratch: Scratch, cwd: Path) -> Path:
    """Return the folder that a migration from `cwd` said it acts on, and did."""
    scratch.migrate(cwd=cwd)
    assert "nothing to do" in scratch.migrate(cwd=cwd)
    (root,) = {place.parents[2] for place in scratch.project.parent.rglob(HOOKS)}
    return root.parent if root.name == ".instar" else root


def test_subfolder_acts_on_the_top_of_the_repository(scratch: Scratch) -> None:
    repository(scratch.project)
    assert acted_on(scratch, subfolder(scratch.project)) == scratch.project


def test_folder_without_repository_is_the_project(scratch: Scratch) -> None:
    assert acted_on(scratch, scratch.project) == scratch.project


def test_folder_that_has_ours_is_the_project(scratch: Scratch) -> None:
    scratch.migrate()
    assert acted_on(scratch, subfolder(scratch.project)) == scratch.project


def test_repository_inside_a_project_that_has_ours_is_its_own(scratch: Scratch) -> None:
    scratch.migrate()
    inner = repository(subfolder(scratch.project))
    scratch.migrate(cwd=inner)
    assert (inner / HOOKS).is_dir()


def test_nearest_project_that_has_ours_wins(scratch: Scratch) -> None:
    part = subfolder(repository(scratch.project))
    scratch.migrate("--project", part)
    assert acted_on(scratch, part) == part


@pytest.mark.parametrize("is_relative", [False, True])
@pytest.mark.parametrize("below", ["", "a/b"])
def test_linked_worktree_acts_on_the_main_checkout(scratch: Scratch, below: str, *, is_relative: bool) -> None:
    repository(scratch.project)
    worktree = scratch.project.parent / "worktree"
    git(scratch.project, "worktree", "add", "-q", str(worktree))
    if is_relative:  # as git 2.48 writes it on request
        worktree.joinpath(".git").write_text("gitdir: ../project/.git/worktrees/worktree\n", encoding="utf-8")
    subfolder(worktree)
    assert acted_on(scratch, worktree / below) == scratch.project


def test_linked_worktree_can_be_named(scratch: Scratch) -> None:
    repository(scratch.project)
    git(scratch.project, "worktree", "add", "-q", "../worktree")
    scratch.migrate("--project", "../worktree")
    assert scratch.has(HOOKS)


def test_worktree_whose_main_checkout_is_gone_is_a_project(scratch: Scratch) -> None:
    repository(scratch.project)
    git(scratch.project, "worktree", "add", "-q", "../worktree")
    scratch.project.rename(scratch.home / "moved")
    worktree = scratch.home.parent / "worktree"
    assert acted_on(scratch, worktree) == worktree
    assert "nothing to do" in scratch.migrate("--project", worktree, cwd=scratch.home)


def test_worktree_of_a_bare_repository_is_a_project(scratch: Scratch) -> None:
    repository(scratch.project)
    git(scratch.project, "clone", "-q", "--bare", ".", "../bare.git")
    git(scratch.home.parent / "bare.git", "worktree", "add", "-q", "../worktree")
    worktree = scratch.home.parent / "worktree"
    assert acted_on(scratch, subfolder(worktree)) == worktree


def test_submodule_is_a_project(scratch: Scratch) -> None:
    part = repository(scratch.home.parent / "part")
    repository(scratch.project)
    git(scratch.project, "submodule", "--quiet", "add", str(part), "part")
    assert acted_on(scratch, subfolder(scratch.project / "part")) == scratch.project / "part"


def test_submodule_of_a_project_that_has_ours_belongs_to_it(scratch: Scratch) -> None:
    part = repository(scratch.home.parent / "part")
    repository(scratch.project)
    git(scratch.project, "submodule", "--quiet", "add", str(part), "part")
    scratch.migrate()
    assert acted_on(scratch, scratch.project / "part") == scratch.project


@pytest.mark.parametrize("option", ["--project", "--dir"])
def test_named_project_is_acted_on(scratch: Scratch, option: str) -> None:
    scratch.migrate(option, scratch.project, cwd=scratch.home)
    assert scratch.has(SETTINGS)
    assert snapshot(scratch.home).keys() == {"."}


@pytest.mark.parametrize("name", ["missing", "file"])
def test_named_project_must_be_a_folder(scratch: Scratch, name: str) -> None:
    scratch.write("file", "")
    before = scratch.snapshot()
    assert scratch.run("--project", name).returncode == 2
    assert scratch.snapshot() == before


def test_home_folder_is_refused(scratch: Scratch) -> None:
    before = snapshot(scratch.home)
    assert "is no project" in scratch.refused(cwd=scratch.home)
    assert "is no project" in scratch.refused("--project", scratch.home)
    assert snapshot(scratch.home) == before


def test_folder_below_a_home_that_is_a_repository_must_be_named(scratch: Scratch) -> None:
    repository(scratch.home)
    below = subfolder(scratch.home)
    assert "--project" in scratch.refused(cwd=below)
    scratch.migrate("--project", below)


def test_folder_that_is_gone_is_refused(scratch: Scratch) -> None:
    gone = subfolder(scratch.project)
    assert "No such file or directory" in scratch.refused(cwd=gone, preexec_fn=gone.rmdir)


def test_root_folder_is_refused(scratch: Scratch) -> None:
    assert "is no project" in scratch.refused("--dry-run", "--project", "/")


def test_notes_are_lines_for_people(scratch: Scratch) -> None:
    scratch.write(SKILL, "mine")
    assert noted(scratch.migrate(), "skipped") == [f"kept your {SKILL}; delete it and run instar-migrate to get ours"]
