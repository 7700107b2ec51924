"""One look at the machine, and what it shows of each session: seen once, and read off when a gate asks.

A look takes one read of the process table and one call of tmux for each of its servers, for any number of sessions.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from instar.sessions import leases
from instar.sessions.clock import epoch
from instar.sessions.machine import work
from instar.sessions.machine.work import CpuMarks, Pace, Scope
from instar.sessions.screens import client_status, screen
from instar.sessions.transcripts import probe as transcripts
from instar.sessions.transcripts import turns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from instar.services import Managed
    from instar.sessions.leases import Lease
    from instar.sessions.machine.processes import Process, Table
    from instar.sessions.machine.tmux import Pane, View
    from instar.sessions.machine.work import Working
    from instar.sessions.policy import Policy
    from instar.sessions.registry import Session
    from instar.sessions.screens.client_status import ClientStatus
    from instar.sessions.screens.screen import Screen
    from instar.sessions.transcripts.probe import Change, Probe
    from instar.sessions.transcripts.turn import Turn

CLAUDE: Final = "claude-code"
LEAST_SPAN_S: Final = 1.0  # over which processor time tells whether something works

Marks = dict[str, Any]


@dataclass(frozen=True)
class Host:
    """What was seen of the machine at one moment, and whom to ask for what is known beyond it.

    `table` is None when the processes could not be read; `views` lacks a server that was not asked. `wall` (seconds
    since 1970) and `monotonic` are the moment, `own` the processes of the reaper itself and all above it. `managed`
    tells by the identity of a session who else runs it.
    """

    policy: Policy
    wall: float
    monotonic: float
    boot: str
    table: Table | None
    views: Mapping[str, View] = field(default_factory=dict)
    own: frozenset[int] = frozenset()
    is_calibrated: Callable[[str, str], bool] = lambda _client, _version: False
    tokens_since: Callable[[str, float], int | None] = lambda _session, _since: None
    managed: Callable[[str], Managed | None] = lambda _identity: None


class Sight:
    """One session in a look. `before` are the marks of the look before this one, {} at the first.

    What is read is read once, and only when it is asked for. What cannot be read raises what the reading raises.
    """

    def __init__(self, session: Session, host: Host, before: Mapping[str, Any]) -> None:
        self.session = session
        self.host = host
        self.policy = host.policy
        self.before = before if before.get("agent") == session.record.get("agent") else {}

    @property
    def client(self) -> str:
        """The client, as the record names it; "" where it does not."""
        return self.session.text("client")

    @cached_property
    def agent(self) -> Process | None:
        """The recorded process of the client, if it lives."""
        stamp = self.session.record.get("agent")
        return self.host.table.stamped(stamp) if self.host.table else None

    @cached_property
    def leases(self) -> list[Lease]:
        """Why others want it left alone."""
        return leases.active(self.session.project, self.session.id, self.host.wall)

    @property
    def tmux(self) -> dict[str, Any]:
        """The recorded pane; {} for a session without one."""
        found = self.session.record.get("tmux")
        return found if isinstance(found, dict) else {}

    @property
    def view(self) -> View | None:
        """What the tmux server of the recorded pane answered; None when it was not asked."""
        return self.host.views.get(self.session.text("tmux", "socket"))

    @property
    def pane(self) -> Pane | None:
        """The recorded pane, as tmux shows it now; whether it still is the same is for a gate to say."""
        return self.view.panes.get(self.session.text("tmux", "pane")) if self.view else None

    @property
    def frame(self) -> str | None:
        """The text of the pane; None when it could not be read."""
        return self.view.frames.get(self.session.text("tmux", "pane")) if self.view else None

    @cached_property
    def screen(self) -> Screen | None:
        """What that text shows."""
        if self.frame is None or self.pane is None:
            return None
        return screen.read(self.client, self.frame, self.pane.title, self.session.text("cwd"))

    @property
    def transcript(self) -> str:
        """Where the client says that it writes the conversation; "" where it does not."""
        return self.session.text("transcriptPath")

    @cached_property
    def probe(self) -> Probe:
        """The transcript's file as it is now. Raise transcripts.Unresolved."""
        return transcripts.probe(self.transcript)

    @property
    def has_transcript(self) -> bool:
        """Whether its file can be looked at."""
        try:
            return bool(self.probe)
        except transcripts.Unresolved:
            return False

    @cached_property
    def change(self) -> tuple[Change, str]:
        """What became of the transcript since the look before this one, and why that is said."""
        before = self.before.get("probe")
        return transcripts.delta(transcripts.Probe.from_json(before) if isinstance(before, dict) else None, self.probe)

    @cached_property
    def turn(self) -> Turn:
        """Whether the turn is over by what the transcript holds."""
        return turns.turn(self.client, self.transcript)

    @cached_property
    def said(self) -> ClientStatus | None:
        """What the client says of itself; None for a client that says nothing."""
        agent = self.session.record.get("agent")
        if self.client != CLAUDE or not isinstance(agent, dict):
            return None
        return client_status.client_status(self.transcript, agent)

    @property
    def version(self) -> str:
        """The client's version, as it or its transcript says; "" where neither does."""
        return (self.said.version if self.said else "") or self.turn.version

    @cached_property
    def working(self) -> list[Working]:
        """The processes that work for the session. Raise OSError or psutil.Error where that cannot be told."""
        table, agent = self._looked_at()
        scope = Scope(self.session.id, self.pane, self._first_prompt_at(agent), self.policy.helpers)
        return work.working(table, agent, scope, self._pace)

    @cached_property
    def is_busy(self) -> bool | None:
        """Whether the client's own process works; None where only a second look can tell."""
        table, agent = self._looked_at()
        return work.agent_is_busy(table, agent, self._pace)

    @property
    def _pace(self) -> Pace:
        return Pace(self.policy.cpu_rate, CpuMarks.from_json(self._cpu_before))

    @property
    def _cpu_before(self) -> Any:  # noqa: ANN401 - what JSON holds
        """What processes had used when it was last written down, long enough ago to tell something by it."""
        return self.before.get("cpuBefore" if self._is_newest_young else "cpu")

    @property
    def _is_newest_young(self) -> bool:
        newest = CpuMarks.from_json(self.before.get("cpu"))
        return newest is not None and self.host.monotonic - newest.at < LEAST_SPAN_S

    def _first_prompt_at(self, agent: Process) -> float | None:
        """Return when this process was first spoken to; where it was, and that is not known, as early as can be."""
        at = epoch(self.session.record.get("firstPromptAt"))
        return agent.created if at is None and "lastPrompt" in self.session.record else at

    def _looked_at(self) -> tuple[Table, Process]:
        if self.host.table is None or self.agent is None:
            raise ProcessLookupError("the client's process cannot be looked at")
        return self.host.table, self.agent

    def marks(self) -> Marks:
        """Return what the next look compares with: an object for JSON."""
        marks: Marks = {"agent": self.session.record.get("agent"), "at": self.host.monotonic, "wall": self.host.wall}
        if self.agent and self.host.table:
            is_young = self._is_newest_young  # then it stays, or looks in a quick row would never compare anything
            now = work.cpu_marks(self.host.table, self.agent).as_json()
            marks["cpu"] = self.before["cpu"] if is_young else now
            marks["cpuBefore"] = self._cpu_before
        with suppress(transcripts.Unresolved):
            marks["probe"] = self.probe.as_json()
        if self.screen and self.pane:
            marks["screen"] = self._picture(self.screen, self.pane)
        return marks

    def is_still(self) -> bool:
        """Say whether the pane shows what it showed at the look before this one, and nothing was drawn meanwhile."""
        if self.screen is None or self.pane is None:
            return False
        return self.before.get("screen") == self._picture(self.screen, self.pane)

    def _picture(self, shown: Screen, pane: Pane) -> list[Any]:
        """Return what changes with every sign of life; what happens beside the pane in its window is none."""
        beside = [each for each in self.view.panes.values() if each.window_id == pane.window_id] if self.view else []
        drawn = pane.activity if len(beside) == 1 else None
        return [shown.content, shown.version, pane.width, pane.height, pane.history, list(pane.cursor), drawn]
