"""What a peer that lives is told: a message, and before it the first prompt, where a clean start still owes it that.

A clean start owes it from its beginning until it is done: it may stop at a dialog, or its process may end in the midst.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from instar.errors import InstarError
from instar.lifecycle.orders import ARRIVED

if TYPE_CHECKING:
    from instar.lifecycle.clients.delivery import Delivered
    from instar.lifecycle.edges import Edges, Life
    from instar.lifecycle.peers import Peer


def told(peer: Peer, life: Life, edges: Edges, message: str = "", topic: str = "") -> Delivered | None:
    """Tell a peer that lives what it is owed and a message, under its lock; None where there is nothing to tell."""
    text = together(_owed(peer, life, edges), message)
    if not text:
        return None
    delivered = edges.deliver(peer, life, text)
    has_arrived = delivered.fate in ARRIVED
    if has_arrived:
        note(peer, edges, topic)
    if has_arrived or message:  # the first prompt alone is tried again and again
        reason = None if has_arrived else delivered.why
        edges.log("send", personality=peer.name, identity=peer.identity, outcome=delivered.fate, reason=reason)
    return delivered


def note(peer: Peer, edges: Edges, topic: str = "") -> None:
    """Remember that a peer was told something, and what about. What fails keeps no message from anybody."""
    for step in (edges.marks.clear_untold, edges.marks.set_last_delivered):
        with suppress(InstarError):
            step(peer.identity)
    if topic := topic.strip():
        with suppress(InstarError):
            edges.marks.add_topic(peer.identity, topic)


def together(prompt: str, message: str) -> str:
    """Return what is told at one time of a first prompt and a message, either of which may be ""."""
    return "\n\n".join(text for text in (prompt, message) if text)


def _owed(peer: Peer, life: Life, edges: Edges) -> str:
    """Return the first prompt where it is owed; one whom anybody has prompted in the meantime is past it."""
    if not edges.marks.untold(peer.identity):
        return ""
    if life.session and life.session.text("firstPromptAt"):
        with suppress(InstarError):
            edges.marks.clear_untold(peer.identity)
        return ""
    return peer.initial_prompt
