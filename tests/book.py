"""The book, README.md and docs/: its pages as the examples, words and links they hold.

An example is a line of an indented block, and every such line is a command; what stands behind a `#` is for the reader.
Fenced blocks name a language, and are no examples.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parent.parent
OURS: Final = ("build-state", "instar-gate", "instar-migrate", "instar-peers", "instar-server", "instar-sessions")
OTHERS: Final = ("cd", "claude", "codex", "git", "make", "pipx", "python", ".venv/bin/python")

# What a person would put there; the rest of the placeholders depends on the world of the story.
FILL: Final = {
    "NAME": "bob", "KIND": "deploy", "TEXT": "words", "REASON": "words", "MESSAGE": "words", "QUESTION": "words",
    "TASK": "words", "WHY": "words", "PHASE": "executing", "DIR": ".",
}  # fmt: skip

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


@dataclass(frozen=True)
class Example:
    """One line that a reader types."""

    line: str

    @property
    def text(self) -> str:
        """The command, without the words for the reader."""
        return re.split(r"\s+#\s", self.line)[0].strip()

    @property
    def program(self) -> str:
        """What is run."""
        return self.text.partition(" ")[0]

    @property
    def options(self) -> set[str]:
        """All options that the line names, also for the reader."""
        return set(_OPTION.findall(self.line))

    def words(self, **fill: str) -> list[str]:
        """Return the words of the command, with placeholders filled."""
        filled = {**FILL, **fill}
        return [filled.get(word, word) for word in shlex.split(self.text)]


@dataclass(frozen=True)
class Page:
    """A page by its path below the repository."""

    path: str

    @cached_property
    def text(self) -> str:
        return (REPOSITORY / self.path).read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def fences(self) -> list[tuple[str, str]]:
        """The fenced blocks: language and text."""
        return _FENCE.findall(self.text)

    @property
    def examples(self) -> list[Example]:
        return [Example(line.strip()) for line in self.prose.splitlines() if line.startswith("    ")]

    @property
    def words(self) -> list[str]:
        """What stands between backticks."""
        return re.findall(r"`([^`\n]+)`", self.prose)

    @property
    def spans(self) -> list[Example]:
        """The commands of ours between backticks, which need not be whole."""
        return [Example(word) for word in self.words if word.partition(" ")[0] in OURS]

    @property
    def options(self) -> set[str]:
        """The options between backticks, but for those of other programs."""
        ours = (word for word in self.words if word.partition(" ")[0] not in OTHERS)
        return {option for word in ours for option in _OPTION.findall(word)}

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)]+)\)", self.prose)

    def rows(self, first: str) -> list[list[str]]:
        """Return the rows of all tables whose head begins with `first`, as cells."""
        found, is_in = [], False
        for line in self.prose.splitlines():
            cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
            is_in = bool(cells) and (is_in or cells[0] == first)
            if is_in and cells[0] != first and set(cells[0]) != {"-"}:
                found.append(cells)
        return found

    def named(self, first: str) -> set[str]:
        """Return what stands between backticks in the first column of those tables."""
        return {word for cells in self.rows(first) for word in re.findall(r"`([^`]+)`", cells[0])}


PAGES: Final = [Page("README.md"), *(Page(f"docs/{path.name}") for path in sorted((REPOSITORY / "docs").glob("*.md")))]
