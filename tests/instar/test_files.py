"""Files that many processes write one after the other: what one that was killed left, the next one takes away."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

STATE = """
from instar.sessions.reaper.state import State, save
save(folder, State("here"))
"""
BUDGET = """
from instar.sessions.reaper.budget import Budget, Limits
from instar.sessions.reaper.candidacy import Moment
Budget(folder / "shared", sleep=float, chance=float).take(Limits(9, 0), lambda: Moment(1, 1, ""), 0)
"""
KILLED = "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize("writes", [STATE, BUDGET])
def test_what_a_killed_writer_left_is_gone_with_the_next(tmp_path: Path, writes: str) -> None:
    def run(first: str = "") -> int:
        script = f"import os, pathlib, signal\nfolder = pathlib.Path({str(tmp_path)!r})\n{first}\n{writes}"
        return subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], check=False).returncode

    def left() -> list[str]:
        return [place.name for place in tmp_path.rglob(".*.json.*") if not place.name.endswith(".lock")]

    assert run() == 0
    assert left() == []
    assert run(KILLED) == -signal.SIGKILL
    assert len(left()) == 1
    assert run() == 0
    assert left() == []
