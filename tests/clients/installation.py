"""The pinned clients, installed once below the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

VERSIONS = {"@anthropic-ai/claude-code": "2.1.197", "@openai/codex": "0.169.0"}
FOLDER = Path(__file__).parents[2] / ".clients"
INSTALL_TIMEOUT_S = 240  # below the time limit of a test


class UnavailableError(Exception):
    """The clients are not there and cannot be installed; the text says why."""


@dataclass(frozen=True)
class InstalledClients:
    """The executables of the pinned versions."""

    claude: Path
    codex: Path


def install(folder: Path = FOLDER) -> InstalledClients:
    """Return the clients in ``folder``, after installing them with npm unless they are there.

    Safe to call from several processes at once. An installation that was cut short is done again: only a complete one
    carries the stamp. Raises UnavailableError when npm is missing or fails.
    """
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not _is_complete(folder):
            _install_anew(folder)
    commands = folder / "node_modules" / ".bin"
    return InstalledClients(claude=commands / "claude", codex=commands / "codex")


def _is_complete(folder: Path) -> bool:
    try:
        stamped: dict[str, str] = json.loads(_stamp(folder).read_text())
        return stamped == VERSIONS == _found_versions(folder)
    except (OSError, ValueError):
        return False


def _found_versions(folder: Path) -> dict[str, str]:
    manifests = {name: folder / "node_modules" / name / "package.json" for name in VERSIONS}
    return {name: json.loads(manifest.read_text())["version"] for name, manifest in manifests.items()}


def _install_anew(folder: Path) -> None:
    _stamp(folder).unlink(missing_ok=True)
    for leftover in ("node_modules", "package.json", "package-lock.json"):
        _remove(folder / leftover)
    _npm_install(folder)
    _remove(folder / "cache")
    _stamp(folder).write_text(json.dumps(VERSIONS))


def _npm_install(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError("npm is missing; the tests with real clients need node and npm")
    packages = [f"{name}@{version}" for name, version in VERSIONS.items()]
    # The suite makes its home unreachable: so npm gets a cache here, and is configured by its environment variables.
    own = {"--userconfig": folder / "npmrc", "--cache": folder / "cache", "--prefix": folder}
    places = [os.fspath(word) for option in own.items() for word in option]
    command = [npm, "install", "--no-audit", "--no-fund", "--save-exact", *places, *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        raise UnavailableError(f"{' '.join(command)} failed with {done.returncode}: {done.stderr.strip()}")


def _stamp(folder: Path) -> Path:
    return folder / "installed.json"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
