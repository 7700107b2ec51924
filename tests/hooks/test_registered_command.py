"""The command that is registered: it finds the project from anywhere, and whatever is broken it ends with status 0."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import executable

if TYPE_CHECKING:
    from support import Project

# Claude Code runs hooks in /bin/sh; Codex in the shell of the account.
SHELLS = {"claude": ("sh", "dash", "bash"), "codex": ("sh", "dash", "bash", "zsh")}
FOUND = [(client, shell) for client, names in SHELLS.items() for name in names if (shell := shutil.which(name))]


@pytest.fixture
def owned(project: Project) -> Project:
    """Return a committed project with a build that session "s" owns."""
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "first")
    project.build("init", "a task", "--size", "LARGE", "--owner-session", "s")
    return project


@pytest.mark.parametrize(("client", "shell"), FOUND)
def test_every_shell_runs_it(owned: Project, client: str, shell: str) -> None:
    assert owned.stop("s", client=client, shell=shell).is_held
    assert not owned.stop("t", client=client, shell=shell).is_held


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_subfolder_belongs_to_the_project(owned: Project, client: str) -> None:
    deep = owned.root / "sub" / "deep er"
    deep.mkdir(parents=True)

    assert owned.stop("s", client=client, cwd=deep).is_held


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_a_linked_worktree_belongs_to_its_main_checkout(
    owned: Project, tmp_path: Path, place: str, *, relative: bool
) -> None:
    tree = owned.root / ".claude/worktrees/w" if place == "inside" else tmp_path / "outer tree"
    owned.run("git", "worktree", "add", "-q", "-b", "w", str(tree))
    if relative:
        link = tree / ".git"
        git_folder = link.read_text().removeprefix("gitdir: ").strip()
        link.write_text(f"gitdir: {os.path.relpath(git_folder, tree)}\n")
    (tree / "sub").mkdir()

    for client in ("claude", "codex"):
        assert owned.stop("s", client=client, cwd=tree).is_held
        assert owned.stop("s", client=client, cwd=tree / "sub").is_held
    assert owned.used == 4
    assert owned.build("status", cwd=tree)["reinforcementsUsed"] == 4


def test_another_repository_inside_is_not_the_project(owned: Project) -> None:
    inner = owned.root / "vendor" / "other"
    inner.mkdir(parents=True)
    owned.run("git", "init", "-q", ".", cwd=inner)

    assert owned.stop("s", cwd=inner).answer == {}


@pytest.mark.parametrize("folder", ["/", "/tmp"])  # noqa: S108 - just a folder without a project
def test_elsewhere_it_ends_at_once(owned: Project, folder: str) -> None:
    said = owned.stop("s", cwd=Path(folder))

    assert (said.status, said.stdout, said.stderr) == (0, b"", b"")


@pytest.mark.parametrize("value", ["", "relative", "gone/away", "/nonexistent"])
def test_an_odd_project_variable_does_not_hang_it(owned: Project, value: str) -> None:
    assert owned.stop("s", env={"CLAUDE_PROJECT_DIR": value}).status == 0


def test_codex_does_not_follow_the_project_of_an_outer_claude(owned: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    assert owned.stop("s", client="codex", cwd=elsewhere, env={"CLAUDE_PROJECT_DIR": str(owned.root)}).answer == {}


BREAKS = {
    "hook missing": ("build-stop-hook.py", None),
    "hook empty": ("build-stop-hook.py", b""),
    "hook with conflict markers": ("build-stop-hook.py", b"<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> other\n"),
    "hook that exits 2": ("build-stop-hook.py", b"import sys\nsys.stderr.write('no')\nsys.exit(2)\n"),
    "hook with a NUL": ("build-stop-hook.py", b"\0"),
    "run missing": ("run", None),
    "run empty": ("run", b""),
    "run truncated in a quote": ("run", b'#!/bin/sh\nrole=$1\n[ -e "$instar'),
    "run truncated in a case": ("run", b"#!/bin/sh\ncase $1 in\n"),
    "run with CRLF": ("run", b"CRLF"),
    "run with conflict markers": ("run", b"<<<<<<< HEAD\n#!/bin/sh\n=======\n>>>>>>> other\n"),
    "run with exit 2": ("run", b"#!/bin/sh\necho no >&2\nexit 2\n"),
    "run for no interpreter": ("run", b"#!/nonexistent/sh\nexit 0\n"),
}


@pytest.mark.parametrize(("name", "content"), BREAKS.values(), ids=BREAKS.keys())
@pytest.mark.parametrize("client", ["claude", "codex"])
def test_broken_files_let_the_session_stop(owned: Project, client: str, name: str, content: bytes | None) -> None:
    place = owned.root / ".instar/hooks/instar" / name
    if content is None:
        place.unlink()
    else:
        place.write_bytes(place.read_bytes().replace(b"\n", b"\r\n") if content == b"CRLF" else content)

    said = owned.stop("s", client=client)

    assert (said.status, said.stdout) == (0, b"")


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_project_whose_instar_folder_is_gone_lets_the_session_stop(owned: Project, client: str) -> None:
    shutil.rmtree(owned.root / ".instar")

    said = owned.stop("s", client=client)

    assert (said.status, said.stdout, said.stderr) == (0, b"", b"")


def test_without_its_interpreter_it_takes_python3(owned: Project) -> None:
    (owned.root / ".instar/state/python").unlink()

    assert owned.stop("s").is_held


def test_without_any_interpreter_it_lets_the_session_stop(owned: Project) -> None:
    (owned.root / ".instar/state/python").unlink()

    assert owned.stop("s", env={"PATH": "/nonexistent"}).answer == {}


def test_a_crash_of_the_hook_leaves_its_words(owned: Project) -> None:
    (owned.root / ".instar/hooks/instar/build-stop-hook.py").write_text("raise RuntimeError('told')\n")
    owned.stop("s")

    assert "told" in (owned.root / ".instar/logs/build-stop-hook.err").read_text()


def test_no_python_is_started_where_there_is_nothing_to_do(project: Project) -> None:
    (project.root / ".instar/state/python").unlink()
    spy = project.root / "python-was-started"
    (project.root / ".instar/state/python").symlink_to(executable(project.root / "spy", f"#!/bin/sh\ntouch {spy}\n"))
    (project.root / ".instar/hooks/instar/session-event-hook.py").unlink()

    for event, role in (
        ("Stop", "build-stop-hook"),
        ("Stop", "stop-gate-router"),
        ("SessionStart", "session-event-hook"),
    ):
        command = project.registered("claude", role, event)
        subprocess.run(["/bin/sh", "-c", command], check=True, cwd=project.root, env=project.env)
    assert not spy.exists()
    (project.root / ".instar/state/build").mkdir(parents=True)
    project.state_path.write_text(json.dumps({}))
    assert project.stop("s").status == 0
    assert spy.exists()
