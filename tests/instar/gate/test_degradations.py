"""What does not work is told once an hour in one file, and telling it never fails."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from instar.gate.degradations import KEPT, PATH, Degradations

if TYPE_CHECKING:
    from pathlib import Path


class Clock:
    """A clock that is set."""

    now = 1_790_000_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told(root: Path) -> list[dict[str, Any]]:
    entries = json.loads((root / PATH).read_bytes())
    assert isinstance(entries, list)
    return entries


def test_an_entry_says_what_fails_and_since_when(tmp_path: Path, clock: Clock) -> None:
    Degradations(tmp_path, clock).report(
        "f.db", "it is locked", primary="the database", fallback="none", impact="no row"
    )

    assert told(tmp_path) == [{
        "feature": "f.db", "primary": "the database", "fallback": "none", "reason": "it is locked", "impact": "no row",
        "timestamp": "2026-09-21T14:13:20.000Z", "lastAt": "2026-09-21T14:13:20.000Z", "count": 1, "reported": False,
        "alerted": False,
    }]  # fmt: skip
    assert (tmp_path / PATH).stat().st_mode & 0o777 == 0o600


def test_the_same_is_one_entry_for_an_hour_with_how_often_it_was(tmp_path: Path, clock: Clock) -> None:
    degradations = Degradations(tmp_path, clock)
    for number in range(5):
        degradations.report("f.timeout", f"{number} ms, commit {number:040x}")
    degradations.report("f.other", "0 ms")
    degradations.report("f.timeout", "another reason")
    degradations.flush()
    assert [(each["feature"], each["count"]) for each in told(tmp_path)] == [
        ("f.timeout", 5), ("f.other", 1), ("f.timeout", 1),
    ]  # fmt: skip

    clock.now += 3600
    degradations.report("f.other", "0 ms")
    assert [each["count"] for each in told(tmp_path)] == [5, 1, 1, 1]


def test_a_count_is_written_once_a_minute_at_most(tmp_path: Path, clock: Clock) -> None:
    degradations = Degradations(tmp_path, clock)
    counts = []
    for _ in range(4):
        degradations.report("f", "x")
        counts.append(told(tmp_path)[0]["count"])
        clock.now += 30

    assert counts == [1, 1, 3, 3]


def test_a_clock_that_is_put_back_silences_nothing(tmp_path: Path, clock: Clock) -> None:
    degradations = Degradations(tmp_path, clock)
    degradations.report("f", "x")
    clock.now -= 10**6
    degradations.report("f", "x")

    assert len(told(tmp_path)) == 2


def test_the_last_hundred_are_kept_and_those_of_others(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).write_text(json.dumps([{"feature": "theirs", "x": 1}, "odd", *({} for _ in range(3))]))
    degradations = Degradations(tmp_path, clock)
    degradations.report("first", "x")
    assert told(tmp_path)[:2] == [{"feature": "theirs", "x": 1}, "odd"]
    for index in range(KEPT):
        degradations.report(f"f{'ab'[index % 2] * index}", "x")

    entries = told(tmp_path)
    assert len(entries) == KEPT
    assert entries[-1]["feature"] == f"f{'b' * (KEPT - 1)}"


@pytest.mark.parametrize("bad", [b"", b"{", b"{}", b"\xff", b"[" * 100_000])
def test_a_file_that_is_none_is_kept_and_a_new_one_begun(tmp_path: Path, clock: Clock, bad: bytes) -> None:
    (tmp_path / PATH).parent.mkdir()
    (tmp_path / PATH).write_bytes(bad)
    Degradations(tmp_path, clock).report("f", "x")

    assert [each["feature"] for each in told(tmp_path)] == ["f"]
    (kept,) = (tmp_path / ".instar").glob("degradations.json.corrupt-*")
    assert kept.read_bytes() == bad


def test_it_never_raises_and_tells_what_it_could_not_write_later(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / ".instar").touch()
    degradations = Degradations(tmp_path, clock)
    degradations.report("f", "x")
    degradations.report("f", "\ud800")
    degradations.flush()
    assert len(degradations.recent()) == 2
    (tmp_path / ".instar").unlink()
    degradations.report("f", "x")

    assert sorted(each["count"] for each in told(tmp_path)) == [1, 2]


def test_what_is_over_for_an_hour_is_no_more_recent(tmp_path: Path, clock: Clock) -> None:
    degradations = Degradations(tmp_path, clock)
    degradations.report("f", "x")
    clock.now += 3599
    degradations.report("g", "x")
    assert [each["feature"] for each in degradations.recent()] == ["f", "g"]
    clock.now += 1
    assert [each["feature"] for each in degradations.recent()] == ["g"]


def test_secrets_are_not_told(tmp_path: Path, clock: Clock) -> None:
    secret = "ghp_" + "a" * 36
    Degradations(tmp_path, clock).report("f", "x" * 290 + f" {secret}")

    assert "ghp" not in (tmp_path / PATH).read_text()
    assert len(told(tmp_path)[0]["reason"]) <= 300


def test_two_who_tell_at_once_lose_nothing(tmp_path: Path) -> None:
    each = [Degradations(tmp_path) for _ in range(2)]

    def tell(index: int) -> None:
        for number in range(20):
            each[index % 2].report(f"f.{'x' * index}.{'y' * number}", "z")

    threads = [threading.Thread(target=tell, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({entry["feature"] for entry in told(tmp_path)}) == 80
