"""What a migration would do: the changes of all steps in the order they are written, and notes on the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from instar.errors import InstarError
from migrator.changes import Change, Note
from migrator.project import Project
from migrator.steps import block_cap, client_hooks, config, documents, hook_files, in_git, record, skill

Step = Callable[[Project], Iterable[Change | Note]]

# What is pointed at comes before what points at it, and goes after it.
INSTALL: tuple[Step, ...] = (
    hook_files.install,
    skill.install,
    documents.install,
    block_cap.install,
    client_hooks.install,
    config.install,
    record.install,
    in_git.install,
)
UNINSTALL: tuple[Step, ...] = (
    client_hooks.uninstall,
    block_cap.uninstall,
    documents.uninstall,
    skill.uninstall,
    config.uninstall,
    record.uninstall,
    hook_files.uninstall,
)


@dataclass(frozen=True)
class Plan:
    """Everything a migration of one project would do."""

    changes: list[Change]
    notes: list[Note]

    def noted(self, level: str) -> list[str]:
        """Return the texts of the notes of one level."""
        return [note.text for note in self.notes if note.level == level]


def plan(project: Project, steps: tuple[Step, ...] = INSTALL) -> Plan:
    """Read the project and return what `steps` would do. Nothing is written."""
    found = [each for step in steps for each in _found_by(step, project)]
    changes = [each for each in found if isinstance(each, Change)]
    return Plan(changes, [each for each in found if isinstance(each, Note)])


def _found_by(step: Step, project: Project) -> Iterator[Change | Note]:
    """Yield what a step would do, and an error where it cannot: the others go on."""
    try:
        yield from step(project)
    except InstarError as error:
        yield Note("error", str(error))
