"""How long a session was seen idle: what was observed counts, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.sessions.policy import Policy, policy
from instar.sessions.reaper.candidacy import (
    REST_TICKS,
    Candidacy,
    Moment,
    drop,
    grace_left_s,
    pend,
    rest,
    step,
    why_due,
)
from instar.sessions.reaper.pressure import TIERS, Tier
from instar.sessions.verdict import ALL_CLEAR, Verdict

POLICY = policy({})
TICK = POLICY.tick_s
START = Moment(1000.0, 1_790_000_000.0, "boot")
CLEAR = Verdict(ALL_CLEAR, "")
UNSURE = Verdict(ALL_CLEAR, "", "low")
KEPT = Verdict("turn-open", "")


def after(moment: Moment, seconds: float, wall: float | None = None) -> Moment:
    return replace(moment, monotonic=moment.monotonic + seconds, wall=moment.wall + (seconds if wall is None else wall))


def look(
    before: Candidacy | None, seconds: float = TICK, verdict: Verdict = CLEAR, *, is_still: bool = True
) -> Candidacy:
    now = START if before is None else after(before.at, seconds)
    return step(before, verdict, is_still=is_still, now=now, policy=POLICY)


def idle(ticks: int) -> Candidacy:
    """Return what so many looks in a row come to that found a session idle."""
    found = look(None)
    for _ in range(ticks - 1):
        found = look(found)
    return found


def test_the_first_look_is_the_first_of_a_run() -> None:
    first = look(None)

    assert (first.consecutive, first.window_s, first.is_confirmed(POLICY)) == (1, 0.0, False)


def test_looks_that_agree_add_what_lies_between_them() -> None:
    found = idle(6)

    assert (found.consecutive, found.window_s) == (6, 5 * TICK)
    assert found.is_confirmed(POLICY)


@pytest.mark.parametrize(
    ("verdict", "is_still", "consecutive"),
    [(KEPT, True, 0), (UNSURE, True, 0), (KEPT, False, 0), (CLEAR, False, 1), (CLEAR, True, 10)],
)
def test_what_contradicts_discards_all(verdict: Verdict, is_still: bool, consecutive: int) -> None:  # noqa: FBT001
    before = pend(replace(idle(9), carried_s=500.0, refusals=2, is_told=True), "reaped-idle", START)

    found = look(before, verdict=verdict, is_still=is_still)

    assert found.consecutive == consecutive
    if consecutive < 10:
        assert found == Candidacy(after(before.at, TICK), consecutive=consecutive)


def test_after_a_look_that_kept_it_a_run_begins_anew() -> None:
    kept = look(idle(9), verdict=KEPT)

    assert look(kept).consecutive == 1
    assert look(kept).window_s == 0


@pytest.mark.parametrize(("observations", "window_s"), [(2, 600.0), (6, 601.0)])
def test_it_takes_both_so_many_looks_and_so_much_time(observations: int, window_s: float) -> None:
    strict = replace(POLICY, confirm_observations=observations, confirm_window_s=window_s)

    assert not replace(idle(6), consecutive=1).is_confirmed(strict)
    assert not replace(idle(6), window_s=window_s - 1).is_confirmed(strict)


@pytest.mark.parametrize("gap", [2 * TICK + 1, 10 * TICK, 86_400.0])
@pytest.mark.parametrize("boot", ["boot", "another"])
def test_after_a_gap_what_was_observed_counts_once_a_whole_window_has_gone_by(gap: float, boot: str) -> None:
    before = pend(idle(9), "reaped-idle", START)
    now = replace(after(before.at, gap), boot=boot)

    found = step(before, CLEAR, is_still=True, now=now, policy=POLICY)

    assert (found.consecutive, found.window_s, found.carried_s, found.pending) == (1, 0.0, 8 * TICK, None)
    assert found.idle_s(POLICY) == 0
    for _ in range(4):
        found = look(found)
        assert why_due(found, "critical", POLICY, None) is None
        assert found.idle_s(POLICY) == found.window_s
    found = look(found)
    assert found.idle_s(POLICY) == 8 * TICK + 5 * TICK
    assert why_due(found, "critical", POLICY, None) == "reaped-idle"


@pytest.mark.parametrize("gap", [0.0, 1.0, TICK, 2 * TICK])
def test_a_state_that_was_saved_a_moment_ago_goes_on(gap: float) -> None:
    pending = pend(idle(9), "reaped-idle", START)

    found = look(pending, gap)

    assert (found.consecutive, found.window_s, found.pending) == (10, 8 * TICK + gap, START)


def test_a_boot_clock_that_goes_back_is_another_boot() -> None:
    before = idle(9)

    found = step(before, CLEAR, is_still=True, now=after(before.at, -5), policy=POLICY)

    assert (found.consecutive, found.window_s) == (1, 0.0)


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_clock_that_is_set_adds_nothing(jump: float) -> None:
    before = idle(3)

    found = step(before, CLEAR, is_still=True, now=after(before.at, TICK, wall=jump), policy=POLICY)

    assert found.window_s == 3 * TICK


@pytest.mark.parametrize(("tier", "ticks"), [("critical", 9), ("moderate", 24)])
def test_with_the_defaults_a_session_is_due_after_so_many_looks(tier: Tier, ticks: int) -> None:
    assert why_due(idle(ticks - 1), tier, POLICY, None) is None
    assert why_due(idle(ticks), tier, POLICY, None) == "reaped-idle"


HOUR = 3600.0
IDLE_KILL = replace(POLICY, idle_kill_s=HOUR)
AGE = replace(POLICY, max_age_s=10 * HOUR)


@pytest.mark.parametrize(
    ("policy", "tier", "idle_s", "age_s", "why"),
    [
        (POLICY, "normal", 1e6, 1e9, None),
        (replace(POLICY, reaps_in_normal=True), "normal", 44 * 60, None, None),
        (replace(POLICY, reaps_in_normal=True), "normal", 45 * 60, None, "reaped-idle"),
        (POLICY, "moderate", 45 * 60 - 1, None, None),
        (POLICY, "critical", 15 * 60 - 1, None, None),
        (POLICY, "critical", 15 * 60, None, "reaped-idle"),
        (IDLE_KILL, "normal", HOUR, None, None),
        (IDLE_KILL, "normal", HOUR + 1, None, "idle-zombie"),
        (IDLE_KILL, "critical", HOUR + 1, None, "reaped-idle"),
        (AGE, "normal", 601, 11 * HOUR, None),
        (AGE, "normal", 601, 11 * HOUR + 1, "age-limit"),
        (AGE, "normal", 601, None, None),
        (replace(AGE, max_age_s=HOUR), "normal", 601, 1.2 * HOUR, None),
        (replace(AGE, max_age_s=HOUR), "normal", 601, 1.2 * HOUR + 1, "age-limit"),
    ],
)
def test_when_a_session_is_due(policy: Policy, tier: Tier, idle_s: float, age_s: float | None, why: str | None) -> None:
    candidacy = Candidacy(START, consecutive=99, window_s=idle_s)

    assert why_due(candidacy, tier, policy, age_s) == why
    assert why_due(replace(candidacy, consecutive=2), tier, policy, age_s) is None
    assert why_due(replace(candidacy, window_s=599, carried_s=idle_s), tier, policy, age_s) is None
    assert why_due(replace(candidacy, rest=1), tier, policy, age_s) is None


def test_a_refused_one_is_left_in_peace_for_longer_and_longer() -> None:
    candidacy, rests = idle(24), []
    for _ in range(8):
        candidacy = rest(pend(candidacy, "reaped-idle", START))
        assert candidacy.pending is None
        ticks = 0
        while why_due(candidacy, "critical", POLICY, None) is None:
            candidacy = look(candidacy)
            ticks += 1
        rests.append(ticks)

    assert rests == [1, 2, 4, 8, 16, 32, REST_TICKS, REST_TICKS]


def test_a_grace_is_told_by_the_clock_that_nobody_sets() -> None:
    pending = pend(idle(9), "reaped-idle", START)

    assert grace_left_s(pending, after(START, 45, wall=1e9), POLICY) == 15
    assert grace_left_s(pending, after(START, 60, wall=-1e9), POLICY) == 0
    assert grace_left_s(pending, replace(after(START, 1e6), boot="another"), POLICY) == 60
    assert grace_left_s(drop(pending), after(START, 60), POLICY) is None


@pytest.mark.parametrize("candidacy", [idle(1), pend(rest(idle(9)), "idle-zombie", START)])
def test_a_candidacy_survives_being_written(candidacy: Candidacy) -> None:
    assert Candidacy.from_json(json.loads(json.dumps(candidacy.as_json()))) == candidacy


WRONG: list[dict[str, object]] = [
    {"at": None},
    {"at": {}},
    {"window_s": "5"},
    {"window_s": -1},
    {"window_s": 10**400},
    {"window_s": float("nan")},
    {"window_s": float("inf")},
    {"rest": True},
    {"pending": 5},
]


@pytest.mark.parametrize("change", WRONG)
def test_what_is_no_candidacy_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no "):
        Candidacy.from_json(idle(3).as_json() | change)
    with pytest.raises(ValueError, match="no candidacy"):
        Candidacy.from_json([])


LOOKS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 1.0, TICK, 2 * TICK, 3 * TICK, 1e6]),
        st.sampled_from([0.0, 1e9, -1e9]),
        st.sampled_from([CLEAR] * 6 + [KEPT, UNSURE]),
        st.sampled_from([True] * 6 + [False]),
        st.sampled_from([""] * 9 + ["boots"]),
    ),
    max_size=60,
)


@given(LOOKS)
def test_observed_idleness_never_outgrows_the_clock_that_nobody_sets(
    looks: list[tuple[float, float, Verdict, bool, str]],
) -> None:
    found, now = look(None), START
    for seconds, jump, verdict, is_still, boots in looks:
        now = replace(after(now, seconds, wall=jump), boot=now.boot + boots)
        before, found = found, step(found, verdict, is_still=is_still, now=now, policy=POLICY)

        total, total_before = (each.window_s + each.carried_s for each in (found, before))
        assert total <= total_before + seconds + 1e-6
        assert found.window_s <= before.window_s + min(seconds, 2 * TICK) + 1e-6
        assert found.idle_s(POLICY) <= total
        if not (verdict.is_clear and is_still):
            assert total == 0
            assert all(why_due(found, tier, POLICY, 1e9) is None for tier in TIERS)
        if seconds > 2 * TICK or boots:
            assert not found.is_confirmed(POLICY)
