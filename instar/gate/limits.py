"""How many stops are judged: an hour of one session, a day of all, and at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUR_S: Final = 3600.0
DAY_S: Final = 86400.0


class Limited(Exception):  # noqa: N818 - it is no error: the stop is let go
    """A stop is not judged: "rateLimit" when there were enough, "shed" when too many are being judged just now."""

    def __init__(self, kind: Literal["rateLimit", "shed"]) -> None:
        super().__init__(kind)
        self.kind: Literal["rateLimit", "shed"] = kind


class Limits:
    """Slots to judge stops in, for any number of threads.

    `clock` tells seconds and may be set back: then no time has passed, and nobody waits longer than before. What was
    shed does not count as judged.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the numbers of the configuration
        self,
        per_session_hour: int = 10,
        per_agent_day: int = 200,
        in_flight: int = 8,
        in_flight_session: int = 2,
        wait_s: float = 0.9,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_session_hour = per_session_hour
        self._per_agent_day = per_agent_day
        self._in_flight = in_flight
        self._in_flight_session = in_flight_session
        self._wait_s = wait_s
        self._clock = clock
        self._last_told = clock()
        self._now = 0.0
        self._freed = threading.Condition()
        self._day: deque[float] = deque()
        self._hours: dict[str, deque[float]] = {}
        self._running: dict[str, int] = {}

    @contextmanager
    def slot(self, session: str) -> Iterator[None]:
        """Hold one slot for a session. Raise Limited, at once where there were enough, else after a short wait."""
        self._take(session)
        try:
            yield
        finally:
            with self._freed:
                self._running[session] -= 1
                if not self._running[session]:
                    del self._running[session]
                self._freed.notify_all()

    def _take(self, session: str) -> None:
        with self._freed:
            self._refuse_too_many(session)
            if not self._freed.wait_for(lambda: self._has_room(session), self._wait_s):
                raise Limited("shed")
            self._refuse_too_many(session)  # others may have been let in meanwhile
            self._day.append(self._now)
            self._hours.setdefault(session, deque()).append(self._now)
            self._running[session] = self._running.get(session, 0) + 1

    def _has_room(self, session: str) -> bool:
        is_free = sum(self._running.values()) < self._in_flight
        return is_free and self._running.get(session, 0) < self._in_flight_session

    def _refuse_too_many(self, session: str) -> None:
        self._forget_old()
        if len(self._day) >= self._per_agent_day or len(self._hours.get(session, ())) >= self._per_session_hour:
            raise Limited("rateLimit")

    def _forget_old(self) -> None:
        told = self._clock()
        self._now += max(0.0, told - self._last_told)
        self._last_told = told
        while self._day and self._day[0] <= self._now - DAY_S:
            self._day.popleft()
        for session, times in list(self._hours.items()):
            while times and times[0] <= self._now - HOUR_S:
                times.popleft()
            if not times:
                del self._hours[session]
