"""What a migration says, to people and to programs, and what it shows without writing."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.migrator.scratch import AGENTS, CODEX, HOOKS, RECORD, SETTINGS, SKILL, Scratch, noted, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOOKING = ["--dry-run", "--check", "--diff"]
KEYS = [
    "project",
    "dryRun",
    "upgraded",
    "skipped",
    "errors",
    "warnings",
    "also",
    "changes",
    "upgradeGuide",
    "codexHooks",
]


def of_a_user(scratch: Scratch) -> None:
    scratch.write(SETTINGS, '{\n  "model": "opus"\n}\n')
    scratch.write(AGENTS, "# Rules\n")


# Looking


@pytest.mark.parametrize("more", [(), ("--json",), ("--uninstall",), ("--clients", "claude"), ("--trust-codex",)])
@pytest.mark.parametrize("option", LOOKING)
def test_looking_writes_nothing(scratch: Scratch, option: str, more: tuple[str, ...]) -> None:
    of_a_user(scratch)
    before = snapshot(scratch.project.parent)
    scratch.run(option, *more)
    assert snapshot(scratch.project.parent) == before


@pytest.mark.parametrize("more", [(), ("--uninstall",), ("--clients", "codex")])
@pytest.mark.parametrize("option", LOOKING)
def test_looking_writes_nothing_in_an_installed_project(installed: Scratch, option: str, more: tuple[str, ...]) -> None:
    before = snapshot(installed.project.parent)
    installed.run(option, *more)
    assert snapshot(installed.project.parent) == before


@pytest.mark.parametrize("more", [(), ("--uninstall",)])
def test_dry_run_shows_what_the_run_does(installed: Scratch, more: tuple[str, ...]) -> None:
    installed.place(f"{HOOKS}/run").unlink()
    planned = installed.report("--dry-run", *more)
    done = installed.report(*more)
    assert planned["changes"]
    assert (planned["dryRun"], done["dryRun"]) == (True, False)
    assert {**planned, "dryRun": False} == done


def test_check_fails_while_something_would_change(scratch: Scratch) -> None:
    assert scratch.run("--check").returncode == 1
    scratch.migrate()
    assert scratch.run("--check").returncode == 0
    scratch.place(f"{HOOKS}/run").chmod(0o644)
    assert scratch.run("--check").returncode == 1


def test_check_fails_on_what_cannot_be_done(installed: Scratch) -> None:
    installed.write(CODEX, "{,}")
    assert installed.run("--check").returncode == 1


@pytest.mark.parametrize("option", ["--dry-run", "--diff"])
def test_looking_at_what_would_change_is_no_failure(scratch: Scratch, option: str) -> None:
    assert scratch.run(option).returncode == 0


def test_diff_can_be_applied(scratch: Scratch) -> None:
    of_a_user(scratch)
    patch = scratch.migrate("--diff")
    before = scratch.project.parent / "before"
    before.joinpath(".claude").mkdir(parents=True)
    for path in (SETTINGS, AGENTS):
        before.joinpath(path).write_bytes(scratch.read(path))
    scratch.migrate()
    apply_patch(before, patch, SETTINGS, AGENTS, CODEX, SKILL)
    for path in (SETTINGS, AGENTS, CODEX, SKILL):
        assert before.joinpath(path).read_bytes() == scratch.read(path)


def apply_patch(folder: Path, patch: str, *paths: str) -> None:
    only = [f"--include={path}" for path in paths]
    subprocess.run(["git", "apply", *only, "-"], cwd=folder, input=patch, text=True, check=True)


def test_diff_of_nothing_is_nothing(installed: Scratch) -> None:
    assert installed.migrate("--diff") == ""


def test_diff_names_a_change_of_mode(installed: Scratch) -> None:
    installed.place(f"{HOOKS}/run").chmod(0o644)
    assert installed.migrate("--diff") == f"update {HOOKS}/run  (its mode was changed)\n"


def test_diff_tells_beside_it_what_cannot_be_done(installed: Scratch) -> None:
    installed.write(CODEX, "{,}")
    done = installed.run("--diff")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot edit {CODEX}" in done.stderr


# For programs


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--uninstall",), ("--clients", "claude")])
def test_report_is_one_object(scratch: Scratch, more: tuple[str, ...]) -> None:
    assert list(scratch.report(*more)) == KEYS


def test_report_of_an_installation(scratch: Scratch) -> None:
    of_a_user(scratch)
    scratch.write(SKILL, "mine")
    report = scratch.report()
    assert report["project"] == str(scratch.project)
    assert report["dryRun"] is False
    assert report["errors"] == report["warnings"] == []
    assert report["skipped"] == [f"kept your {SKILL}; delete it and run instar-migrate to get ours"]
    assert {"verb": "update", "path": SETTINGS, "why": "register the hooks"} in report["changes"]
    assert {"verb": "create", "path": CODEX, "why": "register the hooks"} in report["changes"]
    assert report["upgraded"] == [f"{change['path']} ({change['why']})" for change in report["changes"]]
    assert report["upgradeGuide"] is None


def test_report_of_errors_is_an_object_too(scratch: Scratch) -> None:
    scratch.write(SETTINGS, "{,}")
    done = scratch.run("--json")
    assert done.returncode == 1
    (error,) = json.loads(done.stdout)["errors"]
    assert SETTINGS in error


def test_report_of_nothing(installed: Scratch) -> None:
    report = installed.report()
    assert report["upgraded"] == report["changes"] == report["skipped"] == report["errors"] == []


def test_report_says_what_codex_makes_of_it(installed: Scratch) -> None:
    codex = installed.report()["codexHooks"]
    assert codex["path"] == str(installed.place(CODEX))
    assert codex["state"] == "no codex"
    assert codex["trusted"] == codex["untrusted"] == codex["disabled"] == []
    assert installed.report("--clients", "claude")["codexHooks"] is None


# For people


def test_people_are_told_every_path_and_why(scratch: Scratch) -> None:
    of_a_user(scratch)
    changes = scratch.report("--dry-run")["changes"]
    lines = scratch.migrate().splitlines()
    assert lines[0] == f"project {scratch.project}"
    told = [f"  {change['verb']:<7} {change['path']}  ({change['why']})" for change in changes]
    assert lines[1 : len(told) + 1] == told
    assert lines[len(told) + 1].startswith("  also    put on the list of projects in ")
    assert lines[len(told) + 2] == f"{len(told)} paths changed"


def test_people_are_told_that_a_dry_run_wrote_nothing(scratch: Scratch) -> None:
    count = len(scratch.report("--dry-run")["changes"])
    assert f"{count} paths would change; nothing was written" in scratch.migrate("--dry-run")


def test_people_are_told_what_to_do_next(scratch: Scratch) -> None:
    _, _, following = scratch.migrate().partition("\nnext\n")
    for words in ("/build", "instar-migrate --trust-codex", "build-state init", SETTINGS, CODEX):
        assert words in following


def test_people_of_one_client_are_told_of_it_alone(scratch: Scratch) -> None:
    _, _, following = scratch.migrate("--clients", "claude").partition("\nnext\n")
    assert "/build" in following
    assert "odex" not in following


def test_people_are_told_nothing_more_after_an_uninstallation(installed: Scratch) -> None:
    assert "next" not in installed.migrate("--uninstall")


def test_output_that_is_no_terminal_has_no_colours(scratch: Scratch) -> None:
    assert "\x1b" not in scratch.migrate()


def test_project_whose_name_is_no_text_is_told_as_far_as_it_is(scratch: Scratch) -> None:
    project = scratch.project / os.fsdecode(b"caf\xe9")
    try:
        project.mkdir()
    except OSError:
        pytest.skip("this file system has text for names")
    assert f"project {scratch.project}/caf\ufffd\n" in scratch.migrate(cwd=project)
    assert scratch.report("--project", project)["project"] == str(project)


# Codex's trust


def test_trust_without_codex_is_an_error_and_all_else_is_done(scratch: Scratch) -> None:
    done = scratch.run("--trust-codex")
    assert done.returncode == 1
    (error,) = noted(done.stdout, "error")
    assert "codex" in error
    assert scratch.has(CODEX)


@pytest.mark.parametrize("option", LOOKING)
def test_looking_grants_no_trust(installed: Scratch, option: str) -> None:
    installed.migrate(option, "--trust-codex")


def test_codex_that_was_never_used_is_not_started(scratch: Scratch) -> None:
    codex = scratch.project.parent / "bin/codex"
    codex.write_text(f"#!/bin/sh\ntouch {scratch.home}/started\n", encoding="utf-8")
    codex.chmod(0o755)
    report = scratch.report()
    assert report["codexHooks"]["state"] == "folder untrusted"
    assert snapshot(scratch.home).keys() == {"."}


# Codex's trust where there is no program to ask: an editor's Codex obeys the same file

OUR_EVENTS = {"Stop", "SessionStart", "SessionEnd", "UserPromptSubmit", "PreCompact"}
MOVED = "another hook was put before ours, or taken from there"
REDEFINED = "its definition changed"
FORGOTTEN = "Codex's config.toml does not hold it any more"


@pytest.fixture
def editors(scratch: Scratch) -> Scratch:
    """Return a project in a folder that Codex trusts, whose hooks it was told to trust."""
    config(scratch).parent.mkdir()
    trust_folder(scratch)
    scratch.migrate("--trust-codex")
    return scratch


def config(scratch: Scratch) -> Path:
    return scratch.home / ".codex/config.toml"


def trust_folder(scratch: Scratch) -> None:
    config(scratch).write_text(f'[projects."{scratch.project.resolve()}"]\ntrust_level = "trusted"\n', encoding="utf-8")


def put_before_ours(scratch: Scratch, event: str = "Stop") -> None:
    settings = scratch.json(CODEX)
    settings["hooks"][event].insert(0, {"hooks": [{"type": "command", "command": "true"}]})
    scratch.write_json(CODEX, settings)


def redefine(scratch: Scratch, event: str = "SessionStart") -> None:
    settings = scratch.json(CODEX)
    settings["hooks"][event][0]["hooks"][0]["statusMessage"] = "one moment"
    scratch.write_json(CODEX, settings)


def codex_of(scratch: Scratch, *options: str) -> dict[str, Any]:
    seen = scratch.report(*options)["codexHooks"]
    assert isinstance(seen, dict)
    return seen


def test_trust_is_granted_in_the_file(editors: Scratch) -> None:
    seen = codex_of(editors)
    assert (set(seen["trusted"]), seen["untrusted"], seen["lost"]) == (OUR_EVENTS, [], [])
    assert seen["advice"] == "trusts our hooks"
    assert config(editors).read_text(encoding="utf-8").count("trusted_hash") == 6


def test_trust_that_is_settled_is_asked_for_no_more_and_nothing_is_written(editors: Scratch) -> None:
    codex = editors.project.parent / "bin/codex"
    codex.write_text(f"#!/bin/sh\ntouch {editors.home}/started\n", encoding="utf-8")
    codex.chmod(0o755)
    before = snapshot(editors.project), snapshot(editors.home)
    assert codex_of(editors)["advice"] == "trusts our hooks"
    assert (snapshot(editors.project), snapshot(editors.home)) == before


def test_home_of_codex_is_where_the_person_says(editors: Scratch) -> None:
    editors.environ["CODEX_HOME"] = str(editors.home / "other")
    assert codex_of(editors)["state"] == "no codex"
    assert not editors.home.joinpath("other").exists()
    config(editors).parent.rename(editors.home / "other")
    assert codex_of(editors)["advice"] == "trusts our hooks"


def test_untrusted_folder_is_refused_in_the_file_too(scratch: Scratch) -> None:
    config(scratch).parent.mkdir()
    (error,) = scratch.errors("--trust-codex")
    assert f"Codex does not trust the folder {scratch.project.resolve()}" in error
    assert codex_of(scratch)["state"] == "folder untrusted"
    assert not config(scratch).exists()


@pytest.mark.parametrize(
    ("lose", "lost", "why"),
    [
        (put_before_ours, {"Stop"}, "Stop (another hook was put before ours, or taken from there)"),
        (redefine, {"SessionStart"}, "SessionStart (its definition changed)"),
        (trust_folder, OUR_EVENTS, "(Codex's config.toml does not hold it any more)"),
    ],
)
def test_lost_trust_is_told_with_its_reason_until_it_is_granted_again(
    editors: Scratch, lose: Callable[[Scratch], None], lost: set[str], why: str
) -> None:
    lose(editors)
    for _ in range(2):  # and remembered
        seen = codex_of(editors)
        assert set(seen["lost"]) == set(seen["reasons"]) == lost
        assert seen["advice"].startswith("trusts our hooks no more at ")
        assert seen["advice"].endswith(f"{why}: run instar-migrate --trust-codex")
    assert f"  Codex         {seen['advice']}\n" in editors.migrate()
    seen = codex_of(editors, "--trust-codex")
    assert (seen["lost"], seen["reasons"], seen["advice"]) == ([], {}, "trusts our hooks")


def test_several_losses_are_told_in_one_line(editors: Scratch) -> None:
    put_before_ours(editors, "Stop")
    put_before_ours(editors, "PreCompact")
    redefine(editors)
    advice = codex_of(editors)["advice"]
    assert advice.count("another hook was put before ours") == advice.count("its definition changed") == 1
    assert "PreCompact, Stop (" in advice


def test_hook_before_ours_that_was_taken_away_is_no_change_of_ours(editors: Scratch) -> None:
    put_before_ours(editors)
    editors.migrate("--trust-codex")
    text = config(editors).read_text(encoding="utf-8")
    before, _, theirs = text.partition(':stop:0:0"]\ntrusted_hash = "sha256:')
    config(editors).write_text(f'{before}:stop:0:0"]\ntrusted_hash = "sha256:0{theirs[1:]}', encoding="utf-8")
    settings = editors.json(CODEX)
    del settings["hooks"]["Stop"][0]
    editors.write_json(CODEX, settings)
    assert codex_of(editors)["reasons"] == {"Stop": MOVED}


def test_trust_stays_remembered_while_codex_is_away(editors: Scratch) -> None:
    away = config(editors).parent.rename(editors.home / "away")
    assert codex_of(editors)["state"] == "no codex"
    assert set(editors.json(RECORD)["codex"]["trusted"]) == OUR_EVENTS
    away.rename(config(editors).parent)
    config(editors).write_text("", encoding="utf-8")
    assert codex_of(editors)["state"] == "folder untrusted"
    trust_folder(editors)
    assert set(codex_of(editors)["lost"]) == OUR_EVENTS


@pytest.mark.parametrize(
    ("remembered", "lose", "reasons"),
    [
        ({"fingerprint": "0", "trusted": ["Stop", "Stop"]}, put_before_ours, {"Stop": MOVED}),
        ({"fingerprint": "0", "trusted": ["Stop", "SessionStart"]}, redefine, {"SessionStart": REDEFINED}),
        ({"fingerprint": "0"}, put_before_ours, {}),
        (None, put_before_ours, {}),
        ("not ours", put_before_ours, {}),
        ({"trusted": 5, "positions": []}, put_before_ours, {}),
    ],
)
def test_what_an_earlier_release_remembered_is_read(
    editors: Scratch, remembered: object, lose: Callable[[Scratch], None], reasons: dict[str, str]
) -> None:
    editors.write_json(RECORD, {**editors.json(RECORD), "codex": remembered})
    lose(editors)
    assert codex_of(editors)["reasons"] == reasons


def test_record_of_an_earlier_release_that_still_holds_is_left_as_it_is(editors: Scratch) -> None:
    record = editors.json(RECORD)
    del record["codex"]["positions"]
    editors.write_json(RECORD, record)
    before = editors.read(RECORD)
    assert codex_of(editors)["advice"] == "trusts our hooks"
    assert editors.read(RECORD) == before


# Wrong usage


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["--clients", "emacs"], ["--clients"], ["argument"], ["--project", "missing"]]
)
def test_wrong_usage_is_refused(scratch: Scratch, arguments: list[str]) -> None:
    done = scratch.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
    assert snapshot(scratch.project).keys() == {"."}


@pytest.mark.parametrize("option", ["-h", "--help", "--version"])
def test_questions_are_answered_anywhere(scratch: Scratch, option: str) -> None:
    assert "instar-migrate" in scratch.run(option, cwd=scratch.home).stdout
