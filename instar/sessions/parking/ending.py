"""Ending a process for certain, and none but that: it is held before it is known to be the one, and then signalled.

On Linux by a pidfd, which means one process for ever; elsewhere psutil looks at the start right before each signal.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import psutil

from instar.sessions.machine.processes import liveness, read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Self

    from instar.sessions.machine.processes import Process, Table

Stamp = dict[str, Any]
State = Literal["dead", "alive", "unknown"]

POLL_S: Final = 0.05
_HOSTS: Final = ("tmux", "screen", "zellij", "dtach", "abduco")  # below them live terminals of their own


class GoneError(Exception):
    """The process that was meant is not there; another may have its number."""


class UntoldError(Exception):
    """It cannot be told whether the process is the one that is meant, or it may not be signalled."""


@dataclass(frozen=True)
class Graces:
    """How long is waited after a TERM, after a KILL, and after the TERM of a helper, in seconds."""

    term_s: float = 5
    kill_s: float = 5
    helper_s: float = 2


class Held:
    """One process, that no later one with its number can be mistaken for. For `with`.

    `look` tells, as `liveness` does, whether the process with this number is the one that is meant.
    """

    def __init__(self, pid: int, look: Callable[[], str]) -> None:
        """Hold the process. Raise GoneError or UntoldError."""
        self.pid = pid
        self._look = look
        self._fd = _pidfd(pid)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this very process. Raise GoneError or UntoldError, with nothing sent."""
        try:
            if self._fd is not None:
                signal.pidfd_send_signal(self._fd, number)
            else:
                self._check()
                psutil.Process(self.pid).send_signal(number)
        except (ProcessLookupError, psutil.NoSuchProcess) as error:
            raise GoneError from error
        except (OSError, psutil.Error) as error:
            raise UntoldError(f"process {self.pid} may not be signalled") from error

    def wait(self, seconds: float) -> State:
        """Return what has become of it, after so many seconds at most."""
        if self._fd is not None:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            return "dead" if poll.poll(max(0, int(seconds * 1000))) else "alive"
        deadline = time.monotonic() + seconds
        while (state := _STATES.get(self._look(), "unknown")) != "dead" and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return state

    def _check(self) -> None:
        state = self._look()
        if state == "dead":
            raise GoneError
        if state != "alive":
            raise UntoldError(f"process {self.pid} cannot be looked at")


_STATES: Final[dict[str, State]] = {"dead": "dead", "alive": "alive"}


def hold(agent: Stamp) -> Held:
    """Hold a stamped process. Raise GoneError or UntoldError."""
    pid = agent.get("pid")
    if not isinstance(pid, int) or pid <= 1:
        raise UntoldError("the record names no process")
    return Held(pid, lambda: liveness(agent))


def finish(held: Held, graces: Graces) -> tuple[State, bool]:
    """Return what became of a process that was sent TERM, and whether it took a KILL."""
    if (state := held.wait(graces.term_s)) == "dead":
        return state, False
    try:
        held.signal(signal.SIGKILL)
    except GoneError:
        return "dead", False
    except UntoldError:
        return held.wait(0), False
    return held.wait(graces.kill_s), True


def helpers(agent: Stamp) -> list[Stamp]:
    """Return the stamps of the processes below an agent that end with it: all but those with a terminal of their own.

    A pane's shell is somebody's place to work, whoever started it; what keeps it, and what runs in it, is left, too.
    """
    try:
        table = read_table()
    except (psutil.Error, OSError):
        return []  # who they are cannot be told
    process = table.stamped(agent)
    below = table.below(process.pid) if process else []
    places = {each.pid for each in below if process and _is_place(each, process.terminal)}
    kept = {pid for place in places for pid in _with_all_above(table, place)}
    return [
        {"pid": each.pid, "start": each.start, "boot": agent.get("boot", "")}
        for each in below
        if each.pid not in kept and not places & _with_all_above(table, each.pid)
    ]


def end_helpers(seen: Iterable[Stamp], graces: Graces) -> None:
    """End those of the processes that outlived their agent."""
    with ExitStack() as stack:
        told = []
        for stamp in seen:
            with suppress(GoneError, UntoldError):
                held = stack.enter_context(hold(stamp))
                held.signal(signal.SIGTERM)
                told.append(held)
        deadline = time.monotonic() + graces.helper_s
        for held in told:
            if held.wait(deadline - time.monotonic()) != "dead":
                with suppress(GoneError, UntoldError):
                    held.signal(signal.SIGKILL)


def _pidfd(pid: int) -> int | None:
    """Return a pidfd; None where the system has none to give. Raise GoneError."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError as error:
        raise GoneError from error
    except (OSError, AttributeError):
        return None


def _is_place(process: Process, terminal: str | None) -> bool:
    return process.terminal not in (None, terminal) or process.name.startswith(_HOSTS)


def _with_all_above(table: Table, pid: int) -> set[int]:
    return {pid, *(process.pid for process in table.above(pid))}
