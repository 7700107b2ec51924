"""Whose build it is: proof by session id, by agent process, or by tmux pane, and never a guess."""

from __future__ import annotations

from hooks.common.phases import TERMINAL
from hooks.common.values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hooks.common.identity import Self
    from hooks.common.statefile import Build


def owned(build: Build, me: Self) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the unfinished build that `me` owns, and what has to change in its owner stamp; None if there is none."""
    state = build.load()
    if state is None or state.get("phase") in TERMINAL:
        return None
    stamp = claim(state.get("owner"), me)
    return None if stamp is None else (state, stamp)


def claim(owner: object, me: Self) -> dict[str, Any] | None:
    """Return what has to change in the stamp when `me` owns the build, and None when `me` does not.

    ``{}`` means: mine, and the stamp is right as it is. Nobody owns a build without a stamp.
    """
    stamp = owner if isinstance(owner, dict) else {}
    session, tmux = text_of(stamp, "session").strip(), text_of(stamp, "tmux").strip()
    if not session and not tmux:
        return None
    agent = stamp.get("agent") if isinstance(stamp.get("agent"), dict) else None
    if session and session == me.session:
        # Resumed in a new process: that one is the agent from now on, so that a later `/clear` finds its owner.
        return {} if agent and me.lives(agent) else changes(stamp, me)
    if agent:
        mine = me.agent()
        if mine and all(agent.get(key) == mine[key] for key in mine):
            return changes(stamp, me)
        if me.lives(agent):
            return None
    return changes(stamp, me) if tmux and is_same_pane(stamp, me.tmux()) else None


def is_same_pane(stamp: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Say whether the stamped tmux session is mine: by name, by server where both are known, and by pane.

    Another pane of the session is the owner come back only when the stamped pane is gone.
    """
    if mine["tmux"] != stamp["tmux"]:
        return False
    if "tmuxServer" in stamp and "tmuxServer" in mine and stamp["tmuxServer"] != mine["tmuxServer"]:
        return False
    pane = stamp.get("pane")
    return pane is None or "pane" not in mine or pane == mine["pane"] or pane not in mine["panes"]


def changes(stamp: dict[str, Any], me: Self) -> dict[str, Any]:
    """Return the session id and agent process of `me` where the stamp has others."""
    mine = {"session": me.session, "agent": me.agent()}
    return {key: value for key, value in mine.items() if value and stamp.get(key) != value}
