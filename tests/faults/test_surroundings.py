"""Disks that fill up, files that cannot be read, clocks that jump, streams that hang and programs that never end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import DEADLINE_S, Project, Stop, executable
from tests.faults import laws
from tests.faults.harness import BUILD_STATE, PYTHON, Done, Log, build, check_all, finish, run, start, start_stop, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVENT = b'{"session_id":"s"}'
NOBODY = 65534
PAGE = 4096
IS_ROOT = os.geteuid() == 0


@pytest.fixture
def owned(breakable: Project) -> Project:
    """Return a project with a build that session "s" owns."""
    breakable.build("init", "a task", "--size", "LARGE", "--owner-session", "s")
    breakable.build("transition", "executing")
    return breakable


def unheard(project: Project) -> laws.Seen:
    """Forget what the person was told in the last hour, and look at the project."""
    for told in (project.root / laws.LOGS).glob(".told-*"):
        told.unlink()
    return laws.Seen.of(project)


def check_stop(project: Project, said: Stop, before: laws.Seen) -> None:
    """Assert what holds for a stop of the owner wherever the trouble comes from."""
    laws.the_answer_is_valid(said)
    laws.the_state_is_whole(project, before)
    laws.the_budget_is_exact(project, int(said.is_held), all_were_heard=True, since=before.used)
    laws.a_trace_is_left(project, before, said)
    laws.no_temporary_file_is_left(project)


# A disk that is full, or fills up while it is written to


@pytest.fixture
def small_disk(owned: Project, tmp_path: Path) -> Iterator[Path]:
    """Return a disk of its own that the state of the build lies on."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = IS_ROOT and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={64 * PAGE}", "tmpfs", str(place)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("only root may mount a disk that can be filled")
    folder = owned.state_path.parent
    shutil.copytree(folder, place, dirs_exist_ok=True)
    shutil.rmtree(folder)
    folder.symlink_to(place)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, left: int) -> None:
    """Leave so many bytes free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    status = os.statvfs(disk)
    filler.write_bytes(b"x" * (status.f_bavail * status.f_frsize - left))


@pytest.mark.parametrize("pages", range(5))
def test_a_disk_that_fills_up_costs_no_state_and_no_hold(owned: Project, small_disk: Path, pages: int) -> None:
    audit = owned.root / laws.AUDIT
    audit.write_bytes(audit.read_bytes() + b'{"event":"x"}\n' * 300)  # whose next page is a new one soon
    for _ in range(3):
        fill(small_disk, pages * PAGE)
        before = unheard(owned)
        check_stop(owned, stop(owned, "none"), before)
        done = build(owned, "none", "step-complete", str(before.used), "d" * 3000, "1", "1")
        assert (before.used in [step["step"] for step in owned.state["steps"]]) is (done.status == 0)
    (small_disk / "filler").unlink()
    assert owned.stop("s").is_held
    laws.the_audit_can_be_read(owned)


@pytest.mark.parametrize("blocks", range(4))
def test_files_that_may_not_grow_are_a_full_disk(owned: Project, blocks: int) -> None:
    limited = f"ulimit -f {blocks}; trap '' XFSZ; exec {owned.root}/.instar/hooks/instar/run build-stop-hook"
    owned.change_state(task="x" * 900)
    for _ in range(3):
        before = unheard(owned)
        done = subprocess.run(
            ["/bin/bash", "-c", limited], input=EVENT, capture_output=True, check=False, env=owned.env
        )
        check_stop(owned, Stop(done.returncode, done.stdout, done.stderr), before)


def test_a_disk_that_is_gone_lets_go_each_time_and_says_so(owned: Project, log: Log) -> None:
    stop(owned, log.fault)

    def check(fault: str) -> None:
        before = unheard(owned)
        said = stop(owned, fault)
        laws.the_answer_is_valid(said)
        laws.the_state_is_whole(owned, before)
        laws.a_trace_is_left(owned, before, said)

    check_all({f"{error}@{call.number}+": call for call in log.read() for error in ("EIO", "EROFS")}, check)
    assert owned.stop("s").is_held


def test_a_process_without_descriptors_left_lets_go_and_says_so(owned: Project, log: Log) -> None:
    stop(owned, f"{log.fault} reads")

    def check(fault: str) -> None:
        owned.change_state(reinforcementsUsed=0)
        before = unheard(owned)
        check_stop(owned, stop(owned, fault), before)

    check_all({f"EMFILE@{call.number} reads": call for call in log.read() if call.subject != "1"}, check)


# Files and folders that another user may not read or write


class Stranger:
    """Another user of the machine, or at least one whom modes bind, in a copy of a project that all can reach."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = Project(folder / "project", {"PATH": "/usr/bin:/bin", "HOME": str(folder)})
        shutil.copytree(project.root, self.project.root, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rwX", str(self.project.root)], check=True)
        self.become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if IS_ROOT else []

    def stop(self) -> Stop:
        """Fire the registered hook."""
        done = subprocess.run(
            [*self.become, "/bin/sh", "-c", self.project.registered()], input=EVENT, capture_output=True,
            check=False, env={**self.project.env, "CLAUDE_PROJECT_DIR": str(self.project.root)}, cwd=self.project.root,
        )  # fmt: skip
        return Stop(done.returncode, done.stdout, done.stderr)

    def build(self, *arguments: str) -> Done:
        """Run a command of the build."""
        return run([*self.become, "python3", BUILD_STATE, *arguments], self.project.root, self.project.env)


@pytest.fixture
def stranger(project: Project) -> Iterator[Stranger]:
    """Return another user, with a build that the session "s" owns."""
    if IS_ROOT and not (shutil.which("setpriv") and shutil.which("python3", path="/usr/bin:/bin")):
        pytest.skip("there is no setpriv, or no interpreter that another user could run")
    project.build("init", "a task", "--owner-session", "s")
    (project.root / PYTHON).unlink()  # root's own, which another user cannot reach
    folder = Path(tempfile.mkdtemp(prefix="instar-faults-"))
    folder.chmod(0o755)
    yield Stranger(project, folder)
    shutil.rmtree(folder)


STATE = ".instar/state/build"
LOCKED = {
    # what is taken away from whom -> whether the build can still hold
    "state not readable": (f"{STATE}/build-state.json", 0o000, False),
    "state not writable": (f"{STATE}/build-state.json", 0o444, True),  # it is replaced, not written
    "folder not writable": (STATE, 0o555, False),
    "folder not readable": (STATE, 0o000, False),
    "lock not writable": (f"{STATE}/.lock", 0o444, False),
    "audit not writable": (f"{STATE}/audit.jsonl", 0o444, True),
    "logs not writable": (".instar/logs", 0o555, True),
    "hook not readable": (".instar/hooks/instar/build-stop-hook.py", 0o000, False),
    "launcher not runnable": (".instar/hooks/instar/run", 0o644, False),
}


@pytest.mark.parametrize(("path", "mode", "holds"), LOCKED.values(), ids=LOCKED.keys())
def test_what_may_not_be_used_lets_go_and_leaves_a_trace(
    stranger: Stranger, path: str, mode: int, *, holds: bool
) -> None:
    project = stranger.project
    before = laws.Seen.of(project)
    place = project.root / path
    was = stat.S_IMODE(place.stat().st_mode)
    place.chmod(mode)
    if not IS_ROOT and mode:
        pytest.skip("a person's own files bind only others")
    said = stranger.stop()
    place.chmod(was)

    assert said.is_held is holds
    laws.the_answer_is_valid(said)
    laws.the_state_is_whole(project, before)
    laws.the_budget_is_exact(project, int(holds), all_were_heard=True, since=before.used)
    if "hooks" not in path:  # without the hook or its launcher there is nobody to say anything
        laws.a_trace_is_left(project, before, said)
    assert stranger.stop().is_held


@pytest.mark.parametrize("path", [f"{STATE}/build-state.json", STATE, f"{STATE}/.lock"])
def test_a_command_that_may_not_write_says_so_and_changes_nothing(stranger: Stranger, path: str) -> None:
    before = laws.Seen.of(stranger.project)
    place = stranger.project.root / path
    place.chmod(0o000)
    done = stranger.build("transition", "planning")
    place.chmod(0o777)

    assert done.status == 1
    assert done.answer["code"] in ("unwritable", "state_corrupt")
    assert laws.Seen.of(stranger.project).state == before.state
    assert stranger.build("transition", "planning").status == 0


# Clocks


@pytest.mark.parametrize("clock", ["wall=0", "wall=-100000", "wall=+100000", "wall=4102444800", "steady=0"])
def test_a_clock_that_is_wrong_changes_no_hold(owned: Project, clock: str) -> None:
    before = laws.Seen.of(owned)

    assert stop(owned, clock).is_held
    assert owned.used == before.used + 1
    assert build(owned, clock, "step-complete", "1", "d", "1", "1").is_ok
    assert build(owned, clock, "complete").is_ok
    for question in ("status", "history", "query", "resume"):
        assert build(owned, clock, question).is_ok
    laws.every_end_is_archived_once(owned)


def test_builds_that_end_at_the_same_moment_are_all_archived(breakable: Project) -> None:
    for number in range(4):
        assert build(breakable, "wall=1000000000", "init", f"task {number}").is_ok
        assert build(breakable, "wall=1000000000", "cancel").is_ok
        laws.every_end_is_archived_once(breakable)

    assert {each["task"] for each in breakable.build("history")["builds"]} == {f"task {number}" for number in range(4)}


def test_trouble_is_told_again_after_the_clock_went_back(owned: Project) -> None:
    owned.state_path.write_bytes(b"")
    assert owned.stop("s").answer
    (told,) = (owned.root / laws.LOGS).glob(".told-*")
    ahead = told.stat().st_mtime + 100_000
    os.utime(told, (ahead, ahead))

    assert [bool(owned.stop("s").answer) for _ in range(2)] == [True, False]


# Standard input


def test_input_that_never_ends_is_answered(owned: Project) -> None:
    with owned.start_hook() as hook, subprocess.Popen(["yes", "{"], stdout=hook.stdin, stderr=subprocess.DEVNULL):
        assert hook.stdin
        hook.stdin.close()
        hook.stdin = None
        stdout, _ = hook.communicate(timeout=DEADLINE_S)
    assert (hook.returncode, json.loads(stdout)) == (0, {})


def test_input_that_stalls_is_answered_even_when_the_clock_stands_still(owned: Project) -> None:
    with owned.start_hook(FAULT="steady=0") as hook:
        assert hook.stdin
        assert hook.stdout
        hook.stdin.write(EVENT[:5])
        hook.stdin.flush()
        assert json.loads(hook.stdout.read()) == {}
        assert hook.wait(DEADLINE_S) == 0


def test_a_client_that_is_gone_before_the_answer_costs_one_hold_at_most(owned: Project) -> None:
    hook = start_stop(owned, "s")
    assert hook.stdout
    hook.stdout.close()
    hook.stdout = None
    assert finish(hook).status == 0

    assert owned.used == 1
    assert owned.stop("s").is_held


# Programs that never end


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Callable[[str], dict[str, str]]]:
    """Return what puts a program that never ends first on PATH; those that were started end with the test."""
    pids = tmp_path / "pids"

    def hang(name: str) -> dict[str, str]:
        executable(tmp_path / "bin" / name, f"#!/bin/sh\necho $$ >>{pids}\nexec sleep 600\n")
        return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    yield hang
    for pid in pids.read_text().split() if pids.exists() else ():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue


IN_TMUX = {"TMUX": "/nonexistent/socket,1,0", "TMUX_PANE": "%1"}


def test_a_tmux_that_hangs_proves_nothing_and_ends(
    breakable: Project, hanging: Callable[[str], dict[str, str]]
) -> None:
    env = {**hanging("tmux"), **IN_TMUX}
    assert breakable.build("init", "a task", "--owner-tmux", "A")["exit"] == 0

    assert breakable.stop("s", env=env).answer == {}
    assert breakable.build("adopt", "--owner-session", "s", env=env)["exit"] == 0
    assert breakable.stop("s", env=env).is_held
    breakable.build("cancel")
    assert breakable.build("init", "another", "--owner-session", "s", env=env)["exit"] == 0


def test_a_git_that_hangs_keeps_no_stop_and_no_step_waiting(
    owned: Project, hanging: Callable[[str], dict[str, str]]
) -> None:
    script = owned.root / ".instar/hooks/instar/build-worktree.py"
    text = script.read_text(encoding="utf-8")
    assert "GIT_SECONDS = 60\n" in text
    script.write_text(text.replace("GIT_SECONDS = 60\n", "GIT_SECONDS = 3\n"), encoding="utf-8")

    creating = start(owned, "worktree-create", **hanging("git"))
    assert owned.stop("s").is_held
    assert owned.build("step-complete", "1", "d", "1", "1")["exit"] == 0
    assert creating.poll() is None
    done = finish(creating)

    assert (done.status, done.answer["code"]) == (1, "worktree_failed")
    assert owned.state["worktree"] is None
