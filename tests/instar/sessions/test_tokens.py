"""The ledger counts every call once, at its most, and knows what it has not read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.sessions.clock import iso
from instar.sessions.tokens import ledger as tokens
from instar.sessions.tokens.ledger import FILES_AT_MOST, PLACE, Ledger, Scanned
from tests.instar.sessions.recorded import STATES, recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000.0
BEGIN = NOW - 3600.0
DAY_S = 86_400.0
CLAUDE, CODEX = "claude-code", "codex-cli"


def call(number: int, used: int, *, at: float | None = None, session: str = "one", **fields: Any) -> str:
    usage = {"input_tokens": used, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    row = {
        "type": "assistant", "requestId": f"req-{number}", "sessionId": session,
        "timestamp": iso(BEGIN + number if at is None else at),
        "message": {"id": f"msg-{number}", "usage": usage}, **fields,
    }  # fmt: skip
    return json.dumps(row) + "\n"


def count(number: int, total: int) -> str:
    info = {"total_token_usage": {"total_tokens": total}}
    payload = {"type": "token_count", "info": info}
    return json.dumps({"timestamp": iso(BEGIN + number), "type": "event_msg", "payload": payload}) + "\n"


def lay(path: Path, content: str | bytes, at: float = NOW) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (at, at))
    return path


def add(path: Path, content: str | bytes) -> None:
    """Append, and have the time of change tell it, however fast that is."""
    before = path.stat().st_mtime_ns
    with path.open("ab") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    os.utime(path, ns=(before + 10**6, before + 10**6))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(tmp_path / "project")
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return lay(tmp_path / "one.jsonl", call(1, 10) + call(2, 20))


def used(ledger: Ledger, session: str = "one", since: float = 0.0) -> tuple[bool, int, int]:
    found = ledger.since(session, int(since * 1000))
    return found["known"], found["eventCount"], found["tokens"]


class TestWhatIsCounted:
    def test_is_every_kind_of_token(self, ledger: Ledger, tmp_path: Path) -> None:
        kinds = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        usage = {name: 10**number for number, name in enumerate(kinds)}
        path = lay(tmp_path / "one.jsonl", call(1, 0, message={"id": "m", "usage": usage}))
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 1, 1111)

    def test_is_the_most_that_was_told_of_a_call(self, ledger: Ledger, path: Path) -> None:
        add(path, call(3, 5) + call(3, 50) + call(3, 20))
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 3, 80)

    def test_is_what_was_used_since_a_moment_with_that_moment(self, ledger: Ledger, path: Path) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger, since=BEGIN + 2) == (True, 1, 20)
        assert used(ledger, since=BEGIN + 2.001) == (True, 0, 0)
        assert ledger.since("one", 0)["lastTs"] == int((BEGIN + 2) * 1000)

    def test_is_what_subagents_used_too(self, ledger: Ledger, path: Path) -> None:
        lay(path.with_suffix("") / "subagents/deep/agent-1.jsonl", call(7, 100))
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 3, 130)

    def test_is_only_what_a_session_told_of_itself(self, ledger: Ledger, path: Path) -> None:
        add(path, call(8, 100, session="two"))
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 2, 30)

    @pytest.mark.parametrize(
        "row",
        [
            "{}", "[]", "x", '{"usage":', call(9, -5).strip(), call(9, 5, timestamp="yesterday").strip(),
            call(9, 5, requestId=None, message={"usage": {"input_tokens": 5}}).strip(),
            call(9, 5, message={"id": "m", "usage": {"input_tokens": 10**30, "output_tokens": True}}).strip(),
        ],
    )  # fmt: skip
    def test_is_nothing_of_a_record_that_does_not_tell(self, ledger: Ledger, path: Path, row: str) -> None:
        add(path, row + "\n")
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 2, 30)

    def test_is_the_increase_of_what_codex_counts(self, ledger: Ledger, tmp_path: Path) -> None:
        path = lay(tmp_path / "rollout-1.jsonl", count(1, 10) + count(2, 10) + count(3, 35))
        ledger.scan({"one": (CODEX, path)}, NOW)
        add(path, count(4, 30) + count(5, 50))
        ledger.scan({"one": (CODEX, path)}, NOW)
        assert used(ledger) == (True, 3, 50)
        assert used(ledger, since=BEGIN + 3) == (True, 2, 40)

    @pytest.mark.parametrize(("client", "name"), STATES)
    def test_is_what_the_recorded_sessions_used(self, ledger: Ledger, tmp_path: Path, client: str, name: str) -> None:
        place = tmp_path / f"{'rollout-' if client == CODEX else ''}one.jsonl"
        path = lay(place, recorded(client, name).read_bytes())
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        session = next((row["sessionId"] for row in rows if "sessionId" in row), "one")
        ledger.scan({session: (client, path)}, NOW)
        if client == CODEX:
            totals = [row["payload"]["info"]["total_token_usage"]["total_tokens"] for row in rows
                      if row["payload"].get("type") == "token_count" and row["payload"]["info"]]  # fmt: skip
            expected = max(totals, default=0)
        else:
            messages = [row["message"] for row in rows if row["type"] == "assistant"]
            used_by = {each["id"]: each["usage"]["input_tokens"] + each["usage"]["output_tokens"] for each in messages}
            expected = sum(used_by.values())
        assert used(ledger, session)[2] == expected
        assert used(ledger, session)[0]


class TestWhatIsKnown:
    def test_is_nothing_of_a_session_that_was_not_read(self, ledger: Ledger) -> None:
        assert ledger.since("one", 0) == {"known": False, "eventCount": 0, "tokens": 0, "lastTs": None}

    def test_is_nothing_after_a_change_until_it_is_read(self, ledger: Ledger, path: Path) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger)[0]
        add(path, call(3, 30))
        assert used(ledger) == (False, 2, 30)
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 3, 60)

    def test_is_nothing_where_a_record_is_being_written(self, ledger: Ledger, path: Path) -> None:
        line = call(3, 30)
        add(path, line[:20])
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (False, 2, 30)
        add(path, line[20:])
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 3, 60)

    def test_is_nothing_where_a_subagent_was_not_read(self, ledger: Ledger, path: Path) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        lay(path.with_suffix("") / "subagents/agent-1.jsonl", call(7, 100))
        assert not used(ledger)[0]

    def test_is_nothing_of_a_transcript_that_is_gone(self, ledger: Ledger, path: Path) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        path.unlink()
        assert used(ledger) == (False, 2, 30)

    def test_is_nothing_of_what_was_not_written_to_for_a_month(self, ledger: Ledger, path: Path) -> None:
        assert ledger.scan({"one": (CLAUDE, path)}, NOW + 31 * DAY_S) == Scanned(0, 0, 0)
        assert used(ledger) == (False, 0, 0)

    def test_is_nothing_of_what_cannot_be_read(self, ledger: Ledger, tmp_path: Path, path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        os.utime(tmp_path / "fifo", (NOW, NOW))
        found = ledger.scan({"two": (CLAUDE, tmp_path / "fifo"), "one": (CLAUDE, path)}, NOW)
        assert found == Scanned(files=1, left=0, unread=1)
        assert (used(ledger)[0], used(ledger, "two")[0]) == (True, False)

    def test_is_nothing_of_other_clients(self, ledger: Ledger, path: Path) -> None:
        assert ledger.scan({"one": ("gemini", path)}, NOW) == Scanned(0, 0, 0)


class TestATranscriptThatIsAnother:
    @pytest.mark.parametrize("way", ["in place", "replaced"])
    def test_is_read_from_its_beginning(self, ledger: Ledger, path: Path, way: str) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        content = call(5, 500) + call(2, 20)
        if way == "in place":
            lay(path, content, NOW + 1)
        else:
            lay(path.with_name("new"), content, NOW + 1).replace(path)
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 3, 530)

    def test_is_counted_anew_in_codex(self, ledger: Ledger, tmp_path: Path) -> None:
        path = lay(tmp_path / "rollout-1.jsonl", count(1, 10) + count(2, 35))
        ledger.scan({"one": (CODEX, path)}, NOW)
        lay(path.with_name("new"), count(2, 35) + count(3, 40), NOW + 1).replace(path)
        ledger.scan({"one": (CODEX, path)}, NOW)
        assert used(ledger) == (True, 2, 40)

    def test_that_became_shorter_loses_no_call(self, ledger: Ledger, path: Path) -> None:
        add(path, call(3, 30) + call(4, 40))
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        lay(path, call(1, 10) + call(2, 20), NOW + 1)
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 4, 100)


class TestLaws:
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
    @given(
        st.sampled_from([CLAUDE, CODEX]),
        st.lists(st.tuples(st.integers(1, 5), st.integers(1, 99)), max_size=8),
        st.lists(st.integers(0, 3000), max_size=4),
    )
    def test_any_split_into_appends_and_any_number_of_scans_come_to_the_same(
        self, tmp_path: Path, client: str, told: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        content = "".join((call if client == CLAUDE else count)(*each) for each in told).encode()
        places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
        found = []
        for name, steps in (("once", [(0, len(content))]), ("split", list(pairwise(places)))):
            root = tmp_path / name
            shutil.rmtree(root, ignore_errors=True)
            path = lay(root / "rollout-1.jsonl", b"", NOW)
            ledger = Ledger(root)
            for begin, end in steps:
                add(path, content[begin:end])
                for _ in range(2):
                    ledger.scan({"one": (client, path)}, NOW)
            found.append((ledger.since("one", 0), ledger.totals()))
            ledger.close()
        assert found[0] == found[1]
        assert found[0][0]["known"]
        if client == CLAUDE:
            assert found[0][0]["tokens"] == sum(dict(sorted(told)).values())
        else:
            assert found[0][0]["tokens"] == max((total for _, total in told), default=0)


class TestManyFiles:
    def test_are_read_in_turns(self, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert FILES_AT_MOST == 500
        monkeypatch.setattr(tokens, "FILES_AT_MOST", 3)
        told = {
            str(each): (CLAUDE, lay(tmp_path / f"{each}.jsonl", call(1, 10, session=str(each)))) for each in range(7)
        }
        counts = []
        for _ in range(3):
            ledger.scan(told, NOW)
            counts.append(len(ledger.totals()))
        assert counts == [3, 6, 7]

    def test_a_big_file_is_read_in_turns(self, ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        size = path.stat().st_size
        monkeypatch.setattr(tokens, "BYTES_A_SCAN", size - 10)
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (False, 1, 10)
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 2, 30)


class TestTheDatabase:
    def test_is_for_its_owner_alone(self, ledger: Ledger, path: Path, tmp_path: Path) -> None:
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert (tmp_path / "project" / PLACE).stat().st_mode & 0o777 == 0o600

    def test_is_begun_anew_when_it_is_damaged(self, path: Path, tmp_path: Path) -> None:
        place = lay(tmp_path / "project" / PLACE, b"no database at all, by its first bytes" * 100)
        ledger = Ledger(tmp_path / "project")
        ledger.scan({"one": (CLAUDE, path)}, NOW)
        assert used(ledger) == (True, 2, 30)
        assert list(place.parent.glob("tokens.db.corrupt-*"))
        assert ledger.troubles
        ledger.close()

    def test_tells_the_totals_of_all_sessions(self, ledger: Ledger, path: Path, tmp_path: Path) -> None:
        other = lay(tmp_path / "rollout-2.jsonl", count(4, 44))
        ledger.scan({"one": (CLAUDE, path), "two": (CODEX, other)}, NOW)
        last = [int((BEGIN + number) * 1000) for number in (2, 4)]
        assert ledger.totals() == {
            "one": {"eventCount": 2, "tokens": 30, "lastTs": last[0]},
            "two": {"eventCount": 1, "tokens": 44, "lastTs": last[1]},
        }

    def test_is_written_by_two_processes_at_once(self, ledger: Ledger, tmp_path: Path) -> None:
        told = {str(each): str(lay(tmp_path / f"{each}.jsonl", call(1, 10, session=str(each)))) for each in range(30)}
        program = (
            "import json, sys; from pathlib import Path; from instar.sessions.tokens.ledger import Ledger\n"
            "told = json.loads(sys.argv[2])\n"
            "told = {key: ('claude-code', path) for key, path in told.items()}\n"
            "Ledger(Path(sys.argv[1]), busy_s=60).scan(told, float(sys.argv[3]))"
        )
        argv = [sys.executable, "-c", program, str(tmp_path / "project"), json.dumps(told), str(NOW)]
        running = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(2)]
        assert [(each.communicate()[1], each.returncode) for each in running] == [(b"", 0)] * 2
        assert {each["tokens"] for each in ledger.totals().values()} == {10}
        assert len(ledger.totals()) == 30
