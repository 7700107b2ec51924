"""What is to be done about one peer at this moment, by what is found of it: the rows of the supervisor, in order.

All of it runs under the lock of the identity. A session that nobody can tell anything of is left as it is.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.errors import InstarError
from instar.lifecycle import deaths
from instar.lifecycle.watching import watch, woke_at
from instar.names import names_of
from instar.sessions.clock import iso
from instar.sessions.parking import resumption
from instar.sessions.parking.markers import Park
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from instar.lifecycle.edges import Edges, Life
    from instar.lifecycle.ends import End
    from instar.lifecycle.watching import State
    from instar.sessions.registry import Session

Action = Literal[
    "alive", "asleep", "skipped-launchd", "skipped-busy", "skipped-indeterminate", "skipped-error", "skipped-stopped",
    "reaped-gone", "reaped-idle", "needs-eager-fresh",
]  # fmt: skip
QUIET: Final = ("alive", "asleep", "skipped-launchd", "skipped-busy")  # nothing was decided


@dataclass(frozen=True)
class Outcome:
    """What a pass did about an identity. `fields` are further ones of its line in the event log.

    `then` is what is left to do without the lock: "kill" it, "park" it where nothing shows it at work, or "reset" it:
    park it once its turn is over, to be started clean.
    """

    identity: str
    action: Action
    outcome: str
    fields: dict[str, Any] = field(default_factory=dict)
    then: Literal["", "kill", "park", "reset"] = ""
    session_id: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for a program."""
        return {"identity": self.identity, "action": self.action, "outcome": self.outcome, **self.fields}


def tend(identity: str, edges: Edges) -> Outcome:
    """Do what is to be done about a peer, but for ending what lives. Raise InstarError."""
    edges.settle(identity)
    edges.marks.reclaim(identity)
    state = edges.marks.session(identity)
    life = edges.live(identity)
    if life.state == "indeterminate":
        return Outcome(identity, "skipped-indeterminate", "unknown", {"reason": life.why})
    if life.state == "dead":
        return _Death(identity, edges, state, life).outcome()
    return _attend(identity, edges, state, life)


def heal(identity: str, edges: Edges) -> None:
    """Do the same before a wake, which goes on whatever comes of it."""
    try:
        tell(tend(identity, edges), edges)
    except InstarError as error:
        tell(Outcome(identity, "skipped-error", "peer-error-isolated", {"reason": str(error)}), edges)


def tell(outcome: Outcome, edges: Edges, *, is_verbose: bool = False) -> None:
    """Write the line of an outcome, unless nothing was decided."""
    if is_verbose or (outcome.action not in QUIET and not outcome.then):
        said = {"identity": outcome.identity, "action": outcome.action, "outcome": outcome.outcome}
        edges.log("supervise", personality=names_of(outcome.identity)[1], **said, **outcome.fields)


class _Death:
    """A peer that has no session that lives."""

    def __init__(self, identity: str, edges: Edges, state: State | None, life: Life) -> None:
        self._identity = identity
        self._edges = edges
        self._marks = edges.marks
        self._state = state
        self._life = life

    def outcome(self) -> Outcome:
        """Find out why, and put away what it left."""
        marks, identity = self._marks, self._identity
        marks.give_back_park(identity)  # of a wake that broke off
        if self._state is None:
            if marks.new_eager(identity):
                return self._said("needs-eager-fresh", "eager-fresh")
            return self._said("asleep", "nothing-to-do")
        end = self._edges.end(self._life)
        marks.set_ended(identity, name_of(self._life), end.cause)  # its server may end with its pane
        if marks.stopped(identity):
            self._have_marker()
            self._close()
            marks.drop_session(identity)
            return self._said("skipped-stopped", "resume-on-start")
        if not marks.claim(identity):
            return self._said("reaped-gone", "fresh-next-msg", reason="concurrently reaped")
        outcome = self._explained(end)
        self._close()
        marks.drop_claim(identity)
        return outcome

    def _close(self) -> None:
        """Remove the pane that it died in; one that stays is removed by the next start."""
        with suppress(InstarError):
            self._edges.close(self._life)

    def _explained(self, end: End) -> Outcome:
        """Say why it died, and count it where nothing explains it."""
        identity = self._identity
        if self._marks.new_eager(identity):
            self._marks.set_fresh_next(identity)  # should its start fail, the next one is clean as well
            return self._said("needs-eager-fresh", "eager-fresh")
        if end.cause == "parked":
            marker = self._edges.markers.marker(identity)
            return self._said("reaped-idle", "resume-eligible", cause="parked", by=marker.by if marker else None)
        if end.is_crash:
            self._marks.record_death(identity, of=name_of(self._life))
            return self._said("reaped-gone", "fresh-next-msg", cause="crash", death=end.text)
        return self._said("reaped-gone", "fresh-next-msg", cause=end.cause, server=end.server or None)

    def _have_marker(self) -> None:
        """See that a peer that was stopped can be taken up again, where it can at all."""
        markers, session = self._edges.markers, self._life.session
        if session is None or markers.marker(self._identity) is not None:
            return
        park = _park(session, self._edges.clock.wall())
        if park is not None:
            markers.write_intent(self._identity, park)
            markers.promote(self._identity)

    def _said(self, action: Action, outcome: str, **fields: Any) -> Outcome:  # noqa: ANN401 - fields of a line
        return Outcome(self._identity, action, outcome, {key: value for key, value in fields.items() if value})


def _attend(identity: str, edges: Edges, state: State | None, life: Life) -> Outcome:
    """Look after a peer that lives, and say whether it is to be ended."""
    edges.marks.finish_park(identity)  # of a wake that broke off after it had brought the session back
    watch(identity, life, edges, is_new=False)
    life = edges.live(identity) if life.session is None else life
    session_id = life.session.id if life.session else ""
    if edges.marks.stopped(identity):
        said = {"reason": "alive-but-stopped"}
        return Outcome(identity, "reaped-idle", "operator-halt-enforced", said, "kill", session_id)
    if edges.marks.new_eager(identity):
        return Outcome(identity, "needs-eager-fresh", "eager-fresh", {}, "reset", session_id)
    rules, woke = edges.policy(), woke_at(state)
    lived = edges.clock.wall() - woke if woke is not None else 0.0
    if lived > rules.crash_window_s:
        now = Moment.of(edges.clock)
        edges.marks.change_deaths(identity, lambda ring: deaths.settled(ring, now, rules))
    age = idle_s(identity, state, life, edges)
    if rules.idle_s is not None and age is not None and age > rules.idle_s:
        said = {"age": f"{age:.0f}s"}
        return Outcome(identity, "reaped-idle", "resume-eligible", said, "park", session_id)
    return Outcome(identity, "alive", "alive", {} if age is None else {"age": f"{age:.0f}s"})


def idle_s(identity: str, state: State | None, life: Life, edges: Edges) -> float | None:
    """Return for how long nothing was said in a session; None where that cannot be told.

    What was written in it counts, its own beginning and what was delivered to it; never a file's time, nor what its
    pane shows.
    """
    spoken = edges.spoke_at(life.session) if life.session else None
    times = [spoken, woke_at(state), edges.marks.last_delivered(identity)]
    known = [each for each in times if each is not None]
    return max(0.0, edges.clock.wall() - max(known)) if known else None


def name_of(life: Life) -> str:
    """Return what tells one session from every other, so that its death counts once; "" where nothing does."""
    agent = life.agent or {}
    return f"{agent.get('pid')}:{agent.get('start')}:{agent.get('boot')}" if agent else ""


def _park(session: Session, now: float) -> Park | None:
    """Return what a marker is to say of a session that ended before it could be parked; None where nothing is left."""
    record = {**session.record, "id": session.id}
    agent = record.get("agent")
    try:
        resume = resumption.proven(record)
    except resumption.Unresumable:
        return None
    if not isinstance(agent, dict):
        return None
    return Park(
        id=uuid.uuid4().hex,
        session_id=session.id,
        at=iso(now),
        by="stop",
        reason="stopped",
        status="completed",
        agent=agent,
        transcript=session.text("transcriptPath"),
        resume={**resume.as_json(), "text": resume.text},
    )
