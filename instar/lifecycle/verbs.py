"""What people, and peers, may do with a peer beside waking it. Each returns an object for JSON, and raises nothing.

`status` is "DONE", "READY" or "FAILED"; with the last, `cause` is a stable word and `reason` the sentence for people.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.lifecycle import deaths
from instar.lifecycle.held import held
from instar.lifecycle.orders import AGAIN_S, Order, Refused, result, unknown
from instar.lifecycle.peers import Broken
from instar.lifecycle.supervise import look_after
from instar.lifecycle.tending import idle_s, tell
from instar.lifecycle.wake import wake
from instar.lifecycle.watching import watch
from instar.locks import BusyError
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.lifecycle.edges import Edges, Life, Past
    from instar.lifecycle.peers import Peer
    from instar.sessions.parking.markers import Park

ROUNDS: Final = 3  # somebody else may be at it just then


def send(name: str, message: str, edges: Edges, *, topic: str = "", runtime: str = "") -> dict[str, Any]:
    """Have a message reach a peer: told to it where it lives, else it is woken for it. As `wake`."""
    order = Order(name, message, topic, runtime=runtime, delivers=True)
    try:
        peer = _peer(name, runtime, edges)
        again = edges.allowance.spend(peer.identity, "sends", edges.policy().sends_per_hour)
    except InstarError:
        return wake(order, edges)  # which says what is wrong
    if again is None:
        return wake(order, edges)
    reason = f"it was sent {edges.policy().sends_per_hour} messages in an hour"
    edges.log("send", personality=name, identity=peer.identity, outcome="refused", cause="hourly-budget", reason=reason)
    return result(peer, cause="hourly-budget", reason=reason, retryAfter=again)


def stop(name: str, edges: Edges, *, runtime: str = "") -> dict[str, Any]:
    """End a peer, in all its clients unless one is named, and leave it asleep until `start`, whoever wakes it."""

    def one(peer: Peer) -> dict[str, Any]:
        _require_ours(peer, edges)
        edges.marks.set_stopped(peer.identity)  # from here on no wake begins, and one that is under way ends in vain
        kept = _end(peer.identity, edges)
        edges.log("stopped", personality=peer.name, identity=peer.identity, kept=kept or None)
        if kept:
            raise Refused(kept, f"{peer.name} is stopped, and its session lives still: {kept}", stopped=True)
        return _done(peer, stopped=True)

    return _each(name, runtime, edges, one, "stopped")


def start(name: str, edges: Edges, *, runtime: str = "") -> dict[str, Any]:
    """Let a peer be woken again. It is not woken by that."""

    def one(peer: Peer) -> dict[str, Any]:
        _require_ours(peer, edges)
        with held(edges, peer.identity, edges.policy().start_s):
            was = edges.marks.stopped(peer.identity)
            edges.marks.clear_stopped(peer.identity)
        edges.log("started", personality=peer.name, identity=peer.identity)
        return _done(peer, wasStopped=was)

    return _each(name, runtime, edges, one, "started")


def new(name: str, edges: Edges, *, task: str = "", runtime: str = "") -> dict[str, Any]:
    """Start a peer clean, whatever it is at. As `wake`; `previous` is what it left, `{sessionId, command}` or None.

    It is clean from here on: should the start fail, the next message starts it clean as well.
    """
    try:
        peer = _chosen(name, runtime, edges)
    except InstarError as error:
        return _failed(name, "new", unknown(error), edges)
    try:
        past = _ended_for_good(peer, edges)
    except Refused as refusal:
        return _failed(name, "new", refusal, edges)
    except InstarError as error:
        return _failed(name, "new", Refused("state-unusable", str(error)), edges)
    said = wake(Order(name, task, want="fresh", runtime=peer.runtime, is_counted=False), edges)
    return {**said, "previous": _previous(past)}


def _ended_for_good(peer: Peer, edges: Edges) -> Past | None:
    """End a peer whose next session is to be a clean one, and return what it left. Raise Refused, and InstarError."""
    _require_ours(peer, edges)
    edges.marks.clear_stopped(peer.identity)
    edges.marks.set_fresh_next(peer.identity)
    if kept := _end(peer.identity, edges, by="new"):
        raise Refused(kept, f"{peer.name} could not be ended: {kept}")
    return edges.past(peer.identity, None)


def refresh(name: str, edges: Edges, *, runtime: str = "") -> dict[str, Any]:
    """Have the next wake of a peer be a clean start. What lives goes on."""

    def one(peer: Peer) -> dict[str, Any]:
        _require_ours(peer, edges)
        edges.marks.set_fresh_next(peer.identity)
        edges.log("refresh", personality=peer.name, identity=peer.identity)
        return _done(peer)

    return _each(name, runtime, edges, one, "refresh")


def attach(name: str, edges: Edges, *, runtime: str = "") -> dict[str, Any]:
    """Return, as `command`, what shows a peer to a person, who takes up its last session where it sleeps. As `wake`."""
    with suppress(InstarError):  # the wake says what is wrong
        runtime = _chosen(name, runtime, edges).runtime
    said = wake(Order(name, want="resume", runtime=runtime, is_counted=False), edges)
    if said["status"] != "READY" and not said["woke"]:
        return {**said, "command": None}
    life = edges.live(said["identity"])
    if said["status"] == "READY" and life.state == "dead":  # it ended at that very moment
        reason = f"{name} ended just then; try again"
        return {**said, "status": "FAILED", "cause": "ended", "reason": reason, "retryAfter": AGAIN_S, "command": None}
    return {**said, "command": _command(said["identity"], life)}


def self_fresh(name: str, edges: Edges) -> dict[str, Any]:
    """Have a peer that asks for it start clean once its turn is over; the supervisor does it."""

    def one(peer: Peer) -> dict[str, Any]:
        _require_ours(peer, edges)
        if edges.live(peer.identity).state != "alive":
            raise Refused("not-alive", f"{peer.name} has no session that could ask for a clean start")
        edges.marks.set_new_eager(peer.identity)
        edges.log("self-fresh", personality=peer.name, identity=peer.identity)
        return _done(peer)

    try:
        peer = _chosen(name, "", edges)
    except InstarError as error:
        return _failed(name, "self-fresh", unknown(error), edges)
    return _tried(one, peer, "self-fresh", edges)


def in_all_clients(peer: Peer | Broken) -> list[Peer | Broken]:
    """Return a peer as it is in each of its clients."""
    return [peer] if isinstance(peer, Broken) else [peer.on(each) for each in peer.runtimes]


def status(peer: Peer | Broken, edges: Edges) -> dict[str, Any]:
    """Return how a peer is, and change nothing.

    `state` is "alive", "dialog" (it lives, and waits at one for a person), "unknown" (nobody can tell whether it
    lives), "managed", "stopped", "crashed" (it is left asleep), "parked", "asleep" or "broken" (its profile is). The
    rest is there where it is known: `reason`, `sessionId`, `dialog`, `idleMinutes`, `tokens`, `resume` (a command),
    `deaths` and `nextTry` (in how many seconds).
    """
    if isinstance(peer, Broken):
        return {"name": peer.name, "state": "broken", "reason": peer.why}
    said = {"name": peer.name, "runtime": peer.runtime, "identity": peer.identity, "cwd": str(peer.cwd)}
    try:
        return {**said, **_state(peer, edges)}
    except InstarError as error:
        return {**said, "state": "unknown", "reason": str(error)}


def _state(peer: Peer, edges: Edges) -> dict[str, Any]:
    life = edges.live(peer.identity)
    session = {"sessionId": life.session.id if life.session else None}
    if managed := edges.managed(peer.name):
        return {"state": "managed", "reason": managed.why, **session}
    if life.state == "indeterminate":
        return {"state": "unknown", "reason": life.why, **session}
    is_stopped = edges.marks.stopped(peer.identity)
    if life.state == "alive":
        dialog = edges.dialog(life)
        idle = idle_s(peer.identity, edges.marks.session(peer.identity), life, edges)
        minutes = {"idleMinutes": None if idle is None else int(idle // 60)}
        return {
            "state": "dialog" if dialog else "alive",
            "dialog": dialog,
            "isStopped": is_stopped,
            **session,
            **minutes,
        }
    past = edges.past(peer.identity, _marker(peer.identity, edges))
    left: dict[str, Any] = {**session, "resume": past.text if past and not past.fault else None}
    if past and not past.fault:
        left |= {"idleMinutes": None if past.idle_s is None else int(past.idle_s // 60), "tokens": past.tokens}
    if is_stopped:
        return {"state": "stopped", **left}
    now, rules, ring = Moment.of(edges.clock), edges.policy(), edges.marks.deaths(peer.identity)
    if refusal := deaths.guard(ring, now, rules):
        count = {"deaths": refusal.deaths or refusal.failures, "nextTry": refusal.retry_after_s}
        return {"state": "crashed", "reason": refusal.reason, **count, **left}
    return {
        "state": "parked" if edges.marks.is_parked(peer.identity) else "asleep",
        "deaths": deaths.recent(ring, now, rules),
        **left,
    }


def _marker(identity: str, edges: Edges) -> Park | None:
    """Return what is parked, as far as it can be read."""
    try:
        return edges.markers.marker(identity)
    except InstarError:
        return None


def _peer(name: str, runtime: str, edges: Edges) -> Peer:
    peer = edges.peer(name)
    return peer.on(runtime) if runtime else peer


def _chosen(name: str, runtime: str, edges: Edges) -> Peer:
    """Return a peer in the client that is named, else in the only one it lives in, else in its own, or raise."""
    peer = _peer(name, runtime, edges)
    if runtime or len(peer.runtimes) == 1:
        return peer
    live = [each for each in peer.runtimes if edges.live(peer.on(each).identity).state == "alive"]
    return peer.on(live[0]) if len(live) == 1 else peer


def _require_ours(peer: Peer, edges: Edges) -> None:
    if managed := edges.managed(peer.name):
        raise Refused(f"{managed.by}-managed", managed.why)


def _each(name: str, runtime: str, edges: Edges, one: Callable[[Peer], dict[str, Any]], verb: str) -> dict[str, Any]:
    """Do it to a peer in all its clients, unless one is named; the first that fails is what is told."""
    try:
        peer = _peer(name, runtime, edges)
    except InstarError as error:
        return _failed(name, verb, unknown(error), edges)
    done = [_tried(one, peer.on(each), verb, edges) for each in ((peer.runtime,) if runtime else peer.runtimes)]
    failed = [each for each in done if each["status"] == "FAILED"]
    return {**(failed or done)[0], "runtimes": done}


def _tried(one: Callable[[Peer], dict[str, Any]], peer: Peer, verb: str, edges: Edges) -> dict[str, Any]:
    try:
        return one(peer)
    except Refused as refusal:
        refused = refusal
    except BusyError as error:
        refused = Refused("wake-lock-held", str(error), retryAfter=AGAIN_S)
    except InstarError as error:
        refused = Refused("state-unusable", str(error))
    return _failed(peer.name, verb, refused, edges)


def _end(identity: str, edges: Edges, by: str = "stop") -> str:
    """End a session that lives, whatever it is at; return "", or the word for why it lives still. Raise InstarError."""
    word = ""
    for _ in range(ROUNDS):
        with held(edges, identity, edges.policy().start_s):
            life = edges.live(identity)
            if life.state == "alive" and life.session is None:
                watch(identity, life, edges, is_new=False)
                life = edges.live(identity)
        if life.state == "indeterminate":
            return "liveness-indeterminate"
        if life.state == "dead":
            tell(look_after(identity, edges, edges.policy().start_s), edges)
            return ""
        if life.session is None:
            return "no-record"
        word = str(edges.kill(life.session.id, by).get("skipped") or "")
    return word or "came-back"


def _command(identity: str, life: Life) -> list[str] | None:
    socket = (life.tmux or {}).get("socket")
    return ["tmux", "-S", str(socket), "attach-session", "-t", f"={identity}"] if socket else None


def _previous(past: Past | None) -> dict[str, Any] | None:
    return {"sessionId": past.session_id, "command": past.text} if past and not past.fault else None


def _done(peer: Peer, **said: Any) -> dict[str, Any]:  # noqa: ANN401 - what JSON holds
    return {"status": "DONE", "name": peer.name, "identity": peer.identity, "runtime": peer.runtime, **said}


def _failed(name: str, verb: str, refused: Refused, edges: Edges) -> dict[str, Any]:
    edges.log(verb, personality=name, outcome="refused", cause=refused.cause, reason=str(refused))
    said = {"status": "FAILED", "name": name, "cause": refused.cause, "reason": str(refused)}
    return {"taskDelivered": False, "woke": False, "retryAfter": None, "stopped": False, **said, **refused.result}
