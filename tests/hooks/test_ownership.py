"""Who is held: the owner by proof, and nobody by a guess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from support import Project

NOT_STAMPED: dict[str, Any] = {"tmux": "", "session": ""}


def seam(name: str) -> dict[str, str]:
    return {"INSTAR_HOOK_TMUX_SESSION": name} if name else {"INSTAR_HOOK_NO_TMUX": "1"}


TABLE = [
    # owner.tmux, owner.session, my tmux, my session -> held, owner.session afterwards
    ("A", "s", "A", "s", True, "s"),
    ("A", "s", "A", "t", True, "t"),
    ("A", "s", "A", "", True, "s"),
    ("A", "s", "B", "s", True, "s"),
    ("A", "s", "B", "t", False, "s"),
    ("A", "s", "", "", False, "s"),
    ("", "s", "", "s", True, "s"),
    ("", "s", "X", "s", True, "s"),
    ("", "s", "", "t", False, "s"),
    ("", "s", "X", "t", False, "s"),
    ("A", "", "A", "t", True, "t"),
    ("", "", "", "t", False, ""),
    ("", "", "A", "t", False, ""),
    ("", "", "", "", False, ""),
]


@pytest.mark.parametrize(("tmux", "session", "my_tmux", "my_session", "held", "after"), TABLE)
def test_the_ownership_table_holds(
    project: Project, tmux: str, session: str, my_tmux: str, my_session: str, *, held: bool, after: str
) -> None:
    project.build("init", "a task")
    project.change_state(owner={**project.state["owner"], "tmux": tmux, "session": session})
    before = project.state_path.read_bytes()

    assert project.stop(my_session, env=seam(my_tmux)).is_held is held

    assert project.state["owner"]["session"] == after
    assert project.used == int(held)
    if not held:
        assert project.state_path.read_bytes() == before


def test_a_stranger_costs_the_owner_nothing(project: Project) -> None:
    project.build("init", "a task", "--size", "SMALL", "--owner-session", "owner", env=seam("A"))

    assert [project.stop("other", env=seam("B")).answer for _ in range(5)] == [{}] * 5
    assert project.used == 0
    assert [project.stop("owner", env=seam("A")).is_held for _ in range(5)] == [True, True, True, False, False]
    assert project.used == 3


def test_no_stamp_means_no_adoption(project: Project) -> None:
    project.build("init", "a task")
    project.change_state(owner=None)

    assert project.stop("z", env=seam("Z")).answer == {}
    assert "owner" not in project.state


@pytest.mark.parametrize("owner", [7, "A", ["A"], {"tmux": 1, "session": ["s"]}, {"tmux": "  ", "session": " "}])
def test_a_mistyped_stamp_is_none(project: Project, owner: Any) -> None:
    project.build("init", "a task")
    project.change_state(owner=owner)

    assert project.stop("s", env=seam("A")).answer == {}
    assert project.used == 0


@pytest.mark.parametrize("phase", ["complete", "failed", "escalated"])
def test_a_finished_build_holds_nobody(project: Project, phase: str) -> None:
    project.build("init", "a task", "--owner-session", "s")
    project.change_state(phase=phase)

    assert project.stop("s").answer == {}
    assert project.used == 0


def test_the_owner_who_comes_back_under_another_id_is_written_down(project: Project) -> None:
    project.build("init", "a task", "--owner-session", "old", env=seam("A"))

    project.stop("new", env=seam("A"))

    assert [(each["old"], each["new"]) for each in project.events("owner.reconciled")] == [("old", "new")]


INIT = [
    # options, environment -> owner.tmux, owner.session
    ([], {"INSTAR_HOOK_NO_TMUX": "1"}, "", ""),
    (["--owner-session", " id "], {"INSTAR_HOOK_TMUX_SESSION": "T"}, "T", "id"),
    (["--owner-tmux", "flag"], {"INSTAR_HOOK_TMUX_SESSION": "T"}, "flag", ""),
    ([], {"INSTAR_HOOK_TMUX_SESSION": ""}, "", ""),
    ([], {"CLAUDE_CODE_SESSION_ID": "c"}, "", "c"),
    ([], {"CODEX_SESSION_ID": "x"}, "", "x"),
    ([], {"CLAUDE_CODE_SESSION_ID": "c", "CODEX_SESSION_ID": "x"}, "", ""),
    (["--owner-session", "other"], {"CLAUDE_CODE_SESSION_ID": "c"}, "", "other"),
]


@pytest.mark.parametrize(("options", "env", "tmux", "session"), INIT)
def test_init_stamps_what_is_certain(
    project: Project, options: list[str], env: dict[str, str], tmux: str, session: str
) -> None:
    project.build("init", "a task", *options, env=env)

    owner = project.state["owner"]
    assert (owner["tmux"], owner["session"]) == (tmux, session)
    assert isinstance(owner["stampedAt"], str)
    assert "agent" not in owner  # no client runs above a test


def test_init_says_when_nobody_will_be_held(project: Project) -> None:
    assert "no session owns this build" in project.build("init", "a task")["warnings"][0]


def test_init_in_an_owned_session_warns_of_nothing(project: Project) -> None:
    assert "warnings" not in project.build("init", "a task", "--owner-session", "s")
