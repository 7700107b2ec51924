"""The command line that the programs of a build share: options, where the project is, how it is answered."""

from __future__ import annotations

import argparse
import os
import sys

from hooks.common.project import find_root, installed_root, main_checkout
from hooks.common.statefile import Build
from hooks.common.trouble import Trouble
from playbook_scripts.answers import Refusal, print_answer, trouble_answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from playbook_scripts.answers import Answer

    Command = Callable[[Build, argparse.Namespace], Answer]
    View = Callable[[Answer], list[str]]


class Parser(argparse.ArgumentParser):
    """A parser whose usage errors are answers, too."""

    def error(self, message: str) -> NoReturn:
        """Refuse."""
        raise Refusal("usage", message, f"see {self.prog} --help")


class CommandLine:
    """A program with commands, each of which runs a function and has a way to be shown to a person."""

    def __init__(self, prog: str, about: str) -> None:
        self.common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
        where = "the project (else: where the script is installed)"
        self.common.add_argument("--project", "--dir", metavar="DIR", help=where)
        self.common.add_argument("--json", action="store_true", help="print one JSON object, on a terminal, too")
        self.parser = Parser(prog=prog, description=about, parents=[self.common])
        # With `prog` given, argparse need not format a usage text for it: that would import half the library.
        self.commands = self.parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser, prog=prog)

    def add(self, name: str, run: Command, about: str, show: View) -> argparse.ArgumentParser:
        """Add a command and return its parser, for its own options."""
        sub = self.commands.add_parser(name, parents=[self.common], help=about, description=about)
        sub.set_defaults(run=run, show=show)
        return sub

    def carry_out(self, arguments: list[str], script: str, *, as_text: Command | None = None) -> int:
        """Run one command, print its answer and return the exit status. `as_text` answers in text, piped or not."""
        as_json = "--json" in arguments or not sys.stdout.isatty()
        show: View | None = None
        try:
            options = self.parser.parse_args(arguments)
            show = options.show
            as_json = as_json and ("--json" in arguments or options.run is not as_text)
            build = Build(root_of(options, script))
            answer: Answer = options.run(build, options)
            if build.unaudited:
                answer = {**answer, "warnings": [*answer.get("warnings", []), *map(str, build.unaudited)]}
        except Refusal as refusal:
            answer = refusal.answer
        except Trouble as trouble:
            answer = trouble_answer(trouble)
        except OSError as error:
            answer = trouble_answer(Trouble("unwritable", f"{error.filename or 'the project'}: {error.strerror}"))
        print_answer(answer, as_json=as_json, show=show)
        return 0 if "error" not in answer else 2 if answer["code"] == "usage" else 1


def count(text: str) -> int:
    """Return a number of things from the command line."""
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def root_of(options: argparse.Namespace, script: str) -> str:
    """Return the project a command is about."""
    named = getattr(options, "project", None)
    if named is None:
        return installed_root(script) or find_root(os.getcwd(), os.environ)
    if not os.path.isdir(named):
        raise Refusal("usage", f"--project {named} is no folder")
    return main_checkout(os.path.abspath(named))


def leave(status: int) -> None:
    """End the process at once: taking the interpreter down in order costs a tenth of its start."""
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads any more
        pass
    os._exit(status)
