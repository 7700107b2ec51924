"""Many at once, and killed at any moment: the budget is exact, no step is lost, no file is torn."""

from __future__ import annotations

import json
import random
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support import Project

EVENT = b'{"session_id":"s"}'


@pytest.fixture
def large(project: Project) -> Project:
    """Return a project whose large build session "s" owns."""
    project.build("init", "a task", "--size", "LARGE", "--owner-session", "s")
    project.build("transition", "executing")
    return project


def start(project: Project, event: bytes = EVENT) -> subprocess.Popen[bytes]:
    """Start the hook and give it its event at once, as a client does: it does not wait for one for long."""
    hook = project.start_hook()
    assert hook.stdin
    hook.stdin.write(event)
    hook.stdin.close()
    hook.stdin = None
    return hook


def answers(hooks: list[subprocess.Popen[bytes]]) -> list[dict[str, str]]:
    said = [json.loads(hook.communicate()[0]) for hook in hooks]
    assert [hook.returncode for hook in hooks] == [0] * len(hooks)
    return said


def test_forty_stops_of_the_owner_at_once_are_held_ten_times(large: Project) -> None:
    said = answers([start(large) for _ in range(40)])

    assert [answer.get("decision") for answer in said].count("block") == 10
    assert large.used == 10
    assert len(large.events("stop.blocked")) == 10
    assert len(large.events("stop.exhausted")) == 1


def test_strangers_at_once_cost_nothing(large: Project) -> None:
    assert answers([start(large, b'{"session_id":"t"}') for _ in range(20)]) == [{}] * 20
    assert large.used == 0


def step(project: Project, number: int) -> subprocess.Popen[bytes]:
    command = [".instar/state/python", ".instar/hooks/instar/build-state.py", *f"step-complete {number} d 1 1".split()]
    return subprocess.Popen(command, cwd=project.root, env=project.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_stops_and_steps_at_once_lose_nothing(large: Project) -> None:
    hooks = [start(large) for _ in range(10)]
    steps = [step(large, number) for number in range(1, 13)]

    said = answers(hooks)
    done = [json.loads(each.communicate()[0])["step"] for each in steps]

    held = [answer for answer in said if "decision" in answer]
    late = [answer for answer in said if "lock_timeout" in answer.get("systemMessage", "")]
    assert len(held) == 10 or late  # on a machine too busy to give the lock within its second, which is told
    assert large.used == len(held)
    assert sorted(each["step"] for each in large.state["steps"]) == sorted(done) == list(range(1, 13))
    assert large.state["totalTests"] == 12


@pytest.mark.parametrize("seed", range(8))
def test_kill_9_at_any_moment_leaves_everything_whole(large: Project, seed: int) -> None:
    chance = random.Random(seed)
    blocks, recorded = 0, []
    for number in range(1, 7):
        hooks, steps = [start(large) for _ in range(2)], [step(large, 2 * number + each) for each in range(2)]
        victims = chance.sample([*hooks, *steps], 2)
        for victim in victims:
            time.sleep(chance.uniform(0, 0.03))  # the moment of the kill is what is being varied
            subprocess.run(["pkill", "-9", "-P", str(victim.pid)], check=False)  # the interpreter below the shell
            victim.kill()
        blocks += sum(b'"block"' in hook.communicate()[0] for hook in hooks)
        recorded += [json.loads(said)["step"] for each in steps if (said := each.communicate()[0])]
        assert isinstance(large.state, dict)

    assert set(recorded) <= {each["step"] for each in large.state["steps"]}
    assert blocks <= large.used <= 10
    large.build("transition", "verifying")
    assert [path.name for path in large.state_path.parent.iterdir() if path.suffix == ".tmp"] == []
    lines = (large.state_path.parent / "audit.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["to"] == "verifying"
