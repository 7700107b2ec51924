"""What is registered with the clients: which hook runs at which event, and by which command.

The command is one string for all machines and checkouts, built from the role alone: safe to commit, and never a
reason for Codex to ask for trust again. It walks up to the project that has the launcher, from a linked worktree over
to its main checkout, and ends with status 0 whatever happened.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

Client = Literal["claude", "codex"]
CLIENTS: Final[tuple[Client, ...]] = ("claude", "codex")

SETTINGS: Final[dict[Client, str]] = {"claude": ".claude/settings.json", "codex": ".codex/hooks.json"}

# event -> (role, timeout in seconds)
EVENTS: Final[dict[str, tuple[tuple[str, int], ...]]] = {
    "Stop": (("stop-gate-router", 10), ("build-stop-hook", 10)),
    "SessionStart": (("session-event-hook", 5),),
    "UserPromptSubmit": (("session-event-hook", 5),),
    "SessionEnd": (("session-event-hook", 5),),
    "PreCompact": (("session-event-hook", 5),),
}

# Claude tells the model the whole command of every hook at this event, and its SessionStart follows a compaction.
_NOT_WITH: Final[dict[str, Client]] = {"PreCompact": "claude"}

# Codex allows this event no more than so many seconds, and warns where more are asked for.
_CODEX_AT_MOST: Final = {"SessionEnd": 3}

# Claude tells its hooks the project. Codex does not, and what it inherits may be the project of an outer Claude.
_START: Final[dict[Client, str]] = {"claude": "${CLAUDE_PROJECT_DIR:-$PWD}", "codex": "$PWD"}

# Pure shell, for dash and bash. `d` goes up; `j` remembers the one jump to a main checkout.
_WALK: Final = (
    'd=START; j=; while :; do r="$d/.instar/hooks/instar/run"; '
    'if [ -x "$r" ]; then "$r" ROLE; break; fi; '
    '[ -d "$d/.git" ] && break; '
    'if [ -z "$j" ] && [ -f "$d/.git" ]; then j=1; IFS= read -r g <"$d/.git"; g=${g#gitdir: }; '
    "case $g in /*) ;; *) g=$d/$g ;; esac; "
    "case $g in */.git/worktrees/*) d=${g%/.git/worktrees/*}; continue ;; esac; fi; "
    "case $d in */*) d=${d%/*} ;; *) break ;; esac; done; exit 0"
)

_LAUNCHER: Final = ".instar/hooks/instar/run"
_ROLE: Final = re.compile(r"(?<![\w./-])(stop-gate-router|build-stop-hook|session-event-hook)(?![\w.-])")


def command(client: Client, role: str) -> str:
    """Return the command string that runs `role` in any project."""
    walk = _WALK.replace("START", _START[client]).replace("ROLE", role)
    # Codex runs hooks in the account's login shell, which may be none that reads this.
    return walk if client == "claude" else f"/bin/sh -c '{walk}'"


def commands(client: Client) -> frozenset[str]:
    """Return all commands that are registered with a client."""
    return frozenset(command(client, role) for roles in EVENTS.values() for role, _ in roles)


def handlers(client: Client, event: str) -> dict[str, dict[str, Any]]:
    """Return, for each role at an event, its entry in the client's settings."""
    if _NOT_WITH.get(event) == client:
        return {}
    at_most = _CODEX_AT_MOST.get(event, 600) if client == "codex" else 600
    return {
        role: {"type": "command", "command": command(client, role), "timeout": min(timeout, at_most)}
        for role, timeout in EVENTS.get(event, ())
    }


def role_of(entry: object) -> str | None:
    """Return the role that a settings entry runs when it is one of ours, of this version or another, or edited."""
    text = entry.get("command") if isinstance(entry, dict) else None
    if not isinstance(text, str) or _LAUNCHER not in text:
        return None
    found = _ROLE.search(text)
    return found[1] if found else None
