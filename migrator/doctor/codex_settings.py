"""What Codex rejects, switches off or does not trust of the hooks it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from migrator import codex_config, codex_status
from migrator.codex_trust import find_codex
from migrator.doctor.findings import Examined, Finding, broken, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.codex_status import CodexStatus
    from migrator.doctor.findings import Level
    from migrator.doctor.settings_files import Handler, SettingsFile

_TOP_LEVEL: Final = {"hooks", "description"}


def check_files(examined: Examined) -> Iterator[Finding]:
    """Yield what makes Codex reject a file of hooks, or run none at all."""
    files = [file for file in examined.settings if file.client == "codex"]
    found = [*(each for file in files for each in _of_file(file)), *_disabled(files)]
    yield from found
    if files and not found:
        names = ", ".join(file.name for file in files if file.value is not None)
        yield ok("codex-settings", f"Codex rejects nothing in {names}")


def _of_file(file: SettingsFile) -> Iterator[Finding]:
    level: Level = "error" if file.is_projects or file.place.suffix == ".toml" else "warning"
    if file.problem:
        text = f"{file.name} cannot be read, so that Codex rejects it: {file.problem}"
        yield Finding("settings-broken", level, text, f"mend {file.name}")
    if file.place.suffix != ".json" or file.value is None:
        return
    unknown = sorted(file.value.keys() - _TOP_LEVEL) if isinstance(file.value, dict) else ["no object"]
    if unknown:
        text = f"{file.name} has {', '.join(unknown)} beside hooks, so that Codex rejects all of it"
        fix = f"leave nothing but hooks and description at the top of {file.name}"
        yield Finding("settings-dropped", level, text, fix)
    for handler in file.handlers():
        problem = _defect(handler)
        if problem:
            text = f"{handler.where} in {file.name} {problem}, so that Codex rejects the whole file"
            fix = f"mend that hook, or take it out of {file.name}"
            is_ours = file.is_ours and handler.role
            yield broken("settings-dropped", text) if is_ours else Finding("settings-dropped", level, text, fix)


def _disabled(files: list[SettingsFile]) -> Iterator[Finding]:
    """Yield the file that switches hooks off; the project's decides over the person's, which comes after it."""
    for file in files:
        for name in ("hooks", "codex_hooks"):  # now, and of old
            value = file.get("features", name)
            if value is False:
                text = f"{name} = false below [features] in {file.name} switches every hook off"
                yield Finding("hooks-disabled", "error", text, f"take that line out of {file.name}")
            if isinstance(value, bool):
                return


def _defect(handler: Handler) -> str:
    """Return what in a hook makes Codex reject the whole file."""
    entry = handler.entry
    if not isinstance(entry, dict):
        return "is no object"
    if not isinstance(entry.get("type"), str):
        return "has no type"
    if entry["type"] == "command" and not isinstance(entry.get("command"), str):
        return "has no command"
    timeout = entry.get("timeout", 1)
    is_whole = isinstance(timeout, int) and not isinstance(timeout, bool)
    return "" if is_whole and timeout >= 0 else f"has a timeout of {timeout!r}"


def check_trust(examined: Examined) -> Iterator[Finding]:
    """Yield whether Codex runs our hooks, as it says itself."""
    if "codex" not in examined.project.clients:
        return
    status = codex_status.look_up(examined.project, examined.environ)
    is_used = find_codex(examined.environ) or status.state != "folder untrusted"  # else an editor's, elsewhere
    if status.state == "no codex" or not is_used:
        yield ok("no-codex", "there is no codex on PATH, and none was trusted with this folder")
    elif not codex_config.home(examined.environ).is_dir():
        yield Finding("codex-folder-untrusted", "warning", "Codex was never used here", status.advice())
    else:
        yield _trust(examined, status)


def _trust(examined: Examined, status: CodexStatus) -> Finding:
    if status.state == "folder untrusted":
        text = f"Codex does not trust the folder {examined.root}, so that it runs no hook of it"
        fix = f"{status.advice()}; or, without Codex here, run instar-migrate --clients claude"
        return Finding("codex-folder-untrusted", "error", text, fix)
    if status.state == "unknown":
        fix = "see whether codex starts by hand; then run instar-migrate doctor again"
        return Finding(
            "codex-unknown", "warning", f"Codex does not say whether it runs our hooks: {status.problem}", fix
        )
    if status.untrusted:
        text = f"Codex skips our hooks at {', '.join(dict.fromkeys(status.untrusted))}, which it was not told to trust"
        if status.lost:
            reasons = " and ".join(dict.fromkeys(status.reasons.values()))
            text = f"Codex trusts our hooks no more at {', '.join(status.lost)}: {reasons}"
        return Finding("codex-untrusted", "error", text, codex_status.GRANT)
    if status.disabled:
        text = f"our hooks at {', '.join(dict.fromkeys(status.disabled))} are switched off in Codex"
        return Finding("codex-hooks-disabled", "warning", text, "/hooks in codex switches them on again")
    if not status.trusted:
        text = f"Codex loads no hook of ours from {status.path}"
        return Finding("codex-loads-none", "error", text, "mend what is named above, then run instar-migrate doctor")
    return ok("codex-trust", f"Codex trusts our hooks at {', '.join(dict.fromkeys(status.trusted))}")


def check_daemon(examined: Examined) -> Iterator[Finding]:
    """Yield whether interactive sessions of Codex share one background process."""
    if "codex" not in examined.project.clients or find_codex(examined.environ) is None:
        return
    homes = [file for file in examined.settings if file.client == "codex" and file.place.suffix == ".toml"]
    if any(file.get("features", "daemon_auto_start") is False for file in homes):
        yield ok("codex-daemon", "each interactive session of Codex is a process of its own")
        return
    text = "interactive sessions of Codex share one background process: a build is owned by its session id alone"
    fix = f"put daemon_auto_start = false below [features] in {codex_config.home(examined.environ) / 'config.toml'}"
    yield Finding("codex-daemon", "warning", text, fix)
