"""Each decision is one line that reads back as it was told, whatever is in it and whoever writes at once."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from os import fsdecode
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from instar.lifecycle.eventlog import CHARACTERS_AT_MOST, PATH, EventLog, is_verbose, line_of, parse
from instar.sessions.clock import Clock

NOW = 1_790_000_000.0
STAMP = "2026-09-21T14:13:20.000Z"
CLOCK = replace(Clock(), wall=lambda: NOW)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path, CLOCK)


def lines(root: Path) -> list[str]:
    return (root / PATH).read_text(encoding="utf-8").splitlines()


LINES: dict[str, tuple[dict[str, Any], str]] = {
    "no field": ({}, ""),
    "a word": ({"mode": "fresh"}, " mode=fresh"),
    "in their order": ({"b": "1", "a": "2"}, " b=1 a=2"),
    "what is absent": ({"a": None, "b": "x"}, " b=x"),
    "nothing": ({"a": ""}, ' a=""'),
    "a space": ({"reason": "3 deaths in 300s"}, ' reason="3 deaths in 300s"'),
    "a quote": ({"a": 'x"y'}, r' a="x\"y"'),
    "an equals sign": ({"a": "x=y"}, ' a="x=y"'),
    "a backslash": ({"a": "x\\y"}, " a=x\\y"),
    "a backslash in quotes": ({"a": "x \\y"}, r' a="x \\y"'),
    "a newline": ({"a": "x\nts=1 ev=forged"}, r' a="x\nts=1 ev=forged"'),
    "control characters": ({"a": "\r\t\0\x1b\x7f"}, r' a="\r\t\u0000\u001b\u007f"'),
    "what ends a line elsewhere": ({"a": "x\x85\u2028y"}, r' a="x\u0085\u2028y"'),
    "what turns a line around": ({"a": "\u202eevil"}, r' a="\u202eevil"'),
    "no Unicode": ({"a": "\udcff"}, r' a="\udcff"'),
    "other scripts": ({"a": "тема"}, " a=тема"),
    "numbers": ({"age": 61, "rate": 0.5}, " age=61 rate=0.5"),
    "truth": ({"yes": True, "no": False}, " yes=true no=false"),
    "a path": ({"cwd": Path("/a b")}, ' cwd="/a b"'),
    "fields that the line has": ({"ts": "0", "ev": "forged"}, " _ts=0 _ev=forged"),
    "what names no field": ({"a b=c\n": "x", "": "y", "9": "z"}, " a_b_c_=x _=y _9=z"),
}


@pytest.mark.parametrize(("fields", "told"), LINES.values(), ids=LINES)
def test_how_an_event_is_told(log: EventLog, tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    log.write("wake", **fields)

    assert lines(tmp_path) == [f"ts={STAMP} ev=wake{told}"]
    assert log.lost == 0


TEXTS = st.text(max_size=20) | st.text('ab "=\\\n\r\t\x1b\u2028{}', max_size=20) | st.binary(max_size=9).map(fsdecode)
KEYS = st.from_regex(r"\A[a-z][a-z0-9_.]{0,8}\Z").filter(lambda key: key not in ("ts", "ev"))


@given(st.dictionaries(KEYS, TEXTS), TEXTS)
def test_what_is_written_is_read_again(fields: dict[str, str], ev: str) -> None:
    line = line_of(NOW, ev, fields)

    assert line.count(b"\n") == 1
    assert line.decode().removesuffix("\n").isprintable()
    assert parse(line.decode()) == {"ts": STAMP, "ev": ev, **fields}
    assert list(parse(line.decode())) == ["ts", "ev", *fields]


@given(st.text() | st.text('tsev= "\\n\n', max_size=30))
def test_any_line_can_be_read_and_is_an_event_or_none(line: str) -> None:
    event = parse(line)
    assert event == {} or list(event)[:2] == ["ts", "ev"]


NO_EVENTS = [
    "", "\n", "hello", "ts=1", "ev=wake", "ev=wake ts=1", "ts=1 ev=", 'ts=1 ev="', 'ts=1 ev="x', 'ts=1 ev=x a="\\',
    'ts=1 ev=x a="\\q"', "ts=1 ev=x a=b=c", 'ts=1 ev=x a="b"c', "ts=1  ev=x", "ts=1 ev=x =b", "ts=1 ev=x\n\nts=1 ev=y",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_EVENTS)
def test_what_is_no_whole_line_is_no_event(line: str) -> None:
    assert parse(line) == {}


def test_a_field_told_twice_is_what_it_was_first() -> None:
    assert parse("ts=1 ev=x a=1 ts=2 a=2") == {"ts": "1", "ev": "x", "a": "1"}


def test_a_value_has_a_bounded_length(log: EventLog) -> None:
    log.write("wake", reason="x" * 2**20, exact="y" * CHARACTERS_AT_MOST)

    (event,) = log.tail(1)
    assert event["reason"] == "x" * (CHARACTERS_AT_MOST - 1) + "…"
    assert event["exact"] == "y" * CHARACTERS_AT_MOST


def test_the_log_is_nobody_elses(log: EventLog, tmp_path: Path) -> None:
    log.write("wake")

    assert (tmp_path / PATH).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / PATH).parent.stat().st_mode & 0o777 == 0o700


# What goes wrong


def test_a_line_that_was_left_torn_spoils_no_other(log: EventLog, tmp_path: Path) -> None:
    log.write("one")
    with (tmp_path / PATH).open("ab") as file:
        file.write(b'ts=1 ev=torn reason="half of')
    log.write("two")
    with (tmp_path / PATH).open("ab") as file:
        file.write(b"\xff\xfe\nts=1 ev=torn")

    assert [event["ev"] for event in log.tail(9)] == ["one", "two"]


@pytest.mark.parametrize("kind", ["folder", "loose link", "pipe", "no room"])
def test_what_cannot_be_written_is_counted_and_stops_nobody(tmp_path: Path, kind: str) -> None:
    place = tmp_path / PATH
    place.parent.mkdir(parents=True)
    if kind == "folder":
        place.mkdir()
    elif kind == "loose link":
        place.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.parent.rmdir()
        place.parent.touch()
    log = EventLog(tmp_path, CLOCK)
    log.write("wake")

    assert log.lost == 1
    assert log.tail(5) == []
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("moment", [float("nan"), float("inf"), 1e300])
def test_a_clock_that_tells_no_time_stops_nobody(tmp_path: Path, moment: float) -> None:
    log = EventLog(tmp_path, replace(Clock(), wall=lambda: moment))
    log.write("wake")

    assert log.lost == 1


def test_where_there_is_no_log_nothing_was_told_and_nothing_is_made(log: EventLog, tmp_path: Path) -> None:
    assert log.tail(5) == []
    assert list(tmp_path.iterdir()) == []


# Logs that are full


def sizes(root: Path) -> dict[str, int]:
    return {each.name: each.stat().st_size for each in (root / PATH).parent.iterdir() if not each.name.startswith(".")}


def test_a_full_log_is_put_aside_and_as_many_are_kept_as_is_wanted(tmp_path: Path) -> None:
    line = len(line_of(NOW, "tick", {"n": "100"}))
    log = EventLog(tmp_path, CLOCK, bytes_at_most=3 * line, keep=2)
    for number in range(100, 114):
        log.write("tick", n=number)

    assert sizes(tmp_path) == {"lifecycle.log": 2 * line, "lifecycle.log.1": 3 * line, "lifecycle.log.2": 3 * line}
    assert [event["n"] for event in log.tail(99)] == [str(number) for number in range(106, 114)]
    assert [event["n"] for event in log.tail(4)] == ["110", "111", "112", "113"]
    assert [event["n"] for event in log.tail(1)] == ["113"]
    assert log.tail(0) == log.tail(-1) == []


def test_the_size_is_told_in_bytes(tmp_path: Path) -> None:
    line = len(line_of(NOW, "tick", {"topic": "тема"}))
    log = EventLog(tmp_path, CLOCK, bytes_at_most=2 * line - 1, keep=1)
    log.write("tick", topic="тема")
    log.write("tick", topic="тема")

    assert sizes(tmp_path) == {"lifecycle.log": line, "lifecycle.log.1": line}


def test_a_line_longer_than_a_log_is_written_whole(tmp_path: Path) -> None:
    log = EventLog(tmp_path, CLOCK, bytes_at_most=10, keep=1)
    log.write("tick", n=1)
    assert set(sizes(tmp_path)) == {"lifecycle.log"}
    log.write("tick", n=2)

    assert [event["n"] for event in log.tail(9)] == ["1", "2"]


def test_an_empty_log_is_not_put_aside(tmp_path: Path) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).touch()
    EventLog(tmp_path, CLOCK, bytes_at_most=10).write("tick")

    assert set(sizes(tmp_path)) == {"lifecycle.log"}


def test_a_log_that_cannot_be_put_aside_grows_on(tmp_path: Path) -> None:
    (tmp_path / f"{PATH}.1/x").mkdir(parents=True)
    log = EventLog(tmp_path, CLOCK, bytes_at_most=10, keep=1)
    log.write("tick", n=1)
    log.write("tick", n=2)

    assert (log.lost, [event["n"] for event in log.tail(9)]) == (0, ["1", "2"])


def test_one_that_is_kept_waiting_writes_and_puts_nothing_aside(tmp_path: Path) -> None:
    log = EventLog(tmp_path, CLOCK, bytes_at_most=10, keep=1)
    log.write("tick", n=1)
    place = tmp_path / PATH
    with FileLock(place.with_name(f".{place.name}.lock")):
        log.write("tick", n=2)

    assert set(sizes(tmp_path)) == {"lifecycle.log"}
    assert [event["n"] for event in log.tail(9)] == ["1", "2"]


WRITER = """
import sys
from pathlib import Path
from instar.lifecycle.eventlog import EventLog
from instar.sessions.clock import Clock

log = EventLog(Path(sys.argv[1]), Clock(), bytes_at_most=600, keep=100)
sys.stdin.readline()
for number in range(150):
    log.write("tick", by=sys.argv[2], n=number, text="two words")
sys.exit(log.lost)
"""


def test_processes_that_put_logs_aside_at_once_lose_no_line(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), by], stdin=subprocess.PIPE, text=True, env=env)
        for by in "ab"
    ]
    for each in writers:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in writers:
        each.communicate(timeout=60)
        assert each.returncode == 0

    events = EventLog(tmp_path, CLOCK, keep=100).tail(1000)
    for by in "ab":
        assert [event["n"] for event in events if event["by"] == by] == [str(number) for number in range(150)]
    assert len(events) == 300
    assert len(sizes(tmp_path)) > 20
    assert max(sizes(tmp_path).values()) <= 600


SWITCHED = [(None, False), ("", False), ("0", False), ("on", False), ("1", True), (" TRUE ", True), ("Yes", True)]


@pytest.mark.parametrize(("said", "wanted"), SWITCHED)
def test_whether_all_is_told(said: str | None, wanted: bool) -> None:  # noqa: FBT001 - a column
    environ = {} if said is None else {"INSTAR_SUPERVISE_LOG_VERBOSE": said}
    assert is_verbose(environ) is wanted
