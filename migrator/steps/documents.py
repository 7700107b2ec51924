"""Our marked sections in the CLAUDE.md and AGENTS.md that are there: what an agent that reads it should know of us.

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
from migrator.manifest import SECTION_TEMPLATES, sha256
from migrator.shipped import is_shipped
from migrator.shipped import text as template_text
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from migrator.changes import Change
    from migrator.project import Project
    from migrator.registration import Client

PINS: Final = ".instar/identity-pins.json"
# What shows that a part is in use which not everybody uses.
SHOWN_BY: Final = {
    "gate": ".instar/server-data/gate-on",
    "sessions": ".instar/state/session-reaper-mode.json",
    "peers": ".instar/agents",
}
_IMPORT: Final = re.compile(r"^@(\./)?AGENTS\.md\s*$", re.MULTILINE)


class Section(NamedTuple):
    """A text of ours in a document."""

    id: str
    path: str
    template: str

    @property
    def begin(self) -> str:
        """The mark before it."""
        return f"<!-- instar:begin {self.id} -->"

    @property
    def end(self) -> str:
        """The mark behind it."""
        return f"<!-- instar:end {self.id} -->"

    @property
    def name(self) -> str:
        """What it is remembered and pinned by, in this document alone."""
        return f"{self.id}@{self.path}"


AGENTS: Final = "AGENTS.md"
CLAUDE: Final = "CLAUDE.md"
READERS: Final[dict[str, Client]] = {AGENTS: "codex", CLAUDE: "claude"}
SECTIONS: Final = (
    Section("build", AGENTS, "documents/agents-build.md"),
    Section("gate", AGENTS, "documents/gate.md"),
    Section("sessions", AGENTS, "documents/sessions.md"),
    Section("peers", AGENTS, "documents/peers.md"),
    Section("build", CLAUDE, "documents/claude-build.md"),
    Section("gate", CLAUDE, "documents/gate.md"),
    Section("sessions", CLAUDE, "documents/sessions.md"),
    Section("peers", CLAUDE, "documents/peers.md"),
)


def install(project: Project) -> Iterator[Change | Note]:
    """Yield the documents that are there with our sections; none is created."""
    pins = _pins(project)
    for path in READERS:
        if _is_linked(project, path):
            continue
        wanted = _due(project, path, pins)
        if wanted:
            yield from edited(project, _part(path, wanted), "what an agent should know of us")
        elif not any(_is_pinned(section, pins) for section in SECTIONS if section.path == path):
            yield from restored(project, _present(project, path), "take our sections out")
        yield from _notes(project, path, pins)
    yield from _remembered(project, pins)


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Yield the documents without our sections."""
    for path in READERS:
        yield from restored(project, _present(project, path), "take our sections out")


def placed(project: Project) -> list[str]:
    """Return the names of the sections that stand after a migration, for the next to know which were taken out."""
    try:
        pins = _pins(project)
    except InstarError:  # told by the step itself
        return _placed_before(project)
    return [name for path in READERS if not _is_linked(project, path) for name in _placed_in(project, path, pins)]


def _placed_in(project: Project, path: str, pins: dict[str, Any]) -> list[str]:
    wanted = _due(project, path, pins)
    try:
        found = look(project.root, path)
        put_sections(found.data.decode() if found else "", wanted)
    except (InstarError, UnicodeDecodeError):  # nothing was put in, nor taken out
        return [name for name in _placed_before(project) if name.endswith(f"@{path}")]
    return [section.name for section in wanted] if found else []


def put_sections(text: str | None, sections: Sequence[Section]) -> str:
    """Return the document with these sections, current; one that the user edited stays. Raise InstarError."""
    text = text or ""
    for section in sections:
        text = put_section(text, section)
    return text


def put_section(text: str, section: Section) -> str:
    """Return the document with one section."""
    found = _find(text, section)
    newline = "\r\n" if "\r\n" in (found["body"] if found else text) else "\n"
    body = template_text(section.template).replace("\n", newline)
    if found is None:
        gap = "" if not text else newline if text.endswith("\n") else newline * 2
        return f"{text}{gap}{section.begin}{newline}{body}{section.end}{newline}"
    return text[: found.start("body")] + body + text[found.end("body") :] if _is_ours(found) else text


def take_sections(text: str, _at_first: str | None = None) -> str:
    """Return the document without our sections, and without the empty lines put before them."""
    for section in reversed(SECTIONS):
        found = _find(text, section)
        if found:
            kept_gap = found["gap"].removesuffix("\n").removesuffix("\r")
            text = text[: found.start()] + kept_gap + text[found.end() :]
    return text


def _part(path: str, sections: Sequence[Section]) -> Part:
    return Part(path, partial(put_sections, sections=sections), take_sections)


def _present(project: Project, path: str) -> Part:
    """Return our part in a document as it stands there."""
    text = _text_of(project, path)
    return _part(path, [section for section in SECTIONS if section.path == path and section.begin in text])


def _wanted(project: Project, path: str) -> list[Section]:
    """Return the sections that belong into a document: of what is in use, for a client that reads it."""
    if READERS[path] not in project.clients or not os.path.lexists(project.root / path) or _brings_in(project, path):
        return []
    text = _text_of(project, path)
    unused = {name for name, shown_by in SHOWN_BY.items() if not (project.root / shown_by).exists()}
    listed = [section for section in SECTIONS if section.path == path]
    return [section for section in listed if section.id not in unused or section.begin in text]


def _due(project: Project, path: str, pins: dict[str, Any]) -> list[Section]:
    """Return those of them that the person wants there, too."""
    return [section for section in _wanted(project, path) if not _is_left_out(project, section, pins)]


def _is_pinned(section: Section, pins: dict[str, Any]) -> bool:
    return section.id in pins or section.name in pins


def _is_left_out(project: Project, section: Section, pins: dict[str, Any]) -> bool:
    """Say whether a section is pinned, or was put in by a migration before and is not there any more."""
    text = _text_of(project, section.path)
    is_gone = section.name in _placed_before(project) and not (section.begin in text or section.end in text)
    return _is_pinned(section, pins) or is_gone


def _notes(project: Project, path: str, pins: dict[str, Any]) -> Iterator[Note]:
    """Yield what is left as the person wants it."""
    text = _text_of(project, path)
    for section in _wanted(project, path):
        if _is_pinned(section, pins):
            yield Note("skipped", f"our section {section.id} in {path} is pinned in {PINS}")
        elif _is_left_out(project, section, pins):
            yield Note(
                "skipped", f"you took our section {section.id} out of {path}: it stays out, by {section.name} in {PINS}"
            )
        elif _is_edited(text, section):
            yield Note("skipped", f"kept your words in our section {section.id} of {path}; delete it to be rid of it")


def _remembered(project: Project, pins: dict[str, Any]) -> Iterator[Change | Note]:
    """Yield the pins with a pin for each section that was taken out."""
    there = [section for section in SECTIONS if (project.root / section.path).is_file()]
    out = [each for each in there if not _is_pinned(each, pins) and _is_left_out(project, each, pins)]
    if out:
        yield from edited(project, Part(PINS, partial(_put_pins, sections=out), _keep), "remember what was taken out")


def _put_pins(text: str | None, sections: Sequence[Section]) -> str:
    text = text or "{}\n"
    for section in sections:
        text = put(text, (section.name,), {"contentHash": sha256(template_text(section.template).encode())})
    return text


def _keep(text: str, _at_first: str | None) -> str:
    return text


def _placed_before(project: Project) -> list[str]:
    names = project.record.get("sections")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _is_linked(project: Project, path: str) -> bool:
    """Say whether CLAUDE.md is AGENTS.md by another name, where that is ours to care for: one section is enough."""
    root = project.root
    return _is_beside_agents(project, path) and os.path.realpath(root / CLAUDE) == os.path.realpath(root / AGENTS)


def _brings_in(project: Project, path: str) -> bool:
    """Say whether CLAUDE.md brings AGENTS.md in, which has our sections."""
    return _is_beside_agents(project, path) and _IMPORT.search(_text_of(project, CLAUDE)) is not None


def _is_beside_agents(project: Project, path: str) -> bool:
    """Say whether it is CLAUDE.md, and there is an AGENTS.md that we care for."""
    return path == CLAUDE and READERS[AGENTS] in project.clients and (project.root / AGENTS).is_file()


def _text_of(project: Project, path: str) -> str:
    try:
        found = look(project.root, path)
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


def _marked(section: Section) -> re.Pattern[str]:
    return re.compile(
        rf"(?P<gap>(?:\r?\n)*){re.escape(section.begin)}\r?\n(?P<body>.*?){re.escape(section.end)}(?:\r?\n)?", re.DOTALL
    )


def _find(text: str, section: Section) -> re.Match[str] | None:
    found = _marked(section).search(text)
    if (text.count(section.begin), text.count(section.end)) != ((1, 1) if found else (0, 0)):
        raise InstarError(f"the marks {section.begin} and {section.end} do not pair up")
    return found


def _is_ours(found: re.Match[str]) -> bool:
    body = found["body"].replace("\r\n", "\n").encode()
    return any(is_shipped(template, body) for template in SECTION_TEMPLATES)


def _is_edited(text: str, section: Section) -> bool:
    found = _marked(section).search(text)
    return found is not None and not _is_ours(found)
