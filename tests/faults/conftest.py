"""Fixtures of the tests that break things."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.harness import Log, make_breakable

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project


@pytest.fixture
def breakable(project: Project) -> Project:
    """Return a project whose programs can be broken by $FAULT."""
    return make_breakable(project)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Return where the edge calls of programs are written down."""
    return Log(tmp_path / "calls")
