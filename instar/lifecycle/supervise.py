"""One pass over all peers: who died is put away and counted, who was stopped is ended, who is idle is parked.

One peer that cannot be looked after keeps no other from it.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.lifecycle.held import held
from instar.lifecycle.orders import Order
from instar.lifecycle.peers import Peer
from instar.lifecycle.telling import told
from instar.lifecycle.tending import QUIET, Outcome, tell, tend
from instar.lifecycle.wake import wake
from instar.locks import BusyError
from instar.names import names_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.lifecycle.edges import Edges

TORN_S: Final = 600.0  # for which a file that cannot be read is left where it is


class Supervisor:
    """Looks after the peers of a project. `is_verbose` is whether what was not decided is told as well."""

    def __init__(self, edges: Edges, *, is_verbose: bool = False) -> None:
        self._edges = edges
        self._is_verbose = is_verbose
        self._said: dict[str, object] = {}

    def run(self) -> list[dict[str, Any]]:
        """Make a pass, start clean who asked for it, and return what was done, a row each. Raise InstarError."""
        outcomes = self.tick()
        return [*(each.as_json() for each in outcomes), *self.relaunch(outcomes)]

    def tick(self) -> list[Outcome]:
        """Make a pass, and return an outcome for each peer. Raise InstarError where they cannot be listed."""
        outcomes = []
        for identity in self._identities():
            outcome = self._isolated(identity)
            self._tell(outcome)
            outcomes.append(outcome)
        self._tell_of_servers(outcomes)
        return outcomes

    def relaunch(self, outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
        """Start those clean that asked for it; return the results of the wakes. What fails is tried once more."""
        return [self._relaunched(each.identity) for each in outcomes if each.action == "needs-eager-fresh"]

    def _relaunched(self, identity: str) -> dict[str, Any]:
        runtime, name = names_of(identity)
        marks, is_last = self._edges.marks, True
        try:
            is_last = marks.is_last_eager(identity)
            marks.clear_new_eager(identity)  # first: what fails may not do so for ever
            said = wake(Order(name, want="fresh", runtime=runtime, waits_s=0.0), self._edges)
        except Exception as error:  # noqa: BLE001 - one peer keeps no other from its start
            said = {"status": "FAILED", "cause": "error", "reason": f"{type(error).__name__}: {error}"}
        if said["status"] != "READY" and not said.get("stopped"):
            self._edges.log(
                "attention", personality=name, identity=identity, cause="eager-relaunch-failed", reason=said["reason"]
            )
            if not is_last:
                with suppress(InstarError):
                    marks.set_new_eager(identity, has_failed=True)
        return {"identity": identity, "action": "eager-relaunch", **said}

    def _identities(self) -> list[str]:
        """Return all that may have to be looked after: what has a file of a session, and every peer."""
        found = set(self._edges.marks.identities())
        for peer in self._edges.peers():
            if isinstance(peer, Peer):
                found.update(peer.on(runtime).identity for runtime in peer.runtimes)
        return sorted(identity for identity in found if names_of(identity)[1])

    def _isolated(self, identity: str) -> Outcome:
        try:
            return look_after(identity, self._edges)
        except BusyError:
            return Outcome(identity, "skipped-busy", "in-flight")
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are looked after
            return self._error(identity, error)

    def _error(self, identity: str, error: Exception) -> Outcome:
        """Leave a peer as it is; what has been in the way for long is put aside."""
        why = str(error) if isinstance(error, InstarError) else f"{type(error).__name__}: {error}"
        said = {"reason": why}
        if self._is_torn(identity) and self._edges.marks.session_age_s(identity) > TORN_S:
            aside = self._edges.marks.put_session_aside(identity)
            said["quarantined"] = aside.name if aside else "failed"
        return Outcome(identity, "skipped-error", "peer-error-isolated", said)

    def _is_torn(self, identity: str) -> bool:
        try:
            self._edges.marks.session(identity)
        except InstarError:
            return True
        return False

    def _tell(self, outcome: Outcome) -> None:
        """Write the line of an outcome; one that only goes on is written once."""
        key = (outcome.action, outcome.outcome, outcome.fields.get("kept"), outcome.fields.get("reason"))
        is_known = self._said.get(outcome.identity) == key
        self._said[outcome.identity] = key
        is_news = outcome.action not in QUIET or outcome.outcome == "kept"
        goes_on = outcome.action.startswith("skipped-") or outcome.outcome == "kept"
        if self._is_verbose or (is_news and not (is_known and goes_on)):
            tell(outcome, self._edges, is_verbose=True)

    def _tell_of_servers(self, outcomes: list[Outcome]) -> None:
        """Tell of a tmux server that died once, not once for each peer that was in it."""
        for server, count in Counter(each.fields.get("server") for each in outcomes).items():
            if server:
                self._edges.log("server-dead", server=server, peers=count)


def look_after(identity: str, edges: Edges, seconds: float = 0.0) -> Outcome:
    """Do all that is to be done about one peer; wait for its lock for so long. Raise BusyError, and InstarError."""
    if managed := edges.managed(names_of(identity)[1]):
        return Outcome(identity, "skipped-launchd", "read-only-h4", {"reason": managed.why})
    with held(edges, identity, seconds):
        outcome = tend(identity, edges)
        if outcome.action == "alive":
            _remind(identity, edges)
    return _ended(outcome, edges, seconds) if outcome.then else outcome


def _remind(identity: str, edges: Edges) -> None:
    """Tell one that lives what a clean start still owes it. A profile that cannot be used owes nothing."""
    if edges.marks.untold(identity):
        runtime, name = names_of(identity)
        with suppress(InstarError):
            told(edges.peer(name).on(runtime), edges.live(identity), edges)


def _ended(outcome: Outcome, edges: Edges, seconds: float) -> Outcome:
    """End what is to be ended. The manager takes the lock itself, and looks for the last time."""
    identity = outcome.identity
    if not outcome.session_id:
        return Outcome(identity, "skipped-error", "no-record", outcome.fields)
    if outcome.then == "kill":
        ended = edges.kill(outcome.session_id, "stop")
    else:
        reason = "supervise-idle" if outcome.then == "park" else "self-fresh"
        ended = edges.park(outcome.session_id, reason, outcome.then == "reset")
    if not ended.get("terminated"):
        return Outcome(identity, "alive", "kept", {**outcome.fields, "kept": str(ended.get("skipped"))})
    with held(edges, identity, seconds):
        after = tend(identity, edges)
    if after.action in ("alive", "skipped-indeterminate"):
        return after  # somebody has woken it since
    return Outcome(identity, outcome.action, outcome.outcome, outcome.fields)
