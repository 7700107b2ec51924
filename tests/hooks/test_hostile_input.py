"""Whatever is on standard input, in the state or on the disk: status 0, valid JSON, nothing lost, an open door."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from support import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def owned(project: Project) -> Project:
    """Return a project with a build that session "s" owns."""
    project.build("init", "a task", "--owner-session", "s")
    return project


STDIN = {
    "empty": b"",
    "not JSON": b"hello",
    "an array": b"[1]",
    "a null": b"null",
    "cut short": b'{"session_id":"s","last',
    "mistyped": b'{"session_id":["s"],"background_tasks":7,"session_crons":{"a":1}}',
    "not UTF-8": b'{"session_id":"t\xff\xfe"}',
    "UTF-16": '{"session_id":"s"}'.encode("utf-16"),
    "nested without end": b"[" * 100_000,
    "50 MB": b'{"session_id":"t","last_assistant_message":"' + b"x" * 50_000_000 + b'"}',
    "a lone surrogate": b'{"session_id":"\\ud800"}',
    "a huge number": b'{"session_id":' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("stdin", STDIN.values(), ids=STDIN.keys())
def test_an_event_that_names_no_owner_is_allowed_and_changes_nothing(owned: Project, stdin: bytes) -> None:
    before = owned.state_path.read_bytes()

    assert owned.stop(stdin=stdin).answer == {}
    assert owned.state_path.read_bytes() == before


def test_broken_text_beside_the_id_does_not_hide_the_owner(owned: Project) -> None:
    assert owned.stop(stdin=b'{"session_id":"s","last_assistant_message":"\xff"}').is_held


def test_a_large_last_message_does_not_hide_the_owner(owned: Project) -> None:
    assert owned.stop("s", last_assistant_message="x" * 3_000_000).is_held


@pytest.mark.parametrize("sent", [b"", b'{"session_id":"s"', b'{"session_id":"t"}'])
def test_standard_input_that_is_never_closed_is_answered(owned: Project, sent: bytes) -> None:
    with owned.start_hook() as hook:
        assert hook.stdin
        assert hook.stdout
        hook.stdin.write(sent)
        hook.stdin.flush()
        assert json.loads(hook.stdout.read()) == {}
        assert hook.wait() == 0


def test_an_owner_whose_standard_input_stays_open_is_held(owned: Project) -> None:
    with owned.start_hook() as hook:
        assert hook.stdin
        assert hook.stdout
        hook.stdin.write(b'{"session_id":"s"}\n')
        hook.stdin.flush()
        assert json.loads(hook.stdout.read())["decision"] == "block"


def test_closed_standard_streams_harm_nothing(owned: Project) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        before = owned.state_path.read_bytes()
        event = "" if "<" in closed else """printf '{"session_id":"s"}' |"""
        owned.run("/bin/sh", "-c", f"{event} .instar/hooks/instar/run build-stop-hook {closed}")
        assert json.loads(owned.state_path.read_bytes())["task"] == "a task"
        if "<" in closed:
            assert owned.state_path.read_bytes() == before


STATES = {
    "empty": b"",
    "cut short": b'{"phase": "exec',
    "an array": b"[]",
    "a null": b"null",
    "50 MB": b'{"owner": {"session": "s"}, "x": "' + b"x" * 50_000_000 + b'"}',
    "not UTF-8": b'{"owner": {"session": "s"}, "task": "\xff"}',
    "nested without end": b'{"a":' * 100_000,
    "a huge number": b'{"owner": {"session": "s"}, "reinforcementsUsed": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES.keys())
def test_a_state_that_cannot_be_used_lets_go_says_so_once_and_stays(owned: Project, state: bytes) -> None:
    owned.state_path.write_bytes(state)

    first, second = owned.stop("s").answer, owned.stop("s").answer

    assert "state_corrupt" in first["systemMessage"]
    assert str(owned.state_path) in first["systemMessage"] or "key" in first["systemMessage"]
    assert second == {}
    assert owned.state_path.read_bytes() == state
    assert "state_corrupt" in (owned.root / ".instar/logs/build-stop-hook.log").read_text()


KEYS = [
    "task", "phase", "size", "protection", "startedAt", "completedAt", "owner", "currentStep", "totalSteps", "steps",
    "totalTests", "allPassing", "fixIterations", "reinforcementsUsed", "worktree", "asked", "waitedFor", "archivedTo",
]  # fmt: skip
VALUES: list[Any] = [True, -1, 1.5, "text", [], [[]], {}, {"label": 7, "path": 7, "reinforcements": "7"}, "x" * 10_000]


@pytest.mark.parametrize("key", KEYS)
def test_a_mistyped_key_is_answered_and_kept(owned: Project, key: str) -> None:
    state = owned.state
    for value in VALUES:
        changed = {**state, key: value}
        owned.state_path.write_text(json.dumps(changed, indent=2))

        held = owned.stop("s", prompt_id="p").is_held

        after = owned.state
        if held and (key, isinstance(value, dict)) in (("asked", True), ("reinforcementsUsed", False)):
            continue  # answered, and counted
        assert after[key] == value or (key == "owner" and held)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("no right to mount a disk that can be filled")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def move_state_to(owned: Project, place: Path) -> None:
    build = owned.state_path.parent
    for file in build.iterdir():
        shutil.move(file, place)
    build.rmdir()
    build.symlink_to(place)


def test_a_full_disk_lets_go_and_says_so(owned: Project, tmpfs: Path) -> None:
    move_state_to(owned, tmpfs)
    subprocess.run(["dd", "if=/dev/zero", f"of={tmpfs}/filler"], check=False, capture_output=True)
    before = owned.state_path.read_bytes()

    assert "unwritable" in owned.stop("s").answer["systemMessage"]
    assert owned.state_path.read_bytes() == before
    assert [place.name for place in tmpfs.iterdir() if place.suffix == ".tmp"] == []
    refused = owned.build("transition", "executing")
    assert (refused["code"], refused["exit"]) == ("unwritable", 1)
    (tmpfs / "filler").unlink()
    assert owned.stop("s").is_held


def test_a_read_only_disk_lets_go_and_says_so(owned: Project, tmpfs: Path) -> None:
    move_state_to(owned, tmpfs)
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)

    assert "unwritable" in owned.stop("s").answer["systemMessage"]


def test_a_limit_on_file_sizes_is_a_full_disk(owned: Project) -> None:
    before = owned.state_path.read_bytes()
    limited = f"ulimit -f 0; trap '' XFSZ; exec {owned.root}/.instar/hooks/instar/run build-stop-hook"

    done = subprocess.run(
        ["/bin/bash", "-c", limited], input=b'{"session_id":"s"}', capture_output=True, check=True, env=owned.env
    )

    assert json.loads(done.stdout).get("decision") is None
    assert owned.state_path.read_bytes() == before


@pytest.mark.parametrize("what", ["folder", "fifo", "link", "dangling link"])
def test_a_state_that_is_no_file_is_left_alone(owned: Project, what: str, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    shutil.copy(owned.state_path, elsewhere)
    owned.state_path.unlink()
    if what == "folder":
        owned.state_path.mkdir()
    elif what == "fifo":
        os.mkfifo(owned.state_path)
    else:
        owned.state_path.symlink_to(elsewhere if what == "link" else tmp_path / "nothing")
    before = elsewhere.read_bytes()

    assert not owned.stop("s").is_held
    assert elsewhere.read_bytes() == before


def test_a_lock_that_is_held_lets_go_after_a_second_and_says_so(owned: Project) -> None:
    holder = subprocess.Popen(
        ["flock", str(owned.state_path.parent / ".lock"), "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        answer = owned.stop("s").answer
        stranger = owned.stop("t").answer
        holder.communicate(b"\n")

    assert "lock_timeout" in answer["systemMessage"]
    assert stranger == {}
    assert owned.used == 0


def test_the_same_trouble_is_told_again_after_an_hour(owned: Project) -> None:
    owned.state_path.write_bytes(b"")
    assert owned.stop("s").answer
    assert owned.stop("s").answer == {}
    (told,) = (owned.root / ".instar/logs").glob(".told-*")
    long_ago = time.time() - 3700
    os.utime(told, (long_ago, long_ago))

    assert owned.stop("s").answer


NAMES = ["with space", "quo'te", 'dou"ble', "dol$lar", "new\nline", "ünï", "semi;colon", "back`tick", "-dash", "(paren"]


@pytest.mark.parametrize("name", NAMES)
def test_any_project_path_works(tmp_path: Path, name: str) -> None:
    odd = Project.create(tmp_path / name)
    odd.build("init", "a task", "--owner-session", "s")

    for client in ("claude", "codex"):
        answer = odd.stop("s", client=client)
        assert answer.is_held
    (line,) = [each for each in answer.answer["reason"].replace(name, "NAME").splitlines() if each.endswith(" COMMAND")]
    said = odd.run("/bin/sh", "-c", line.replace("NAME", name).replace(" COMMAND", " status"), cwd=tmp_path)
    assert '"reinforcementsUsed": 2' in said.stdout
    assert not odd.stop("t").is_held
