"""Our marked sections in the CLAUDE.md and AGENTS.md that are there: how an agent that reads it works with a build.

A section is put in once, kept current, and left alone for good once the person edited it, took it out, or pinned it in
`.instar/identity-pins.json`, by its id (`build`) or for one document (`build@CLAUDE.md`).
"""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from instar.errors import InstarError
from migrator.changes import Note
from migrator.files import look
from migrator.json_spans import JsonTextError, parse, put
from migrator.shipped import is_shipped, sha256
from migrator.shipped import text as template_text
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change
    from migrator.project import Project
    from migrator.registration import Client

PINS: Final = ".instar/identity-pins.json"
SECTION: Final = "build"
BEGIN: Final = f"<!-- instar:begin {SECTION} -->"
END: Final = f"<!-- instar:end {SECTION} -->"
_MARKED: Final = re.compile(
    rf"(?P<gap>(?:\r?\n)*){re.escape(BEGIN)}\r?\n(?P<body>.*?){re.escape(END)}(?:\r?\n)?", re.DOTALL
)
_IMPORT: Final = re.compile(r"^@(\./)?AGENTS\.md\s*$", re.MULTILINE)


class Document(NamedTuple):
    """A document that one of the clients reads, and the text that goes into it."""

    path: str
    client: Client
    template: str

    @property
    def pin(self) -> str:
        """The name that pins our section in this document alone."""
        return f"{SECTION}@{self.path}"

    @property
    def part(self) -> Part:
        """Our part in it."""
        return Part(self.path, partial(put_section, template=self.template), take_section)


AGENTS: Final = Document("AGENTS.md", "codex", "documents/agents-build.md")
CLAUDE: Final = Document("CLAUDE.md", "claude", "documents/claude-build.md")
DOCUMENTS: Final = (AGENTS, CLAUDE)
_TEMPLATES: Final = tuple(document.template for document in DOCUMENTS)


def install(project: Project) -> Iterator[Change | Note]:
    """Yield the sections for the documents that are there; none is created."""
    pins = _pins(project)
    for document in DOCUMENTS:
        if _is_linked(project, document):
            continue
        if document.client not in project.clients or _brings_in(project, document):
            yield from restored(project, document.part, "take our section out")
        elif (project.root / document.path).exists():
            yield from _install(project, document, pins)


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the documents without our sections."""
    for document in DOCUMENTS:
        yield from restored(project, document.part, "take our section out")


def placed(project: Project) -> list[str]:
    """Return the documents that have our section after a migration, for the next to know which were taken out."""
    try:
        pins = _pins(project)
    except InstarError:  # told by the step itself
        return list(project.record.get("sections", []))
    return [
        document.path
        for document in DOCUMENTS
        if document.client in project.clients
        and (project.root / document.path).is_file()
        and not _is_linked(project, document)
        and not _brings_in(project, document)
        and not _is_left_out(project, document, pins)
    ]


def _install(project: Project, document: Document, pins: dict[str, Any]) -> Iterator[Change | Note]:
    if SECTION in pins or document.pin in pins:
        yield Note("skipped", f"our section in {document.path} is pinned in {PINS}")
        return
    if _is_left_out(project, document, pins):
        shipped = {"contentHash": sha256(template_text(document.template).encode())}
        yield from edited(project, Part(PINS, partial(_put_pin, name=document.pin, value=shipped), _keep), "remember")
        text = f"you took our section out of {document.path}: it stays out, by {document.pin} in {PINS}"
        yield Note("skipped", text)
        return
    found = list(edited(project, document.part, "how an agent works with a build"))
    yield from found
    if not found and _is_edited(_text_of(project, document)):
        yield Note("skipped", f"kept your words on builds in {document.path}; delete that section to be rid of it")


def _is_left_out(project: Project, document: Document, pins: dict[str, Any]) -> bool:
    """Say whether the section was put in by a migration before and is not there any more, or is pinned out."""
    text = _text_of(project, document)
    if SECTION in pins or document.pin in pins:
        return BEGIN not in text
    return document.path in project.record.get("sections", []) and not (BEGIN in text or END in text)


def _is_linked(project: Project, document: Document) -> bool:
    """Say whether CLAUDE.md is AGENTS.md by another name, where that is ours to care for: one section is enough."""
    root = project.root
    is_cared_for = document == CLAUDE and AGENTS.client in project.clients and (root / AGENTS.path).is_file()
    return is_cared_for and os.path.realpath(root / CLAUDE.path) == os.path.realpath(root / AGENTS.path)


def _brings_in(project: Project, document: Document) -> bool:
    """Say whether CLAUDE.md brings AGENTS.md in, which has our section."""
    is_cared_for = document == CLAUDE and AGENTS.client in project.clients and (project.root / AGENTS.path).is_file()
    return is_cared_for and _IMPORT.search(_text_of(project, CLAUDE)) is not None


def _text_of(project: Project, document: Document) -> str:
    try:
        found = look(project.root, document.path)
    except InstarError:
        return ""
    return found.data.decode(errors="replace") if found else ""


def _pins(project: Project) -> dict[str, Any]:
    """Return what is pinned. Raise InstarError where that cannot be read: then no document is touched."""
    found = look(project.root, PINS)
    try:
        pins = parse(found.data.decode()) if found else {}
    except (JsonTextError, UnicodeDecodeError) as error:
        raise InstarError(f"cannot read {PINS}: {error}; no document is touched until it is mended") from error
    if not isinstance(pins, dict):
        raise InstarError(f"{PINS} holds no JSON object; no document is touched until it is mended")
    return pins


def _put_pin(text: str | None, name: str, value: dict[str, str]) -> str:
    return put(text or "{}\n", (name,), value)


def _keep(text: str, _at_first: str | None) -> str:
    return text


def put_section(text: str | None, template: str = AGENTS.template) -> str:
    """Return the document with our section, current; one that the user edited stays. Raise InstarError."""
    text = text or ""
    found = _find(text)
    newline = "\r\n" if "\r\n" in (found["body"] if found else text) else "\n"
    body = template_text(template).replace("\n", newline)
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


def _find(text: str) -> re.Match[str] | None:
    found = _MARKED.search(text)
    if (text.count(BEGIN), text.count(END)) != ((1, 1) if found else (0, 0)):
        raise InstarError(f"the marks {BEGIN} and {END} do not pair up")
    return found


def _is_ours(found: re.Match[str]) -> bool:
    body = found["body"].replace("\r\n", "\n").encode()
    return any(is_shipped(template, body) for template in _TEMPLATES)


def _is_edited(text: str) -> bool:
    found = _MARKED.search(text)
    return found is not None and not _is_ours(found)
