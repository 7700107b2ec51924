"""Who is never ended but by force: whom the operator named, and the sessions of peers that somebody else runs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from instar.sessions.verdict import Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from instar.services import Managed
    from instar.sessions.registry import Session

GATE: Final = "protected"


def protection(session: Session, patterns: Iterable[str], managed: Callable[[str], Managed | None]) -> Kept | None:
    """Return the word that keeps a session, or None; `patterns` are the operator's, and `managed` tells by an identity.

    A service starts its peer without us, so its session may be told by the name of its tmux session alone.
    """
    named = [session.text("identity"), session.text("tmux", "session")]
    names = [each for each in (session.id, session.text("name"), *named) if each]
    for pattern in patterns:
        if any(fnmatchcase(name, pattern) for name in names):
            return Kept(GATE, f"the configuration protects {pattern!r}")
    for found in map(managed, filter(None, named)):
        if found:
            word = "runs" if found.is_sure else "may run"
            return Kept(GATE, f"{found.by} {word} its peer", "high" if found.is_sure else "low")
    return None
