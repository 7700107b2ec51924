"""What a migration remembers for the next: the version, what was chosen, and what was put where."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from instar import __version__
from migrator.changes import Change, Content
from migrator.files import look
from migrator.record import RECORD
from migrator.steps.documents import placed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.project import Project


def install(project: Project, **learned: object) -> Iterator[Change]:
    """Yield the record where it differs; `learned` is remembered beside it."""
    record = {
        **project.record,
        "version": __version__,
        "clients": list(project.clients),
        "sections": placed(project),
        **({"takeOver": True} if project.takes_over else {}),
        **learned,
    }
    wanted = Content((json.dumps(record, indent=2) + "\n").encode())
    found = look(project.root, RECORD)
    if found is None or record != project.record:
        yield Change(RECORD, found, wanted, "what this migration did")


def uninstall(project: Project) -> Iterator[Change]:
    """Yield the removal of the record."""
    found = look(project.root, RECORD)
    if found is not None:
        yield Change(RECORD, found, None, "ours")
