"""The time, as it is written into files."""

from __future__ import annotations

import time


def now_iso() -> str:
    """Return the time as ISO 8601 in UTC with microseconds, as Python's isoformat writes it."""
    return iso(time.time())


def iso(seconds: float) -> str:
    """Return a time, given in seconds since 1970, in that form."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06d}+00:00"
