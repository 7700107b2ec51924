"""Our section in an AGENTS.md that is there: how an agent that reads it (Codex) works with a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from migrator.changes import Note
from migrator.files import look
from migrator.shipped import is_shipped
from migrator.shipped import text as template_text
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change, Content
    from migrator.project import Project

AGENTS: Final = "AGENTS.md"
TEMPLATE: Final = "documents/agents-build.md"
BEGIN: Final = "<!-- instar:begin build -->"
END: Final = "<!-- instar:end build -->"
_SECTION: Final = re.compile(
    rf"(?P<gap>(?:\r?\n)*){re.escape(BEGIN)}\r?\n(?P<body>.*?){re.escape(END)}(?:\r?\n)?", re.DOTALL
)


def install(project: Project) -> Iterator[Change | Note]:
    """Yield the section for an AGENTS.md that is there; none is created."""
    if "codex" not in project.clients:
        yield from uninstall(project)
    elif (project.root / AGENTS).exists():
        found = list(edited(project, PART, "how an agent works with a build"))
        yield from found
        if not found and _is_edited(look(project.root, AGENTS)):
            yield Note("skipped", f"kept your words on builds in {AGENTS}; delete that section to get ours")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the document without our section."""
    return restored(project, PART, "take our section out")


def put_section(text: str | None) -> str:
    """Return the document with our section, current; one that the user edited stays. Raise InstarError."""
    text = text or ""
    found = _find(text)
    newline = "\r\n" if "\r\n" in (found["body"] if found else text) else "\n"
    body = template_text(TEMPLATE).replace("\n", newline)
    if found is None:
        gap = "" if not text else newline if text.endswith("\n") else newline * 2
        return f"{text}{gap}{BEGIN}{newline}{body}{END}{newline}"
    return text[: found.start("body")] + body + text[found.end("body") :] if _is_ours(found) else text


def take_section(text: str, _at_first: str | None = None) -> str:
    """Return the document without our section, and without the empty line put before it."""
    found = _find(text)
    if found is None:
        return text
    kept_gap = found["gap"].removesuffix("\n").removesuffix("\r")
    return text[: found.start()] + kept_gap + text[found.end() :]


PART: Final = Part(AGENTS, put_section, take_section)


def _find(text: str) -> re.Match[str] | None:
    found = _SECTION.search(text)
    if (text.count(BEGIN), text.count(END)) != ((1, 1) if found else (0, 0)):
        raise InstarError(f"the marks {BEGIN} and {END} do not pair up")
    return found


def _is_ours(found: re.Match[str]) -> bool:
    return is_shipped(TEMPLATE, found["body"].replace("\r\n", "\n").encode())


def _is_edited(document: Content | None) -> bool:
    found = _SECTION.search(document.data.decode(errors="replace")) if document else None
    return found is not None and not _is_ours(found)
