"""One process at a time: locks that are files. Whoever dies lets go of them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from instar.errors import InstarError
from instar.files import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class BusyError(InstarError):
    """Another process has the lock; it may be free soon."""


@contextmanager
def alone(place: Path, seconds: float, busy: str = "") -> Iterator[None]:
    """Hold the lock that is a file; its folder is made where it is missing.

    Raise BusyError after so many seconds, which says `busy` if that is given, and InstarError where nobody could lock
    it.
    """
    lock = FileLock(place, timeout=seconds, mode=0o600)
    try:
        private_folder(place.parent)
        lock.acquire()
    except Timeout as error:
        raise BusyError(busy or f"{place} was held by another process for {seconds:g} s") from error
    except OSError as error:
        raise InstarError(f"{place.parent} cannot be locked: {error.strerror}") from error
    try:
        yield
    finally:
        let_go(lock)


def let_go(lock: FileLock) -> None:
    """Release a lock. Where that fails even twice, the end of the process does it: what was done under it is done."""
    for _ in range(2):
        with suppress(OSError):
            lock.release()
            break
