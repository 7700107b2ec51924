"""What one tick is about: a project, its edges, what is known of its sessions, and what its operator wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instar.sessions.reaper import pressure
from instar.sessions.reaper.candidacy import Moment
from instar.sessions.reaper.seen import Seen
from instar.sessions.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from instar.sessions.policy import Policy
    from instar.sessions.reaper.audit import Audit
    from instar.sessions.reaper.pressure import Tier
    from instar.sessions.reaper.seen import Deps
    from instar.sessions.reaper.state import State, Watched
    from instar.sessions.reaper.switch import Switch
    from instar.sessions.registry import Session


@dataclass(frozen=True)
class Scene:
    """All that a tick needs; of it only `state` changes, in place."""

    root: Path
    deps: Deps
    state: State
    audit: Audit
    switch: Switch
    policy: Policy

    def now(self) -> Moment:
        """Return the moment that it is."""
        return Moment.of(self.deps.clock)

    def watched(self, session: Session) -> Watched | None:
        """Return what is known of a session in this process of its client: a new process is a new beginning."""
        watched = self.state.watched.get(session.id)
        return watched if watched and watched.agent == session.record.get("agent") else None

    def look(self, sessions: Sequence[Session], deadline: float) -> dict[str, Seen]:
        """Look at sessions at once; where that fails, at each half, so that one of them hides no other.

        No half is begun after `deadline` on the monotonic clock. What was not judged is kept by "eval-error".
        """
        if not sessions:
            return {}
        marks = {each.id: self._marks(each) for each in sessions}
        try:
            found = {seen.session.id: seen for seen in self.deps.look(sessions, marks, self.policy)}
        except Exception as error:  # noqa: BLE001 - whatever fails in it keeps its session, and is no end of the others
            if len(sessions) > 1 and self.deps.clock.monotonic() < deadline:
                half = len(sessions) // 2
                return self.look(sessions[:half], deadline) | self.look(sessions[half:], deadline)
            return {each.id: _unjudged(each, f"it could not be judged: {kind(error)}") for each in sessions}
        return {each.id: found.get(each.id) or _unjudged(each, "it was not judged") for each in sessions}

    def is_first(self, what: str, now: Moment, seconds: float) -> bool:
        """Say whether something was not told for so long, and take it as told now."""
        last = self.state.told.get(what)
        passed = now.since(last) if last else None
        if passed is not None and passed < seconds:
            return False
        self.state.told[what] = now
        return True

    def _marks(self, session: Session) -> dict[str, Any]:
        watched = self.watched(session)
        return watched.marks if watched else {}


class Gauge:
    """The pressure, read as often as it is asked for. What cannot be read is none."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._raw: Tier = "normal"

    @property
    def tier(self) -> Tier:
        """The tier that holds, as far as the last reading bears it out."""
        return pressure.lower(self._scene.state.dwell.tier, self._raw)

    def dwell(self) -> None:
        """Read it for a tick: the tier that holds follows."""
        state = self._scene.state
        state.why_tier = self.read()
        state.dwell = pressure.dwell(state.dwell, self._raw)

    def read(self) -> str:
        """Read it once more, and return what makes it, in words."""
        state = self._scene.state
        try:
            state.readings = self._scene.deps.read_pressure(state.readings)
        except Exception as error:  # noqa: BLE001 - as above
            state.readings = None
            state.troubles.append(f"the pressure cannot be read: {kind(error)}")
        self._raw, why = pressure.tier(state.readings, self._scene.policy.pressure)
        return why


def kind(error: Exception) -> str:
    """Return what may be told of an error: its text may name files."""
    return type(error).__name__


def _unjudged(session: Session, why: str) -> Seen:
    return Seen(session, Verdict("eval-error", why, "low"))
