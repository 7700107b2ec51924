"""What a build leaves behind: copies of finished states, and the audit log."""

from __future__ import annotations

import json
import os
import time

from hooks.common.clock import now_iso
from hooks.common.files import make_folder, replace_file
from hooks.common.trouble import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hooks.common.statefile import Build

    State = dict[str, Any]


def archive(build: Build, state: State) -> str:
    """Write a copy of the state into the history and return its path below the project."""
    history = os.path.join(build.folder, "history")
    make_folder(build.root, history)
    path = copy_of(history, state) or free_name(os.path.join(history, f"build-{utc_stamp()}"), ".json")
    relative = os.path.relpath(path, build.root)
    try:
        replace_file(path, json.dumps({**state, "archivedTo": relative}, indent=2).encode("ascii"))
    except OSError as error:
        raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error
    return relative


def copy_of(history: str, state: State) -> str:
    """Return the copy of this very build that a command made which then failed or was killed; "" for none."""
    for name in os.listdir(history):
        if name.startswith("."):  # a temporary file of theirs
            continue
        path = os.path.join(history, name)
        try:
            with open(path, encoding="utf-8") as file:
                copy = json.load(file)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(copy, dict) and all(copy.get(key) == state.get(key) for key in ("task", "startedAt")):
            return path
    return ""


def free_name(stem: str, ending: str) -> str:
    """Return the first of stem, stem-2, stem-3 ... that no file has."""
    path, number = stem + ending, 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}{ending}"
    return path


def utc_stamp() -> str:
    """Return the time as it stands in file names."""
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def minutes_between(started: object, ended: object) -> float | None:
    """Return the minutes from one ISO time to another, or to now; None when the first is none."""
    from datetime import datetime, timezone

    times = []
    for text in (started, ended or now_iso()):
        try:
            time_read = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            return None
        times.append(time_read if time_read.tzinfo else time_read.replace(tzinfo=timezone.utc))
    return round((times[1] - times[0]).total_seconds() / 60, 1)


def audit_entries(build: Build) -> list[dict[str, Any]]:
    """Return the entries of the audit log, without lines that are torn."""
    try:
        with open(build.audit_path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Trouble("unreadable", f"{build.audit_path} cannot be read: {error.strerror}") from error
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries
