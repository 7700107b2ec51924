"""The one place that ends sessions: a session is parked by steps that a crash between any two of them leaves mendable.

Whoever ends one asks `SessionManager`; it holds for all processes of the machine. What is ended is the recorded agent
process, and what it started; a pane is never closed, and its shell never touched.
"""

from __future__ import annotations

import os
import signal
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.locks import BusyError
from instar.services import Services
from instar.sessions import registry
from instar.sessions.clock import Clock, iso
from instar.sessions.machine.processes import memory
from instar.sessions.parking import ending, parting, resumption
from instar.sessions.parking.markers import Markers, Park, identity_of
from instar.sessions.parking.mending import Mending
from instar.sessions.parking.refusal import RefusedError, gone, word_of
from instar.sessions.protection import GATE, protection
from instar.sessions.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from instar.sessions.machine.tmux import Pane
    from instar.sessions.parking.parting import Server
    from instar.sessions.policy import Policy
    from instar.sessions.registry import Session

    Look = Callable[[str, frozenset[str]], Verdict]
    Tell = Callable[[dict[str, Any]], object]

LOOK_HOLDS_S: Final = 1.0  # for which the last look is believed


@dataclass(frozen=True)
class _Order:
    """Whom to end, and on whose word. Without a look it is a person's, who needs no proof of anything."""

    session_id: str
    reason: str
    status: str
    by: str
    look: Look | None = None
    lifted: frozenset[str] = frozenset()
    is_forced: bool = False


class SessionManager:
    """Ends the sessions of a project.

    `look` judges a session at this moment, with the names of the gates that are lifted. `tell` is given the rows of
    the reap log: one of type "reaped" for each session that was ended, "skipped" for each refusal, "recovered" for
    what was mended. It may fail. `services` knows which peers are run by others.
    """

    def __init__(  # noqa: PLR0913 - every edge is passed in
        self, root: Path, policy: Policy, *, clock: Clock | None = None, tmux: Server, look: Look | None = None,
        tell: Tell = lambda _row: None, graces: ending.Graces | None = None, services: Services | None = None,
    ) -> None:  # fmt: skip
        self.root = root
        self.markers = Markers(root)
        self._policy = policy
        self._clock = clock or Clock()
        self._tmux = tmux
        self._look = look
        self._tell = tell
        self._graces = graces or ending.Graces()
        self._services = services or Services()
        self._mending = Mending(root, self.markers, tmux, tell, self._graces.term_s)

    def terminate(
        self, session_id: str, reason: str, *, by: str, lifted: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Park a session that every gate lets go, but for those that are `lifted`; "protected" never is.

        Return `terminated`, `skipped` (None, or a stable word), `why`, `sessionId`; of one that was ended also `freed`
        in bytes, `resume` (the command for people), `forced` (it took a KILL) and `unfinished` (what recovery is to
        complete). The words: not-found, unreadable, already-<status>, already-gone, protected, in-flight,
        identity-mismatch, not-resumable, state-write-refused, pane-not-kept, look-outdated, eval-error, kill-failed,
        kill-unverified, or the name of the gate that keeps it.
        """
        look = self._look or _no_look
        return self._told(_Order(session_id, reason, "completed", by, look, lifted - {GATE}))

    def kill(self, session_id: str, *, by: str = "operator", force: bool = False) -> dict[str, Any]:
        """End a session because a person says so, at work or not; a protected one only by `force`. As `terminate`."""
        return self._told(_Order(session_id, "manual-kill", "killed", by, is_forced=force))

    def recover(self) -> list[dict[str, Any]]:
        """Complete or undo every parking that broke off; return what was done, a row each. Raise InstarError.

        What another process is at, and what cannot be told, is left as it is.
        """
        return self._mending.recover()

    def settle(self, identity: str, session_id: str) -> list[dict[str, Any]]:
        """Do the same for one identity, whose lock is held; `session_id` is the one to look at where no file tells."""
        return self._mending.settle(identity, session_id)

    def _told(self, order: _Order) -> dict[str, Any]:
        try:
            return {"terminated": True, "skipped": None, "why": "", **self._end(order)}
        except RefusedError as refusal:
            skipped, why = refusal.skipped, str(refusal)
        except BusyError as error:
            skipped, why = "in-flight", str(error)
        except InstarError as error:
            skipped, why = "state-write-refused", str(error)
        row = {"type": "skipped", "sessionId": order.session_id, "reason": order.reason, "origin": order.by}
        with suppress(Exception):
            self._tell({**row, "skipped": skipped, "why": why})
        return {"terminated": False, "skipped": skipped, "why": why, "sessionId": order.session_id}

    def _end(self, order: _Order) -> dict[str, Any]:
        identity = identity_of({**self._wanted(order).record, "id": order.session_id})
        with self.markers.lock(identity):  # step 1
            self._mending.settle(identity, order.session_id)  # what an earlier one left
            return self._end_alone(order, identity)

    def _end_alone(self, order: _Order, identity: str) -> dict[str, Any]:
        under_way = self._begin(order, identity)
        park = under_way.park
        with under_way.held as held:
            state, was_killed = ending.finish(held, self._graces)  # step 7
        if state == "alive":
            self._mending.undo(identity, order.session_id, park)
            raise RefusedError("kill-failed", "it was told to end, and lives")
        if state == "unknown":
            raise RefusedError("kill-unverified", "it was told to end, and nobody can tell whether it did")
        ending.end_helpers(under_way.helpers, self._graces)
        unfinished = self._mending.complete(identity, park)  # step 8
        self._leave_word(under_way, was_killed=was_killed)
        text = park.resume["text"] if park.resume else None
        said = {"sessionId": order.session_id, "freed": park.freed, "resume": text}
        return {**said, "forced": was_killed, "unfinished": unfinished}

    def _begin(self, order: _Order, identity: str) -> _UnderWay:
        """Do all up to the TERM; what breaks off before it leaves everything as it was."""
        park: Park | None = None
        held: ending.Held | None = None
        try:
            record = self._claim(order)  # step 2
            pane = self._pane(order, record)
            park = self._intended(order, record, pane)  # step 3
            self.markers.write_intent(identity, park)  # step 4
            self._have_pane_stay(order, park)
            held = self._held(park)
            looked = self._last_look(order)  # step 5
            helpers = ending.helpers(park.agent)
            self._signal(park, held, looked)  # step 6
        except BaseException:
            if held:
                held.close()
            self._mending.undo(identity, order.session_id, park)
            raise
        return _UnderWay(park, pane, held, helpers)

    def _wanted(self, order: _Order) -> Session:
        """Return the session, if it is one that may be ended."""
        session = registry.session(self.root, order.session_id)
        if session is None:
            raise RefusedError("not-found", "no such session is on record")
        if session.state == "unreadable":
            raise RefusedError("unreadable", "its record cannot be read")
        status = session.text("status")
        if status not in ("running", "starting", "reaping"):
            raise RefusedError(f"already-{status or 'over'}", "its record says that it has ended")
        if session.state == "gone":
            raise gone(session.record)
        kept = protection(session, self._policy.protected, self._services.managed_identity)
        if kept and not order.is_forced:
            raise RefusedError(kept.by, kept.why)
        return session

    def _claim(self, order: _Order) -> dict[str, Any]:
        """Make the record say that the session is being ended, and return it."""
        owner = {"pid": os.getpid(), "by": order.by, "reason": order.reason, "at": iso(self._clock.wall())}
        session = self._wanted(order)
        if session.state == "unproven":
            raise RefusedError("liveness-indeterminate", "its process is not known, or cannot be looked at")

        def edit(record: dict[str, Any]) -> dict[str, Any] | None:
            is_same = record == session.record and record.get("status") != "reaping"
            return {**record, "status": "reaping", "reaping": owner} if is_same else None

        record = registry.change(self.root, order.session_id, edit)
        if record is None:
            now = registry.session(self.root, order.session_id)
            raise word_of(now.record if now else {})
        return record

    def _pane(self, order: _Order, record: dict[str, Any]) -> Pane | None:
        """Return the pane of the session; what a person wants to end is ended without one, too."""
        stamp = record.get("tmux")
        if not isinstance(stamp, dict):
            return None
        try:
            return parting.pane_of(self._tmux, stamp, self._clock.boot())
        except parting.AstrayError as error:
            if order.look is None:
                return None
            raise RefusedError(error.keeps, str(error)) from error

    def _intended(self, order: _Order, record: dict[str, Any], pane: Pane | None) -> Park:
        """Return what is about to be done, with the proof that the session can be taken up again."""
        record = {**record, "id": order.session_id}
        resume: resumption.Resumption | None = None
        try:
            resume = resumption.proven(record)
        except resumption.Unresumable as error:
            if order.look is not None:
                raise RefusedError("not-resumable", str(error)) from error
        ends_with_it = pane is not None and parting.is_command(record["agent"], pane)
        return Park(
            id=uuid.uuid4().hex,
            session_id=order.session_id,
            at=iso(self._clock.wall()),
            by=order.by,
            reason=order.reason,
            status=order.status,
            agent=record["agent"],
            tmux=record["tmux"] if pane else None,
            transcript=str(record.get("transcriptPath", "")),
            resume={**resume.as_json(), "text": resume.text} if resume else None,
            freed=memory(record["agent"]),
            options=parting.options_of(self._tmux, record["tmux"]) if ends_with_it else None,
        )

    def _have_pane_stay(self, order: _Order, park: Park) -> None:
        if park.options is None or park.tmux is None:
            return
        try:
            parting.make_stay(self._tmux, park.tmux, self._line(park))
        except parting.AstrayError as error:
            if order.look is not None:
                raise RefusedError(error.keeps, str(error)) from error

    def _held(self, park: Park) -> ending.Held:
        try:
            return ending.hold(park.agent)
        except ending.GoneError:
            raise gone({"agent": park.agent}) from None
        except ending.UntoldError as error:
            raise RefusedError("liveness-indeterminate", str(error)) from error

    def _last_look(self, order: _Order) -> float:
        """Judge the session for the last time; return when, by the monotonic clock."""
        if order.look is not None:
            try:
                verdict = order.look(order.session_id, order.lifted)
            except Exception as error:
                raise RefusedError("eval-error", f"it cannot be judged: {type(error).__name__}") from error
            if not verdict.is_clear:
                raise RefusedError(verdict.kept_by, verdict.why)
        return self._clock.monotonic()

    def _signal(self, park: Park, held: ending.Held, looked: float) -> None:
        """Tell the agent to end, in a moment in which no hook can take down that something has happened."""

        def edit(record: dict[str, Any]) -> dict[str, Any]:
            if record.get("status") != "reaping":
                raise word_of(record)
            if record.get("agent") != park.agent or (park.tmux and record.get("tmux") != park.tmux):
                raise RefusedError("identity-mismatch", "it went on in another process or pane")
            if self._clock.monotonic() - looked > LOOK_HOLDS_S:
                raise RefusedError("look-outdated", "too much time has gone by since it was judged")
            return {**record, "reaping": {**record.get("reaping", {}), "told": True}}

        def tell_to_end() -> None:
            try:
                held.signal(signal.SIGTERM)
            except ending.GoneError:
                raise gone({"agent": park.agent}) from None
            except ending.UntoldError as error:
                raise RefusedError("kill-failed", str(error)) from error

        registry.change(self.root, park.session_id, edit, then=tell_to_end)

    def _leave_word(self, under_way: _UnderWay, *, was_killed: bool) -> None:
        """Leave the line in the pane, and the pane with the options it had, unless it died with its command."""
        park, pane = under_way.park, under_way.pane
        if pane is None or park.tmux is None:
            return
        if park.options is not None:
            if parting.is_left_dead(self._tmux, park.tmux):
                parting.give_back(self._tmux, park.tmux, park.options)
                return
            parting.restore(self._tmux, park.tmux, park.options)
        is_left_on = was_killed or parting.has_second_screen(self._tmux, park.tmux)
        parting.write_line(pane.terminal, self._line(park), is_left_on=is_left_on)

    def _line(self, park: Park) -> str:
        """Return what a pane says; panes are narrow, so the command that every session has comes first."""
        moment = datetime.fromtimestamp(self._clock.wall()).astimezone().strftime("%Y-%m-%d %H:%M")
        reason = "".join(letter if letter.isprintable() else " " for letter in park.reason)
        words = [f"Parked: instar-sessions resume {park.session_id}", f"{moment}, {reason}"]
        return " | ".join([*words, f"or {park.resume['text']}"] if park.resume else words)


@dataclass(frozen=True)
class _UnderWay:
    """A parking whose agent was told to end."""

    park: Park
    pane: Pane | None
    held: ending.Held
    helpers: list[ending.Stamp]


def _no_look(_session_id: str, _lifted: frozenset[str]) -> Verdict:
    return Verdict("eval-error", "nothing is there to judge it", "low")
