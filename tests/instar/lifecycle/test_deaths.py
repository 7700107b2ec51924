"""A peer that dies too often is left asleep for a while, whatever is done to the clock; and never for ever."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.lifecycle.deaths import (
    AHEAD_S,
    KEPT,
    LONGEST_WAIT_S,
    Death,
    Refusal,
    Ring,
    age_s,
    guard,
    parsed,
    recent,
    record,
    settled,
    trimmed,
    written,
)
from instar.lifecycle.policy import policy
from instar.sessions.reaper.candidacy import Moment

POLICY = policy({})
WINDOW = POLICY.crash_window_s
NOW = Moment(10_000.0, 1_790_000_000.0, "boot")


def after(seconds: float, now: Moment = NOW, *, wall: float | None = None, boot: str | None = None) -> Moment:
    return Moment(now.monotonic + seconds, now.wall + (seconds if wall is None else wall), boot or now.boot)


def dead(*ago: float, is_failed_wake: bool = False) -> Ring:
    return tuple(Death.at(after(-each), is_failed_wake=is_failed_wake) for each in ago)


def test_three_deaths_within_the_window_leave_it_asleep() -> None:
    assert guard((), NOW, POLICY) is None
    assert guard(dead(20, 10), NOW, POLICY) is None
    assert guard(dead(20, 10, 0), NOW, POLICY) == Refusal("crash-loop", "3 deaths in 300s", 281, deaths=3)


def test_deaths_age_out_by_themselves_and_the_edge_of_the_window_is_within() -> None:
    ring = dead(WINDOW, 1, 0)

    assert (recent(ring, NOW, POLICY), guard(ring, NOW, POLICY)) == (
        3, Refusal("crash-loop", "3 deaths in 300s", 1, deaths=3),
    )  # fmt: skip
    assert guard(ring, after(1), POLICY) is None
    assert recent(ring, after(1), POLICY) == 2


def test_of_many_deaths_so_many_have_to_age_out_that_too_few_are_left() -> None:
    refusal = guard(dead(250, 100, 50, 40), NOW, POLICY)

    assert refusal is not None
    assert (refusal.deaths, refusal.retry_after_s) == (4, 201)


@pytest.mark.parametrize("jump", [-1e6, -WINDOW, WINDOW, 1e6])
def test_within_one_boot_a_clock_that_is_set_changes_nothing(jump: float) -> None:
    ring = dead(20, 10, 0)

    assert guard(ring, after(5, wall=5 + jump), POLICY) == guard(ring, after(5), POLICY) is not None
    assert guard(ring, after(WINDOW, wall=jump), POLICY) is None


def test_across_boots_only_the_wall_tells() -> None:
    ring = dead(20, 10, 0)
    now = Moment(1.0, NOW.wall + 30, "another")

    assert guard(ring, now, POLICY) == Refusal("crash-loop", "3 deaths in 300s", 251, deaths=3)
    assert guard(ring, replace(now, wall=NOW.wall + WINDOW), POLICY) is None


def test_without_an_id_of_the_boot_the_wall_tells() -> None:
    bare = Death(NOW.wall - 10, 50.0, "")

    assert age_s(bare, replace(NOW, boot="", monotonic=51.0)) == 10


@pytest.mark.parametrize(("ahead", "age"), [(1.0, 0.0), (AHEAD_S, 0.0), (AHEAD_S + 1, None), (1e9, None)])
def test_what_lies_ahead_is_no_death_but_for_a_clock_a_little_wrong(ahead: float, age: float | None) -> None:
    death = Death(NOW.wall + ahead, 0.0, "another")

    assert age_s(death, NOW) == age
    assert (guard((death,) * 3, NOW, POLICY) is None) == (age is None)


@pytest.mark.parametrize(
    ("failures", "minutes"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (KEPT, 60)]
)
def test_wakes_that_fail_in_a_row_are_waited_out_ever_longer(failures: int, minutes: int) -> None:
    ring = dead(*range((failures - 1) * 1000, -1, -1000), is_failed_wake=True)
    wait = minutes * 60

    refusal = guard(ring, NOW, POLICY)

    assert refusal is not None
    assert (refusal.cause, refusal.retry_after_s, refusal.failures) == ("wake-back-off", wait, failures)
    assert guard(ring, after(wait), POLICY) is None
    assert guard(ring, after(wait - 1), POLICY) is not None


def test_a_session_that_lives_long_ends_the_row_and_a_wake_that_goes_well_does_not() -> None:
    failed = dead(1000, 700, is_failed_wake=True)
    ring = (*failed, *dead(400, 100))

    assert trimmed(ring, NOW, POLICY) == (*failed, *dead(100))
    assert settled(ring, NOW, POLICY) == dead(100)
    assert guard(record(settled(ring, NOW, POLICY), *dead(0, is_failed_wake=True)), NOW, POLICY) == Refusal(
        "wake-back-off", "the last wake failed", 60, failures=1
    )


def test_a_wake_that_failed_counts_as_a_death_too() -> None:
    ring = (*dead(200, 150), *dead(100, is_failed_wake=True))

    assert guard(ring, NOW, POLICY) == Refusal("crash-loop", "3 deaths in 300s", 101, deaths=3)


def test_the_rule_that_refuses_longer_answers() -> None:
    ring = dead(295, 290, 0, is_failed_wake=True)

    assert guard(ring, NOW, POLICY) == Refusal("wake-back-off", "the last 3 wakes failed", 240, failures=3)


def test_the_latest_deaths_are_kept_and_one_that_is_told_twice_counts_once() -> None:
    ring: Ring = ()
    for number in range(KEPT + 5):
        ring = record(ring, Death(float(number)))
    assert [each.wall for each in ring] == [float(number) for number in range(5, KEPT + 5)]

    assert record((Death(1.0, of="s"), Death(2.0, of="t")), Death(3.0, of="s")) == (
        Death(2.0, of="t"), Death(3.0, of="s"),
    )  # fmt: skip


def test_milliseconds_alone_are_deaths() -> None:
    ring = parsed(b"[1790000000000, 1790000001500.0]")

    assert [each.wall for each in ring] == [1_790_000_000.0, 1_790_000_001.5]
    assert parsed(None) == ()
    assert len(parsed(json.dumps(list(range(100))).encode())) == KEPT


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"{}", b"5", b"null", b'["x"]', b"[true]", b"[null]", b"[-1]", b"[NaN]", b"[Infinity]",
        b'[{"at": "x"}]', b"[{}]", b'[{"at": 1, "boot": 5}]', b'[{"at": 1, "of": null}]', b"[" + b"9" * 400 + b"]",
        b'[{"at": 1, "monotonic": []}]', b"[" * 60_000, b"[" + b"9" * 5000 + b"]",
    ],
    ids=lambda each: repr(each)[:30],
)  # fmt: skip
def test_what_are_no_deaths_is_told(content: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parsed(content)


AGES = st.lists(st.tuples(st.integers(0, 8000), st.booleans()), max_size=20)


@given(AGES, st.integers(1, 5), st.sampled_from(["boot", "another"]))
def test_it_is_refused_until_the_time_that_is_told_and_no_longer(
    ages: list[tuple[int, bool]], most: int, boot: str
) -> None:
    rules = replace(POLICY, crash_max=most)
    ring: Ring = ()
    for ago, is_failed_wake in sorted(ages, reverse=True):
        ring = record(ring, Death.at(after(-ago), is_failed_wake=is_failed_wake))
    now = replace(NOW, boot=boot)

    refusal = guard(ring, now, rules)

    if refusal is not None:
        wait = refusal.retry_after_s
        assert 1 <= wait <= max(LONGEST_WAIT_S, WINDOW + 1)
        assert guard(ring, after(wait, now), rules) is None
        assert guard(ring, after(wait - 1, now), rules) is not None
    else:
        assert recent(ring, now, rules) < most


DEATHS = st.builds(
    Death,
    wall=st.integers(0, 10**13).map(lambda each: each / 1000),
    monotonic=st.floats(0, 1e9),
    boot=st.text(max_size=5),
    is_failed_wake=st.booleans(),
    of=st.text(max_size=5),
)


@given(st.lists(DEATHS, max_size=KEPT))
def test_deaths_are_read_as_they_were_written(deaths: list[Death]) -> None:
    assert parsed(written(tuple(deaths))) == tuple(deaths)


@given(st.lists(DEATHS, max_size=20), DEATHS)
def test_the_newest_death_is_always_known(deaths: list[Death], death: Death) -> None:
    ring = record(tuple(deaths), death)

    assert ring[-1] == death
    assert len(ring) <= KEPT
