"""The processes of this machine at one moment, and whether one that a record stamps is still the same."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import psutil

from instar.sessions.clock import boot_id
from instar.sessions.machine.process import READER, Process, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Liveness", "Process", "Table", "liveness", "memory", "read_table"]

Liveness = Literal["alive", "dead", "unknown"]

# In what the clients, and the session event hook, tell the programs of a session its id.
SESSION_VARIABLES: Final = ("INSTAR_SESSION_ID", "CLAUDE_CODE_SESSION_ID", "CODEX_SESSION_ID", "CODEX_THREAD_ID")

_LISTINGS: Final = 3


class Table:
    """All processes of one moment: `taken_at`, in seconds of the monotonic clock."""

    def __init__(
        self, taken_at: float, processes: Iterable[Process], hidden: Iterable[int] = (), reader: Reader = READER
    ) -> None:
        """Hold what was read; `hidden` are the ids of processes that may not be looked at."""
        self.taken_at = taken_at
        self._found = {process.pid: process for process in processes}
        self._hidden = frozenset(hidden)
        self._reader = reader
        self._boot = boot_id()

    def __iter__(self) -> Iterator[Process]:
        return iter(self._found.values())

    def get(self, pid: int) -> Process | None:
        """Return the process with this id, a zombie too; None where there is none, or it may not be looked at."""
        return self._found.get(pid)

    def stamped(self, agent: object) -> Process | None:
        """Return the process of a stamp, `{pid, start, boot}`, where it is proven to live."""
        return _identified(agent, self._boot, self._look)[1]

    def liveness(self, agent: object) -> Liveness:
        """Return whether the stamped process lives, as `liveness` of this module does."""
        return _identified(agent, self._boot, self._look)[0]

    def below(self, pid: int) -> list[Process]:
        """Return what a process started, and what that started, without itself; parents come before their children."""
        found: list[Process] = []
        seen, waiting = {pid}, [pid]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child.pid not in seen:
                    seen.add(child.pid)
                    found.append(child)
                    waiting.append(child.pid)
        return found

    def above(self, pid: int) -> list[Process]:
        """Return the processes that a process is below, the nearest first."""
        found: list[Process] = []
        process = self.get(pid)
        while process and (parent := self.get(process.parent)) and parent not in found and parent.pid != pid:
            found.append(parent)
            process = parent
        return found

    def on_terminal(self, terminal: str) -> list[Process]:
        """Return what has this terminal for its controlling one: a path, as tmux names it."""
        return [process for process in self if process.terminal == terminal]

    def carrying(self, session_id: str) -> list[Process]:
        """Return this user's processes whose environment tells the id of a session, zombies left out.

        What was told at its start counts. A process that hides its environment, as `ssh-agent` does, carries none.
        """
        return self._carriers.get(session_id, [])

    def _look(self, pid: int) -> Process | None:
        if pid in self._hidden:
            raise PermissionError(f"process {pid} may not be looked at")
        return self.get(pid)

    @cached_property
    def _children(self) -> dict[int, list[Process]]:
        children = defaultdict(list)
        for process in self:
            children[process.parent].append(process)
        return children

    @cached_property
    def _carriers(self) -> dict[str, list[Process]]:
        """Read every environment once, for all sessions."""
        carriers = defaultdict(list)
        me = os.geteuid()
        for process in self:
            if process.uid == me and not process.is_zombie:
                environment = self._reader.environment(process)
                for session_id in {environment.get(name, "") for name in SESSION_VARIABLES} - {""}:
                    carriers[session_id].append(process)
        return dict(carriers)


def read_table(monotonic: Callable[[], float] = time.monotonic, reader: Reader = READER) -> Table:
    """Read the process table. Raise OSError or psutil.Error only where it cannot be read at all."""
    taken_at = monotonic()
    found: list[Process] = []
    hidden: set[int] = set()
    seen: set[int] = set()
    # A process may start another one and end before its turn comes: who came meanwhile is read as well.
    for _ in range(_LISTINGS):
        new = set(reader.pids()) - seen
        for pid in sorted(new):
            try:
                process = reader.look(pid)
            except PermissionError:  # noqa: PERF203 - one that hides does not hide the rest
                hidden.add(pid)
            else:
                found += [process] if process else []
        seen |= new
        if not new:
            break
    return Table(taken_at, found, hidden, reader)


def liveness(agent: object) -> Liveness:
    """Return whether the stamped process lives: `{pid, start, boot}`, as the hooks write it.

    `start` is in clock ticks since boot where there is a /proc, else the date that `ps -o lstart` prints. "unknown"
    stands for no stamp, one that is none, and a process that may not be looked at: nothing follows from it.
    """
    return _identified(agent, boot_id(), READER.look)[0]


def memory(agent: object) -> int | None:
    """Return the resident memory in bytes of a process that lives, with all below it; None when it cannot be told."""
    try:
        table = read_table()
    except (psutil.Error, OSError):
        return None
    process = table.stamped(agent)
    return sum(each.memory for each in (process, *table.below(process.pid))) if process else None


def _identified(agent: object, boot: str, look: Callable[[int], Process | None]) -> tuple[Liveness, Process | None]:
    """Return whether the stamped process lives, and the process where it does."""
    if not isinstance(agent, dict):
        return "unknown", None
    stamp: dict[str, Any] = agent
    pid, start = stamp.get("pid"), stamp.get("start")
    if not isinstance(pid, int) or isinstance(pid, bool) or not isinstance(start, str):
        return "unknown", None
    if stamp.get("boot", "") != boot:
        return "dead", None
    try:
        process = look(pid)
        lives = process is not None and not process.is_zombie and process.started_at(start)
    except (OSError, psutil.Error, ValueError, OverflowError):
        return "unknown", None
    return ("alive", process) if lives else ("dead", None)
