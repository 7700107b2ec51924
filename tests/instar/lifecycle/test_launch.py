"""A client is started without a shell, watched until it takes prompts, and is the session that was wanted or none."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from clients.waiting import wait_until
from instar.errors import InstarError
from instar.lifecycle.clients.launch import mark, socket_of
from instar.lifecycle.clients.panes import close, exit_cause
from instar.sessions import registry
from tests.instar.lifecycle.launched import HASTY, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ODD = [
    "a'b", '"$HOME"', "~", "#(touch made)", "#{pid}", "new\nline", "\x1b[201~\t\x7f", "{", "}", ";", "a;", "%if 1", "",
    "$(touch made)", "`touch made`", "é日本", "\\", "\\n", "'", "# c", "-x", "*",
]  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage.made(tmp_path)
    yield stage
    stage.end()


def test_what_is_up_is_told_with_its_session(stage: Stage) -> None:
    up = stage.launch(message='Lay\n\n"slates"')

    assert (up.outcome, up.session_id, up.is_alive) == ("up", "fresh-session", True)
    assert up.delivered
    assert (up.delivered.fate, up.delivered.session_id) == ("landed", "fresh-session")
    assert up.agent
    assert up.agent["pid"] == up.pid
    pane = stage.tmux.view(stage.socket).panes[up.pane]
    assert (pane.session, pane.pid) == ("claude-code-bob", up.pid)
    assert stage.sent == ['Lay\n\n"slates"']
    record = registry.session(stage.root, "fresh-session")
    assert record
    assert (record.record["identity"], record.record["launchedBy"]) == ("claude-code-bob", "instar")
    assert record.record["lastPrompt"]["id"] == "1"


def test_a_first_message_is_proven_by_the_transcript_where_its_hook_is_late(stage: Stage) -> None:
    up = stage.launch("--late", str(stage.root / "transcript.jsonl"), message="Lay the slates")

    assert up.delivered
    assert (up.delivered.fate, up.delivered.session_id) == ("landed", "fresh-session")


def test_a_word_is_what_it_is_however_odd(stage: Stage) -> None:
    odd = stage.root / "#(touch made) #[fg=red] '~$HOME\n;"
    odd.mkdir()

    up = stage.launch(*ODD, cwd=odd, env={"ODD": "|".join(ODD)})

    assert up.outcome == "up", up
    told = stage.started
    assert (told["argv"], told["cwd"], told["environ"]["ODD"]) == (ODD, str(odd), "|".join(ODD))
    assert not list(stage.root.rglob("made"))


def test_a_null_character_starts_nothing(stage: Stage) -> None:
    assert stage.launch("a\0b").outcome == "refused"
    assert not stage.tmux.view(stage.socket).panes


def test_what_belongs_to_another_session_is_not_handed_on(stage: Stage) -> None:
    other = {
        "CLAUDECODE": "1", "CLAUDE_CODE_SESSION_ID": "x", "INSTAR_SESSION_ID": "x", "CODEX_THREAD_ID": "x",
        "GIT_EDITOR": "true", "TMUX_PANE": "%99",
    }  # fmt: skip

    assert stage.launch(environ={**other, "KEPT": "1"}, env={"TMUX": "no", "OWN": "2"}).outcome == "up"

    environ = stage.started["environ"]
    assert not (other.keys() - {"TMUX_PANE"}) & environ.keys()
    assert (environ["KEPT"], environ["OWN"], environ["INSTAR_PEER"]) == ("1", "2", "bob")
    assert (environ["TMUX_PANE"], environ["TMUX"].split(",")[0]) == ("%0", stage.socket)
    assert socket_of(environ) == stage.socket  # where it finds the others


def test_no_variable_is_on_a_command_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "s3cret")
    assert stage.launch(env={"SECRET": "s3cret"}).outcome == "up"

    server = psutil.Process(int(stage.tmux.run(stage.socket, "display-message", "-p", "#{pid}").text))
    assert "s3cret" not in str([each.cmdline() for each in (server, *server.children(recursive=True))])
    assert not {"SECRET", "OURS"} & server.environ().keys()
    assert "OURS" not in stage.started["environ"]


@pytest.mark.parametrize(
    ("args", "status", "number", "said"),
    [(("--exit", "3"), 3, None, "with status 3: It rains. / No roof is to be had."),
     (("--exit", "0"), 0, None, "with status 0"),
     (("--die", "9"), None, signal.SIGKILL, "by signal 9"), (("--die", "11"), None, signal.SIGSEGV, "by signal 11")],
)  # fmt: skip
def test_the_end_of_a_client_that_does_not_come_up_is_told(
    stage: Stage, args: tuple[str, ...], status: int | None, number: int | None, said: str
) -> None:
    ended = stage.launch(*args)

    assert (ended.outcome, ended.is_alive) == ("exited", False), ended
    assert ended.exit
    assert (ended.exit.status, ended.exit.signal) == (status, number)
    assert said in ended.why
    assert exit_cause(stage.tmux, stage.socket, ended.pane) == ended.exit
    again = stage.launch()
    assert again.outcome == "up", "what is left of it is in nobody's way"
    assert set(stage.tmux.view(stage.socket).panes) == {again.pane}


def test_the_end_of_a_client_that_was_up_is_told(stage: Stage) -> None:
    up = stage.launch()
    assert exit_cause(stage.tmux, stage.socket, up.pane) is None
    assert up.pid
    os.kill(up.pid, signal.SIGTERM)

    cause = wait_until(lambda: exit_cause(stage.tmux, stage.socket, up.pane), "it is told")

    assert (cause.status, cause.signal) == (None, signal.SIGTERM)
    assert cause.at
    assert exit_cause(stage.tmux, stage.socket, "%77") is None


def test_one_that_never_takes_a_prompt_is_a_survivor(stage: Stage) -> None:
    mute = stage.launch("--mute", message="Hello.", patience=HASTY)

    assert (mute.outcome, mute.is_alive, mute.delivered) == ("never-ready", True, None)
    second = stage.launch()
    assert (second.outcome, second.is_alive, second.pane, second.pid) == ("refused", True, mute.pane, mute.pid)


@pytest.mark.parametrize(
    ("args", "name"),
    [(("--trust",), "trust-folder"), (("--ask", "Do you want to use this API key?"), "api-key"),
     (("--ask", "Do you like roofs?"), "dialog"),
     (("--ask", "WARNING: Bypass Permissions mode\r\n 2. Yes, I accept"), "bypass-permissions")],
)  # fmt: skip
def test_a_dialog_is_told_and_not_answered(stage: Stage, args: tuple[str, ...], name: str) -> None:
    asked = stage.launch(*args, message="Hello.", trusts_folder=name != "trust-folder")

    assert (asked.outcome, asked.is_alive) == ("dialog", True), asked
    assert asked.dialog
    assert asked.dialog.name == name
    assert "Enter to confirm" in stage.frame(asked.pane)
    assert stage.sent == []


def test_the_folder_is_trusted_for_a_peer_that_says_so(stage: Stage) -> None:
    up = stage.launch("--trust", message="Hello.", trusts_folder=True)

    assert (up.outcome, stage.sent) == ("up", ["Hello."]), up


def test_the_session_that_was_wanted_comes_up(stage: Stage) -> None:
    up = stage.launch(message="Go on.", resume_id="wanted-session")

    assert (up.outcome, up.session_id) == ("up", "wanted-session"), up
    assert stage.started["argv"] == ["--resume", "wanted-session"]


@pytest.mark.parametrize("args", [("--as", "another-session"), ("--no-record",)])
def test_another_session_is_closed_and_told_nothing(stage: Stage, args: tuple[str, ...]) -> None:
    other = stage.launch(*args, message="Go on.", resume_id="wanted-session", patience=HASTY)

    assert (other.outcome, other.is_alive, stage.sent) == ("another-session", False, []), other
    assert other.pane not in stage.tmux.view(stage.socket).panes


def test_a_fresh_one_without_a_record_is_up_without_a_session(stage: Stage) -> None:
    up = stage.launch("--no-record", patience=HASTY)

    assert (up.outcome, up.session_id, up.agent) == ("up", "", None), up


def test_one_that_does_not_take_its_message_is_a_survivor(stage: Stage) -> None:
    deaf = stage.launch("--deaf", message="Hello.", patience=HASTY)

    assert (deaf.outcome, deaf.is_alive) == ("undelivered", True), deaf
    assert deaf.delivered
    assert deaf.delivered.fate == "refused"


def test_what_cannot_be_carried_starts_nothing(stage: Stage) -> None:
    refused = stage.launch(message="a\x1b[201~b")

    assert (refused.outcome, refused.is_alive) == ("refused", False)
    assert stage.tmux.view(stage.socket).state == "gone"


@pytest.mark.parametrize("changes", [{"cwd": "gone"}, {"env": {"PATH": "/nowhere"}}])
def test_what_cannot_be_started_is_said_in_a_sentence(stage: Stage, changes: dict[str, Any]) -> None:
    if "cwd" in changes:
        changes = {"cwd": stage.root / "gone"}

    with pytest.raises(InstarError, match=r"is gone|is not on the PATH"):
        stage.launch(**changes)


def test_a_pane_is_closed_only_while_it_is_the_same(stage: Stage) -> None:
    up = stage.launch()
    assert up.pid

    assert close(stage.tmux, stage.socket, up.pane, up.pid + 1)
    assert up.pane in stage.tmux.view(stage.socket).panes
    assert close(stage.tmux, stage.socket, up.pane, up.pid)
    assert up.pane not in stage.tmux.view(stage.socket).panes
    assert close(stage.tmux, stage.socket, up.pane, up.pid)


def test_a_mark_is_written_once(stage: Stage) -> None:
    stage.launch()
    before = registry.session(stage.root, "fresh-session")

    mark(stage.root, "fresh-session", "claude-code-bob")

    assert registry.session(stage.root, "fresh-session") == before


def test_the_server_is_the_one_that_tmux_means(tmp_path: Path) -> None:
    assert socket_of({"TMUX_TMPDIR": str(tmp_path)}) == f"{tmp_path.resolve()}/tmux-{os.getuid()}/instar"
    assert socket_of({}).startswith("/")


def test_a_folder_of_others_holds_no_server(stage: Stage) -> None:
    folder = stage.root.parent / f"tmux-{os.getuid()}"
    folder.mkdir(mode=0o755)

    refused = stage.launch()

    assert (refused.outcome, "for this user alone" in refused.why) == ("refused", True), refused
    assert not list(folder.iterdir())
