"""A machine ends so many sessions an hour and no more, whoever asks; who cannot tell how many ends nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.sessions.reaper import budget as budgets
from instar.sessions.reaper.budget import FILE, HOUR_S, LOCK, Answer, Budget, Limits
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_790_000_000.0


class Machine:
    """A machine's budget, and its clocks."""

    def __init__(self, shared: Path, per_hour: int = 3, cooldown_s: float = 0.0) -> None:
        self.shared = shared
        self.limits = Limits(per_hour, cooldown_s)
        self.now = Moment(1000.0, NOW, "boot")
        self.slept: list[float] = []
        self.budget = Budget(shared, sleep=self.slept.append, chance=lambda: 0.5)

    def passes(self, seconds: float, wall: float | None = None) -> None:
        self.now = replace(
            self.now,
            monotonic=self.now.monotonic + seconds,
            wall=self.now.wall + (seconds if wall is None else wall),
        )

    def take(self, jitter_s: float = 0.0) -> Answer:
        return self.budget.take(self.limits, lambda: self.now, jitter_s)

    def look(self) -> Answer:
        return self.budget.look(self.limits, self.now)

    def write(self, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (self.shared / FILE).write_bytes(data)

    def read(self) -> dict[str, Any]:
        values = json.loads((self.shared / FILE).read_bytes())
        assert isinstance(values, dict)
        return values


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_so_many_may_be_ended_in_an_hour(machine: Machine) -> None:
    answers = [machine.take() for _ in range(4)]

    assert [each.blocked for each in answers] == [None, None, None, "spent"]
    assert [each.used for each in answers] == [1, 2, 3, 3]
    machine.passes(HOUR_S - 1)
    assert machine.take().blocked == "spent"
    machine.passes(1)
    assert machine.take().blocked is None


def test_the_file_is_for_its_owner_and_tells_when(machine: Machine) -> None:
    machine.take()

    assert machine.read() == {"hour": [NOW], "lastReapAt": NOW, "boot": "boot", "monotonic": [1000.0]}
    assert (machine.shared / FILE).stat().st_mode & 0o777 == 0o600


def test_looking_changes_nothing(machine: Machine) -> None:
    assert machine.look() == Answer(0)
    assert not list(machine.shared.iterdir())
    machine.take()
    before = machine.read()

    assert machine.look().used == 1
    assert machine.read() == before


def test_between_two_the_machine_has_time_to_show_what_was_freed(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cooldown_s=60)
    machine.take()
    machine.passes(45)

    answer = machine.take()

    assert (answer.blocked, answer.wait_s) == ("cooldown", 15)
    machine.passes(15)
    assert machine.take().blocked is None


@pytest.mark.parametrize("jump", [-86_400.0, -60.0, 86_400.0])
def test_a_clock_that_is_set_gives_nobody_more(tmp_path: Path, jump: float) -> None:
    machine = Machine(tmp_path, cooldown_s=60)
    for _ in range(2):
        machine.take()
        machine.passes(60)
    machine.passes(0, wall=jump)

    assert machine.look().used == 2
    assert machine.take().blocked is None
    assert machine.take().blocked == "spent"


def test_a_moment_that_lies_ahead_counts_as_now_and_is_over_an_hour_from_now(machine: Machine) -> None:
    machine.write({"hour": [NOW + 1e6] * 3, "lastReapAt": NOW + 1e6})

    assert machine.look().blocked == "spent"
    assert machine.take().blocked == "spent"
    machine.passes(HOUR_S - 1)
    assert machine.take().blocked == "spent"
    machine.passes(1)
    assert machine.take().blocked is None


def test_a_last_one_that_lies_ahead_was_now(tmp_path: Path) -> None:
    machine = Machine(tmp_path, cooldown_s=60)
    machine.write({"hour": [], "lastReapAt": NOW + 1e6})

    assert (machine.take().blocked, machine.take().wait_s) == ("cooldown", 60)
    machine.passes(60)
    assert machine.take().blocked is None


@pytest.mark.parametrize("boot", ["another", "boot"])
@pytest.mark.parametrize("wall", [-1e6, 60.0, 1e6])
def test_after_a_restart_the_last_ones_count_for_an_hour_again(machine: Machine, boot: str, wall: float) -> None:
    for _ in range(3):
        machine.take()
    machine.now = Moment(5.0, NOW + wall, boot)

    assert machine.take().blocked == "spent"
    machine.passes(HOUR_S - 6)
    assert machine.take().blocked == "spent"
    machine.passes(HOUR_S)
    assert machine.take().blocked is None


CORRUPT = [
    b"", b"{", b"\xff", b"[]", b"5", {}, {"hour": 5}, {"hour": ["5"]}, {"hour": [True]}, {"hour": [None]},
    b'{"hour": [NaN]}', b'{"hour": [Infinity]}', {"hour": [], "lastReapAt": "x"}, {"hour": [], "boot": 5},
    {"hour": [], "monotonic": 5}, {"hour": [], "monotonic": ["x"]}, b"[" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("content", CORRUPT, ids=lambda each: repr(each)[:30])
def test_a_file_that_cannot_be_used_ends_nobody_and_stays(machine: Machine, content: object) -> None:
    machine.write(content)
    before = (machine.shared / FILE).read_bytes()

    for answer in (machine.take(), machine.look(), machine.take()):
        assert (answer.blocked, answer.used) == ("unusable", None)
        assert FILE in answer.why
    assert (machine.shared / FILE).read_bytes() == before


def test_what_cannot_be_read_ends_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / FILE).mkdir(parents=True)

    for shared in (tmp_path / "file", tmp_path / "folder"):
        assert Machine(shared).take().blocked == "unusable"


def test_a_lock_that_another_holds_ends_nobody(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "LOCK_S", 0.0)
    with FileLock(machine.shared / LOCK):
        assert machine.take().blocked == "busy"
    assert machine.take().blocked is None


def test_reapers_that_come_at_once_are_spread_before_they_wait_for_the_lock(machine: Machine) -> None:
    def sleep(seconds: float) -> None:
        machine.slept.append(seconds)
        with FileLock(machine.shared / LOCK, timeout=0):
            pass

    Budget(machine.shared, sleep=sleep, chance=lambda: 0.5).take(machine.limits, lambda: machine.now, 5.0)

    assert machine.slept == [2.5]


def test_what_was_not_used_is_given_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path, per_hour=2, cooldown_s=60)
    machine.take()
    machine.passes(60)
    first = machine.read()
    answer = machine.take()
    assert machine.look().blocked == "spent"

    assert machine.budget.give_back(answer)

    assert machine.read() == first
    assert not machine.budget.give_back(Answer(0))


def test_only_once_is_given_back_what_was_taken(machine: Machine) -> None:
    taken = [machine.take() for _ in range(3)]

    for answer in (taken[0], taken[0]):
        machine.budget.give_back(answer)

    assert machine.look().used == 1  # all three have one moment: another's is taken for it, never more than were taken


def test_giving_back_to_a_file_that_cannot_be_used_is_no_error(machine: Machine) -> None:
    answer = machine.take()
    machine.write(b"{")

    assert not machine.budget.give_back(answer)


TAKER = """
import sys
from pathlib import Path
from instar.sessions.reaper.budget import Budget, Limits
from instar.sessions.reaper.candidacy import Moment
from instar.sessions.clock import Clock

budget = Budget(Path(sys.argv[1]), sleep=lambda _: None, chance=lambda: 0.0)
sys.stdin.readline()
answers = [budget.take(Limits(10, 0.0), lambda: Moment.of(Clock()), 0.0) for _ in range(8)]
print(sum(each.blocked is None for each in answers))
"""


@pytest.fixture
def takers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", TAKER, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(6)
    ]
    yield started
    for each in started:
        each.kill()
        each.communicate()


def test_processes_that_ask_at_once_get_no_more_than_there_is(
    tmp_path: Path, takers: list[subprocess.Popen[str]]
) -> None:
    for each in takers:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    taken = [int(each.communicate(timeout=60)[0]) for each in takers]

    assert sum(taken) == 10
    assert len(json.loads((tmp_path / FILE).read_bytes())["hour"]) == 10


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back", "reboot"]),
        st.sampled_from([0.0, 1.0, 59.0, 600.0, 3600.0]),
        st.sampled_from([0.0, 0.0, 0.0, -7200.0, 7200.0, 1e7]),
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_in_no_hour_are_there_more_than_agreed(steps: list[tuple[str, float, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), per_hour=3, cooldown_s=30)
        taken: list[tuple[float, Answer]] = []
        lived = 0.0
        for what, seconds, jump in steps:
            lived += seconds
            machine.passes(seconds, wall=seconds + jump)
            if what == "reboot":
                machine.now = Moment(5.0, machine.now.wall, machine.now.boot + "+")
            elif what == "give back" and taken:
                machine.budget.give_back(taken.pop()[1])
            elif what == "take" and (answer := machine.take()).blocked is None:
                taken.append((lived, answer))
            times = [at for at, _ in taken]
            assert all(sum(at <= each < at + HOUR_S for each in times) <= 3 for at in times)
            assert all(later - at >= 30 for at, later in zip(times, times[1:]))
