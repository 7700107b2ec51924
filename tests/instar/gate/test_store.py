"""The gate's memory counts exactly, keeps what it was told, and says so when it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from instar.database import Database, Step
from instar.gate.schema import METADATA, STEPS
from instar.gate.store import CEILING, DWELL_MS, Event, Store, StoreError, day_of
from support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DAY_MS = 86_400_000
NOW_MS = 1_790_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server-data é?#%" / "stop-gate.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with closing(Store.open(path, clock=lambda: NOW_MS / 1000)) as store:
        assert store.troubles == []
        yield store


def event(name: str, **columns: Any) -> Event:
    return Event(**{"event_id": name, "session_id": "s", "ts": NOW_MS, "mode": "enforce", **columns})


def raw(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def aggregate(path: Path) -> tuple[Any, ...]:
    columns = "triggered_count, shadow_count, continue_count, allow_count, escalate_count, failure_count"
    (row,) = raw(path, f"SELECT {columns} FROM agent_eval_aggregate")  # noqa: S608 - our own words
    return row


def test_what_was_recorded_is_found_again(store: Store) -> None:
    given = event("e", decision="allow", rule="U_LEGIT_ERROR", latency_ms=7, reason_preview="\U0001f600 \x00")
    assert store.record(given)

    found = store.event("e")
    assert found is not None
    assert {name: found[name] for name in ("event_id", "decision", "rule", "latency_ms", "reason_preview")} == {
        "event_id": "e", "decision": "allow", "rule": "U_LEGIT_ERROR", "latency_ms": 7,
        "reason_preview": "\U0001f600 \x00",
    }  # fmt: skip
    assert store.event("x") is None
    assert [each["event_id"] for each in store.events_named("e")] == ["e"]
    assert store.events_named("%") == []


def test_events_are_told_the_newest_first_also_within_a_millisecond(store: Store) -> None:
    for name, ts in (("a", 1), ("b", 3), ("c", 3), ("d", 2)):
        store.record(event(name, ts=NOW_MS + ts))

    assert [each["event_id"] for each in store.events()] == ["c", "b", "d", "a"]
    assert [each["event_id"] for each in store.events(2)] == ["c", "b"]
    assert len(store.events(None)) == 4


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({"mode": "shadow"}, "a"), ({"outcome": "continue"}, "a"), ({"outcome": "fail:timeout"}, "b"),
     ({"session": "t"}, "c"), ({"rule": "U2"}, "a"), ({"since": NOW_MS}, "cb"),
     ({"since": NOW_MS, "session": "t"}, "c"), ({"outcome": "fail:x"}, ""), ({"mode": "' OR 1=1"}, "")],
)  # fmt: skip
def test_events_are_chosen_by_what_came_of_them(store: Store, wanted: dict[str, Any], found: str) -> None:
    store.record(event("a", ts=NOW_MS - 1, mode="shadow", decision="continue", rule="U2"))
    store.record(event("b", invalid_kind="timeout"))
    store.record(event("c", session_id="t", decision="allow", ts=NOW_MS + 1))

    assert "".join(each["event_id"] for each in store.events(**wanted)) == found


def test_a_row_is_counted_in_the_day_of_its_agent(store: Store, path: Path) -> None:
    for index, (mode, decision, failure) in enumerate(
        [("shadow", "continue", None), ("enforce", "allow", None), ("enforce", "force_allow", None),
         ("shadow", "escalate", None), ("enforce", None, "timeout")]
    ):  # fmt: skip
        store.record(event(str(index), mode=mode, decision=decision, invalid_kind=failure))

    assert aggregate(path) == (5, 2, 1, 2, 1, 1)


def test_a_session_is_sent_on_exactly_as_often_as_the_ceiling_says(store: Store, path: Path) -> None:
    stand = [store.record(event(str(index), decision="continue", rule="U2"), 2) for index in range(4)]

    assert stand == [True, True, False, False]
    assert store.continues("s") == 2
    assert [each["decision"] for each in store.events()] == ["force_allow", "force_allow", "continue", "continue"]
    assert store.events()[0]["short_circuit"] == CEILING
    assert store.events()[0]["rule"] is None
    assert store.stuck() == [{"session_id": "s", "last_ceiling_hit_at": NOW_MS}]
    assert store.counters() == {CEILING: 2}
    assert aggregate(path)[2:4] == (2, 2)


@pytest.mark.parametrize(("decision", "ceiling"), [("allow", 2), ("escalate", 2), ("continue", None)])
def test_only_a_continue_under_a_ceiling_is_counted_for_its_session(
    store: Store, decision: str, ceiling: int | None
) -> None:
    assert store.record(event("e", decision=decision), ceiling)
    assert store.continues("s") == 0


def test_a_ceiling_of_nothing_holds_nobody(store: Store) -> None:
    assert not store.record(event("e", decision="continue"), 0)


def test_a_row_that_cannot_be_written_counts_nothing(store: Store) -> None:
    store.record(event("e", decision="continue"), 9)

    with pytest.raises(StoreError):
        store.record(event("e", decision="continue"), 9)
    assert store.continues("s") == 1


@pytest.mark.parametrize("bad", [{"session_id": "\ud800"}, {"ts": 2**70}, {"reason_preview": None}])
def test_a_row_that_no_database_takes_is_refused_and_harms_nothing(store: Store, bad: dict[str, Any]) -> None:
    with pytest.raises(StoreError):
        store.record(event("e", **bad))
    assert store.record(event("f"))


def test_fifty_threads_get_exactly_as_many_continues_as_the_ceiling(store: Store) -> None:
    barrier, stand = threading.Barrier(50), []

    def ask(index: int) -> None:
        barrier.wait(DEADLINE_S)
        stand.append(store.record(event(f"e{index}", decision="continue"), 7))

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)

    assert (len(stand), sum(stand)) == (50, 7)
    assert store.continues("s") == 7
    assert len(store.events(outcome="continue")) == 7
    assert len(store.events(outcome="force_allow")) == 43


PROCESSES = """
import multiprocessing, sys
from pathlib import Path
from instar.gate.store import Event, Store

fork = multiprocessing.get_context("fork")  # which imports all that once
start, stood = fork.Barrier(8), fork.SimpleQueue()

def ask(name):
    start.wait(60)
    store = Store.open(Path(sys.argv[1]), busy_s=30)
    stood.put([store.record(Event(f"{name}-{n}", "s", 1, "enforce", "continue"), 11) for n in range(6)])

processes = [fork.Process(target=ask, args=(name,)) for name in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join(60)
print(sum(sum(stood.get()) for process in processes if process.exitcode == 0))
"""


def test_eight_processes_get_exactly_as_many_continues_as_the_ceiling(path: Path) -> None:
    """They also make the database, all at once."""
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(path)], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )

    assert int(done.stdout) == 11, done
    assert raw(path, "SELECT count FROM session_continue_counts") == [(11,)]
    assert raw(path, "SELECT count(*) FROM events") == [(48,)]
    assert raw(path, "SELECT triggered_count FROM agent_eval_aggregate") == [(48,)]


ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from instar.gate.store import Event, Store
store = Store.open(Path(sys.argv[1]))
for n in count():
    store.record(Event(str(n), "s", 1, "enforce", "continue"), 10**9)
    print(n, flush=True)
"""


def test_a_writer_that_is_killed_leaves_rows_and_counts_that_agree(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [int(process.stdout.readline()) for _ in range(50)]
        process.kill()

    with closing(Store.open(path)) as store:
        assert store.troubles == []
        rows = len(store.events(None))
        assert rows == store.continues("s") == aggregate(path)[2]
        assert rows > seen[-1]
        assert store.record(event("next", decision="continue"), rows + 1)
        assert not store.record(event("last", decision="continue"), rows + 1)


def test_the_first_word_on_a_sessions_start_stays(store: Store) -> None:
    assert store.session_start("s") is None
    store.session_started("s", 5)
    store.session_started("s", 9)

    assert store.session_start("s") == 5


def test_things_are_counted_by_day(store: Store) -> None:
    for name, day in (("no-signal", None), ("no-signal", None), ("compaction", "2020-01-01")):
        store.count(name, day)

    assert store.counters() == {"no-signal": 2, "compaction": 1}
    assert store.counters(day_of(NOW_MS)) == {"no-signal": 2}


@pytest.mark.parametrize(
    ("ms", "day"), [(0, "1970-01-01"), (DAY_MS - 1, "1970-01-01"), (-(2**70), "0001-01-01"), (2**70, "9999-12-31")]
)
def test_any_time_is_of_some_day(ms: int, day: str) -> None:
    assert day_of(ms) == day


def test_a_word_counts_after_having_looked(store: Store) -> None:
    store.record(event("e"))

    assert not store.annotate("e", "me", "correct", "", DWELL_MS - 1)
    assert store.annotate("e", "me", "incorrect", "why", DWELL_MS)
    assert [each["verdict"] for each in store.annotations("e")] == ["correct", "incorrect"]
    assert store.annotations("x") == []
    with pytest.raises(LookupError):
        store.annotate("x", "me", "correct")
    with pytest.raises(StoreError):
        store.annotate("e", "me", "great")


def test_the_later_word_is_the_later_one_when_the_clock_went_back(path: Path) -> None:
    now = [NOW_MS / 1000]
    with closing(Store.open(path, clock=lambda: now[0])) as store:
        store.record(event("e"))
        store.annotate("e", "me", "correct")
        now[0] -= 3600
        store.annotate("e", "me", "unclear")

        assert [each["verdict"] for each in store.annotations()] == ["correct", "unclear"]


def test_changes_are_kept_in_their_order(store: Store) -> None:
    store.audit("mode", "off", "shadow", "me", "to see")
    store.audit("kill-switch", None, "true", None, None)

    assert [(each["kind"], each["next"], each["ts"]) for each in store.audits()] == [
        ("mode", "shadow", NOW_MS), ("kill-switch", "true", NOW_MS),
    ]  # fmt: skip


def test_what_is_old_is_forgotten_with_what_was_said_of_it(store: Store, path: Path) -> None:
    for name, ts in (("old", NOW_MS - DAY_MS), ("new", NOW_MS)):
        store.record(event(name, session_id=name, ts=ts, decision="continue"), 0)
        store.record(event(f"{name}2", session_id=name, ts=ts, decision="continue"), 1)
        store.annotate(name, "me", "correct")
        store.session_started(name, ts)
    store.audit("mode", "off", "shadow", "me", "")
    store.prune(NOW_MS)

    assert {each["session_id"] for each in store.events()} == {"new"}
    assert [each["event_id"] for each in store.annotations()] == ["new"]
    assert (store.session_start("old"), store.session_start("new")) == (None, NOW_MS)
    assert (store.continues("old"), store.continues("new")) == (0, 1)
    assert [each["session_id"] for each in store.stuck()] == ["new"]
    assert store.counters() == {CEILING: 1}
    assert len(store.audits()) == 1
    assert len(raw(path, "SELECT * FROM agent_eval_aggregate")) == 2


def test_the_files_are_for_nobody_else(store: Store, path: Path) -> None:
    store.record(event("e"))

    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
    assert path.with_name(path.name + "-wal").exists()


def test_a_step_and_its_record_are_written_together_or_not_at_all(path: Path) -> None:
    def half(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half (x)"))
        connection.execute(sa.text("CREATE TABLE half (x)"))

    with closing(Store.open(path, steps=(*STEPS, Step("9-half", half), Step("A-never", half)))) as store:
        (trouble,) = store.troubles
        assert "half already exists" in trouble
    assert raw(path, "SELECT name FROM schema_steps ORDER BY applied_at, name") == [(step.name,) for step in STEPS]
    assert raw(path, "SELECT name FROM sqlite_master WHERE name = 'half'") == []

    def whole(connection: sa.Connection) -> None:
        connection.execute(sa.text("CREATE TABLE half (x)"))

    for _ in range(2):
        with closing(Store.open(path, steps=(*STEPS, Step("9-half", whole)))) as store:
            assert store.troubles == []
    assert raw(path, "SELECT count(*) FROM schema_steps WHERE name = '9-half'") == [(1,)]


def test_the_steps_lead_to_the_tables_that_are_used(store: Store, path: Path) -> None:
    assert store.troubles == []
    for table in METADATA.sorted_tables:
        columns = [row[1] for row in raw(path, f"PRAGMA table_info({table.name})")]
        assert sorted(columns) == sorted(table.columns.keys())


# As instar makes it.
PEER = """
CREATE TABLE events (event_id TEXT PRIMARY KEY, session_id TEXT NOT NULL, agent_id TEXT NOT NULL, ts INTEGER NOT NULL,
  mode TEXT NOT NULL, decision TEXT, rule TEXT, invalid_kind TEXT, evidence_pointer_json TEXT,
  latency_ms INTEGER NOT NULL, reason_preview TEXT NOT NULL);
CREATE TABLE session_continue_counts (session_id TEXT PRIMARY KEY, count INTEGER NOT NULL DEFAULT 0,
  updated_at INTEGER NOT NULL);
INSERT INTO events VALUES ('theirs', 's', 'a', 1, 'shadow', 'allow', NULL, NULL, NULL, 3, 'x');
INSERT INTO session_continue_counts VALUES ('s', 1, 1);
"""


def test_a_database_of_instars_is_taken_over(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(PEER)
    path.chmod(0o644)

    with closing(Store.open(path)) as store:
        assert store.record(event("ours", decision="continue", provider="rules"), 2)
        assert not store.record(event("more", decision="continue"), 2)
        assert [each["event_id"] for each in store.events()] == ["more", "ours", "theirs"]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", [b"this is no database, whatever it is called" * 100, b"\0" * 5000])
def test_a_damaged_database_is_kept_and_a_new_one_begun(path: Path, damage: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(damage)
    path.with_name(path.name + "-wal").write_bytes(b"old")

    with closing(Store.open(path, clock=lambda: 1234.5)) as store:
        assert ["was damaged" in trouble for trouble in store.troubles] == [True]
        assert store.record(event("e"))
    assert path.with_name(f"{path.name}.corrupt-1234").read_bytes() == damage
    assert raw(path, "SELECT event_id FROM events") == [("e",)]


def test_damage_within_is_found_at_the_next_opening(path: Path) -> None:
    with closing(Store.open(path)) as store:
        for index in range(200):
            store.record(event(str(index), reason_preview="x" * 500))
    with path.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(os.urandom(4096 * 20))

    with closing(Store.open(path)) as store:
        assert len(store.troubles) == 1
        assert store.events() == []
        assert store.record(event("e"))


def test_a_locked_database_is_told_and_used_again_when_it_is_free(path: Path) -> None:
    with closing(Store.open(path, busy_s=0.05)) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.record(event("e", decision="continue"), 2)
        assert store.continues("s") == 0
        other.rollback()

        assert store.record(event("e", decision="continue"), 2)
        assert store.troubles == []


def test_a_database_that_is_locked_from_the_start_is_none_that_is_damaged(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as other:
        other.executescript(PEER)
        other.execute("BEGIN EXCLUSIVE")
        with closing(Store.open(path, busy_s=0.05)) as store:
            assert len(store.troubles) == 1
            with pytest.raises(StoreError, match="locked"):
                store.events()
            other.rollback()
            assert [each["event_id"] for each in store.events()] == ["theirs"]
    assert not list(path.parent.glob("*.corrupt-*"))


FULL = """
import resource, sys
from pathlib import Path
from instar.gate.store import Event, Store, StoreError
store = Store.open(Path(sys.argv[1]))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
try:
    for n in range(10_000):
        store.record(Event(str(n), "s", 1, "enforce", "continue", reason_preview="x" * 1000), 10_000)
except StoreError as error:
    rows, count = len(store.events(None)), store.continues("s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    print(rows == count == n, store.record(Event("more", "s", 1, "enforce", "continue"), 10_000), error)
"""


def test_a_full_disk_is_told_and_the_database_used_again_when_there_is_room(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )

    assert done.stdout.startswith("True True cannot use "), done


def test_a_folder_that_is_none_is_told_at_every_call(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store.open(tmp_path / "file" / "stop-gate.db")

    assert len(store.troubles) == 1
    for _ in range(2):
        with pytest.raises(StoreError):
            store.record(event("e"))
    (tmp_path / "file").unlink()
    assert store.record(event("e"))
    store.close()


def test_a_database_that_is_removed_is_made_again(store: Store, path: Path) -> None:
    store.record(event("a"))
    for file in path.parent.iterdir():
        file.unlink()

    assert store.record(event("b"))
    assert raw(path, "SELECT event_id FROM events") == [("b",)]


def test_open_for_reading_only_nothing_is_made_and_nothing_written(path: Path) -> None:
    with closing(Store.open(path, is_read_only=True)) as reader, pytest.raises(StoreError):
        reader.events()
    assert not path.parent.exists()

    with closing(Store.open(path)) as store, closing(Store.open(path, is_read_only=True)) as reader:
        store.record(event("e"))
        assert [each["event_id"] for each in reader.events()] == ["e"]
        with pytest.raises(StoreError, match="reading only"):
            reader.record(event("f"))


def test_a_damaged_database_is_not_moved_by_a_reader(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database" * 1000)

    with closing(Store.open(path, is_read_only=True)) as reader, pytest.raises(StoreError, match="not a database"):
        reader.events()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_readers_see_one_state_while_somebody_writes(path: Path) -> None:
    with closing(Store.open(path)) as store:
        database = Database(path, steps=STEPS)
        with database.reading() as connection:
            before = connection.scalar(sa.text("SELECT count(*) FROM events"))
            store.record(event("e"))
            assert connection.scalar(sa.text("SELECT count(*) FROM events")) == before == 0
        database.close()
