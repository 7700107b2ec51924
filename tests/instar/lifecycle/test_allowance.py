"""A peer is woken and told something so often an hour and no more, whoever asks, and however many at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import InstarError
from instar.lifecycle.memory.allowance import FILE, HOUR_S, Allowance, Kind
from instar.sessions.clock import Clock
from instar.sessions.parking.markers import FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = "claude-code-bob"


class Peers:
    """The budgets of a project, and its clocks."""

    def __init__(self, root: Path) -> None:
        self.monotonic, self.wall, self.boot = 1000.0, 1_790_000_000.0, "boot"
        self.place = root / FOLDER / f"{PEER}{FILE}"
        self.allowance = Allowance(root, Clock(lambda: self.wall, lambda: self.monotonic, lambda: self.boot))

    def passes(self, seconds: float, jump: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + jump

    def spend(self, per_hour: int = 3, kind: Kind = "wakes", identity: str = PEER) -> int | None:
        return self.allowance.spend(identity, kind, per_hour)


@pytest.fixture
def peers(tmp_path: Path) -> Peers:
    return Peers(tmp_path)


def test_so_many_an_hour_and_then_it_is_told_when_there_is_one_again(peers: Peers) -> None:
    for _ in range(3):
        assert peers.spend() is None
        peers.passes(100)

    assert peers.spend() == HOUR_S - 300
    peers.passes(HOUR_S - 301)
    assert peers.spend() == 1
    peers.passes(1)
    assert peers.spend() is None
    assert peers.spend() == 100


def test_each_kind_and_each_peer_has_its_own(peers: Peers) -> None:
    assert peers.spend(1) is None
    assert peers.spend(1) is not None

    assert peers.spend(1, "sends") is None
    assert peers.spend(1, identity="claude-code-bob2") is None


def test_a_budget_of_none_is_never_there_and_a_smaller_one_is_over_later(peers: Peers) -> None:
    assert peers.spend(0) == HOUR_S
    for _ in range(3):
        peers.spend()
        peers.passes(10)

    assert peers.spend(1) == HOUR_S - 10


def test_what_is_refused_takes_nothing(peers: Peers) -> None:
    peers.spend(1)
    before = peers.place.read_bytes()

    assert peers.spend(1) is not None
    assert peers.place.read_bytes() == before
    assert peers.place.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("jump", [-1e6, -60.0, 60.0, 1e6])
def test_a_clock_that_is_set_gives_nobody_more(peers: Peers, jump: float) -> None:
    for _ in range(3):
        peers.spend()
    peers.passes(0, jump)

    assert peers.spend() == HOUR_S


def test_after_a_restart_of_the_machine_the_wall_tells(peers: Peers) -> None:
    for _ in range(3):
        peers.spend()
    peers.boot, peers.monotonic = "another", 1.0
    peers.passes(600)

    assert peers.spend() == HOUR_S - 600
    peers.passes(HOUR_S)
    assert peers.spend() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"wakes": 5}', b'{"wakes": [5]}', b'{"sends": [{}]}', b"[" * 60_000, b"x" * 70_000,
     b'{"wakes": [{"boot": "", "wall": 1' + b"0" * 400 + b', "monotonic": 0}]}'],
    ids=lambda each: repr(each)[:20],
)  # fmt: skip
def test_what_cannot_be_read_is_kept_aside_and_one_of_each_counts_as_taken_now(peers: Peers, content: bytes) -> None:
    peers.place.parent.mkdir(parents=True)
    peers.place.write_bytes(content)

    assert peers.spend(1) == HOUR_S
    assert peers.spend(2, "sends") is None
    assert peers.spend(2, "sends") == HOUR_S
    assert [each.read_bytes() for each in peers.place.parent.glob("*.corrupt-*")] == [content]


def test_a_name_that_can_name_no_file_is_refused(peers: Peers) -> None:
    for name in ("", "../x", "a.b", "a\n", "a/b"):
        with pytest.raises(InstarError):
            peers.spend(identity=name)


TAKER = """
import sys
from pathlib import Path
from instar.lifecycle.memory.allowance import Allowance

allowance = Allowance(Path(sys.argv[1]))
sys.stdin.readline()
print(sum(allowance.spend(sys.argv[2], "wakes", 20) is None for _ in range(10)))
"""


@pytest.fixture
def takers(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-c", TAKER, str(tmp_path), PEER]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(5)
    ]
    yield started
    for each in started:
        each.kill()
        each.communicate()


def test_processes_that_ask_at_once_get_exactly_what_there_is(
    tmp_path: Path, takers: list[subprocess.Popen[str]]
) -> None:
    for each in takers:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    taken = [int(each.communicate(timeout=100)[0]) for each in takers]

    assert sum(taken) == 20
    assert len(json.loads((tmp_path / FOLDER / f"{PEER}{FILE}").read_bytes())["wakes"]) == 20


STEPS = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 600.0, 3599.0, 3600.0]), st.sampled_from([0.0, 0.0, -1e6, 1e6])), max_size=40
)


@settings(deadline=None, max_examples=40)
@given(STEPS)
def test_in_no_hour_are_there_more_than_agreed(steps: list[tuple[float, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        peers = Peers(Path(folder))
        taken: list[float] = []
        for seconds, jump in steps:
            peers.passes(seconds, jump)
            wait = peers.spend()
            assert wait is None or 1 <= wait <= HOUR_S
            if wait is None:
                taken.append(peers.monotonic)
        assert all(sum(at <= each < at + HOUR_S for each in taken) <= 3 for at in taken)
