"""Twenty sessions, their peers and their server, for a while: nothing is lost, and nothing is left."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from soak.soak import soak

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(1800)
def test_whatever_happens_everything_adds_up(tmp_path: Path) -> None:
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    soak(tmp_path, print)  # where it fails the seed is shown
