"""No more stops are judged than agreed: an hour, a day, and at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from instar.gate.limits import DAY_S, HOUR_S, Limited, Limits


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def judge(limits: Limits, session: str = "s", times: int = 1) -> str:
    """Return "", or why the last of these was not judged."""
    try:
        for _ in range(times):
            with limits.slot(session):
                pass
    except Limited as limited:
        return limited.kind
    return ""


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_session_is_judged_so_often_an_hour(clock: Clock) -> None:
    limits = Limits(per_session_hour=3, clock=clock)

    assert judge(limits, times=3) == ""
    assert judge(limits) == "rateLimit"
    assert judge(limits, "other") == ""
    clock.now += HOUR_S
    assert judge(limits, times=3) == ""


def test_all_sessions_are_judged_so_often_a_day(clock: Clock) -> None:
    limits = Limits(per_agent_day=3, clock=clock)

    assert [judge(limits, str(number)) for number in range(4)] == ["", "", "", "rateLimit"]
    clock.now += DAY_S - 1
    assert judge(limits) == "rateLimit"
    clock.now += 1
    assert judge(limits) == ""


@pytest.mark.parametrize("back", [1, 10 * DAY_S])
def test_a_clock_that_goes_back_locks_nobody_out_for_longer(clock: Clock, back: float) -> None:
    limits = Limits(per_session_hour=1, clock=clock)
    assert judge(limits) == ""
    clock.now -= back

    assert judge(limits) == "rateLimit"
    clock.now += HOUR_S
    assert judge(limits) == ""


def test_no_more_than_so_many_are_judged_at_once() -> None:
    limits = Limits(in_flight=2, in_flight_session=1, wait_s=0)
    with limits.slot("a"), pytest.raises(Limited, match="shed"), limits.slot("a"):
        pass
    with limits.slot("a"), limits.slot("b"):
        assert judge(limits, "c") == "shed"
    assert judge(limits, "c") == ""


def test_what_was_shed_does_not_count(clock: Clock) -> None:
    limits = Limits(per_session_hour=2, in_flight=1, wait_s=0, clock=clock)
    with limits.slot("a"):
        assert [judge(limits, "b") for _ in range(5)] == ["shed"] * 5

    assert judge(limits, "b", times=2) == ""


def test_one_that_waits_gets_the_slot_that_is_freed() -> None:
    limits = Limits(in_flight=1, wait_s=20)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        with limits.slot("a"):
            waiting = pool.submit(judge, limits, "b")
            assert not waiting.done()
        assert waiting.result(20) == ""
    assert time.monotonic() - began < 10


def test_a_slot_is_freed_whatever_happens_in_it() -> None:
    limits = Limits(in_flight=1, wait_s=0)
    with pytest.raises(KeyError), limits.slot("a"):
        raise KeyError

    assert judge(limits) == ""


def test_of_many_at_once_as_many_are_judged_as_agreed() -> None:
    limits = Limits(per_session_hour=1000, per_agent_day=50, in_flight=4, in_flight_session=2, wait_s=20)
    lock, running, most = threading.Lock(), [0], [0]

    def run(number: int) -> str:
        try:
            with limits.slot(f"s{number % 3}"):
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                with lock:
                    running[0] -= 1
        except Limited as limited:
            return limited.kind
        return ""

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(run, range(120)))
    assert (results.count(""), results.count("rateLimit")) == (50, 70)
    assert most[0] <= 4


def test_sessions_that_are_over_are_forgotten(clock: Clock) -> None:
    limits = Limits(per_agent_day=10_000, clock=clock)
    for number in range(1000):
        judge(limits, str(number))
    clock.now += HOUR_S
    judge(limits)

    assert len(limits._hours) == 1  # noqa: SLF001 - that it does not grow shows nowhere else
