"""The harness itself, proven on the real clients with hooks written by hand."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import pytest

from . import claude as claude_module
from . import codex as codex_module
from .fake_model import FakeModel, Run, Say
from .installation import VERSIONS, UnavailableError, install
from .launch import Launch, base_environment, end
from .tui import Tmux
from .waiting import DeadlineError, wait_until

if TYPE_CHECKING:
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import Request

    Factory = Union[ClaudeFactory, CodexFactory]

REASON = 'Step 2 of 3 is <open> & "waits"; é'


@dataclass(frozen=True)
class Kind:
    """What differs between the clients, for a test that runs on both."""

    name: str
    hook_file: str
    let_hooks_run: tuple[str, ...]
    no_questions: tuple[str, ...]
    id_variable: str


CLAUDE = Kind("claude", ".claude/settings.json", (), claude_module.NO_QUESTIONS, "CLAUDE_CODE_SESSION_ID")
CODEX = Kind("codex", ".codex/hooks.json", (codex_module.TRUST_HOOKS,), codex_module.NO_QUESTIONS, "CODEX_SESSION_ID")


@pytest.fixture(params=[CLAUDE, CODEX], ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Run the test once with each client."""
    chosen: Kind = request.param
    return chosen


@pytest.fixture
def client(kind: Kind, request: pytest.FixtureRequest) -> Factory:
    """Set up the client of ``kind``."""
    factory: Factory = request.getfixturevalue(kind.name)
    return factory


def block_times(count: int, counter: Path) -> str:
    """Return a hook command that blocks the first ``count`` times; ``counter`` gets a byte each time it runs."""
    answer = json.dumps({"decision": "block", "reason": REASON}, ensure_ascii=False)
    file = shlex.quote(os.fspath(counter))
    return f"printf x >>{file}; [ $(wc -c <{file}) -gt {count} ] || printf %s {shlex.quote(answer)}"


def keep_stdin(log: Path) -> str:
    """Return a hook command that adds what it reads to ``log``, as one line."""
    return f"{{ cat; echo; }} >>{shlex.quote(os.fspath(log))}"


def read_events(log: Path) -> list[dict[str, Any]]:
    """Return what the commands of ``keep_stdin`` have read so far."""
    return [json.loads(line) for line in log.read_text().splitlines() if line] if log.exists() else []


def write_hooks(project: Path, kind: Kind, **commands: str) -> None:
    """Give ``project`` one hook for each event; both clients read the same shape."""
    hooks = {event: [{"hooks": [{"type": "command", "command": command}]}] for event, command in commands.items()}
    path = project / kind.hook_file
    path.parent.mkdir()
    path.write_text(json.dumps({"hooks": hooks}))


def make_repository(folder: Path) -> None:
    """Commit all that is in ``folder`` to a new git repository there."""
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    for arguments in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "start")):
        subprocess.run(("git", *identity, *arguments), cwd=folder, check=True)


def is_running(pid: int) -> bool:
    """Tell whether ``pid`` is a process that has not ended (one that was only not reaped has)."""
    status = subprocess.run(("ps", "-o", "stat=", "-p", str(pid)), capture_output=True, text=True, check=False)
    return status.stdout.strip()[:1] not in ("", "Z")


class TestBothClients:
    def test_block_delivers_exactly_the_reason(
        self, kind: Kind, client: Factory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        write_hooks(scratch, kind, Stop=block_times(2, tmp_path / "runs"))
        model = fake_model()
        turn = client(model).prompt("go", *kind.let_hooks_run)
        assert [request.user_texts for request in model.requests] == [("go",), (REASON,), (REASON,)]
        assert [request.hook_feedback for request in model.requests] == [(), (REASON,), (REASON,)]
        assert (turn.result, turn.returncode) == ("done.", 0)
        assert (tmp_path / "runs").read_text() == "xxx"

    def test_model_follows_the_script(self, client: Factory, fake_model: ModelFactory) -> None:
        model = fake_model([Run("echo one; echo two"), Say("first"), Say("second")])
        first = client(model).prompt("go")
        assert first.result == "first"
        assert [request.tool_results for request in model.requests] == [(), ("one\ntwo",)]

    def test_script_may_be_a_function(self, client: Factory, fake_model: ModelFactory) -> None:
        model = fake_model(lambda request: Say(f"You said {request.user_texts[0]}"))
        assert client(model).prompt("hello").result == "You said hello"

    def test_tool_sees_the_session_id(self, kind: Kind, client: Factory, fake_model: ModelFactory) -> None:
        model = fake_model([Run(f'printf %s "${kind.id_variable}"')])
        turn = client(model).prompt("go")
        assert turn.session_id
        assert model.requests[-1].tool_results == (turn.session_id,)
        assert {request.session_id for request in model.requests} == {turn.session_id}

    def test_tool_sees_nothing_of_the_tests_environment(
        self, client: Factory, fake_model: ModelFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OF_THE_TEST", "leaked")
        model = fake_model([Run('printf %s "${OF_THE_TEST:-nothing} $GIVEN"')])
        client(model).prompt("go", env={"GIVEN": "given"})
        assert model.requests[-1].tool_results == ("nothing given",)

    def test_resume_keeps_the_session_id(self, client: Factory, fake_model: ModelFactory) -> None:
        model = fake_model()
        driven = client(model)
        first = driven.prompt("go")
        second = driven.resume(first.session_id, "go on")
        assert second.session_id == first.session_id
        assert [request.user_texts for request in model.requests] == [("go",), ("go on",)]

    def test_hook_runs_in_the_subfolder_where_the_client_was_started(
        self, kind: Kind, client: Factory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        below = scratch / "sub"
        below.mkdir()
        write_hooks(below if kind is CLAUDE else scratch, kind, Stop=keep_stdin(tmp_path / "log"))
        make_repository(scratch)
        client(fake_model()).prompt("go", *kind.let_hooks_run, cwd=below)
        assert [event["cwd"] for event in read_events(tmp_path / "log")] == [str(below)]

    def test_model_goes_on_while_a_background_command_runs(
        self, client: Factory, fake_model: ModelFactory, tmp_path: Path
    ) -> None:
        def script(request: Request) -> Run | Say:
            if request.user_texts == ("go",):
                return Run(f"until [ -e {tmp_path}/end ]; do sleep 0.1; done", background=True)
            (tmp_path / "end").touch()
            return Say("The command could not have ended before this.")

        assert client(fake_model(script)).prompt("go").returncode == 0
        assert (tmp_path / "end").exists()

    def test_ceiling_ends_an_endless_loop(
        self, kind: Kind, client: Factory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        write_hooks(scratch, kind, Stop=block_times(1000, tmp_path / "runs"))
        model = fake_model(ceiling=5)
        client(model).prompt("go", *kind.let_hooks_run, env={"CLAUDE_CODE_STOP_HOOK_BLOCK_CAP": "0"})
        assert model.calls == model.ceiling + 1

    def test_ending_a_client_ends_its_tools(self, client: Factory, fake_model: ModelFactory, tmp_path: Path) -> None:
        pid_file = tmp_path / "tool"
        driven = client(fake_model([Run(f"echo $$ >{pid_file}; sleep 300")]))
        with driven.headless("go").start(
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            tool = wait_until(lambda: pid_file.read_text() if pid_file.exists() else "", "the tool runs")
            end(process)
        assert not is_running(int(tool))

    def test_error_in_the_script_ends_the_turn_and_fails_the_test(self, client: Factory) -> None:
        def script(request: Request) -> Say:
            raise LookupError(request.user_texts)

        model = FakeModel(script)
        with pytest.raises(LookupError, match="go"), model:
            client(model).prompt("go")
        assert model.calls == 1


class TestClaude:
    def test_turn_tells_how_each_stop_hook_ran(
        self, claude: ClaudeFactory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        write_hooks(scratch, CLAUDE, Stop=block_times(1, tmp_path / "runs") + "; echo oops >&2")
        turn = claude(fake_model()).prompt("go")
        assert [(run.exit_code, run.stderr, run.outcome) for run in turn.stop_hooks] == [(0, "oops\n", "success")] * 2
        assert json.loads(turn.stop_hooks[0].stdout) == {"decision": "block", "reason": REASON}
        assert turn.stop_hooks[1].stdout == ""

    def test_conversation_takes_prompt_after_prompt_in_one_session(
        self, claude: ClaudeFactory, fake_model: ModelFactory
    ) -> None:
        driven = claude(fake_model([Say("one"), Say("two"), Say("three")]))
        with driven.converse() as conversation:
            turns = [conversation.prompt("first"), conversation.prompt("second")]
        assert [turn.result for turn in turns] == ["one", "two"]
        assert (conversation.returncode, conversation.stderr) == (0, "")
        session_id = turns[0].session_id
        with driven.converse("--resume", session_id) as resumed:
            turns.append(resumed.prompt("third"))
        assert [turn.session_id for turn in turns] == [session_id] * 3

    def test_conversation_sees_the_turn_that_a_background_command_begins(
        self, claude: ClaudeFactory, fake_model: ModelFactory, tmp_path: Path
    ) -> None:
        waiting = f"until [ -e {tmp_path}/end ]; do sleep 0.1; done"
        driven = claude(fake_model([Run(waiting, background=True), Say("waiting"), Say("noticed")]))
        with driven.converse() as conversation:
            assert conversation.prompt("go").result == "waiting"
            (tmp_path / "end").touch()
            assert conversation.next_turn().result == "noticed"

    def test_conversation_tells_when_claude_ends(self, claude: ClaudeFactory, fake_model: ModelFactory) -> None:
        conversation = claude(fake_model()).converse("--no-such-option")
        with conversation, pytest.raises(DeadlineError, match="no turn ended"):
            conversation.next_turn()
        assert conversation.returncode == 1
        assert "no-such-option" in conversation.stderr

    def test_worktree(self, claude: ClaudeFactory, fake_model: ModelFactory, scratch: Path, tmp_path: Path) -> None:
        write_hooks(scratch, CLAUDE, Stop=keep_stdin(tmp_path / "log"))
        make_repository(scratch)
        claude(fake_model()).prompt("go", "--worktree", "branch")
        assert [event["cwd"] for event in read_events(tmp_path / "log")] == [str(scratch / ".claude/worktrees/branch")]

    def test_nested_codex_sees_both_session_ids(
        self, claude: ClaudeFactory, codex: CodexFactory, fake_model: ModelFactory
    ) -> None:
        inner_model = fake_model([Run('printf %s "$CLAUDE_CODE_SESSION_ID $CODEX_SESSION_ID"'), Say("inner")])
        nested = codex(inner_model).headless("go in").for_shell()
        outer_model = fake_model([Run(f"{nested} 2>/dev/null")])
        turn = claude(outer_model).prompt("go")
        assert outer_model.requests[-1].tool_results == ("inner",)
        inner_id = inner_model.requests[-1].session_id
        assert inner_model.requests[-1].tool_results == (f"{turn.session_id} {inner_id}",)


class TestCodex:
    def test_turn_tells_how_each_hook_ended(
        self, codex: CodexFactory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        write_hooks(scratch, CODEX, Stop=block_times(1, tmp_path / "runs"))
        turn = codex(fake_model()).prompt("go", *CODEX.let_hooks_run)
        assert turn.hook_outcomes == (("Stop", "Blocked"), ("Stop", "Completed"))

    def test_hooks_of_an_untrusted_folder_do_not_run(
        self, codex: CodexFactory, fake_model: ModelFactory, scratch: Path, tmp_path: Path
    ) -> None:
        write_hooks(scratch, CODEX, Stop=block_times(1, tmp_path / "runs"))
        turn = codex(fake_model(), trust_folder=False).prompt("go", *CODEX.let_hooks_run)
        assert (turn.hook_outcomes, turn.returncode) == ((), 0)


class TestTui:
    def test_clear_starts_a_new_session_in_the_same_pane(
        self, kind: Kind, client: Factory, fake_model: ModelFactory, tmux: Tmux, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        say_where = Run('printf %s "$TMUX_PANE"')
        model = fake_model([say_where, Say("before it"), say_where, Say("after it")])
        driven = client(model)
        write_hooks(driven.project, kind, SessionStart=keep_stdin(log))
        tui = tmux.start(driven, *kind.no_questions, *kind.let_hooks_run)
        tui.prompt("hello", until="before it")
        tui.clear()
        assert "after it" in tui.prompt("again\nand again", until="after it").text
        assert [request.user_texts for request in model.requests] == [("hello",), (), ("again\nand again",), ()]
        assert [request.tool_results for request in model.requests[1::2]] == [(tui.pane,)] * 2
        starts = read_events(log)
        assert [start["source"] for start in starts] == ["startup", "clear"]
        assert len({start["session_id"] for start in starts}) == len(starts)

    def test_panes_of_one_session_are_told_apart(
        self, client: Factory, kind: Kind, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        model = fake_model(lambda request: None if request.tool_results else Run('printf %s "$TMUX_PANE"'))
        driven = client(model)
        tuis = [tmux.start(driven, *kind.no_questions) for _ in range(2)]
        for tui in tuis:
            tui.prompt("hello", until="done.")
        seen = [request.tool_results for request in model.requests if request.tool_results]
        assert seen == [(tui.pane,) for tui in tuis]
        assert tmux.run("list-sessions", "-F", "#{session_name} #{session_windows}") == "main 2"

    def test_failed_start_shows_what_the_client_said(
        self, client: Factory, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        with pytest.raises(DeadlineError, match=r"(?s)has ended.*no-such-option"):
            tmux.start(client(fake_model()), "--no-such-option")

    def test_nothing_is_left_of_a_server(self, client: Factory, fake_model: ModelFactory) -> None:
        with Tmux() as server:
            pid = server.start(client(fake_model())).pid
            socket = Path(server.run("display-message", "-p", "#{socket_path}"))
            assert is_running(pid)
        assert not is_running(pid)
        assert not socket.exists()

    def test_nothing_is_left_of_a_server_without_panes(self) -> None:
        with Tmux() as server:
            pid = int(server.run("display-message", "-p", "#{pid}"))
            assert is_running(pid)
        wait_until(lambda: not is_running(pid), "the server has ended")


class TestLaunch:
    def test_deadline_tells_what_was_printed(self, tmp_path: Path) -> None:
        launch = Launch(("sh", "-c", "echo so far; exec sleep 300"), tmp_path, base_environment(tmp_path))
        with pytest.raises(DeadlineError, match=r"(?s)not within 0\.5 s: sh .*\nso far\n"):
            launch.run(timeout_s=0.5)

    def test_wrapper_runs_the_command(self, tmp_path: Path) -> None:
        launch = Launch(("sh", "-c", 'echo "$GIVEN"'), tmp_path, base_environment(tmp_path))
        assert launch.wrapped_in("env", "GIVEN=a b").run().stdout == "a b\n"

    def test_command_for_a_shell_keeps_the_environment_of_that_shell(self, tmp_path: Path) -> None:
        folder = tmp_path / "it's here"
        folder.mkdir()
        launch = Launch(("sh", "-c", 'echo "$PWD $OUTER $INNER"'), folder, {"INNER": "a 'b'"})
        outer = Launch(("sh", "-c", launch.for_shell()), tmp_path, {**base_environment(tmp_path), "OUTER": "c"})
        assert outer.run().stdout == f"{folder} c a 'b'\n"


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a stand-in for npm first on PATH, which leaves what the real one leaves, and a byte in ``npm-runs``."""
    script = tmp_path / "bin" / "npm"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/sh -e
printf x >>{tmp_path}/npm-runs
while [ "$1" != --prefix ]; do shift; done
cd "$2"; shift 2
for package in "$@"; do
    mkdir -p "node_modules/${{package%@*}}"
    printf '{{"version":"%s"}}' "${{package##*@}}" >"node_modules/${{package%@*}}/package.json"
done
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.defpath}")
    return script


class TestInstallation:
    def test_clients_are_installed_once(self, npm: Path, tmp_path: Path) -> None:
        clients = install(tmp_path / "clients")
        npm.unlink()
        assert install(tmp_path / "clients") == clients
        assert (tmp_path / "npm-runs").read_text() == "x"

    @pytest.mark.usefixtures("npm")
    @pytest.mark.parametrize("spoilt", ["installed.json", "node_modules/@openai/codex/package.json"])
    def test_incomplete_installation_is_done_again(self, spoilt: str, tmp_path: Path) -> None:
        install(tmp_path / "clients")
        (tmp_path / "clients" / spoilt).unlink()
        install(tmp_path / "clients")
        assert (tmp_path / "npm-runs").read_text() == "xx"

    @pytest.mark.usefixtures("npm")
    def test_other_versions_are_replaced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        install(tmp_path / "clients")
        monkeypatch.setitem(VERSIONS, "@openai/codex", "0.170.0")
        install(tmp_path / "clients")
        manifest = json.loads((tmp_path / "clients/node_modules/@openai/codex/package.json").read_text())
        assert manifest == {"version": "0.170.0"}

    def test_missing_npm_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", os.fspath(tmp_path))
        with pytest.raises(UnavailableError, match="npm is missing"):
            install(tmp_path / "clients")

    def test_failure_of_npm_is_told(self, npm: Path, tmp_path: Path) -> None:
        npm.write_text("#!/bin/sh\necho no network >&2; exit 7\n")
        with pytest.raises(UnavailableError, match="failed with 7: no network"):
            install(tmp_path / "clients")
        assert not (tmp_path / "clients/installed.json").exists()
