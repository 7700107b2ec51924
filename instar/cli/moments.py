"""Times as people write them on a command line, and as they read them."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from click import Context, Parameter

_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])")
_MILLISECONDS: Final = re.compile(r"[0-9]{12,14}")


def duration_ms(text: str) -> int | None:
    """Return how long `30m`, `12h`, `7d` is, in milliseconds; None for what is no such text."""
    found = _DURATION.fullmatch(text.strip())
    return int(found[1]) * _UNITS_MS[found[2]] if found else None


def moment_ms(text: str, now: int) -> int | None:
    """Return a time in milliseconds since 1970: one given so, an ISO 8601 one, or how long ago. None for none."""
    ago = duration_ms(text)
    if ago is not None:
        return max(0, now - ago)
    if _MILLISECONDS.fullmatch(text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
        return int(moment.timestamp() * 1000)  # of a time without a zone: the local one
    except (ValueError, OverflowError, OSError):
        return None


def told(ms: object) -> str:
    """Return a time in milliseconds as people here read it; "-" for what is none."""
    if not isinstance(ms, int):
        return "-"
    try:
        return datetime.fromtimestamp(ms / 1000, timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def span(seconds: object) -> str:
    """Return a length of time in its largest unit; "-" for what is none."""
    if not isinstance(seconds, (int, float)):
        return "-"
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def now_ms() -> int:
    """Return the time, as rows have it."""
    return int(time.time() * 1000)


def duration_option(_context: Context, _parameter: Parameter, text: str | None) -> int | None:
    """Return the value of an option that takes a duration. Raise click.BadParameter."""
    found = duration_ms(text) if text is not None else None
    if text is not None and found is None:
        raise click.BadParameter(f"{text!r} is no time like 30m, 12h or 7d")
    return found


def moment_option(_context: Context, _parameter: Parameter, text: str | None) -> int | None:
    """Return the value of an option that takes a time. Raise click.BadParameter."""
    found = moment_ms(text, now_ms()) if text is not None else None
    if text is not None and found is None:
        raise click.BadParameter(f"{text!r} is no time: say 7d, 2026-01-31T12:00 or milliseconds since 1970")
    return found
