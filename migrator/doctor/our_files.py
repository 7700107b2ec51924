"""The files that are wholly ours, against what this release ships."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from migrator.changes import Note
from migrator.doctor.findings import MIGRATE, Examined, Finding, broken, ok
from migrator.manifest import HOOKS_FOLDER, INSTALLED
from migrator.steps import hook_files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change


def check(examined: Examined) -> Iterator[Finding]:
    """Yield each file that a migration would write anew."""
    ours = {item.path for item in INSTALLED}
    is_well = True
    for each in hook_files.install(examined.project):
        if isinstance(each, Note):
            if each.level == "error":
                is_well = False
                yield Finding("foreign-file", "error", each.text, f"do that, then run {MIGRATE}")
        elif each.path in ours:
            is_well = False
            yield _found(examined, each)
    if is_well:
        yield ok("our-files", f"the {len(ours)} files in {HOOKS_FOLDER} are as shipped")


def _found(examined: Examined, change: Change) -> Finding:
    if change.before is None:
        return broken("missing-file", f"{change.path} is not there")
    if change.after is not None and change.before.data == change.after.data:
        is_needed = change.path.endswith("/run") and not os.access(examined.root / change.path, os.X_OK)
        if is_needed:
            return broken("not-executable", f"{change.path} is not executable, so that no hook runs")
        return broken("changed-mode", f"{change.path} has the mode {change.before.mode:o}", level="warning")
    if change.is_users:
        return broken("edited-file", f"{change.path} was edited; a copy of it is kept", level="warning")
    return broken("outdated-file", f"{change.path} is of an older release", level="warning")
