"""One process tells all that a tmux server shows; what cannot be told is told from what is gone."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import psutil
import pytest

from clients.waiting import wait_until
from instar.sessions.machine.tmux import Done, Tmux, View

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stand_ins import Tmux as Server

PATIENT = Tmux(timeout_s=30)


def started(start_tmux: Callable[[str], Server], command: str = "exec sleep 600") -> Server:
    """Return a server with one pane, 80 cells wide and 24 high."""
    server = start_tmux("server")
    server.ask("new-session", "-d", "-s", "main", "-x", "80", "-y", "24", command)
    return server


def view(server: Server, *panes: str, lines: int = 200) -> View:
    seen = PATIENT.view(str(server.socket), panes, lines)
    assert (seen.state, seen.why) == ("answered", "")
    return seen


def frame_with(server: Server, text: str, pane: str = "%0", lines: int = 200) -> str:
    """Return the frame of a pane once it shows a text."""
    return wait_until(lambda: next((f for f in view(server, pane, lines=lines).frames.values() if text in f), ""), text)


def pid_of(server: Server) -> int:
    return int(server.ask("display-message", "-p", "#{pid}"))


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file that gets a line for each tmux process that is started."""
    calls, wrapper = tmp_path / "calls", tmp_path / "wrapped" / "tmux"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho >>"{calls}" "$*"\nexec {shutil.which("tmux")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}{os.pathsep}{os.environ['PATH']}")
    return calls


def test_all_panes_of_all_windows_are_told(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    server.ask("split-window", "-d", "sleep 600")
    server.ask("new-window", "-d", "sleep 600")
    wait_until(lambda: {pane.command for pane in view(server).panes.values()} == {"sleep"}, "all are started")

    seen = view(server)

    assert seen.server_pid == pid_of(server)
    assert set(seen.panes) == {"%0", "%1", "%2"}
    assert {pane.window_id for pane in seen.panes.values()} == {"@0", "@1"}
    pane = seen.panes["%0"]
    assert (pane.session, pane.session_id, pane.sessions, pane.width) == ("main", "$0", ("main",), 80)
    assert psutil.Process(pane.pid).terminal() == pane.terminal or pane.terminal.startswith("/dev/")
    assert (pane.attached, pane.watching, pane.is_in_mode, pane.is_dead) == (0, 0, False, False)
    assert seen.frames == {}


def test_a_pane_in_several_sessions_is_one(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    server.ask("new-session", "-d", "-s", "other", "-t", "main")

    (pane,) = view(server).panes.values()

    assert pane.sessions == ("main", "other")


def test_a_frame_holds_escapes_and_joined_lines_of_the_history(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux, "seq 100; printf '\\033[2m%0100d\\033[0m é\\n' 7; exec sleep 600")

    frame = frame_with(server, "é")

    assert f"\x1b[2m{7:0100d}\x1b[0m" in frame
    assert frame.startswith("1\n2\n")
    assert "\n50\n" not in frame_with(server, "é", lines=10)


def test_a_pane_that_is_missing_hides_no_other(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)

    assert set(view(server, "%7", "%0", "%0", "%8").frames) == {"%0"}


@pytest.mark.parametrize(
    "pane", ["%0' ; kill-server ; '", "%0\nkill-server", "%0 ; kill-server", "main", "", "%", "%x"]
)
def test_what_is_no_pane_id_is_never_told_to_tmux(start_tmux: Callable[[str], Server], pane: str) -> None:
    server = started(start_tmux)

    assert set(view(server, pane, "%0").frames) == {"%0"}


def test_copy_mode_a_new_size_and_a_dead_pane_are_told(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux, "read line; exit 3")
    server.ask("set-option", "-g", "remain-on-exit", "on")
    server.ask("copy-mode", "-t", "%0")
    assert view(server).panes["%0"].is_in_mode
    server.ask("send-keys", "-t", "%0", "-X", "cancel")
    server.ask("resize-window", "-t", "main", "-x", "100", "-y", "30")
    pane = view(server).panes["%0"]
    assert (pane.width, pane.height, pane.is_in_mode, pane.is_dead) == (100, 30, False, False)

    server.ask("send-keys", "-t", "%0", "Enter")

    wait_until(lambda: view(server).panes["%0"].is_dead, "the pane is dead")


def test_a_client_that_looks_is_counted(start_tmux: Callable[[str], Server]) -> None:
    server, looking = started(start_tmux), start_tmux("looking")
    server.ask("new-window", "-d", "sleep 600")
    looking.ask("new-session", "-d", f"TMUX= tmux -S {server.socket} attach-session -t main")

    wait_until(lambda: view(server).panes["%0"].attached, "the client is attached")

    panes = view(server).panes
    assert [(panes[each].attached, panes[each].watching) for each in ("%0", "%1")] == [(1, 1), (1, 0)]


TRICKS = [
    "%0\n%9", "a|b;c\td", "#{pane_id}#(touch /nowhere)%H", "x\x1b[31m", "é\u2028\U0001f600", "' ; kill-server ; '",
    "0123 pane %9", "\\033",
]  # fmt: skip


@pytest.mark.parametrize("text", TRICKS)
def test_no_title_name_or_program_can_forge_a_field(
    start_tmux: Callable[[str], Server], tmp_path: Path, text: str
) -> None:
    program = tmp_path / text.replace("/", "_")
    program.symlink_to(shutil.which("sleep") or "/bin/sleep")
    server = started(start_tmux)
    server.ask("new-session", "-d", "-s", f"s{text}", "--", str(program), "600")
    server.ask("rename-window", "-t", "%0", text)
    server.ask("select-pane", "-t", "%0", "-T", text)
    plain = view(server)

    assert set(plain.panes) == {"%0", "%1"}
    assert {pane.id: pane.pid > 1 and pane.width for pane in plain.panes.values()} == {"%0": 80, "%1": 80}
    assert set(view(server, "%1", "%0").frames) == {"%0", "%1"}


def test_a_title_is_told_as_it_is_in_any_language(
    start_tmux: Callable[[str], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = started(start_tmux, "printf 'caf\\303\\251\\n'; printf '\\033]2;✳ a|b #{pid} %%H\\007'; exec sleep 600")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TMUX", "/nowhere,1,0")
    monkeypatch.setenv("TMUX_PANE", "%7")
    monkeypatch.setenv("TMUX_TMPDIR", "/nowhere")

    assert "café" in frame_with(server, "caf")
    wait_until(lambda: view(server).panes["%0"].title == "✳ a|b #{pid} %H", "the title is set")


def test_bytes_that_are_no_text_are_no_end(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux, "printf '\\377\\376 \\033]2;\\377t\\007 end'; exec sleep 600")

    assert "end" in frame_with(server, "end")


def test_two_hundred_panes_and_long_frames_take_one_process(start_tmux: Callable[[str], Server], counted: Path) -> None:
    server = started(start_tmux, "seq 12000; exec sleep 600")
    server.ask("set-option", "-g", "history-limit", "20000")
    server.ask("new-window", "-d", "seq 12000; exec sleep 600")
    for _ in range(198):
        server.ask("new-window", "-d", "sleep 600")
    panes = [f"%{number}" for number in range(200)]
    frame_with(server, "\n12000", "%1", 10_000)
    counted.write_text("")

    seen = view(server, *panes, lines=10_000)

    assert len(counted.read_text().splitlines()) == 1
    assert list(seen.frames) == panes
    assert set(seen.panes) == set(panes)
    assert len(seen.frames["%1"].splitlines()) > 10_000


def test_a_stopped_server_says_nothing_and_no_client_is_left(
    start_tmux: Callable[[str], Server], counted: Path
) -> None:
    server = started(start_tmux)
    pid = pid_of(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = Tmux(timeout_s=0.3).view(str(server.socket), ["%0"])
        done = Tmux(timeout_s=0.3).run(str(server.socket), "set-option", "-g", "@mark", "1")
        assert (seen.state, seen.why, seen.panes) == ("indeterminate", "no answer in time", {})
        assert done == Done("indeterminate", why="no answer in time")
        assert len(counted.read_text().splitlines()) == 4  # with the two that set it up
        assert not [child for child in psutil.Process().children() if child.name().startswith("tmux")]
    finally:
        os.kill(pid, signal.SIGCONT)
    assert view(server, "%0").frames


def test_a_server_that_was_killed_is_gone(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    pid = pid_of(server)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid), "the server is dead")

    seen = PATIENT.view(str(server.socket))

    assert seen.state == "gone"
    assert seen.why.startswith("no server running on")


def test_a_server_that_was_started_anew_is_another_one_with_the_same_pane_ids(
    start_tmux: Callable[[str], Server],
) -> None:
    server = started(start_tmux)
    before = view(server)
    os.kill(before.server_pid or 0, signal.SIGKILL)
    wait_until(lambda: PATIENT.view(str(server.socket)).state == "gone", "the server is gone")
    server.ask("new-session", "-d", "sleep 600")

    after = view(server)

    assert set(after.panes) == set(before.panes) == {"%0"}
    assert after.server_pid != before.server_pid


def test_a_socket_that_was_moved_answers_in_its_new_place(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    there, elsewhere = server.socket, server.socket.with_name("elsewhere.sock")
    there.rename(elsewhere)
    try:
        assert PATIENT.view(str(there)).state == "gone"
        assert PATIENT.view(str(elsewhere)).state == "answered"
    finally:
        elsewhere.rename(there)


def test_a_server_without_a_session_answers_that_there_are_no_panes(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    server.ask("set-option", "-g", "exit-empty", "off")
    server.ask("kill-session", "-t", "main")

    seen = view(server, "%0")

    assert (seen.panes, seen.frames) == ({}, {})
    assert seen.server_pid == pid_of(server)


def test_where_nobody_listens_none_is_started(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "refused"))
    (tmp_path / "file").touch()
    for name in ("missing", "refused", "file"):
        place = str(tmp_path / name)
        assert PATIENT.view(place, ["%0"]).state == "gone"
        assert PATIENT.run(place, "new-session", "-d").state == "gone"
        assert PATIENT.run(place, "start-server").state == "gone"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "refused"]


@pytest.mark.parametrize("place", ["", "server.sock", "/dev/null/x", f"/{'x' * 200}", "/a\0b"])
def test_a_place_where_no_socket_can_be_tells_nothing(place: str) -> None:
    assert PATIENT.view(place).state == "indeterminate"
    assert PATIENT.run(place, "list-panes").state == "indeterminate"


def test_without_tmux_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert PATIENT.view(str(tmp_path / "s")).state == "indeterminate"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'tmux: unknown option -- N' >&2; exit 1", "tmux 3.2 or newer is needed"),
        ("echo 'server exited unexpectedly' >&2; exit 1", "server exited unexpectedly"),
        ("echo 'protocol version mismatch (8, 7)' >&2; exit 1", "protocol version mismatch (8, 7)"),
        ("echo 'error connecting to /s (Permission denied)' >&2; exit 1", "error connecting to /s (Permission denied)"),
    ],
)  # fmt: skip
def test_a_client_that_fails_before_it_asked_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    (tmp_path / "tmux").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    seen = PATIENT.view("/nowhere")

    assert (seen.state, seen.why) == ("indeterminate", why)
    assert PATIENT.run("/nowhere", "list-panes") == Done("indeterminate", why=why)


@pytest.mark.parametrize("script", ["exit 0", "exit 1", "echo half an answer", "kill -9 $$"])
def test_an_answer_that_is_not_whole_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (tmp_path / "tmux").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert PATIENT.view("/nowhere").state == "indeterminate"


def test_a_client_that_talks_without_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmux").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    (tmp_path / "tmux").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    seen = PATIENT.view("/nowhere")

    assert (seen.state, seen.why) == ("indeterminate", "it talks without end")


@pytest.mark.parametrize("text", ["plain", "ends;", "ends\\;", ";", "#{pane_id} ' \" $HOME \\", "é\u2028"])
def test_a_command_gets_its_words_as_they_are(start_tmux: Callable[[str], Server], text: str) -> None:
    server = started(start_tmux)

    assert PATIENT.run(str(server.socket), "set-option", "-g", "@mark", text) == Done("done")
    assert PATIENT.run(str(server.socket), "show-options", "-gv", "@mark") == Done("done", text=f"{text}\n")


def test_a_command_that_cannot_be_done_is_refused(start_tmux: Callable[[str], Server]) -> None:
    server = started(start_tmux)
    place = str(server.socket)

    assert PATIENT.run(place, "select-pane", "-t", "%7") == Done("refused", why="can't find pane: %7")
    assert PATIENT.run(place, "nonsense") == Done("refused", why="unknown command: nonsense")
