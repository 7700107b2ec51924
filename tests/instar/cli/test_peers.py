"""instar-peers adds, shows, wakes, tells and stops named agents, says how each is, and refuses in one sentence."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import uuid
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clients.waiting import wait_until
from instar.cli.peer_log import Growing
from instar.lifecycle.clients.launch import socket_of
from instar.lifecycle.eventlog import EventLog
from instar.lifecycle.memory.marks import Marks
from instar.sessions.clock import Clock
from instar.sessions.parking.markers import Park
from support import BIN, DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Project

HOSTILE = "\x1b]0;owned\x07[red]a\nb\tc"
PROGRAM = str(BIN / "instar-peers")
STAND_IN = Path(__file__).parents[1] / "lifecycle/stand_in_client.py"
BOB = "claude-code-bob"
ID = str(uuid.UUID(int=7))


def run(
    project: Project, *arguments: str, status: int = 0, read: str = "", **env: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=project.root, env={**project.env, **env}, capture_output=True, text=True,
        check=False, timeout=DEADLINE_S, input=read,
    )  # fmt: skip
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    assert all(each.isprintable() or each in "\n\t" for each in done.stdout + done.stderr)
    return done


def say(project: Project, *arguments: str, **env: str) -> str:
    return run(project, *arguments, **env).stdout


def refusal(project: Project, *arguments: str, status: int = 1, **env: str) -> str:
    """Return the one sentence in which a command refuses."""
    done = run(project, *arguments, status=status, **env)
    assert done.stdout == ""
    assert status == 2 or done.stderr.count("\n") == 1
    return done.stderr


def told(project: Project, *arguments: str, status: int = 0, read: str = "", **env: str) -> Any:
    return json.loads(run(project, *arguments, "--json", status=status, read=read, **env).stdout)


def add(project: Project, name: str = "bob", *more: str) -> None:
    run(project, "add", name, "--runtime", "claude-code", *more)


def profile(project: Project, name: str = "bob") -> Path:
    return project.root / f".instar/agents/{name}.json"


def change(project: Project, **values: Any) -> None:
    place = profile(project)
    place.write_text(json.dumps({**json.loads(place.read_text()), **values}))


@pytest.fixture
def staged(project: Project, tmp_path: Path) -> Iterator[Project]:
    """Return a project whose Claude is a stand-in, and whose peers have a tmux server of their own."""
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    program = tmp_path / "bin/claude"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(STAND_IN)])} "$@"\n')
    program.chmod(0o755)
    project.env |= {
        "PATH": f"{program.parent}{os.pathsep}{project.env['PATH']}", "TMUX_TMPDIR": str(tmp_path),
        "STAND_IN": str(tmp_path / "stand-in"), "RECORDS": str(project.root / ".instar/state/sessions"),
    }  # fmt: skip
    yield project
    subprocess.run(["tmux", "-S", socket_of(project.env), "kill-server"], check=False, capture_output=True)


def sent(project: Project) -> list[str]:
    place = Path(project.env["STAND_IN"]) / "sent"
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


def test_a_fault_in_the_configuration_is_told_and_keeps_nobody_from_anything(project: Project) -> None:
    add(project)
    config = project.root / ".instar/config.json"
    config.write_text('{"lifecycle": {"idleMinutes": "an hour"}}')

    done = run(project, "list", "--json")

    assert [each["name"] for each in json.loads(done.stdout)] == ["bob"]
    assert done.stderr.startswith(".instar/config.json: key \"lifecycle.idleMinutes\": 'an hour' is not of type")
    assert done.stderr.count("\n") == 1


# Profiles.


def test_a_peer_is_added_listed_shown_and_removed(project: Project) -> None:
    work = project.root / "work"
    work.mkdir()
    done = run(project, "add", "bob", "--runtime", "claude-code", "--cwd", "work", "--prompt", "Be brief.", "--human")

    assert done.stdout == "bob is added: instar-peers send bob MESSAGE wakes it\n"
    shown = told(project, "show", "bob")
    assert (shown["profile"]["cwd"], shown["profile"]["initialPrompt"]) == (str(work), "Be brief.")
    assert shown["profile"]["human"]
    assert [each["state"] for each in shown["status"]] == ["asleep"]
    assert told(project, "list")[0]["identity"] == BOB
    assert say(project, "list").split("\t")[:3] == ["asleep", "bob", "claude-code"]
    assert "Be brief." in say(project, "show", "bob")

    assert say(project, "remove", "bob") == "bob is removed\n"
    assert told(project, "list") == []
    assert "there is no peer: instar-peers add" in run(project, "list").stderr


def test_what_is_added_is_in_the_folder_of_the_project_and_may_do_nothing_more_unless_it_is_said(
    project: Project,
) -> None:
    plain = told(project, "add", "bob", "--runtime", "codex-cli", "--runtime", "claude-code", "--runtime", "codex-cli")
    more = told(project, "add", "eve", "--runtime", "claude-code", "--trust-folder", "--bypass-permissions")

    assert plain["cwd"] == str(project.root)
    assert plain["runtimes"] == ["codex-cli", "claude-code"]
    assert [plain[key] for key in ("trustFolder", "bypassPermissions", "human")] == [False] * 3
    assert [more[key] for key in ("trustFolder", "bypassPermissions")] == [True] * 2


def test_a_program_that_is_missing_is_told(project: Project, tmp_path: Path) -> None:
    done = run(project, "add", "bob", "--runtime", "codex-cli", PATH=str(tmp_path))

    assert "codex is not on PATH: it cannot be woken before it is" in done.stderr


def test_the_first_prompt_is_read_from_standard_input(project: Project) -> None:
    run(project, "add", "bob", "--runtime", "claude-code", "--prompt", "-", read="Zwei Zeilen,\n$(touch x) größer\n")

    assert told(project, "show", "bob")["profile"]["initialPrompt"] == "Zwei Zeilen,\n$(touch x) größer"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "../up", "--runtime", "claude-code"), "is no name of a peer"),
        (("add", HOSTILE, "--runtime", "claude-code"), "is no name of a peer"),
        (("add", "bob", "--runtime", "claude-code"), "is there already"),
        (("add", "eve", "--runtime", "claude-code", "--prompt", HOSTILE), "the first prompt cannot be carried"),
        (("show", "nobody"), "nobody"),
        (("remove", "nobody"), "nobody"),
        (("show", "../up"), "is no name of a peer"),
        (("remove", HOSTILE), "is no name of a peer"),
        (("wake", "nobody"), "nobody"),
        (("wake", HOSTILE), "is no name of a peer"),
        (("wake", "bob", "--topic", "a\nb"), "topic"),
        (("wake", "bob", "--resume"), "attach-nothing-to-resume"),
        (("wake", "bob", "--runtime", "codex-cli"), "does not run in"),
        (("send", "bob", HOSTILE), "control character"),
        (("send", "bob", "x" * 100, "--topic", "t" * 201), "topic"),
        (("stop", "nobody"), "nobody"),
        (("start", "nobody"), "nobody"),
        (("new", "nobody"), "nobody"),
        (("refresh", "nobody"), "nobody"),
        (("attach", "nobody"), "nobody"),
        (("attach", "bob"), "attach-nothing-to-resume"),
        (("self-fresh",), "does not run below a peer"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    project: Project, arguments: tuple[str, ...], sentence: str
) -> None:
    add(project)

    assert sentence in refusal(project, *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "bob"), ("add", "bob", "--runtime", "vim"), ("add", "bob", "--runtime", "codex-cli", "--cwd", "no"),
        ("stop",), ("stop", "--all", "--runtime", "codex-cli"), ("logs", "--limit", "0"), ("send", "bob"),
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly_is_told_with_status_2(project: Project, arguments: tuple[str, ...]) -> None:
    assert "Error: " in refusal(project, *arguments, status=2)


@pytest.mark.parametrize("verb", ["wake", "stop", "start", "new", "refresh", "attach"])
def test_what_failed_is_an_object_for_programs_and_status_1(project: Project, verb: str) -> None:
    said = told(project, verb, "nobody", status=1)

    assert said["status"] == "FAILED"
    assert said["cause"]
    assert "nobody" in said["reason"]


def test_what_is_read_and_no_text_is_refused(project: Project) -> None:
    add(project)
    done = subprocess.run(
        [PROGRAM, "send", "bob", "-"], cwd=project.root, env=project.env, input=b"\xff\xfe", capture_output=True,
        check=False, timeout=DEADLINE_S,
    )  # fmt: skip

    assert done.returncode == 2
    assert b"what is read is no UTF-8" in done.stderr


# How a peer is.


def parked(project: Project) -> None:
    """Have a session be on record as one that was parked, with its conversation."""
    slug = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in str(project.root))
    place = project.root.parent / "projects" / slug / f"{ID}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat()
    base = {"sessionId": ID, "version": "2.1.197", "cwd": str(project.root), "isSidechain": False, "timestamp": now}
    said = (
        {"type": "user", "uuid": "1", "parentUuid": None, "message": {"role": "user", "content": "do it"}},
        {"type": "assistant", "uuid": "2", "parentUuid": "1", "requestId": "r1", "message": {
            "id": "m", "role": "assistant", "stop_reason": "end_turn", "content": [{"type": "text", "text": "Done."}],
            "usage": {"input_tokens": 30_000, "output_tokens": 12}}},
    )  # fmt: skip
    place.write_text("".join(json.dumps({**base, **row}) + "\n" for row in said))
    agent = {"pid": 2**22 + 1, "start": "5", "boot": "another"}
    record = {
        "id": ID, "status": "completed", "client": "claude-code", "cwd": str(project.root), "agent": agent,
        "transcriptPath": str(place), "identity": BOB, "startedAt": now, "endedAt": now,
        "parked": {"at": now, "by": "reaper", "reason": "reaped-idle"},
    }  # fmt: skip
    home = project.root / f".instar/state/sessions/{ID}.json"
    home.parent.mkdir(parents=True, exist_ok=True)
    home.write_text(json.dumps(record))
    markers = Marks(project.root).parks
    markers.write_intent(BOB, Park("p", ID, now, "reaper", "reaped-idle", "completed", agent))
    markers.promote(BOB)


def crashed(project: Project) -> None:
    for _ in range(3):
        Marks(project.root).record_death(BOB)


def is_managed(project: Project) -> None:
    place = Path(project.env["HOME"]) / ".config/systemd/user/instar-peer@bob.service"
    place.parent.mkdir(parents=True)
    place.touch()


@pytest.mark.parametrize(
    ("arrange", "state", "words"),
    [
        (lambda _: None, "asleep", "nothing to take up"),
        (lambda project: Marks(project.root).set_stopped(BOB), "stopped", "instar-peers start bob"),
        (crashed, "crashed", "3 times; next try in"),
        (parked, "parked", f"--resume {ID}"),
        (is_managed, "managed", "systemd runs it"),
        (lambda project: profile(project).write_text("{"), "broken", "cannot be used"),
    ],
)
def test_the_list_says_how_a_peer_is(
    project: Project, arrange: Callable[[Project], None], state: str, words: str
) -> None:
    add(project)
    arrange(project)

    line = say(project, "list").rstrip("\n").split("\t")
    assert (line[0], line[1]) == (state, "bob")
    assert words in line[-1]
    assert told(project, "list")[0]["state"] == state


def test_a_crash_is_told_to_programs_with_its_count_and_the_seconds_to_the_next_try(project: Project) -> None:
    add(project)
    crashed(project)
    (row,) = told(project, "list")

    assert row["deaths"] == 3
    assert 0 < row["nextTry"] <= 301
    assert "again in" in refusal(project, "wake", "bob")


def test_a_peer_that_others_manage_is_only_looked_at(project: Project) -> None:
    add(project)
    is_managed(project)

    for verb in ("wake", "stop", "start", "new", "refresh"):
        assert "systemd runs it" in refusal(project, verb, "bob")
    assert say(project, "remove", "bob") == "bob is removed\n"
    assert "it is only looked at: systemd runs it" in run(project, "add", "bob", "--runtime", "codex-cli").stderr


def test_a_profile_that_cannot_be_used_hides_no_other(project: Project) -> None:
    add(project)
    profile(project, "torn").write_text("[")
    (project.root / ".instar/agents" / f"{HOSTILE}.json").write_text("{}")

    assert sorted(line.split("\t")[0] for line in say(project, "list").splitlines()) == ["asleep", "broken", "broken"]
    assert "cannot be used" in refusal(project, "show", "torn")
    assert say(project, "remove", "torn") == "torn is removed\n"


def test_hostile_words_of_a_profile_do_not_reach_the_terminal(project: Project) -> None:
    add(project)
    folder = project.root / HOSTILE
    folder.mkdir()
    change(project, cwd=HOSTILE, initial_prompt=HOSTILE, launch={"args": [HOSTILE], "env": {"KEY": "secret"}})

    assert "owned" in say(project, "list")  # run() sees that nothing of it steers
    assert "owned" in say(project, "show", "bob")
    assert "secret" not in run(project, "show", "bob", "--json").stdout


# Wake, send, stop.


def test_a_message_wakes_a_peer_and_the_next_is_told_to_it(staged: Project) -> None:
    add(staged)
    first = "What's $(touch owned) `x`;\n'two' lines \u2603"

    woken = told(staged, "send", "bob", "-", read=first)
    assert (woken["status"], woken["woke"], woken["taskDelivered"]) == ("READY", True, True)
    assert sent(staged) == [first]
    assert say(staged, "list").split("\t")[0] == "alive"
    assert "has the message" in say(staged, "send", "bob", "And then?")
    assert sent(staged) == [first, "And then?"]
    assert not (staged.root / "owned").exists()

    done = run(staged, "wake", "bob", "--task", "More?")
    assert "lives already" in done.stdout
    assert "was not told its task: instar-peers send bob does that" in done.stderr
    assert len(sent(staged)) == 2
    assert "end it first, with instar-peers stop bob" in refusal(staged, "remove", "bob")

    command = say(staged, "attach", "bob").split()
    assert command[:3] == ["tmux", "-S", socket_of(staged.env)]
    assert told(staged, "attach", "bob")["command"] == shlex.split(" ".join(command))


@contextmanager
def terminal(project: Project, *command: str) -> Iterator[int]:
    """Run a command in a terminal of its own, inside a pane of another tmux; see that it ends well once let go."""
    above, below = pty.openpty()
    inside = {"TERM": "xterm", "TMUX": "/another/server,1,0"}
    child = subprocess.Popen(
        command, cwd=project.root, env={**project.env, **inside}, stdin=below, stdout=below, stderr=below,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - no other thread
    )  # fmt: skip
    os.close(below)
    try:
        yield above
        tmux(project, "detach-client", "-s", BOB)
        assert child.wait(DEADLINE_S) == 0
    finally:
        child.kill()
        os.close(above)


def tmux(project: Project, *command: str) -> str:
    return subprocess.check_output(["tmux", "-S", socket_of(project.env), *command], text=True, env=project.env)


def test_attach_shows_a_peer_in_the_terminal_it_is_called_from(staged: Project) -> None:
    add(staged)
    run(staged, "wake", "bob")

    with terminal(staged, PROGRAM, "attach", "bob") as shown:
        wait_until(lambda: b"Well." in os.read(shown, 1 << 16), "the screen of the peer is drawn")
        assert tmux(staged, "list-clients", "-F", "#{client_session}") == f"{BOB}\n"
    assert say(staged, "list").split("\t")[0] == "alive"


def test_a_terminal_that_shows_another_peer_goes_over(staged: Project) -> None:
    add(staged)
    run(staged, "wake", "bob")
    tmux(staged, "new-session", "-d", "-s", "other", "-c", str(staged.root), "sh")

    with terminal(staged, "tmux", "-S", socket_of(staged.env), "attach-session", "-t", "=other"):
        tmux(staged, "send-keys", "-t", "=other:", shlex.join([PROGRAM, "attach", "bob"]), "Enter")
        seen = partial(tmux, staged, "list-clients", "-F", "#{client_session}")
        wait_until(lambda: seen() == f"{BOB}\n", "it shows the peer", seen=seen)


def test_a_stopped_peer_is_left_asleep_until_it_is_started(staged: Project) -> None:
    add(staged)
    run(staged, "wake", "bob")

    assert "instar-peers start bob" in say(staged, "stop", "bob")
    assert say(staged, "list").split("\t")[0] == "stopped"
    assert "(stopped)" in refusal(staged, "send", "bob", "Well?")
    assert told(staged, "send", "bob", "Well?", status=1)["stopped"]
    assert say(staged, "start", "bob") == "bob may be woken again\n"
    assert say(staged, "start", "bob") == "bob was not stopped\n"
    assert say(staged, "list").split("\t")[0] == "parked"


def test_all_peers_are_stopped_at_once(project: Project) -> None:
    assert "there is no peer" in run(project, "stop", "--all").stderr
    for name in ("bob", "eve"):
        add(project, name)

    assert say(project, "stop", "--all") == "bob is stopped\neve is stopped\n"
    assert [each["state"] for each in told(project, "list")] == ["stopped"] * 2
    is_managed(project)
    done = run(project, "stop", "--all", status=1)
    assert done.stdout == "eve is stopped\n"
    assert "bob: systemd runs it" in done.stderr


def test_what_is_remembered_of_a_peer_goes_with_it(project: Project) -> None:
    add(project)
    run(project, "stop", "bob")
    run(project, "remove", "bob")
    add(project)

    assert say(project, "list").split("\t")[0] == "asleep"


def test_new_starts_a_peer_clean_whatever_it_is_at(staged: Project) -> None:
    add(staged)
    first = told(staged, "wake", "bob")
    said = told(staged, "new", "bob", "--task", "Begin.")

    assert (first["status"], said["status"], said["mode"], said["woke"]) == ("READY", "READY", "fresh", True)
    assert "Begin." in sent(staged)
    assert "starts with an empty context when it is woken next" in say(staged, "refresh", "bob")


def test_a_dialog_is_reported_and_nobody_answers_it(staged: Project) -> None:
    add(staged)
    change(staged, launch={"args": ["--trust"]})

    said = told(staged, "wake", "bob", status=1)
    assert (said["status"], said["dialog"]) == ("FAILED", "trust-folder")
    line = say(staged, "list").split("\t")
    assert (line[0], line[-1].split(":")[0]) == ("dialog", "trust-folder")
    assert sent(staged) == []


def test_a_peer_asks_for_a_clean_start_by_itself(staged: Project) -> None:
    add(staged)
    assert "no session that could ask" in refusal(staged, "self-fresh", INSTAR_PEER="bob")

    run(staged, "wake", "bob")
    assert say(staged, "self-fresh", INSTAR_PEER="bob") == "bob starts clean once its turn is over\n"


# The log and the supervisor.


def test_the_log_says_what_was_decided_and_why(project: Project) -> None:
    assert "nothing is on record" in run(project, "logs").stderr
    add(project)
    run(project, "wake", "bob", "--resume", status=1)
    EventLog(project.root, Clock()).write("wake", personality="eve", reason=HOSTILE)

    rows = told(project, "logs")
    assert [(each["ev"], each["personality"]) for each in rows] == [("wake", "bob"), ("wake", "eve")]
    assert rows[0]["cause"] == "attach-nothing-to-resume"
    assert rows[1]["reason"] == HOSTILE
    assert len(say(project, "logs", "--limit", "1").splitlines()) == 1


def test_the_log_is_followed_until_it_is_enough(project: Project) -> None:
    log = EventLog(project.root, Clock())
    log.write("first")
    with subprocess.Popen(
        [PROGRAM, "logs", "--follow", "--json"], cwd=project.root, env=project.env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ev"] == "first"
        log.write("second")
        assert json.loads(process.stdout.readline())["ev"] == "second"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0


def test_a_log_that_is_put_aside_is_followed_into_the_next(tmp_path: Path) -> None:
    log = EventLog(tmp_path, Clock())
    growing = Growing(log.path)
    assert list(growing.events()) == []
    log.write("one")
    assert [each["ev"] for each in growing.events()] == ["one"]
    log.write("two")
    log.path.rename(tmp_path / "aside")
    log.write("three")
    assert [each["ev"] for each in growing.events()] == ["two", "three"]
    assert list(growing.events()) == []
    growing.close()


def test_the_supervisor_looks_once_and_ends_whom_was_stopped(staged: Project) -> None:
    assert "there is no peer to look after" in run(staged, "supervise", "--once").stderr
    add(staged)
    run(staged, "wake", "bob")
    assert [each["action"] for each in told(staged, "supervise", "--once")] == ["alive"]

    Marks(staged.root).set_stopped(BOB)
    told(staged, "supervise", "--once")
    wait_until(lambda: say(staged, "list").startswith("stopped"), "it is ended")


def test_the_supervisor_goes_on_until_it_is_enough(project: Project) -> None:
    add(project)
    with subprocess.Popen(
        [PROGRAM, "supervise", "--json"], cwd=project.root, env=project.env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert [each["identity"] for each in json.loads(process.stdout.readline())] == [BOB]
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 0
