"""The commands of a build, broken at every edge call: all or nothing, the truth about it, and the next one works."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.faults import laws
from tests.faults.harness import Done, Log, Rewind, build, check_all, faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Project

KINDS = ("kill", "disk", "EMFILE", "short")
CHANNEL = {"INSTAR_TELEGRAM_TOPIC": "1"}  # so that a command looks for a server to tell, and into the audit log
NOT_DONE = {"unwritable", "lock_timeout", "state_corrupt"}  # the codes of a command that a failure kept from its work


class Command(NamedTuple):
    """A command that changes the build."""

    arguments: list[str]
    prepare: Callable[[Project], object]
    changes: Callable[[Project], bool]  # whether what it does has been done
    code: str = ""  # of its answer when it did it; none of a success
    again: str = ""  # of its answer when it had been done before


def nothing(_: Project) -> None:
    pass


def begun(project: Project) -> None:
    project.build("init", "a task", "--size", "LARGE", "--owner-session", "s")


def executing(project: Project) -> None:
    begun(project)
    project.build("transition", "executing")
    project.build("step-complete", "1", "first", "2", "2")


def fixed_too_often(project: Project) -> None:
    begun(project)
    project.change_state(phase="verifying", fixIterations=3)


def left_by_the_peer(project: Project) -> None:
    begun(project)
    project.change_state(phase="failed")


def corrupt(project: Project) -> None:
    begun(project)
    project.state_path.write_bytes(b'{"phase":')


def in_phase(phase: str) -> Callable[[Project], bool]:
    return lambda project: bool(project.state["phase"] == phase)


def has_task(task: str) -> Callable[[Project], bool]:
    def has(project: Project) -> bool:
        try:
            return project.state_path.exists() and bool(project.state["task"] == task)
        except ValueError:
            return False

    return has


def has_step(number: int) -> Callable[[Project], bool]:
    return lambda project: number in [step["step"] for step in project.state["steps"]]


INIT = ["init", "next", "--owner-session", "s"]
COMMANDS = {
    "init": Command(INIT, nothing, has_task("next"), again="active_build"),
    "init after a build of the peer": Command(INIT, left_by_the_peer, has_task("next"), again="active_build"),
    "init after a corrupt state": Command(INIT, corrupt, has_task("next"), again="active_build"),
    "transition": Command(["transition", "planning"], begun, in_phase("planning"), again="illegal_transition"),
    "transition to the end": Command(
        ["transition", "complete"], executing, in_phase("complete"), again="build_terminal"
    ),
    "one fix too many": Command(
        ["transition", "fixing"], fixed_too_often, in_phase("escalated"), "fix_limit", "build_terminal"
    ),
    "step-complete": Command(["step-complete", "2", "second", "3", "3"], executing, has_step(2)),
    "complete": Command(["complete"], executing, in_phase("complete")),
    "cancel": Command(["cancel", "why"], begun, in_phase("failed"), again="build_terminal"),
    "ask": Command(["ask", "which?"], begun, lambda project: "asked" in project.state),
    "adopt": Command(
        ["adopt", "--owner-session", "t", "--force"], begun, lambda project: project.state["owner"]["session"] == "t"
    ),
}


def check_answer(command: Command, done: Done, *, is_done: bool) -> None:
    """Assert that the answer is true: done is done, and refused is not done."""
    assert b"Traceback" not in done.stderr, done.stderr.decode()[-600:]
    if not done.stdout:  # it was killed, or could not print what it did
        assert is_done or done.status, "ended well, and not done"
        return
    code = done.answer.get("code", "")
    if code in NOT_DONE:
        assert not is_done, f"refused as {code}, and done all the same: {done.answer['error']}"
    else:
        assert code == command.code, done
        assert is_done, f"answered as done, and not done: {done.stdout!r}"


def check(project: Project, command: Command, fault: str) -> None:
    """Break the command once, and assert all that holds then, and after the next one."""
    before = laws.Seen.of(project)
    done = build(project, fault, *command.arguments, **CHANNEL)
    is_done = command.changes(project)

    laws.the_state_is_whole(project, before)
    laws.the_users_bytes_are_intact(project, before)
    check_answer(command, done, is_done=is_done)
    check_next(project, command, is_done=is_done)


def is_held(project: Project) -> bool:
    """Say whether the session "s" has to be held at its next stop."""
    state = project.state
    is_over = state["phase"] in ("complete", "failed", "escalated")
    return not is_over and "asked" not in state and state["owner"]["session"] == "s"


def check_next(project: Project, command: Command, *, is_done: bool) -> None:
    again = project.build(*command.arguments)
    assert again.get("code", "") == (command.again if is_done else command.code), again
    assert command.changes(project)
    assert project.stop("s").is_held is is_held(project)
    laws.no_temporary_file_is_left(project)
    laws.the_audit_can_be_read(project)
    laws.every_end_is_archived_once(project)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_broken_command_is_done_or_not_done_and_says_which(
    breakable: Project, log: Log, tmp_path: Path, name: str, kind: str
) -> None:
    command = COMMANDS[name]
    command.prepare(breakable)
    rewind = Rewind([breakable.root / ".instar"], tmp_path / "before")
    reads = " reads" if kind == "EMFILE" else ""
    whole = build(breakable, log.fault + reads, *command.arguments, **CHANNEL)
    assert json.loads(whole.stdout).get("code", "") == command.code
    points = faults(kind, log.read())
    assert points

    def check_point(fault: str) -> None:
        rewind()
        check(breakable, command, fault + reads)

    check_all(points, check_point)
