"""Our section in an AGENTS.md that is there: how an agent that reads it (Codex) works with a build."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from migrator.shipped import is_shipped
from migrator.shipped import text as template_text
from migrator.steps.user_files import edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change, Note
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
        yield from edited(project, AGENTS, put_section, "how an agent works with a build")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the document without our section."""
    return restored(project, AGENTS, put_section, lambda text, _: take_section(text), "take our section out")


def put_section(text: str | None) -> str:
    """Return the document with our section, current; one that the user edited stays. Raise InstarError."""
    text = text or ""
    newline = "\r\n" if "\r\n" in text else "\n"
    body = template_text(TEMPLATE).replace("\n", newline)
    found = _find(text)
    if found is None:
        gap = "" if not text else newline if text.endswith("\n") else newline * 2
        return f"{text}{gap}{BEGIN}{newline}{body}{END}{newline}"
    is_ours = is_shipped(TEMPLATE, found["body"].replace("\r\n", "\n").encode())
    return text[: found.start("body")] + body + text[found.end("body") :] if is_ours else text


def take_section(text: str) -> str:
    """Return the document without our section, and without the empty line put before it."""
    found = _find(text)
    if found is None:
        return text
    kept_gap = found["gap"].removesuffix("\n").removesuffix("\r")
    return text[: found.start()] + kept_gap + text[found.end() :]


def _find(text: str) -> re.Match[str] | None:
    if text.count(BEGIN) != text.count(END) or text.count(BEGIN) > 1:
        raise InstarError(f"the marks {BEGIN} and {END} do not pair up")
    return _SECTION.search(text)
