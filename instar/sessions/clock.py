"""The clocks of this machine, in one place, so that they can be replaced."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Return what tells this boot of the machine from every other; "" where the system has no such id."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Clock:
    """The clocks that everything here goes by.

    `wall` tells seconds since 1970, and may be set. `monotonic` tells seconds of this boot, the same in every process,
    and stands still while the machine sleeps. `boot` tells this boot from every other.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    boot: Callable[[], str] = boot_id


def iso(epoch_s: float) -> str:
    """Return a moment as the records write it: ISO 8601, UTC, in milliseconds."""
    return datetime.fromtimestamp(epoch_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def epoch(text: object) -> float | None:
    """Return the seconds since 1970 of an ISO 8601 text; None for what is none, or has no zone."""
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment.timestamp() if moment.tzinfo else None
