"""Fire every registered command of ours as its client would, and the hook files themselves."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from migrator.changes import Change
from migrator.doctor.answers import Complaint, complaint
from migrator.doctor.events import payload
from migrator.doctor.findings import MIGRATE, Examined, Finding, ok
from migrator.doctor.interpreter import is_ours
from migrator.doctor.programs import DetachError, Job, run_detached
from migrator.manifest import HOOKS_FOLDER
from migrator.registration import CLIENTS, EVENTS, Client
from migrator.steps import client_hooks, hook_files, in_git

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.doctor.programs import Ran

SECONDS_AT_MOST: Final = 10.0
NAMES: Final[dict[Client, str]] = {"claude": "Claude Code", "codex": "Codex"}

# What tells a hook the session or the pane that it runs in, and our own switches.
_AMBIENT: Final = ("CLAUDE", "CODEX", "TMUX", "AI_AGENT", "INSTAR")


class Shot(NamedTuple):
    """A hook to be fired once."""

    client: Client
    event: str
    what: str  # for a person
    job: Job
    is_bare: bool = False  # the hook file by itself, without the launcher that hides what it dies of


def check(examined: Examined) -> Iterator[Finding]:
    """Yield what is wrong with the answers, grouped by what is wrong; no build is held and no session recorded."""
    if text := in_git.told(examined.root):  # a repository that brings hooks along is not run for being looked at
        yield Finding("not-fired", "warning", f"the hooks were not fired: {text}", in_git.FIX)
        return
    if not is_ours(examined.root):
        yield Finding("not-fired", "warning", "the hooks were not fired, for want of an interpreter to trust", MIGRATE)
        return
    shots = [*_registered(examined), *_hook_files(examined)]
    try:
        with _logs_kept(examined.root / ".instar/logs"):
            outcomes = run_detached([shot.job for shot in shots])
    except DetachError as error:
        fix = "run instar-migrate doctor from a terminal of your own"
        yield Finding("not-fired", "warning", f"the hooks were not fired: {error}", fix)
        return
    complaints: dict[tuple[str, Complaint], list[str]] = {}
    for shot, ran in zip(shots, outcomes, strict=True):
        found = complaint(shot.event, ran, shot.job.seconds, is_bare=shot.is_bare)
        if found:
            complaints.setdefault((shot.what, found), []).append(shot.event)
    advice: dict[str, Any] = _advice(examined) if complaints else {}
    for (what, found), events in complaints.items():
        text = f"{what}, fired at {', '.join(events)}, {found.words}"
        yield Finding(found.code, found.level, text, **advice)
    if shots and not complaints:
        yield ok("hooks-fired", _praise(shots, outcomes))


def _registered(examined: Examined) -> Iterator[Shot]:
    """Yield each registered command of ours, exactly as it stands in the file."""
    for file in examined.settings:
        for handler in file.handlers():
            if handler.role and handler.event in EVENTS:
                arguments = [_shell(file.client), "-c", handler.command]
                job = _job(examined, file.client, handler.event, arguments, handler.entry.get("timeout"))
                yield Shot(file.client, handler.event, f"{handler.role} in {file.name}", job)


def _hook_files(examined: Examined) -> Iterator[Shot]:
    """Yield each hook file once: the launcher starts it only where there is something to do."""
    python = examined.root / hook_files.PYTHON
    interpreter = str(python) if os.access(python, os.X_OK) else shutil.which("python3")
    events = {role: event for event, roles in reversed(EVENTS.items()) for role, _ in roles}
    for role, event in events.items():
        path = f"{HOOKS_FOLDER}/{role}.py"
        if interpreter and (examined.root / path).is_file():
            arguments = [interpreter, "-I", "-S", str(examined.root / path)]
            yield Shot("claude", event, path, _job(examined, "claude", event, arguments, None), is_bare=True)


def _job(examined: Examined, client: Client, event: str, arguments: list[str], timeout: object) -> Job:
    root = str(examined.root)
    env = {name: value for name, value in examined.environ.items() if not name.startswith(_AMBIENT)}
    env |= {"PWD": root, "INSTAR_DOCTOR": "1"}
    if client == "claude":
        env |= {"CLAUDE_PROJECT_DIR": root, "CLAUDECODE": "1"}
    allowed = timeout if isinstance(timeout, (int, float)) and timeout > 0 else SECONDS_AT_MOST
    seconds = min(float(allowed), SECONDS_AT_MOST)
    return Job(arguments, root, env, seconds, payload(client, event, root))


def _shell(client: Client) -> str:
    """Return the shell that a client runs hooks with; Codex's is the login shell of the account, mostly bash."""
    return "/bin/bash" if client == "codex" and Path("/bin/bash").exists() else "/bin/sh"


def _advice(examined: Examined) -> dict[str, Any]:
    """Return how to mend hooks that answer wrongly: what is edited is put back first."""
    steps = (*hook_files.install(examined.project), *client_hooks.install(examined.project))
    if any(isinstance(each, Change) for each in steps):
        return {"fix": f"{MIGRATE}, which puts our hooks back as shipped", "is_mended_by_migrating": True}
    return {"fix": "all of ours is as shipped: see .instar/logs, the disk, and what .instar/state/python leads to"}


def _praise(shots: list[Shot], outcomes: list[Ran]) -> str:
    commands = [shot for shot in shots if not shot.is_bare]
    clients = " and ".join(NAMES[client] for client in CLIENTS if any(shot.client == client for shot in commands))
    within = max(ran.seconds for ran in outcomes) * 1000
    count = f"{len(commands)} registered commands and {len(shots) - len(commands)} hook files"
    return f"{count} answer as {clients} may expect, fired all at once within {within:.0f} ms"


@contextmanager
def _logs_kept(logs: Path) -> Iterator[None]:
    """Put back what hooks died of before, and when the person was told: the launcher empties these at each start."""
    before = _read_marks(logs)
    yield
    for place, content in _read_marks(logs).items():
        if place not in before:
            place.unlink(missing_ok=True)
        elif content != before[place]:
            place.write_bytes(before[place])


def _read_marks(logs: Path) -> dict[Path, bytes]:
    places = [*logs.glob("*.err"), *logs.glob(".told-*")]
    return {place: place.read_bytes() for place in places if place.is_file() and not place.is_symlink()}
