"""An unfinished build keeps the session that owns it, and every session where nobody is named for it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from instar.sessions.builds import under_way
from instar.sessions.registry import Session

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0
AGENT = {"pid": 7, "start": "99", "boot": "b"}


def kept(root: Path, state: object, age: float = 60, **record: Any) -> str:
    """Return how sure the word for keeping the session is; "" for none."""
    path = root / ".instar/state/build/build-state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(state if isinstance(state, str) else json.dumps(state))
    os.utime(path, (NOW - age, NOW - age))
    word = under_way(Session(root, "one", "running", record), NOW, 3600)
    return word.confidence if word else ""


def test_without_a_build_nothing_is_kept(tmp_path: Path) -> None:
    assert under_way(Session(tmp_path, "one", "running", {}), NOW, 3600) is None


@pytest.mark.parametrize(
    ("phase", "is_kept"),
    [
        ("executing", "high"),
        ("verifying", "high"),
        ("of tomorrow", "high"),
        (None, "high"),
        ("idle", ""),
        ("complete", ""),
        ("failed", ""),
        ("escalated", ""),
    ],
)
def test_the_phase_tells_whether_there_is_work(tmp_path: Path, phase: str | None, is_kept: str) -> None:
    assert kept(tmp_path, {"phase": phase, "owner": {"session": "one"}}) == is_kept


@pytest.mark.parametrize(
    ("owner", "is_kept"),
    [
        ({"session": "one"}, "high"),
        ({"session": "two"}, ""),
        ({"session": "two", "agent": AGENT}, "high"),
        ({"session": "two", "agent": {**AGENT, "pid": 8}}, ""),
        ({"tmux": "main"}, "high"),
        ({}, "high"),
        (None, "high"),
        ("one", "high"),
    ],
)
def test_the_owner_is_kept_and_anybody_where_there_is_none(tmp_path: Path, owner: object, is_kept: str) -> None:
    assert kept(tmp_path, {"phase": "executing", "owner": owner}, agent=AGENT) == is_kept


@pytest.mark.parametrize(("age", "is_kept"), [(3599, "high"), (3601, ""), (-86_400, "high")])
def test_one_that_nobody_moves_keeps_nobody(tmp_path: Path, age: float, is_kept: str) -> None:
    assert kept(tmp_path, {"phase": "executing"}, age) == is_kept


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00"])
def test_a_state_that_cannot_be_read_keeps_everybody(tmp_path: Path, text: str) -> None:
    assert kept(tmp_path, text, age=10**6) == "low"
