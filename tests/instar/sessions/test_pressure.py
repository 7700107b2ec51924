"""How short memory is, by the system's own files; what cannot be read is no reason to hurry."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.sessions.clock import Clock
from instar.sessions.policy import policy
from instar.sessions.reaper.pressure import (
    DENIALS,
    SWAPPED_IN_BYTES,
    TIERS,
    Dwell,
    Readings,
    Tier,
    deny_spawn,
    dwell,
    lower,
    read,
    tier,
)

if TYPE_CHECKING:
    from pathlib import Path

LIMITS = policy({}).pressure
NOW = 1_790_000_000.0
GIB = 2**30
CORES = os.cpu_count() or 1


class Machine:
    """The files of a system, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.root, self.shared = folder / "system", folder / "shared"
        self.wall, self.monotonic = NOW, 1000.0
        self.clock = Clock(lambda: self.wall, lambda: self.monotonic, lambda: "boot")

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def memory(self, available: float, total: float = 16) -> None:
        kib = [round(each * 2**20) for each in (total, available)]
        self.write("proc/meminfo", f"MemTotal: {kib[0]} kB\nMemFree: 5 kB\nMemAvailable: {kib[1]} kB\n")

    def group(self, path: str, *, used: float, cached: float = 0, **limits: float | str) -> None:
        folder = f"sys/fs/cgroup/{path}"
        for name, limit in limits.items():
            text = limit if isinstance(limit, str) else str(round(limit * GIB))
            self.write(f"{folder}/memory.{name}", f"{text}\n")
        self.write(f"{folder}/memory.current", f"{round(used * GIB)}\n")
        self.write(f"{folder}/memory.stat", f"anon 5\ninactive_file {round(cached * GIB)}\n")

    def read(self, before: Readings | None = None) -> Readings:
        return read(self.shared, self.clock, before, self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_system_that_says_nothing_is_under_no_pressure(machine: Machine) -> None:
    readings = machine.read()

    assert readings == Readings(denials=0, monotonic=1000.0)
    assert tier(readings, LIMITS) == ("normal", "")
    assert tier(None, LIMITS) == ("normal", "")


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    readings = read(tmp_path, Clock())

    assert readings.available_percent is not None
    assert 0 < readings.available_percent <= 100
    assert readings.load_per_core is not None


def test_memory_that_is_available_counts_and_not_what_is_free(machine: Machine) -> None:
    machine.memory(available=4)

    assert machine.read().available_percent == 25


@pytest.mark.parametrize(
    ("limits", "used", "cached", "percent"),
    [
        ({"max": 4.0}, 3.0, 0.0, 25),
        ({"max": 4.0, "high": 2.0}, 1.0, 0.0, 50),
        ({"max": "max", "high": 2.0}, 1.5, 0.0, 25),
        ({"max": 4.0}, 4.0, 1.0, 25),
        ({"max": 4.0}, 5.0, 0.0, 0),
        ({"max": "max", "high": "max"}, 1.0, 0.0, 75),
        ({"max": 32.0}, 31.0, 0.0, 75),
        ({"max": "nonsense"}, 1.0, 0.0, 75),
        ({"max": 0.0}, 1.0, 0.0, 75),
    ],
    ids=[
        "max",
        "high below max",
        "high alone",
        "files in reach",
        "over",
        "none",
        "above the machine",
        "unreadable",
        "0",
    ],
)
def test_what_our_group_may_have_counts_where_it_is_less(
    machine: Machine, limits: dict[str, float | str], used: float, cached: float, percent: float
) -> None:
    machine.memory(available=12)
    machine.write("proc/self/cgroup", "4:memory:/elsewhere\n0::/user/service\n")
    machine.group("user/service", used=used, cached=cached, **limits)

    assert machine.read().available_percent == percent


@pytest.mark.parametrize("tight", ["user/service", "user", ""])
def test_each_group_above_ours_counts(machine: Machine, tight: str) -> None:
    machine.memory(available=12)
    machine.write("proc/self/cgroup", "0::/user/service\n")
    for group in ("user/service", "user", ""):
        machine.group(group, used=0.9 if group == tight else 0.1, max=1.0)

    assert machine.read().available_percent == pytest.approx(10)


def test_a_group_outside_of_what_we_see_says_nothing(machine: Machine) -> None:
    machine.memory(available=12)
    machine.write("proc/self/cgroup", "0::/../../other\n")
    machine.group("", used=1, max=1.0)

    assert machine.read().available_percent == 75


def test_waiting_for_memory_is_read(machine: Machine) -> None:
    machine.write("proc/pressure/memory", "some avg10=12.50 avg60=1.00 total=1\nfull avg10=3.25 avg60=0.00 total=0\n")

    readings = machine.read()
    assert (readings.stall_some, readings.stall_full) == (12.5, 3.25)


@pytest.mark.parametrize("text", ["", "some\n", "some avg10=x\n", "some avg10=nan\nfull avg10=inf\n", "\0\n"])
def test_waiting_that_cannot_be_read_is_unknown(machine: Machine, text: str) -> None:
    machine.write("proc/pressure/memory", text)

    readings = machine.read()
    assert (readings.stall_some, readings.stall_full) == (None, None)


def test_swapping_in_is_a_rate_between_readings(machine: Machine) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    machine.write("proc/vmstat", "pgpgin 5\npswpin 1000\n")
    first = machine.read()
    assert first.swap_in_rate is None

    machine.monotonic += 10
    machine.write("proc/vmstat", "pgpgin 5\npswpin 3000\n")
    second = machine.read(first)
    assert second.swap_in_rate == 200 * page

    machine.monotonic += 0.5
    assert machine.read(second).swap_in_rate == 200 * page
    machine.monotonic += 10
    machine.write("proc/vmstat", "pswpin 1\n")
    assert machine.read(second).swap_in_rate is None


def test_load_is_of_a_core(machine: Machine) -> None:
    machine.write("proc/loadavg", f"{3.0 * CORES} 1.0 0.5 1/2 3\n")

    assert machine.read().load_per_core == pytest.approx(3)


def test_a_session_that_could_not_be_started_counts_for_five_minutes(machine: Machine) -> None:
    deny_spawn(machine.shared, by="launcher", reason="not enough memory", now=NOW)
    deny_spawn(machine.shared, by="launcher", reason="not enough memory", now=NOW - 400)

    assert machine.read().denials == 1
    machine.wall += 300
    assert machine.read().denials == 1
    machine.wall += 1
    assert machine.read().denials == 0
    assert (machine.shared / DENIALS).stat().st_mode & 0o777 == 0o600


def test_a_denial_that_lies_far_ahead_is_a_mistake(machine: Machine) -> None:
    deny_spawn(machine.shared, by="launcher", reason="x", now=NOW + 86_400)

    assert machine.read().denials == 0


@pytest.mark.parametrize("line", ["", "no json", "[]", '{"ts": 5}', '{"ts": "yesterday"}', '{"ts": "2026'])
def test_rows_that_are_none_are_no_denials(machine: Machine, line: str) -> None:
    deny_spawn(machine.shared, by="launcher", reason="x", now=NOW)
    with (machine.shared / DENIALS).open("a") as file:
        file.write(line + "\n")

    assert machine.read().denials == 1


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (Readings(available_percent=12.0), "normal"),
        (Readings(available_percent=11.9), "moderate"),
        (Readings(available_percent=5.0), "moderate"),
        (Readings(available_percent=4.9), "critical"),
        (Readings(available_percent=0.0), "critical"),
        (Readings(stall_some=9.9), "normal"),
        (Readings(stall_some=10.0), "moderate"),
        (Readings(stall_full=9.9), "normal"),
        (Readings(stall_full=10.0), "critical"),
        (Readings(swap_in_rate=SWAPPED_IN_BYTES - 1.0), "normal"),
        (Readings(swap_in_rate=float(SWAPPED_IN_BYTES)), "moderate"),
        (Readings(denials=0), "normal"),
        (Readings(denials=1), "critical"),
        (Readings(load_per_core=50.0), "normal"),
        (Readings(available_percent=11.0, denials=1), "critical"),
        (Readings(available_percent=90.0, stall_some=20.0), "moderate"),
    ],
)
def test_the_worst_reading_makes_the_tier(readings: Readings, expected: Tier) -> None:
    found, why = tier(readings, LIMITS)

    assert found == expected
    assert bool(why) == (expected != "normal")


@pytest.mark.parametrize(("load", "expected"), [(0.9, "normal"), (1.0, "moderate"), (1.5, "critical")])
def test_load_counts_where_it_is_asked_for(load: float, expected: Tier) -> None:
    limits = replace(LIMITS, moderate_load=1.0, critical_load=1.5)

    assert tier(Readings(load_per_core=load), limits)[0] == expected


def test_what_is_switched_off_says_nothing() -> None:
    limits = replace(LIMITS, uses_stalls=False, uses_denials=False)

    assert tier(Readings(stall_full=90.0, swap_in_rate=1e9, denials=5), limits) == ("normal", "")


@pytest.mark.parametrize(
    ("read_tiers", "held"),
    [
        ("c", "n"), ("cc", "c"), ("mc", "m"), ("cm", "m"), ("mcc", "c"), ("cnc", "n"), ("cncc", "c"),
        ("ccn", "c"), ("ccnn", "c"), ("ccnnn", "n"), ("ccmmm", "m"), ("ccmnn", "m"), ("ccmnnn", "n"), ("ccnnmnn", "m"),
        ("mmm", "m"), ("mmcc", "c"),
    ],
)  # fmt: skip
def test_two_readings_raise_the_tier_and_three_lower_it(read_tiers: str, held: str) -> None:
    names: dict[str, Tier] = {each[0]: each for each in TIERS}
    state = Dwell()
    for letter in read_tiers:
        state = Dwell.from_json(json.loads(json.dumps(dwell(state, names[letter]).as_json())))

    assert state.tier == names[held]


@given(st.lists(st.sampled_from(TIERS)))
def test_no_tier_holds_that_two_readings_of_late_did_not_reach(read_tiers: list[Tier]) -> None:
    state = Dwell()
    for number, each in enumerate(read_tiers):
        before, state = state, dwell(state, each)
        if TIERS.index(state.tier) > TIERS.index(before.tier):
            assert all(lower(late, state.tier) == state.tier for late in read_tiers[number - 1 : number + 1])
        if TIERS.index(state.tier) < TIERS.index(before.tier):
            assert all(lower(late, state.tier) == late for late in read_tiers[number - 2 : number + 1])


@pytest.mark.parametrize("values", [None, [], {}, {"tier": "awful", "last": []}, {"tier": "critical", "last": ["x"]}])
def test_a_dwell_that_is_none_is_normal(values: object) -> None:
    assert Dwell.from_json(values) == Dwell()


def test_readings_survive_being_written() -> None:
    readings = Readings(available_percent=5.5, denials=1, swapped_in=5, monotonic=7.0)

    assert Readings.from_json(json.loads(json.dumps(readings.as_json()))) == readings
    assert Readings.from_json("nonsense") is None
    assert Readings.from_json({"available_percent": "5", "denials": True}) == Readings()
