"""The real Codex holds the session that owns a build, and no other, once it was told to trust the hooks."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from migrator.codex_trust import grant
from support import BIN

from .builds import (
    BUDGETS,
    add_worktree,
    ask,
    build_state,
    holds,
    init,
    migrate,
    owner,
    record_events,
    recorded,
    script,
    session_of,
    trusted,
)
from .codex import NO_QUESTIONS
from .fake_model import Run, Say
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Project

    from .codex import Codex
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import FakeModel
    from .tui import Tmux

ASKED = Say("That is my question.")
SMALL = BUDGETS["SMALL"]


def outcomes(stops: int, held: int) -> dict[tuple[str, str], int]:
    """Return how the hooks of one prompt end: two at each stop, and none of them by failing."""
    around = {("SessionStart", "Completed"): 1, ("UserPromptSubmit", "Completed"): 1}
    return {**around, **({("Stop", "Blocked"): held} if held else {}), ("Stop", "Completed"): 2 * stops - held}


@pytest.fixture
def model(project: Project, fake_model: ModelFactory) -> FakeModel:
    """Return a model that starts a small build, and then tries to stop."""
    return fake_model(script(init(project)))


@pytest.fixture
def wary(codex: CodexFactory, model: FakeModel, project: Project) -> Codex:
    """Return the Codex of that model, which was not told yet to trust the hooks."""
    return codex(model, project=project.root)


@pytest.fixture
def client(wary: Codex) -> Codex:
    """Return the Codex of that model, which trusts the hooks."""
    return trusted(wary)


@pytest.fixture
def stranger(codex: CodexFactory, fake_model: ModelFactory, project: Project, tmp_path: Path) -> Codex:
    """Return a Codex in the same project that trusts the hooks, and whose model knows nothing of a build."""
    return trusted(codex(fake_model(), project=project.root, home=tmp_path / "other-home"))


class TestTrust:
    def test_is_needed_to_hold(self, wary: Codex, model: FakeModel, project: Project) -> None:
        turn = wary.prompt("go")

        assert (turn.hook_outcomes, model.calls) == ((), 2)
        assert holds(project, model) == 0

    def test_is_advised_where_it_is_missing(self, wary: Codex) -> None:
        assert "until it is told to trust them: run instar-migrate --trust-codex" in migrate(wary).stdout
        assert "Codex         trusts our hooks" in migrate(wary, "--trust-codex").stdout

    def test_is_refused_in_a_folder_that_is_not_trusted(
        self, codex: CodexFactory, model: FakeModel, project: Project
    ) -> None:
        done = migrate(codex(model, project=project.root, trust_folder=False), "--trust-codex")

        assert done.returncode == 1
        assert f"Codex does not trust the folder {project.root}" in done.stdout
        assert "trust the folder, then run instar-migrate --trust-codex" in done.stdout

    def test_survives_an_upgrade(self, wary: Codex, model: FakeModel, project: Project) -> None:
        hooks = [project.root / ".instar/hooks/instar" / name for name in ("run", "build-stop-hook.py")]
        current = [hook.read_text() for hook in hooks]
        for hook in hooks:
            hook.write_text(hook.read_text() + "# of an older release\n")
        trusted(wary)
        before = wary.config.read_bytes()

        upgrade = migrate(wary)

        assert upgrade.returncode == 0
        assert "Codex         trusts our hooks" in upgrade.stdout
        assert [hook.read_text() for hook in hooks] == current
        assert wary.config.read_bytes() == before
        wary.prompt("go")
        assert holds(project, model) == SMALL


class TestAHookOfTheUsersOwn:
    @pytest.fixture
    def theirs(self, wary: Codex, project: Project) -> dict[str, Any]:
        """Return a hook that Codex trusts, and that was there before ours."""
        assert migrate(wary, "--uninstall").returncode == 0
        registered = project.root / ".codex/hooks.json"
        registered.parent.mkdir(exist_ok=True)
        hook = {"type": "command", "command": f"echo x >>{shlex.quote(os.fspath(wary.home))}/theirs"}
        registered.write_text(json.dumps({"hooks": {"Stop": [{"hooks": [hook]}]}}))
        grant(project.root, {hook["command"]}, str(wary.executable), wary.launch().env)
        assert migrate(wary).returncode == 0
        return hook

    def test_keeps_its_trust(self, wary: Codex, theirs: dict[str, Any], project: Project) -> None:
        assert wary.prompt("go").hook_outcomes == (("Stop", "Completed"),)

        assert (wary.home / "theirs").read_text() == "x\n"
        groups = json.loads((project.root / ".codex/hooks.json").read_text())["hooks"]["Stop"]
        assert groups[0] == {"hooks": [theirs]}
        assert [len(group["hooks"]) for group in groups] == [1, 2]

    @pytest.mark.usefixtures("theirs")
    def test_runs_beside_ours(self, wary: Codex, model: FakeModel, project: Project) -> None:
        turn = trusted(wary).prompt("go")

        assert holds(project, model) == SMALL
        stops = SMALL + 1
        assert Counter(turn.hook_outcomes) == outcomes(stops, SMALL) | {("Stop", "Completed"): 3 * stops - SMALL}
        assert (wary.home / "theirs").read_text() == "x\n" * stops


class TestTheOwner:
    @pytest.mark.parametrize("between", [None, Run("true")], ids=["answers", "works between"])
    @pytest.mark.parametrize("size", BUDGETS)
    def test_is_held_as_often_as_the_size_says(
        self,
        codex: CodexFactory,
        fake_model: ModelFactory,
        project: Project,
        size: str,
        between: Run | None,
    ) -> None:
        model, budget = fake_model(script(init(project, size), between=between)), BUDGETS[size]

        turn = trusted(codex(model, project=project.root)).prompt("go")

        assert holds(project, model) == budget
        assert model.calls == 2 + budget * (2 if between else 1)
        assert Counter(turn.hook_outcomes) == outcomes(stops=budget + 1, held=budget)
        told = [text for request in model.requests for text in request.hook_feedback]
        assert ["This was the last hold" in text for text in told] == [False] * (budget - 1) + [True]
        assert turn.returncode == 0

    def test_is_held_in_a_new_process(self, codex: CodexFactory, fake_model: ModelFactory, project: Project) -> None:
        model = fake_model(script(init(project), ask(project), ASKED))
        client = trusted(codex(model, project=project.root))
        first = client.prompt("go")
        agent = owner(project)["agent"]
        assert (first.result, holds(project, model)) == (ASKED.text, 0)

        client.resume(first.session_id, "tile")

        assert holds(project, model) == SMALL
        assert owner(project)["session"] == first.session_id
        assert owner(project)["agent"] != agent

    @pytest.mark.parametrize(
        "end",
        [[("transition", "executing"), ("complete",)], [("cancel", "sold the house")]],
        ids=["complete", "cancelled"],
    )
    def test_stops_when_the_build_is_over(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project, end: list[tuple[str, ...]]
    ) -> None:
        model = fake_model(script(init(project), *(build_state(project, *words) for words in end)))

        assert trusted(codex(model, project=project.root)).prompt("go").result == "done."

        assert project.state["completedAt"]
        assert holds(project, model) == 0

    @pytest.mark.parametrize("kind", ["subfolder", "worktree"])
    def test_is_held_wherever_it_was_started(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project, tmp_path: Path, kind: str
    ) -> None:
        model = fake_model(script(Run("pwd"), init(project)))
        client = trusted(codex(model, project=project.root))
        folder = project.root / "packages/roof" if kind == "subfolder" else add_worktree(project, tmp_path / "a tree")
        folder.mkdir(parents=True, exist_ok=True)

        client.prompt("go", cwd=folder)

        assert model.requests[1].tool_results == (str(folder),)
        assert holds(project, model) == SMALL

    def test_below_claude_is_codex_alone(
        self, codex: CodexFactory, claude: ClaudeFactory, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model(script(init(project), ask(project), ASKED))
        client = trusted(codex(model, project=project.root))
        outer_model = fake_model([Run(client.headless("go in").for_shell())])

        outer = claude(outer_model, project=project.root).prompt("go")

        assert (outer.result, outer_model.calls) == ("done.", 2)
        assert holds(project, model) == 0
        started = json.loads(model.requests[1].tool_results[0])
        assert started["owner"]["session"] == session_of(model) != outer.session_id
        client.resume(session_of(model), "tile")
        assert holds(project, model) == SMALL

    def test_is_held_after_clear_in_the_tui(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(script(init(project), ask(project), ASKED))
        tui = tmux.start(trusted(codex(model, project=project.root)), *NO_QUESTIONS)
        tui.prompt("go", until=ASKED.text)
        before = owner(project)
        assert (before["tmux"], before["pane"]) == ("main", tui.pane)
        tui.clear()
        tui.prompt("tile", until="Told 3.")

        assert holds(project, model) == SMALL
        assert owner(project)["session"] == session_of(model) != before["session"]


def skip_without_a_sandbox(model: FakeModel) -> None:
    if model.requests[1].tool_results != ("inside\ncodex",):
        pytest.skip(f"Codex has no sandbox here: {model.requests[1].tool_results}")


class TestInASandboxOfCodexsOwn:
    def test_the_owner_is_held(self, codex: CodexFactory, fake_model: ModelFactory, project: Project) -> None:
        model = fake_model(script(Run("echo inside; cat /proc/1/comm"), init(project)))
        client = trusted(codex(model, project=project.root))

        client.run(client.launch("exec", "--sandbox", "workspace-write", "go"))

        skip_without_a_sandbox(model)
        assert holds(project, model) == SMALL

    def test_a_folder_below_is_of_the_project_though_codex_puts_a_git_folder_there(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project
    ) -> None:
        below = project.root / "src/deep"
        below.mkdir(parents=True)
        begin = Run(f"{BIN / 'build-state'} init tiles --size SMALL")  # the one on PATH goes by where it is run
        model = fake_model(script(Run("echo inside; cat /proc/1/comm"), Run("ls -d .git"), begin))
        client = trusted(codex(model, project=project.root))
        writable = ("--add-dir", str(project.root / ".instar"))

        client.run(client.launch("exec", "--sandbox", "workspace-write", *writable, "go", cwd=below))

        skip_without_a_sandbox(model)
        assert model.requests[2].tool_results == (".git",)
        assert not (below / ".instar").exists()
        assert holds(project, model) == SMALL


class TestWithTheSharedDaemon:
    """Hooks and tools of all interactive sessions are its children, as Codex has it by default."""

    @pytest.fixture
    def client(self, client: Codex) -> Iterator[Codex]:
        client.config.write_text(client.config.read_text().replace("auto_start = false", "auto_start = true"))
        yield client
        client.launch("app-server", "daemon", "stop").run()
        shutil.rmtree(client.codex_home / "packages", ignore_errors=True)  # where it ran: 400 MB

    @pytest.fixture
    def model(self, project: Project, fake_model: ModelFactory) -> FakeModel:
        says = (ASKED, Say("I am another."), Say("I stop."), Say("I ask again."), Say("I was cleared."))
        return fake_model(script(init(project), ask(project), *says, between=ask(project)))

    def test_the_owner_is_its_session_alone(
        self, client: Codex, model: FakeModel, project: Project, tmux: Tmux
    ) -> None:
        tui = tmux.start(client, *NO_QUESTIONS)
        tui.prompt("go", until=ASKED.text)
        stamp = owner(project)
        assert stamp == {"tmux": "", "session": session_of(model), "stampedAt": stamp["stampedAt"]}

        tmux.start(client, *NO_QUESTIONS).prompt("hello", until="I am another.")
        assert holds(project, model) == 0
        tui.prompt("tile", until="I ask again.")
        assert holds(project, model) == 1
        tui.clear()
        tui.prompt("hello", until="I was cleared.")
        assert holds(project, model) == 1
        assert owner(project) == stamp


class TestAnotherSession:
    def test_is_not_held(
        self, codex: CodexFactory, stranger: Codex, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model(script(init(project), ask(project), ASKED))
        client = trusted(codex(model, project=project.root))
        session = client.prompt("go").session_id
        before = project.state_path.read_bytes()

        turn = stranger.prompt("hello")

        assert (turn.result, stranger.model.calls) == ("done.", 1)
        assert Counter(turn.hook_outcomes) == outcomes(stops=1, held=0)
        assert project.state_path.read_bytes() == before
        client.resume(session, "tile")
        assert holds(project, model) == SMALL

    def test_in_the_shell_of_the_owner_is_not_held(
        self, codex: CodexFactory, stranger: Codex, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model(script(init(project), Run(stranger.headless("hello").for_shell())))

        trusted(codex(model, project=project.root)).prompt("go")

        assert stranger.model.calls == 1
        assert holds(project, model) == SMALL


class TestTheHooks:
    def test_tell_the_model_nothing_but_why_it_is_held(self, stranger: Codex, project: Project) -> None:
        project.build("init", "of somebody else", "--owner-session", "else")

        stranger.prompt("hello")
        stranger.prompt("hello", "--disable", "hooks")

        with_hooks, without = ([item["content"] for item in each.body["input"]] for each in stranger.model.requests)
        assert with_hooks == without

    def test_hear_of_every_event(self, stranger: Codex, project: Project, tmux: Tmux, tmp_path: Path) -> None:
        record_events(project, tmp_path / "log")
        tui = tmux.start(stranger, *NO_QUESTIONS)

        tui.prompt("hello", until="done.")
        tui.prompt("/compact", until="Context compacted")
        tui.send("/quit")
        wait_until(lambda: tui.screen().has_ended, "Codex has ended")

        assert recorded(tmp_path / "log", "hook_event_name", "source", "trigger", "reason", "prompt") == [
            ("SessionStart", "startup"),
            ("UserPromptSubmit", "hello"),
            ("PreCompact", "manual"),
            ("SessionEnd", "other"),
        ]
