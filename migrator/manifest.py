"""What is installed where: the data behind `templates/manifest.json`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Installed:
    """One template and the place it has in a project."""

    template: str
    path: str  # relative to the project
    mode: int


HOOKS_FOLDER = ".instar/hooks/instar"

# Files that are wholly ours: overwritten at every migration.
INSTALLED = (
    Installed("hooks/run", f"{HOOKS_FOLDER}/run", 0o755),
    Installed("hooks/build-stop-hook.py", f"{HOOKS_FOLDER}/build-stop-hook.py", 0o755),
    Installed("hooks/stop-gate-router.py", f"{HOOKS_FOLDER}/stop-gate-router.py", 0o755),
    Installed("hooks/session-event-hook.py", f"{HOOKS_FOLDER}/session-event-hook.py", 0o755),
    Installed("hooks/build-state.py", f"{HOOKS_FOLDER}/build-state.py", 0o755),
    Installed("hooks/build-worktree.py", f"{HOOKS_FOLDER}/build-worktree.py", 0o755),
)

# A file that is ours as long as nobody edited it.
SKILL = Installed("skills/build/SKILL.md", ".claude/skills/build/SKILL.md", 0o644)

# The sections of documents: shipped as templates, too, and recognised by their hashes.
SECTION_TEMPLATES = (
    "documents/agents-build.md",
    "documents/claude-build.md",
    "documents/gate.md",
    "documents/sessions.md",
    "documents/peers.md",
)
MANIFEST = "manifest.json"


def sha256(data: bytes) -> str:
    """Return the hex digest that the manifest names a file by."""
    return hashlib.sha256(data).hexdigest()
