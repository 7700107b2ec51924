"""The real Claude Code holds the session that owns a build, and no other."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from .builds import (
    BUDGETS,
    add_worktree,
    ask,
    build_state,
    commit_all,
    holds,
    init,
    owner,
    record_events,
    recorded,
    script,
    session_of,
)
from .claude import NO_QUESTIONS
from .fake_model import Run, Say
from .tui import Tmux, Tui
from .waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project

    from .claude import Claude, ClaudeTurn
    from .conftest import ClaudeFactory, ModelFactory
    from .fake_model import FakeModel

ASKED = Say("That is my question.")


@pytest.fixture
def model(project: Project, fake_model: ModelFactory) -> FakeModel:
    """Return a model that starts a small build and asks a question, and at the next prompt tries to stop."""
    return fake_model(script(init(project), ask(project), ASKED))


@pytest.fixture
def client(claude: ClaudeFactory, model: FakeModel, project: Project) -> Claude:
    """Return the Claude of that model."""
    return claude(model, project=project.root)


@pytest.fixture
def stranger(claude: ClaudeFactory, fake_model: ModelFactory, project: Project) -> Claude:
    """Return a Claude in the same project, whose model knows nothing of a build."""
    return claude(fake_model(), project=project.root)


def reasons_printed(turn: ClaudeTurn) -> list[str]:
    """Return the reasons on the standard output of the hooks."""
    answers = [json.loads(run.stdout) for run in turn.stop_hooks if run.stdout]
    return [answer["reason"] for answer in answers if answer]


class TestTheOwner:
    @pytest.mark.parametrize("between", [None, Run("true")], ids=["answers", "works between"])
    @pytest.mark.parametrize("size", BUDGETS)
    def test_is_held_as_often_as_the_size_says(
        self,
        claude: ClaudeFactory,
        fake_model: ModelFactory,
        project: Project,
        size: str,
        between: Run | None,
    ) -> None:
        model, budget = fake_model(script(init(project, size), between=between)), BUDGETS[size]

        turn = claude(model, project=project.root).prompt("go")

        assert holds(project, model) == budget
        assert model.calls == 2 + budget * (2 if between else 1)
        told = [text for request in model.requests for text in request.hook_feedback]
        assert told == reasons_printed(turn)
        assert ["This was the last hold" in text for text in told] == [False] * (budget - 1) + [True]
        assert turn.returncode == 0

    def test_is_held_in_a_new_process(self, client: Claude, model: FakeModel, project: Project) -> None:
        first = client.prompt("go")
        agent = owner(project)["agent"]

        client.resume(first.session_id, "go on")

        assert holds(project, model) == 3
        assert owner(project)["session"] == first.session_id
        assert owner(project)["agent"] != agent

    def test_stops_with_a_question_until_the_next_prompt(
        self, client: Claude, model: FakeModel, project: Project
    ) -> None:
        with client.converse() as conversation:
            assert conversation.prompt("go").result == ASKED.text
            assert holds(project, model) == 0
            conversation.prompt("tile")
        assert holds(project, model) == 3

    def test_is_held_after_compaction(self, client: Claude, model: FakeModel, project: Project) -> None:
        with client.converse() as conversation:
            for text in ("go", "/compact", "tile"):
                conversation.prompt(text)
        assert holds(project, model) == 3

    @pytest.mark.parametrize(
        "end",
        [[("transition", "executing"), ("complete",)], [("cancel", "sold the house")]],
        ids=["complete", "cancelled"],
    )
    def test_stops_when_the_build_is_over(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project, end: list[tuple[str, ...]]
    ) -> None:
        model = fake_model(script(init(project), *(build_state(project, *words) for words in end)))

        assert claude(model, project=project.root).prompt("go").result == "done."

        assert project.state["completedAt"]
        assert holds(project, model) == 0


class TestABackgroundTask:
    @pytest.fixture
    def model(self, project: Project, fake_model: ModelFactory, tmp_path: Path) -> FakeModel:
        waiting = Run(f"until [ -e {tmp_path}/end ]; do sleep 0.1; done", background=True)
        return fake_model(script(init(project), waiting, Say("waiting")))

    def test_lets_the_owner_stop_until_it_ends(
        self, client: Claude, model: FakeModel, project: Project, tmp_path: Path
    ) -> None:
        with client.converse() as conversation:
            assert conversation.prompt("go").result == "waiting"
            assert holds(project, model) == 0
            (tmp_path / "end").touch()
            conversation.next_turn()
        assert holds(project, model) == 3

    def test_lets_the_owner_stop_only_once(
        self, client: Claude, model: FakeModel, project: Project, tmp_path: Path
    ) -> None:
        with client.converse() as conversation:
            assert conversation.prompt("go").result == "waiting"
            conversation.prompt("still there?")
            assert holds(project, model) == 3
            (tmp_path / "end").touch()


class TestAnotherSession:
    def test_is_not_held_while_the_owner_lives(
        self, client: Claude, stranger: Claude, model: FakeModel, project: Project
    ) -> None:
        with client.converse() as conversation:
            conversation.prompt("go")
            before = project.state_path.read_bytes()

            turn = stranger.prompt("hello")

            assert (turn.result, stranger.model.calls) == ("done.", 1)
            assert project.state_path.read_bytes() == before
            conversation.prompt("tile")
        assert holds(project, model) == 3

    def test_is_not_held_after_the_owner_has_ended(self, client: Claude, stranger: Claude, project: Project) -> None:
        client.prompt("go")
        before = project.state_path.read_bytes()

        turn = stranger.prompt("hello")

        assert (turn.result, stranger.model.calls) == ("done.", 1)
        assert project.state_path.read_bytes() == before


class TestWhereverTheSessionIs:
    @pytest.fixture
    def model(self, project: Project, fake_model: ModelFactory) -> FakeModel:
        return fake_model(script(Run("pwd"), init(project)))

    def test_it_is_held_in_a_subfolder_with_the_same_registrations(
        self, client: Claude, model: FakeModel, project: Project
    ) -> None:
        below = project.root / "packages/roof"
        shutil.copytree(project.root / ".claude", below / ".claude")

        client.prompt("go", cwd=below)

        assert model.requests[1].tool_results == (str(below),)
        assert holds(project, model) == 3

    def test_it_is_held_in_a_worktree_of_claude(self, client: Claude, model: FakeModel, project: Project) -> None:
        commit_all(project)

        client.prompt("go", "--worktree", "branch")

        assert model.requests[1].tool_results == (f"{project.root}/.claude/worktrees/branch",)
        assert holds(project, model) == 3

    def test_it_is_held_in_a_worktree_elsewhere(
        self, client: Claude, model: FakeModel, project: Project, tmp_path: Path
    ) -> None:
        tree = add_worktree(project, tmp_path / "a tree")

        client.prompt("go", cwd=tree)

        assert model.requests[1].tool_results == (str(tree),)
        assert holds(project, model) == 3

    @pytest.mark.parametrize("kind", ["folder", "worktree"])
    def test_it_is_held_after_the_model_went_elsewhere(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project, kind: str
    ) -> None:
        below = project.root / "below"
        if kind == "worktree":
            add_worktree(project, below)
        below.mkdir(exist_ok=True)
        model = fake_model(script(init(project), Run("cd below"), Run("pwd")))

        claude(model, project=project.root).prompt("go")

        assert model.requests[3].tool_results == (str(below),)
        assert holds(project, model) == 3


class TestTheHooks:
    def test_run_without_error_or_noise(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project
    ) -> None:
        turn = claude(fake_model(script(init(project))), project=project.root).prompt("go")

        assert {(run.exit_code, run.outcome, run.stderr) for run in turn.hooks} == {(0, "success", "")}
        assert Counter(run.event for run in turn.hooks) == {"SessionStart": 1, "UserPromptSubmit": 1, "Stop": 2 * 4}
        assert {run.stdout for run in turn.hooks if run.event != "Stop"} == {""}

    def test_tell_the_model_nothing_but_why_it_is_held(self, stranger: Claude, project: Project) -> None:
        project.build("init", "of somebody else", "--owner-session", "else")

        stranger.prompt("hello")
        stranger.prompt("hello", "--settings", '{"disableAllHooks": true}')

        with_hooks, without = stranger.model.requests
        for part in ("system", "messages"):
            assert with_hooks.body[part] == without.body[part]

    def test_hear_of_every_event(self, stranger: Claude, project: Project, tmp_path: Path) -> None:
        record_events(project, tmp_path / "log")

        with stranger.converse() as conversation:
            for text in ("hello", "are you there?", "/compact"):
                conversation.prompt(text)

        assert recorded(tmp_path / "log", "hook_event_name", "source", "trigger", "reason", "prompt") == [
            ("SessionStart", "startup"),
            ("UserPromptSubmit", "hello"),
            ("UserPromptSubmit", "are you there?"),
            ("SessionStart", "compact"),
            ("SessionEnd", "other"),
        ]


class TestInTmux:
    @staticmethod
    def start(tmux: Tmux, client: Claude, *args: str, **env: str) -> Tui:
        return tmux.start(client, *NO_QUESTIONS, *args, env=env)

    def test_the_person_sees_why_the_session_is_held(
        self, client: Claude, model: FakeModel, project: Project, tmux: Tmux
    ) -> None:
        tui = self.start(tmux, client)
        tui.prompt("go", until=ASKED.text)
        assert "Stop hook" not in tui.scrollback()

        tui.prompt("tile", until="Told 3.")

        shown = tui.scrollback()
        for number in (1, 2, 3):
            assert f"/build active: phase idle (light, {number}/3 holds used)" in shown
        assert holds(project, model) == 3

    def test_a_large_build_is_held_ten_times(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(script(init(project, "LARGE")))

        self.start(tmux, claude(model, project=project.root)).prompt("go", until="Told 10.")

        assert holds(project, model) == 10

    def test_the_build_knows_its_pane(self, client: Claude, project: Project, tmux: Tmux) -> None:
        tui = self.start(tmux, client)
        tui.prompt("go", until=ASKED.text)

        stamp = owner(project)
        assert (stamp["tmux"], stamp["pane"], stamp["agent"]["pid"]) == ("main", tui.pane, tui.pid)
        assert stamp["tmuxServer"] == int(tmux.run("display-message", "-p", "#{pid}"))

    @pytest.mark.parametrize("env", [{}, {"INSTAR_HOOK_NO_TMUX": "1"}], ids=["pane", "process alone"])
    def test_the_owner_is_held_after_clear(
        self, client: Claude, model: FakeModel, project: Project, tmux: Tmux, env: dict[str, str]
    ) -> None:
        tui = self.start(tmux, client, **env)
        tui.prompt("go", until=ASKED.text)
        before = session_of(model)
        tui.clear()
        tui.prompt("tile", until="Told 3.")

        assert holds(project, model) == 3
        assert owner(project)["session"] == session_of(model) != before
        (reconciled,) = project.events("owner.reconciled")
        assert (reconciled["old"], reconciled["new"]) == (before, session_of(model))

    def test_the_owner_is_held_after_a_resume_and_clear(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        asks = (ask(project), ASKED)
        model = fake_model(script(init(project), *asks, ask(project), Say("Asked again.")))
        client = claude(model, project=project.root)
        session = client.prompt("go").session_id

        tui = self.start(tmux, client, "--resume", session, INSTAR_HOOK_NO_TMUX="1")
        tui.prompt("I do not know", until="Asked again.")
        assert owner(project)["agent"]["pid"] == tui.pid
        tui.clear()
        tui.prompt("tile", until="Told 3.")

        assert holds(project, model) == 3
        assert owner(project)["session"] == session_of(model) != session

    def test_another_pane_is_not_held(
        self, client: Claude, stranger: Claude, model: FakeModel, project: Project, tmux: Tmux
    ) -> None:
        tui = self.start(tmux, client)
        tui.prompt("go", until=ASKED.text)
        before = project.state_path.read_bytes()

        self.start(tmux, stranger).prompt("hello", until="done.")

        assert stranger.model.calls == 1
        assert project.state_path.read_bytes() == before
        tui.prompt("tile", until="Told 3.")
        assert holds(project, model) == 3

    def test_a_session_in_the_shell_of_the_owner_is_not_held(
        self, claude: ClaudeFactory, stranger: Claude, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(script(init(project), Run(stranger.headless("hello").for_shell())))

        self.start(tmux, claude(model, project=project.root)).prompt("go", until="Told 3.")

        assert stranger.model.calls == 1
        assert holds(project, model) == 3

    def test_a_session_of_the_same_name_on_another_server_is_not_held(
        self, client: Claude, stranger: Claude, project: Project, tmux: Tmux
    ) -> None:
        tui = self.start(tmux, client)
        tui.prompt("go", until=ASKED.text)
        self.leave(tui)
        before = project.state_path.read_bytes()

        with Tmux() as other:
            twin = self.start(other, stranger)
            assert twin.pane == tui.pane
            twin.prompt("hello", until="done.")

        assert stranger.model.calls == 1
        assert project.state_path.read_bytes() == before

    def test_the_owner_that_comes_back_to_its_pane_is_held(
        self, client: Claude, model: FakeModel, project: Project, tmux: Tmux
    ) -> None:
        tui = self.start(tmux, client)
        tui.prompt("go", until=ASKED.text)
        before = session_of(model)
        self.leave(tui)

        again = client.interactive(*NO_QUESTIONS)
        tmux.run("respawn-pane", "-t", tui.pane, "-c", str(again.cwd), again.for_pane())
        tui.wait_until_idle()
        tui.prompt("tile", until="Told 3.")

        assert holds(project, model) == 3
        assert owner(project)["session"] == session_of(model) != before

    @staticmethod
    def leave(tui: Tui) -> None:
        tui.send("/exit")
        wait_until(lambda: tui.screen().has_ended, "Claude has ended")
