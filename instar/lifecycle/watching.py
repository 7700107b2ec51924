"""The `.session` file of a peer that lives: by it the supervisor knows whom to watch, and what became of whom."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from instar.errors import InstarError
from instar.names import names_of

if TYPE_CHECKING:
    from instar.lifecycle.edges import Edges, Life

State = dict[str, Any]


def watch(identity: str, life: Life, edges: Edges, *, is_new: bool) -> str:
    """Have a peer that lives watched; `is_new` is whether it has just been started. Return "", or what failed.

    Only under the lock. It lives whatever becomes of this, and the next who looks tries again.
    """
    whys = []
    try:
        edges.enrol(identity, life)
    except InstarError as error:
        whys.append(str(error))
    before: State | None = None
    with suppress(InstarError):
        before = edges.marks.session(identity)
    after = _state(identity, life, before, edges.clock.wall(), is_new=is_new)
    try:
        if after != before:
            edges.marks.save_session(identity, after)
    except InstarError as error:
        whys.append(str(error))
    return "; ".join(whys)


def woke_at(state: State | None) -> float | None:
    """Return when it was woken, in seconds since 1970; None where nothing says so."""
    at = (state or {}).get("wokeAt")
    return at / 1000 if isinstance(at, (int, float)) and not isinstance(at, bool) else None


def _state(identity: str, life: Life, before: State | None, now: float, *, is_new: bool) -> State:
    """Return what the file is to hold; what a person or a later version put into it stays."""
    runtime, name = names_of(identity)
    is_same = before is not None and life.agent is not None and before.get("agent") == life.agent
    woke = woke_at(before) if is_same and not is_new else None
    said: State = {
        "identity": identity,
        "runtime": runtime,
        "personality": name,
        "cwd": life.session.text("cwd") if life.session else (before or {}).get("cwd"),
        "wokeAt": round((now if woke is None else woke) * 1000),
        "sessionId": life.session.id if life.session else None,
        "agent": life.agent,
        "tmux": life.tmux,
    }
    return {**(before or {}), **{key: value for key, value in said.items() if value is not None}}
