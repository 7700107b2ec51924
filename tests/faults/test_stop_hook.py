"""The Stop hook, broken at every edge call: it ends well, counts what it says, leaves a trace, and works again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults import laws
from tests.faults.harness import Call, Log, Rewind, check_all, faults, stop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Project

KINDS = ("kill", "disk", "ENOLCK", "short")
SEAM = {"INSTAR_HOOK_TMUX_SESSION": "A"}


class Case(NamedTuple):
    """A stop in a build, and what happens when nothing breaks."""

    prepare: Callable[[Project], object]
    event: dict[str, Any]
    is_held: bool
    session: str = "s"
    env: dict[str, str] = {}  # noqa: RUF012 - a default that is only read
    is_owner: bool = True


def owned(project: Project) -> None:
    project.build("init", "a task", "--owner-session", "s", "--owner-tmux", "A")
    project.build("transition", "executing")


def asked(project: Project) -> None:
    owned(project)
    project.build("ask", "which?")


def waiting_for_the_answer(project: Project) -> None:
    asked(project)
    project.stop("s", prompt_id="1")


def nearly_spent(project: Project) -> None:
    owned(project)
    project.change_state(reinforcementsUsed=4)


def corrupt(project: Project) -> None:
    owned(project)
    project.state_path.write_bytes(b"[]")


CASES = {
    "a hold": Case(owned, {}, is_held=True),
    "the last hold": Case(nearly_spent, {}, is_held=True),
    "a question": Case(asked, {"prompt_id": "1"}, is_held=False),
    "the prompt after a question": Case(waiting_for_the_answer, {"prompt_id": "2"}, is_held=True),
    "a wait": Case(owned, {"background_tasks": [{"id": "b"}]}, is_held=False),
    "the owner under another id": Case(owned, {}, is_held=True, session="t", env=SEAM),
    "a stranger": Case(owned, {}, is_held=False, session="t", is_owner=False),
    "a corrupt state": Case(corrupt, {}, is_held=False, is_owner=False),
}


def fire(project: Project, case: Case, fault: str) -> laws.Stop:
    return stop(project, fault, case.session, env=case.env, **case.event)


def check(project: Project, case: Case, fault: str, call: Call) -> None:
    """Break the hook once, and assert all that holds then, and at the next stop."""
    before = laws.Seen.of(project)
    said = fire(project, case, fault)

    laws.the_answer_is_valid(said)
    laws.the_state_is_whole(project, before)
    laws.a_stop_changes_only_its_own_keys(project, before)
    laws.the_users_bytes_are_intact(project, before)
    assert case.is_held or not said.is_held
    if case.is_held:
        was_heard = "kill" not in fault and call.subject != "1"
        laws.a_trace_is_left(project, before, said)
        laws.the_budget_is_exact(project, int(said.is_held), all_were_heard=was_heard, since=before.used)
    check_next(project, case)


def check_next(project: Project, case: Case) -> None:
    before = laws.Seen.of(project)
    expected = is_due(project, case)
    assert fire(project, case, "none").is_held is expected
    if case.prepare is not corrupt:
        laws.the_budget_is_exact(project, int(expected), all_were_heard=True, since=before.used)
    if case.is_owner:
        laws.no_temporary_file_is_left(project)
    laws.the_audit_can_be_read(project)


def is_due(project: Project, case: Case) -> bool:
    """Say whether the stop has to be held when it happens once more."""
    if not case.is_held and not case.event:
        return False
    state = project.state
    is_answered = "background_tasks" in case.event and state.get("waitedFor") == ["b"]
    return (case.is_held or is_answered) and state["reinforcementsUsed"] < 5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_a_broken_stop_ends_well_and_the_next_one_is_answered(
    breakable: Project, log: Log, tmp_path: Path, name: str, kind: str
) -> None:
    case = CASES[name]
    case.prepare(breakable)
    rewind = Rewind([breakable.root / ".instar"], tmp_path / "before")
    assert fire(breakable, case, log.fault).is_held is case.is_held
    points = faults(kind, log.read())
    assert points or kind == "ENOLCK"

    def check_point(fault: str) -> None:
        rewind()
        check(breakable, case, fault, points[fault])

    check_all(points, check_point)
