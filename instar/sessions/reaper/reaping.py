"""The two phases of an end: a session is chosen and waits, then it is looked at once more and ended, or would be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.errors import InstarError
from instar.sessions.reaper import candidacy
from instar.sessions.reaper.audit import name_of
from instar.sessions.reaper.budget import Answer, Budget, Limits
from instar.sessions.reaper.report import End, bounded, prompt_of
from instar.sessions.reaper.scene import kind
from instar.sessions.registry import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from instar.sessions.reaper.candidacy import Moment, Why
    from instar.sessions.reaper.scene import Gauge, Scene
    from instar.sessions.reaper.seen import Seen
    from instar.sessions.reaper.state import Watched

# What a park says that went wrong after a process was told to end: nobody knows what was done to whom.
DISABLING: Final = frozenset({"kill-failed", "kill-unverified"})
BY: Final = "reaper"  # whom a session that is ended here is parked by
# What keeps an end waiting and is over soon; all else is tried again later and later.
_PASSING: Final = frozenset({"busy", "cooldown"})


class Reaping:
    """The ends of one tick. `observe` takes a look for what it is; `is_settled` says that nothing is half done."""

    def __init__(
        self, scene: Scene, gauge: Gauge, observe: Callable[[Seen, Moment], None], *, is_settled: bool
    ) -> None:
        self._scene = scene
        self._state = scene.state
        self._policy = scene.policy
        self._gauge = gauge
        self._observe = observe
        self._is_dry = not scene.policy.may_park
        self._is_stopped = not self._is_dry and not is_settled
        self._budget = Budget(scene.deps.shared, sleep=scene.deps.sleep, chance=scene.deps.chance)
        self._limits = Limits(scene.policy.reaps_per_hour, scene.policy.cooldown_s)
        self.disabled = ""  # why nobody may be parked any more

    def put_down(self, sessions: Sequence[Session]) -> None:
        """Put down the ends that a reaper did not live to put down: who is watched still was parked by one."""
        for session in sessions:
            watched, parked = self._scene.watched(session), session.record.get("parked")
            if watched and session.is_over and isinstance(parked, dict) and parked.get("by") == BY:
                end = self._note("reaped", session, watched, str(parked.get("reason")))
                self._state.ends = bounded([*self._state.ends, end])
                del self._state.watched[session.id]

    def end_those_due(self) -> None:
        """End those whose grace is over, those that were idle longest first."""
        for session_id in self._longest_idle_first():
            watched = self._state.watched[session_id]
            left = candidacy.grace_left_s(watched.candidacy, self._scene.now(), self._policy)
            if left != 0 or self._is_stopped:
                continue
            try:
                self._end(session_id, watched)
            except Exception as error:  # noqa: BLE001 - one bad session is no end of the others
                session = Session(self._scene.root, session_id, "unproven", {})  # its name, and no more
                self._put_off(watched, session, f"it could not be judged: {kind(error)}", is_bad=True)

    def choose(self, sessions: Sequence[Session]) -> None:
        """Have those wait for their end whose time has come: no more than may be ended."""
        if self._is_stopped:
            return
        due = [(key, why) for key in self._longest_idle_first() if (why := self._why(self._state.watched[key]))]
        if not due:
            return
        pending = sum(each.candidacy.pending is not None for each in self._state.watched.values())
        room = max(0, min(self._policy.reaps_per_tick, self._left_in_hour()) - pending)
        by_id, now = {each.id: each for each in sessions}, self._scene.now()
        threshold = candidacy.threshold_s(self._gauge.tier, self._policy)
        for key, why in due[:room]:
            watched = self._state.watched[key]
            watched.candidacy = candidacy.pend(watched.candidacy, why, now)
            detail = {
                "tier": self._gauge.tier, "idleMs": self._idle_ms(watched), "reason": why, "dryRun": self._is_dry,
                "thresholdMs": None if threshold is None else round(threshold * 1000),
            }  # fmt: skip
            self._scene.audit.event("reap-pending", by_id.get(key), **detail)

    def _longest_idle_first(self) -> list[str]:
        def order(item: tuple[str, Watched]) -> tuple[float, int]:
            return -item[1].candidacy.idle_s(self._policy), -(item[1].memory or 0)

        return [session_id for session_id, _ in sorted(self._state.watched.items(), key=order)]

    def _end(self, session_id: str, watched: Watched) -> None:
        """Look at a session once more, and at all that holds an end back; then end it, or tell that it would be."""
        scene = self._scene
        session = next((each for each in scene.deps.sessions(scene.root) if each.id == session_id), None)
        if session is None or session.is_over:
            scene.audit.event("reap-aborted", session, sessionId=session_id, reason="vanished")
            del self._state.watched[session_id]
            return
        seen = scene.look([session], scene.now().monotonic)[session_id]
        if not (seen.verdict.is_clear and seen.is_still and scene.watched(session)):
            self._observe(seen, scene.now())
            return
        self._gauge.read()
        why = candidacy.why_due(watched.candidacy, self._gauge.tier, self._policy, watched.age_s)
        if why is None:
            self._put_off(watched, session, "the pressure fell")
        elif self._is_dry:
            self._tell(session, watched, why)
        else:
            self._take_and_park(session, watched, why)

    def _tell(self, session: Session, watched: Watched, why: Why) -> None:
        """Tell, once, that a session would be ended."""
        end = self._note("would-reap", session, watched, why)
        others = [each for each in self._state.ends if each.session_id != session.id or not each.is_open_and_dry]
        self._state.ends = bounded([*others, end])
        watched.candidacy = replace(candidacy.drop(watched.candidacy), is_told=True)

    def _take_and_park(self, session: Session, watched: Watched, why: Why) -> None:
        answer = self._budget.take(self._limits, self._scene.now, self._policy.jitter_s)
        if answer.blocked:
            self._put_off(watched, session, answer.why, answer)
        elif not self._scene.switch.read().over(self._policy).may_park:  # somebody may have said so meanwhile
            self._is_stopped = True
            self._budget.give_back(answer)
            self._put_off(watched, session, "the reaper was switched off")
        else:
            self._park(session, watched, why, answer)

    def _park(self, session: Session, watched: Watched, why: Why, answer: Answer) -> None:
        """End a session, for which one was taken of the budget: it is given back only when nothing was done."""
        try:
            result = self._scene.deps.park(session.id, why)
            is_done, skipped = result["terminated"], result.get("skipped")
        except Exception as error:  # noqa: BLE001 - as above
            cause = f"ending a session failed: {kind(error)}"
            self._disable("reap-failed-auto-disable", session, cause, error=kind(error))
            return
        if is_done is True:
            self._state.ends = bounded([*self._state.ends, self._note("reaped", session, watched, why)])
            del self._state.watched[session.id]
        elif not isinstance(skipped, str) or not skipped or skipped in DISABLING:
            cause = f"a session was told to end: {skipped}" if skipped else "a session was not ended, for no reason"
            self._disable("reap-skipped-auto-disable", session, cause, skipped=skipped)
        else:
            self._budget.give_back(answer)
            self._scene.audit.event("reap-skipped", session, skipped=skipped, dryRun=False)
            self._state.sums.count(self._scene.now().wall, "skipped")
            watched.candidacy = candidacy.rest(watched.candidacy)

    def _note(self, event: Literal["reaped", "would-reap"], session: Session, watched: Watched, why: str) -> End:
        """Tell of an end, and return it."""
        now, is_dry = self._scene.now().wall, event == "would-reap"
        detail = {"tier": self._gauge.tier, "idleMs": self._idle_ms(watched), "reason": why, "memory": watched.memory}
        self._scene.audit.event(event, session, **detail, dryRun=is_dry)
        self._state.sums.count(now, "wouldReap" if is_dry else "reaped")
        idle = watched.candidacy.idle_s(self._policy)
        return End(session.id, name_of(session), now, why, is_dry, idle, watched.memory, prompt_of(session))

    def _disable(self, event: str, session: Session, cause: str, **detail: Any) -> None:  # noqa: ANN401 - what JSON holds
        """Have nobody ended any more, in no process, until a person says so."""
        self.disabled, self._is_stopped = cause, True
        for each in self._state.watched.values():
            each.candidacy = candidacy.drop(each.candidacy)
        try:
            self._scene.switch.auto_disable(cause, now=self._scene.now().wall)
        except InstarError as error:
            self._state.troubles.append(f"that the reaper stopped itself cannot be written: {error}")
        self._scene.audit.event(event, session, **detail)

    def _put_off(
        self, watched: Watched, session: Session, why: str, answer: Answer | None = None, *, is_bad: bool = False
    ) -> None:
        """Leave a session be for now: its grace is over, something else holds its end back. The same is told once."""
        what = answer.blocked if answer and answer.blocked else why
        if watched.candidacy.deferred != what:
            self._scene.audit.event("reap-deferred", session, why=why)
        if what in _PASSING:
            after = watched.candidacy
        else:
            after = (candidacy.rest if answer or is_bad else candidacy.drop)(watched.candidacy)
        watched.candidacy = replace(after, deferred=what)

    def _why(self, watched: Watched) -> Why | None:
        """Return why a session is due that does not wait for its end yet, and was not told of already."""
        if watched.candidacy.pending or (watched.candidacy.is_told and self._is_dry):
            return None
        return candidacy.why_due(watched.candidacy, self._gauge.tier, self._policy, watched.age_s)

    def _left_in_hour(self) -> int:
        """Return how many may still be ended in this hour; a dry run takes of no budget."""
        if self._is_dry:
            return self._policy.reaps_per_tick
        answer = self._budget.look(self._limits, self._scene.now())
        said = answer.why if answer.blocked in {"unusable", "spent"} else ""
        if said and said != self._state.budget_why:
            self._scene.audit.event("reap-deferred", why=said)
        self._state.budget_why = said
        return 0 if answer.used is None else self._policy.reaps_per_hour - answer.used

    def _idle_ms(self, watched: Watched) -> int:
        return round(watched.candidacy.idle_s(self._policy) * 1000)
