"""The record of a session follows its life: start, prompt, clear, resume, fork, compact and end. No guess is in it."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stand_ins import Client, Tmux
    from support import Project

START, PROMPT, COMPACT, END = "SessionStart", "UserPromptSubmit", "PreCompact", "SessionEnd"


def running(project: Project) -> set[str]:
    """Return the sessions whose record says that they run."""
    places = (project.root / ".instar/state/sessions").glob("*.json")
    return {place.stem for place in places if json.loads(place.read_text())["status"] == "running"}


def fire(project: Project, stdin: bytes, name: str = START, **env: str) -> subprocess.CompletedProcess[bytes]:
    """Fire an event of a client that cannot be seen above it."""
    command = project.registered("claude", "session-event-hook", name)
    return subprocess.run(
        ["/bin/sh", "-c", command], input=stdin, capture_output=True, check=False, cwd=project.root,
        env={**project.env, **env}, timeout=30,
    )  # fmt: skip


def test_a_session_is_recorded_from_its_start_to_its_end(project: Project, start_client: Callable[..., Client]) -> None:
    client = start_client("claude")

    assert client.tell(START, "s", source="startup", transcript_path="/t.jsonl", model="m") == ""
    started = project.record("s")
    assert client.tell(PROMPT, "s", prompt="do it", prompt_id="p") == ""
    prompted = project.record("s")
    assert client.tell(START, "s", source="compact") == ""
    assert project.record("s")["source"] == "compact"
    assert client.tell(END, "s", reason="prompt_input_exit") == ""
    ended = project.record("s")

    assert started["agent"]["pid"] == client.process.pid
    assert {key: started[key] for key in ("id", "status", "client", "source", "transcriptPath", "model", "cwd")} == {
        "id": "s", "status": "running", "client": "claude-code", "source": "startup", "transcriptPath": "/t.jsonl",
        "model": "m", "cwd": str(project.root),
    }  # fmt: skip
    assert (prompted["lastPrompt"]["id"], prompted["lastPrompt"]["text"]) == ("p", "do it")
    assert (ended["status"], ended["endedReason"]) == ("completed", "prompt_input_exit")
    assert started["startedAt"] == ended["startedAt"] <= prompted["lastPrompt"]["at"] <= ended["endedAt"]
    assert [each["version"] for each in (started, prompted, ended)] == [1, 2, 4]


def test_a_record_is_for_its_owners_eyes_only(project: Project, start_client: Callable[..., Client]) -> None:
    start_client("claude").tell(START, "s", source="startup")

    assert (project.root / ".instar/state/sessions/s.json").stat().st_mode & 0o777 == 0o600


def test_a_codex_session_is_recorded_as_one(project: Project, start_client: Callable[..., Client]) -> None:
    client = start_client("codex")
    client.tell(START, "s", client="codex", source="startup")
    client.tell(COMPACT, "s", client="codex", trigger="manual")

    assert project.record("s")["client"] == "codex-cli"
    assert project.record("s")["lastEvent"]["name"] == COMPACT


def test_below_a_shared_daemon_neither_process_nor_pane_is_recorded(
    project: Project, start_client: Callable[..., Client], start_tmux: Callable[[str], Tmux]
) -> None:
    pane = start_tmux("main").pane("new-session", "-s", "work")
    start_client("codex", "app-server", **pane).tell(START, "s", client="codex", source="startup")

    assert not project.record("s").keys() & {"agent", "tmux"}


def test_after_clear_the_new_session_runs_and_the_old_one_is_over(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell(START, "old", source="startup")
    client.tell(END, "old", reason="clear")
    client.tell(START, "new", source="clear")

    assert running(project) == {"new"}
    assert project.record("old")["endedReason"] == "clear"


def test_a_process_has_one_running_session_also_when_no_end_was_told(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell(START, "old", source="startup")
    client.tell(START, "new", source="resume")

    assert running(project) == {"new"}
    assert project.record("old")["endedReason"] == "replaced"


def test_a_resumed_session_runs_again_in_its_new_process(project: Project, start_client: Callable[..., Client]) -> None:
    first, second = start_client("claude"), start_client("claude")
    first.tell(START, "s", source="startup")
    first.tell(END, "s", reason="other")
    first.end()
    second.tell(START, "s", source="resume")

    record = project.record("s")
    assert (record["status"], record["source"], record["agent"]["pid"]) == ("running", "resume", second.process.pid)
    assert not record.keys() & {"endedAt", "endedReason"}


def test_a_fork_that_starts_under_the_old_id_leaves_the_living_session_alone(
    project: Project, start_client: Callable[..., Client]
) -> None:
    original, fork = start_client("claude"), start_client("claude")
    original.tell(START, "old", source="startup")
    before = project.record("old")
    fork.tell(START, "old", source="resume")
    assert project.record("old") == before
    fork.tell(PROMPT, "new", prompt="x")
    fork.tell(END, "old", reason="other")

    assert running(project) == {"old", "new"}
    assert project.record("old") == before


def test_a_session_goes_on_when_a_second_process_of_it_has_ended(
    project: Project, start_client: Callable[..., Client]
) -> None:
    first, second = start_client("claude"), start_client("claude")
    first.tell(START, "s", source="startup")
    second.tell(START, "s", source="resume")
    second.tell(PROMPT, "s", prompt="x")
    second.tell(END, "s", reason="other")

    record = project.record("s")
    assert (record["status"], record["agent"]["pid"]) == ("running", first.process.pid)
    assert record["lastPrompt"]["text"] == "x"


def test_a_fork_in_place_is_told_as_one(project: Project, start_client: Callable[..., Client]) -> None:
    client = start_client("codex")
    client.tell(START, "old", client="codex", source="startup")
    client.tell(START, "new", client="codex", source="fork")

    assert project.record("new")["forkedFrom"] == "old"
    assert project.record("old")["endedReason"] == "forked"


def test_what_a_client_prompts_itself_with_is_no_prompt_and_no_answer(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.init("--owner-session", "owner")
    client.tell(PROMPT, "owner", prompt="go", prompt_id="p1")
    project.build("ask", "which?")
    assert not client.is_held("owner")
    client.tell(PROMPT, "owner", prompt="<task-notification>\n<task-id>1", prompt_id="p2")

    assert project.record("owner")["lastPrompt"]["id"] == "p1"
    assert project.state["asked"] == {**project.state["asked"], "prompt": "p2"}
    assert not project.stop("owner", prompt_id="p2").is_held


def test_a_fork_of_an_ended_session_is_told_as_one(project: Project, start_client: Callable[..., Client]) -> None:
    original, fork = start_client("claude"), start_client("claude")
    original.tell(START, "old", source="startup")
    original.end()
    fork.tell(START, "old", source="resume")
    fork.tell(PROMPT, "new", prompt="x")

    assert running(project) == {"new"}
    record = project.record("new")
    assert (record["source"], record["forkedFrom"]) == ("fork", "old")
    assert project.record("old")["endedReason"] == "forked"


def test_a_session_whose_process_is_gone_is_found_out_at_the_next_start(
    project: Project, start_client: Callable[..., Client]
) -> None:
    dead, alive, newcomer = (start_client("claude") for _ in range(3))
    dead.tell(START, "dead", source="startup")
    alive.tell(START, "alive", source="startup")
    dead.end()
    newcomer.tell(START, "new", source="startup")

    assert running(project) == {"alive", "new"}
    assert (project.record("dead")["status"], project.record("dead")["endedReason"]) == ("failed", "process gone")


def test_a_pane_is_of_one_running_session(
    project: Project, start_client: Callable[..., Client], start_tmux: Callable[[str], Tmux]
) -> None:
    server = start_tmux("main")
    pane = server.pane("new-session", "-s", "work")
    suspended, newcomer = start_client("claude", **pane), start_client("claude", **pane)
    suspended.tell(START, "old", source="startup")
    assert project.record("old")["tmux"] == {
        "session": "work", "server": int(server.ask("display-message", "-p", "#{pid}")), "pane": pane["TMUX_PANE"],
        "serverStart": project.record("old")["tmux"]["serverStart"], "socket": str(server.socket),
    }  # fmt: skip
    newcomer.tell(START, "new", source="startup")

    assert running(project) == {"old", "new"}
    assert "tmux" not in project.record("old")
    assert project.record("new")["tmux"]["pane"] == pane["TMUX_PANE"]


@pytest.mark.parametrize(
    ("session", "peer", "identity"),
    [("claude-code-bob", "bob", "claude-code-bob"), ("work", "bob", None), ("claude-code-bob", "eve", None)],
)
def test_a_peer_is_known_by_its_name_and_its_tmux_session(
    project: Project, start_client: Callable[..., Client], start_tmux: Callable[[str], Tmux], session: str, peer: str,
    identity: str | None,
) -> None:  # fmt: skip
    pane = start_tmux("main").pane("new-session", "-s", session)
    start_client("claude", **pane, INSTAR_PEER=peer).tell(START, "s", source="startup")

    assert project.record("s").get("identity") == identity


def test_all_conversations_of_a_process_are_of_its_peer(project: Project, start_client: Callable[..., Client]) -> None:
    client, other = start_client("claude"), start_client("claude")
    client.tell(START, "old", source="startup")
    place = project.root / ".instar/state/sessions/old.json"
    place.write_text(json.dumps({**project.record("old"), "identity": "claude-code-bob", "launchedBy": "instar"}))
    client.tell(END, "old", reason="clear")
    client.tell(START, "new", source="clear")
    other.tell(START, "another", source="startup")

    assert (project.record("new")["identity"], project.record("new")["launchedBy"]) == ("claude-code-bob", "instar")
    assert "identity" not in project.record("another")


def test_a_client_below_another_does_not_take_its_pane(
    project: Project, start_client: Callable[..., Client], start_tmux: Callable[[str], Tmux], tmp_path: Path
) -> None:
    pane = start_tmux("main").pane("new-session", "-s", "work")
    outer = start_client("claude", **pane)
    outer.tell(START, "outer", source="startup")
    (tmp_path / "bin/codex").symlink_to(os.path.realpath(tmp_path / "bin/claude"))
    (tmp_path / "inner").write_text(json.dumps({"session_id": "inner", "hook_event_name": START, "source": "startup"}))
    (tmp_path / "start").write_text(project.registered("codex", "session-event-hook", START))
    outer.run(f"{tmp_path}/bin/codex -c 'sh {tmp_path}/start <{tmp_path}/inner; true'")

    assert project.record("inner")["client"] == "codex-cli"
    assert "tmux" not in project.record("inner")
    assert project.record("outer")["tmux"]["pane"] == pane["TMUX_PANE"]


def test_ended_sessions_are_forgotten_after_the_configured_days(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    folder = project.root / ".instar/state/sessions"
    folder.mkdir(parents=True)
    for name, at in (("old", "2020-01-01"), ("unknown", "")):
        (folder / f"{name}.json").write_text(json.dumps({"status": "completed", "endedAt": at} if at else {"a": 1}))
    (project.root / ".instar/config.json").write_text('{"sessions": {"keepEndedDays": 100000}}')
    client.tell(START, "s", source="startup")
    assert project.record("old")
    (project.root / ".instar/config.json").unlink()
    client.tell(START, "s", source="startup")

    assert not project.record("old")
    assert project.record("unknown")


def test_keys_of_others_survive_and_nothing_else_in_the_folder_is_touched(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell(START, "s", source="startup")
    folder = project.root / ".instar/state/sessions"
    (folder / "s.json").write_text(json.dumps({**project.record("s"), "mine": {"by": "me"}}))
    (folder / "s.leases").mkdir()
    (folder / "notes.txt").write_text("mine")
    client.tell(PROMPT, "s", prompt="x")

    assert project.record("s")["mine"] == {"by": "me"}
    assert (folder / "s.leases").is_dir()
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_record_that_cannot_be_read_is_kept_as_a_copy(project: Project, start_client: Callable[..., Client]) -> None:
    folder = project.root / ".instar/state/sessions"
    folder.mkdir(parents=True)
    (folder / "s.json").write_text("{torn")
    start_client("claude").tell(START, "s", source="startup")

    (copy,) = folder.glob("s.json.corrupt-*")
    assert copy.read_text() == "{torn"
    assert project.record("s")["status"] == "running"


@pytest.mark.parametrize("session", ["", "../x", "a/b", ".hidden", "x" * 200, "a\nb", "é", None, 7])
def test_an_id_that_can_name_no_file_is_refused_with_a_trace(project: Project, session: Any) -> None:
    done = fire(project, json.dumps({"session_id": session, "hook_event_name": START}).encode())

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not list(project.root.glob(".instar/state/sessions/**/*.json"))
    assert "no_session" in (project.root / ".instar/logs/session-event-hook.log").read_text()


@pytest.mark.parametrize("stdin", [b"", b"null", b"[]", b"{", b"\xff\xfe", b'{"session_id":"s"}' * 2, b"[" * 100_000])
def test_broken_input_changes_nothing_and_says_nothing(project: Project, stdin: bytes) -> None:
    done = fire(project, stdin)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_without_a_client_above_it_the_session_is_recorded_without_one(project: Project) -> None:
    fire(project, b'{"session_id":"s","hook_event_name":"SessionStart","source":"startup"}')

    assert not project.record("s").keys() & {"client", "agent", "tmux"}
    assert project.record("s")["status"] == "running"


def test_the_end_of_a_session_that_was_never_recorded_makes_no_record(project: Project) -> None:
    fire(project, b'{"session_id":"s","hook_event_name":"SessionEnd"}', END)

    assert project.record("s") == {}


def test_what_cannot_be_written_leaves_a_trace_and_no_word(project: Project) -> None:
    (project.root / ".instar/state/sessions").write_text("in the way")
    done = fire(project, b'{"session_id":"s","hook_event_name":"SessionStart"}')

    assert (done.returncode, done.stdout) == (0, b"")
    assert "unwritable" in (project.root / ".instar/logs/session-event-hook.log").read_text()


def test_the_session_is_exported_to_the_shells_of_a_client_that_has_an_env_file(
    start_client: Callable[..., Client], tmp_path: Path
) -> None:
    env_file = tmp_path / "session-env.sh"
    env_file.write_text("export OTHER=1\n")
    client = start_client("claude", CLAUDE_ENV_FILE=str(env_file))
    for _ in range(2):
        client.tell(START, "s", source="startup")
    client.tell(PROMPT, "s", prompt="x")

    def told(**env: str) -> str:
        script = f'. {env_file}; echo "$INSTAR_SESSION_ID $OTHER"'
        return subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True).stdout

    assert env_file.read_text().count("INSTAR_SESSION_ID") == 1
    assert told() == "s 1\n"
    assert told(CLAUDE_CODE_SESSION_ID="forked") == "forked 1\n"


def test_the_session_that_was_exported_last_is_the_one_that_counts(
    start_client: Callable[..., Client], tmp_path: Path
) -> None:
    env_file = tmp_path / "session-env.sh"
    env_file.write_text("export OTHER=1")
    client = start_client("claude", CLAUDE_ENV_FILE=str(env_file))
    for session in ("a", "b", "a", "a"):
        client.tell(START, session, source="resume")

    told = subprocess.run(
        ["sh", "-c", f'. {env_file}; echo "$INSTAR_SESSION_ID $OTHER"'],
        env={},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told == "a 1\n"
    assert env_file.read_text().count("INSTAR_SESSION_ID") == 3


def test_a_prompt_ends_the_question_of_the_owner_and_of_nobody_else(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.init("--owner-session", "owner")
    project.build("ask", "which?")
    before = project.state_path.read_bytes()
    client.tell(PROMPT, "stranger", prompt="x")
    client.tell(START, "owner", source="resume")
    assert project.state_path.read_bytes() == before
    assert not client.is_held("owner")

    client.tell(PROMPT, "owner", prompt="that one")

    assert "asked" not in project.state
    assert client.is_held("owner")


def test_a_prompt_shows_where_the_owner_is_now(project: Project, start_client: Callable[..., Client]) -> None:
    first, second = start_client("claude"), start_client("claude")
    first.tell(START, "s", source="startup")
    first.run("CLAUDE_CODE_SESSION_ID=s .instar/state/python .instar/hooks/instar/build-state.py init 'a task'")
    assert project.state["owner"]["agent"]["pid"] == first.process.pid
    first.end()
    second.tell(START, "s", source="resume")
    second.tell(PROMPT, "s", prompt="go on")
    assert project.state["owner"]["agent"]["pid"] == second.process.pid
    second.tell(START, "cleared", source="clear")
    second.tell(PROMPT, "cleared", prompt="go on")

    assert project.state["owner"]["session"] == "cleared"
    assert second.is_held("cleared")


def test_the_doctors_events_are_not_recorded(project: Project) -> None:
    fire(project, b'{"session_id":"s","hook_event_name":"SessionStart"}', INSTAR_DOCTOR="1")

    assert not (project.root / ".instar/state/sessions").exists()


def test_events_of_many_sessions_at_once_lose_nothing(project: Project, start_client: Callable[..., Client]) -> None:
    clients = {f"s{number}": start_client("claude") for number in range(8)}
    command = project.registered("claude", "session-event-hook", START)
    for session, client in clients.items():
        event = json.dumps({"session_id": session, "hook_event_name": START, "source": "startup"})
        script = project.root.parent / f"{session}.sh"
        script.write_text(command)
        (project.root.parent / f"{session}.json").write_text(event)
        assert client.process.stdin
        client.process.stdin.write(f"sh {script} <{project.root.parent}/{session}.json; echo END\n")
        client.process.stdin.flush()
    for client in clients.values():
        assert client.process.stdout
        assert client.process.stdout.readline() == "END\n"

    assert running(project) == set(clients)
    assert {project.record(session)["agent"]["pid"] for session in clients} == {
        client.process.pid for client in clients.values()
    }


def rewrite(project: Project, session: str, **fields: Any) -> None:
    """Write a record as a program that ends sessions would."""
    place = project.root / f".instar/state/sessions/{session}.json"
    place.write_text(json.dumps({**project.record(session), **fields}))


def test_the_first_prompt_of_a_process_is_known_over_clear_and_resume_in_place(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell(START, "old", source="startup")
    client.tell(PROMPT, "old", prompt="<task-notification>\n")
    assert "firstPromptAt" not in project.record("old")
    client.tell(PROMPT, "old", prompt="one")
    first = project.record("old")["firstPromptAt"]
    client.tell(PROMPT, "old", prompt="two")
    client.tell(END, "old", reason="clear")
    client.tell(START, "new", source="clear")
    client.tell(PROMPT, "new", prompt="three")
    client.tell(START, "newest", source="resume")

    assert first <= project.record("old")["lastEvent"]["at"]
    assert {project.record(session)["firstPromptAt"] for session in ("old", "new", "newest")} == {first}


def test_another_process_of_a_session_has_its_own_first_prompt(
    project: Project, start_client: Callable[..., Client]
) -> None:
    first, second = start_client("claude"), start_client("claude")
    first.tell(START, "s", source="startup")
    first.tell(PROMPT, "s", prompt="one")
    before = project.record("s")["firstPromptAt"]
    first.end()
    second.tell(START, "s", source="resume")
    assert "firstPromptAt" not in project.record("s")
    second.tell(PROMPT, "s", prompt="two")

    assert project.record("s")["firstPromptAt"] > before


@pytest.mark.parametrize("name", [START, PROMPT])
def test_what_is_being_parked_and_is_used_runs_again(
    project: Project, start_client: Callable[..., Client], name: str
) -> None:
    client = start_client("claude")
    client.tell(START, "s", source="startup")
    rewrite(project, "s", status="reaping", reaping={"pid": 1}, parked={"by": "x"})
    client.tell(name, "s", prompt="go on", source="resume")

    assert project.record("s")["status"] == "running"
    assert not project.record("s").keys() & {"reaping", "parked"}


def test_what_is_being_parked_keeps_its_record_from_a_second_process(
    project: Project, start_client: Callable[..., Client]
) -> None:
    first, second = start_client("claude"), start_client("claude")
    first.tell(START, "s", source="startup")
    rewrite(project, "s", status="reaping")
    before = project.record("s")
    second.tell(START, "s", source="resume")
    assert project.record("s") == before
    first.end()
    second.tell(START, "other", source="startup")
    assert project.record("s") == before


def test_the_end_that_a_parking_brought_about_does_not_change_its_word(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell(START, "s", source="startup")
    rewrite(project, "s", status="killed", endedReason="manual-kill", endedAt="x", parked={"by": "operator"})
    client.tell(END, "s", reason="other")

    record = project.record("s")
    assert (record["status"], record["endedReason"], record["parked"]) == ("killed", "manual-kill", {"by": "operator"})


def test_what_is_parked_is_not_forgotten(project: Project, start_client: Callable[..., Client]) -> None:
    folder = project.root / ".instar/state/sessions"
    folder.mkdir(parents=True)
    record = {"status": "completed", "endedAt": "2020-01-01", "parked": {"by": "reaper"}}
    (folder / "old.json").write_text(json.dumps(record))
    start_client("claude").tell(START, "s", source="startup")

    assert project.record("old") == record
