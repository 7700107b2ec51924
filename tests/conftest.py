"""What every test stands on: a home folder that cannot be reached, and an environment without any client in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from stand_ins import BASH, Client, Tmux
from support import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AMBIENT = ("CLAUDE", "CODEX", "INSTAR", "TMUX", "GIT_", "AI_AGENT")
KEPT = ("GIT_CONFIG_NOSYSTEM", "INSTAR_SOAK_")  # the second is for a test, and not for what it tests


@pytest.fixture(autouse=True, scope="session")
def home_is_unreachable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make every path below the home a mistake that shows: the home is a file."""
    home = tmp_path_factory.mktemp("home") / "tests-must-not-touch-the-home"
    home.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        for name in os.environ:
            if name.startswith(AMBIENT) and not name.startswith(KEPT):
                patch.delenv(name)
        yield


@pytest.fixture(autouse=True, scope="session")
def what_is_started_can_be_interrupted() -> None:
    """Undo what a shell does to what it starts in the background: programs that are started inherit it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a git repository that instar-migrate set up, to be copied and not to be changed."""
    return Project.create(tmp_path_factory.mktemp("installed") / "project")


@pytest.fixture
def project(installed: Project, tmp_path: Path) -> Project:
    """Return a git repository that instar-migrate set up: nothing installed in it knows where it is."""
    root, home = tmp_path / "project", tmp_path / "project-home"
    shutil.copytree(installed.root, root, symlinks=True)
    home.mkdir()
    return Project(root, {**installed.env, "HOME": str(home)})


@pytest.fixture
def start_client(project: Project, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Return what starts a shell under the name of a client, with these variables in its environment."""
    started: list[Client] = []

    def start(name: str, *arguments: str, **env: str) -> Client:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        if not program.exists():
            program.symlink_to(BASH)
        started.append(Client(project, program, *arguments, **env))
        return started[-1]

    yield start
    for each in started:
        each.end()


@pytest.fixture
def start_tmux(tmp_path: Path) -> Iterator[Callable[[str], Tmux]]:
    """Return what starts a private tmux server by name."""
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    servers: list[Tmux] = []

    def start(name: str) -> Tmux:
        servers.append(Tmux(tmp_path / f"{name}.sock"))
        return servers[-1]

    yield start
    for server in servers:
        subprocess.run(["tmux", "-S", str(server.socket), "kill-server"], check=False, capture_output=True)
