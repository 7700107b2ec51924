"""Who owns a build that is started now, and whether anybody will be held."""

from __future__ import annotations

import os

from hooks.common.clock import now_iso
from hooks.common.identity import Self, socket_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from playbook_scripts.answers import Answer

INIT_TMUX_SECONDS = 3.0


def owner_stamp(options: argparse.Namespace) -> dict[str, Any]:
    """Return who owns a build started now: only what is certain, and nothing of ours for somebody else's build."""
    me = Self("", os.environ)
    own = me.client_session()
    session = options.owner_session.strip() or own
    stamp: dict[str, Any] = {"tmux": options.owner_tmux.strip(), "session": session, "stampedAt": now_iso()}
    is_mine = session == own
    if not stamp["tmux"] and (is_mine or "INSTAR_HOOK_TMUX_SESSION" in os.environ):
        stamp.update((key, value) for key, value in me.tmux(INIT_TMUX_SECONDS).items() if key != "panes")
    agent = me.agent()
    if session and is_mine and agent:
        stamp["agent"] = agent
    return stamp


def is_alive(owner: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Say whether another owner than `mine` certainly lives: its process, or its tmux session where that is unknown."""
    agent = owner.get("agent")
    if isinstance(agent, dict):
        return agent != mine.get("agent") and Self("", os.environ).lives(agent)
    tmux = owner.get("tmux")
    return isinstance(tmux, str) and tmux not in ("", mine["tmux"]) and has_tmux_session(tmux)


def has_tmux_session(name: str) -> bool:
    """Say whether the tmux server that is ours, or else the default one, has a session of this name."""
    import subprocess

    socket = socket_of(os.environ)
    command = ["tmux", *(("-S", socket) if socket else ()), "has-session", "-t", f"={name}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=INIT_TMUX_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def warnings_of(root: str, stamp: dict[str, Any]) -> Answer:
    """Return what would keep the new build from being held."""
    warnings = []
    if not (stamp["session"] or stamp["tmux"]):
        warnings.append(
            "no session owns this build, so none will be held: start it from the agent's own shell, "
            "or name the session with --owner-session"
        )
    if not is_registered(root):
        warnings.append(f"no Stop hook is registered in {root}: run instar-migrate there")
    return {"warnings": warnings} if warnings else {}


def is_registered(root: str) -> bool:
    """Say whether the hook is installed, and named in the settings of either client."""
    if not os.path.exists(os.path.join(root, ".instar", "hooks", "instar", "build-stop-hook.py")):
        return False
    for settings in (".claude/settings.json", ".claude/settings.local.json", ".codex/hooks.json"):
        try:
            with open(os.path.join(root, settings), encoding="utf-8", errors="replace") as file:
                if "build-stop-hook" in file.read():
                    return True
        except OSError:
            continue
    return False
