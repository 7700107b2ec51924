"""A turn is closed only where the transcript proves it; what cannot be told is unknown."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.sessions.clock import epoch
from instar.sessions.transcripts import records
from instar.sessions.transcripts.turn import Turn
from instar.sessions.transcripts.turns import turn
from tests.instar.sessions.recorded import FOLDER, STATES, VERSIONS, recorded

if TYPE_CHECKING:
    from pathlib import Path

BEGIN = datetime(2026, 11, 21, 5, 0, tzinfo=timezone.utc)
NEVER_SAID = ("hello there", "first prompt", "touch a-file", "The build is not done")


class Conversation:
    """A transcript of Claude Code, one record a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0

    def write(self, *records: dict[str, Any], last_line_ends: bool = True) -> Path:
        lines = "\n".join(json.dumps(each) for each in records)
        self.path.write_text(lines + "\n" * last_line_ends)
        return self.path

    def record(self, kind: str, parent: str = "", **fields: Any) -> dict[str, Any]:
        self.number += 1
        at = (BEGIN + timedelta(seconds=self.number)).isoformat()
        own = f"id-{self.number}"
        return {"type": kind, "uuid": own, "parentUuid": parent, "timestamp": at, "version": "2.1.197", **fields}

    def prompt(self, text: str = "go", **fields: Any) -> dict[str, Any]:
        return self.record("user", message={"role": "user", "content": text}, promptSource="typed", **fields)

    def answer(self, parent: dict[str, Any], reason: str | None = "end_turn", *blocks: Any) -> dict[str, Any]:
        content = list(blocks) or [{"type": "text", "text": "done"}]
        message = {"role": "assistant", "model": "m", "content": content, "stop_reason": reason}
        return self.record("assistant", parent["uuid"], message=message)

    def result(self, parent: dict[str, Any]) -> dict[str, Any]:
        block = {"type": "tool_result", "tool_use_id": "call", "content": "x"}
        return self.record("user", parent["uuid"], message={"role": "user", "content": [block]})


CALL = {"type": "tool_use", "id": "call", "name": "Bash", "input": {}}


@pytest.fixture
def talk(tmp_path: Path) -> Conversation:
    return Conversation(tmp_path / "one.jsonl")


def state(path: Path) -> str:
    return turn("claude-code", path).state


@pytest.mark.parametrize(("client", "name"), STATES)
def test_a_recorded_state_is_read_as_what_it_was(client: str, name: str) -> None:
    found = turn(client, recorded(client, name))

    assert found.state == STATES[client, name], found
    if found.state != "unknown":
        assert found.version == VERSIONS[client]
        lines = recorded(client, name).read_text().splitlines()
        times = [at for line in lines if (at := epoch(json.loads(line).get("timestamp")))]
        assert found.at == max(times)
    assert not any(said in found.why for said in NEVER_SAID)


def test_every_recorded_transcript_is_in_the_table() -> None:
    assert {(path.parent.name, path.stem) for path in FOLDER.glob("*/*.jsonl")} == set(STATES)


@pytest.mark.parametrize(("client", "name"), [("claude-code", "headless-resumed"), ("codex-cli", "headless-resumed")])
def test_a_torn_transcript_is_never_closed(client: str, name: str, tmp_path: Path) -> None:
    whole = recorded(client, name).read_bytes()
    path = tmp_path / "one.jsonl"
    path.write_bytes(whole)

    for size in reversed(range(len(whole))):
        os.truncate(path, size)
        if whole[size - 1 : size] != b"\n":
            assert turn(client, path).state == "unknown", size


def test_a_transcript_is_open_line_by_line_until_its_turn_is_over(tmp_path: Path) -> None:
    lines = recorded("claude-code", "headless-resumed").read_text().splitlines(keepends=True)
    path = tmp_path / "one.jsonl"
    found = []
    for count in range(1, len(lines) + 1):
        path.write_text("".join(lines[:count]))
        kind = json.loads(lines[count - 1])["type"]
        found.append((kind, turn("claude-code", path).state))

    states = [each for _, each in found]
    first, second = states.index("closed"), len(states) - states[::-1].index("open")
    assert found[first][0] == found[second][0] == "assistant"
    assert set(states[second:]) == {"closed"}
    assert "closed" not in states[:first]


@pytest.mark.parametrize("name", sorted(name for client, name in STATES if client == "codex-cli"))
def test_a_rollout_is_closed_only_after_an_end_of_a_turn(name: str, tmp_path: Path) -> None:
    lines = recorded("codex-cli", name).read_text().splitlines(keepends=True)
    path = tmp_path / "rollout-one.jsonl"
    is_over = False
    for count, line in enumerate(lines, 1):
        path.write_text("".join(lines[:count]))
        payload = json.loads(line)["payload"]
        kind = payload.get("type")
        is_over = (is_over or kind in ("task_complete", "turn_aborted")) and kind != "task_started"
        assert (turn("codex-cli", path).state == "closed") <= is_over


class TestClaude:
    @pytest.mark.parametrize("reason", ["tool_use", "max_tokens", "pause_turn", "refusal", None, "something_new"])
    def test_an_answer_that_goes_on_is_open(self, talk: Conversation, reason: str | None) -> None:
        prompt = talk.prompt()
        assert state(talk.write(prompt, talk.answer(prompt, reason))) == "open"

    def test_an_answer_with_a_call_is_open_whatever_its_reason(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        assert state(talk.write(prompt, talk.answer(prompt, "end_turn", CALL))) == "open"

    def test_a_prompt_written_after_its_answer_is_answered(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        answer = talk.answer(prompt)
        assert state(talk.write(answer, prompt)) == "closed"

    def test_a_prompt_that_nothing_descends_from_is_open_behind_an_answer(self, talk: Conversation) -> None:
        first, second = talk.prompt(), talk.prompt()
        assert state(talk.write(first, talk.answer(first), second)) == "open"

    def test_a_prompt_let_through_by_an_interruption_is_open(self, tmp_path: Path) -> None:
        lines = recorded("claude-code", "queued-through-interruption").read_text().splitlines(keepends=True)
        end = next(number for number, line in enumerate(lines) if "[Request interrupted" in line)
        path = tmp_path / "one.jsonl"
        path.write_text("".join(lines[: end + 1]))
        assert state(path) == "open"

    def test_a_clock_that_was_set_back_closes_nothing(self, talk: Conversation) -> None:
        first = talk.prompt()
        answer = talk.answer(first)
        late = {**talk.prompt(), "timestamp": BEGIN.isoformat()}
        assert state(talk.write(first, answer, late)) == "open"

    def test_a_prompt_that_came_after_an_answer_is_open_though_it_stands_before_it(self, talk: Conversation) -> None:
        first = talk.prompt()
        answer = talk.answer(first)
        assert state(talk.write(first, talk.prompt(), answer)) == "open"

    def test_a_message_of_a_failed_call_leaves_a_queued_prompt_open(self, talk: Conversation) -> None:
        first, queued = talk.prompt(), talk.prompt()
        failed = talk.answer(first, "stop_sequence")
        failed["message"]["model"] = "<synthetic>"
        assert state(talk.write(first, queued, failed)) == "open"
        assert state(talk.write(first, failed)) == "closed"

    def test_a_prompt_that_was_taken_back_is_over_with_the_next_one(self, talk: Conversation) -> None:
        first = talk.prompt()
        answer = talk.answer(first)
        taken_back = talk.prompt()
        second = {**talk.prompt(), "parentUuid": answer["uuid"]}
        said = {"role": "user", "content": [{"type": "text", "text": "[Request interrupted by user]"}]}
        end = talk.record("user", second["uuid"], message=said)
        assert state(talk.write(first, answer, taken_back)) == "open"
        assert state(talk.write(first, answer, taken_back, second, end)) == "closed"

    @pytest.mark.parametrize("said", ["[Request interrupted by user]", "<turn_aborted>"])
    def test_what_a_person_types_is_no_interruption(self, talk: Conversation, said: str) -> None:
        first = talk.prompt()
        typed = talk.prompt(said)
        in_blocks = {**typed, "message": {"role": "user", "content": [{"type": "text", "text": said}]}}
        assert state(talk.write(first, talk.answer(first), typed)) == "open"
        assert state(talk.write(first, talk.answer(first), in_blocks)) == "open"

    @pytest.mark.parametrize(
        "row",
        [
            {"type": "mode", "mode": "normal"},
            {"type": "file-history-snapshot", "snapshot": {}},
            {"type": "last-prompt"},
            {"type": "something-new", "uuid": "x", "timestamp": "2026-11-21T06:00:00Z"},
            {"type": "system", "subtype": "local_command", "uuid": "x"},
            {"type": "assistant", "isSidechain": True, "message": {"stop_reason": "end_turn", "content": []}},
            {"type": "user", "isSidechain": True, "message": {"content": "go"}},
            {"type": "attachment", "attachment": {"type": "hook_success", "hookEvent": "Stop"}},
            {"type": "user", "isMeta": True, "message": {"content": "<local-command-caveat>Caveat"}},
        ],
        ids=lambda row: str(row["type"]),
    )
    @pytest.mark.parametrize("before", ["open", "closed"])
    def test_what_is_no_part_of_a_turn_changes_nothing(
        self, talk: Conversation, row: dict[str, Any], before: str
    ) -> None:
        prompt = talk.prompt()
        said = [prompt] if before == "open" else [prompt, talk.answer(prompt)]
        assert state(talk.write(*said, row, row)) == before

    def test_a_queued_prompt_is_open(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        queued = talk.record("queue-operation", operation="enqueue")
        taken = talk.record("queue-operation", operation="dequeue")
        assert state(talk.write(prompt, queued, talk.answer(prompt))) == "open"
        assert state(talk.write(prompt, queued, taken, talk.answer(prompt))) == "closed"

    def test_a_queue_that_died_with_a_process_is_over_at_the_next_prompt(self, talk: Conversation) -> None:
        queued = talk.record("queue-operation", operation="enqueue")
        prompt = talk.prompt()
        assert state(talk.write(queued, prompt, talk.answer(prompt))) == "closed"

    def test_two_calls_at_once_are_over_with_the_answer_to_both(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        first = talk.answer(prompt, "tool_use", CALL)
        second = talk.answer(first, "tool_use", CALL)
        results = [talk.result(first), talk.result(second)]
        assert state(talk.write(prompt, first, second, *results)) == "open"
        assert state(talk.write(prompt, first, second, *results, talk.answer(results[1]))) == "closed"

    def test_records_that_are_their_own_parents_end(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        answer = talk.answer(prompt)
        loop = {**prompt, "parentUuid": answer["uuid"]}
        assert state(talk.write(loop, answer)) == "closed"


class TestCodex:
    @staticmethod
    def event(kind: str, turn_id: str = "1", of: str = "event_msg", **fields: Any) -> dict[str, Any]:
        payload = {"type": kind, "turn_id": turn_id, **fields}
        return {"timestamp": "2026-11-21T05:00:00.000Z", "type": of, "payload": payload}

    def test_the_end_of_another_turn_closes_none(self, talk: Conversation) -> None:
        begun, ended = self.event("task_started", "2"), self.event("turn_aborted", "1")
        assert turn("codex-cli", talk.write(begun, ended)).state == "open"
        assert turn("codex-cli", talk.write(begun, ended, self.event("turn_aborted", "2"))).state == "closed"

    @pytest.mark.parametrize(
        ("kind", "role", "expected"),
        [
            ("function_call", "", "open"), ("reasoning", "", "open"), ("message", "user", "open"),
            ("message", "assistant", "open"), ("message", "developer", "closed"),
        ],
    )  # fmt: skip
    def test_work_after_an_end_is_open(self, talk: Conversation, kind: str, role: str, expected: str) -> None:
        item = self.event(kind, of="response_item", role=role)
        path = talk.write(self.event("task_started"), self.event("task_complete"), item)
        assert turn("codex-cli", path).state == expected


class TestTheWindow:
    def test_a_record_of_five_megabytes_hides_nothing(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        big = talk.answer(prompt, "end_turn", {"type": "text", "text": "x" * 5_000_000})
        assert state(talk.write(prompt, big)) == "closed"
        assert state(talk.write(prompt, talk.answer(prompt), talk.prompt("y" * 5_000_000))) == "open"

    def test_many_records_of_no_turn_hide_nothing(self, talk: Conversation) -> None:
        prompt = talk.prompt()
        noise = [{"type": "mode", "mode": "normal" * 20}] * 10_000
        assert state(talk.write(prompt, talk.answer(prompt), *noise)) == "closed"

    def test_what_needs_too_much_of_a_file_is_unknown(
        self, talk: Conversation, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(records, "BYTES_AT_MOST", 1 << 19)
        prompt = talk.prompt()
        noise = [{"type": "mode", "mode": "normal" * 20}] * 10_000
        found = turn("claude-code", talk.write(prompt, talk.answer(prompt), *noise))
        assert (found.state, "do not tell" in found.why) == ("unknown", True)

    @pytest.mark.parametrize("last", ["{", "[]", "null", "x", '{"a":' * 100_000, "\0\0\0"])
    def test_a_last_record_that_is_none_is_unknown(self, talk: Conversation, last: str) -> None:
        prompt = talk.prompt()
        path = talk.write(prompt, talk.answer(prompt))
        path.write_text(path.read_text() + last + "\n")
        assert state(path) == "unknown"


@pytest.mark.parametrize(
    ("client", "content"),
    [("claude-code", ""), ("claude-code", "{}\n"), ("codex-cli", "{}\n"), ("", "{}\n"), ("gemini", "{}\n")],
)
def test_what_tells_of_no_turn_is_unknown(client: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text(content)
    assert turn(client, path).state == "unknown"


def test_a_transcript_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    assert turn("claude-code", tmp_path / "none") == Turn("unknown", "there is no transcript")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_KEYS = ("type", "message", "attachment", "payload", "uuid", "parentUuid", "timestamp", "version", "operation")
_RECORD = st.fixed_dictionaries(
    {"type": st.sampled_from(["user", "assistant", "attachment", "system", "queue-operation", "event_msg"])},
    optional={key: _JSON for key in _KEYS if key != "type"},
)


@given(st.sampled_from(list(VERSIONS)), st.lists(_RECORD, max_size=5))
def test_records_of_any_shape_are_read(
    tmp_path_factory: pytest.TempPathFactory, client: str, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert turn(client, path).state in ("open", "closed", "unknown")
