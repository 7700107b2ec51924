"""Fixtures that hand out the real clients, in a scratch project and with a scratch home."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn, Protocol

import pytest

from .claude import Claude
from .codex import Codex
from .fake_model import DEFAULT_CEILING, SIDE_ANSWER, FakeModel, Script
from .installation import InstalledClients, UnavailableError, install
from .tui import Tmux

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .wire import Answer


class ModelFactory(Protocol):
    """``fake_model([Run("make"), Say("made")])``: start a model server, which lives until the end of the test."""

    def __call__(
        self, turns: Script = (), *, ceiling: int = DEFAULT_CEILING, side_answer: Answer = SIDE_ANSWER
    ) -> FakeModel: ...


class ClaudeFactory(Protocol):
    """``claude(model)``: Claude Code in ``project`` (``scratch``) with ``home`` (``client_home``)."""

    def __call__(self, model: FakeModel, *, project: Path = ..., home: Path = ...) -> Claude: ...


class CodexFactory(Protocol):
    """``codex(model)``: Codex in ``project`` (``scratch``) with ``home`` (``client_home``); only one Codex a home."""

    def __call__(
        self, model: FakeModel, *, project: Path = ..., home: Path = ..., trust_folder: bool = True
    ) -> Codex: ...


@pytest.fixture(scope="session")
def installed_clients() -> InstalledClients:
    """Install the pinned clients, when the first test asks for them."""
    try:
        return install()
    except UnavailableError as error:
        _give_up(str(error))


@pytest.fixture
def client_home(tmp_path: Path) -> Path:
    """Make an empty home, for both clients."""
    return _new_folder(tmp_path / "client-home")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Make an empty project."""
    return _new_folder(tmp_path / "scratch")


@pytest.fixture
def fake_model() -> Iterator[ModelFactory]:
    """Start model servers."""
    with ExitStack() as servers:

        def start(
            turns: Script = (), *, ceiling: int = DEFAULT_CEILING, side_answer: Answer = SIDE_ANSWER
        ) -> FakeModel:
            return servers.enter_context(FakeModel(turns, ceiling=ceiling, side_answer=side_answer))

        yield start


@pytest.fixture
def claude(installed_clients: InstalledClients, client_home: Path, scratch: Path) -> ClaudeFactory:
    """Set up Claude Code."""

    def set_up(model: FakeModel, *, project: Path = scratch, home: Path = client_home) -> Claude:
        return Claude(installed_clients.claude, home, model, project)

    return set_up


@pytest.fixture
def codex(installed_clients: InstalledClients, client_home: Path, scratch: Path) -> CodexFactory:
    """Set up Codex."""

    def set_up(
        model: FakeModel, *, project: Path = scratch, home: Path = client_home, trust_folder: bool = True
    ) -> Codex:
        return Codex(installed_clients.codex, home, model, project, trust_folder=trust_folder)

    return set_up


@pytest.fixture
def tmux() -> Iterator[Tmux]:
    """Start a private tmux server; it ends with all its panes at the end of the test."""
    if shutil.which("tmux") is None:
        _give_up("tmux is missing")
    with Tmux() as server:
        yield server


def _give_up(reason: str) -> NoReturn:
    """Skip the test; in CI fail it, where nothing may be missing."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _new_folder(path: Path) -> Path:
    path.mkdir()
    return path
