"""What the sweeps found, each by itself: one fault, and what has to come of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.faults import laws
from tests.faults.harness import Call, Log, build, migrate, stop
from tests.migrator.scratch import SETTINGS, Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project


@pytest.fixture
def owned(breakable: Project) -> Project:
    """Return a project with a build that session "s" owns."""
    breakable.build("init", "a task", "--owner-session", "s")
    breakable.build("transition", "executing")
    return breakable


def number(calls: list[Call], name: str, about: str = "", after: str = "open") -> int:
    """Return the number of the first call to something that comes after another call."""
    begun = next(call.number for call in calls if call.name == after)
    return next(call.number for call in calls if call.number > begun and call.name == name and about in call.about)


def calls_of_a_step(project: Project, log: Log, *words: str) -> list[Call]:
    build(project, " ".join([log.fault, *words]), "step-complete", "1", "first", "1", "1")
    return log.read()


def test_a_hold_whose_folder_cannot_be_synced_is_given(owned: Project, log: Log) -> None:
    at = number(calls_of_a_step(owned, log), "fsync", after="replace")

    assert stop(owned, f"EIO@{at}").is_held


def test_a_step_whose_folder_cannot_be_synced_is_recorded(owned: Project, log: Log) -> None:
    at = number(calls_of_a_step(owned, log), "fsync", after="replace")

    assert build(owned, f"EIO@{at}", "step-complete", "2", "d", "1", "1").status == 0


@pytest.mark.parametrize("name", ["open", "write"])
def test_a_step_that_cannot_be_audited_is_recorded_and_says_so(owned: Project, log: Log, name: str) -> None:
    at = number(calls_of_a_step(owned, log), name, after="replace")
    done = build(owned, f"ENOSPC@{at}", "step-complete", "2", "d", "1", "1")

    assert done.status == 0
    assert b"audit.jsonl cannot be written" in done.stdout + done.stderr


def test_a_short_write_to_the_audit_is_completed(owned: Project, log: Log) -> None:
    at = number(calls_of_a_step(owned, log), "write", after="replace")
    build(owned, f"short@{at}", "step-complete", "2", "d", "1", "1")

    assert laws.the_audit_can_be_read(owned)[-1]["step"] == 2


def test_a_temporary_file_in_the_history_is_swept(owned: Project) -> None:
    assert build(owned, "kill-before@7", "cancel").was_killed  # with the copy half written
    owned.build("step-complete", "1", "d", "1", "1")

    laws.no_temporary_file_is_left(owned)


def test_a_build_that_is_ended_again_after_a_failure_is_archived_once(owned: Project, log: Log) -> None:
    owned.build("cancel")
    owned.build("init", "another")
    build(owned, log.fault, "cancel")
    at = number(log.read(), "replace", "build-state", after="replace")
    owned.build("init", "a third")
    assert build(owned, f"EIO@{at}", "cancel").answer["code"] == "unwritable"
    owned.build("cancel")

    laws.every_end_is_archived_once(owned)


def test_a_transition_is_done_although_its_heartbeat_cannot_be_made(owned: Project, log: Log) -> None:
    channel = {"INSTAR_TELEGRAM_TOPIC": "1"}
    build(owned, f"{log.fault} reads", "transition", "verifying", **channel)
    at = number(log.read(), "open for reading", "audit.jsonl")
    done = build(owned, f"EIO@{at} reads", "transition", "hardening", **channel)

    assert owned.state["phase"] == "hardening"
    assert done.status == 0


def test_a_state_that_could_not_be_read_again_is_not_written(owned: Project) -> None:
    state = {**owned.state, "theirs": [0] * 350_000}
    compact = json.dumps(state, separators=(",", ":")).encode()
    owned.state_path.write_bytes(compact)
    assert len(compact) < 1_000_000
    owned.stop("s")

    assert owned.build("status").get("task") == "a task"


def test_a_temporary_file_among_the_backups_is_swept(tmp_path: Path) -> None:
    scratch = Scratch.create(tmp_path / "work")
    scratch.write(SETTINGS, "{}")
    log = Log(tmp_path / "calls")
    copy = Scratch.create(tmp_path / "copy")
    copy.write(SETTINGS, "{}")
    migrate(copy.project, copy.environ, log.fault)
    copies = [call for call in log.read() if call.name == "replace" and "-settings.json" in call.about]
    assert migrate(scratch.project, scratch.environ, f"kill-before@{copies[1].number}").was_killed
    assert [path for path in scratch.snapshot() if laws.is_temporary(path)]
    scratch.migrate()

    assert [path for path in scratch.snapshot() if laws.is_temporary(path)] == []


def test_an_uninstallation_after_a_killed_one_leaves_no_folder(tmp_path: Path) -> None:
    scratch = Scratch.create(tmp_path / "work")
    scratch.migrate()
    log = Log(tmp_path / "calls")
    whole = Scratch.create(tmp_path / "whole")
    whole.migrate()
    migrate(whole.project, whole.environ, log.fault, "--uninstall")
    at = number(log.read(), "rmdir")
    assert migrate(scratch.project, scratch.environ, f"kill-before@{at}", "--uninstall").was_killed
    scratch.migrate("--uninstall")

    assert scratch.users_files().keys() == whole.users_files().keys()


def test_the_backup_of_this_very_migration_is_kept_when_the_clock_goes_back(tmp_path: Path) -> None:
    scratch = Scratch.create(tmp_path / "work")
    for number in range(11):
        scratch.write(SETTINGS, json.dumps({"number": number}))
        assert migrate(scratch.project, scratch.environ, "none").status == 0
    scratch.write(SETTINGS, '{"number": "the last"}')
    assert migrate(scratch.project, scratch.environ, "wall=1000000000").status == 0

    assert b'{"number": "the last"}' in scratch.copies(SETTINGS)


def test_the_same_wait_is_allowed_once_however_many_came_between(owned: Project) -> None:
    waits = [[{"id": name}] for name in "aba"]

    assert [owned.stop("s", background_tasks=wait).is_held for wait in waits] == [False, False, True]


def test_a_question_is_over_at_the_next_prompt_even_if_that_one_waits(owned: Project) -> None:
    owned.build("ask", "which?")
    assert not owned.stop("s", prompt_id="1").is_held
    assert not owned.stop("s", prompt_id="2", background_tasks=[{"id": "a"}]).is_held

    assert owned.stop("s").is_held
