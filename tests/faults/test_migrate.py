"""instar-migrate, broken at every edge call: no file is ever torn, and the next run ends where a whole one would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest
from click.testing import CliRunner

from migrator.cli import main
from tests.faults import laws
from tests.faults.harness import Log, Rewind, check_all, faults, migrate
from tests.migrator.scratch import (
    AGENTS,
    CLAUDE,
    CODEX,
    CONFIG,
    HOOKS,
    LOCAL,
    PINS,
    RECORD,
    SETTINGS,
    SKILL,
    Scratch,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.faults.harness import Call

PARTS = 4
Files = dict[str, tuple[int, bytes]]
SEEN = ("replace", "unlink", "link", "symlink")  # what others see; all else is folders, and in temporary files

USERS = (SETTINGS, LOCAL, CODEX, AGENTS, CLAUDE, SKILL, CONFIG, PINS)  # what a person edits, too
ROUTER = "node ${CLAUDE_PROJECT_DIR}/.instar/hooks/instar/stop-gate-router.js"
BUILD = "bash .instar/hooks/instar/build-stop-hook.sh"
REPORTER = "node .instar/hooks/instar/hook-event-reporter.js"
PEERS = [[ROUTER], ["say done", BUILD, REPORTER]]  # the commands of each group


class Migration(NamedTuple):
    """What instar-migrate is asked for, in a project that has been prepared."""

    prepare: Callable[[Scratch], object]
    options: tuple[str, ...] = ()
    parts: int = 1  # among which its points are divided
    each: int = 8  # of how many calls one is broken by an error
    first: int | None = None  # how many calls are broken, from the first


def users(scratch: Scratch) -> None:
    """Write what a person may have had before us, in their own form; and the peer, which lost one of its files."""
    groups = [{"matcher": "", "hooks": [{"type": "command", "command": each} for each in group]} for group in PEERS]
    scratch.write(SETTINGS, f'{{\n\t"model": "opus", "hooks": {{"Stop": {json.dumps(groups)}}}\n}}', 0o600)
    scratch.write(f"{HOOKS}/stop-gate-router.js", "// the peer's\n")
    scratch.write(LOCAL, '{ "env" : { "A" : "é" } }\n')
    scratch.write(AGENTS, "# Rules\r\n\r\nno newline at the end")
    scratch.write(CLAUDE, "\ufeff# Mine\n", 0o640)
    scratch.write(CONFIG, '{\r\n\t"authToken" : "s3cret", "sessions": { }\r\n}', 0o600)
    scratch.write(PINS, '{"soul": {"contentHash": "x"}}', 0o600)
    scratch.write("src/main.py", "print()\n", 0o755)


def bare(scratch: Scratch) -> None:
    """Write next to nothing: what a migration writes is all there is."""
    scratch.write(AGENTS, "# Rules\n")


def installed(scratch: Scratch) -> None:
    users(scratch)
    scratch.migrate()


def outdated(scratch: Scratch) -> None:
    installed(scratch)
    for path in (f"{HOOKS}/run", f"{HOOKS}/build-state.py", SETTINGS, CODEX):
        scratch.write(path, scratch.read(path).replace(b"session-event-hook", b"build-stop-hook"), 0o644)
    scratch.write(f"{HOOKS}/run", "#!/bin/sh\nexit 0\n", 0o755)
    scratch.place(SKILL).unlink()


def broken(scratch: Scratch) -> None:
    """Leave settings that cannot be edited, and what can be read in one of them."""
    installed(scratch)
    scratch.write(SETTINGS, '{"model": "opus", // mine\n}', 0o600)
    scratch.write(LOCAL, '{"env": 7, "model": "opus"}')


def without_section(scratch: Scratch) -> None:
    """Take our section out of a document, as a person does."""
    installed(scratch)
    scratch.place(CLAUDE).write_text("# Mine alone\n", encoding="utf-8")


MIGRATIONS = {
    "install": Migration(users, parts=PARTS),
    "the first steps in a project": Migration(bare, each=2, first=14),
    "upgrade": Migration(outdated, parts=2),
    "uninstall": Migration(installed, ("--uninstall",), parts=2),
    "take over": Migration(installed, ("--take-over",)),
    "repair": Migration(broken, ("--repair",)),
    "a section taken out": Migration(without_section),
}


def again(scratch: Scratch, *options: str) -> None:
    """Run instar-migrate in this process, which is quick, and undisturbed; it must succeed."""
    done = CliRunner().invoke(main, ["--project", str(scratch.project), *options], env=scratch.environ)
    assert done.exit_code == 0, done.output


def listed(scratch: Scratch) -> dict[str, str]:
    """Return what is on the list of projects, and all that lies beside it; each link with where it leads."""
    shared = scratch.project.parent / "shared"
    places = [place for place in shared.rglob("*") if place.is_symlink() or not place.is_dir()]
    return {place.name: str(place.readlink()) if place.is_symlink() else "" for place in places}


def users_files(scratch: Scratch) -> Files:
    """Return all that is the user's, also below `.instar`."""
    below = {path: seen for path, seen in scratch.files().items() if path in USERS}
    return {**scratch.users_files(), **below}


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
        self.rewind = Rewind([folder / "work"], folder / "before")
        self.before, self.listed_before = self.scratch.files(), listed(self.scratch)
        self.log = Log(folder / "calls")
        done = migrate(self.scratch.project, self.scratch.environ, self.log.fault, *self.options)
        assert done.status == 0, done
        self.calls = self.log.read()
        self.after, self.listed_after = self.scratch.files(), listed(self.scratch)
        again(self.scratch, "--uninstall")
        self.given_back = users_files(self.scratch)

    def check(self, fault: str) -> None:
        """Break the migration once, and assert all that holds then, and after the next one."""
        self.rewind()
        done = migrate(self.scratch.project, self.scratch.environ, fault, *self.options)
        assert b"Traceback" not in done.stderr, done.stderr.decode()[-600:]
        now = self.scratch.files()
        check_files(now, self.before, self.after)
        assert listed(self.scratch) in (self.listed_before, self.listed_after)
        if not done.was_killed:
            assert done.status == 0 or done.stderr.startswith(b"Error: "), done
        if not (done.was_killed or fault.endswith("+")):  # where nothing can be written, nothing can be put back
            left = [path for path in now if laws.is_temporary(path)]
            assert not left or self.call(fault).name == "unlink", f"temporary files are left: {left}"
            self.check_all_or_nothing(now)
        self.check_next()

    def call(self, fault: str) -> Call:
        return self.calls[int(fault.partition("@")[2]) - 1]

    def check_next(self) -> None:
        """Assert that the next migration ends where an undisturbed one does, and an uninstallation after it, too."""
        again(self.scratch, *self.options)
        differs = differing(self.scratch.files(), self.after)
        assert not differs, f"not what a whole run leaves: {differs}"
        assert listed(self.scratch) == self.listed_after
        left = [path for path in self.scratch.snapshot() if laws.is_temporary(path)]
        assert not left, f"temporary files are left: {left}"
        again(self.scratch, "--uninstall")
        differs = differing(users_files(self.scratch), self.given_back)
        assert not differs, f"not given back: {differs}"
        assert listed(self.scratch) == {}

    def check_all_or_nothing(self, now: Files) -> None:
        """Assert that what the user edits was changed altogether, or not at all."""
        mine = [{path: each.get(path) for path in USERS} for each in (now, self.before, self.after)]
        assert mine[0] in mine[1:], "some of the user's files were changed, and some not"


def points(migration: Migration, kind: str, calls: list[Call]) -> dict[str, Call]:
    """Return the faults of a kind that are tried: places to be killed at, and some of all calls to go wrong."""
    calls = calls[: migration.first]
    if kind == "kill":
        found = enumerate(faults(kind, calls).items())
        return dict(point for i, point in found if i % 4 == 0 or point[1].name in SEEN or migration.first)
    not_printing = [call for call in calls if call.subject != "1"]
    if kind == "EIO":
        return faults(kind, not_printing[:: migration.each])
    return {f"{kind}@{call.number}+": call for call in not_printing[migration.each // 2 :: 2 * migration.each]}


CASES = [
    (name, kind, part)
    for name, migration in MIGRATIONS.items()
    for kind in ("kill", "EIO", "EROFS")
    for part in range(migration.parts if kind == "kill" else 1)
]


@pytest.mark.parametrize(("name", "kind", "part"), CASES)
def test_a_broken_migration_tears_nothing_and_the_next_one_converges(
    tmp_path: Path, name: str, kind: str, part: int
) -> None:
    migration = MIGRATIONS[name]
    trial = Trial(migration, tmp_path)
    found = list(points(migration, kind, trial.calls).items())

    check_all(dict(found[part :: migration.parts] if kind == "kill" else found), trial.check)
