"""What a migration says: a line a thing for people, one object for programs, a diff for the careful."""

from __future__ import annotations

import difflib
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from migrator.manifest import SKILL
from migrator.plain import plain, plain_on_terminal
from migrator.registration import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.changes import Change, Content, Note
    from migrator.codex_status import CodexStatus
    from migrator.plan import Plan
    from migrator.project import Project
    from migrator.upgrades import Guide

_COLOURS = {"create": "green", "update": "yellow", "remove": "red"}
_NOTE_COLOURS = {"error": "red", "also": "green"}
_DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def for_people(project: Project, plan: Plan, *, is_done: bool) -> Iterator[str]:
    """Yield the changes and notes, a line each, and what they come to."""
    yield f"project {plain(click.format_filename(project.root))}"
    for change in plan.changes:
        yield f"  {click.style(f'{change.verb:<7}', fg=_COLOURS[change.verb])} {change.path}  ({plain(change.why)})"
    for note in plan.notes:
        yield note_line(note)
    count = len(plan.changes)
    things = "1 path" if count == 1 else f"{count} paths"
    if not count:
        yield "nothing to do"
    else:
        yield f"{things} changed" if is_done else f"{things} would change; nothing was written"


def note_line(note: Note) -> str:
    """Return a note as a line for people."""
    return f"  {click.style(f'{note.level:<7}', fg=_NOTE_COLOURS.get(note.level, 'yellow'))} {plain(note.text)}"


def next_steps(project: Project, codex: CodexStatus | None) -> Iterator[str]:
    """Yield what to do after an installation, a line each."""
    yield ""
    yield "next"
    if "claude" in project.clients:
        yield "  Claude Code   /build TASK starts a build, in a session of this project"
    if codex is not None:
        yield f"  Codex         {codex.advice()}"
    yield '  any agent     build-state init "TASK" starts a build from its shell; build-state --help shows the rest'
    shared = [SETTINGS[client] for client in project.clients]
    if "claude" in project.clients:
        shared.append(SKILL.path)
    yield f"  git           commit {', '.join(shared)}: they do nothing in a clone without .instar"


def print_guides(guides: list[Guide]) -> None:
    """Print what the releases since the last migration changed: drawn on a terminal, plain in a pipe."""
    for guide in guides:
        click.echo()
        if sys.stdout.isatty():
            from rich.console import Console  # noqa: PLC0415 - a migration without a guide does not wait for it
            from rich.markdown import Markdown  # noqa: PLC0415

            Console().print(Markdown(guide.text))
        else:
            click.echo(guide.text.rstrip())


def for_programs(project: Project, plan: Plan, codex: CodexStatus | None, guides: list[Guide], *, is_done: bool) -> str:
    """Return the whole as one JSON object."""
    report: dict[str, Any] = {
        "project": str(project.root),
        "dryRun": not is_done,
        "upgraded": [f"{change.path} ({change.why})" for change in plan.changes],
        "skipped": plan.noted("skipped"),
        "errors": plan.noted("error"),
        "warnings": plan.noted("warning"),
        "also": plan.noted("also"),
        "changes": [{"verb": change.verb, "path": change.path, "why": change.why} for change in plan.changes],
        "upgradeGuide": _guides_as_json(guides) if guides else None,
        "codexHooks": codex.as_json() if codex else None,
    }
    return json.dumps(report, indent=2)


def _guides_as_json(guides: list[Guide]) -> dict[str, Any]:
    return {
        "versions": [guide.version for guide in guides],
        "content": "\n".join(guide.text for guide in guides),
        "pendingGuidePath": None,  # shown once, and never waiting to be acknowledged
    }


def diff(plan: Plan) -> Iterator[str]:
    """Yield the changes as a unified diff; coloured, which a pipe takes out again."""
    for change in plan.changes:
        before, after = _lines(change.before), _lines(change.after)
        for line in difflib.unified_diff(before, after, _name(change, "a"), _name(change, "b"), lineterm=""):
            shown = plain_on_terminal(line)
            yield click.style(shown, fg=_DIFF_COLOURS.get(line[:1])) if line[:3] not in ("+++", "---") else shown
        if before == after:
            yield f"{change.verb} {change.path}  ({change.why})"


def _name(change: Change, side: str) -> str:
    content = change.before if side == "a" else change.after
    return f"{side}/{change.path}" if content else "/dev/null"


def _lines(content: Content | None) -> list[str]:
    return content.data.decode(errors="replace").splitlines() if content else []
