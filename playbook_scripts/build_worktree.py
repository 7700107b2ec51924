"""build-worktree: the worktree of a build. `build-state worktree-create|merge|cleanup` become this program.

stdout  one JSON object when piped or with --json; text for people on a terminal
exit    0 done, 1 refused (``{"error", "code", "hint"}``), 2 wrong usage
files   .instar/worktrees/ of the project, its git repository, and the state and audit log of the build
env     git's own variables that name the person; those that name a repository are not passed on
"""

from __future__ import annotations

import sys

from playbook_scripts.command_line import CommandLine, leave
from playbook_scripts.worktree import worktree_cleanup, worktree_create, worktree_merge
from playbook_scripts.worktree_options import add_worktree_commands


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    line = CommandLine("build-state", "The worktree of a build.")
    add_worktree_commands(line, worktree_create, worktree_merge, worktree_cleanup)
    return line.carry_out(sys.argv[1:] if arguments is None else arguments, __file__)


if __name__ == "__main__":
    leave(main())
