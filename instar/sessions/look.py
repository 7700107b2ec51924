"""A look at sessions: the process table and tmux are asked once, then each session is judged by what they show."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

import psutil

from instar.sessions import classifier
from instar.sessions.evidence import Host, Sight
from instar.sessions.machine import processes
from instar.sessions.machine.tmux import Tmux
from instar.sessions.reaper.seen import Seen
from instar.sessions.transcripts.probe import Unresolved

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from instar.services import Services
    from instar.sessions.clock import Clock
    from instar.sessions.evidence import Marks
    from instar.sessions.machine.processes import Table
    from instar.sessions.machine.tmux import View
    from instar.sessions.policy import Policy
    from instar.sessions.registry import Session
    from instar.sessions.screens.calibration import Calibration

SERVERS_AT_ONCE: Final = 8


@dataclass(frozen=True)
class Lookout:
    """Who looks: `calibration` knows the clients' versions, `tokens_since` what a session used; None: not known.

    `services` knows which peers are run by others.
    """

    calibration: Calibration
    tokens_since: Callable[[str, float], int | None]
    clock: Clock
    services: Services

    def learn(self, sights: Sequence[Sight]) -> None:
        """Remember how the clients' versions look, where screen and transcript agree."""
        for sight in sights:
            shown = sight.screen.reading if sight.screen else ""
            if shown in {"idle", "live"} and sight.turn.state == {"idle": "closed", "live": "open"}[shown]:
                self.calibration.note(sight.client, sight.version, shown, sight.host.wall)

    def sights(
        self,
        sessions: Sequence[Session],
        marks: Mapping[str, Marks],
        policy: Policy,
        lifted: Collection[str] = (),
    ) -> list[Sight]:
        """Return the sessions as they are seen, to be judged or explained without the `lifted` gates.

        `marks` are those of the last look, by the sessions' ids.
        """
        host = self._host(policy)
        blind = [Sight(each, host, marks.get(each.id, {})) for each in sessions]
        views = _views([sight for sight in blind if sight.tmux], policy, lifted)
        return [Sight(sight.session, replace(host, views=views), sight.before) for sight in blind]

    def table(self) -> Table | None:
        """Read the process table; None where it cannot be read."""
        try:
            return processes.read_table(self.clock.monotonic)
        except (OSError, psutil.Error):
            return None

    def _host(self, policy: Policy) -> Host:
        table = self.table()
        mine = os.getpid()
        own = {mine, *(each.pid for each in table.above(mine))} if table else {mine}
        return Host(
            policy=policy,
            wall=self.clock.wall(),
            monotonic=self.clock.monotonic(),
            boot=self.clock.boot(),
            table=table,
            own=frozenset(own),
            is_calibrated=self.calibration.is_known,
            tokens_since=self.tokens_since,
            managed=cache(self.services.managed_identity),
        )


def seen(sight: Sight) -> Seen:
    """Return what a look comes to for one session."""
    verdict = classifier.judge(sight)
    is_still = sight.is_still()
    return Seen(
        session=sight.session,
        verdict=verdict,
        marks=sight.marks(),
        is_still=is_still,
        memory=memory(sight),
        is_working=verdict.confidence == "high" and verdict.kept_by in classifier.AT_WORK,
        is_quiet=_is_quiet(sight, is_still=is_still),
    )


def memory(sight: Sight) -> int | None:
    """Return the resident memory in bytes of the agent and all below it; None where that cannot be told."""
    if sight.agent is None or sight.host.table is None:
        return None
    return sum(each.memory for each in (sight.agent, *sight.host.table.below(sight.agent.pid)))


def _is_quiet(sight: Sight, *, is_still: bool) -> bool:
    """Say whether the turn is closed, nothing was written since, and the screen, if it was read, is idle and still."""
    try:
        is_over = sight.turn.state == "closed" and sight.change[0] in {"static", "touched"}
    except Unresolved:
        return False
    return is_over and (sight.screen is None or (is_still and sight.screen.reading == "idle"))


def _views(sights: Sequence[Sight], policy: Policy, lifted: Collection[str]) -> dict[str, View]:
    """Ask each tmux server once: for its panes, and for the text of those whose screen can matter."""
    wanted: dict[str, list[str]] = {}
    for sight in sights:
        panes = wanted.setdefault(sight.session.text("tmux", "socket"), [])
        if classifier.needs_screen(sight, lifted):
            panes.append(sight.session.text("tmux", "pane"))
    sockets = [socket for socket in wanted if socket]
    tmux = Tmux(policy.probe_s)
    with ThreadPoolExecutor(SERVERS_AT_ONCE) as pool:
        found = pool.map(lambda socket: tmux.view(socket, wanted[socket], policy.capture_lines), sockets)
        return dict(zip(sockets, found))
