"""Work on the gate itself is never judged by it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from instar.gate.evidence import Evidence

OWN: Final = (
    ".claude/hooks/autonomous-stop-hook.sh",
    ".instar/hooks/instar/*",
    "docs/specs/context-death-pitfall-prevention*.md",
    "hooks/stop_gate_router.py",
    "hooks/common/signals.py",
    "instar/gate/*",
    "src/server/routes/internal/stop-gate/*",
    "tests/hooks/test_stop_gate_router.py",
    "tests/instar/gate/*",
)


def is_own_work(evidence: Evidence) -> bool:
    """Say whether most files of the session, or the first of its newest commit, are the gate's. Half is not most."""
    commits = evidence.session_commits
    files = {path for commit in commits for path in commit.changed}
    own = {path for path in files if any(fnmatchcase(path, pattern) for pattern in OWN)}
    first = commits[0].changed[:1] if commits else ()
    return len(own) * 2 > len(files) or any(path in own for path in first)
