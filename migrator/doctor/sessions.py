"""The sessions and their reaper: whether what is switched on can do its work, and what was left behind."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from instar.config import PATH, effective, load, problems
from instar.errors import InstarError
from migrator.doctor import server
from migrator.doctor.findings import Examined, Finding, ok
from migrator.plain import plain_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDS: Final = ".instar/state/sessions"
LIFECYCLE: Final = ".instar/state/lifecycle"
SWITCH: Final = ".instar/state/session-reaper-mode.json"
STATE: Final = ".instar/state/session-reaper.json"
EVENTS: Final = ".instar/logs/sentinel-events.jsonl"
INTENT: Final = ".idle-reaped.pending"
_HOUR_S: Final = 3600.0
_DAY_S: Final = 24 * _HOUR_S
_BYTES: Final = 64 * 2**20
_TAIL: Final = 2**20
_BLOCKS: Final = ('key "monitoring', 'key "sessions')
_ENABLE: Final = "instar-sessions reaper enable"
_STARVED: Final = "instar-sessions explain ID tells what that gate sees, reaper selftest tries a harmless session"
_DISABLE: Final = "instar-sessions reaper disable"


def check(examined: Examined) -> Iterator[Finding]:
    """Yield what keeps the reaper from what it was switched on for, and what parking left behind."""
    found = [*_reaper(examined), *_tmux(examined), *_leftovers(examined)]
    yield from found
    if not found:
        mode = _mode(examined)
        words = f"on ({mode})" if mode in ("dry-run", "live") else "off"
        yield ok("sessions", f"the session reaper is {words}, and parking left nothing behind")


def _reaper(examined: Examined) -> Iterator[Finding]:
    switch = _object(examined.root / SWITCH)
    if switch is None:
        text = f"{SWITCH} cannot be used: the session reaper is off, whatever it said"
        yield Finding("reaper-switch-broken", "warning", text, f"{_ENABLE}, or {_DISABLE}: both write it anew")
        return
    disabled = switch.get("autoDisabled")
    if disabled is not None:
        cause = disabled.get("cause") if isinstance(disabled, dict) else disabled
        text = f"the session reaper has stopped itself, and parks nobody: {plain_line(cause)}"
        yield Finding("reaper-stopped-itself", "warning", text, f"{_ENABLE} goes on, once that is understood")
    mode = _mode(examined)
    if mode not in ("dry-run", "live"):
        return
    yield from _ticks(examined, mode)
    yield from _starving(examined)
    faults = _faults(examined)
    if mode == "live" and faults:
        text = f"the session reaper parks nobody as long as {PATH} has a fault: {faults[0]}"
        yield Finding("reaper-config", "warning", text, f"mend it in {PATH}")


def _mode(examined: Examined) -> str:
    """Return the mode that holds; "" where a file that says so is none."""
    try:
        reaper = effective(load(examined.root))["monitoring"]["sessionReaper"]
    except InstarError:
        return ""
    switch = _object(examined.root / SWITCH)
    configured = "off" if not reaper["enabled"] else "dry-run" if reaper["dryRun"] else "live"
    return "" if switch is None else str(switch.get("mode") or configured)


def _faults(examined: Examined) -> list[str]:
    try:
        return [each for each in problems(load(examined.root)) if each.startswith(_BLOCKS)]
    except InstarError:
        return []


def _ticks(examined: Examined, mode: str) -> Iterator[Finding]:
    """Yield that nobody looks: no server runs, and the last look is a day old."""
    if server.runs(examined.root):
        return
    at = (_object(examined.root / STATE) or {}).get("at")
    wall = at.get("wall") if isinstance(at, dict) else None
    if isinstance(wall, (int, float)) and time.time() - wall < _DAY_S:
        return
    text = f"the session reaper is on ({mode}), no server runs, and nobody looked at the sessions for a day"
    yield Finding("reaper-without-server", "warning", text, f"instar-server start, or {_DISABLE}")


def _starving(examined: Examined) -> Iterator[Finding]:
    """Yield the newest word of the last day that the reaper can park nobody, ever."""
    for row in reversed(_rows(examined.root / EVENTS)):
        at = _epoch(row.get("ts"))
        if at is None or time.time() - at > _DAY_S:
            return
        if row.get("event") == "reaper-starved":
            by = row.get("keptBy")
            gate = f" ({plain_line(by)})" if by else ""
            text = f"the session reaper starves: {plain_line(row.get('why'))}{gate}"
            yield Finding("reaper-starved", "warning", text, _STARVED)
            return


def _tmux(examined: Examined) -> Iterator[Finding]:
    """Yield that panes are on record which nobody can look at."""
    if shutil.which("tmux", path=examined.environ.get("PATH", "")):
        return
    records = (_object(place) for place in (examined.root / RECORDS).glob("*.json"))
    count = sum(
        bool(each and each.get("status") == "running" and isinstance(each.get("tmux"), dict)) for each in records
    )
    if count:
        text = f"tmux is not on PATH, and {count} running session{'' if count == 1 else 's'} have a pane on record"
        fix = "put tmux on PATH: without it no screen is seen, and no such session is parked"
        yield Finding("tmux-missing", "warning", text, fix)


def _leftovers(examined: Examined) -> Iterator[Finding]:
    """Yield leases that keep nothing any more, and parkings that broke off."""
    records, now = examined.root / RECORDS, time.time()
    junk = [
        place
        for folder in records.glob("*.leases")
        for place in folder.glob("[a-z]*")
        if not (records / f"{folder.stem}.json").exists() or _is_long_over(place, now)
    ]
    if junk:
        text = f"leases that keep nothing any more: {examined.listed(junk)}"
        yield Finding("stale-leases", "warning", text, "delete them: nothing reads them any more")
    broken = [
        place for place in (examined.root / LIFECYCLE).glob(f"*{INTENT}") if now - place.stat().st_mtime > _HOUR_S
    ]
    if broken:
        text = f"a parking broke off, and nobody has settled it since: {examined.listed(broken)}"
        fix = "instar-sessions terminate ID --reason TEXT settles it; so does a look of a reaper that is live"
        yield Finding("parking-broken-off", "warning", text, fix)


def _is_long_over(place: Path, now: float) -> bool:
    """Say whether a lease expired more than a day ago."""
    expires = _epoch((_object(place) or {}).get("expiresAt"))
    return expires is not None and now - expires > _DAY_S


def _object(place: Path) -> dict[str, Any] | None:
    """Return the object that a file holds, {} where there is none; None where it cannot be used."""
    if not place.exists():
        return {}
    try:
        with place.open("rb") as file:
            found = json.loads(file.read(_BYTES)) if place.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _rows(place: Path) -> list[dict[str, Any]]:
    """Return the rows at the end of a file of rows."""
    if not place.is_file():
        return []
    with place.open("rb") as file:
        file.seek(max(0, place.stat().st_size - _TAIL))
        lines = file.read(_TAIL).splitlines()
    return [row for line in lines if (row := _parsed(line)) is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _epoch(text: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
