"""A lease leaves a session alone as long as it says, or as its owner lives, and for a day if it says nothing."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from instar.errors import InstarError
from instar.sessions.clock import iso
from instar.sessions.leases import LONGEST_S, Lease, active, release, take

if TYPE_CHECKING:
    from pathlib import Path

NOW = 1_800_000_000.0


def lay(root: Path, kind: str, content: str | bytes | dict[str, Any], changed: float = NOW) -> Path:
    path = root / ".instar/state/sessions/one.leases" / kind
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content) if isinstance(content, dict) else content
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (changed, changed))
    return path


def kinds(root: Path, now: float = NOW) -> list[str]:
    return [lease.kind for lease in active(root, "one", now)]


@pytest.fixture
def dead_pid() -> int:
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def test_a_session_without_leases_has_none(tmp_path: Path) -> None:
    assert active(tmp_path, "one", NOW) == []


def test_one_that_was_taken_holds_until_its_time_and_not_then(tmp_path: Path) -> None:
    take(tmp_path, "one", Lease("recovery", "compacting", NOW + 60), NOW)

    assert active(tmp_path, "one", NOW + 59.9) == [Lease("recovery", "compacting", NOW + 60)]
    assert active(tmp_path, "one", NOW + 60) == []
    assert active(tmp_path, "two", NOW) == []


def test_taking_one_again_replaces_it_and_giving_it_back_ends_it(tmp_path: Path) -> None:
    take(tmp_path, "one", Lease("relay", "", NOW + 60), NOW)
    take(tmp_path, "one", Lease("relay", "", NOW + 5), NOW)

    assert kinds(tmp_path, NOW + 10) == []
    assert release(tmp_path, "one", "relay")
    assert not release(tmp_path, "one", "relay")
    assert not release(tmp_path, "one", "../one")


@pytest.mark.parametrize("kind", ["", "Relay", "../x", ".hidden", "a b", "x" * 33, "9"])
def test_a_kind_that_could_not_name_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InstarError, match="no kind of lease"):
        take(tmp_path, "one", Lease(kind, "", NOW + 1), NOW)


@pytest.mark.parametrize("until", [None, NOW, NOW - 1, NOW + LONGEST_S + 1])
def test_a_time_that_is_none_or_for_ever_is_refused(tmp_path: Path, until: float | None) -> None:
    with pytest.raises(InstarError, match="at most"):
        take(tmp_path, "one", Lease("relay", "", until), NOW)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", b"\xff", {}, {"expiresAt": "soon"}, {"pid": "1"}])
def test_one_that_cannot_be_read_holds_for_a_day_and_says_that_it_is_not_sure(
    tmp_path: Path, content: str | bytes | dict[str, Any]
) -> None:
    lay(tmp_path, "relay", content)

    assert [lease.is_sure for lease in active(tmp_path, "one", NOW + 86_000)] == [False]
    assert kinds(tmp_path, NOW + 87_000) == []


def test_what_would_block_a_reader_holds_too(tmp_path: Path) -> None:
    path = lay(tmp_path, "relay", "")
    path.unlink()
    os.mkfifo(path)
    os.utime(path, (NOW, NOW))

    assert kinds(tmp_path) == ["relay"]


def test_one_of_a_process_holds_as_long_as_that_lives(tmp_path: Path, dead_pid: int) -> None:
    lay(tmp_path, "living", {"pid": os.getpid()})
    lay(tmp_path, "dead", {"pid": dead_pid})
    lay(tmp_path, "dead-in-time", {"pid": dead_pid, "expiresAt": iso(NOW + 60)})
    lay(tmp_path, "living-too-late", {"pid": os.getpid(), "expiresAt": iso(NOW - 60)})
    lay(tmp_path, "another-by-now", {"pid": os.getpid(), "start": "1", "boot": "another"})

    assert kinds(tmp_path) == ["living"]


def test_temporary_and_foreign_files_are_no_leases(tmp_path: Path) -> None:
    lay(tmp_path, ".relay.x.tmp", {"expiresAt": iso(NOW + 60)})
    lay(tmp_path, "README.txt", {"expiresAt": iso(NOW + 60)})

    assert kinds(tmp_path) == []
