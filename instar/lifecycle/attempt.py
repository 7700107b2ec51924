"""One attempt to bring a peer back: it is decided how, launched, and put on record; what fails leaves the right to it.

All of it runs under the lock of the peer, which does not live.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from instar.errors import InstarError
from instar.files import set_aside
from instar.lifecycle import deaths
from instar.lifecycle.decision import Decision, Resumable, Situation, decide
from instar.lifecycle.edges import Life
from instar.lifecycle.orders import Order, Refused, result
from instar.lifecycle.telling import note, together
from instar.lifecycle.tending import name_of
from instar.lifecycle.watching import watch
from instar.sessions.parking.markers import MARKER
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from instar.lifecycle.clients.launch import Launched
    from instar.lifecycle.edges import Edges, Past
    from instar.lifecycle.peers import Peer
    from instar.sessions.parking.markers import Park


def start(order: Order, peer: Peer, life: Life, edges: Edges) -> dict[str, Any]:
    """Start a peer that does not live, and return the result of it. Raise Refused, and InstarError."""
    now = Moment.of(edges.clock)
    if refusal := deaths.guard(edges.marks.deaths(peer.identity), now, edges.policy()):
        raise Refused(refusal.cause, f"{refusal.reason}; left asleep", retryAfter=refusal.retry_after_s)
    return _Attempt(order, peer, life, edges).result()


@dataclass(frozen=True)
class _Plan:
    """How a peer is brought back: `resumes` names the session that it takes up, None for none."""

    decision: Decision
    peer: Peer
    message: str
    resumes: str | None
    resumable: dict[str, Any] | None


class _Attempt:
    def __init__(self, order: Order, peer: Peer, life: Life, edges: Edges) -> None:
        self._order = order
        self._peer = peer
        self._life = life
        self._edges = edges
        self._marks = edges.marks

    def result(self) -> dict[str, Any]:
        """Do all of it. A park marker is back in its place unless the peer is ready."""
        with self._taken() as park:
            plan = self._plan(park)
            self._spend()
            self._log(plan)
            launched = self._launched(plan)
            if launched.outcome != "up":
                return self._failed(plan, launched)
            return self._ready(plan, launched)

    @contextmanager
    def _taken(self) -> Iterator[Park | None]:
        """Take the park marker so that it is neither lost nor used twice, whatever breaks off in between."""
        park = self._park()
        try:
            yield park
        finally:
            self._marks.give_back_park(self._peer.identity)  # unless it was used up

    def _park(self) -> Park | None:
        """Take the marker; one that cannot be read is put aside, and the peer is not kept asleep by it."""
        identity = self._peer.identity
        try:
            return self._marks.take_park(identity)
        except InstarError as error:
            if set_aside(self._edges.markers.folder / f"{identity}{MARKER}", int(self._edges.clock.wall())) is None:
                raise
            self._warn("marker-unreadable", str(error))
            return None

    def _plan(self, park: Park | None) -> _Plan:
        past = self._edges.past(self._peer.identity, park)
        decision = decide(self._situation(park, past), self._edges.policy())
        resumable = _resumable(past)
        if decision.mode == "fail":
            raise Refused(decision.cause, decision.why, mode="fail", resumable=resumable)
        task = self._order.task
        if decision.mode == "resume" and past:
            return _Plan(decision, replace(self._peer, cwd=past.cwd), task, past.session_id, resumable)
        message = together(self._peer.initial_prompt, task)
        return _Plan(decision, self._peer, message, None, resumable)

    def _situation(self, park: Park | None, past: Past | None) -> Situation:
        identity, order = self._peer.identity, self._order
        cause = self._marks.ended(identity, name_of(self._life))
        if not cause and self._life.session:
            cause = self._edges.end(self._life).cause
        return Situation(
            want=order.want,
            is_parked=park is not None,
            resumable=Resumable(past.idle_s, past.tokens) if past and not past.fault else None,
            is_renewed=self._marks.fresh_next(identity),
            end=cause if cause in ("host-reboot", "server-dead") else "",
            is_human=self._peer.is_human,
            topic=order.topic.strip(),
            topics=tuple(self._marks.topics(identity)),
        )

    def _spend(self) -> None:
        """Count the wake, so that two peers that wake each other come to rest."""
        if not self._order.is_counted:
            return
        limit = self._edges.policy().wakes_per_hour
        again = self._edges.allowance.spend(self._peer.identity, "wakes", limit)
        if again is not None:
            raise Refused("hourly-budget", f"it was woken {limit} times in an hour", retryAfter=again)

    def _launched(self, plan: _Plan) -> Launched:
        owes = plan.resumes is None and plan.peer.initial_prompt
        with suppress(InstarError):  # it is told, most likely, by this very start
            (self._marks.set_untold if owes else self._marks.clear_untold)(self._peer.identity)
        try:
            return self._edges.launch(plan.peer, plan.message, plan.resumes)
        except InstarError as error:
            self._count()
            raise self._refused(plan, "launch-failed", str(error)) from error

    def _ready(self, plan: _Plan, launched: Launched) -> dict[str, Any]:
        """Put down that it lives. What cannot be put down changes nothing about that."""
        identity, now, rules = self._peer.identity, Moment.of(self._edges.clock), self._edges.policy()
        self._watch(launched)
        used = plan.decision.consumes
        for step in (
            lambda: self._marks.finish_park(identity) if "park" in used else None,
            lambda: self._marks.clear_new_eager(identity),
            lambda: self._marks.change_deaths(identity, lambda ring: deaths.trimmed(ring, now, rules)),
            lambda: self._marks.reset_topics(identity) if plan.resumes is None else None,
            lambda: self._marks.clear_fresh_next(identity) if "fresh-next" in used else None,
        ):
            self._kept_going("after-wake-failed", step)
        note(self._peer, self._edges, self._order.topic)
        if self._marks.stopped(identity):
            raise self._refused(plan, "stopped-mid-wake", f"{self._peer.name} was stopped meanwhile", stopped=True)
        delivered = launched.delivered
        said: dict[str, Any] = {
            "mode": plan.decision.mode, "cause": plan.decision.cause, "reason": plan.decision.why,
            "resumable": plan.resumable, "sessionId": launched.session_id or None,
            "delivery": {"fate": delivered.fate, "why": delivered.why} if delivered else None,
        }  # fmt: skip
        return result(self._peer, status="READY", woke=True, taskDelivered=True, **said)

    def _failed(self, plan: _Plan, launched: Launched) -> dict[str, Any]:
        """Put down what came of it: a survivor is watched, and what left nothing alive is a death."""
        if launched.is_alive:
            self._watch(launched)
        elif launched.outcome != "refused":
            self._count()
        dialog = launched.dialog.name if launched.dialog else None
        raise self._refused(
            plan, launched.outcome, launched.why, woke=launched.is_alive, dialog=dialog,
            sessionId=launched.session_id or None,
        )  # fmt: skip

    def _watch(self, launched: Launched) -> None:
        life = self._edges.live(self._peer.identity)
        if life.state != "alive":
            agent = dict(launched.agent) if launched.agent else None
            life = Life("alive", session=None, agent=agent)
        self._kept_going("unsupervised", lambda: watch(self._peer.identity, life, self._edges, is_new=True))

    def _count(self) -> None:
        identity = self._peer.identity
        self._kept_going("death-not-counted", lambda: self._marks.record_death(identity, is_failed_wake=True))

    def _kept_going(self, cause: str, step: Callable[[], object]) -> None:
        """Do a step after which there is no going back; what fails is told, loudly."""
        why: object
        try:
            why = step()
        except InstarError as error:
            why = str(error)
        if isinstance(why, str) and why:
            self._warn(cause, why)

    def _warn(self, cause: str, why: str) -> None:
        self._edges.log("warning", personality=self._peer.name, identity=self._peer.identity, cause=cause, reason=why)

    def _log(self, plan: _Plan) -> None:
        decision = plan.decision
        self._edges.log(
            "wake", personality=self._peer.name, identity=self._peer.identity, mode=decision.mode,
            cause=decision.cause, ref=plan.resumes, reason=decision.why,
        )  # fmt: skip

    def _refused(self, plan: _Plan, cause: str, reason: str, **said: Any) -> Refused:  # noqa: ANN401 - what JSON holds
        again = deaths.guard(
            self._marks.deaths(self._peer.identity), Moment.of(self._edges.clock), self._edges.policy()
        )
        wait = {"retryAfter": again.retry_after_s} if again else {}
        return Refused(cause, reason, mode="failed", resumable=plan.resumable, **wait, **said)


def _resumable(past: Past | None) -> dict[str, Any] | None:
    """Return what there is to take up, as results tell it."""
    if past is None or past.fault:
        return None
    cost = Resumable(past.idle_s, past.tokens).as_json()
    return {"sessionId": past.session_id, "command": past.text, **cost}
