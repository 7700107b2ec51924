"""instar-migrate, broken at every edge call: no file is ever torn, and the next run ends where a whole one would."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from click.testing import CliRunner

from migrator.cli import main
from tests.faults import laws
from tests.faults.harness import Log, Rewind, check_all, faults, migrate
from tests.migrator.scratch import AGENTS, CODEX, HOOKS, LOCAL, RECORD, SETTINGS, SKILL, Scratch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTS = 4
Files = dict[str, tuple[int, bytes]]


class Migration(NamedTuple):
    """What instar-migrate is asked for, in a project that has been prepared."""

    prepare: Callable[[Scratch], object]
    options: tuple[str, ...] = ()


def users(scratch: Scratch) -> None:
    """Write what a person may have had before us, in their own form."""
    scratch.write(SETTINGS, '{\n\t"model": "opus", "hooks": {"Stop": [ ]}\n}', 0o600)
    scratch.write(LOCAL, '{ "env" : { "A" : "é" } }\n')
    scratch.write(AGENTS, "# Rules\r\n\r\nno newline at the end")
    scratch.write("src/main.py", "print()\n", 0o755)


def installed(scratch: Scratch) -> None:
    users(scratch)
    scratch.migrate()


def outdated(scratch: Scratch) -> None:
    installed(scratch)
    for path in (f"{HOOKS}/run", f"{HOOKS}/build-state.py", SETTINGS, CODEX):
        scratch.write(path, scratch.read(path).replace(b"session-event-hook", b"build-stop-hook"), 0o644)
    scratch.write(f"{HOOKS}/run", "#!/bin/sh\nexit 0\n", 0o755)
    scratch.place(SKILL).unlink()


MIGRATIONS = {
    "install": Migration(users),
    "upgrade": Migration(outdated),
    "uninstall": Migration(installed, ("--uninstall",)),
}


def again(scratch: Scratch, *options: str) -> None:
    """Run instar-migrate in this process, which is quick, and undisturbed; it must succeed."""
    done = CliRunner().invoke(main, ["--project", str(scratch.project), *options], env=scratch.environ)
    assert done.exit_code == 0, done.output


def check_files(now: Files, before: Files, after: Files) -> None:
    """Assert that each file is the old one or the new one, and that what is registered can be run."""
    torn = {
        path: now.get(path)
        for path in now.keys() | before.keys() | after.keys()
        if now.get(path) not in (before.get(path), after.get(path)) and not (laws.is_temporary(path) or path == RECORD)
    }
    assert not torn, f"neither as before nor as after: {torn}"
    for settings in (SETTINGS, CODEX):
        if b"instar/run" in now.get(settings, (0, b""))[1]:
            assert f"{HOOKS}/run" in now, f"{settings} names what is not there"


def differing(now: Files, wanted: Files) -> dict[str, object]:
    """Return the paths that differ, with what stands there now."""
    return {path: now.get(path) for path in now.keys() | wanted.keys() if now.get(path) != wanted.get(path)}


class Trial:
    """One migration that is broken again and again, in the same project."""

    def __init__(self, migration: Migration, folder: Path) -> None:
        self.options = migration.options
        self.scratch = Scratch.create(folder / "work")
        migration.prepare(self.scratch)
        self.rewind = Rewind([self.scratch.project], folder / "before")
        self.before = self.scratch.files()
        self.log = Log(folder / "calls")
        done = migrate(self.scratch.project, self.scratch.environ, self.log.fault, *self.options)
        assert done.status == 0, done
        self.calls = self.log.read()
        self.after = self.scratch.files()
        again(self.scratch, "--uninstall")
        self.given_back = self.scratch.users_files()

    def check(self, fault: str) -> None:
        """Break the migration once, and assert all that holds then, and after the next one."""
        self.rewind()
        done = migrate(self.scratch.project, self.scratch.environ, fault, *self.options)
        assert b"Traceback" not in done.stderr, done.stderr.decode()[-600:]
        now = self.scratch.files()
        check_files(now, self.before, self.after)
        if not done.was_killed:
            assert done.status == 0 or done.stderr.startswith(b"Error: "), done
            assert [path for path in now if laws.is_temporary(path)] == []
            self.check_all_or_nothing(now)
        again(self.scratch, *self.options)
        differs = differing(self.scratch.files(), self.after)
        assert not differs, f"not what a whole run leaves: {differs}"
        left = [path for path in self.scratch.snapshot() if laws.is_temporary(path)]
        assert not left, f"temporary files are left: {left}"
        again(self.scratch, "--uninstall")
        differs = differing(self.scratch.users_files(), self.given_back)
        assert not differs, f"not given back: {differs}"

    def check_all_or_nothing(self, now: Files) -> None:
        """Assert that what the user edits was changed altogether, or not at all."""
        mine = [
            {path: seen for path, seen in each.items() if is_users(path)} for each in (now, self.before, self.after)
        ]
        assert mine[0] in mine[1:], "some of the user's files were changed, and some not"


def is_users(path: str) -> bool:
    return path in (SETTINGS, LOCAL, CODEX, AGENTS, SKILL)


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", ["kill", "EIO"])
@pytest.mark.parametrize("name", MIGRATIONS)
def test_a_broken_migration_tears_nothing_and_the_next_one_converges(
    tmp_path: Path, name: str, kind: str, part: int
) -> None:
    trial = Trial(MIGRATIONS[name], tmp_path)
    calls = [call for call in trial.calls if kind == "kill" or call.subject != "1"]  # but for what it prints
    points = list(faults(kind, calls).items())[part :: PARTS if kind == "kill" else 2 * PARTS]

    check_all(dict(points), trial.check)
