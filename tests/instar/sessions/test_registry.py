"""instar-sessions tells what is on record, and believes no record that the process table disproves."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from instar.cli.listing import age, printable
from instar.errors import InstarError
from instar.projects import enlist, known, strike
from instar.sessions.machine.processes import liveness
from instar.sessions.registry import change, locked, sessions
from support import BIN, DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stand_ins import Client
    from support import Project


def ask(project: Project, *arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [str(BIN / "instar-sessions"), *arguments], cwd=project.root, env=project.env, capture_output=True, text=True,
        check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


def listed(project: Project, *arguments: str) -> dict[str, str]:
    """Return the states of the listed sessions."""
    return {session["id"]: session["state"] for session in json.loads(ask(project, "list", "--json", *arguments))}


def write(project: Project, session: str, record: object) -> None:
    place = project.root / f".instar/state/sessions/{session}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(record if isinstance(record, str) else json.dumps(record))


def test_a_living_session_is_listed_as_running_and_a_killed_one_as_gone(
    project: Project, start_client: Callable[..., Client]
) -> None:
    alive, killed = start_client("claude"), start_client("codex")
    alive.tell("SessionStart", "alive", source="startup")
    alive.tell("UserPromptSubmit", "alive", prompt="mend it")
    killed.tell("SessionStart", "killed", client="codex", source="startup")
    killed.end()

    assert listed(project) == {"alive": "running"}
    assert listed(project, "--ended") == {"alive": "running", "killed": "gone"}
    (line,) = ask(project, "list").splitlines()
    assert line.split("\t")[1:3] == ["alive", "claude-code"]
    assert line.endswith("mend it")


@pytest.mark.parametrize("agent", [None, 7, {}, {"pid": "1"}, {"pid": 1}, {"pid": 1, "start": None}])
def test_a_session_without_a_whole_stamp_is_neither_running_nor_gone(project: Project, agent: Any) -> None:
    write(project, "s", {"status": "running", "agent": agent})

    assert listed(project) == {"s": "unproven"}


def test_a_process_of_another_start_or_another_boot_is_another_process(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell("SessionStart", "s", source="startup")
    agent = project.record("s")["agent"]

    assert liveness(agent) == "alive"
    assert liveness({**agent, "start": str(int(agent["start"]) + 100)}) == "dead"
    assert liveness({**agent, "boot": "another"}) == "dead"
    assert liveness({**agent, "start": "no date"}) == "unknown"
    client.end()
    assert liveness(agent) == "dead"


def test_a_record_that_cannot_be_read_hides_no_other(project: Project) -> None:
    write(project, "torn", "{")
    write(project, "list", "[]")
    write(project, "good", {"status": "running"})

    assert listed(project) == {"torn": "unreadable", "list": "unreadable", "good": "unproven"}


def test_without_a_session_that_is_said_and_nothing_is_made(project: Project) -> None:
    assert ask(project, "list") == ""
    assert json.loads(ask(project, "list", "--json")) == []
    assert not (project.root / ".instar/state/sessions").exists()


def test_the_beginning_of_an_id_is_enough_where_it_is_the_only_one(project: Project) -> None:
    write(project, "abc1", {"status": "running", "tmux": {"pane": "%1", "session": "x"}})
    write(project, "abc2", {"status": "running"})
    write(project, "abc", {"status": "completed"})

    assert json.loads(ask(project, "show", "abc1", "--json"))["tmux"]["pane"] == "%1"
    assert "pane %1" in ask(project, "show", "abc1")
    assert json.loads(ask(project, "show", "abc", "--json"))["state"] == "completed"
    assert "say more of the id" in ask(project, "show", "ab", status=1)
    assert "no session" in ask(project, "show", "x", status=1)


def test_words_of_others_steer_no_terminal(project: Project) -> None:
    write(project, "s", {"status": "running", "lastPrompt": {"text": "\x1b[2J[red]a\nb\tc"}})
    (line,) = ask(project, "list").splitlines()

    assert line.endswith("[2J[red]a b c")
    assert "\x1b" not in ask(project, "show", "s")


def test_a_terminal_gets_a_table(project: Project) -> None:
    write(project, "s", {"status": "running", "client": "claude-code"})
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [str(BIN / "instar-sessions"), "list"], cwd=project.root, env={**project.env, "TERM": "xterm"}, stdout=theirs
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 4096):
                said += chunk
        except OSError:  # how a terminal ends on Linux
            pass
        assert process.wait(DEADLINE_S) == 0
    os.close(ours)

    assert b"idle for" in said
    assert b"unknown" in said


def test_every_project_that_was_set_up_is_known(project: Project, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    other = type(project).create(tmp_path / "other dir é")
    env = {"INSTAR_SHARED_ROOT": str(shared)}
    for each in (project, other):
        each.env.update(env)
        each.run(str(BIN / "instar-migrate"))
        write(each, f"of-{each.root.name[:5]}", {"status": "running"})

    assert known(env) == sorted([project.root, other.root])
    assert listed(project, "--all").keys() == {"of-proje", "of-other"}
    assert str(other.root) in ask(project, "list", "--all")
    other.run(str(BIN / "instar-migrate"), "--uninstall")
    assert known(env) == [project.root]


def test_a_project_that_is_gone_is_no_more_known(tmp_path: Path) -> None:
    env = {"INSTAR_SHARED_ROOT": str(tmp_path / "shared")}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        enlist(tmp_path / name, env)
        enlist(tmp_path / name, env)
    (tmp_path / "b").rmdir()

    assert known(env) == [tmp_path / "a"]
    strike(tmp_path / "a", env)
    strike(tmp_path / "a", env)
    assert known(env) == []


def test_all_projects_and_one_project_exclude_each_other(project: Project) -> None:
    assert "--all lists every project" in ask(project, "list", "--all", "--project", ".", status=2)


@pytest.mark.parametrize(
    ("moment", "told"),
    [("", "-"), ("x", "-"), ("2026-01-01T00:00:00", "-"), ("2026-01-01T00:00:00+00:00", "1 d"),
     ("2026-01-01T23:59:00+00:00", "1 min"), ("2026-01-02T00:00:00+00:00", "0 s"),
     ("2027-01-01T00:00:00+00:00", "0 s")],
)  # fmt: skip
def test_an_age_is_told_in_its_largest_unit(moment: str, told: str) -> None:
    from datetime import datetime, timezone

    assert age(moment, datetime(2026, 1, 2, tzinfo=timezone.utc)) == told


def test_a_text_is_one_printable_line() -> None:
    assert printable(" a\x00\nb\u202ec ") == "a  b c"


def test_a_change_counts_and_keeps_what_it_does_not_know(project: Project) -> None:
    write(project, "s", {"status": "running", "version": 4, "mine": {"kept": 1}})

    after = change(project.root, "s", lambda record: {**record, "status": "reaping"})
    assert after == project.record("s") == {"status": "reaping", "version": 5, "mine": {"kept": 1}}
    assert [each.state for each in sessions(project.root)] == ["reaping"]
    assert change(project.root, "s", lambda _record: None) is None
    assert project.record("s") == after
    assert (project.root / ".instar/state/sessions/s.json").stat().st_mode & 0o777 == 0o600


def test_a_session_that_was_killed_is_over(project: Project) -> None:
    write(project, "s", {"status": "killed", "parked": {"by": "operator"}})

    (found,) = sessions(project.root)
    assert (found.state, found.is_over, found.as_json()["parked"]) == ("killed", True, {"by": "operator"})


def test_a_record_that_cannot_be_changed_stays_as_it_is(project: Project) -> None:
    write(project, "torn", "{")

    for session in ("torn", "nobody"):
        with pytest.raises(InstarError, match="missing, or holds no record"):
            change(project.root, session, lambda record: record)
    write(project, "s", {"status": "running"})
    with locked(project.root), pytest.raises(InstarError, match="locked by another"):
        change(project.root, "s", lambda record: record, seconds=0.01)
    with pytest.raises(ZeroDivisionError):
        change(project.root, "s", lambda _record: {"a": 1 // 0})
    assert project.record("s") == {"status": "running"}
    assert (project.root / ".instar/state/sessions/torn.json").read_text() == "{"


def test_a_change_and_the_events_of_a_client_lose_nothing_of_each_other(
    project: Project, start_client: Callable[..., Client]
) -> None:
    client = start_client("claude")
    client.tell("SessionStart", "s", source="startup")
    for number in range(5):
        with locked(project.root):
            pass
        change(project.root, "s", lambda record, number=number: {**record, f"mine{number}": number})  # type: ignore[misc]
        client.tell("UserPromptSubmit", "s", prompt=str(number))

    record = project.record("s")
    assert (record["version"], record["lastPrompt"]["text"]) == (11, "4")
    assert [record[f"mine{number}"] for number in range(5)] == [0, 1, 2, 3, 4]


def test_what_killed_writers_left_of_a_record_is_swept(project: Project) -> None:
    write(project, "s", {"status": "running"})
    folder = project.root / ".instar/state/sessions"
    for name in (".s.json.x7", ".s.json.1.tmp", ".s2.json.x7"):
        (folder / name).touch()
    change(project.root, "s", lambda record: {**record, "a": 1})

    assert {path.name for path in folder.iterdir()} == {".lock", "s.json", ".s2.json.x7"}
