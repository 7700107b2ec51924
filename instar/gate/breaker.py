"""Sparing an authority that keeps failing: after some failures in a row it is left alone for a while."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Breaker:
    """Lets calls through until `threshold` in a row were of no use; then one, alone, every `cooldown_s` seconds.

    Only a call that was of use closes it again. Whoever was let through settles. A threshold of 0 lets all through.
    `clock` must not go back; `wall` is what times are told in. For any number of threads.
    """

    _failures: int
    _open_until: float | None
    _probe_until: float | None
    _first_opened: float | None
    _suppressed: int

    def __init__(
        self,
        threshold: int = 3,
        cooldown_s: float = 300,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._clock = clock
        self._wall = wall
        self._lock = threading.Lock()
        self._clear()

    def admit(self) -> bool:
        """Say whether a call may be made now."""
        with self._lock:
            if self._open_until is None:
                return True
            now = self._clock()
            # A probe that never settles blocks the next one no longer than a failed one would.
            if now >= self._open_until and (self._probe_until is None or now >= self._probe_until):
                self._probe_until = now + self._cooldown_s
                return True
            self._suppressed += 1
            return False

    def settle(self, *, is_usable: bool) -> None:
        """Take down what a call that was let through led to."""
        with self._lock:
            if self._threshold <= 0:
                return
            is_late = self._open_until is not None and self._probe_until is None
            if is_late:  # a call from before it opened: its end tells nothing of now
                return
            if is_usable:
                self._clear()
                return
            self._failures += 1
            if self._probe_until is not None or self._failures >= self._threshold:
                self._open_until = self._clock() + self._cooldown_s
                self._probe_until = None
                self._first_opened = self._first_opened or self._wall()

    def reset(self) -> None:
        """Close it, whatever happened."""
        with self._lock:
            self._clear()

    def state(self) -> dict[str, Any]:
        """Return the state for people and programs; times are milliseconds since 1970, None where there is none."""
        with self._lock:
            return {
                "open": self._open_until is not None,
                "consecutiveFailures": self._failures,
                "openUntil": self._told(self._open_until),
                "probeLeaseUntil": self._told(self._probe_until),
                "firstOpenedAt": int(self._first_opened * 1000) if self._first_opened else None,
                "suppressedCount": self._suppressed,
            }

    def _told(self, moment: float | None) -> int | None:
        return None if moment is None else int((self._wall() + moment - self._clock()) * 1000)

    def _clear(self) -> None:
        self._failures = 0
        self._open_until = None
        self._probe_until = None
        self._first_opened = None
        self._suppressed = 0
