"""The end of a parking, well or not: its last step, its undoing, and the mending of one that broke off."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.locks import BusyError
from instar.sessions import registry
from instar.sessions.machine.processes import liveness
from instar.sessions.parking import parting
from instar.sessions.parking.ending import GoneError, UntoldError, hold
from instar.sessions.parking.markers import Markers, Park, identity_of
from instar.sessions.parking.recovery import Action, Found, action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from instar.sessions.machine.processes import Liveness
    from instar.sessions.parking.parting import Server

ROUNDS: Final = 3  # an intent may hide a marker
PARKS_KEPT: Final = 8


class Mending:
    """Ends what a parking began. All but `recover` only under the lock of the identity.

    `term_s` is for how long an agent that was told to end may take to do so.
    """

    def __init__(
        self, root: Path, markers: Markers, tmux: Server, tell: Callable[[dict[str, Any]], object], term_s: float
    ) -> None:
        self.root = root
        self._markers = markers
        self._tmux = tmux
        self._tell = tell
        self._term_s = term_s

    def undo(self, identity: str, session_id: str, park: Park | None) -> None:
        """Leave everything as it was before; what cannot be undone now, recovery undoes."""
        if park and park.tmux and park.options is not None:
            parting.restore(self._tmux, park.tmux, park.options)
        with suppress(InstarError):
            registry.change(self.root, session_id, _running)
        with suppress(InstarError):
            self._markers.drop_intent(identity)

    def complete(self, identity: str, park: Park) -> list[str]:
        """Do what is to be done once the agent is gone; return what could not be, in words for people."""
        if not self._is_parked(park):
            self._say({**row_of(park), "type": "reaped"})
        whys = (_why_not(self._markers.promote, identity), _why_not(self._write, identity, park))
        return [why for why in whys if why]

    def recover(self) -> list[dict[str, Any]]:
        """Complete or undo every parking that broke off, and return what was done. Raise InstarError."""
        return [row for identity, session_id in self._suspects() for row in self._mended(identity, session_id)]

    def settle(self, identity: str, session_id: str) -> list[dict[str, Any]]:
        """Complete or undo what is left of an identity's parkings; return what was done. Raise InstarError."""
        done: list[dict[str, Any]] = []
        for _ in range(ROUNDS):
            intent = self._markers.intent(identity)
            park = intent or self._markers.marker(identity)
            found = self._found(session_id, park, has_intent=intent is not None)
            if (what := action(found)) == "none":
                break
            self._do(what, identity, session_id, park)
            row = {"type": "recovered", "sessionId": park.session_id if park else session_id, "identity": identity}
            done.append({**row, "action": what})
            self._say(done[-1])
        return done

    def _mended(self, identity: str, session_id: str) -> list[dict[str, Any]]:
        """Settle one identity, so that one that cannot be mended keeps no other from it."""
        try:
            with self._markers.lock(identity):
                return self.settle(identity, session_id)
        except BusyError:
            return []
        except InstarError as error:
            return [{"type": "recovered", "identity": identity, "action": "failed", "why": str(error)}]

    def _suspects(self) -> list[tuple[str, str]]:
        """Return the identities of which something may be left, each with a session of it."""
        found = dict.fromkeys(self._markers.identities(), "")
        for session in registry.sessions(self.root):
            if session.state == "reaping":
                with suppress(InstarError):
                    found[identity_of({**session.record, "id": session.id})] = session.id
        return sorted(found.items())

    def _found(self, session_id: str, park: Park | None, *, has_intent: bool) -> Found:
        session = registry.session(self.root, park.session_id if park else session_id)
        record = session.record if session else {}
        status = "" if session is None else "unreadable" if session.state == "unreadable" else session.text("status")
        if park is None:
            return Found(has_intent=False, has_marker=False, status=status)
        return Found(
            has_intent=has_intent,
            has_marker=not has_intent,
            status=status,
            is_judged=record.get("agent") == park.agent,
            is_parked=_park_id(record) == park.id,
            process=self._process(record, park),
            names_session=bool(park.session_id),
        )

    def _process(self, record: dict[str, Any], park: Park) -> Liveness:
        """Return what has become of the agent; one that was told to end is given the time for it."""
        reaping = record.get("reaping")
        if isinstance(reaping, dict) and reaping.get("told"):
            with suppress(GoneError, UntoldError), hold(park.agent) as held:
                held.wait(self._term_s)
        return liveness(park.agent)

    def _do(self, what: Action, identity: str, session_id: str, park: Park | None) -> None:
        """Do it, and raise InstarError where that fails: the next time finds it as it was."""
        if what == "revert" or park is None:
            registry.change(self.root, session_id, _running)
        elif what == "roll-back":
            if park.tmux and park.options is not None:
                parting.restore(self._tmux, park.tmux, park.options)
            registry.change(self.root, park.session_id, _running)
            self._markers.drop_intent(identity)
        elif what == "roll-forward":
            if unfinished := self.complete(identity, park):
                raise InstarError("; ".join(unfinished))
        elif what == "finish":
            self._write(identity, park)
        elif what == "drop-intent":
            self._markers.drop_intent(identity)
        else:
            self._markers.drop_marker(identity)

    def _write(self, identity: str, park: Park) -> None:
        """Make the record say that it was parked; if it went on in another process, it was not."""
        is_elsewhere = False

        def edit(record: dict[str, Any]) -> dict[str, Any] | None:
            nonlocal is_elsewhere
            is_elsewhere = record.get("agent") != park.agent
            return None if is_elsewhere or _park_id(record) == park.id else _parked(record, park)

        registry.change(self.root, park.session_id, edit)
        if is_elsewhere:
            self._markers.drop_marker(identity)

    def _is_parked(self, park: Park) -> bool:
        session = registry.session(self.root, park.session_id)
        return session is not None and _park_id(session.record) == park.id

    def _say(self, row: dict[str, Any]) -> None:
        with suppress(Exception):  # what was done is done
            self._tell(row)


def _why_not(step: Callable[..., None], *arguments: object) -> str:
    """Do a step; return "", or why it could not be done."""
    try:
        step(*arguments)
    except InstarError as error:
        return str(error)
    return ""


def row_of(park: Park) -> dict[str, Any]:
    """Return what the reap log tells of a parking; one that was told twice has the same `park`."""
    return {
        "sessionId": park.session_id,
        "tmuxSession": (park.tmux or {}).get("session"),
        "reason": park.reason,
        "disposition": park.status,
        "origin": park.by,
        "freed": park.freed,
        "park": park.id,
    }


def _running(record: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of a session that is not being ended; how it went on meanwhile is not touched."""
    after = {key: value for key, value in record.items() if key != "reaping"}
    if record.get("status") == "reaping":
        after["status"] = "running"
    return after if after != record else None


def _parked(record: dict[str, Any], park: Park) -> dict[str, Any]:
    """Return the record of a session that was parked; the client's own word on its end comes second."""
    kept = {key: value for key, value in record.items() if key != "reaping"}
    said = {"id": park.id, "at": park.at, "by": park.by, "reason": park.reason}
    parks = record.get("parks")
    earlier = [each for each in parks if each != park.at] if isinstance(parks, list) else []
    return {
        **kept,
        "parks": [*earlier, park.at][-PARKS_KEPT:],
        "status": park.status,
        "endedAt": record.get("endedAt") or park.at,
        "endedReason": park.reason,
        "parked": {**said, "resume": park.resume, "freed": park.freed},
    }


def _park_id(record: dict[str, Any]) -> str | None:
    parked = record.get("parked")
    found = parked.get("id") if isinstance(parked, dict) else None
    return found if isinstance(found, str) else None
