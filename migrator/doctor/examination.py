"""The doctor's round: all checks, what may be mended, and all checks again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from migrator.doctor import (
    claude_settings,
    codex_settings,
    configuration,
    firing,
    interpreter,
    leftovers,
    our_files,
    peers,
    registrations,
    report,
    sessions,
    versions,
)
from migrator.doctor.findings import MIGRATE, Examined, Finding
from migrator.files import apply
from migrator.manifest import HOOKS_FOLDER
from migrator.plan import plan
from migrator.project import Project, open_project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check = Callable[[Examined], Iterator[Finding]]

# In the order of a report: what is installed, whether it runs, whether the clients run it, what was left behind.
CHECKS: Final[tuple[tuple[str, Check], ...]] = (
    ("our files", our_files.check),
    ("the interpreter", interpreter.check),
    ("the registrations", registrations.check),
    ("the hooks, fired", firing.check),
    ("the settings of Claude Code", claude_settings.check),
    ("the settings of Codex", codex_settings.check_files),
    ("Codex's trust", codex_settings.check_trust),
    ("Codex's background process", codex_settings.check_daemon),
    ("the configuration", configuration.check_config),
    ("the stop gate", configuration.check_gate),
    ("the sessions", sessions.check),
    ("the peers", peers.check),
    ("the build", leftovers.check_build),
    ("files left behind", leftovers.check_files),
    ("the logs", leftovers.check_logs),
    ("the clients' versions", versions.check),
)


def examine(folder: str | None, *, fix: bool, as_json: bool) -> int:
    """Look at the project in `folder`, or around the working folder, print what is found, return the exit status.

    0: no error is left; 1: some are, or nothing could be looked at. With `fix`, what a migration mends is mended, and
    looked at again; nothing that is the person's own is touched. Without it nothing in the project changes.
    """
    try:
        project = open_project(folder, ())
        told = [report.Told(finding) for finding in look_over(project)]
        if fix and any(each.finding.is_mended_by_migrating for each in told):
            told = _mended(project, [each.finding for each in told])
    except InstarError as error:
        report.refuse(str(error))
        return 1
    except OSError as error:
        report.refuse(f"{error.filename or 'the working folder'}: {error.strerror}")
        return 1
    report.show(project.root, told, as_json=as_json)
    return 1 if report.left(told, "error") else 0


def look_over(project: Project) -> list[Finding]:
    """Return the findings of all checks; one that fails is a finding itself."""
    if not (project.record or (project.root / HOOKS_FOLDER).is_dir()):
        return [Finding("not-installed", "error", f"nothing of ours is set up in {project.root}", MIGRATE)]
    examined = Examined(project, os.environ)
    return [finding for name, check in CHECKS for finding in _found_by(name, check, examined)]


def _found_by(name: str, check: Check, examined: Examined) -> list[Finding]:
    found = []
    try:
        with report.patience(name):
            for finding in check(examined):
                found.append(finding)  # noqa: PERF402 - what was found before a check fails is kept
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        text = f"could not look at {name}: {type(error).__name__}: {error}"
        found.append(Finding("check-failed", "error", text, "mend that if it is yours, else report it"))
    return found


def _mended(project: Project, before: list[Finding]) -> list[report.Told]:
    """Migrate, look again, and return what is mended before what is left."""
    failed = []
    try:
        apply(project.root, plan(project).changes)
    except InstarError as error:
        failed = [Finding("not-mended", "error", str(error), f"{MIGRATE} once that is out of the way")]
    after = look_over(open_project(str(project.root), ()))
    left = {(finding.code, finding.text) for finding in after}
    fixed = [each for each in before if each.level != "ok" and (each.code, each.text) not in left]
    return [*(report.Told(each, is_fixed=True) for each in fixed), *map(report.Told, [*failed, *after])]
