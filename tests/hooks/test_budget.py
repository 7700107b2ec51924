"""How often the owner is held, what it is told, and its ways out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support import Project


@pytest.fixture
def owned(project: Project) -> Project:
    """Return a project with a build that session "s" owns."""
    project.build("init", "Mend the roof", "--owner-session", "s", "--total-steps", "4")
    return project


@pytest.mark.parametrize(("size", "budget"), [("SMALL", 3), ("STANDARD", 5), ("LARGE", 10)])
def test_the_owner_is_held_as_often_as_the_size_says(project: Project, size: str, budget: int) -> None:
    project.build("init", "a task", "--size", size, "--owner-session", "s")

    answers = [project.stop("s", stop_hook_active=True) for _ in range(budget + 2)]

    assert [answer.is_held for answer in answers] == [True] * budget + [False] * 2
    assert project.used == budget
    assert ["last" in answer.answer.get("reason", "") for answer in answers] == [
        number == budget for number in range(1, budget + 3)
    ]
    assert len(project.events("stop.blocked")) == budget
    (exhausted,) = project.events("stop.exhausted")
    assert (exhausted["phase"], exhausted["used"], exhausted["max"]) == ("idle", budget, budget)


def test_a_budget_beyond_all_reason_is_cut(owned: Project) -> None:
    owned.change_state(protection={"reinforcements": 10**6, "label": "endless"}, reinforcementsUsed=49)

    assert [owned.stop("s").is_held for _ in range(2)] == [True, False]


def test_the_reason_says_where_the_build_stands_and_what_to_do(owned: Project) -> None:
    owned.build("transition", "executing")
    owned.build("step-complete", "1", "the beams", "7", "7")
    owned.change_state(worktree={"path": ".instar/worktrees/roof", "branch": "b"})

    reason = owned.stop("s").answer["reason"]

    command = f"{owned.root}/.instar/state/python -I -S {owned.root}/.instar/hooks/instar/build-state.py"
    assert reason.splitlines()[0] == (
        "/build active: phase executing (medium, 1/5 holds used) | 1 of 4 steps, 7 tests | "
        "worktree: .instar/worktrees/roof"
    )
    assert "Task: Mend the roof" in reason
    assert "Next: Finish the current step" in reason
    assert f"{command} COMMAND" in reason
    for way in ('step-complete 2 "what was done" TESTS PASSING', "transition verifying", "status", "ask ", "cancel "):
        assert f"  {way}" in reason


@pytest.mark.parametrize("phase", ["idle", "clarify", "planning", "verifying", "fixing", "hardening", "of the future"])
def test_each_phase_has_its_next_thing(owned: Project, phase: str) -> None:
    owned.change_state(phase=phase)

    assert f"phase {phase} " in owned.stop("s").answer["reason"]


def test_the_command_in_the_reason_works_from_anywhere(
    owned: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reason = owned.stop("s").answer["reason"]
    (line,) = [each for each in reason.splitlines() if each.endswith(" COMMAND")]

    said = owned.run("/bin/sh", "-c", line.replace(" COMMAND", " status"), cwd=tmp_path_factory.mktemp("elsewhere"))

    assert '"task": "Mend the roof"' in said.stdout


def test_a_reason_stays_short_whatever_the_task(owned: Project) -> None:
    owned.change_state(task="x" * 100_000, worktree={"path": "y" * 100_000}, phase="z" * 100_000)

    assert len(owned.stop("s").answer["reason"]) < 8000


def test_a_question_lets_the_owner_stop_until_the_next_prompt(owned: Project) -> None:
    owned.build("ask", "Slate or tile?")

    assert [owned.stop("s", prompt_id="1").answer for _ in range(3)] == [{}] * 3
    assert owned.used == 0
    assert owned.stop("s", prompt_id="2").is_held
    assert "asked" not in owned.state


def test_a_question_ends_with_the_next_build_command(owned: Project) -> None:
    owned.build("ask", "Slate or tile?")
    owned.build("transition", "planning")

    assert owned.stop("s").is_held


def test_codex_names_its_prompts_by_turn(owned: Project) -> None:
    owned.build("ask", "Slate or tile?")

    assert [owned.stop("s", turn_id=turn, client="codex").is_held for turn in "112"] == [False, False, True]


def test_a_cancelled_build_holds_nobody(owned: Project) -> None:
    owned.build("cancel", "sold the house")

    assert owned.stop("s").answer == {}


def running(*names: str) -> dict[str, Any]:
    return {"background_tasks": [{"id": name, "type": "shell", "status": "running"} for name in names]}


def test_work_in_the_background_is_waited_for_once(owned: Project) -> None:
    assert not owned.stop("s", **running("a")).is_held
    assert owned.stop("s", **running("a")).is_held
    assert not owned.stop("s", **running("a", "b")).is_held
    assert not owned.stop("s", session_crons=[{"id": "c"}]).is_held
    assert owned.stop("s", session_crons=[{"id": "c"}]).is_held
    assert owned.used == 2


def test_unknown_keys_survive_every_hold(owned: Project) -> None:
    owned.change_state(theirs={"deep": [1, None, "ü"]})
    owned.stop("s")

    assert owned.state["theirs"] == {"deep": [1, None, "ü"]}


def test_both_clients_and_both_shells_get_the_same_answer(owned: Project) -> None:
    for client in ("claude", "codex"):
        for shell in ("/bin/sh", "/bin/bash"):
            assert owned.stop("s", client=client, shell=shell).is_held
