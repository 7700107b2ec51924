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

import argparse
import os
import sys

from hooks.common.phases import PHASES
from hooks.common.project import find_root, installed_root, main_checkout
from hooks.common.statefile import Build
from hooks.common.trouble import Trouble
from playbook_scripts.answers import Refusal, print_answer, trouble_answer
from playbook_scripts.commands import SIZES, adopt, ask, cancel, complete, init, step_complete, transition
from playbook_scripts.heartbeat import STATUSES, TOOLS, heartbeat
from playbook_scripts.questions import history, query, report, resume, status
from playbook_scripts.views import as_lines, as_picture
from playbook_scripts.worktree import worktree_cleanup, worktree_create, worktree_merge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from playbook_scripts.answers import Answer


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are answers, too."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise Refusal("usage", message, f"see {self.prog} --help")


def parser() -> Parser:  # noqa: PLR0915 - a flat list
    """Return the command line."""
    common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--project", "--dir", metavar="DIR", help="the project (else: where the script is installed)")
    common.add_argument("--json", action="store_true", help="print one JSON object, on a terminal, too")
    about = "The commands of a build that holds its session until it is done."
    top = Parser(prog="build-state", description=about, parents=[common])
    commands = top.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    def command(run: Callable[[Build, argparse.Namespace], Answer], about: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(run.__name__.replace("_", "-"), parents=[common], help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    def owner_options(sub: argparse.ArgumentParser) -> None:
        own = "else: the calling one"
        sub.add_argument("--owner-session", metavar="ID", default="", help=f"the client session that owns it ({own})")
        sub.add_argument("--owner-tmux", metavar="NAME", default="", help=f"the tmux session that owns it ({own})")

    sub = command(init, "start a build that the calling session owns")
    sub.add_argument("task", help="what is to be built")
    sizes = "how often its session is held: 3, 5 or 10 times"
    sub.add_argument("--size", choices=list(SIZES), default="STANDARD", help=sizes)
    owner_options(sub)
    sub.add_argument("--total-steps", metavar="N", type=count, default=0, help="how many steps are planned")
    sub = command(transition, "move the build to another phase")
    sub.add_argument("phase", help=", ".join(PHASES))
    sub.add_argument("--evidence", metavar="TEXT", help="what was seen that allows it")
    sub = command(step_complete, "record a finished step with its tests")
    sub.add_argument("number", type=int, help="the number of the step")
    sub.add_argument("description", help="what was done")
    sub.add_argument("tests", type=int, help="how many tests it has")
    sub.add_argument("passing", type=int, help="how many of them pass")
    sub = command(complete, "finish the build")
    sub.add_argument("--force", action="store_true", help="from any phase that is not final")
    sub = command(cancel, "end the build unfinished")
    sub.add_argument("why", nargs="?", default="", help="why it shall not go on")
    sub = command(ask, "let the owner stop until the next prompt or build command")
    sub.add_argument("question", help="what the person has to answer")
    sub = command(adopt, "take over the build of an owner that is gone")
    owner_options(sub)
    sub.add_argument("--force", action="store_true", help="from an owner that lives, too")
    sub = command(heartbeat, "tell the project's server that the build goes on")
    sub.add_argument("--tool", choices=TOOLS, default="none", help="what is running")
    sub.add_argument("--status", choices=STATUSES, default="still-working", help="how it goes")
    command(status, "show where the build stands")
    command(resume, "say whether there is a build to go on with")
    command(report, "sum the build up, step by step")
    sub = command(query, "show the last entries of the audit log")
    sub.add_argument("--event", help="only this event, for example stop.blocked")
    sub.add_argument("--phase", help="only transitions from or to this phase")
    sub.add_argument("--limit", metavar="N", type=int, default=50, help="at most the last N (50)")
    command(history, "list the finished builds")
    sub = command(worktree_create, "make a git worktree for the build, on a branch of its own")
    sub.add_argument("--branch", metavar="NAME", help="the branch (build/<the task>)")
    sub = command(worktree_merge, "merge the build's branch into the one it came from")
    sub.add_argument("--keep-conflict", action="store_true", help="leave a merge with conflicts to be finished by hand")
    sub = command(worktree_cleanup, "remove the worktree, and its branch if it was merged")
    sub.add_argument("--force", action="store_true", help="with what is in no commit")
    return top


def count(text: str) -> int:
    """Return a number of things from the command line."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def root_of(options: argparse.Namespace) -> str:
    """Return the project a command is about."""
    named = getattr(options, "project", None)
    if named is None:
        return installed_root(__file__) or find_root(os.getcwd(), os.environ)
    if not os.path.isdir(named):
        raise Refusal("usage", f"--project {named} is no folder")
    return main_checkout(os.path.abspath(named))


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments or not sys.stdout.isatty()
    show: Callable[[Answer], list[str]] = as_lines
    try:
        options = parser().parse_args(arguments)
        show = as_picture if options.run in (status, report) else as_lines
        build = Build(root_of(options))
        answer: Answer = options.run(build, options)
        if build.unaudited:
            answer = {**answer, "warnings": [*answer.get("warnings", []), *map(str, build.unaudited)]}
        if options.run is report:
            as_json = "--json" in arguments  # the peer's report is text, piped or not
    except Refusal as refusal:
        answer = refusal.answer
    except Trouble as trouble:
        answer = trouble_answer(trouble)
    except OSError as error:
        answer = trouble_answer(Trouble("unwritable", f"{error.filename or 'the project'}: {error.strerror}"))
    print_answer(answer, as_json=as_json, show=show)
    return 0 if "error" not in answer else 2 if answer["code"] == "usage" else 1


def leave(status: int) -> None:
    """End the process at once: taking the interpreter down in order costs a tenth of its start."""
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads any more
        pass
    os._exit(status)


if __name__ == "__main__":
    leave(main())
