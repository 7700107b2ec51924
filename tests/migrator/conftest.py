"""Fixtures of the migrator's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.migrator.scratch import Scratch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """Return an empty project that nothing was installed in."""
    above = [str(folder) for folder in tmp_path.parents if (folder / ".instar/hooks").exists()]
    assert not above, "a project below one that has ours is part of it: run the tests elsewhere"
    return Scratch.create(tmp_path)


@pytest.fixture
def installed(scratch: Scratch) -> Scratch:
    """Return a project with everything installed, for both clients."""
    scratch.migrate()
    return scratch
