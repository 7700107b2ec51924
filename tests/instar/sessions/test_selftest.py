"""A harmless session is parked by the very machine that would park others, or what keeps it is named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from instar.errors import InstarError
from instar.sessions.reaper.selftest import selftest

if TYPE_CHECKING:
    from pathlib import Path


def configure(root: Path, **blocks: object) -> Path:
    place = root / ".instar/config.json"
    place.parent.mkdir()
    place.write_text(json.dumps(blocks))
    return root


def test_a_harmless_session_is_parked_in_the_time_that_the_rules_ask_for(tmp_path: Path) -> None:
    told: list[str] = []
    result = selftest(tmp_path, told.append)

    assert result.was_parked, result
    assert 15 <= result.minutes <= 20  # as the defaults say: 15 idle, a tick of 2, a grace of 1
    assert told
    assert list(tmp_path.iterdir()) == []  # nothing of it is left in the project


@pytest.mark.parametrize(
    ("blocks", "kept_by"),
    [
        ({"sessions": {"protected": ["*"]}}, "protected"),
        ({"monitoring": {"sessionReaper": {"reapUnmanaged": False}}}, "unmanaged"),
        ({"monitoring": {"sessionReaper": {"cpuActiveMinRatePerSec": 0}}}, "main-process-active"),
    ],
)
def test_the_gate_that_keeps_everybody_is_named(tmp_path: Path, blocks: dict[str, object], kept_by: str) -> None:
    result = selftest(configure(tmp_path, **blocks))

    assert (result.was_parked, result.kept_by) == (False, kept_by)
    assert kept_by in {gate["keptBy"] for gate in result.as_json()["gates"]}


def test_without_tmux_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InstarError, match="tmux is not on PATH"):
        selftest(tmp_path)
