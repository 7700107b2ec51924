"""What was left behind: builds that nobody goes on with, files of killed commands, the traces of hooks that failed."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any, Final

from migrator.doctor.findings import Examined, Finding, broken, ok
from migrator.doctor.programs import look_up
from migrator.registration import EVENTS
from migrator.steps import in_git
from migrator.steps.hook_files import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STATE: Final = ".instar/state/build/build-state.json"
_TERMINAL: Final = ("complete", "failed", "escalated")
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
_DAYS: Final = 7
_READ_AT_MOST: Final = 4096
_STATE_AT_MOST: Final = 2 * 1024 * 1024
_TEMPORARY: Final = (".instar-[0-9]*-*", ".*.[0-9]*.tmp")
_WRITTEN: Final = (
    ".",
    ".instar",
    ".instar/hooks/instar",
    ".instar/state",
    ".instar/state/build",
    ".instar/state/build/history",
    ".instar/state/sessions",
    ".claude",
    ".claude/skills/build",
    ".codex",
)
_GO_ON: Final = "build-state status shows it; build-state adopt goes on with it, build-state cancel ends it"


def check_build(examined: Examined) -> Iterator[Finding]:
    """Yield a build that holds nobody any more, since its owner is gone or it was not touched for a week."""
    place = examined.root / STATE
    try:
        text = _head(place, _STATE_AT_MOST)
        state = json.loads(text)
        if not isinstance(state, dict):
            raise ValueError("it holds no JSON object")  # noqa: TRY004, TRY301 - told like all else that is wrong in it
    except FileNotFoundError:
        yield ok("build", "no build is under way")
        return
    except (OSError, ValueError, RecursionError) as error:
        fix = "mend that file, or set it aside and start anew with build-state init"
        yield Finding("build-state-broken", "error", f"{STATE} cannot be used, so that no build is held: {error}", fix)
        return
    phase, days = state.get("phase"), (time.time() - place.stat().st_mtime) / _DAY_S
    if phase in _TERMINAL:
        yield ok("build", f"the last build is {phase}")
    elif _is_gone(state.get("owner")):
        yield Finding("stale-build", "warning", f"a build stands in {phase}, and its owner's process is gone", _GO_ON)
    elif days > _DAYS:
        yield Finding("stale-build", "warning", f"a build stands in {phase}, untouched for {days:.0f} days", _GO_ON)
    else:
        yield ok("build", f"a build is under way, in {phase}")


def _is_gone(owner: object) -> bool:
    """Say whether the stamped agent process is known to have ended; unknown means it has not."""
    agent: Any = owner.get("agent") if isinstance(owner, dict) else None
    pid = agent.get("pid") if isinstance(agent, dict) else None
    if not isinstance(pid, int) or pid <= 0:
        return False
    if not os.path.exists("/proc/self/stat"):  # noqa: PTH110 - no pathlib for a word
        return not _answers(pid)
    process = look_up(pid)
    return process is None or (process.start, _boot()) != (agent.get("start"), agent.get("boot"))


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - a plain read
        return file.read().strip()


def check_files(examined: Examined) -> Iterator[Finding]:
    """Yield temporary files that no command uses any more, and whether git is kept out of .instar."""
    found = [
        place
        for folder in _WRITTEN
        for pattern in _TEMPORARY
        for place in (examined.root / folder).glob(pattern)
        if time.time() - place.lstat().st_mtime > _HOUR_S
    ]
    if found:
        text = f"left behind by commands that were killed: {examined.listed(found)}"
        yield Finding("leftover-files", "warning", text, "delete them: nothing uses them any more")
    ignore = examined.root / IGNORE
    if text := in_git.told(examined.root):
        yield Finding("in-git", "warning", text, in_git.FIX)
    if not ignore.exists():
        yield broken("gitignore", f"{IGNORE} is not there: git would take builds and logs in", level="warning")
    elif "*" not in _head(ignore).split():
        text = f"{IGNORE} has no line with *: git would take builds and logs in"
        yield Finding("gitignore", "warning", text, f"add a line with * to {IGNORE}")
    elif not found:
        yield ok("files", "no temporary file was left, and git is kept out of .instar")


def check_logs(examined: Examined) -> Iterator[Finding]:
    """Yield what the hooks wrote down: the troubles of the last day, and what one died of."""
    logs, is_quiet = examined.root / ".instar/logs", True
    for role in sorted({role for roles in EVENTS.values() for role, _ in roles}):
        log = logs / f"{role}.log"
        if log.is_file() and time.time() - log.stat().st_mtime < _DAY_S and (lines := _tail(log).splitlines()):
            is_quiet = False
            text = f"{role} had trouble within the last day: {lines[-1]}"
            yield Finding(
                "hook-trouble-logged", "warning", text, f"mend what it names; more is in .instar/logs/{log.name}"
            )
    for errors in sorted(logs.glob("*.err")):
        lines = _head(errors).split("\n") if errors.is_file() else []
        told = [line for line in lines if line.strip() and not line.startswith("Traceback")]
        if told:
            is_quiet = False
            text = f"{errors.stem} wrote to its standard error when it last ran: {told[0].strip()}"
            yield Finding(
                "hook-errors", "warning", text, f"see .instar/logs/{errors.name}; the next run writes it anew"
            )
    if is_quiet:
        yield ok("logs", "no hook had trouble within the last day")


def _head(place: Path, count: int = _READ_AT_MOST) -> str:
    with place.open("rb") as file:
        return file.read(count).decode(errors="replace")


def _tail(place: Path) -> str:
    with place.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _READ_AT_MOST))
        return file.read(_READ_AT_MOST).decode(errors="replace").strip()
