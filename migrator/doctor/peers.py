"""The peers: whether each can be woken, whether somebody looks after them, and what a wake that broke off left."""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

from instar.config import PATH, effective, load
from instar.errors import InstarError
from migrator.doctor import server
from migrator.doctor.findings import Examined, Finding, ok
from migrator.plain import plain_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGENTS: Final = ".instar/agents"
LIFECYCLE: Final = ".instar/state/lifecycle"
PROGRAMS: Final = {"claude-code": "claude", "codex-cli": "codex"}
LEFT: Final = (".idle-reaped.inuse", ".session.reaping")  # while a wake, or the end of a session, is under way
_HOUR_S: Final = 3600.0
_BYTES: Final = 2**20
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def check(examined: Examined) -> Iterator[Finding]:
    """Yield what keeps peers from being woken or looked after, and what was left behind of them."""
    places = [each for each in sorted((examined.root / AGENTS).glob("*.json")) if not each.name.startswith(".")]
    profiles = {place: _profile(place) for place in places}
    sound = {place.stem: values for place, values in profiles.items() if isinstance(values, dict)}
    found = [
        *_broken(examined, profiles), *_missing(examined, sound), *_unattended(examined, sound), *_left(examined),
    ]  # fmt: skip
    yield from found
    if not found:
        count = len(sound)
        words = f"{count} peer{'' if count == 1 else 's'} can be woken" if count else "there are none"
        yield ok("peers", f"{words}, and nothing broke off" if count else words)


def _broken(examined: Examined, profiles: dict[Path, dict[str, Any] | str]) -> Iterator[Finding]:
    for place, why in profiles.items():
        if isinstance(why, str):
            text = f"{plain_line(examined.named(place))} is no profile of a peer: {why}"
            yield Finding("peer-broken", "warning", text, "mend it, or instar-peers remove NAME")


def _missing(examined: Examined, sound: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Yield the programs and folders that peers cannot be started without."""
    for name, values in sound.items():
        env = values.get("launch", {}).get("env", {})
        path = env.get("PATH", examined.environ.get("PATH", ""))
        for runtime in _runtimes(values):
            if not shutil.which(PROGRAMS[runtime], path=path):
                text = f"the peer {name} cannot be woken: {PROGRAMS[runtime]} is not on PATH"
                fix = f"install it, set PATH in launch.env of {AGENTS}/{name}.json, or instar-peers remove {name}"
                yield Finding("peer-program-missing", "warning", text, fix)
        cwd = examined.root / values.get("cwd", ".")
        if not cwd.is_dir():
            text = f"the peer {name} cannot be woken: {plain_line(cwd)} is no folder"
            yield Finding("peer-folder-missing", "warning", text, f"make it, or change cwd in {AGENTS}/{name}.json")
    if sound and not shutil.which("tmux", path=examined.environ.get("PATH", "")):
        yield Finding("peers-without-tmux", "warning", "no peer can be woken: tmux is not on PATH", "install tmux")


def _unattended(examined: Examined, sound: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Yield that peers are to be looked after, and no server runs that does it."""
    try:
        is_enabled = effective(load(examined.root))["lifecycle"]["enabled"]
    except InstarError:  # told by another check
        return
    if sound and is_enabled and not server.runs(examined.root):
        text = "lifecycle.enabled is true, and no server runs: nobody looks after the peers"
        fix = f"instar-server start, now and then instar-peers supervise --once, or set it to false in {PATH}"
        yield Finding("peers-without-server", "warning", text, fix)


def _left(examined: Examined) -> Iterator[Finding]:
    now = time.time()
    places = [
        place
        for end in LEFT
        for place in (examined.root / LIFECYCLE).glob(f"*{end}")
        if now - place.lstat().st_mtime > _HOUR_S
    ]
    if places:
        text = f"a wake or an end broke off, and nobody has settled it since: {examined.listed(places)}"
        yield Finding("peer-broken-off", "warning", text, "instar-peers supervise --once settles it")


def _profile(place: Path) -> dict[str, Any] | str:
    """Return what a profile says, or in words why nothing can be taken from it. What wakes a peer is stricter."""
    if not _NAME.fullmatch(place.stem):
        return "its name is none of a peer"
    if place.is_symlink() or not place.is_file():
        return "it is no file by itself"
    try:
        with place.open("rb") as file:
            values = json.loads(file.read(_BYTES).decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return "it cannot be read" if isinstance(error, OSError) else "it holds no JSON"
    if not isinstance(values, dict) or values.get("name") != place.stem:
        return f'its "name" is not {place.stem}'
    runtimes = _runtimes(values)
    if not runtimes or not all(isinstance(each, str) and each in PROGRAMS for each in runtimes):
        return f'its "runtime" is none of {", ".join(PROGRAMS)}'
    return _shape(values)


def _shape(values: dict[str, Any]) -> dict[str, Any] | str:
    launch = values.get("launch", {})
    env = launch.get("env", {}) if isinstance(launch, dict) else None
    if not isinstance(env, dict) or not all(isinstance(each, str) for each in env.values()):
        return 'its "launch" is none'
    cwd = values.get("cwd", ".")
    return values if isinstance(cwd, str) and cwd and "\0" not in cwd else 'its "cwd" is no path'


def _runtimes(values: dict[str, Any]) -> list[Any]:
    found = values.get("runtimes") or [values.get("runtime")]
    return found if isinstance(found, list) else []
