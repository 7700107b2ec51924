"""What a person asks for: every session that can be seen, and one parked because they say so, if it is idle."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from clients.waiting import wait_until
from instar.sessions import registry
from instar.sessions.assembly import Assembly
from instar.sessions.classifier import explain, judge
from instar.sessions.machine.processes import liveness
from instar.sessions.reaper.stage import Stage
from instar.sessions.registry import change

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = "0a3c9e4e-2f2b-4b8e-9d5c-9a5b8f3f7d11"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage() as made:
        made.start(ONE)
        yield made


def assembled(stage: Stage) -> Assembly:
    return Assembly(stage.project, {"INSTAR_SHARED_ROOT": str(stage.folder / "shared")})


def tmux(stage: Stage, *command: str) -> str:
    return subprocess.run(
        ["tmux", "-S", str(stage.socket), *command], check=True, capture_output=True, text=True
    ).stdout


def agent(stage: Stage) -> object:
    found = registry.session(stage.project, ONE)
    assert found
    return found.record["agent"]


def test_a_person_parks_an_idle_session_that_has_just_begun(stage: Stage) -> None:
    stamp = agent(stage)
    assembly = assembled(stage)
    (sight,) = assembly.sights()
    assert judge(sight).kept_by == "spawn-grace"
    result = assembly.terminate(ONE, "to make room")

    assert result["terminated"], result
    assert result["freed"] > 0
    assert liveness(stamp) == "dead"
    pane = tmux(stage, "list-panes", "-a", "-F", "#{pane_dead} #{pane_current_command}").split()
    assert pane == ["0", "sh"]  # the shell that started it goes on
    assert f"instar-sessions resume {ONE}" in tmux(stage, "capture-pane", "-p", "-J")


def test_nobody_parks_a_peer_that_a_service_runs(stage: Stage) -> None:
    change(stage.project, ONE, lambda record: {**record, "identity": "claude-code-bob"})
    unit = stage.folder / "home/.config/systemd/user/instar-peer@bob.service"
    unit.parent.mkdir(parents=True)
    unit.touch()
    assembly = Assembly(
        stage.project, {"INSTAR_SHARED_ROOT": str(stage.folder / "shared"), "HOME": str(stage.folder / "home")}
    )
    (sight,) = assembly.sights()

    assert {gate.name: word.why for gate, word in explain(sight) if word}["protected"] == "systemd runs its peer"
    assert assembly.reaper.evaluate(ONE)["keptBy"] == "protected"
    assert assembly.terminate(ONE, "to make room")["skipped"] == "protected"
    assert assembly.kill(ONE)["skipped"] == "protected"
    assert liveness(agent(stage)) == "alive"


def test_a_person_does_not_park_what_holds_unsent_text(stage: Stage) -> None:
    tmux(stage, "send-keys", "-l", "not yet")
    wait_until(lambda: "not yet" in tmux(stage, "capture-pane", "-p"), "the text is there", timeout_s=10)
    result = assembled(stage).terminate(ONE, "to make room")

    assert (result["terminated"], result["skipped"]) == (False, "composer-not-empty")
    assert liveness(agent(stage)) == "alive"


def test_a_person_ends_what_holds_unsent_text_if_they_insist(stage: Stage) -> None:
    stamp = agent(stage)
    tmux(stage, "send-keys", "-l", "not yet")
    result = assembled(stage).kill(ONE)

    assert result["terminated"], result
    assert liveness(stamp) == "dead"


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """Make a program by the name of a client."""
    return shutil.copy(shutil.which("sleep") or "sleep", tmp_path / "claude")


def test_a_client_that_is_not_on_record_is_seen_and_left_alone(stage: Stage, claude: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", stage.project], check=True)
    inside = stage.project / "folder"
    inside.mkdir()
    seen = subprocess.Popen([claude, "600"], cwd=inside)
    elsewhere = subprocess.Popen([claude, "600"], cwd=tmp_path)
    try:
        sights = {sight.session.id: sight for sight in assembled(stage).sights()}

        assert set(sights) == {ONE, f"claude-{seen.pid}"}
        assert judge(sights[f"claude-{seen.pid}"]).kept_by == "unmanaged"
    finally:
        for each in (seen, elsewhere):
            each.kill()
            each.wait()
