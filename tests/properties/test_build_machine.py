"""The build as a state machine: whatever is done in whatever order, state, audit and answers are as the model's."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hooks.build_stop_hook import stop
from hooks.common.statefile import Build
from playbook_scripts.build_state import main
from support import Project
from tests.properties.model import PHASES, WAYS, Checkout

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTS = 2
MACHINE = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
SIZES = st.sampled_from(["SMALL", "STANDARD", "LARGE"])
PANES = st.sampled_from(["", "A", "B"])
SESSIONS = st.sampled_from(["", "s", "t"])
SMALL = st.integers(-1, 3)
BEGUN = ("executing", "verifying")
STARTS = ((), ("planning",), ("executing",), ("executing",), BEGUN, (*BEGUN, "fixing"), (*BEGUN, "hardening"))
IDLE_AT_MOST = 3  # things that are tried while there is no build


class Machine(RuleBasedStateMachine):
    """The program in this process, and the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Checkout()
        self.numbers = count(1)
        self.idle = 0
        self.project = self.make()

    def make(self) -> Project:
        return Project(Path(mkdtemp(prefix="instar-properties-")))

    def teardown(self) -> None:
        shutil.rmtree(self.project.root)

    def command(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Run a command of the build, and return its status and its answer."""
        said = io.StringIO()
        with environment(PATH=""), redirect_stdout(said), redirect_stderr(io.StringIO()):
            status = main(["--project", str(self.project.root), *arguments])
        return status, json.loads(said.getvalue())

    def fire(self, pane: str, event: dict[str, Any]) -> dict[str, Any]:
        """Stop a session, and return the answer."""
        with environment(INSTAR_HOOK_TMUX_SESSION=pane):
            return stop(Build(str(self.project.root)), event)

    def expect(self, allowed: set[str], *arguments: str) -> dict[str, Any]:
        status, answer = self.command(*arguments)
        assert answer.get("code", "") in allowed, (arguments, answer, allowed)
        assert status == (2 if allowed == {"usage"} else int(allowed != {""}))
        return answer

    @property
    def phase(self) -> str:
        """The phase of the build; "" without one that goes on."""
        build = self.model.build
        return build.phase if build and not build.is_over else ""

    def is_worth_it(self) -> bool:
        """Say whether there is a build, or little was tried without one."""
        return bool(self.phase) or self.idle < IDLE_AT_MOST

    def start(self, size: str, pane: str, session: str) -> None:
        task = f"task {next(self.numbers)}"
        allowed = self.model.init(task, size, pane, session)
        self.expect(allowed, "init", task, "--size", size, "--owner-session", session, "--owner-tmux", pane)

    def go(self, phase: str) -> None:
        self.expect(self.model.transition(phase), "transition", phase, "--evidence", "seen")

    # What people do: mostly what leads on

    @initialize(is_first=st.booleans(), size=SIZES, pane=PANES, session=SESSIONS, way=st.sampled_from(STARTS))
    def begin(self, size: str, pane: str, session: str, way: tuple[str, ...], *, is_first: bool) -> None:
        if is_first:
            self.init(size, pane, session, way)

    @precondition(lambda self: not self.phase)
    @rule(size=SIZES, pane=PANES, session=SESSIONS, way=st.sampled_from(STARTS))
    def init(self, size: str, pane: str, session: str, way: tuple[str, ...]) -> None:
        self.start(size, pane, session)
        for phase in way:
            self.go(phase)

    @precondition(lambda self: self.phase)
    @rule(choice=st.integers(0, 5))
    def advance(self, choice: int) -> None:
        ways = sorted(WAYS[self.phase] - {"complete"}) or ["complete"]
        self.go(ways[choice % len(ways)])

    @precondition(lambda self: self.phase == "verifying")
    @rule()
    def mend(self) -> None:
        self.go("fixing")
        self.go("verifying")

    @precondition(lambda self: self.phase == "executing")
    @rule(number=st.integers(1, 2), tests=st.integers(0, 2), failing=st.integers(0, 1))
    def record(self, number: int, tests: int, failing: int) -> None:
        self.step(number, tests, max(0, tests - failing))

    @precondition(lambda self: self.phase)
    @rule(prompt=st.sampled_from(["", "1", "2", "3"]))
    def stop_of_the_owner(self, prompt: str) -> None:
        assert self.model.build
        self.check_stop(self.model.build.tmux, self.model.build.session, prompt, [])

    @precondition(lambda self: self.phase)
    @rule(waits=st.lists(st.sampled_from("abcd"), unique=True))
    def stop_of_the_owner_with_work_in_the_background(self, waits: list[str]) -> None:
        assert self.model.build
        self.check_stop(self.model.build.tmux, self.model.build.session, "", waits)

    @precondition(lambda self: self.phase and self.model.build.tmux)
    @rule(session=SESSIONS)
    def stop_in_the_pane_of_the_owner(self, session: str) -> None:
        assert self.model.build
        self.check_stop(self.model.build.tmux, session, "", [])

    @precondition(lambda self: self.phase)
    @rule(prompts=st.lists(st.sampled_from("12"), max_size=3), waits=st.lists(st.sampled_from("abcd"), max_size=1))
    def question(self, prompts: list[str], waits: list[str]) -> None:
        assert self.model.build
        self.ask("which?")
        for prompt in prompts:
            self.check_stop(self.model.build.tmux, self.model.build.session, prompt, waits)

    # What else may come, at any time

    @precondition(lambda self: self.is_worth_it())
    @rule(size=SIZES, pane=PANES, session=SESSIONS)
    def init_at_any_time(self, size: str, pane: str, session: str) -> None:
        self.start(size, pane, session)

    @precondition(lambda self: self.is_worth_it())
    @rule(phase=st.sampled_from([*PHASES, "nowhere"]), is_end=st.sampled_from([False, False, True]))
    def transition(self, phase: str, *, is_end: bool) -> None:
        if is_end or phase not in ("failed", "escalated"):
            self.go(phase)

    @precondition(lambda self: self.is_worth_it())
    @rule(number=SMALL, tests=SMALL, passing=SMALL)
    def step(self, number: int, tests: int, passing: int) -> None:
        allowed = self.model.step(number, tests, passing)
        answer = self.expect(allowed, "step-complete", str(number), "done", str(tests), str(passing))
        if allowed == {""} and self.model.build:
            numbers = [number for number, _, _ in self.model.build.steps]
            assert answer.get("repeat", False) is (numbers.count(number) > 1)

    @precondition(lambda self: self.is_worth_it())
    @rule(force=st.booleans(), is_end=st.sampled_from([False, False, True]))
    def complete(self, *, force: bool, is_end: bool) -> None:
        if is_end or not self.phase:
            self.expect(self.model.complete(force=force), "complete", *(["--force"] if force else []))

    @precondition(lambda self: self.is_worth_it())
    @rule(is_end=st.sampled_from([False, False, False, True]))
    def cancel(self, *, is_end: bool) -> None:
        if is_end or not self.phase:
            self.expect(self.model.cancel(), "cancel", "why")

    @precondition(lambda self: self.is_worth_it())
    @rule(question=st.sampled_from(["which?", " padded ", " "]))
    def ask(self, question: str) -> None:
        self.expect(self.model.ask(question), "ask", question)

    @precondition(lambda self: self.is_worth_it())
    @rule(session=SESSIONS)
    def adopt(self, session: str) -> None:
        self.expect(self.model.adopt(session), "adopt", "--owner-session", session)

    @precondition(lambda self: self.is_worth_it())
    @rule(pane=PANES, session=SESSIONS, prompt=st.sampled_from(["", "1", "2", "3"]))
    def stop(self, pane: str, session: str, prompt: str) -> None:
        self.check_stop(pane, session, prompt, [])

    def check_stop(self, pane: str, session: str, prompt: str, waits: list[str]) -> None:
        tasks = [{"id": name, "type": "shell"} for name in waits]
        expected = self.model.stop(pane, session, prompt, waits)
        answer = self.fire(pane, {"session_id": session, "prompt_id": prompt, "background_tasks": tasks})
        if not expected:
            assert answer == {}
            return
        assert set(answer) == {"decision", "reason"}
        assert answer["decision"] == "block"
        assert ("last hold" in answer["reason"]) is (self.model.events[-1] == "stop.exhausted")

    @invariant()
    def the_state_is_as_the_models(self) -> None:
        self.idle = 0 if self.phase else self.idle + 1
        if self.model.build is None:
            assert not self.project.state_path.exists()
            return
        assert shown(self.project.state) == self.model.shown()
        text = self.project.state_path.read_text(encoding="ascii")
        assert text == json.dumps(self.project.state, indent=2)

    @invariant()
    def the_audit_is_as_the_models(self) -> None:
        if self.model.events:
            assert [entry["event"] for entry in self.project.events()] == self.model.events

    @invariant()
    def what_is_over_is_in_the_history(self) -> None:
        folder = self.project.state_path.parent
        assert sorted(archived(folder)) == sorted(self.model.ended)
        assert [place.name for place in folder.glob(".*.tmp")] == []


def archived(folder: Path) -> list[str]:
    return [json.loads(place.read_bytes())["task"] for place in (folder / "history").glob("*")]


def shown(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state in the model's words."""
    same = ("task", "phase", "size", "currentStep", "totalTests", "allPassing", "fixIterations", "verifyIterations",
            "reinforcementsUsed")  # fmt: skip
    assert (state["completedAt"] is not None) is ("archivedTo" in state)
    return {
        **{key: state[key] for key in same},
        "reinforcements": state["protection"]["reinforcements"],
        "owner": (state["owner"]["tmux"], state["owner"]["session"]),
        "steps": [(step["step"], step["tests"], step["passing"]) for step in state["steps"]],
        "question": state.get("asked", {}).get("question", ""),
        "is_over": "archivedTo" in state,
    }


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Have these variables set, for so long."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


@pytest.mark.parametrize("part", range(PARTS))
def test_a_build_does_what_the_model_does(part: int) -> None:
    assert part in range(PARTS)  # so that the workers share the search
    run_state_machine_as_test(Machine, settings=MACHINE)


def test_the_installed_programs_do_what_the_model_does(installed: Project) -> None:
    class Installed(Machine):
        def make(self) -> Project:
            root = Path(mkdtemp(prefix="instar-properties-")) / "project"
            shutil.copytree(installed.root, root, symlinks=True)
            return Project(root, installed.env)

        def teardown(self) -> None:
            shutil.rmtree(self.project.root.parent)

        def command(self, *arguments: str) -> tuple[int, dict[str, Any]]:
            answer = self.project.build(*arguments)
            return answer.pop("exit"), answer

        def fire(self, pane: str, event: dict[str, Any]) -> dict[str, Any]:
            return self.project.stop(env={"INSTAR_HOOK_TMUX_SESSION": pane}, stdin=json.dumps(event).encode()).answer

    run_state_machine_as_test(Installed, settings=settings(MACHINE, max_examples=4, stateful_step_count=15))
