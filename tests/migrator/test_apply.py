"""All changes are written, or none: whatever fails, whoever else is at work, and wherever a migration was killed."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from migrator import files
from migrator.files import ApplyError, apply
from migrator.plan import plan
from migrator.project import Project
from tests.migrator.scratch import (
    BACKUPS,
    CLIENT_FILES,
    CODEX,
    DEADLINE_S,
    HOOKS,
    LOCAL,
    LOCK,
    PYTHON,
    SETTINGS,
    SKILL,
    Scratch,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PRISTINE = f"{BACKUPS}/pristine"
LONG = 200_000  # more bytes than any file of ours has
RUN = f"{HOOKS}/run"


def settings_of_length(length: int) -> str:
    text = '{\n  "a": ""\n}\n'
    return text.replace('""', '"' + "x" * (length - len(text)) + '"')


def temporary_files(scratch: Scratch) -> list[str]:
    return [path for path in scratch.snapshot() if ".instar-" in path]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# A file that changed in between


def edit(place: Path) -> None:
    place.write_bytes(place.read_bytes() + b"\n")


def protect(place: Path) -> None:
    place.chmod(0o600)


def remove(place: Path) -> None:
    place.unlink()


@pytest.mark.parametrize("path", [SETTINGS, LOCAL, RUN])
@pytest.mark.parametrize("change", [edit, protect, remove])
def test_file_that_changed_since_the_plan_aborts_all(
    scratch: Scratch, path: str, change: Callable[[Path], None]
) -> None:
    for each in (SETTINGS, LOCAL, RUN):
        scratch.write(each, "{}")
    planned = plan(Project(scratch.project))
    change(scratch.place(path))
    before = scratch.users_files()
    with pytest.raises(ApplyError, match=f"^{path} changed while the migration was planned; nothing was written"):
        apply(scratch.project, planned.changes)
    assert scratch.users_files() == before
    assert not scratch.has(f"{HOOKS}/build-state.py")
    assert not scratch.has(BACKUPS)


def test_file_that_came_since_the_plan_aborts_all(scratch: Scratch) -> None:
    planned = plan(Project(scratch.project))
    scratch.write(CODEX, "{}")
    with pytest.raises(ApplyError, match=rf"^{CODEX} changed"):
        apply(scratch.project, planned.changes)
    assert scratch.read(CODEX) == b"{}"
    assert not scratch.has(SETTINGS)


def test_edit_while_another_migration_is_at_work_is_kept(scratch: Scratch) -> None:
    scratch.write(SETTINGS, '{\n  "model": "opus"\n}\n')
    with locked(scratch) as unlock, scratch.start() as process:
        wait_until(lambda: scratch.has(".instar/logs"))  # made once there is a plan
        scratch.replace(SETTINGS, "opus", "sonnet")
        unlock()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert scratch.json(SETTINGS)["model"] == "sonnet"
    assert "nothing to do" in scratch.migrate()


@contextmanager
def locked(scratch: Scratch) -> Iterator[Callable[[], None]]:
    """Hold the lock as another migration would, until what is returned is called."""
    with scratch.write(LOCK, "").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield partial(fcntl.flock, file, fcntl.LOCK_UN)


# A write that fails


def files_are_short() -> None:
    """Make every write beyond so many bytes fail, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (LONG, LONG))


def modes_are_obeyed() -> None:
    """Take from root what lets it write where the mode says no."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        drop_capability_from_bounding_set = 24
        for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
            assert libc.prctl(drop_capability_from_bounding_set, capability, 0, 0, 0) == 0


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_write_that_fails_undoes_all(scratch: Scratch, path: str) -> None:
    scratch.write(path, settings_of_length(LONG - 100))  # its copy can still be written
    before = scratch.users_files()
    assert f"nothing was changed in {scratch.project}" in scratch.refused(preexec_fn=files_are_short)
    assert scratch.users_files() == before
    assert not scratch.has(HOOKS)
    assert scratch.read(".instar/.gitignore") == b"*\n"  # copies of what the user has are there already
    assert temporary_files(scratch) == []
    scratch.migrate()


@pytest.mark.parametrize("folder", [".claude", ".codex", ".instar/hooks"])
def test_folder_that_cannot_be_written_undoes_all(scratch: Scratch, folder: str) -> None:
    for path in CLIENT_FILES:
        scratch.write(path, "{}")
    scratch.write(".instar/hooks/custom/mine", "")
    before = scratch.users_files()
    with unwritable(scratch.place(folder)):
        assert folder in scratch.refused(preexec_fn=modes_are_obeyed)
    assert scratch.users_files() == before
    assert not scratch.has(HOOKS)
    assert temporary_files(scratch) == []


@pytest.mark.parametrize("folder", [HOOKS, ".instar/state", ".claude/skills/build"])
def test_removal_that_fails_undoes_all(installed: Scratch, folder: str) -> None:
    before = installed.files()
    with unwritable(installed.place(folder)):
        installed.refused("--uninstall", preexec_fn=modes_are_obeyed)
    assert installed.files() == before
    installed.migrate("--uninstall")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o555)
    yield
    folder.chmod(mode)


UNDO_THAT_FAILS = """
from pathlib import Path
from instar.errors import InstarError
from migrator.changes import Change
from migrator.files import apply, look
root = Path.cwd()
try:
    apply(root, [Change(path, look(root, path), None, "") for path in ("long", "folder/file")])
except InstarError as error:
    print(error)
"""


def test_file_that_cannot_be_put_back_is_named(scratch: Scratch) -> None:
    scratch.write("long", "x" * 2 * LONG)
    scratch.write("folder/file", "")
    for path in (".instar/.gitignore", LOCK):
        scratch.write(path, "")

    def limit() -> None:
        files_are_short()
        modes_are_obeyed()

    with unwritable(scratch.place("folder")):
        done = subprocess.run(
            [sys.executable, "-c", UNDO_THAT_FAILS], cwd=scratch.project, preexec_fn=limit, capture_output=True,
            text=True, check=True,
        )  # fmt: skip
    assert done.stdout.startswith("long was changed and could not be put back: File too large")


# A migration that was killed


def test_temporary_files_of_a_killed_migration_are_swept(scratch: Scratch) -> None:
    for folder in (".claude", ".codex", ".instar/state", HOOKS, ".claude/skills/build"):
        scratch.write(f"{folder}/.instar-4242-settings.json", "{")
    scratch.write(".claude/.instar-mine", "")
    scratch.migrate()
    assert temporary_files(scratch) == [".claude/.instar-mine"]


@pytest.mark.parametrize("delay_ms", range(0, 30, 3))
def test_migration_after_a_killed_one_converges(scratch: Scratch, delay_ms: int) -> None:
    text = settings_of_length(4 * LONG)
    scratch.write(SETTINGS, text, 0o600)
    whole = Scratch.create(scratch.home / "whole")
    whole.write(SETTINGS, text, 0o600)
    whole.migrate()
    with scratch.start() as process:
        wait_until(lambda: scratch.has(".instar/state"))
        time.sleep(delay_ms / 1000)
        process.send_signal(signal.SIGKILL)
    assert scratch.read(SETTINGS) in (text.encode(), whole.read(SETTINGS))
    scratch.migrate()
    assert scratch.files() == whole.files()
    scratch.migrate("--uninstall")
    assert scratch.read(SETTINGS) == text.encode()


# Several at once


@pytest.mark.parametrize("text", [None, '{\n  "model": "opus"\n}\n'])
def test_several_at_once_do_the_work_of_one(scratch: Scratch, text: str | None) -> None:
    whole = Scratch.create(scratch.home / "whole")
    for each in (scratch, whole):
        if text:
            each.write(SETTINGS, text)
    whole.migrate()
    several = [scratch.start() for _ in range(6)]
    said = [process.communicate(timeout=DEADLINE_S) for process in several]
    assert [process.returncode for process in several] == [0] * 6, said
    assert scratch.files() == whole.files()
    scratch.migrate("--uninstall")
    assert scratch.users_files().keys() == ({".", ".claude", SETTINGS} if text else {"."})


def test_migration_gives_up_on_one_that_does_not_end(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_S", 0.05)
    with locked(scratch), pytest.raises(ApplyError, match="another instar-migrate is at work"):
        apply(scratch.project, plan(Project(scratch.project)).changes)


# Copies


def test_users_file_is_copied_before_every_change(scratch: Scratch) -> None:
    first = '{"model": "opus"}'
    scratch.write(SETTINGS, first)
    scratch.migrate()
    scratch.replace(SETTINGS, '"timeout": 10', '"timeout": 5000')
    second = scratch.read(SETTINGS)
    scratch.migrate()
    assert scratch.copies(SETTINGS) == [first.encode(), second]
    assert scratch.read(f"{PRISTINE}/{SETTINGS}") == first.encode()


def test_ten_newest_copies_are_kept_and_the_first(scratch: Scratch) -> None:
    scratch.write(SETTINGS, "{}")
    scratch.migrate()
    versions = [f"version {number}".encode() for number in range(12)]
    for version in versions:
        scratch.write(RUN, version)
        scratch.migrate()
    assert scratch.copies(RUN) == versions[-10:]
    assert len(scratch.backups()) == 10
    assert scratch.read(f"{PRISTINE}/{SETTINGS}") == b"{}"


def test_copies_are_for_the_owner_alone(scratch: Scratch) -> None:
    for path in (SETTINGS, LOCAL, CODEX):
        scratch.write(path, json.dumps({"env": {"TOKEN": "secret"}}), 0o664)
    scratch.migrate()
    scratch.migrate("--uninstall")
    copies = [seen for path, seen in scratch.snapshot().items() if path.startswith(BACKUPS) and stat.S_ISREG(seen.mode)]
    assert len(copies) > 6
    assert {stat.S_IMODE(seen.mode) for seen in copies} == {0o600}


def test_run_that_changes_nothing_of_the_user_keeps_no_copy(installed: Scratch) -> None:
    installed.place(PYTHON).unlink()
    installed.place(SKILL).unlink()
    installed.migrate()
    assert installed.backups() == []
