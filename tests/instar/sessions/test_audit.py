"""What the reaper did is on record: one row each, whole, of a bounded size, and nothing that is nobody's business."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instar.sessions.reaper import rows
from instar.sessions.reaper.audit import DECISIONS, ENDS, EVENTS, FOLDER, Audit
from instar.sessions.registry import Session
from instar.sessions.verdict import ALL_CLEAR, Verdict

NOW = 1_790_000_000.0
STAMP = "2026-09-21T14:13:20.000Z"
KEPT = Verdict("turn-open", "its turn is open")


class Project:
    """A project, and its audit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.audit = Audit(root, lambda: NOW)
        record = {"tmux": {"session": "work"}, "cwd": "/secret/place", "lastPrompt": {"id": "1", "text": "a secret"}}
        self.session = Session(root, "abc-1", "running", record)

    def path(self, name: str) -> Path:
        return self.root / FOLDER / name

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path(name).read_text().splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_an_event_is_one_row(project: Project) -> None:
    assert project.audit.event("reap-pending", project.session, tier="critical", idleMs=5)
    assert project.audit.event("tick-overrun", why="too\nlong")

    first, second = project.rows(EVENTS)
    assert first == {
        "ts": STAMP, "kind": "session-reaper", "event": "reap-pending", "session": "work", "sessionId": "abc-1",
        "tmuxSession": "work", "tier": "critical", "idleMs": 5,
    }  # fmt: skip
    assert second == {"ts": STAMP, "kind": "session-reaper", "event": "tick-overrun", "why": "too\nlong"}
    assert "secret" not in project.path(EVENTS).read_text()
    assert stat.S_IMODE(project.path(EVENTS).stat().st_mode) == 0o600


def test_a_decision_is_told_when_it_is_another(project: Project) -> None:
    decided = None
    for verdict in (KEPT, KEPT, Verdict("turn-open", "still"), Verdict("lease:me", ""), Verdict(ALL_CLEAR, ""), KEPT):
        decided = project.audit.decision(project.session, verdict, decided, "normal")

    told = project.rows(DECISIONS)
    assert [row["keptBy"] for row in told] == ["turn-open", "lease:me", "all-clear", "turn-open"]
    assert [row["verdict"] for row in told] == ["keep", "keep", "reap-eligible", "keep"]
    assert told[0]["inputs"] == {"why": "its turn is open"}
    assert decided == ("keep", "turn-open")


def test_a_decision_that_went_through_a_file_is_the_same(project: Project) -> None:
    decided = project.audit.decision(project.session, KEPT, None, "normal")

    project.audit.decision(project.session, KEPT, json.loads(json.dumps(decided)), "normal")

    assert len(project.rows(DECISIONS)) == 1


def test_ends_are_told_and_refusals_when_they_are_others(project: Project) -> None:
    def skipped(by: str, session_id: str = "abc-1") -> dict[str, Any]:
        told = {"type": "skipped", "sessionId": session_id, "reason": "reaped-idle", "origin": "reaper"}
        return {**told, "skipped": by, "why": "no /secret/place"}

    for told in (skipped("turn-open"), skipped("other", "x"), skipped("turn-open"), skipped("modal-open")):
        assert project.audit.reap(told)
    assert Audit(project.root).reap(skipped("modal-open"))  # as another process would
    project.audit.reap({"type": "reaped", "sessionId": "abc-1", "reason": "reaped-idle", "freed": 5, "cwd": "/secret"})
    project.audit.reap({"type": "reaped", "sessionId": "abc-1", "reason": "reaped-idle", "freed": 5})
    project.audit.reap(skipped("modal-open"))

    told_rows = [(row["type"], row["sessionId"], row.get("skipped")) for row in project.rows(ENDS)]
    assert told_rows == [
        ("skipped", "abc-1", "turn-open"), ("skipped", "x", "other"), ("skipped", "abc-1", "modal-open"),
        ("reaped", "abc-1", None), ("reaped", "abc-1", None), ("skipped", "abc-1", "modal-open"),
    ]  # fmt: skip
    assert "secret" not in project.path(ENDS).read_text()


def test_what_cannot_be_written_is_counted_and_no_error(project: Project) -> None:
    (project.root / ".instar").write_text("no folder")

    assert not project.audit.event("reaped", project.session)
    assert project.audit.decision(project.session, KEPT, None, "normal") == ("keep", "turn-open")
    assert project.audit.lost == 2
    assert project.audit.recent() == []


def test_a_link_in_the_place_of_a_log_is_not_followed(project: Project) -> None:
    target = project.root / "precious"
    target.write_text("x")
    project.path(EVENTS).parent.mkdir(parents=True)
    project.path(EVENTS).symlink_to(target)

    assert not project.audit.event("reaped", project.session)
    assert target.read_text() == "x"


@pytest.mark.parametrize(("limit", "count"), [(None, 200), (5, 5), (0, 1), (-3, 1), (10_000, 1000)])
def test_the_newest_rows_are_told_oldest_first(tmp_path: Path, limit: int | None, count: int) -> None:
    moments = iter(range(2000))
    audit = Audit(tmp_path, lambda: NOW + next(moments))
    session = Session(tmp_path, "s", "running", {})
    for number in range(800):
        audit.event("e", None, number=2 * number)
        audit.decision(session, Verdict(f"gate-{number}", ""), None, "normal")

    told = audit.recent(limit)

    assert len(told) == count
    assert [row["ts"] for row in told] == sorted(row["ts"] for row in told)
    assert told[-1]["keptBy"] == "gate-799"


def test_a_torn_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows.append(path, {"n": 1})
    with path.open("a") as file:
        file.write('{"n": 2, "to')
    assert rows.tail(path, 10) == [{"n": 1}]

    rows.append(path, {"n": 3})

    assert rows.tail(path, 10) == [{"n": 1}, {"n": 3}]


def test_no_more_than_the_end_of_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(100):
        rows.append(path, {"n": number})
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 3)

    assert rows.tail(path, 1000, 50) == [{"n": 95}, {"n": 96}, {"n": 97}, {"n": 98}]
    assert rows.tail(path, 2) == [{"n": 97}, {"n": 98}]
    assert rows.tail(path, 0) == []
    assert rows.tail(tmp_path / "missing", 5) == []


def test_a_huge_file_with_holes_is_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as file:
        file.truncate(2**31)
        file.seek(0, os.SEEK_END)
        file.write(b'\n{"n": 1}\n')

    assert rows.tail(path, 10) == [{"n": 1}]


def test_a_full_file_becomes_the_one_backup(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for number in range(100):
        rows.append(path, {"n": number}, 200)

    assert sorted(each.name for each in tmp_path.iterdir() if not each.name.startswith(".")) == [
        "rows.jsonl",
        "rows.jsonl.1",
    ]
    assert path.stat().st_size <= 200
    assert rows.backup(path).stat().st_size <= 200
    kept = [row["n"] for row in rows.tail(path, 1000)]
    assert kept == list(range(100 - len(kept), 100))
    assert len(kept) > 20


WRITER = """
import sys
from pathlib import Path
from instar.sessions.reaper import rows

sys.stdin.readline()
for number in range(200):
    rows.append(Path(sys.argv[1]), {"by": sys.argv[2], "n": number, "text": "x" * 100}, 40_000)
"""


def test_processes_that_write_at_once_lose_and_tear_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(number)], stdin=subprocess.PIPE, text=True, env=env
        )
        for number in range(4)
    ]
    for each in writers:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in writers:
        each.communicate(timeout=60)
        assert each.returncode == 0

    lines = [line for file in (rows.backup(path), path) for line in file.read_text().splitlines()]
    written = [json.loads(line) for line in lines if line]
    for writer in "0123":
        numbers = [row["n"] for row in written if row["by"] == writer]
        assert numbers == list(range(200))[-len(numbers) :] if numbers else True
    assert path.stat().st_size <= 40_000
