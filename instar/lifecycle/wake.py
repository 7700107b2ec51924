"""A message brings a peer back: the right way, once, and not at all where somebody does not want it.

The steps and their order are the contract. Each refusal and each failure is a line of the event log with its cause, and
a result that says what to do about it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from instar.errors import InstarError
from instar.lifecycle import attempt
from instar.lifecycle.clients.messages import unfit
from instar.lifecycle.held import held
from instar.lifecycle.memory.topics import clean_topic
from instar.lifecycle.orders import AGAIN_S, ARRIVED, Order, Refused, result, unknown
from instar.lifecycle.telling import told
from instar.lifecycle.tending import heal
from instar.lifecycle.watching import watch
from instar.locks import BusyError

if TYPE_CHECKING:
    from instar.lifecycle.edges import Edges, Life
    from instar.lifecycle.peers import Peer


def wake(order: Order, edges: Edges) -> dict[str, Any]:
    """Have a peer live, and know its task. Raises nothing but what is a fault of ours.

    Return `status` ("READY" or "FAILED"), `woke` (whether it was started for it), `cause` (a stable word), `reason` (a
    sentence for people), `taskDelivered`, `retryAfter` (seconds; None where trying again is no use, or none is needed),
    `stopped`, `resumable` (`{sessionId, idleMinutes, tokens, command}` of what there is to take up, or None), `mode`
    ("fresh", "resume", "live", or one of `Refused`), `identity`, `runtime`, `sessionId`, `delivery` (`{fate, why}`, or
    None) and `dialog` (the name of the one that it waits at, or None).

    A peer that lives already is READY, with `taskDelivered` False unless the order says to deliver.
    """
    peer: Peer | None = None
    try:
        peer = _peer(order, edges)
        _require_allowed(peer, edges, "")
        seconds = edges.policy().start_s if order.waits_s is None else order.waits_s
        with held(edges, peer.identity, seconds):
            return _alone(order, peer, edges)
    except BusyError as error:
        refused = Refused("wake-lock-held", f"{error}; try again", retryAfter=AGAIN_S)
    except Refused as refusal:
        refused = refusal
    except InstarError as error:
        refused = Refused("state-unusable", str(error))
    return _told(order, peer, refused, edges)


def _peer(order: Order, edges: Edges) -> Peer:
    """Return who is meant, and see that the order can be carried out at all."""
    try:
        peer = edges.peer(order.name)
    except InstarError as error:
        raise unknown(error) from error
    if order.runtime:
        try:
            peer = peer.on(order.runtime)
        except InstarError as error:
            raise Refused("unknown-runtime", str(error)) from error
    try:
        clean_topic(order.topic)
    except InstarError as error:
        raise Refused("topic-refused", str(error)) from error
    if order.task and (why := unfit(peer.runtime, order.task)):
        raise Refused("message-refused", why)
    return peer


def _require_allowed(peer: Peer, edges: Edges, when: str) -> None:
    """Refuse where others run the peer, or it was stopped; `when` is the end of the cause."""
    if managed := edges.managed(peer.name):
        raise Refused(f"{managed.by}-managed{when}", managed.why)
    if edges.marks.stopped(peer.identity):
        cause = f"stopped{when}"
        raise Refused(cause, f"{peer.name} was stopped: instar-peers start {peer.name}", stopped=True)


def _alone(order: Order, peer: Peer, edges: Edges) -> dict[str, Any]:
    """Go on as the only one of all processes that is at this peer."""
    _require_allowed(peer, edges, "-mid-wake")
    heal(peer.identity, edges)
    life = _seen(peer, edges)
    if life.state == "alive":
        said = _awake(order, peer, life, edges)
        if said["status"] == "READY" or said["delivery"]["fate"] != "held":
            return said
        life = _seen(peer, edges)
        if life.state == "alive":
            return said
    if _is_watched(peer, edges):  # it ended at this very moment
        heal(peer.identity, edges)
    if not peer.cwd.is_dir():
        raise Refused("cwd-missing", f"{peer.cwd} is no folder, and {peer.name} works there")
    if edges.is_in_git(peer):
        reason = f"{peer.path} is in git, where anybody may name a program: git rm --cached {peer.path}"
        raise Refused("profile-in-git", reason)
    return attempt.start(order, peer, life, edges)


def _seen(peer: Peer, edges: Edges) -> Life:
    """Return whether it lives. Raise Refused where nobody can tell."""
    life = edges.live(peer.identity)
    if life.state == "indeterminate":
        reason = f"nobody can tell whether {peer.name} lives: {life.why}"
        raise Refused("liveness-indeterminate", reason, retryAfter=AGAIN_S)
    return life


def _is_watched(peer: Peer, edges: Edges) -> bool:
    with suppress(InstarError):
        return edges.marks.session(peer.identity) is not None
    return False


def _awake(order: Order, peer: Peer, life: Life, edges: Edges) -> dict[str, Any]:
    """Find it awake: see that it is watched, and that the message arrives, if that is wanted."""
    watch(peer.identity, life, edges, is_new=False)
    said = {"mode": "live", "cause": "live", "sessionId": life.session.id if life.session else None}
    delivered = told(peer, life, edges, order.task, order.topic) if order.delivers and order.task else None
    if delivered is None:
        return result(peer, status="READY", **said)
    fate = {"delivery": {"fate": delivered.fate, "why": delivered.why}}
    if delivered.fate in ARRIVED:
        return result(peer, status="READY", taskDelivered=True, **said, **fate)
    may_be_told = delivered.fate == "held" or edges.live(peer.identity).state != "alive"
    again = AGAIN_S if may_be_told else None
    failed = {**said, "cause": f"delivery-{delivered.fate}", "reason": delivered.why, "retryAfter": again}
    return result(peer, **failed, **fate)


def _told(order: Order, peer: Peer | None, refused: Refused, edges: Edges) -> dict[str, Any]:
    fields: dict[str, Any] = {"personality": order.name}
    if peer:
        fields["identity"] = peer.identity
    edges.log("wake", **fields, mode=refused.mode, cause=refused.cause, reason=str(refused))
    said = {"mode": refused.mode, "cause": refused.cause, "reason": str(refused), **refused.result}
    return result(peer, **said)
