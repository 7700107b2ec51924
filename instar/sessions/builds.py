"""Whether a session has a build under way: work that goes on over many turns, and outlives an idle screen."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.verdict import Kept

if TYPE_CHECKING:
    from pathlib import Path

    from instar.sessions.registry import Session

STATE: Final = ".instar/state/build/build-state.json"
KEPT_BY: Final = "structural-long-work"
RESTING: Final = ("idle", "complete", "failed", "escalated")
BYTES_AT_MOST: Final = 2 << 20  # more than that is no build's state to its own writer either


def under_way(session: Session, now: float, stale_s: float) -> Kept | None:
    """Return the word for keeping a session whose build is not done; None for no build, or another session's.

    A build that nobody is named for may be anybody's. One that nobody moved for `stale_s` keeps nobody.
    """
    path = session.project / STATE
    try:
        changed = path.stat().st_mtime
        state = _state(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        return Kept(KEPT_BY, f"the build's state cannot be read: {type(error).__name__}", "low")
    phase = state.get("phase")
    if phase in RESTING or not _may_own(session, state.get("owner")) or now - changed > stale_s:
        return None
    return Kept(KEPT_BY, f"a build is under way: it is {phase if isinstance(phase, str) else 'in no known phase'}")


def _state(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        state = json.loads(file.read(BYTES_AT_MOST))
    if not isinstance(state, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - to its reader it is a text that is wrong
    return state


def _may_own(session: Session, owner: object) -> bool:
    stamp = owner if isinstance(owner, dict) else {}
    agent = stamp.get("agent")
    if isinstance(agent, dict) and agent == session.record.get("agent"):
        return True
    named = stamp.get("session")
    return named == session.id if isinstance(named, str) and named else True
