"""How many requests are worked on at once, and in which threads: the event loop itself never waits for any."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

EVALUATIONS: Final = 56
OTHERS: Final = 8
WAIT_S: Final = 10.0

_Result = TypeVar("_Result")


class Shed(Exception):  # noqa: N818 - no error: what was asked for was too much
    """There was no place in time."""


class JobError(Exception):
    """A job failed; the cause says how."""


class Lane:
    """So many requests at a time, each with a thread of its own; the others wait for a place, and not for ever."""

    def __init__(self, name: str, places: int) -> None:
        self._pool = ThreadPoolExecutor(places, thread_name_prefix=name)
        self._free = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place till the end of the block. Raise Shed when none was free in time."""
        try:
            await asyncio.wait_for(self._free.acquire(), WAIT_S)
        except asyncio.TimeoutError:
            raise Shed from None
        try:
            yield
        finally:
            self._free.release()

    async def run(self, job: Callable[[], _Result]) -> _Result:
        """Run a job in a thread. Raise JobError for whatever it raises: nothing of it may end the event loop."""

        def contained() -> _Result:
            try:
                return job()
            except BaseException as error:
                raise JobError(type(error).__name__) from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, contained)

    def close(self) -> None:
        """Wait for the jobs that run."""
        self._pool.shutdown(wait=True, cancel_futures=True)
