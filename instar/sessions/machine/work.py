"""Whether a session works, as far as processes show it: what runs for it, other than helpers that wait."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.machine.programs import CLIENTS, SHELLS, is_helper, program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from instar.sessions.machine.processes import Process, Table
    from instar.sessions.machine.tmux import Pane

_CLOCKS_OFF_S: Final = 1.0  # by which the clock that stamped a prompt and the one that dates a process may differ
_LEAST_S: Final = 0.02  # the system counts in hundredths: less than that cannot be told from nothing


@dataclass(frozen=True)
class CpuMarks:
    """What processes had used at `at`, in seconds of the monotonic clock: the start and the seconds, by their ids."""

    at: float
    used: Mapping[int, tuple[str, float]]

    def as_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return {"at": self.at, "used": {str(pid): list(mark) for pid, mark in self.used.items()}}

    @staticmethod
    def from_json(value: object) -> CpuMarks | None:
        """Return what `as_json` made; None where it is none of that."""
        try:
            used = {int(pid): (str(start), float(cpu_s)) for pid, (start, cpu_s) in value["used"].items()}  # type: ignore[index]  # what else it is shows as an error
            return CpuMarks(float(value["at"]), used)  # type: ignore[index]
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError):
            return None


@dataclass(frozen=True)
class Pace:
    """How much processor time is work: `rate` in seconds a second, counted since `before`."""

    rate: float
    before: CpuMarks | None

    def is_moving(self, table: Table, process: Process) -> bool | None:
        """Say whether a process worked since then; None where that cannot be told, as at first sight."""
        mark = self.before.used.get(process.pid) if self.before else None
        if not self.before or not mark or mark[0] != process.start or process.cpu_s is None:
            return None
        span, used = table.taken_at - self.before.at, process.cpu_s - mark[1]
        if span <= 0 or used < 0:
            return None
        if used >= self.rate * span:
            return True
        return None if self.rate * span < _LEAST_S else False


@dataclass(frozen=True)
class Scope:
    """Where a session's work can be, and since when there is any.

    `pane` is the one that it runs in, if in any. `first_prompt_at` is the moment of the first prompt to this very
    process, in seconds since 1970; None for one that got none yet. `helpers` are the patterns of further helpers.
    """

    session_id: str
    pane: Pane | None = None
    first_prompt_at: float | None = None
    helpers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Working:
    """A process that is work, and why, in words for people."""

    process: Process
    why: str


def working(table: Table, agent: Process, scope: Scope, pace: Pace) -> list[Working]:
    """Return all that counts as work of a session; the agent itself does not, `agent_is_busy` tells of that."""
    apart = {agent.pid, os.getpid(), *_pids(table.above(agent.pid)), *_pids(table.above(os.getpid()))}
    found: dict[int, Working] = {}
    for process, why in (*_below(table, agent, scope, pace), *_elsewhere(table, agent, scope)):
        if process.pid not in apart and not process.is_zombie:
            found.setdefault(process.pid, Working(process, why))
    return list(found.values())


def agent_is_busy(table: Table, agent: Process, pace: Pace) -> bool | None:
    """Say whether the client itself worked since the last look; None where that cannot be told."""
    return pace.is_moving(table, agent)


def cpu_marks(table: Table, agent: Process) -> CpuMarks:
    """Return what the next look compares with: what the agent and all below it have used."""
    each = (agent, *table.below(agent.pid))
    used = {process.pid: (process.start, process.cpu_s) for process in each if process.cpu_s is not None}
    return CpuMarks(table.taken_at, used)


def _below(table: Table, agent: Process, scope: Scope, pace: Pace) -> Iterator[tuple[Process, str]]:
    """Yield what is below the agent and works; helpers, and what they started, only while they use the processor."""
    excused: set[int] = set()
    for process in table.below(agent.pid):  # parents come first
        is_below_helper = process.parent in excused
        if not is_below_helper and not _is_helper(process, scope):
            yield process, "it runs below the client"
            continue
        # A shell, and a client below its own wrapper, run tools: that they wait themselves says nothing of those.
        if is_below_helper or program(process.argv) not in SHELLS | CLIENTS:
            excused.add(process.pid)
        is_moving = pace.is_moving(table, process)
        if is_moving is None:
            yield process, "it may be a helper at work: it was not seen for long enough"
        elif is_moving:
            yield process, "it is a helper at work"


def _is_helper(process: Process, scope: Scope) -> bool:
    first = scope.first_prompt_at
    was_there_before = first is None or process.created < first - _CLOCKS_OFF_S
    return was_there_before or is_helper(process.argv, scope.helpers)


def _elsewhere(table: Table, agent: Process, scope: Scope) -> Iterator[tuple[Process, str]]:
    """Yield what left the tree of the agent: by the session's id in its environment, and by the terminal."""
    inside = _pids(table.below(agent.pid))
    for process in table.carrying(scope.session_id):
        if process.pid not in inside:
            yield process, "it was started by the session"
    for terminal in {agent.terminal, scope.pane.terminal if scope.pane else None} - {None, ""}:
        for process in table.on_terminal(str(terminal)):
            if process.pid not in inside and process.created >= agent.created:
                yield process, "it is on the terminal of the session"


def _pids(processes: Iterable[Process]) -> set[int]:
    return {process.pid for process in processes}
