"""instar-sessions shows sessions and why each is kept, changes what a person says, and refuses in one sentence."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from filelock import FileLock

from clients.waiting import wait_until
from instar.sessions.classifier import GATES
from instar.sessions.reaper.audit import Audit
from instar.sessions.reaper.reaper import LOCK
from instar.sessions.reaper.switch import PATH as SWITCH
from instar.sessions.reaper.switch import Switch
from stand_ins import BASH
from support import BIN, DEADLINE_S, executable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stand_ins import Client, Tmux
    from support import Project

HOSTILE = "\x1b]0;owned\x07[red]a\nb\tc"
PROGRAM = str(BIN / "instar-sessions")
MIB = 2**20


def run(project: Project, *arguments: str, status: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=project.root, env={**project.env, **env}, capture_output=True, text=True,
        check=False, timeout=DEADLINE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == status, done
    assert "Traceback" not in done.stderr
    return done


def say(project: Project, *arguments: str, **env: str) -> str:
    return run(project, *arguments, **env).stdout


def refusal(project: Project, *arguments: str, status: int = 1, **env: str) -> str:
    """Return the one sentence in which a command refuses."""
    done = run(project, *arguments, status=status, **env)
    assert done.stdout == ""
    assert status == 2 or done.stderr.count("\n") == 1
    return done.stderr


def told(project: Project, *arguments: str, status: int = 0, **env: str) -> Any:
    return json.loads(run(project, *arguments, "--json", status=status, **env).stdout)


def write(project: Project, session: str, **record: Any) -> Path:
    place = project.root / f".instar/state/sessions/{session}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps({"status": "running", **record}))
    return place


def configure(project: Project, text: str) -> None:
    (project.root / ".instar/config.json").write_text(text)


def ago(**span: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(**span)).isoformat()


def transcript(project: Project, session: str, *rows: dict[str, Any]) -> Path:
    """Write a conversation of one turn that is over, where Claude would."""
    slug = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in str(project.root))
    place = project.root.parent / "projects" / slug / f"{session}.jsonl"
    place.parent.mkdir(parents=True, exist_ok=True)
    base = {"sessionId": session, "version": "2.1.197", "cwd": str(project.root), "isSidechain": False}
    said = rows or (
        {"type": "user", "uuid": "1", "parentUuid": None, "timestamp": ago(hours=3),
         "message": {"role": "user", "content": "do it"}},
        {"type": "assistant", "uuid": "2", "parentUuid": "1", "timestamp": ago(hours=2), "requestId": "r1",
         "message": {"id": "m", "role": "assistant", "stop_reason": "end_turn", "content": [
             {"type": "text", "text": "Done."}], "usage": {"input_tokens": 30, "output_tokens": 12}}},
    )  # fmt: skip
    place.write_text("".join(json.dumps({**base, **row}) + "\n" for row in said))
    return place


@pytest.fixture
def client(project: Project, start_client: Callable[..., Client]) -> Client:
    """Return a process that is on record as session `session-s`, without a pane."""
    made = start_client("claude")
    path = str(transcript(project, "session-s"))
    made.tell("SessionStart", "session-s", source="startup", transcript_path=path)
    return made


@pytest.fixture
def stranger(project: Project, tmp_path: Path) -> Iterator[int]:
    """Return the process of a client that no hook has stamped, and that is below no other client."""
    program = tmp_path / "bin" / "claude"
    program.parent.mkdir()
    program.symlink_to(BASH)
    shell = f"'{program}' -c 'while :; do sleep 600; done' >/dev/null 2>&1 & echo $!"
    pid = int(project.run("sh", "-c", shell).stdout)
    client = psutil.Process(pid)
    yield pid
    client.suspend()  # it starts nothing more
    for each in (*client.children(), client):
        each.kill()


@contextmanager
def on_a_terminal(project: Project, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a command on a terminal of its own until the end of the block."""
    ours, theirs = pty.openpty()
    environ = {**project.env, "TERM": "xterm", "COLUMNS": "200", "LINES": "40"}
    with subprocess.Popen(
        [PROGRAM, *arguments], cwd=project.root, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            os.close(ours)


class Screen:
    """What was written to a terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.said = b""
        os.set_blocking(fd, False)

    def shows(self, text: bytes, count: int = 1) -> bool:
        with suppress(OSError):  # nothing yet, or how a terminal ends on Linux
            self.said += os.read(self.fd, 65536)
        return self.said.count(text) >= count


# What is shown


def test_a_session_is_listed_with_what_it_does_and_what_keeps_it(project: Project, client: Client) -> None:
    client.tell("UserPromptSubmit", "session-s", prompt="mend it")
    (line,) = say(project, "list").splitlines()
    doing, session, name, pane, idle, memory, why, prompt = line.split("\t")

    assert (doing, session, name, pane, idle, prompt) == ("idle", "session-", "claude-code", "-", "2 h", "mend it")
    assert memory.endswith(" MiB")
    assert why.startswith("spawn-grace: its process is ")
    (row,) = told(project, "list")
    assert (row["id"], row["state"], row["doing"], row["keptBy"]) == ("session-s", "running", "idle", "spawn-grace")
    assert row["memory"] > MIB
    assert 7100 < row["idleS"] < 7400
    assert (row["verdict"], row["confidence"], row["resume"]) == ("keep", "high", None)


def test_the_pane_of_a_session_is_told(
    project: Project, start_client: Callable[..., Client], start_tmux: Callable[[str], Tmux]
) -> None:
    pane = start_tmux("one").pane("new-session", "-s", "work")
    start_client("claude", **pane).tell("SessionStart", "s", source="startup")

    assert f"work {pane['TMUX_PANE']}" in say(project, "list").split("\t")


def test_a_client_that_is_not_on_record_is_seen_and_marked(project: Project, stranger: int) -> None:
    (row,) = told(project, "list")
    assert (row["id"], row["state"], row["keptBy"]) == (f"claude-{stranger}", "unrecorded", "unmanaged")
    assert f"claude-{stranger}, not on record\t" in say(project, "list")

    assert "not on record" in say(project, "explain", f"claude-{stranger}")
    assert f"claude-{stranger} is not on record" in refusal(project, "kill", f"claude-{stranger}")
    assert "not on record" in refusal(project, "lease", f"claude-{stranger}", "ci", "--for", "1h")
    assert "no session" in refusal(project, "explain", f"claude-{stranger}0")


def test_what_is_parked_is_listed_with_the_way_back_and_what_has_ended_is_not(project: Project) -> None:
    parked = {"at": ago(hours=2), "by": "reaper", "reason": "reaped-idle", "resume": None}
    write(project, "parked-one", client="claude-code", cwd=str(project.root), status="completed", parked=parked)
    write(project, "ended-one", status="completed", endedAt=ago(days=3), endedReason="prompt_input_exit")

    (line,) = say(project, "list").splitlines()
    assert line.startswith("parked\tparked-o\tclaude-code\t")
    assert "reaped-idle 2 h ago: instar-sessions resume parked-o" in line
    assert told(project, "list")[0]["resume"] == f"cd {project.root} && claude --resume parked-one"
    both = say(project, "list", "--ended")
    assert "completed\tended-on" in both
    assert "prompt_input_exit 3 d ago" in both


def test_a_project_with_a_broken_configuration_is_listed_by_its_records(project: Project) -> None:
    write(project, "s")
    configure(project, "{")
    done = run(project, "list")

    assert done.stdout.startswith("unproven\ts\t")
    assert "this is from the records alone" in done.stderr


def test_every_gate_is_explained_in_order_and_the_first_that_keeps_decides(project: Project, client: Client) -> None:
    client.tell("UserPromptSubmit", "session-s", prompt="mend it")
    whole = told(project, "explain", "session-s")

    assert [each["gate"] for each in whole["gates"]] == [gate.name for gate in GATES]
    keeping = [each for each in whole["gates"] if each["keeps"]]
    assert [each["gate"] for each in whole["gates"] if each["decides"]] == [keeping[0]["gate"]] == ["spawn-grace"]
    assert (whole["keptBy"], whole["verdict"]) == ("spawn-grace", "keep")
    assert {"recent-user-message", "frame-unreadable"} <= {each["keptBy"] for each in keeping}
    *lines, last = say(project, "explain", "session").splitlines()
    assert [line.split("\t")[1] for line in lines] == [gate.name for gate in GATES]
    assert [line.split("\t")[0] for line in lines].count("decides") == 1
    assert last.startswith("session-: it is kept by spawn-grace: its process is ")


def test_what_has_ended_is_not_explained(project: Project) -> None:
    write(project, "s", status="completed")

    assert "has ended" in refusal(project, "explain", "s")
    assert "no session" in refusal(project, "explain", "x")


def test_words_of_others_steer_no_terminal_whoever_tells_them(project: Project, client: Client) -> None:
    client.tell("UserPromptSubmit", "session-s", prompt=HOSTILE)
    say(project, "lease", "session-s", "ci", "--for", "1h", "--note", HOSTILE)
    Audit(project.root).event(HOSTILE, None, why=HOSTILE)
    configure(project, '{"monitoring": {"sessionReaper": {"minAgeMinutes": 0}}}')
    Switch(project.root).auto_disable(HOSTILE, now=1.0)

    for command in (["list"], ["show", "session-s"], ["explain", "session-s"], ["reaper", "audit"],
                    ["reaper", "status"], ["reaper", "enable"], ["resume", "session-s", "--print"]):  # fmt: skip
        done = run(project, *command)
        assert "\x1b" not in done.stdout + done.stderr
        assert "\x07" not in done.stdout + done.stderr
    refused = refusal(project, "terminate", "session-s", "--reason", "x")
    assert "lease:ci" in refused
    assert "\x1b" not in refused


def test_a_list_is_watched_until_q(project: Project, client: Client) -> None:
    client.tell("UserPromptSubmit", "session-s", prompt=HOSTILE)
    with on_a_terminal(project, "list", "--watch", "--every", "0.2") as (process, ours):
        screen = Screen(ours)
        wait_until(lambda: screen.shows(b"session-", 3), "the session is shown again and again")
        os.write(ours, b"x")
        os.write(ours, b"q")
        wait_until(lambda: screen.shows(b"\x1b[?1049l") and process.poll() is not None, "the terminal is given back")
    assert process.returncode == 0
    assert b"spawn-grace" in screen.said
    assert b"\x1b]0;" not in screen.said


def test_a_list_is_watched_until_it_is_interrupted(project: Project, client: Client) -> None:
    with on_a_terminal(project, "list", "--watch") as (process, ours):
        screen = Screen(ours)
        wait_until(lambda: screen.shows(b"session-"), "the session is shown")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: screen.shows(b"\x1b[?1049l") and process.poll() is not None, "the terminal is given back")
    assert process.returncode == 0
    assert client.process.poll() is None


def test_a_watch_asks_for_a_terminal(project: Project) -> None:
    assert "needs a terminal" in refusal(project, "list", "--watch")
    assert "without --json" in refusal(project, "list", "--watch", "--json", status=2)
    assert "--every belongs to --watch" in refusal(project, "list", "--every", "3", status=2)
    assert "0.2" in refusal(project, "list", "--watch", "--every", "0", status=2)


# What is changed


def test_a_lease_keeps_a_session_until_it_is_given_back(project: Project, client: Client) -> None:
    configure(project, '{"monitoring": {"sessionReaper": {"minAgeMinutes": 0}}}')
    taken = told(project, "lease", "session", "deploy", "--for", "2h", "--note", "till it is out")

    assert (taken["sessionId"], taken["kind"], taken["note"]) == ("session-s", "deploy", "till it is out")
    (row,) = told(project, "list")
    assert (row["keptBy"], row["why"]) == ("lease:deploy", "a lease holds: till it is out")
    (held,) = told(project, "show", "session")["leases"]
    assert taken == {"sessionId": "session-s", **held}
    assert "deploy until 20" in say(project, "show", "session")
    assert say(project, "release", "session", "deploy") == "session-: lease:deploy is given back\n"
    assert say(project, "release", "session", "deploy") == "session-: there was no lease:deploy\n"
    assert told(project, "release", "session", "deploy") == {
        "sessionId": "session-s", "kind": "deploy", "released": False,
    }  # fmt: skip
    assert told(project, "list")[0]["keptBy"] != "lease:deploy"
    assert "is not parked until 20" in say(project, "lease", "session", "deploy", "--for", "2h")
    assert client.process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["s", "ci"], 2, "--for"),
        (["s", "ci", "--for", "soon"], 2, "no time like"),
        (["s", "ci", "--for", "8d"], 1, "7 days at most"),
        (["s", "ci", "--for", "0s"], 1, "more than no time"),
        (["s", "../x", "--for", "1h"], 1, "no kind of lease"),
        (["s", "CI", "--for", "1h"], 1, "no kind of lease"),
        (["over", "ci", "--for", "1h"], 1, "has ended"),
        (["x", "ci", "--for", "1h"], 1, "no session"),
    ],
)
def test_a_lease_that_cannot_be_is_refused(project: Project, arguments: list[str], status: int, words: str) -> None:
    write(project, "s")
    write(project, "over", status="completed")

    assert words in refusal(project, "lease", *arguments, status=status)
    assert not list((project.root / ".instar/state/sessions").glob("*.leases"))


def test_a_session_that_may_work_is_not_terminated_and_the_gate_is_named(project: Project, client: Client) -> None:
    refused = refusal(project, "terminate", "session-s", "--reason", "no longer wanted")
    assert "session-s is kept by " in refused
    assert "instar-sessions explain session-" in refused
    result = told(project, "terminate", "session-s", "--reason", "no longer wanted", status=1)
    assert (result["terminated"], result["sessionId"]) == (False, "session-s")
    assert result["skipped"] in refused
    assert client.process.poll() is None
    assert project.record("session-s")["status"] == "running"


def test_to_terminate_asks_for_a_reason(project: Project) -> None:
    write(project, "s", status="completed")

    assert "--reason" in refusal(project, "terminate", "s", status=2)
    assert "needs a reason" in refusal(project, "terminate", "s", "--reason", " ", status=2)
    assert "no session" in refusal(project, "terminate", "x", "--reason", "y")
    assert say(project, "terminate", "s", "--reason", "y") == "s has ended already\n"
    assert told(project, "terminate", "s", "--reason", "y")["skipped"] == "already-completed"


def test_a_killed_session_is_told_with_what_it_freed_and_the_way_back(project: Project, client: Client) -> None:
    said = say(project, "kill", "session-s").splitlines()

    assert client.process.wait(DEADLINE_S)
    assert said[0].startswith("session- is killed, ")
    assert said[0].endswith(" MiB freed")
    assert said[1] == f"to take it up again: cd {project.root} && claude --resume session-s"
    assert project.record("session-s")["status"] == "killed"
    assert say(project, "kill", "session-s") == "session- has ended already\n"


def test_a_killed_session_is_told_to_programs(project: Project, client: Client) -> None:
    result = told(project, "kill", "session-s")

    assert client.process.wait(DEADLINE_S)
    assert (result["terminated"], result["skipped"]) == (True, None)
    assert result["freed"] > MIB
    assert result["resume"].endswith("claude --resume session-s")


def test_a_protected_session_is_killed_by_force_alone(project: Project, client: Client) -> None:
    configure(project, '{"sessions": {"protected": ["session-*"]}}')

    assert "--force ends it" in refusal(project, "kill", "session-s")
    assert client.process.poll() is None
    say(project, "kill", "session-s", "--force")
    assert client.process.wait(DEADLINE_S)


def test_a_session_does_not_end_itself(client: Client) -> None:
    said = client.run(f"{PROGRAM} kill session-s 2>&1; echo $?")

    assert "runs within that session" in said
    assert said.split()[-1] == "1"
    assert client.process.poll() is None


# The way back


@pytest.fixture
def fake_claude(project: Project, tmp_path: Path) -> str:
    """Return a PATH on which `claude` tells how it was called."""
    executable(tmp_path / "programs/claude", '#!/bin/sh\necho "$PWD" "$@"\nexit 7\n')
    write(project, "session-s", status="completed", client="claude-code", cwd=str(project.root / ".instar"),
          transcriptPath=str(transcript(project, "session-s")))  # fmt: skip
    return f"{tmp_path / 'programs'}:{project.env['PATH']}"


def test_a_session_is_taken_up_in_its_folder_by_its_own_client(project: Project, fake_claude: str) -> None:
    done = run(project, "resume", "session", status=7, PATH=fake_claude)

    assert done.stdout == f"{project.root} --resume session-s\n"


def test_the_way_back_is_only_told_where_that_is_asked(project: Project, fake_claude: str) -> None:
    text = f"cd {project.root} && claude --resume session-s"

    assert say(project, "resume", "session-s", "--print", PATH=fake_claude) == f"{text}\n"
    assert told(project, "resume", "session-s", PATH=fake_claude) == {
        "sessionId": "session-s", "state": "completed", "argv": ["claude", "--resume", "session-s"],
        "cwd": str(project.root), "text": text,
    }  # fmt: skip


def test_a_session_that_lives_is_not_taken_up_a_second_time(project: Project, client: Client) -> None:
    assert f"runs, process {client.process.pid}" in refusal(project, "resume", "session-s")
    done = run(project, "resume", "session-s", "--print")
    assert done.stdout.endswith("claude --resume session-s\n")
    assert "runs" in done.stderr
    write(project, "unknown", client="claude-code", cwd=str(project.root),
          transcriptPath=str(transcript(project, "unknown")))  # fmt: skip
    assert "may still run" in refusal(project, "resume", "unknown")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"client": "other"}, "its client is not known"),
        ({"transcriptPath": "/nowhere/s.jsonl"}, ""),
        ({"cwd": None}, ""),
    ],
)
def test_what_cannot_come_back_is_refused(project: Project, record: dict[str, Any], words: str) -> None:
    base = {"client": "claude-code", "cwd": str(project.root), "transcriptPath": str(transcript(project, "s"))}
    write(project, "s", status="completed", **{**base, **record})

    for more in ([], ["--print"], ["--json"]):
        assert f"s cannot be taken up again: {words}" in refusal(project, "resume", "s", *more)


def test_a_client_that_is_not_installed_is_named(project: Project, fake_claude: str, tmp_path: Path) -> None:
    assert fake_claude
    assert "claude is not on PATH" in refusal(project, "resume", "session-s", PATH=str(tmp_path))


# Tokens


def test_tokens_are_counted_by_session_and_in_all(project: Project) -> None:
    for session in ("s", "t"):
        write(project, session, client="claude-code", transcriptPath=str(transcript(project, session)))
    write(project, "u")

    whole = told(project, "tokens")
    assert {each["sessionId"]: each["tokens"] for each in whole["sessions"]} == {"s": 42, "t": 42}
    assert whole["totals"] == {"tokens": 84, "eventCount": 2}
    assert all(each["known"] for each in whole["sessions"])
    assert [line.split("\t")[:4] for line in say(project, "tokens").splitlines()] == [
        ["42", "1", "s", "claude-code"], ["42", "1", "t", "claude-code"], ["84", "2", "all", "-"],
    ]  # fmt: skip
    assert told(project, "tokens", "s")["totals"]["tokens"] == 42
    assert told(project, "tokens", "s", "--since", "1h")["totals"]["tokens"] == 0
    assert "no session" in refusal(project, "tokens", "x")
    assert "is no time" in refusal(project, "tokens", "--since", "x", status=2)


# The reaper


def switch(project: Project) -> dict[str, Any]:
    return dict(json.loads((project.root / SWITCH).read_bytes()))


def test_the_reaper_is_off_until_it_is_enabled_and_again_when_it_is_disabled(project: Project) -> None:
    assert say(project, "reaper", "status").startswith("mode\toff: ")
    assert "the reaper is off" in refusal(project, "reaper", "tick")
    done = run(project, "reaper", "enable")
    assert done.stdout == "dry-run: what would be parked is told, and nobody is (was off)\n"
    assert "no server runs" in done.stderr
    assert switch(project)["mode"] == "dry-run"
    assert "because of\tset " in say(project, "reaper", "status")
    assert told(project, "reaper", "status")["mode"] == "dry-run"
    assert told(project, "reaper", "disable") == {"mode": "off", "prior": "dry-run", "reason": "", "cleared": None}
    assert say(project, "reaper", "disable") == "off: no session is looked at\n"


def test_a_look_judges_every_session_and_counts(project: Project, client: Client) -> None:
    run(project, "reaper", "enable")
    done = run(project, "reaper", "tick")

    assert done.stdout.splitlines()[0].startswith("kept\tsession-\t0 s\t0\t")
    assert done.stdout.splitlines()[-1].startswith("dry-run: 1 session seen; pressure ")
    again = told(project, "reaper", "tick")
    assert (again["outcome"], again["ended"]) == ("done", [])
    assert [each["keptBy"] for each in again["sessions"]] == ["spawn-grace"]
    report = told(project, "reaper", "report")
    assert (report["totals"]["ticks"], report["totals"]["looks"]) == (2, 2)
    assert "looks at a session\t2" in say(project, "reaper", "report")
    (decision,) = told(project, "reaper", "audit")
    assert (decision["event"], decision["keptBy"]) == ("decision", "spawn-grace")
    assert say(project, "reaper", "audit").startswith("decision\t20")
    assert client.process.poll() is None


def test_a_look_without_doing_changes_nothing_and_needs_no_reaper_that_is_on(project: Project, client: Client) -> None:
    state = project.root / ".instar/state"
    before = sorted(str(each) for each in state.rglob("*"))
    plan = told(project, "reaper", "tick", "--dry-run")

    assert (plan["mode"], plan["due"]) == ("off", [])
    assert [(each["sessionId"], each["keptBy"], each["due"]) for each in plan["sessions"]] == [
        ("session-s", "spawn-grace", False)
    ]
    assert "nobody would be parked now" in say(project, "reaper", "tick", "--dry-run")
    assert sorted(str(each) for each in state.rglob("*")) == before
    assert client.process.poll() is None


def test_of_two_reapers_the_second_says_so(project: Project) -> None:
    run(project, "reaper", "enable")
    with FileLock(project.root / LOCK):
        assert "another process is at it" in refusal(project, "reaper", "tick")


def test_a_look_that_fails_says_why(project: Project) -> None:
    run(project, "reaper", "enable")
    (project.root / LOCK).mkdir(exist_ok=True)

    assert "the look failed: " in refusal(project, "reaper", "tick")


def test_live_is_refused_while_a_false_one_is_on_record(project: Project) -> None:
    Audit(project.root).event("worked-after", None, sessionId="s", idleMs=60_000)

    refused = refusal(project, "reaper", "enable", "--live")
    assert "1 session that it would have parked was at work again" in refused
    assert "--force REASON" in refused
    assert not (project.root / SWITCH).exists()
    assert "it should not park yet" in say(project, "reaper", "report")
    forced = told(project, "reaper", "enable", "--live", "--force", "I saw it")
    assert (forced["mode"], forced["forced"], forced["reason"]) == ("live", True, "forced: I saw it")
    assert (switch(project)["mode"], switch(project)["reason"]) == ("live", "forced: I saw it")


def test_live_is_refused_while_the_configuration_has_a_fault(project: Project) -> None:
    configure(project, '{"monitoring": {"sessionReaper": {"minAgeMinutes": "soon"}}}')

    assert "minAgeMinutes" in refusal(project, "reaper", "enable", "--live")
    done = run(project, "reaper", "enable", "--live", "--force", "I saw it")
    assert "nobody is parked before the faults" in done.stderr
    assert "nobody is parked before the faults" in say(project, "reaper", "status")
    configure(project, "{")
    assert "config.json" in refusal(project, "reaper", "enable")
    assert "trouble\t" in say(project, "reaper", "status")
    assert "off: " in say(project, "reaper", "disable"), "off is always to be had"


@pytest.mark.parametrize("options", [["--force", "x"], ["--live", "--force", " "]])
def test_force_is_a_reason_for_live(project: Project, options: list[str]) -> None:
    assert "--force" in refusal(project, "reaper", "enable", *options, status=2)
    assert not (project.root / SWITCH).exists()


def test_that_it_stopped_itself_is_shown_and_forgotten_when_it_is_enabled(project: Project) -> None:
    run(project, "reaper", "enable", "--live")
    Switch(project.root).auto_disable("a session lived on", now=time.time())

    assert "stopped itself\ta session lived on; " in say(project, "reaper", "status")
    status = told(project, "reaper", "status")
    assert (status["autoDisabled"], status["mode"]) == (True, "dry-run")
    run(project, "reaper", "disable")
    assert "autoDisabled" in switch(project)
    done = run(project, "reaper", "enable", "--live")
    assert "it had stopped itself, and goes on: a session lived on" in done.stdout
    assert "autoDisabled" not in switch(project)
    assert told(project, "reaper", "audit")[-1]["event"] == "auto-disable-cleared"


def test_a_switch_that_cannot_be_read_is_told_and_written_anew(project: Project) -> None:
    (project.root / SWITCH).write_text("{")

    assert "trouble\t" in say(project, "reaper", "status")
    run(project, "reaper", "enable")
    assert switch(project)["mode"] == "dry-run"


@pytest.mark.parametrize("limit", ["0", "1001", "x"])
def test_the_audit_has_its_limits(project: Project, limit: str) -> None:
    assert limit in refusal(project, "reaper", "audit", "--limit", limit, status=2)


def test_the_newest_rows_of_the_audit_are_told(project: Project) -> None:
    assert "nothing is on record" in run(project, "reaper", "audit").stderr
    assert told(project, "reaper", "audit") == []
    for number in range(5):
        Audit(project.root).event(f"event-{number}")

    assert [each["event"] for each in told(project, "reaper", "audit", "--limit", "2")] == ["event-3", "event-4"]
    assert len(say(project, "reaper", "audit").splitlines()) == 5


def test_status_stands_on_a_terminal_as_tables(project: Project, client: Client) -> None:
    run(project, "reaper", "enable")
    run(project, "reaper", "tick")
    with on_a_terminal(project, "reaper", "status") as (process, ours):
        screen = Screen(ours)
        wait_until(lambda: screen.shows(b"verdict") and process.poll() is not None, "the tables")
    assert b"dry-run" in screen.said
    assert client.process.poll() is None


@pytest.mark.parametrize(
    "command", [["list"], ["show", "s"], ["explain", "s"], ["lease", "s", "ci", "--for", "1h"], ["release", "s", "ci"],
                ["terminate", "s", "--reason", "x"], ["kill", "s"], ["resume", "s"], ["tokens"], ["reaper", "status"],
                ["reaper", "tick"], ["reaper", "audit"], ["reaper", "enable"], ["reaper", "disable"],
                ["reaper", "report"], ["reaper", "selftest"]],
    ids=" ".join,
)  # fmt: skip
def test_no_command_takes_the_home_for_a_project(project: Project, command: list[str]) -> None:
    home = project.env["HOME"]

    assert f"{home} is no project" in refusal(project, *command, "--project", home)
