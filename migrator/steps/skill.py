"""The /build skill of Claude Code: ours as long as nobody edited it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrator.changes import Change, Content, Note
from migrator.files import look
from migrator.manifest import SKILL
from migrator.shipped import is_shipped, text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.project import Project


def install(project: Project) -> Iterator[Change | Note]:
    """Yield the skill where it is missing or of an older release; the user's own is left alone."""
    if "claude" not in project.clients:
        yield from uninstall(project)
        return
    wanted = Content(text(SKILL.template).encode(), SKILL.mode)
    found = look(project.root, SKILL.path)
    if found is None or (found.data != wanted.data and is_shipped(SKILL.template, found.data)):
        yield Change(SKILL.path, found, wanted, "the /build skill", is_users=True, is_first=found is None)
    elif found.data != wanted.data:
        yield Note("skipped", f"kept your {SKILL.path}; delete it and run instar-migrate to get ours")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the removal of the skill, unless somebody edited it."""
    found = look(project.root, SKILL.path)
    if found is not None and is_shipped(SKILL.template, found.data):
        yield Change(SKILL.path, found, None, "ours", is_users=True)
    elif found is not None and project.record:
        yield Note("skipped", f"kept your {SKILL.path}")
