"""What a migration says, to people and to programs, and what it shows without writing."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.migrator.scratch import AGENTS, CODEX, HOOKS, SETTINGS, SKILL, Scratch, noted, snapshot

if TYPE_CHECKING:
    from pathlib import Path

LOOKING = ["--dry-run", "--check", "--diff"]
KEYS = [
    "project",
    "dryRun",
    "upgraded",
    "skipped",
    "errors",
    "warnings",
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
    assert lines[len(told) + 1] == f"{len(told)} paths changed"


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
