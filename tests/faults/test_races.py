"""Many at once, killed at any moment: one wins where one can, and every law holds."""

from __future__ import annotations

import random
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest

from tests.faults import laws
from tests.faults.harness import finish, kill_tree, start, start_stop

if TYPE_CHECKING:
    import subprocess

    from support import Project

ROUNDS = 10
BUDGET = 10
SEEDS = range(20)  # 200 rounds; a seed that found something is added here and kept, with what it found
CALLS = 12  # about as many edge calls as a stop or a command makes


@pytest.mark.parametrize("attempt", range(3))
def test_of_twenty_inits_at_once_one_wins(breakable: Project, attempt: int) -> None:
    if attempt:  # over a build that is finished: the winner archives it, once
        breakable.build("init", "the one before")
        breakable.build("cancel")
    started = [start(breakable, "init", f"task {number}", "--owner-session", f"s{number}") for number in range(20)]

    done = [finish(process) for process in started]

    won = [each.answer["task"] for each in done if each.status == 0]
    assert won == [breakable.state["task"]]
    assert {each.answer["code"] for each in done if each.status} == {"active_build"}
    assert [event["task"] for event in breakable.events("build.initialized")][bool(attempt) :] == won
    assert len(list((breakable.state_path.parent / "history").glob("*"))) == bool(attempt)


@pytest.mark.parametrize("attempt", range(2))
def test_of_ten_ends_at_once_one_is_recorded(breakable: Project, attempt: int) -> None:
    breakable.build("init", "a task")
    breakable.build("transition", "executing")
    ends = [["cancel"], ["complete"], ["transition", "complete"], ["transition", "failed"]]

    done = [finish(each) for each in [start(breakable, *ends[(number + attempt) % 4]) for number in range(10)]]

    assert {each.status for each in done} <= {0, 1}
    assert len([event for event in breakable.events("phase.transition") if event["to"] in ("complete", "failed")]) == 1
    laws.every_end_is_archived_once(breakable)


class Race:
    """Rounds of commands and stops at once in one build, some of them killed."""

    def __init__(self, project: Project, seed: int, *, kills: bool) -> None:
        project.build("init", "a task", "--size", "LARGE", "--owner-session", "s")
        project.build("transition", "executing")
        self.project = project
        self.chance = random.Random(seed)
        self.kills = kills
        self.steps = count(1)
        self.acknowledged: list[int] = []
        self.before = laws.Seen.of(project)

    def fault(self) -> str:
        """Draw what befalls a process from inside."""
        if not self.kills or self.chance.random() < 0.6:
            return "none"
        return f"{self.chance.choice(['kill-before', 'kill-after'])}@{self.chance.randint(1, CALLS)}"

    def stop(self) -> subprocess.Popen[bytes]:
        session = self.chance.choice(["s", "s", "t"])
        return start_stop(self.project, session, fault=self.fault(), prompt_id=str(self.chance.random()))

    def command(self) -> subprocess.Popen[bytes]:
        phases = ["executing", "verifying", "fixing", "hardening"]
        commands = [
            ["step-complete", str(next(self.steps)), "done", "1", "1"],
            ["step-complete", str(next(self.steps)), "done", "3", "2"],
            ["transition", self.chance.choice(phases)],
            ["ask", "which?"],
            ["status"],
        ]
        return start(self.project, *self.chance.choice(commands), fault=self.fault())

    def kill_some(self, processes: list[subprocess.Popen[bytes]]) -> None:
        for process in self.chance.sample(processes, 2 if self.kills else 0):
            time.sleep(self.chance.uniform(0, 0.03))  # the moment of the kill is what is being varied
            kill_tree(process)

    def run(self) -> None:
        """Run one round, and assert what holds after it."""
        self.project.change_state(reinforcementsUsed=0, phase="executing", fixIterations=0)
        stops = [self.stop() for _ in range(self.chance.randint(1, 4))]
        commands = [self.command() for _ in range(self.chance.randint(1, 3))]
        self.kill_some([*stops, *commands])
        answers, done = [finish(each) for each in stops], [finish(each) for each in commands]

        heard = [each.answer for each in answers]
        self.acknowledged += [each["step"] for each in (each.answer for each in done) if "step" in each]
        laws.the_state_is_whole(self.project, self.before)
        laws.no_acknowledged_step_is_lost(self.project, self.acknowledged)
        laws.the_users_bytes_are_intact(self.project, self.before)
        laws.the_audit_can_be_read(self.project)
        blocks = sum("decision" in answer for answer in heard)
        laws.the_budget_is_exact(self.project, blocks, all_were_heard=not self.kills)
        assert all(each.status == 0 or each.was_killed for each in answers)

    def end(self) -> None:
        """Assert that all is well once it is quiet."""
        assert self.project.build("transition", "failed")["exit"] == 0
        laws.no_temporary_file_is_left(self.project)
        laws.every_end_is_archived_once(self.project)
        recorded = {event["step"] for event in self.project.events("step.completed")}
        assert set(self.acknowledged) <= recorded


@pytest.mark.parametrize("seed", SEEDS)
def test_races_under_kill_9_break_no_law(breakable: Project, seed: int) -> None:
    race = Race(breakable, seed, kills=True)
    for _ in range(ROUNDS):
        race.run()
    race.end()


@pytest.mark.parametrize("seed", range(3))
def test_races_in_which_nobody_dies_are_exact(breakable: Project, seed: int) -> None:
    race = Race(breakable, seed, kills=False)
    for _ in range(ROUNDS):
        race.run()
    race.end()


@pytest.mark.parametrize("seed", range(4))
def test_builds_that_begin_and_end_in_races_are_each_archived_once(breakable: Project, seed: int) -> None:
    chance = random.Random(seed)
    begun = []
    for number in range(5):
        ends = [start(breakable, "cancel", fault=f"kill-before@{chance.randint(1, 24)}"), start(breakable, "cancel")]
        begins = [start(breakable, "init", f"{number}.{each}") for each in range(3)]
        kill_tree(chance.choice([*ends, *begins]))
        said = [finish(process).answer for process in (*ends, *begins)]
        begun += [answer["task"] for answer in said if answer.get("status") == "initialized"]
        laws.the_audit_can_be_read(breakable)
    breakable.build("cancel")

    tasks = [build["task"] for build in breakable.build("history")["builds"]]
    assert set(begun) <= set(tasks)
    assert sorted(tasks) == sorted(set(tasks))
    laws.no_temporary_file_is_left(breakable)
