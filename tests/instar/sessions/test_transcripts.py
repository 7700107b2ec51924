"""A transcript is told to have stayed as it was, to have grown, or to be unknown; and nothing can make a look wait."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.sessions.clock import epoch
from instar.sessions.transcripts import planned
from instar.sessions.transcripts.probe import (
    HEAD,
    Probe,
    Unresolved,
    belongs,
    children_at,
    delta,
    probe,
    scheduled,
)
from instar.sessions.transcripts.turns import turn
from tests.instar.sessions.recorded import STATES, recorded

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND_NS = 10**9
LINE = b'{"type":"user","timestamp":"2026-11-21T05:00:00.000Z","sessionId":"one"}\n'
WEEK_S = 7 * 86_400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "one.jsonl"
    place.write_bytes(LINE * 5)
    return place


def change(path: Path, content: bytes, seconds: int = 1) -> None:
    """Write a file in place, with a time of change so many seconds after the one it had."""
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
    os.utime(path, ns=(0, before + seconds * SECOND_NS))


def swap(path: Path, content: bytes) -> None:
    """Put another file in the place of one."""
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(0, path.stat().st_mtime_ns + SECOND_NS))
    other.replace(path)


CHANGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "nothing": ("static", lambda _path: None),
    "a whole record more": ("grew", lambda path: change(path, LINE * 6)),
    "a record more at the same time": ("grew", lambda path: change(path, LINE * 6, seconds=0)),
    "a beginning of a record": ("grew", lambda path: change(path, LINE * 5 + b"{")),
    "saved as it was": ("touched", lambda path: change(path, LINE * 5)),
    "shorter": ("unknown", lambda path: change(path, LINE * 4)),
    "torn": ("unknown", lambda path: change(path, (LINE * 5)[:-1])),
    "empty": ("unknown", lambda path: change(path, b"")),
    "another file, the same bytes": ("unknown", lambda path: swap(path, LINE * 5)),
    "another file that is longer": ("unknown", lambda path: swap(path, LINE * 6)),
    "another beginning": ("unknown", lambda path: change(path, LINE.replace(b"user", b"USER") + LINE * 5)),
    "another last record": ("unknown", lambda path: change(path, LINE * 4 + LINE.replace(b"user", b"USER"))),
    "an earlier time": ("unknown", lambda path: change(path, LINE * 5, seconds=-1)),
    "an earlier time, and longer": ("unknown", lambda path: change(path, LINE * 6, seconds=-1)),
    "gone": ("unknown", lambda path: path.unlink()),
    "a folder": ("unknown", lambda path: (path.unlink(), path.mkdir())[0]),
}


def look(path: Path) -> Probe | None:
    try:
        return probe(path)
    except Unresolved:
        return None


class TestDelta:
    @pytest.mark.parametrize(("expected", "act"), CHANGES.values(), ids=CHANGES)
    def test_tells_what_happened(self, path: Path, expected: str, act: Callable[[Path], None]) -> None:
        before = look(path)

        act(path)

        found, why = delta(before, look(path))
        assert found == expected
        assert why
        assert str(path) not in why

    def test_is_unknown_for_another_path(self, path: Path) -> None:
        before = probe(path)
        assert delta(before, replace(before, path="elsewhere"))[0] == "unknown"

    def test_is_unknown_where_either_look_failed(self, path: Path) -> None:
        assert {delta(None, probe(path))[0], delta(probe(path), None)[0], delta(None, None)[0]} == {"unknown"}

    def test_is_unknown_for_a_link_that_leads_elsewhere(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.jsonl"
        shutil.copy2(path, other)
        link = tmp_path / "link.jsonl"
        link.symlink_to(path)
        before = probe(link)
        link.unlink()
        link.symlink_to(other)
        assert delta(before, probe(link))[0] == "unknown"

    def test_lets_a_short_file_grow_past_its_head(self, path: Path) -> None:
        path.write_bytes(LINE)
        before = probe(path)
        assert before.size < HEAD
        change(path, LINE * 6)
        assert delta(before, probe(path))[0] == "grew"

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.binary(max_size=40), min_size=1, max_size=6), st.integers(0, 3))
    def test_follows_what_is_appended(self, tmp_path: Path, parts: list[bytes], seconds: int) -> None:
        path = tmp_path / "grown.jsonl"
        path.write_bytes(LINE)
        content = LINE
        before = probe(path)
        for part in parts:
            content += part
            change(path, content, seconds)
            now = probe(path)
            assert delta(before, now)[0] == ("grew" if part else "touched" if seconds else "static")
            assert delta(now, now)[0] == "static"
            assert Probe.from_json(json.loads(json.dumps(now.as_json()))) == now
            assert (delta(now, before)[0] == "static") == (now == before)
            before = now


class TestAProbe:
    def test_tells_the_newest_time_of_the_end(self, path: Path) -> None:
        untimed = b'{"type":"mode"}\n'
        path.write_bytes(LINE + LINE.replace(b"05:00", b"07:00") + LINE.replace(b"05:00", b"06:00") + untimed)
        assert probe(path).last_at == epoch("2026-11-21T07:00:00Z")

    def test_tells_no_time_where_there_is_none(self, path: Path) -> None:
        path.write_bytes(b'{"type":"mode"}\nnot json\n')
        assert probe(path).last_at is None

    def test_tells_the_last_whole_record_of_a_torn_file(self, path: Path) -> None:
        whole = probe(path)
        path.write_bytes(LINE * 5 + b'{"type":')
        torn = probe(path)
        assert (torn.last, torn.is_whole, whole.is_whole) == (whole.last, False, True)

    def test_holds_a_record_of_five_megabytes(self, path: Path) -> None:
        big = json.dumps({"timestamp": "2026-11-21T06:00:00Z", "text": "x" * 5_000_000}).encode() + b"\n"
        path.write_bytes(LINE + big)
        found = probe(path)
        assert (found.is_whole, found.last_at) == (True, epoch("2026-11-21T06:00:00Z"))

    @pytest.mark.parametrize(
        "value",
        [None, [], {}, "x", {"path": "x"}],
    )
    def test_is_not_made_of_what_is_none(self, value: object) -> None:
        assert Probe.from_json(value) is None

    @pytest.mark.parametrize(
        ("key", "value"),
        [("size", "1"), ("size", True), ("size", None), ("last_at", "x"), ("is_whole", 1), ("path", 1), ("more", 1)],
    )
    def test_is_not_made_of_wrong_values(self, path: Path, key: str, value: object) -> None:
        assert Probe.from_json({**probe(path).as_json(), key: value}) is None


class TestWhateverLiesThere:
    """No look waits, reads without end, or reads what is another's."""

    @pytest.fixture(params=["probe", "turn", "belongs", "scheduled"])
    def told(self, request: pytest.FixtureRequest) -> Callable[[Path], str]:
        """Return what has a look at a path say that it cannot tell."""

        def tell(path: Path) -> str:
            if request.param == "turn":
                found = turn("claude-code", path)
                return found.why if found.state == "unknown" else ""
            if request.param == "belongs":
                return "unknown" if belongs("claude-code", path, "one") is None else ""
            act: Callable[[Path], Any] = probe
            if request.param == "scheduled":
                act = lambda place: scheduled("claude-code", place, None, 0.0)  # noqa: E731
            with pytest.raises(Unresolved) as caught:
                act(path)
            return str(caught.value)

        return tell

    def test_a_fifo(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        assert told(tmp_path / "fifo")

    def test_a_folder(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        assert told(tmp_path)

    def test_a_device(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "device").symlink_to("/dev/zero")
        assert told(tmp_path / "device")

    def test_a_link_to_itself(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert told(tmp_path / "loop")

    def test_a_name_that_cannot_be(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        assert told(tmp_path / "a\0b")
        assert told(tmp_path / ("x" * 5000))

    def test_two_gigabytes_of_nothing(self, told: Callable[[Path], str], tmp_path: Path) -> None:
        path = tmp_path / "sparse.jsonl"
        with path.open("wb") as file:
            file.truncate(2 << 30)
        assert told(path)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
    def test_a_file_of_another(self, told: Callable[[Path], str], path: Path) -> None:
        os.chown(path, 12345, -1)
        assert told(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
    def test_a_file_that_may_not_be_read(self, told: Callable[[Path], str], path: Path) -> None:
        path.chmod(0)
        assert told(path)

    def test_an_empty_file_has_no_probe(self, path: Path) -> None:
        path.write_bytes(b"")
        with pytest.raises(Unresolved, match="empty"):
            probe(path)


class TestBelongs:
    @pytest.mark.parametrize(("client", "name"), STATES)
    def test_finds_the_id_that_the_client_wrote(self, client: str, name: str) -> None:
        path = recorded(client, name)
        first = json.loads(path.read_text().splitlines()[0])
        session = first["payload"]["id"] if client == "codex-cli" else first["sessionId"]
        assert belongs(client, path, session) is True
        assert belongs(client, path, f"{session}0") is False

    @pytest.mark.parametrize("client", ["claude-code", "codex-cli", "gemini", ""])
    def test_cannot_tell_where_there_is_no_id(self, client: str, path: Path) -> None:
        path.write_bytes(b'{"type":"mode"}\n')
        assert belongs(client, path, "one") is None


def stamp(path: Path, at: float, content: str = "{}\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    os.utime(path, (at, at))
    return path


class TestChildren:
    def test_are_none_without_their_folder(self, path: Path) -> None:
        assert children_at(path) is None

    def test_are_as_new_as_the_newest_down_to_four_levels(self, path: Path) -> None:
        folder = path.with_suffix("") / "subagents"
        stamp(folder / "agent-1.jsonl", 100.0)
        stamp(folder / "a/b/c/agent-2.jsonl", 200.0)
        stamp(folder / "a/b/c/d/agent-3.jsonl", 300.0)
        stamp(path.with_name("two") / "subagents/agent-4.jsonl", 400.0)
        assert children_at(path) == 200.0

    def test_are_not_those_that_a_link_leads_to(self, path: Path, tmp_path: Path) -> None:
        folder = path.with_suffix("") / "subagents"
        stamp(folder / "agent-1.jsonl", 100.0)
        stamp(tmp_path / "elsewhere/agent-2.jsonl", 200.0)
        (folder / "link").symlink_to(tmp_path / "elsewhere")
        (folder / "agent-3.jsonl").symlink_to(tmp_path / "elsewhere/agent-2.jsonl")
        assert children_at(path) == 100.0

    def test_that_cannot_be_listed_are_unresolved(self, path: Path) -> None:
        stamp(path.with_suffix("") / "subagents", 1.0)
        with pytest.raises(Unresolved):
            children_at(path)

    def test_were_written_by_the_recorded_subagents(self, tmp_path: Path) -> None:
        place = recorded("claude-code", "background-agent-running")
        shutil.copytree(place.with_suffix(""), tmp_path / "one")
        shutil.copy(place, tmp_path / "one.jsonl")
        assert children_at(tmp_path / "one.jsonl") is not None


class TestChildrenOfCodex:
    PARENT, CHILD = "agent-behind", "agent-of-another"

    def lay(self, root: Path, day: str, name: str, at: float) -> Path:
        text = recorded("codex-cli", name).read_text()
        return stamp(root / "sessions" / day / f"rollout-{name}.jsonl", at, text)

    @pytest.mark.parametrize("day", ["2026/11/21", "2026/12/01", "2027/01/01"])
    def test_are_found_by_the_session_they_work_for(self, tmp_path: Path, day: str) -> None:
        parent = self.lay(tmp_path, "2026/11/21", self.PARENT, 100.0)
        self.lay(tmp_path, "2026/11/21", "after-turn", 300.0)
        assert children_at(parent) is None
        self.lay(tmp_path, day, self.CHILD, 200.0)
        assert children_at(parent) == 200.0

    def test_that_are_older_than_the_session_add_nothing(self, tmp_path: Path) -> None:
        parent = self.lay(tmp_path, "2026/11/21", self.PARENT, 100.0)
        self.lay(tmp_path, "2026/11/21", self.CHILD, 100.0)
        assert children_at(parent) is None

    def test_of_a_rollout_without_an_id_are_unresolved(self, tmp_path: Path) -> None:
        with pytest.raises(Unresolved):
            children_at(stamp(tmp_path / "2026/11/21/rollout-x.jsonl", 1.0))


CREATED_AT = 1_795_238_811.0  # when the recorded jobs were planned


class TestScheduled:
    @pytest.mark.parametrize(
        ("name", "is_planned"),
        [
            ("cron-created", True), ("cron-listed", True), ("cron-deleted", False), ("cron-once", True),
            ("cron-fired", False), ("cron-resumed", True), ("cron-after-clear", True), ("after-turn", False),
            ("in-tool", False),
        ],
    )  # fmt: skip
    def test_is_what_the_recorded_sessions_had_planned(self, name: str, is_planned: bool) -> None:  # noqa: FBT001
        found = scheduled("claude-code", recorded("claude-code", name), None, CREATED_AT + 60)
        assert (found is not None) == is_planned

    def test_ends_for_a_job_that_recurs_after_its_week(self) -> None:
        path = recorded("claude-code", "cron-created")
        assert scheduled("claude-code", path, None, CREATED_AT + WEEK_S)
        assert scheduled("claude-code", path, None, CREATED_AT + 2 * WEEK_S) is None

    def test_does_not_end_for_a_job_that_did_not_run_yet(self, tmp_path: Path) -> None:
        lines = recorded("claude-code", "cron-fired").read_text().splitlines(keepends=True)
        path = tmp_path / "one.jsonl"
        path.write_text("".join(line for line in lines if '"promptSource":"system"' not in line))
        assert scheduled("claude-code", path, None, CREATED_AT + 2 * WEEK_S)

    @pytest.mark.parametrize(("late_s", "is_planned"), [(-10, True), (60, True), (600, False)])
    def test_is_a_wake_up_until_it_is_due(self, tmp_path: Path, late_s: int, is_planned: bool) -> None:  # noqa: FBT001
        due = CREATED_AT + 1200
        call = {"type": "tool_use", "id": "c", "name": "ScheduleWakeup", "input": {"delaySeconds": 1200}}
        result = {"type": "tool_result", "tool_use_id": "c", "content": "x"}
        rows = [
            {"type": "assistant", "message": {"content": [call]}},
            {"type": "user", "message": {"content": [result]}, "toolUseResult": {"scheduledFor": due * 1000}},
        ]
        path = tmp_path / "one.jsonl"
        path.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
        found = scheduled("claude-code", path, None, due + late_s)
        assert (found is not None) == is_planned

    def test_counts_what_a_cleared_session_of_the_process_planned(self, tmp_path: Path) -> None:
        cleared = tmp_path / "two.jsonl"
        shutil.copy(recorded("claude-code", "cleared"), cleared)
        at = probe(cleared).last_at
        assert at is not None
        earlier = stamp(tmp_path / "one.jsonl", at, recorded("claude-code", "cron-created").read_text())
        now = at + 60
        assert scheduled("claude-code", cleared, at - 100, now)
        assert scheduled("claude-code", cleared, at + 1, now) is None
        os.utime(earlier, (at + 100, at + 100))
        assert scheduled("claude-code", cleared, at - 100, now) is None

    def test_is_seen_anew_when_a_transcript_has_changed(self, tmp_path: Path) -> None:
        path = tmp_path / "one.jsonl"
        shutil.copy(recorded("claude-code", "after-turn"), path)
        assert scheduled("claude-code", path, None, CREATED_AT) is None
        with path.open("a") as file:
            file.write(recorded("claude-code", "cron-created").read_text())
        assert scheduled("claude-code", path, None, CREATED_AT)

    def test_cannot_be_told_of_too_big_a_file(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(planned, "SEARCHED_AT_MOST", 100)
        with pytest.raises(Unresolved, match="searched"):
            scheduled("claude-code", path, None, 0.0)

    def test_is_nothing_in_codex_and_unknown_elsewhere(self, path: Path) -> None:
        assert scheduled("codex-cli", path, None, 0.0) is None
        with pytest.raises(Unresolved):
            scheduled("gemini", path, None, 0.0)
