"""What a migration does to a project, as data: changes of paths, and notes on what is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Content:
    """What stands at a path: the bytes and mode of a file, or the target of a link that is ours."""

    data: bytes
    mode: int = 0o644
    is_link: bool = False


@dataclass(frozen=True)
class Change:
    """One path of the project, as it was seen and as it shall be; None stands for no file."""

    path: str  # below the project
    before: Content | None
    after: Content | None
    why: str
    is_users: bool = False  # the user edits it, too: copied before it is changed
    is_first: bool = False  # nothing of ours is in it yet: as it was seen is how it is given back on uninstall

    @property
    def verb(self) -> str:
        """What happens to the path."""
        if self.after is None:
            return "remove"
        return "create" if self.before is None else "update"


@dataclass(frozen=True)
class Note:
    """Something that is not done, or that the person should know; "also" is something done outside the project."""

    level: Literal["error", "warning", "skipped", "also"]
    text: str
