"""Waiting for a condition, with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

POLL_INTERVAL_S = 0.05


class DeadlineError(AssertionError):
    """What was waited for did not happen in time."""


def wait_until(look: Callable[[], T | None], what: str, *, timeout_s: float = 30.0, seen: Callable[[], str] = str) -> T:
    """Return the first true value of ``look()``.

    Raises DeadlineError after ``timeout_s``; its text names ``what`` and shows ``seen()``, the state at that moment.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := look()):
        if time.monotonic() > deadline:
            raise DeadlineError(f"not within {timeout_s:g} s: {what}\n{seen()}")
        time.sleep(POLL_INTERVAL_S)
    return value
