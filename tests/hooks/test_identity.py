"""Proof by the agent's process and by the tmux pane, with real processes and real tmux servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hooks.common.identity import Processes, is_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Project

BASH = shutil.which("bash") or "/bin/bash"


class Client:
    """A shell under the name of a client: what it runs has a `claude` or `codex` process above it."""

    def __init__(self, project: Project, program: Path, *arguments: str, **env: str) -> None:
        self.project = project
        self.process = subprocess.Popen(
            [str(program), "-c", 'while read -r line; do eval "$line"; done', *arguments],
            cwd=project.root,
            env={**project.env, "CLAUDE_PROJECT_DIR": str(project.root), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str) -> str:
        """Run a shell line below the client and return what it prints."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}; echo; echo END\n")
        self.process.stdin.flush()
        return "".join(iter(self.process.stdout.readline, "END\n"))

    def init(self, *options: str) -> None:
        self.run(f'.instar/state/python .instar/hooks/instar/build-state.py init "a task" {" ".join(options)}')

    def is_held(self, session: str) -> bool:
        event = self.project.root.parent / "event"
        event.write_text(json.dumps({"session_id": session}))
        command = self.project.root.parent / "command"
        command.write_text(self.project.registered())
        return "block" in self.run(f"sh {command} <{event}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def client(project: Project, tmp_path: Path) -> Iterator[Callable[..., Client]]:
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


def test_init_below_a_client_stamps_its_session_and_process(project: Project, client: Callable[..., Client]) -> None:
    claude = client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init()

    owner = project.state["owner"]
    assert owner["session"] == "s"
    assert owner["agent"]["pid"] == claude.process.pid
    assert owner["agent"]["start"]


def test_a_clear_in_the_same_process_keeps_the_owner(project: Project, client: Callable[..., Client]) -> None:
    claude = client("claude", CLAUDE_CODE_SESSION_ID="before")
    claude.init()

    assert claude.is_held("after")
    assert project.state["owner"]["session"] == "after"


def test_a_resume_in_a_new_process_keeps_the_owner_and_so_does_a_clear_there(
    project: Project, client: Callable[..., Client]
) -> None:
    first = client("claude", CLAUDE_CODE_SESSION_ID="s")
    first.init()
    first.end()
    second = client("claude", CLAUDE_CODE_SESSION_ID="s")

    assert second.is_held("s")
    assert project.state["owner"]["agent"]["pid"] == second.process.pid
    assert second.is_held("cleared")


def test_while_the_owner_lives_its_tmux_session_owns_nothing(project: Project, client: Callable[..., Client]) -> None:
    client("claude", CLAUDE_CODE_SESSION_ID="s", INSTAR_HOOK_TMUX_SESSION="A").init()
    other = client("claude", CLAUDE_CODE_SESSION_ID="t", INSTAR_HOOK_TMUX_SESSION="A")

    assert not other.is_held("t")
    assert project.state["owner"]["session"] == "s"
    assert project.used == 0


def test_a_restart_in_the_same_tmux_session_is_the_owner_come_back(
    project: Project, client: Callable[..., Client]
) -> None:
    first = client("claude", CLAUDE_CODE_SESSION_ID="s", INSTAR_HOOK_TMUX_SESSION="A")
    first.init()
    first.end()

    assert client("claude", CLAUDE_CODE_SESSION_ID="t", INSTAR_HOOK_TMUX_SESSION="A").is_held("t")
    assert project.state["owner"]["session"] == "t"


def test_a_pid_that_another_process_has_now_proves_nothing(project: Project, client: Callable[..., Client]) -> None:
    claude = client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init()
    owner = project.state["owner"]
    project.change_state(owner={**owner, "agent": {**owner["agent"], "start": "1"}})

    assert not claude.is_held("t")


def test_a_build_for_somebody_else_is_not_stamped_with_the_own_process(
    project: Project, client: Callable[..., Client]
) -> None:
    claude = client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init("--owner-session other")

    assert project.state["owner"]["session"] == "other"
    assert "agent" not in project.state["owner"]
    assert not claude.is_held("s")


def test_a_codex_inside_a_claude_stamps_itself(project: Project, client: Callable[..., Client], tmp_path: Path) -> None:
    claude = client("claude", CLAUDE_CODE_SESSION_ID="outer")
    (tmp_path / "bin" / "codex").symlink_to(BASH)
    init = ".instar/state/python .instar/hooks/instar/build-state.py init task"
    claude.run(f"CODEX_SESSION_ID=inner {tmp_path}/bin/codex -c '{init}; true'")

    assert project.state["owner"]["session"] == "inner"
    assert project.state["owner"]["agent"]["pid"] != claude.process.pid
    assert not claude.is_held("outer")


def test_below_a_shared_codex_only_the_session_id_counts(project: Project, client: Callable[..., Client]) -> None:
    daemon = client("codex", "app-server", CODEX_SESSION_ID="s", TMUX="/nowhere,1,0", TMUX_PANE="%0")
    daemon.init()

    assert {key: project.state["owner"].get(key) for key in ("session", "tmux", "agent")} == {
        "session": "s",
        "tmux": "",
        "agent": None,
    }
    assert not daemon.is_held("of another terminal")
    assert daemon.is_held("s")


def test_the_process_table_of_ps_tells_the_same_as_proc(client: Callable[..., Client]) -> None:
    daemon = client("codex", "app-server")
    daemon.run("true")
    from_proc, from_ps = Processes(), Processes(proc="/nonexistent")

    for pid in (os.getpid(), os.getppid(), daemon.process.pid):
        a, b = from_proc.look(pid), from_ps.look(pid)
        assert a
        assert b
        assert (a.pid, a.parent, a.client) == (b.pid, b.parent, b.client)
        assert is_shared(a) is is_shared(b) is (pid == daemon.process.pid)
        assert b.start
    assert from_ps.boot() == ""
    assert from_ps.look(2**30) is None


# tmux


@dataclass
class Tmux:
    """A private tmux server with one session."""

    socket: Path

    def ask(self, *command: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self.socket), "-f", os.devnull, *command], check=True, capture_output=True, text=True
        ).stdout.strip()

    def pane(self, *how: str) -> dict[str, str]:
        """Make a pane and return what a program in it has in its environment."""
        made = self.ask(*how, "-d", "-P", "-F", "#{socket_path},#{pid},0 #{pane_id}", "sleep 600")
        variable, pane = made.rsplit(" ", 1)
        return {"TMUX": variable, "TMUX_PANE": pane}


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Callable[[str], Tmux]]:
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    servers: list[Tmux] = []

    def start(name: str) -> Tmux:
        servers.append(Tmux(tmp_path / f"{name}.sock"))
        return servers[-1]

    yield start
    for server in servers:
        subprocess.run(["tmux", "-S", str(server.socket), "kill-server"], check=False, capture_output=True)


def test_init_in_a_pane_stamps_session_server_and_pane(project: Project, tmux: Callable[[str], Tmux]) -> None:
    server = tmux("one")
    pane = server.pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)

    owner = project.state["owner"]
    assert (owner["tmux"], owner["pane"]) == ("work", pane["TMUX_PANE"])
    assert str(owner["tmuxServer"]) == pane["TMUX"].split(",")[1]
    assert project.stop("anything", env=pane).is_held


def test_outside_tmux_a_running_server_says_nothing_about_me(project: Project, tmux: Callable[[str], Tmux]) -> None:
    pane = tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", "--owner-tmux", "work")

    assert not project.stop("t", env={"TMUX_TMPDIR": str(Path(pane["TMUX"]).parent)}).is_held


def test_a_session_of_the_same_name_on_another_server_is_another(project: Project, tmux: Callable[[str], Tmux]) -> None:
    mine = tmux("one").pane("new-session", "-s", "work")
    theirs = tmux("two").pane("new-session", "-s", "work")
    project.build("init", "a task", env=mine)

    assert not project.stop("t", env=theirs).is_held
    assert project.state["owner"]["session"] == ""
    assert project.stop("s", env=mine).is_held


def test_a_second_pane_is_another_as_long_as_the_first_is_there(project: Project, tmux: Callable[[str], Tmux]) -> None:
    server = tmux("one")
    first = server.pane("new-session", "-s", "work")
    second = server.pane("split-window", "-t", "work")
    project.build("init", "a task", "--size", "LARGE", env=first)

    assert not project.stop("t", env=second).is_held
    assert project.state["owner"]["session"] == ""
    server.ask("kill-pane", "-t", first["TMUX_PANE"])
    assert project.stop("t", env=second).is_held  # the session went on in another pane


def test_a_tmux_that_hangs_is_no_proof_and_no_delay(project: Project, tmux: Callable[[str], Tmux]) -> None:
    pane = tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)
    server = int(pane["TMUX"].split(",")[1])
    os.kill(server, signal.SIGSTOP)
    try:
        assert project.stop("t", env=pane).answer == {}
    finally:
        os.kill(server, signal.SIGCONT)


def test_without_a_tmux_program_nothing_is_known(project: Project, tmux: Callable[[str], Tmux]) -> None:
    pane = tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)

    assert project.stop("t", env={**pane, "PATH": "/nonexistent"}).answer == {}
