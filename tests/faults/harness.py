"""Programs of a project, run with one thing broken, and what it takes to try every place where it can break."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from support import DEADLINE_S, Project, Stop, executable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DRIVER = Path(__file__).with_name("driver.py")
PYTHON = ".instar/state/python"
BUILD_STATE = ".instar/hooks/instar/build-state.py"
OPENS = ("open", "open for reading")
ONLY_AT = {"short": ("write",), "ENOLCK": ("flock",), "EMFILE": OPENS}  # the calls that a kind of fault can happen at
SPAWNS = ("spawn", "fork", "posix_spawn")

# Runs what the project's interpreter was asked to run, broken by $FAULT; the options it was given are the driver's own.
WRAPPER = """#!/bin/sh
while case $1 in -*) ;; *) false ;; esac; do shift; done
exec {python} -I -S {driver} "${{FAULT:-none}}" "$@"
"""


def make_breakable(project: Project) -> Project:
    """Let $FAULT break every program that the project's own interpreter runs, as it is registered or named."""
    python = project.root / PYTHON
    real = python.resolve()
    python.unlink()
    wrapper = executable(project.root.parent / "breakable-python", WRAPPER.format(python=real, driver=DRIVER))
    python.symlink_to(wrapper)
    return project


@dataclass
class Done:
    """A program that ended, one way or another."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def was_killed(self) -> bool:
        """Whether it did not end by itself."""
        return self.status == -signal.SIGKILL

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object it printed; empty when it printed nothing."""
        answer = json.loads(self.stdout) if self.stdout else {}
        assert isinstance(answer, dict), self
        return answer

    @property
    def is_ok(self) -> bool:
        """Whether it says that it did what it was asked to do."""
        return self.status == 0 or ("status" in self.answer and "error" not in self.answer)


def run(command: list[str | Path], folder: Path, environ: dict[str, str]) -> Done:
    """Run a program, which may fail."""
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, timeout=DEADLINE_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def build(project: Project, fault: str, *arguments: str, **env: str) -> Done:
    """Run a command of the build, broken by `fault`."""
    command = [project.root / PYTHON, project.root / BUILD_STATE, *arguments]
    return run(command, project.root, {**project.env, "FAULT": fault, **env})


def stop(project: Project, fault: str, session: str = "s", *, env: dict[str, str] | None = None, **event: Any) -> Stop:
    """Fire the registered Stop hook, broken by `fault`."""
    return project.stop(session, env={**(env or {}), "FAULT": fault}, **event)


def migrate(folder: Path, environ: dict[str, str], fault: str, *options: str) -> Done:
    """Run instar-migrate, broken by `fault`."""
    script = Path(sys.executable).with_name("instar-migrate")
    return run([sys.executable, "-I", DRIVER, fault, script, *options], folder, environ)


def start(project: Project, *arguments: str, fault: str = "none", **env: str) -> subprocess.Popen[bytes]:
    """Start a command of the build at the head of a process group of its own."""
    return subprocess.Popen(
        [project.root / PYTHON, project.root / BUILD_STATE, *arguments], cwd=project.root, stdin=subprocess.DEVNULL,
        env={**project.env, "FAULT": fault, **env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip


def start_stop(project: Project, session: str, *, fault: str = "none", **event: Any) -> subprocess.Popen[bytes]:
    """Start the registered Stop hook at the head of a process group of its own, with its event sent."""
    hook = subprocess.Popen(
        ["/bin/sh", "-c", project.registered()], cwd=project.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**project.env, "CLAUDE_PROJECT_DIR": str(project.root), "FAULT": fault}, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert hook.stdin
    hook.stdin.write(json.dumps({"session_id": session, **event}).encode())
    hook.stdin.close()
    hook.stdin = None
    return hook


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that heads a group, and all below it, at one moment."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def finish(process: subprocess.Popen[bytes]) -> Done:
    """Wait for a process and return what it left."""
    with process:
        stdout, stderr = process.communicate(timeout=DEADLINE_S)
    return Done(process.returncode, stdout, stderr)


class Call(NamedTuple):
    """One edge call of a program."""

    number: int
    name: str
    subject: str

    def __str__(self) -> str:
        """Say what the call does to what; the process id in a temporary name says nothing."""
        return f"call {self.number}, {self.name} {self.about}"

    @property
    def about(self) -> str:
        """The last part of the path it is about, or the number of a descriptor."""
        return self.subject.strip("'").rsplit("/", 1)[-1]


class Log:
    """The edge calls of programs, as the driver wrote them down."""

    def __init__(self, place: Path) -> None:
        self.place = place

    @property
    def fault(self) -> str:
        """The fault that breaks nothing and writes the calls down."""
        return f"calls={self.place}"

    def read(self) -> list[Call]:
        """Return the calls, and forget them."""
        lines = self.place.read_text(encoding="utf-8").splitlines()
        self.place.unlink()
        fields = [line.split("\t", 2) for line in lines]
        return [Call(int(number), name, subject) for number, name, subject in fields]


def faults(kind: str, calls: list[Call]) -> dict[str, Call]:
    """Return every fault of one kind that a program with these calls can meet; "disk": it fails or is full, in turn.

    Between one call and the next nothing happens outside the process, so killed before a call is killed after the one
    before it; but for the last, and for a program that was started and goes on alone.
    """
    if kind == "disk":
        return {f"{('ENOSPC', 'EIO')[call.number % 2]}@{call.number}": call for call in calls}
    if kind != "kill":
        return {f"{kind}@{call.number}": call for call in calls if kind not in ONLY_AT or call.name in ONLY_AT[kind]}
    after = [call for call in calls if call.name in SPAWNS or call == calls[-1]]
    before = {f"kill-before@{call.number}": call for call in calls}
    return {**before, **{f"kill-after@{call.number}": call for call in after}}


def check_all(points: dict[str, Call], check: Callable[[str], None]) -> None:
    """Try every point, and fail with all that `check` finds wrong, and where."""
    found = []
    for fault, call in points.items():
        try:
            check(fault)
        except (AssertionError, ValueError) as error:
            problem = str(error) or type(error).__name__
            found.append(f"{fault} ({call}): {problem:.400}")
    if found:
        raise AssertionError(f"{len(found)} of {len(points)} points:\n" + "\n".join(found))


class Rewind:
    """Puts folders back to what they were when it was made."""

    def __init__(self, folders: Iterable[Path], copies: Path) -> None:
        self.kept = {folder: copies / str(number) for number, folder in enumerate(folders)}
        for folder, copy in self.kept.items():
            shutil.copytree(folder, copy, symlinks=True)

    def __call__(self) -> None:
        """Put them back."""
        for folder, copy in self.kept.items():
            shutil.rmtree(folder)
            shutil.copytree(copy, folder, symlinks=True)
