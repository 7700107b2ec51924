"""build-state: the commands of a build that a Stop hook protects. See `build-state --help`.

stdout  one JSON object when piped or with --json; text for people on a terminal
exit    0 done, 1 refused (``{"error", "code", "hint"}``), 2 wrong usage
files   .instar/state/build/ of the project: build-state.json, audit.jsonl, history/
env     INSTAR_PROJECT_DIR; CLAUDE_CODE_SESSION_ID, CODEX_SESSION_ID; TMUX, TMUX_PANE;
        INSTAR_HOOK_TMUX_SESSION and INSTAR_HOOK_NO_TMUX answer in tmux's stead

The project is the one the script is installed in; started from elsewhere it is looked for upwards from the working
folder. In a linked git worktree it is the main checkout.
"""

from __future__ import annotations

import os
import sys

from hooks.common.phases import PHASES
from hooks.common.project import INSTALLED_BELOW
from playbook_scripts.answers import Refusal
from playbook_scripts.command_line import CommandLine, count, leave
from playbook_scripts.commands import SIZES, adopt, ask, cancel, complete, init, step_complete, transition
from playbook_scripts.heartbeat import STATUSES, TOOLS, heartbeat
from playbook_scripts.questions import history, query, report, resume, status
from playbook_scripts.views import as_lines, as_picture
from playbook_scripts.worktree_options import add_worktree_commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from hooks.common.statefile import Build
    from playbook_scripts.answers import Answer


def command_line() -> CommandLine:
    """Return the commands with their options."""
    line = CommandLine("build-state", "The commands of a build that holds its session until it is done.")

    def owner_options(sub: argparse.ArgumentParser) -> None:
        own = "else: the calling one"
        sub.add_argument("--owner-session", metavar="ID", default="", help=f"the client session that owns it ({own})")
        sub.add_argument("--owner-tmux", metavar="NAME", default="", help=f"the tmux session that owns it ({own})")

    sub = line.add("init", init, "start a build that the calling session owns", as_lines)
    sub.add_argument("task", help="what is to be built")
    sizes = "how often its session is held: 3, 5 or 10 times"
    sub.add_argument("--size", choices=list(SIZES), default="STANDARD", help=sizes)
    owner_options(sub)
    sub.add_argument("--total-steps", metavar="N", type=count, default=0, help="how many steps are planned")
    sub = line.add("transition", transition, "move the build to another phase", as_lines)
    sub.add_argument("phase", help=", ".join(PHASES))
    sub.add_argument("--evidence", metavar="TEXT", help="what was seen that allows it")
    sub = line.add("step-complete", step_complete, "record a finished step with its tests", as_lines)
    sub.add_argument("number", type=int, help="the number of the step")
    sub.add_argument("description", help="what was done")
    sub.add_argument("tests", type=int, help="how many tests it has")
    sub.add_argument("passing", type=int, help="how many of them pass")
    sub = line.add("complete", complete, "finish the build", as_lines)
    sub.add_argument("--force", action="store_true", help="from any phase that is not final")
    sub = line.add("cancel", cancel, "end the build unfinished", as_lines)
    sub.add_argument("why", nargs="?", default="", help="why it shall not go on")
    sub = line.add("ask", ask, "let the owner stop until the next prompt or build command", as_lines)
    sub.add_argument("question", help="what the person has to answer")
    sub = line.add("adopt", adopt, "take over the build of an owner that is gone", as_lines)
    owner_options(sub)
    sub.add_argument("--force", action="store_true", help="from an owner that lives, too")
    sub = line.add("heartbeat", heartbeat, "tell the project's server that the build goes on", as_lines)
    sub.add_argument("--tool", choices=TOOLS, default="none", help="what is running")
    sub.add_argument("--status", choices=STATUSES, default="still-working", help="how it goes")
    line.add("status", status, "show where the build stands", as_picture)
    line.add("resume", resume, "say whether there is a build to go on with", as_lines)
    line.add("report", report, "sum the build up, step by step", as_picture)
    sub = line.add("query", query, "show the last entries of the audit log", as_lines)
    sub.add_argument("--event", help="only this event, for example stop.blocked")
    sub.add_argument("--phase", help="only transitions from or to this phase")
    sub.add_argument("--limit", metavar="N", type=int, default=50, help="at most the last N (50)")
    line.add("history", history, "list the finished builds", as_lines)
    add_worktree_commands(line, hand_over, hand_over, hand_over)
    return line


def hand_over(build: Build, _: argparse.Namespace) -> Answer:
    """Become the program for worktrees: it is large, seldom needed, and would slow every other command down."""
    program = os.path.join(build.root, INSTALLED_BELOW, "build-worktree.py")
    if not os.path.exists(program):
        text = f"the program for worktrees is not installed in {build.root}"
        raise Refusal("not_installed", text, "run instar-migrate there")
    os.execv(sys.executable, [sys.executable, "-I", "-S", program, *sys.argv[1:]])  # noqa: S606 - no shell is wanted


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return command_line().carry_out(arguments, __file__, as_text=report)  # the peer's report is text, piped or not


if __name__ == "__main__":
    leave(main())
