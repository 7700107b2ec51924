"""The commands for worktrees, as build-state offers them and as their own program carries them out."""

from __future__ import annotations

from playbook_scripts.views import as_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from playbook_scripts.command_line import Command, CommandLine


def add_worktree_commands(line: CommandLine, create: Command, merge: Command, cleanup: Command) -> None:
    """Add the three commands."""
    sub = line.add("worktree-create", create, "make a git worktree for the build, on a branch of its own", as_lines)
    sub.add_argument("--branch", metavar="NAME", help="the branch (build/<the task>)")
    sub = line.add("worktree-merge", merge, "merge the build's branch into the one it came from", as_lines)
    sub.add_argument("--keep-conflict", action="store_true", help="leave a merge with conflicts to be finished by hand")
    sub = line.add("worktree-cleanup", cleanup, "remove the worktree, and its branch if it was merged", as_lines)
    sub.add_argument("--force", action="store_true", help="with what is in no commit")
