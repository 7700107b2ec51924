"""What a command answers: an object for programs, lines for people, and refusals with a way out."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from hooks.common.trouble import Trouble

    Answer = dict[str, Any]


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure
    """A command that was not carried out: a stable code, what is wrong, and the way out."""

    def __init__(self, code: str, text: str, hint: str = "", **fields: Any) -> None:
        super().__init__(text)
        self.answer = {"error": text, "code": code, **fields, **({"hint": hint} if hint else {})}


WAYS_OUT = {
    "state_corrupt": "mend the file, or set it aside and start anew with init",
    "lock_timeout": "another command is at work: try again",
    "unwritable": "nothing was changed: make room or make it writable, then try again",
}


def trouble_answer(trouble: Trouble) -> Answer:
    """Return the answer of a command that files kept from being carried out."""
    return Refusal(trouble.code, str(trouble), WAYS_OUT.get(trouble.code, "")).answer


def print_answer(answer: Answer, *, as_json: bool, show: Callable[[Answer], list[str]] | None) -> None:
    """Print the answer: results on standard output, refusals for people on standard error."""
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        if answer.get("code") == "usage":
            sys.stderr.write(harmless(f"build-state: {answer['error']}\n"))
    elif "error" in answer:
        sys.stderr.write(harmless(f"build-state: {answer['error']}\n{answer.get('hint', '')}\n"))
    elif show:
        sys.stdout.write(harmless("\n".join(show(answer)) + "\n"))


def harmless(text: str) -> str:
    """Return a text that cannot steer a terminal: a state, a log and the names of files may be anybody's words."""
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)
