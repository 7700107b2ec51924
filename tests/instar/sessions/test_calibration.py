"""A client's version is trusted once it was seen idle and at work; those that the patterns come from always are."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from instar.sessions.screens.calibration import NAME, VERSIONS_KEPT, Calibration

if TYPE_CHECKING:
    from pathlib import Path

CLAUDE = "claude-code"
NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("client", "version", "is_known"),
    [
        (CLAUDE, "2.1.197", True),
        ("codex-cli", "0.169.0", True),
        (CLAUDE, "0.169.0", False),
        (CLAUDE, "3.0.0", False),
        (CLAUDE, "", False),
        ("", "2.1.197", False),
    ],
)
def test_what_was_measured_is_known(tmp_path: Path, client: str, version: str, is_known: bool) -> None:  # noqa: FBT001
    assert Calibration(tmp_path).is_known(client, version) is is_known


def test_another_version_is_known_once_it_was_seen_both_ways_by_whomever(tmp_path: Path) -> None:
    Calibration(tmp_path).note(CLAUDE, "3.0.0", "idle", NOW)
    assert not Calibration(tmp_path).is_known(CLAUDE, "3.0.0")
    Calibration(tmp_path).note(CLAUDE, "3.0.0", "live", NOW)

    assert Calibration(tmp_path).is_known(CLAUDE, "3.0.0")
    assert not Calibration(tmp_path).is_known("codex-cli", "3.0.0")
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_many_at_once_lose_nothing_and_only_the_newest_are_kept(tmp_path: Path) -> None:
    def note(number: int) -> None:
        Calibration(tmp_path).note(CLAUDE, f"3.0.{number}", "idle", NOW + number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(note, range(30)))
    assert len(json.loads((tmp_path / NAME).read_bytes())) == 30
    for number in range(30, VERSIONS_KEPT + 10):
        note(number)
    kept = json.loads((tmp_path / NAME).read_bytes())
    assert len(kept) == VERSIONS_KEPT
    assert f"{CLAUDE} 3.0.{VERSIONS_KEPT + 9}" in kept
    assert f"{CLAUDE} 3.0.0" not in kept


@pytest.mark.parametrize("text", ["", "{", "[]", '{"claude-code 3.0.0": 1}', '{"claude-code 3.0.0": {"idle": 1}}'])
def test_a_file_that_says_nothing_makes_nothing_known(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text)

    assert not Calibration(tmp_path).is_known(CLAUDE, "3.0.0")


def test_where_nothing_can_be_written_nothing_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    calibration = Calibration(tmp_path / "file" / "folder")
    calibration.note(CLAUDE, "3.0.0", "idle", NOW)

    assert not calibration.is_known(CLAUDE, "3.0.0")
