"""An authority that keeps failing is left alone, and tried again by one at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from instar.gate.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(threshold=3, cooldown_s=300, clock=clock, wall=lambda: clock.now + 5000)


def fail(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        assert breaker.admit()
        breaker.settle(is_usable=False)


def test_it_opens_after_failures_in_a_row_only(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.settle(is_usable=True)
    fail(breaker, 2)

    assert breaker.admit()
    breaker.settle(is_usable=False)
    assert not breaker.admit()


def test_while_open_it_lets_nobody_through_and_counts_them(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 299

    assert [breaker.admit() for _ in range(4)] == [False] * 4
    assert breaker.state() == {
        "open": True, "consecutiveFailures": 3, "openUntil": 6_300_000, "probeLeaseUntil": None,
        "firstOpenedAt": 6_000_000, "suppressedCount": 4,
    }  # fmt: skip


def test_after_the_wait_one_is_let_through_and_its_success_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 300

    assert [breaker.admit() for _ in range(3)] == [True, False, False]
    breaker.settle(is_usable=True)
    assert breaker.admit()
    assert not breaker.state()["open"]


def test_a_probe_that_fails_opens_it_anew(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 300
    fail(breaker, 1)

    assert not breaker.admit()
    clock.now += 300
    assert breaker.admit()
    assert breaker.state()["firstOpenedAt"] == 6_000_000


def test_a_probe_that_never_ends_blocks_the_next_no_longer_than_a_failed_one(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 300
    assert breaker.admit()
    clock.now += 300
    assert breaker.admit()


def test_a_call_from_before_it_opened_changes_nothing(breaker: Breaker, clock: Clock) -> None:
    assert breaker.admit()
    fail(breaker)
    clock.now += 100
    breaker.settle(is_usable=True)
    breaker.settle(is_usable=False)

    assert breaker.state()["openUntil"] == 6_300_000
    assert not breaker.admit()


def test_a_reset_closes_it(breaker: Breaker) -> None:
    fail(breaker)
    breaker.reset()

    assert breaker.admit()
    assert breaker.state()["consecutiveFailures"] == 0


def test_a_threshold_of_nothing_disables_it(clock: Clock) -> None:
    breaker = Breaker(threshold=0, clock=clock)
    fail(breaker, 20)

    assert breaker.admit()
    assert not breaker.state()["open"]


def test_of_many_at_once_one_is_the_probe(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 300
    with ThreadPoolExecutor(16) as pool:
        admitted = list(pool.map(lambda _: breaker.admit(), range(400)))

    assert admitted.count(True) == 1
    assert breaker.state()["suppressedCount"] == 399
