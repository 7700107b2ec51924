"""The stop gate of a real server: with the real clients it only looks in shadow, and holds little in enforce."""

from __future__ import annotations

import json
import os
from threading import Event
from typing import TYPE_CHECKING, Callable, Union

import psutil
import pytest

from support import DEADLINE_S

from . import claude as claude_module
from . import codex as codex_module
from .builds import holds, init, session_of, trusted
from .codex import Codex
from .fake_model import FakeModel, Say
from .gated import EXCUSE, FINISHED, PATIENT, PLAN, REMINDER, RULE, RULES, Gated
from .waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project

    from .claude import Claude
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import Request, Run, Script
    from .tui import Tmux, Tui
    from .wire import Answer

    Client = Union[Claude, Codex]
    Set = Callable[[FakeModel], Client]

CONTINUE = ("continue", RULE)
UNCLEAR = ("escalate", "U_AMBIGUOUS_INSUFFICIENT_SIGNAL")
CASUAL = "I renamed the function, and ran the linter over it."
REASONS = {
    "I'll stop here to preserve context. Shall the slates be grey?": "U_LEGIT_DESIGN_QUESTION",
    "I'll stop here to preserve context: the tests fail with an error of the roof.": "U_LEGIT_ERROR",
    "All of the plan is done, so I'll stop here to preserve context.": "U_LEGIT_COMPLETION",
}
VERDICT = {"decision": "continue", "rule": RULE, "evidence_pointer": {"plan_file": PLAN}, "rationale": "zebra"}


@pytest.fixture
def gated(project: Project) -> Gated:
    """Return a project with an open plan that the rules judge by, in enforce, too."""
    return Gated.create(project, RULES)


@pytest.fixture
def model(fake_model: ModelFactory) -> FakeModel:
    """Return a model that does nothing but excuse itself."""
    return fake_model(lambda _: Say(EXCUSE))


@pytest.fixture(params=["claude", "codex"])
def set_up(request: pytest.FixtureRequest, project: Project) -> Set:
    """Set up one client after the other in the project, able to run its hooks."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(request.param)

    def with_model(model: FakeModel) -> Client:
        driven = factory(model, project=project.root)
        return trusted(driven) if isinstance(driven, Codex) else driven

    return with_model


@pytest.fixture
def client(set_up: Set, gated: Gated, model: FakeModel) -> Client:  # noqa: ARG001 - the plan is there before the client
    """Return the client of that model."""
    return set_up(model)


def reminders(model: FakeModel) -> list[int]:
    """Return the numbers of the calls that held the session; each brought our reminder and nothing else."""
    held = [number for number, request in enumerate(model.requests, 1) if request.hook_feedback]
    for number in held:
        assert model.requests[number - 1].user_texts == (REMINDER,)
    return held


def records(project: Project) -> set[str]:
    """Return the sessions on record."""
    return {place.stem for place in (project.root / ".instar/state/sessions").glob("*.json")}


def judges(home: Path) -> list[psutil.Process]:
    """Return the processes with this home that judge a stop."""
    wanted = {"HOME": os.fspath(home), "INSTAR_GATE_CHILD": "1"}
    found = psutil.process_iter(["environ"])
    return [each for each in found if wanted.items() <= (each.info["environ"] or {}).items()]


def start(tmux: Tmux, client: Client) -> Tui:
    """Start the client in a pane."""
    module = codex_module if isinstance(client, Codex) else claude_module
    return tmux.start(client, *module.NO_QUESTIONS)


def judging(client: Claude) -> dict[str, str]:
    """Return the environment of a server whose judge finds this client, and has its folder where our hooks are."""
    env = client.launch().env
    path = f"{client.executable.parent}:{env['PATH']}"
    return {**env, "PATH": path, "TMPDIR": str(client.project)}


class Thinking(FakeModel):
    """A model that lets a judge wait for its answer."""

    def __init__(self, turns: Script) -> None:
        super().__init__(turns)
        self._is_over = Event()

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        super().__exit__(*error)

    def answer_side_call(self) -> tuple[Answer, int]:
        self._is_over.wait(DEADLINE_S)
        return super().answer_side_call()


class TestInShadow:
    def test_a_stop_is_put_on_record_and_the_model_hears_nothing(
        self, gated: Gated, client: Client, model: FakeModel
    ) -> None:
        with gated.serving("shadow"):
            turn = client.prompt("go")
            assert (turn.result, turn.returncode, model.calls) == (EXCUSE, 0, 1)
            gated.wait_for_rows(1)
            client.resume(turn.session_id, "go on")
            rows = gated.wait_for_rows(2)

        assert [(row["session_id"], row["mode"], row["rule"]) for row in rows] == [
            (turn.session_id, "shadow", RULE)
        ] * 2
        assert [request.user_texts for request in model.requests] == [("go",), ("go on",)]
        assert not any(PLAN in json.dumps(request.body) for request in model.requests)
        assert gated.troubles == []


class TestInEnforce:
    def test_a_session_is_held_once_a_prompt_and_twice_in_all(
        self, gated: Gated, client: Client, model: FakeModel
    ) -> None:
        with gated.serving("enforce"):
            turn = client.prompt("go")
            assert (turn.result, turn.returncode, reminders(model), model.calls) == (EXCUSE, 0, [2], 2)
            for text in ("go on", "once more"):
                client.resume(turn.session_id, text)
            assert (reminders(model), model.calls) == ([2, 4], 5)
            client.prompt("afresh")
            rows = gated.rows

        assert (reminders(model), model.calls) == ([2, 4, 7], 7)
        assert [row["decision"] for row in rows] == ["continue", "continue", "force_allow", "continue"]
        assert [row["session_id"] for row in rows] == [turn.session_id] * 3 + [session_of(model)]
        assert rows[2]["short_circuit"] == "continue-ceiling"
        assert gated.troubles == []

    def test_the_person_sees_each_of_the_two_reminders_of_a_session(
        self, gated: Gated, set_up: Set, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        model = fake_model([Say(f"Part {number}. {EXCUSE}") for number in range(1, 6)])
        with gated.serving("enforce"):
            tui = start(tmux, set_up(model))
            for text, until in (("go", "Part 2."), ("go on", "Part 4."), ("once more", "Part 5.")):
                tui.prompt(text, until=until)

            assert (reminders(model), model.calls) == ([2, 4], 5)
            assert tui.scrollback().count("Go on with the plan") == 2
            assert [row["decision"] for row in gated.rows] == ["continue", "continue", "force_allow"]

    def test_what_is_no_excuse_is_not_asked_about_and_a_reason_is_accepted(
        self, gated: Gated, set_up: Set, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        model = fake_model([Say(f"Part {number}. {text}") for number, text in enumerate((CASUAL, *REASONS), 1)])
        with gated.serving("enforce"):
            tui = start(tmux, set_up(model))
            tui.prompt("go", until="Part 1.")
            assert (gated.outcomes, gated.passed) == ([], {})
            for number in (2, 3, 4):
                tui.prompt("go on", until=f"Part {number}.")

            assert gated.outcomes == [("allow", rule) for rule in REASONS.values()]
        assert (reminders(model), model.calls) == ([], 4)

    def test_the_kill_switch_lets_the_next_stop_go(self, gated: Gated, client: Client, model: FakeModel) -> None:
        with gated.serving("enforce"):
            session = client.prompt("go").session_id
            gated.throw_kill_switch()
            client.resume(session, "go on")

            assert (reminders(model), model.calls) == ([2], 3)
            assert gated.outcomes == [CONTINUE]
        assert gated.troubles == []

    def test_a_session_in_a_worktree_is_judged_by_its_plan(
        self, gated: Gated, client: Client, model: FakeModel, tmp_path: Path
    ) -> None:
        tree = tmp_path / "a tree"
        gated.project.run("git", "worktree", "add", "-q", "--detach", str(tree))
        gated.write_plan(FINISHED)
        with gated.serving("enforce"):
            client.prompt("go")
            client.prompt("go", cwd=tree)

            assert (reminders(model), model.calls) == ([3], 3)
            assert gated.outcomes == [UNCLEAR, CONTINUE]

    def test_a_session_in_a_worktree_that_claude_made_is_judged_by_its_plan(
        self, gated: Gated, claude: ClaudeFactory, model: FakeModel
    ) -> None:
        gated.write_plan(FINISHED)
        with gated.serving("enforce"):
            claude(model, project=gated.project.root).prompt("go", "--worktree", "branch")

            assert (reminders(model), model.calls) == ([2], 2)
            assert gated.outcomes == [CONTINUE]


class TestWithoutAServerThatJudges:
    def test_a_stop_goes_without_a_word_where_the_gate_is_off_or_the_server_was_stopped(
        self, gated: Gated, client: Client, model: FakeModel
    ) -> None:
        with gated.serving("off"):
            session = client.prompt("go").session_id
            gated.set_mode("enforce")
            gated.stop()
            client.resume(session, "go on")

        assert (model.calls, gated.outcomes, gated.passed, gated.troubles) == (2, [], {}, [])

    def test_the_person_is_told_once_that_the_server_was_killed(
        self, gated: Gated, set_up: Set, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        model = fake_model([Say(f"Part {number}. {EXCUSE}") for number in (1, 2)])
        with gated.serving("enforce"):
            gated.kill()
            tui = start(tmux, set_up(model))
            tui.prompt("go", until="Part 1.")
            wait_until(lambda: "server_gone" in tui.scrollback(), "the person is told", seen=tui.scrollback)
            tui.prompt("go on", until="Part 2.")
            tui.wait_until_idle()

        assert model.calls == 2
        assert tui.scrollback().count("server_gone") == 1
        (line,) = gated.troubles
        assert "instar-server start" in line


class TestAnOwnerOfABuild:
    def test_is_held_by_the_build_alone_until_that_is_spent(
        self, gated: Gated, set_up: Set, fake_model: ModelFactory, project: Project
    ) -> None:
        def answer(request: Request) -> Run | Say:
            return init(project) if request.user_texts == ("go",) else Say(EXCUSE)

        model = fake_model(answer)
        client = set_up(model)
        with gated.serving("enforce"):
            session = client.prompt("go").session_id
            assert holds(project, model) == 3
            assert (model.calls, gated.outcomes, gated.passed) == (5, [], {})

            client.resume(session, "go on")
            assert gated.outcomes == [CONTINUE]

        assert [request.user_texts for request in model.requests[5:]] == [("go on",), (REMINDER,)]


class TestClaudeAsTheJudge:
    @pytest.fixture
    def gated(self, project: Project) -> Gated:
        return Gated.create(project, {"provider": "claude-cli", **PATIENT})

    @pytest.fixture
    def model(self, fake_model: ModelFactory) -> FakeModel:
        return fake_model(lambda _: Say(EXCUSE), side_answer=Say(json.dumps(VERDICT)))

    def test_holds_a_session_by_its_verdict_and_fires_no_hook_of_ours(
        self, gated: Gated, client: Client, model: FakeModel, claude: ClaudeFactory, client_home: Path
    ) -> None:
        with gated.serving("enforce", **judging(claude(model))):
            turn = client.prompt("go")

            assert (reminders(model), model.calls, model.side_calls) == ([2], 2, 1)
            (row,) = gated.rows
            assert (row["session_id"], row["provider"], row["rule"]) == (turn.session_id, "claude-cli", RULE)
            assert row["rationale"] == VERDICT["rationale"]
            assert gated.passed == {}
            assert records(gated.project) == {turn.session_id}
            assert psutil.Process(gated.server).children(recursive=True) == []
        assert judges(client_home) == []
        assert gated.troubles == []

    def test_is_ended_when_it_thinks_for_too_long_and_the_session_may_stop(
        self, project: Project, claude: ClaudeFactory, client_home: Path
    ) -> None:
        gated = Gated.create(project, {"provider": "claude-cli", "budgetMs": 2500})
        with Thinking(lambda _: Say(EXCUSE)) as model:
            driven = claude(model, project=project.root)
            with gated.serving("enforce", **judging(driven)):
                driven.prompt("go")

                assert judges(client_home) == []
                (row,) = gated.rows
                assert (model.calls, row["decision"], row["invalid_kind"]) == (1, None, "timeout")
        assert gated.troubles == []
