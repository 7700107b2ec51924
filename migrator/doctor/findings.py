"""What a check is given, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, Literal

from migrator.doctor.settings_files import SettingsFile, read_settings
from migrator.plain import plain_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from migrator.project import Project

Level = Literal["error", "warning", "ok"]
MIGRATE: Final = "instar-migrate"  # the command that mends what is ours
DOCTOR_SESSION: Final = "instar-doctor"  # the session that the doctor fires hooks for; it owns nothing
_LISTED: Final = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: an error keeps hooks from working or makes them hurt, a warning does not yet."""

    code: str
    level: Level
    text: str
    fix: str = ""
    is_mended_by_migrating: bool = False  # what --fix may do; all else is the person's own


def broken(code: str, text: str, *, level: Level = "error") -> Finding:
    """Return a finding about something of ours, which the next migration puts right."""
    return Finding(code, level, text, MIGRATE, is_mended_by_migrating=True)


def ok(code: str, text: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(code, "ok", text)


@dataclass(frozen=True)
class Examined:
    """A project that was set up, and the machine of the person who works in it; files are read once."""

    project: Project
    environ: Mapping[str, str]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.project.root

    @cached_property
    def settings(self) -> tuple[SettingsFile, ...]:
        """The files that the project's clients read hooks from, the one that we register in first for each client."""
        return tuple(read_settings(self.project, self.environ))

    def named(self, path: str | Path) -> str:
        """Return a path as a person knows it: below the project without the project."""
        place = self.root / path
        return str(place.relative_to(self.root) if place.is_relative_to(self.root) else place)

    def listed(self, places: Iterable[Path]) -> str:
        """Return the first of some paths by their names, and how many more there are."""
        names = sorted(plain_line(self.named(place)) for place in places)
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        return ", ".join(names[:_LISTED]) + more
