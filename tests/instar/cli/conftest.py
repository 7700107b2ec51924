"""Projects with peers, driven by the installed commands alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.instar.cli.peer_world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Project


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, installed: Project) -> Iterator[World]:
    """Return one project for all tests of a file: each has peers of its own."""
    yield from made(tmp_path_factory.mktemp("world"), installed)


@pytest.fixture
def own(tmp_path: Path, installed: Project) -> Iterator[World]:
    """Return a project whose tmux server a test may do anything to."""
    yield from made(tmp_path, installed)


def made(folder: Path, installed: Project) -> Iterator[World]:
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    world = World(folder, installed)
    yield world
    world.end()
