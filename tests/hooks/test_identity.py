"""Proof by the agent's process and by the tmux pane, with real processes and real tmux servers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from hooks.common.identity import Processes, is_shared
from stand_ins import BASH

if TYPE_CHECKING:
    from collections.abc import Callable

    from stand_ins import Client, Tmux
    from support import Project


def test_init_below_a_client_stamps_its_session_and_process(
    project: Project, start_client: Callable[..., Client]
) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init()

    owner = project.state["owner"]
    assert owner["session"] == "s"
    assert owner["agent"]["pid"] == claude.process.pid
    assert owner["agent"]["start"]


def test_a_clear_in_the_same_process_keeps_the_owner(project: Project, start_client: Callable[..., Client]) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="before")
    claude.init()

    assert claude.is_held("after")
    assert project.state["owner"]["session"] == "after"


def test_a_resume_in_a_new_process_keeps_the_owner_and_so_does_a_clear_there(
    project: Project, start_client: Callable[..., Client]
) -> None:
    first = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    first.init()
    first.end()
    second = start_client("claude", CLAUDE_CODE_SESSION_ID="s")

    assert second.is_held("s")
    assert project.state["owner"]["agent"]["pid"] == second.process.pid
    assert second.is_held("cleared")


def test_while_the_owner_lives_its_tmux_session_owns_nothing(
    project: Project, start_client: Callable[..., Client]
) -> None:
    start_client("claude", CLAUDE_CODE_SESSION_ID="s", INSTAR_HOOK_TMUX_SESSION="A").init()
    other = start_client("claude", CLAUDE_CODE_SESSION_ID="t", INSTAR_HOOK_TMUX_SESSION="A")

    assert not other.is_held("t")
    assert project.state["owner"]["session"] == "s"
    assert project.used == 0


def test_a_restart_in_the_same_tmux_session_is_the_owner_come_back(
    project: Project, start_client: Callable[..., Client]
) -> None:
    first = start_client("claude", CLAUDE_CODE_SESSION_ID="s", INSTAR_HOOK_TMUX_SESSION="A")
    first.init()
    first.end()

    assert start_client("claude", CLAUDE_CODE_SESSION_ID="t", INSTAR_HOOK_TMUX_SESSION="A").is_held("t")
    assert project.state["owner"]["session"] == "t"


def test_a_pid_that_another_process_has_now_proves_nothing(
    project: Project, start_client: Callable[..., Client]
) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init()
    owner = project.state["owner"]
    project.change_state(owner={**owner, "agent": {**owner["agent"], "start": "1"}})

    assert not claude.is_held("t")


def test_a_build_for_somebody_else_is_not_stamped_with_the_own_process(
    project: Project, start_client: Callable[..., Client]
) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init("--owner-session other")

    assert project.state["owner"]["session"] == "other"
    assert "agent" not in project.state["owner"]
    assert not claude.is_held("s")


def test_a_codex_inside_a_claude_stamps_itself(
    project: Project, start_client: Callable[..., Client], tmp_path: Path
) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="outer")
    (tmp_path / "bin" / "codex").symlink_to(BASH)
    init = ".instar/state/python .instar/hooks/instar/build-state.py init task"
    claude.run(f"CODEX_SESSION_ID=inner {tmp_path}/bin/codex -c '{init}; true'")

    assert project.state["owner"]["session"] == "inner"
    assert project.state["owner"]["agent"]["pid"] != claude.process.pid
    assert not claude.is_held("outer")


def test_below_a_shared_codex_only_the_session_id_counts(project: Project, start_client: Callable[..., Client]) -> None:
    daemon = start_client("codex", "app-server", CODEX_SESSION_ID="s", TMUX="/nowhere,1,0", TMUX_PANE="%0")
    daemon.init()

    assert {key: project.state["owner"].get(key) for key in ("session", "tmux", "agent")} == {
        "session": "s",
        "tmux": "",
        "agent": None,
    }
    assert not daemon.is_held("of another terminal")
    assert daemon.is_held("s")


def test_the_process_table_of_ps_tells_the_same_as_proc(start_client: Callable[..., Client]) -> None:
    daemon = start_client("codex", "app-server")
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


def test_init_in_a_pane_stamps_session_server_and_pane(project: Project, start_tmux: Callable[[str], Tmux]) -> None:
    server = start_tmux("one")
    pane = server.pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)

    owner = project.state["owner"]
    assert (owner["tmux"], owner["pane"]) == ("work", pane["TMUX_PANE"])
    assert str(owner["tmuxServer"]) == pane["TMUX"].split(",")[1]
    assert project.stop("anything", env=pane).is_held


def test_outside_tmux_a_running_server_says_nothing_about_me(
    project: Project, start_tmux: Callable[[str], Tmux]
) -> None:
    pane = start_tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", "--owner-tmux", "work")

    assert not project.stop("t", env={"TMUX_TMPDIR": str(Path(pane["TMUX"]).parent)}).is_held


def test_a_session_of_the_same_name_on_another_server_is_another(
    project: Project, start_tmux: Callable[[str], Tmux]
) -> None:
    mine = start_tmux("one").pane("new-session", "-s", "work")
    theirs = start_tmux("two").pane("new-session", "-s", "work")
    project.build("init", "a task", env=mine)

    assert not project.stop("t", env=theirs).is_held
    assert project.state["owner"]["session"] == ""
    assert project.stop("s", env=mine).is_held


def test_a_second_pane_is_another_as_long_as_the_first_is_there(
    project: Project, start_tmux: Callable[[str], Tmux]
) -> None:
    server = start_tmux("one")
    first = server.pane("new-session", "-s", "work")
    second = server.pane("split-window", "-t", "work")
    project.build("init", "a task", "--size", "LARGE", env=first)

    assert not project.stop("t", env=second).is_held
    assert project.state["owner"]["session"] == ""
    server.ask("kill-pane", "-t", first["TMUX_PANE"])
    assert project.stop("t", env=second).is_held  # the session went on in another pane


def test_a_tmux_that_hangs_is_no_proof_and_no_delay(project: Project, start_tmux: Callable[[str], Tmux]) -> None:
    pane = start_tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)
    server = int(pane["TMUX"].split(",")[1])
    os.kill(server, signal.SIGSTOP)
    try:
        assert project.stop("t", env=pane).answer == {}
    finally:
        os.kill(server, signal.SIGCONT)


def test_without_a_tmux_program_nothing_is_known(project: Project, start_tmux: Callable[[str], Tmux]) -> None:
    pane = start_tmux("one").pane("new-session", "-s", "work")
    project.build("init", "a task", env=pane)

    assert project.stop("t", env={**pane, "PATH": "/nonexistent"}).answer == {}
