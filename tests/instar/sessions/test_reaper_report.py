"""What the reaper got wrong is counted both ways: what it would have ended at work, and what it kept for nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from instar.sessions.reaper.report import DAYS, ENDS_AT_MOST, End, Sums, bounded, may_go_live, report
from instar.sessions.reaper.state import PATH as STATE

from .worlds import NOW, TICK, WORKS, Agent, World

if TYPE_CHECKING:
    from pathlib import Path

TOLD_AT = 10  # ticks


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world in which the end of an idle session was told in a dry run."""
    world = World(tmp_path, "dry-run")
    world.agents["idle"] = Agent()
    world.ticks(TOLD_AT)
    assert len(world.rows("would-reap")) == 1
    return world


def totals(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.reaper.report()["totals"]
    return found


def test_one_that_works_again_by_itself_was_a_false_one(world: World) -> None:
    world.ticks(20)
    world.agents["idle"].works()
    world.ticks(3)

    assert len(world.rows("worked-after")) == 1
    told = world.reaper.report()
    assert (told["totals"]["falseOnes"], told["totals"]["wouldReap"], told["open"]) == (1, 1, 0)
    assert told["false"][0]["sessionId"] == "idle"
    assert len(may_go_live(told)) == 1


@pytest.mark.parametrize(("after", "came_back"), [(0, 1), (4, 1), (5, 1), (6, 0), (50, 0)])
def test_one_that_its_user_prompted_soon_came_back(world: World, after: int, came_back: int) -> None:
    world.ticks(after)
    world.agents["idle"].is_prompted(world.wall)
    world.ticks(3)

    assert len(world.rows("came-back")) == came_back
    assert world.rows("worked-after") == []
    assert (totals(world)["cameBack"], totals(world)["falseOnes"]) == (came_back, 0)
    assert may_go_live(world.reaper.report()) == []


def test_one_that_stays_idle_is_open_and_one_that_ends_is_not(world: World) -> None:
    world.ticks(50)
    assert world.reaper.report()["open"] == 1
    world.agents["idle"].is_over = True
    world.ticks(1)

    assert world.reaper.report()["open"] == 0
    assert totals(world)["falseOnes"] == 0


def test_one_that_is_kept_and_does_not_work_was_no_mistake(world: World) -> None:
    world.agents["idle"].verdict = type(WORKS)("client-attached", "")
    world.ticks(5)

    assert world.rows("worked-after") == []


def test_one_that_was_parked_and_is_prompted_soon_came_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.agents["idle"] = agent = Agent()
    world.ticks(TOLD_AT)
    assert agent.is_over
    world.ticks(2)
    agent.is_over, agent.pid = False, 2
    world.ticks(1)
    agent.is_prompted(world.wall)
    world.ticks(2)

    assert [row["dryRun"] for row in world.rows("came-back")] == [False]
    assert world.rows("worked-after") == []


def test_what_was_idle_and_kept_is_counted_by_the_gate_that_kept_it(tmp_path: Path) -> None:
    world = World(tmp_path, "dry-run")
    gib = 2**30
    world.agents = {
        "a": Agent(type(WORKS)("client-attached", ""), memory=3 * gib),
        "b": Agent(type(WORKS)("client-attached", ""), memory=1 * gib),
        "c": Agent(type(WORKS)("lease:me", "")),
        "works": Agent(WORKS, is_quiet=False),
        "clear": Agent(),
    }
    world.agents["c"].memory = None  # type: ignore[assignment]  # it cannot be told
    world.ticks(31)
    world.passes(1e6)
    world.ticks(1)

    assert totals(world)["missed"] == {
        "client-attached": {"hours": 2.0, "memoryHoursGiB": 4.0},
        "lease:me": {"hours": 1.0, "memoryHoursGiB": 0.0},
    }


def test_a_false_one_is_on_record_where_the_state_is_lost(world: World) -> None:
    world.agents["idle"].works()
    world.ticks(1)
    (world.root / STATE).write_bytes(b"{")
    world.ticks(1)

    assert totals(world)["falseOnes"] == 1
    assert may_go_live(world.reaper.report())


def test_days_are_told_one_by_one_and_not_for_ever() -> None:
    sums = Sums()
    for day in range(DAYS + 5):
        sums.count(NOW + day * 86_400, "ticks", day)
    sums.missed(NOW + 34 * 86_400, "gate", 2**30, 3600)
    sums.forget()

    told = report(sums.days, [], [])

    assert [day["ticks"] for day in told["days"]] == list(range(5, DAYS + 5))
    assert told["totals"]["ticks"] == sum(range(5, DAYS + 5))
    assert told["totals"]["missed"] == {"gate": {"hours": 1.0, "memoryHoursGiB": 1.0}}
    assert told["days"][0]["missed"] == {}


def test_ends_are_not_kept_for_ever() -> None:
    ends = [
        End(str(number), "n", NOW, "reaped-idle", is_dry=True, idle_s=5.0, memory=None, prompt="")
        for number in range(ENDS_AT_MOST + 9)
    ]

    assert [each.session_id for each in bounded(ends)] == [str(number) for number in range(9, ENDS_AT_MOST + 9)]


def test_an_end_survives_being_written() -> None:
    end = End("id", "name", NOW, "reaped-idle", is_dry=True, idle_s=5.0, memory=7, prompt="1", outcome="came-back")

    assert End.from_json(json.loads(json.dumps(end.as_json()))) == end
    for values in (None, {}, {"at": NOW}):
        with pytest.raises(ValueError, match="no end"):
            End.from_json(values)


@pytest.mark.parametrize(("false_ones", "refusals"), [(0, 0), (1, 1), (7, 1)])
def test_live_is_refused_while_a_false_one_is_on_record(false_ones: int, refusals: int) -> None:
    told = report({"2026-09-21": {"falseOnes": false_ones}}, [], [])

    assert len(may_go_live(told)) == refusals
    assert all(str(false_ones) in each for each in may_go_live(told))


def test_observed_time_alone_is_missed(tmp_path: Path) -> None:
    world = World(tmp_path, "dry-run")
    world.agents["a"] = Agent(type(WORKS)("client-attached", ""))
    for _ in range(10):
        world.passes(0, wall=3600)
        world.ticks(1, TICK)

    assert totals(world)["missed"]["client-attached"]["hours"] == 0.3
