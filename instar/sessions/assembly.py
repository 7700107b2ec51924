"""The sessions of a project with everything that a command or a server needs to look at them, and to end one."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from instar.config import load
from instar.errors import InstarError
from instar.projects import shared_root
from instar.services import Services
from instar.sessions import adoption, classifier, policy, registry
from instar.sessions.clock import Clock
from instar.sessions.look import Lookout, seen
from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.park import SessionManager
from instar.sessions.reaper import pressure, reaping, state
from instar.sessions.reaper.audit import Audit
from instar.sessions.reaper.candidacy import Moment
from instar.sessions.reaper.reaper import SessionReaper
from instar.sessions.reaper.seen import Deps, Seen
from instar.sessions.reaper.switch import Switch
from instar.sessions.screens.calibration import Calibration
from instar.sessions.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from instar.sessions.evidence import Marks, Sight
    from instar.sessions.policy import Policy
    from instar.sessions.reaper.pressure import Readings
    from instar.sessions.registry import Session
    from instar.sessions.tokens.ledger import Ledger

BETWEEN_LOOKS_S: Final = 1.5  # long enough for what works to show it
LOOKS: Final = 3  # at most: an idle client computes now and then, and the more time the looks span the less it matters
# What keeps a session from being parked by itself, and not by a person who asks for it.
LIFTED: Final = frozenset(("unmanaged", "spawn-grace", "client-attached", "recent-user-message", "park-thrash"))


class Assembly:
    """The sessions of the project at `root`.

    `environ` names the shared folder, `read_pressure` reads the machine's, and `sleep` waits between two looks.
    `services` knows which peers are run by others, by the folders of this machine unless others are given.
    """

    def __init__(  # noqa: PLR0913 - every edge is passed in
        self, root: Path, environ: Mapping[str, str] = os.environ, clock: Clock | None = None,
        *, read_pressure: Callable[[Readings | None], Readings] | None = None,
        sleep: Callable[[float], None] = time.sleep, services: Services | None = None,
    ) -> None:  # fmt: skip
        self.root = root
        self.switch = Switch(root)
        self._shared = shared_root(environ)
        self._clock = clock or Clock()
        self._sleep = sleep
        self._services = services or Services.of_machine(environ)
        self._read_pressure = read_pressure or (lambda before: pressure.read(self._shared, self._clock, before))
        self._audit = Audit(root, self._clock.wall)

    def policy(self) -> Policy:
        """Return what holds: the configuration below the switch. Raise InstarError for a file that is none."""
        return self.switch.read().over(self._configured())

    @cached_property
    def ledger(self) -> Ledger:
        """What the sessions used."""
        from instar.sessions.tokens.ledger import Ledger  # noqa: PLC0415 - the database is half of a command's start

        return Ledger(self.root)

    @cached_property
    def reaper(self) -> SessionReaper:
        """The reaper, with the machine for its edges."""
        deps = Deps(
            policy=self._configured,
            look=self._look,
            park=lambda session_id, reason: self.manager().terminate(session_id, reason, by=reaping.BY),
            recover=lambda: self.manager().recover(),
            read_pressure=self._read_pressure,
            shared=self._shared,
            host=platform.node(),
            clock=self._clock,
        )
        return SessionReaper(self.root, deps=deps)

    def manager(self, look: Callable[[str, frozenset[str]], Verdict] | None = None) -> SessionManager:
        """Return who ends sessions, by the policy of now. Raise InstarError."""
        return self._manager(self.policy(), look)

    def _manager(self, rules: Policy, look: Callable[[str, frozenset[str]], Verdict] | None = None) -> SessionManager:
        return SessionManager(
            self.root, rules, clock=self._clock, tmux=Tmux(rules.probe_s), look=look or self._last_look,
            tell=self._audit.reap, services=self._services,
        )  # fmt: skip

    def sights(self, sessions: Sequence[Session] | None = None) -> list[Sight]:
        """Return what can be seen now of these sessions; of all that are not over, and that are not on record."""
        lookout, rules = self._lookout(), self.policy()
        if sessions is not None:
            return lookout.sights(sessions, self._marks(), rules, classifier.NAMES)
        recorded = [each for each in registry.sessions(self.root) if not each.is_over]
        sights = lookout.sights(recorded, self._marks(), rules, classifier.NAMES)
        table = sights[0].host.table if sights else lookout.table()
        others = adoption.unrecorded(self.root, table, recorded, self._clock.boot()) if table else ()
        return [*sights, *lookout.sights(list(others), {}, rules)]

    def terminate(
        self, session_id: str, reason: str, by: str = "operator", lifted: frozenset[str] = LIFTED
    ) -> dict[str, Any]:
        """Park a session that two looks, a moment apart, show to be idle; what shows it at work keeps it.

        The gates in `lifted` do not: those that are no sign of work, where a person asks for it. Raise InstarError.
        """
        found = registry.session(self.root, session_id)
        sights = self._lookout().sights([found], {}, self.policy(), lifted) if found else []
        marks = {sight.session.id: sight.marks() for sight in sights}
        manager = self.manager(lambda name, without: self._judge(name, without, marks))
        result: dict[str, Any] = {}
        for _ in range(LOOKS):
            self._sleep(BETWEEN_LOOKS_S)
            result = manager.terminate(session_id, reason, by=by, lifted=lifted)
            if result["skipped"] != "main-process-active":
                break
        return result

    def kill(self, session_id: str, *, force: bool = False, by: str = "operator") -> dict[str, Any]:
        """End a session, at work or not; by `force` also a protected one, or whatever the configuration says.

        Raise InstarError.
        """
        try:
            manager = self.manager()
        except InstarError:
            if not force:
                raise
            manager = self._manager(policy.policy({}))
        return manager.kill(session_id, by=by, force=force)

    def scan_tokens(self, sessions: Sequence[Session]) -> None:
        """Count what was used since the last scan. Raise InstarError."""
        told = {each.id: (each.text("client"), each.text("transcriptPath")) for each in sessions}
        self.ledger.scan({name: each for name, each in told.items() if each[1]}, self._clock.wall())

    def _configured(self) -> Policy:
        return policy.policy(load(self.root))

    def _lookout(self) -> Lookout:
        return Lookout(Calibration(self._shared), self._tokens_since, self._clock, self._services)

    def _look(self, sessions: Sequence[Session], marks: Mapping[str, Marks], rules: Policy) -> list[Seen]:
        with suppress(InstarError):
            self.scan_tokens(sessions)
        lookout = self._lookout()
        sights = lookout.sights(sessions, marks, rules)
        lookout.learn(sights)
        return [seen(sight) for sight in sights]

    def _last_look(self, session_id: str, lifted: frozenset[str]) -> Verdict:
        return self._judge(session_id, lifted, self._marks())

    def _judge(self, session_id: str, lifted: frozenset[str], marks: Mapping[str, Marks]) -> Verdict:
        """Judge a session at this moment; it has to look as it did, too."""
        found = registry.session(self.root, session_id)
        if found is None:
            return Verdict("liveness-indeterminate", "it is not on record any more", "low")
        (sight,) = self._lookout().sights([found], marks, self.policy(), lifted)
        verdict = classifier.judge(sight, lifted)
        if verdict.is_clear and not sight.is_still():
            return Verdict("frame-changed", "its screen is not what it was")
        return verdict

    def _marks(self) -> dict[str, Marks]:
        """Return what the reaper's last look saw, to be compared with."""
        found, _why = state.load(self.root, platform.node(), Moment.of(self._clock))
        return {name: each.marks for name, each in found.watched.items()}

    def _tokens_since(self, session_id: str, since: float) -> int | None:
        try:
            told = self.ledger.since(session_id, int(since * 1000))
        except InstarError:
            return None
        return int(told["tokens"]) if told["known"] else None
