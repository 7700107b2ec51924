"""One tick of the reaper: all sessions are looked at, and those whose time has come are ended, or would be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from instar.errors import InstarError
from instar.sessions.clock import epoch
from instar.sessions.reaper import candidacy
from instar.sessions.reaper.audit import name_of
from instar.sessions.reaper.budget import HOUR_S
from instar.sessions.reaper.candidacy import TICKS_APART
from instar.sessions.reaper.reaping import Reaping
from instar.sessions.reaper.report import follow
from instar.sessions.reaper.scene import Gauge, kind
from instar.sessions.reaper.state import Watched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from instar.sessions.reaper.candidacy import Moment
    from instar.sessions.reaper.scene import Scene
    from instar.sessions.reaper.seen import Seen
    from instar.sessions.registry import Session

DAY_S: Final = 86_400.0
GAPS: Final = 3  # without a whole window between them, until it is said that nobody will ever be parked


class Tick:
    """A tick. What fails for a single session keeps that session, and stops nothing else."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._state = scene.state
        self._policy = scene.policy
        self._gauge = Gauge(scene)
        self._passed = 0.0
        self.disabled = ""  # why nobody may be parked any more

    def run(self) -> None:
        """Do all of it."""
        scene, state, began = self._scene, self._state, self._scene.now()
        state.troubles = list(self._policy.faults)
        is_settled = self._policy.may_park and self._is_recovered()
        self._begin("live" if self._policy.may_park else "dry-run", began)
        self._gauge.dwell()
        try:
            sessions = scene.deps.sessions(scene.root)
        except (InstarError, OSError) as error:
            state.troubles.append(f"the sessions cannot be listed: {kind(error)}")
            return
        looked_at = [each for each in sessions if not each.is_over]
        found = scene.look(looked_at, began.monotonic + self._policy.tick_limit_s)
        reaping = Reaping(scene, self._gauge, self._observe, is_settled=is_settled)
        reaping.put_down(sessions)
        self._forget({each.id for each in looked_at}, {each.id for each in sessions if "reaping" in each.record})
        self._observe_all(looked_at, found, began)
        self._follow_ends(sessions, found, began)
        reaping.end_those_due()
        if state.settling_s is None:
            reaping.choose(sessions)
        self.disabled = reaping.disabled
        self._conclude(began)

    def _is_recovered(self) -> bool:
        """Finish what was left half done. Where that fails, nobody is ended in this tick."""
        try:
            self._scene.deps.recover()
        except Exception as error:  # noqa: BLE001 - whatever it is, the sessions are looked at all the same
            self._state.troubles.append(f"what a reaper left half done cannot be settled: {kind(error)}")
            return False
        return True

    def _begin(self, mode: str, now: Moment) -> None:
        """Tell how long nobody looked; what waits for its end by another mode's word waits no more."""
        state = self._state
        passed = now.since(state.at) if state.at else None
        is_on = passed is not None and passed <= TICKS_APART * self._policy.tick_s
        self._passed = passed if is_on and passed is not None else 0.0
        if state.at is not None:
            state.run_s = state.run_s + self._passed if is_on else 0.0
            state.gaps = 0 if state.run_s >= self._policy.confirm_window_s else state.gaps + (not is_on)
        if state.settling_s is not None:
            state.settling_s += self._passed
            if state.settling_s >= self._policy.min_age_s:
                state.settling_s = None
        if state.mode and state.mode != mode:
            for each in state.watched.values():
                each.candidacy = replace(candidacy.drop(each.candidacy), deferred="")
        state.mode, state.at = mode, now

    def _forget(self, running: set[str], unsettled: set[str]) -> None:
        """Watch those no more that are over; those of whom nobody can tell yet by whose hand are left in peace."""
        watched = self._state.watched
        for gone in watched.keys() - running:
            if gone in unsettled:
                watched[gone].candidacy = candidacy.rest(watched[gone].candidacy)
                continue
            if watched[gone].candidacy.pending:
                self._scene.audit.event("reap-aborted", None, sessionId=gone, reason="vanished")
            del watched[gone]

    def _observe_all(self, sessions: Sequence[Session], found: Mapping[str, Seen], now: Moment) -> None:
        state = self._state
        for session in sessions:
            self._observe(found[session.id], now)
        state.sums.count(now.wall, "ticks")
        state.sums.count(now.wall, "looks", len(sessions))
        self._tell_of_starving(now)

    def _observe(self, seen: Seen, now: Moment) -> None:
        """Take one look at a session for what it is."""
        session, verdict, scene = seen.session, seen.verdict, self._scene
        last, known = self._state.watched.get(session.id), scene.watched(session)
        before = known.candidacy if known else None
        after = candidacy.step(before, verdict, is_still=seen.is_still, now=now, policy=self._policy)
        if last and last.candidacy.pending and not after.pending:
            self._abort(seen, is_same=known is not None)
        passed = now.since(before.at) if before else None
        if (
            seen.is_quiet
            and not verdict.is_clear
            and passed is not None
            and passed <= TICKS_APART * self._policy.tick_s
        ):
            self._state.sums.missed(now.wall, verdict.kept_by, seen.memory, passed)
        self._state.watched[session.id] = Watched(
            name=name_of(session),
            agent=session.record.get("agent"),
            candidacy=after,
            marks=seen.marks,
            verdict=verdict.as_json(),
            decided=scene.audit.decision(session, verdict, last.decided if last else None, self._state.dwell.tier),
            memory=seen.memory,
            age_s=_age_s(session, now),
        )

    def _abort(self, seen: Seen, *, is_same: bool) -> None:
        """Tell that a session that waited for its end does so no more."""
        if not seen.verdict.is_clear:
            detail = {"keptBy": seen.verdict.kept_by}
        elif not is_same:
            detail = {"reason": "identity-changed"}
        else:
            detail = {"reason": "gap-during-grace" if seen.is_still else "frame-changed-during-grace"}
        self._scene.audit.event("reap-aborted", seen.session, **detail)

    def _tell_of_starving(self, now: Moment) -> None:
        """Say so where one gate keeps all sessions for a day, or no whole window fits between restarts."""
        state, scene = self._state, self._scene
        is_waiting = any(each.candidacy.consecutive for each in state.watched.values())
        gates = {each.verdict["keptBy"] for each in state.watched.values()}
        by = gates.pop() if len(gates) == 1 and not is_waiting else ""
        state.held = (by, state.held[1] + self._passed if by == state.held[0] else 0.0) if by else ("", 0.0)
        if state.held[1] >= DAY_S and scene.is_first("held", now, DAY_S):
            scene.audit.event("reaper-starved", why="one gate keeps all sessions for a day", keptBy=by)
        if state.gaps >= GAPS and is_waiting and scene.is_first("starved", now, HOUR_S):
            why = "no whole confirmation window fits between restarts, or ticks are too far apart"
            window, apart = self._policy.confirm_window_s, self._policy.tick_s
            scene.audit.event("reaper-starved", why=why, windowS=window, tickS=apart)

    def _follow_ends(self, sessions: Sequence[Session], found: Mapping[str, Seen], now: Moment) -> None:
        """Find out what became of those that were ended, or would have been."""
        by_id = {each.id: each for each in sessions}
        for number, end in enumerate(self._state.ends):
            after = follow(end, by_id.get(end.session_id), found.get(end.session_id))
            if after == end:
                continue
            self._state.ends[number] = after
            if after.outcome in {"worked-after", "came-back"}:
                self._state.sums.count(now.wall, "falseOnes" if after.outcome == "worked-after" else "cameBack")
                detail = {"idleMs": round(end.idle_s * 1000), "dryRun": end.is_dry}
                self._scene.audit.event(after.outcome, by_id[end.session_id], **detail)

    def _conclude(self, began: Moment) -> None:
        now = self._scene.now()
        took, limit = now.monotonic - began.monotonic, min(self._policy.tick_s, self._policy.tick_limit_s)
        if took > limit and self._scene.is_first("overrun", now, HOUR_S):
            told = {"tookMs": round(took * 1000), "limitMs": round(limit * 1000)}
            self._scene.audit.event("tick-overrun", None, why="a tick took too long", **told)
        self._state.sums.forget()


def _age_s(session: Session, now: Moment) -> float | None:
    """Return how old a session is; no less than nothing, whatever its record says."""
    started = epoch(session.text("startedAt"))
    return None if started is None else max(0.0, now.wall - started)
