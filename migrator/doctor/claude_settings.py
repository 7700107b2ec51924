"""What Claude Code drops in silence, or switches off, of the settings it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from migrator.changes import Note
from migrator.doctor.findings import Examined, Finding, broken, ok
from migrator.steps import block_cap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.doctor.settings_files import Handler, SettingsFile


def check(examined: Examined) -> Iterator[Finding]:
    """Yield what keeps Claude Code from running our hooks, or from being held by them."""
    if "claude" not in examined.project.clients:
        return
    files = [file for file in examined.settings if file.client == "claude"]
    found = [*(each for file in files for each in _of_file(file)), *_block_cap(examined)]
    yield from found
    if not found:
        names = ", ".join(file.name for file in files if file.value is not None)
        yield ok("claude-settings", f"Claude Code drops nothing of {names}")


def _of_file(file: SettingsFile) -> Iterator[Finding]:
    if file.problem:
        text = f"{file.name} cannot be read, so that Claude Code drops all of it: {file.problem}"
        yield Finding("settings-broken", "error" if file.is_ours else "warning", text, f"mend {file.name}")
    if file.get("disableAllHooks") is True:
        text = f'"disableAllHooks": true in {file.name} switches every hook off'
        yield Finding("hooks-disabled", "error", text, f"take disableAllHooks out of {file.name}")
    for handler in file.handlers():
        problem = _defect(handler)
        if problem:
            yield _dropped(file, handler, problem)


def _defect(handler: Handler) -> str:
    """Return what in a hook makes Claude Code drop the whole file."""
    if not isinstance(handler.entry, dict):
        return "is no object"
    kind, command = handler.entry.get("type", "command"), handler.entry.get("command")
    if kind == "command" and not isinstance(command, str):
        return "has no command"
    timeout = handler.entry.get("timeout", 1)
    is_number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    return "" if is_number and timeout > 0 else f"has a timeout of {timeout!r}"


def _dropped(file: SettingsFile, handler: Handler, problem: str) -> Finding:
    text = f"{handler.where} in {file.name} {problem}, so that Claude Code drops the whole file"
    if file.is_ours and handler.role:
        return broken("settings-dropped", text)
    fix = f"give that hook a command and a timeout of more than 0 seconds, or take it out of {file.name}"
    return Finding("settings-dropped", "error" if file.is_ours else "warning", text, fix)


def _block_cap(examined: Examined) -> Iterator[Finding]:
    """Yield a cap that is lower than the largest build may be held; one that a person set is theirs."""
    for each in block_cap.install(examined.project):
        if not isinstance(each, Note):
            text = f"{block_cap.VARIABLE} is set nowhere: Claude Code may end a turn that a build holds"
            yield broken("block-cap-unset", text, level="warning")
        elif each.level == "warning":
            yield Finding("block-cap-low", "warning", each.text, f'set it to "{block_cap.CAP}" or more there')
