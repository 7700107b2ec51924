"""Hooks and commands of now beside a server of an earlier time, which runs on after an upgrade until it is ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from instar.server.endpoint import endpoint
from support import BIN, DEADLINE_S
from tests.clients.gated import HELD, RULE, RULES, Gated
from tests.clients.waiting import wait_until
from tests.hooks.test_gate_chain import begin, stop, tell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Project

REPOSITORY = Path(__file__).parents[2]
SERVE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import instar
from instar.cli.server import main
assert instar.__file__.startswith(sys.path[0])
main()
"""
FIRST = "instar/cli/server.py", ""  # the commit that brought this file
BEFORE_PEERS = "instar/lifecycle/supervise.py", "^"  # the one before it


@pytest.fixture(params=[FIRST, BEFORE_PEERS], ids=["the first", "before there were peers"])
def served(request: pytest.FixtureRequest, project: Project, tmp_path: Path) -> Iterator[Gated]:
    """Return a project whose server is of an earlier time, with the gate in shadow."""
    gated = Gated.create(project, RULES)
    begin(project, "s")
    (tmp_path / "earlier").mkdir()
    command = [sys.executable, "-c", SERVE, str(_package(tmp_path / "earlier", *request.param)), "run"]
    server = subprocess.Popen(
        command, cwd=project.root, env=project.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with server:
        try:
            wait_until(lambda: endpoint(project.root), "it can be found")
            gated.set_mode("shadow")
            yield gated
        finally:
            server.terminate()


def _package(folder: Path, path: str, more: str) -> Path:
    """Put the sources of that time into a folder; skip where no history tells them."""
    git = ["git", "-C", str(REPOSITORY)]
    told = subprocess.run(
        [*git, "log", "--diff-filter=A", "--format=%H", "--", path], capture_output=True, check=False, text=True
    )
    if not told.stdout.strip():
        pytest.skip("there is no history")
    commit = told.stdout.split()[-1] + more
    packed = subprocess.run([*git, "archive", commit, "instar"], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed, check=True)
    return folder


def test_stops_are_judged_and_held_as_before(served: Gated) -> None:
    project = served.project
    assert stop(project) == {}
    (row,) = served.wait_for_rows(1)
    assert (row["mode"], row["decision"], row["rule"]) == ("shadow", "continue", RULE)

    served.set_mode("enforce")
    tell(project, "s", "UserPromptSubmit", prompt="go on")
    assert stop(project) == HELD
    assert served.outcomes[-1] == ("continue", RULE)
    assert served.troubles == []


@pytest.mark.usefixtures("served")
def test_commands_say_what_they_can_and_end_it(project: Project) -> None:
    project.build("init", "mend the roof", "--owner-session", "s")
    assert project.build("transition", "planning")["exit"] == 0
    for words in (
        ["instar-server", "status"],
        ["instar-sessions", "list"],
        ["instar-peers", "list"],
        ["instar-gate", "report"],
    ):
        done = subprocess.run(
            [str(BIN / words[0]), words[1], "--json"], cwd=project.root, env=project.env, capture_output=True,
            text=True, check=False, timeout=DEADLINE_S,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), words
        json.loads(done.stdout)

    said = json.loads(project.run(str(BIN / "instar-server"), "stop", "--json").stdout)
    assert (said["wasRunning"], said["killed"]) == (True, False)
    assert endpoint(project.root) is None
