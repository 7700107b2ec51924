"""The processes that records stamp: whether one is still the same."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import psutil

Liveness = Literal["alive", "dead", "unknown"]

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_TICKS_OFF: Final = 1  # by which the rounding of a start time may be off


def liveness(agent: object) -> Liveness:
    """Return whether the stamped process lives: `{pid, start, boot}`, as the hooks write it.

    `start` is in clock ticks since boot where there is a /proc, else the date that `ps -o lstart` prints. "unknown"
    stands for no stamp, one that is none, and a process that may not be looked at: nothing follows from it.
    """
    if not isinstance(agent, dict) or not isinstance(agent.get("pid"), int) or not isinstance(agent.get("start"), str):
        return "unknown"
    if agent.get("boot", "") != _boot():
        return "dead"
    try:
        process = psutil.Process(agent["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return "dead"
        return "alive" if _is_start(process.create_time(), agent["start"]) else "dead"
    except psutil.NoSuchProcess:
        return "dead"
    except (psutil.Error, ValueError, OverflowError):
        return "unknown"


def memory(agent: dict[str, Any]) -> int | None:
    """Return the resident memory in bytes of a process that lives, with all below it; None when it cannot be told."""
    try:
        process = psutil.Process(agent["pid"])
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except (psutil.Error, OSError):
        return None


def _boot() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_start(created: float, stamped: str) -> bool:
    """Say whether a creation time, in seconds since 1970, is the stamped start. Raise ValueError for no start."""
    if stamped.isdecimal():
        ticks = (created - psutil.boot_time()) * os.sysconf("SC_CLK_TCK")
        return abs(ticks - int(stamped)) <= _TICKS_OFF
    started = datetime.strptime(stamped, "%a %b %d %H:%M:%S %Y")  # noqa: DTZ007 - `ps` prints local time
    return abs(created - started.timestamp()) < 1
