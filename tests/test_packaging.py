"""The wheel alone, in a fresh environment: both commands work, and nothing else is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built from the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(REPOSITORY)]
    subprocess.run(pip, check=True)
    (built,) = folder.glob("instar_hooks-*.whl")
    return built


def test_the_wheel_holds_two_packages_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist()}

    assert {name for name in top if not name.endswith(".dist-info")} == {"migrator", "instar"}


def test_from_the_wheel_alone_both_commands_work(wheel: Path, tmp_path: Path) -> None:
    venv, project = tmp_path / "venv", tmp_path / "project"
    project.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    subprocess.run([f"{venv}/bin/python", "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    env = {"PATH": f"{venv}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)}

    def run(*command: str, stdin: str = "") -> str:
        done = subprocess.run(command, cwd=project, env=env, input=stdin, capture_output=True, text=True, check=True)
        return done.stdout

    assert "nothing to do" not in run("instar-migrate")
    assert "nothing to do" in run("instar-migrate")
    assert json.loads(run("build-state", "init", "a task", "--owner-session", "s"))["status"] == "initialized"
    settings = json.loads((project / ".claude/settings.json").read_text())
    command = settings["hooks"]["Stop"][0]["hooks"][1]["command"]
    assert json.loads(run("sh", "-c", command, stdin='{"session_id":"s"}'))["decision"] == "block"
    assert "remove" in run("instar-migrate", "--uninstall")
    assert run("instar-migrate", "--version").startswith("instar-migrate, version ")
