"""The record of a session follows the real clients: from its start over prompts, clear and resume to its end."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Union

import pytest

from . import claude as claude_module
from . import codex as codex_module
from .builds import ask, holds, init, script, session_of, trusted
from .fake_model import Run, Say
from .waiting import wait_until

if TYPE_CHECKING:
    from support import Project

    from .claude import Claude
    from .codex import Codex
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import FakeModel, Request
    from .tui import Tmux, Tui

    Client = Union[Claude, Codex]
    Set = Callable[[FakeModel], Client]

PROMPT = 'Mend the <roof> & "gutter", été\nand say when'


@dataclass(frozen=True)
class Kind:
    """What differs between the clients, for a test that runs on both."""

    process: str
    client: str
    id_variable: str
    no_questions: tuple[str, ...]
    reason_of_leaving: str
    reason_of_clear: str


CLAUDE = Kind(
    "claude", "claude-code", "CLAUDE_CODE_SESSION_ID", claude_module.NO_QUESTIONS, "prompt_input_exit", "clear"
)
# Codex tells of the end of a cleared session late, if at all; until then the next prompt does.
CODEX = Kind("codex", "codex-cli", "CODEX_SESSION_ID", codex_module.NO_QUESTIONS, "other", "replaced")


@pytest.fixture(params=[CLAUDE, CODEX], ids=lambda kind: kind.process)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Run the test once with each client."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def client(kind: Kind, request: pytest.FixtureRequest, project: Project) -> Callable[[FakeModel], Client]:
    """Set up the client of ``kind`` in the project, able to run its hooks."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(kind.process)

    def set_up(model: FakeModel) -> Client:
        driven = factory(model, project=project.root)
        return trusted(driven) if isinstance(driven, codex_module.Codex) else driven

    return set_up


@pytest.fixture
def stranger(claude: ClaudeFactory, fake_model: ModelFactory, project: Project) -> Claude:
    """Return a Claude in the project, whose model has nothing to do."""
    return claude(fake_model(), project=project.root)


class Seen(NamedTuple):
    """What the model's shell saw: the process it belongs to, and the record of its session at that moment."""

    pid: int
    process: str
    record: dict[str, Any]


def look(project: Project, kind: Kind) -> Run:
    """Let the model's shell look who started it, and what is recorded."""
    return Run(f'ps -o pid=,comm= -p $PPID; cat "{project.root}/.instar/state/sessions/${kind.id_variable}.json"')


def seen(request: Request) -> Seen:
    """Return what came of ``look``."""
    (result,) = request.tool_results
    process, _, record = result.partition("\n")
    pid, name = process.split()
    return Seen(int(pid), name, json.loads(record))


def looks(project: Project, kind: Kind) -> Callable[[Request], Run | Say]:
    """Script a model that looks once a prompt, and then says the number of the look; a compaction gets its summary."""
    number = 0

    def answer(request: Request) -> Run | Say:
        nonlocal number
        if not request.tool_results:
            return look(project, kind)
        if request.user_texts:
            return Say("That is the summary.")
        number += 1
        return Say(f"Look {number}.")

    return answer


def all_seen(model: FakeModel) -> list[Seen]:
    """Return what each look showed."""
    return [seen(request) for request in model.requests if request.tool_results and not request.user_texts]


def records(project: Project) -> dict[str, dict[str, Any]]:
    """Return the records of all sessions."""
    found = (project.root / ".instar/state/sessions").glob("*.json")
    return {place.stem: project.record(place.stem) for place in found}


def running(project: Project) -> set[str]:
    """Return the sessions that run, as far as the records know."""
    return {session for session, record in records(project).items() if record["status"] == "running"}


def last_event(project: Project, session: str) -> str:
    """Return the name of the event that came last."""
    name = project.record(session)["lastEvent"]["name"]
    assert isinstance(name, str)
    return name


def ended(project: Project, session: str) -> tuple[str, str]:
    """Wait until a session is recorded to be over; return as what, and why."""

    def look_up() -> dict[str, Any] | None:
        record = project.record(session)
        return record if record["status"] != "running" else None

    record = wait_until(look_up, "the session is over", seen=lambda: str(project.record(session)))
    assert record["endedAt"] >= record["startedAt"]
    return record["status"], record["endedReason"]


def leave(tui: Tui) -> None:
    """Leave the client as a person does."""
    tui.send("/exit")
    wait_until(lambda: tui.screen().has_ended, "the client has ended", seen=tui.scrollback)


class TestASession:
    def test_runs_while_its_client_works(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model([look(project, kind)])

        turn = client(model).prompt(PROMPT)

        pid, process, record = seen(model.requests[1])
        assert (process, record["agent"]["pid"]) == (kind.process, pid)
        assert (record["id"], record["status"], record["client"]) == (turn.session_id, "running", kind.client)
        assert (record["source"], record["cwd"]) == ("startup", str(project.root))
        assert (record["lastPrompt"]["text"], record["lastEvent"]["name"]) == (PROMPT, "UserPromptSubmit")
        assert Path(record["transcriptPath"]).is_file()
        assert not record.keys() & {"tmux", "endedAt", "endedReason", "forkedFrom"}

    def test_is_over_when_its_client_has_ended(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model([look(project, kind)])

        session = client(model).prompt("go").session_id

        assert ended(project, session) == ("completed", "other")
        at_work, after = seen(model.requests[1]).record, project.record(session)
        kept = at_work.keys() - {"status", "lastEvent", "version"}
        assert {key: after[key] for key in kept} == {key: at_work[key] for key in kept}
        assert last_event(project, session) == "SessionEnd"

    def test_runs_again_in_a_new_process_when_it_is_resumed(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project
    ) -> None:
        model = fake_model(looks(project, kind))
        driven = client(model)
        session = driven.prompt("go").session_id

        driven.resume(session, "go on")

        first, second = all_seen(model)
        assert (second.record["id"], second.record["status"]) == (session, "running")
        assert (second.record["source"], second.record["lastPrompt"]["text"]) == ("resume", "go on")
        assert second.record["agent"]["pid"] == second.pid != first.pid
        assert second.record["startedAt"] == first.record["startedAt"]
        assert not second.record.keys() & {"endedAt", "endedReason"}
        assert ended(project, session) == ("completed", "other")
        assert records(project).keys() == {session}


class TestInAPane:
    @staticmethod
    def start(tmux: Tmux, driven: Client, kind: Kind, *args: str) -> Tui:
        return tmux.start(driven, *kind.no_questions, *args)

    def test_the_pane_is_recorded(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, kind))
        tui = self.start(tmux, client(model), kind)

        tui.prompt(PROMPT, until="Look 1.")

        record = project.record(session_of(model))
        assert (record["status"], record["source"], record["lastPrompt"]["text"]) == ("running", "startup", PROMPT)
        assert record["agent"]["pid"] == all_seen(model)[0].pid
        assert kind is CODEX or record["agent"]["pid"] == tui.pid
        server, socket = tmux.run("display-message", "-p", "#{pid} #{socket_path}").split()
        stamp = record["tmux"]
        assert (stamp["session"], stamp["pane"]) == ("main", tui.pane)
        assert (stamp["server"], stamp["socket"]) == (int(server), socket)
        assert Path(record["transcriptPath"]).is_file()

    def test_it_is_over_when_the_person_leaves(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model()
        tui = self.start(tmux, client(model), kind)
        tui.prompt("go", until="done.")

        leave(tui)

        assert ended(project, session_of(model)) == ("completed", kind.reason_of_leaving)

    def test_it_gives_way_to_the_next_after_clear(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, kind))
        tui = self.start(tmux, client(model), kind)
        tui.prompt("go", until="Look 1.")
        old = session_of(model)

        tui.clear()
        tui.prompt("go again", until="Look 2.")

        new = session_of(model)
        assert running(project) == {new} != {old}
        assert ended(project, old) == ("completed", kind.reason_of_clear)
        before, after = project.record(old), project.record(new)
        assert (after["source"], after["lastPrompt"]["text"]) == ("clear", "go again")
        assert [after[key] for key in ("agent", "tmux", "cwd")] == [before[key] for key in ("agent", "tmux", "cwd")]
        leave(tui)
        assert ended(project, new) == ("completed", kind.reason_of_leaving)
        assert running(project) == set()

    def test_it_runs_on_through_compaction(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, kind))
        tui = self.start(tmux, client(model), kind)
        tui.prompt("go", until="Look 1.")
        session = session_of(model)
        before = project.record(session)

        tui.prompt("/compact", until="ompacted")

        compacted = project.record(session)
        assert last_event(project, session) in ("PreCompact", "SessionStart")
        kept = ("status", "agent", "tmux", "lastPrompt")
        assert [compacted[key] for key in kept] == [before[key] for key in kept]
        tui.prompt("go on", until="Look 2.")
        after = project.record(session)
        assert (after["source"], after["lastPrompt"]["text"]) == ("compact", "go on")
        assert [after[key] for key in kept[:-1]] == [before[key] for key in kept[:-1]]
        assert records(project).keys() == {session}

    def test_it_runs_again_in_another_pane_when_it_is_resumed(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, kind))
        driven = client(model)
        session = driven.prompt("go").session_id

        tui = self.start(tmux, driven, kind, *(("--resume", session) if kind is CLAUDE else ("resume", session)))
        tui.prompt("go on", until="Look 2.")

        record = project.record(session)
        assert (record["status"], record["source"], record["tmux"]["pane"]) == ("running", "resume", tui.pane)
        assert record["agent"]["pid"] == all_seen(model)[1].pid
        assert records(project).keys() == {session}

    def test_a_killed_one_is_found_out_by_the_next(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux, stranger: Claude
    ) -> None:
        model = fake_model()
        tui = self.start(tmux, client(model), kind)
        tui.prompt("go", until="done.")
        killed = session_of(model)

        os.kill(project.record(killed)["agent"]["pid"], signal.SIGKILL)
        wait_until(lambda: tui.screen().has_ended, "the client is dead")
        assert project.record(killed)["status"] == "running"
        other = stranger.prompt("hello").session_id

        assert ended(project, killed) == ("failed", "process gone")
        assert ended(project, other) == ("completed", "other")

    def test_two_of_them_are_told_apart_by_their_panes(
        self, kind: Kind, client: Set, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, kind))
        driven = client(model)
        tuis = [self.start(tmux, driven, kind) for _ in range(2)]
        sessions = []
        for number, tui in enumerate(tuis, 1):
            tui.prompt("hello", until=f"Look {number}.")
            sessions.append(session_of(model))

        assert running(project) == set(sessions)
        stamps = [project.record(session) for session in sessions]
        assert [stamp["tmux"]["pane"] for stamp in stamps] == [tui.pane for tui in tuis]
        assert [stamp["agent"]["pid"] for stamp in stamps] == [each.pid for each in all_seen(model)]


class TestClaude:
    def test_the_next_session_runs_from_clear_on(self, stranger: Claude, project: Project, tmux: Tmux) -> None:
        tui = tmux.start(stranger)
        tui.prompt("go", until="done.")
        old = session_of(stranger.model)

        tui.clear()

        (new,) = wait_until(lambda: running(project) - {old}, "the next session is recorded")
        assert ended(project, old) == ("completed", "clear")
        assert (project.record(new)["source"], project.record(new)["tmux"]["pane"]) == ("clear", tui.pane)

    def test_a_session_is_recorded_before_its_first_prompt(
        self, stranger: Claude, project: Project, tmux: Tmux
    ) -> None:
        tui = tmux.start(stranger)

        (session,) = wait_until(lambda: running(project), "the session is recorded")

        record = project.record(session)
        assert (record["source"], record["agent"]["pid"], record["tmux"]["pane"]) == ("startup", tui.pid, tui.pane)
        assert "lastPrompt" not in record

    def test_a_session_resumed_in_place_takes_the_place_of_the_other(
        self, stranger: Claude, project: Project, tmux: Tmux
    ) -> None:
        session = stranger.prompt("go").session_id
        tui = tmux.start(stranger)
        tui.prompt("hello", until="done.")
        other = session_of(stranger.model)

        tui.send(f"/resume {session}")

        wait_until(lambda: running(project) == {session}, "it runs again", seen=tui.scrollback)
        assert ended(project, other) == ("completed", "resume")
        before, after = project.record(other), project.record(session)
        assert after["source"] == "resume"
        assert [after[key] for key in ("agent", "tmux")] == [before[key] for key in ("agent", "tmux")]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
    def test_a_session_that_is_told_to_end_is_over(
        self, stranger: Claude, project: Project, tmux: Tmux, number: signal.Signals
    ) -> None:
        tmux.start(stranger).prompt("go", until="done.")
        session = session_of(stranger.model)

        os.kill(project.record(session)["agent"]["pid"], number)

        assert ended(project, session) == ("completed", "other")

    def test_a_session_goes_on_when_a_second_process_of_it_has_ended(
        self, stranger: Claude, project: Project, tmux: Tmux
    ) -> None:
        tui = tmux.start(stranger)
        tui.prompt("go", until="done.")
        session = session_of(stranger.model)

        assert stranger.resume(session, "go on elsewhere").session_id == session

        record = project.record(session)
        assert (record["status"], record["agent"]["pid"]) == ("running", tui.pid)


class TestCodex:
    def test_a_session_that_is_told_to_end_is_found_out_by_the_next(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project, tmux: Tmux, stranger: Claude
    ) -> None:
        model = fake_model()
        tui = tmux.start(trusted(codex(model, project=project.root)))
        tui.prompt("go", until="done.")

        os.kill(project.record(session_of(model))["agent"]["pid"], signal.SIGTERM)
        wait_until(lambda: tui.screen().has_ended, "Codex has ended")
        stranger.prompt("hello")

        assert ended(project, session_of(model)) == ("failed", "process gone")

    def test_a_fork_in_another_pane_has_its_own_record(
        self, codex: CodexFactory, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        model = fake_model(looks(project, CODEX))
        driven = trusted(codex(model, project=project.root))
        tmux.start(driven, *CODEX.no_questions).prompt("go", until="Look 1.")
        session = session_of(model)
        before = project.record(session)

        tui = tmux.start(driven, "fork", session, *CODEX.no_questions)
        tui.prompt("go another way", until="Look 2.")

        fork = project.record(session_of(model))
        assert (fork["status"], fork["source"], fork["tmux"]["pane"]) == ("running", "fork", tui.pane)
        assert fork["agent"]["pid"] == all_seen(model)[1].pid
        assert project.record(session) == before
        assert running(project) == {session, fork["id"]}


class TestAFork:
    @pytest.fixture
    def driven(self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project) -> Claude:
        return claude(fake_model(looks(project, CLAUDE)), project=project.root)

    @staticmethod
    def fork(driven: Claude, session: str) -> str:
        fork = driven.resume(session, "go another way", "--fork-session").session_id
        assert fork == session_of(driven.model) != session
        return fork

    def test_of_a_session_that_is_over_leaves_it_over(self, driven: Claude, project: Project) -> None:
        session = driven.prompt("go").session_id
        before = project.record(session)

        fork = self.fork(driven, session)

        _, (pid, _, record) = all_seen(driven.model)
        assert (record["id"], record["status"], record["agent"]["pid"]) == (fork, "running", pid)
        assert (record["source"], record["forkedFrom"]) == ("fork", session)
        assert record["transcriptPath"] != before["transcriptPath"]
        assert ended(project, fork) == ("completed", "other")
        assert ended(project, session) == ("completed", "forked")
        assert project.record(session)["lastPrompt"] == before["lastPrompt"]

    def test_of_a_session_that_goes_on_leaves_its_record_alone(
        self, driven: Claude, project: Project, tmux: Tmux
    ) -> None:
        tui = tmux.start(driven, *claude_module.NO_QUESTIONS)
        tui.prompt("go", until="Look 1.")
        session = session_of(driven.model)
        before = project.record(session)

        fork = self.fork(driven, session)

        assert project.record(session) == before
        assert ended(project, fork) == ("completed", "other")
        tui.prompt("go on", until="Look 3.")
        after = project.record(session)
        assert (after["status"], after["lastPrompt"]["text"]) == ("running", "go on")
        assert [after[key] for key in ("agent", "tmux")] == [before[key] for key in ("agent", "tmux")]


class TestACodexBelowClaude:
    def test_does_not_take_its_pane(
        self, claude: ClaudeFactory, codex: CodexFactory, fake_model: ModelFactory, project: Project, tmux: Tmux
    ) -> None:
        inner_model = fake_model([look(project, CODEX)])
        inner = trusted(codex(inner_model, project=project.root))
        outer_model = fake_model([Run(inner.headless("go in").for_shell()), look(project, CLAUDE), Say("outer")])

        tui = tmux.start(claude(outer_model, project=project.root), *claude_module.NO_QUESTIONS)
        tui.prompt("go", until="outer")

        pid, process, within = seen(inner_model.requests[1])
        assert (process, within["client"], within["agent"]["pid"]) == ("codex", "codex-cli", pid)
        assert (within["status"], "tmux" in within) == ("running", False)
        pid, process, around = seen(outer_model.requests[2])
        assert (process, around["client"], around["agent"]["pid"]) == ("claude", "claude-code", pid)
        assert (around["status"], around["tmux"]["pane"]) == ("running", tui.pane)
        assert running(project) == {session_of(outer_model)}
        assert ended(project, session_of(inner_model)) == ("completed", "other")


class TestTheModel:
    """It hears nothing of the record: it is told the same, whether or not the hooks run."""

    @pytest.mark.parametrize(
        "texts",
        [
            pytest.param(("hello", "are you there?"), id="prompts"),
            pytest.param(
                ("hello", "are you there?", "/compact", "who are you?"),
                id="compaction",
            ),
        ],
    )
    def test_hears_nothing_in_claude(self, stranger: Claude, texts: tuple[str, ...]) -> None:
        def live(*args: str) -> list[Any]:
            before = stranger.model.calls
            with stranger.converse(*args) as conversation:
                turns = [conversation.prompt(text) for text in texts]
            session = turns[0].session_id
            stranger.resume(session, "hello again", *args)
            bodies = [request.body for request in stranger.model.requests[before:]]
            told = [[body[part] for part in ("system", "messages")] for body in bodies]
            return list(json.loads(json.dumps(told).replace(session, "SESSION")))

        with_hooks = live()

        assert with_hooks == live("--settings", '{"disableAllHooks": true}')
        assert len(with_hooks) == len(texts) + 1

    def test_hears_nothing_in_codex(self, codex: CodexFactory, fake_model: ModelFactory, project: Project) -> None:
        driven = trusted(codex(fake_model(), project=project.root))

        def live(*args: str) -> list[Any]:
            before = driven.model.calls
            session = driven.prompt("hello", *args).session_id
            driven.resume(session, "hello again", *args)
            return [[item["content"] for item in each.body["input"]] for each in driven.model.requests[before:]]

        with_hooks = live()

        assert with_hooks == live("--disable", "hooks")
        assert len(with_hooks) == 2


class TestTheShellOfClaude:
    TELL = Run('printf %s "$INSTAR_SESSION_ID"')

    @pytest.fixture
    def driven(self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project) -> Claude:
        model = fake_model(lambda request: Say("told.") if request.tool_results else self.TELL)
        return claude(model, project=project.root)

    @staticmethod
    def told(model: FakeModel) -> list[str]:
        """Return what the shells were told, each of them its own session."""
        looks = [each for each in model.requests if each.tool_results and not each.user_texts]
        assert [each.tool_results for each in looks] == [(each.session_id,) for each in looks]
        return [each.session_id for each in looks]

    def test_knows_its_session(self, driven: Claude) -> None:
        session = driven.prompt("go").session_id
        driven.resume(session, "go on")
        fork = driven.resume(session, "go another way", "--fork-session").session_id
        again = driven.resume(fork, "go on there").session_id

        assert self.told(driven.model) == [session, session, fork, again]
        assert session != fork == again

    def test_knows_its_session_after_compaction_and_clear(self, driven: Claude, tmux: Tmux) -> None:
        with driven.converse() as conversation:
            session = conversation.prompt("go").session_id
            for text in ("/compact", "go on"):
                conversation.prompt(text)
        tui = tmux.start(driven, *claude_module.NO_QUESTIONS)
        tui.prompt("go", until="told.")
        tui.clear()
        tui.prompt("go on", until="told.")

        first, second, before, after = self.told(driven.model)
        assert first == second == session
        assert len({session, before, after}) == 3


class TestAQuestion:
    """That the owner of a build asked is open until the next prompt."""

    @pytest.fixture
    def model(self, fake_model: ModelFactory, project: Project) -> FakeModel:
        state = Run(f'cat "{project.state_path}"')
        return fake_model(script(init(project), ask(project), Say("Slate or tile?"), state))

    def test_is_open_until_the_next_prompt(self, client: Set, model: FakeModel, project: Project) -> None:
        driven = client(model)
        session = driven.prompt("go").session_id
        assert project.state["asked"]
        assert holds(project, model) == 0

        driven.resume(session, "tile")

        (state,) = model.requests[4].tool_results
        assert "asked" not in json.loads(state)
        assert holds(project, model) == 3

    def test_is_open_still_after_the_prompt_of_another(
        self, client: Set, model: FakeModel, project: Project, stranger: Claude
    ) -> None:
        driven = client(model)
        session = driven.prompt("go").session_id

        stranger.prompt("hello")

        assert project.state["asked"]
        driven.resume(session, "tile")
        assert holds(project, model) == 3

    def test_is_open_still_after_a_turn_that_claude_began_itself(
        self, claude: ClaudeFactory, fake_model: ModelFactory, project: Project, tmp_path: Path
    ) -> None:
        waiting = Run(f"until [ -e {tmp_path}/end ]; do sleep 0.1; done", background=True)
        asked = Say("Slate or tile?")
        model = fake_model(script(init(project), waiting, ask(project), asked, Say("The task has ended.")))

        with claude(model, project=project.root).converse() as conversation:
            session = conversation.prompt("go").session_id
            (tmp_path / "end").touch()
            conversation.next_turn()

            assert project.record(session)["lastPrompt"]["text"] == "go"
            assert project.state["asked"]
            assert holds(project, model) == 0
            conversation.prompt("tile")
        assert holds(project, model) == 3
