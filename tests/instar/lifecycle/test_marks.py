"""What is remembered of a peer is whole, for nobody else to read, and survives a process that is killed anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import InstarError
from instar.lifecycle.deaths import Death
from instar.lifecycle.memory import folder as folders
from instar.lifecycle.memory import topics
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.memory.topics import clean_topic
from instar.sessions.clock import Clock, boot_id
from instar.sessions.parking.markers import FOLDER

from .killed import PARK, PEER, SESSION, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = 1_790_000_000.0


class Peer:
    """The marks of a project, and its clocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / FOLDER
        self.wall, self.monotonic, self.boot = NOW, 1000.0, "boot"
        self.marks = Marks(root, Clock(lambda: self.wall, lambda: self.monotonic, lambda: self.boot))

    def place(self, end: str) -> Path:
        return self.folder / f"{PEER}{end}"

    def write(self, end: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.place(end).write_bytes(content)

    def files(self) -> set[str]:
        return {path.name[len(PEER) :] for path in self.folder.iterdir() if not path.name.endswith(".lock")}


@pytest.fixture
def peer(tmp_path: Path) -> Peer:
    return Peer(tmp_path)


SETTERS: dict[str, tuple[Callable[[Marks], None], Callable[[Marks], bool], Callable[[Marks], None]]] = {
    ".stopped": (
        lambda marks: marks.set_stopped(PEER),
        lambda marks: marks.stopped(PEER),
        lambda marks: marks.clear_stopped(PEER),
    ),
    ".fresh-next": (
        lambda marks: marks.set_fresh_next(PEER),
        lambda marks: marks.fresh_next(PEER),
        lambda marks: marks.clear_fresh_next(PEER),
    ),
    ".new-eager": (
        lambda marks: marks.set_new_eager(PEER),
        lambda marks: marks.new_eager(PEER),
        lambda marks: marks.clear_new_eager(PEER),
    ),
    ".untold": (
        lambda marks: marks.set_untold(PEER),
        lambda marks: marks.untold(PEER),
        lambda marks: marks.clear_untold(PEER),
    ),
}


@pytest.mark.parametrize("end", SETTERS)
def test_what_is_wanted_of_a_peer_is_there_until_it_is_cleared(peer: Peer, end: str) -> None:
    put, is_there, clear = SETTERS[end]
    assert not is_there(peer.marks)
    for _ in range(2):
        put(peer.marks)
    assert [each(peer.marks) for _, each, _ in SETTERS.values()].count(True) == 1

    assert is_there(peer.marks)
    assert peer.place(end).read_text() == "2026-09-21T14:13:20.000Z\n"
    for _ in range(2):
        clear(peer.marks)
    assert not is_there(peer.marks)
    assert peer.files() == set()


@pytest.mark.parametrize("end", SETTERS)
def test_a_mark_is_there_whatever_it_holds(peer: Peer, end: str) -> None:
    peer.folder.mkdir(parents=True)
    peer.place(end).symlink_to("nowhere")

    assert SETTERS[end][1](peer.marks)


def test_the_files_are_for_their_owner(peer: Peer) -> None:
    marks = peer.marks
    prepare(marks)
    marks.set_last_delivered(PEER)
    marks.set_stopped(PEER)

    assert peer.folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in peer.folder.iterdir()} == {0o600}


def test_each_change_outlives_a_power_cut(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    sync = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        sync(fd)

    prepare(peer.marks)
    monkeypatch.setattr(os, "fsync", fsync)
    peer.marks.set_stopped(PEER)
    assert [name.startswith(f".{PEER}.stopped.") for name in synced] == [True, False]
    assert synced[1:] == [peer.folder.name]

    for change in (peer.marks.clear_stopped, peer.marks.take_park, peer.marks.finish_park):
        synced.clear()
        change(PEER)
        assert synced[-1:] == [peer.folder.name]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "bob.2", "a b", "a\n", "a\0", "é", "a" * 161])
def test_a_name_that_can_name_no_files_is_refused(peer: Peer, name: str) -> None:
    marks = peer.marks
    for act in (marks.stopped, marks.set_stopped, marks.session, marks.take_park, marks.deaths, marks.purge):
        with pytest.raises(InstarError, match="names no files"):
            act(name)
    assert not peer.folder.exists()


# The session that is watched.


def test_a_session_is_watched_until_it_is_dropped_and_keeps_what_it_is_not_known_for(peer: Peer) -> None:
    assert (peer.marks.session(PEER), peer.marks.identities()) == (None, [])
    peer.marks.save_session(PEER, {**SESSION, "other": [1]})

    assert peer.marks.session(PEER) == {**SESSION, "other": [1]}
    assert peer.marks.identities() == [PEER]
    peer.marks.drop_session(PEER)
    assert (peer.marks.session(PEER), peer.marks.identities()) == (None, [])


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"identity": "other"}', b"[" * 60_000, b" " * 70_000 + b"{}"],
    ids=lambda each: repr(each)[:20],
)
def test_a_session_that_cannot_be_read_is_told_and_stays_until_it_is_put_aside(peer: Peer, content: bytes) -> None:
    peer.write(".session", content)
    peer.marks.save_session("codex-cli-eve", {})

    for act in (peer.marks.session, peer.marks.claim):
        with pytest.raises(InstarError, match=r"\.session"):
            act(PEER)
    assert peer.place(".session").read_bytes() == content
    assert peer.marks.identities() == [PEER, "codex-cli-eve"]
    aside = peer.marks.put_session_aside(PEER)
    assert aside is not None
    assert aside.read_bytes() == content
    assert peer.marks.identities() == ["codex-cli-eve"]


def test_it_is_told_for_how_long_a_session_stands_as_it_does(peer: Peer) -> None:
    assert peer.marks.session_age_s(PEER) == 0.0
    peer.write(".session", b"{")
    os.utime(peer.place(".session"), (NOW - 60, NOW - 60))
    assert peer.marks.session_age_s(PEER) == 60.0


def test_a_pipe_keeps_nobody_waiting(peer: Peer) -> None:
    peer.folder.mkdir(parents=True)
    os.mkfifo(peer.place(".session"))

    with pytest.raises(InstarError):
        peer.marks.session(PEER)


def test_one_alone_tells_of_a_death(peer: Peer) -> None:
    assert not peer.marks.claim(PEER)
    peer.marks.save_session(PEER, SESSION)

    assert [peer.marks.claim(PEER) for _ in range(2)] == [True, False]
    assert peer.files() == {".session.reaping"}
    assert peer.marks.identities() == [PEER]
    peer.marks.drop_claim(PEER)
    assert peer.files() == set()


CLAIMER = """
import sys
from pathlib import Path
from instar.lifecycle.memory.marks import Marks

marks = Marks(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(sum(marks.claim(f"claude-code-{number}") for number in range(20)))
"""


@pytest.fixture
def at_once(tmp_path: Path) -> Iterator[Callable[[str], list[str]]]:
    """Return what runs a script in four processes that begin at its `readline` together; it returns what they print."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    started: list[subprocess.Popen[str]] = []

    def run(script: str) -> list[str]:
        for number in range(4):
            command = [sys.executable, "-c", script, str(tmp_path), str(number)]
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env))
        for each in started:
            assert each.stdout
            assert each.stdout.readline() == "ready\n"
        for each in started:
            assert each.stdin
            each.stdin.write("\n")
            each.stdin.flush()
        return [each.communicate(timeout=100)[0] for each in started]

    yield run
    for each in started:
        each.kill()
        each.communicate()


def test_of_processes_that_claim_at_once_each_death_has_one(peer: Peer, at_once: Callable[[str], list[str]]) -> None:
    for number in range(20):
        peer.marks.save_session(f"claude-code-{number}", {})

    assert sum(map(int, at_once(CLAIMER))) == 20


@pytest.fixture
def dead_stamp() -> dict[str, Any]:
    """Return the stamp of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return {"pid": process.pid, "start": "1", "boot": boot_id()}


def claimed(peer: Peer, **changes: Any) -> None:
    """Leave a claim, with these changes to what it says of who made it."""
    peer.marks.save_session(PEER, SESSION)
    assert peer.marks.claim(PEER)
    place = peer.place(".session.reaping")
    values = json.loads(place.read_bytes())
    place.write_text(json.dumps({**values, "claimed": {**values["claimed"], **changes}}))


def test_a_death_whose_claimer_died_is_claimed_again_after_a_minute(peer: Peer, dead_stamp: dict[str, Any]) -> None:
    claimed(peer, **dead_stamp)
    peer.monotonic += 60
    assert not peer.marks.reclaim(PEER)

    peer.monotonic += 1
    assert peer.marks.reclaim(PEER)
    assert peer.files() == {".session"}
    assert peer.marks.claim(PEER)


def test_a_death_whose_claimer_lives_is_left_to_it(peer: Peer) -> None:
    claimed(peer)
    peer.monotonic += 1e6

    assert not peer.marks.reclaim(PEER)
    assert peer.marks.identities() == [PEER]


@pytest.mark.parametrize("at", [None, {}, {"boot": "before", "wall": 1, "monotonic": 9e9}])
def test_a_claim_of_another_boot_or_of_no_moment_is_over(peer: Peer, dead_stamp: dict[str, Any], at: object) -> None:
    claimed(peer, **dead_stamp, at=at)

    assert peer.marks.reclaim(PEER)


def test_a_claim_that_nobody_can_judge_stays(peer: Peer) -> None:
    for claim in (None, "x", {"pid": "1"}):
        peer.write(".session.reaping", json.dumps({**SESSION, "claimed": claim}).encode())
        assert not peer.marks.reclaim(PEER)
        assert peer.files() == {".session.reaping"}


def test_where_a_newer_session_is_watched_an_old_claim_is_dropped(peer: Peer, dead_stamp: dict[str, Any]) -> None:
    claimed(peer, **dead_stamp)
    peer.monotonic += 61
    peer.marks.save_session(PEER, {**SESSION, "wokeAt": 2})

    assert not peer.marks.reclaim(PEER)
    assert peer.files() == {".session"}
    assert peer.marks.session(PEER) == {**SESSION, "wokeAt": 2}


# Topics.


def test_topics_are_trimmed_kept_once_the_newest_last_and_not_too_many(peer: Peer) -> None:
    assert peer.marks.topics(PEER) == []
    for topic in (" a ", "b", "", "  ", "a"):
        peer.marks.add_topic(PEER, topic)
    assert peer.marks.topics(PEER) == ["b", "a"]
    assert peer.place(".topic").read_bytes() == b"b\na\n"

    for number in range(20):
        peer.marks.add_topic(PEER, str(number))
    assert peer.marks.topics(PEER) == [str(number) for number in range(4, 20)]
    peer.marks.reset_topics(PEER, " new ")
    assert peer.marks.topics(PEER) == ["new"]
    peer.marks.reset_topics(PEER)
    assert peer.marks.topics(PEER) == []


@pytest.mark.parametrize("topic", ["a\nb", "a\r", "a\x00b", "a\x1bb", "a\u2028b", "a\x85b", "\ud800", "x" * 201])
def test_what_is_no_topic_is_refused_and_changes_nothing(peer: Peer, topic: str) -> None:
    peer.marks.add_topic(PEER, "old")
    for act in (peer.marks.add_topic, peer.marks.reset_topics):
        with pytest.raises(InstarError, match="a topic"):
            act(PEER, f"x{topic}x")
    assert peer.marks.topics(PEER) == ["old"]


def test_lines_that_are_no_topic_are_passed_over(peer: Peer) -> None:
    peer.write(".topic", b"a\n\xff\n\n\x1b[2J\n" + b"x" * 300 + b"\n b \na")

    assert peer.marks.topics(PEER) == ["b", "a"]


@given(st.lists(st.text(max_size=8).filter(str.strip), max_size=40))
def test_topics_are_read_as_they_were_written(said: list[str]) -> None:
    kept: list[str] = []
    for topic in said:
        try:
            kept.append(clean_topic(topic))
        except InstarError:
            continue

    found = topics.parsed(topics.written(kept))

    assert found == topics.parsed(topics.written(found))
    assert len(set(found)) == len(found) <= topics.KEPT
    assert found[-1:] == kept[-1:]
    assert set(found) == set(kept[-topics.KEPT :]) or len(found) == topics.KEPT


# Deaths.


def test_deaths_are_remembered_with_their_moment(peer: Peer) -> None:
    first = Death(NOW, 1000.0, "boot", of="s")
    assert peer.marks.deaths(PEER) == ()

    assert peer.marks.record_death(PEER, of="s") == (first,)
    peer.wall += 5
    peer.monotonic += 5
    assert peer.marks.record_death(PEER, is_failed_wake=True) == (
        first, Death(NOW + 5, 1005.0, "boot", is_failed_wake=True),
    )  # fmt: skip
    assert peer.marks.deaths(PEER) == peer.marks.change_deaths(PEER, lambda ring: ring)
    assert json.loads(peer.place(".deaths").read_bytes())[0]["at"] == 1_790_000_000_000
    assert peer.marks.change_deaths(PEER, lambda ring: ring[1:])[0].is_failed_wake
    assert len(peer.marks.deaths(PEER)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b'["x"]', b"\xff", b"[" * 60_000, b"[" + b"1," * 40_000 + b"1]"], ids=len
)
def test_deaths_that_cannot_be_read_are_one_death_now_and_a_copy_is_kept(peer: Peer, content: bytes) -> None:
    peer.write(".deaths", content)

    assert peer.marks.deaths(PEER) == (Death(NOW, 1000.0, "boot"),)
    peer.wall += 5
    assert peer.marks.deaths(PEER) == (Death(NOW, 1000.0, "boot"),)
    assert peer.place(f".deaths.corrupt-{int(NOW)}").read_bytes() == content


def test_a_death_after_deaths_that_cannot_be_read_makes_two(peer: Peer) -> None:
    peer.write(".deaths", b"{")

    assert len(peer.marks.record_death(PEER)) == 2


def test_why_a_session_ended_is_told_of_that_session_alone(peer: Peer) -> None:
    assert peer.marks.ended(PEER, "7:5:boot") is None
    peer.marks.set_ended(PEER, "7:5:boot", "clean-exit")

    assert peer.marks.ended(PEER, "7:5:boot") == "clean-exit"
    assert [peer.marks.ended(PEER, of) for of in ("8:5:boot", "")] == [None, None]
    peer.marks.set_ended(PEER, "", "crash")
    assert [peer.marks.ended(PEER, of) for of in ("7:5:boot", "")] == [None, None]


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b"\xff", b'{"identity": "%s", "of": "o", "cause": "luck"}' % PEER.encode()]
)
def test_why_a_session_ended_is_not_told_where_it_cannot_be_read_and_can_be_put_down_anew(
    peer: Peer, content: bytes
) -> None:
    peer.write(".ended", content)
    assert peer.marks.ended(PEER, "o") is None
    peer.marks.set_ended(PEER, "o", "crash")
    assert peer.marks.ended(PEER, "o") == "crash"


def test_a_link_is_not_followed(peer: Peer, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"[]")
    peer.folder.mkdir(parents=True)
    peer.place(".deaths").symlink_to(target)

    assert len(peer.marks.deaths(PEER)) == 1
    assert target.read_bytes() == b"[]"
    assert not peer.place(".deaths").is_symlink()


# Deliveries.


def test_a_delivery_is_remembered_and_never_lies_ahead(peer: Peer) -> None:
    assert peer.marks.last_delivered(PEER) is None
    peer.marks.set_last_delivered(PEER)

    assert peer.place(".last-delivered").read_bytes() == b"1790000000000\n"
    assert peer.marks.last_delivered(PEER) == NOW
    peer.wall -= 100
    assert peer.marks.last_delivered(PEER) == NOW - 100


@pytest.mark.parametrize("content", [b"", b"x", b"-5", b"1.5", b"\xb2", b"9" * 17, b"9" * 5000])
def test_a_delivery_that_tells_no_moment_is_told(peer: Peer, content: bytes) -> None:
    peer.write(".last-delivered", content)

    with pytest.raises(InstarError, match="no moment"):
        peer.marks.last_delivered(PEER)


# The park marker, in two steps.


def parked(peer: Peer) -> Marks:
    peer.marks.parks.write_intent(PEER, PARK)
    peer.marks.parks.promote(PEER)
    return peer.marks


def test_what_was_parked_is_used_up_in_two_steps(peer: Peer) -> None:
    marks = parked(peer)

    assert marks.take_park(PEER) == PARK
    assert peer.files() == {".idle-reaped.inuse"}
    assert marks.is_parked(PEER)
    marks.finish_park(PEER)
    assert not marks.is_parked(PEER)
    assert (marks.parked(PEER), marks.take_park(PEER)) == (None, None)
    marks.give_back_park(PEER)
    assert peer.files() == set()


def test_a_wake_that_comes_to_nothing_leaves_it_parked(peer: Peer) -> None:
    marks = parked(peer)
    before = peer.place(".idle-reaped").read_bytes()
    marks.take_park(PEER)

    marks.give_back_park(PEER)

    assert peer.files() == {".idle-reaped"}
    assert peer.place(".idle-reaped").read_bytes() == before
    assert marks.take_park(PEER) == PARK


@pytest.mark.parametrize("again", ["parked", "take_park"])
def test_what_a_wake_that_broke_off_had_taken_counts_as_parked(peer: Peer, again: str) -> None:
    marks = parked(peer)
    marks.take_park(PEER)

    assert getattr(Marks(peer.root), again)(PEER) == PARK


def test_of_two_the_later_parking_counts(peer: Peer) -> None:
    marks = parked(peer)
    place = peer.place(".idle-reaped")
    peer.write(".idle-reaped.inuse", place.read_bytes().replace(b'"s"', b'"older"'))

    assert marks.take_park(PEER) == PARK
    assert peer.files() == {".idle-reaped.inuse"}
    assert b"older" not in peer.place(".idle-reaped.inuse").read_bytes()


def test_a_marker_that_cannot_be_read_is_told_and_not_used(peer: Peer) -> None:
    peer.write(".idle-reaped", b"\n{")

    with pytest.raises(InstarError, match="cannot be read"):
        peer.marks.take_park(PEER)
    assert peer.files() == {".idle-reaped"}


def test_a_bare_marker_of_another_writer_is_used_too(peer: Peer) -> None:
    peer.write(".idle-reaped", b"2026-01-01T00:00:00Z\n")

    park = peer.marks.take_park(PEER)

    assert park is not None
    assert (park.at, park.session_id) == ("2026-01-01T00:00:00Z", "")


# Processes that are killed, and others.


def killed(root: Path, what: str) -> list[Marks]:
    """Return the marks of a peer after `what` was broken off at each step; the last one is whole."""
    script = Path(__file__).with_name("killed.py")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, str(script), str(root), what], env=env, check=True, timeout=100)
    found = [Marks(root / str(number)) for number in range(len(list(root.iterdir())))]
    assert len(found) > 3
    return found


def test_a_wake_that_is_killed_anywhere_loses_no_parking_before_the_session_is_watched(tmp_path: Path) -> None:
    *broken, whole = killed(tmp_path, "wake")

    seen = [((marks.session(PEER) or {})["wokeAt"], marks.is_parked(PEER), marks.parked(PEER)) for marks in broken]
    assert all(each in ((1, True, PARK), (2, True, PARK), (2, False, None)) for each in seen)
    assert (1, True, PARK) in seen
    assert (2, True, PARK) in seen
    assert not whole.is_parked(PEER)


def test_giving_back_that_is_killed_anywhere_loses_no_parking(tmp_path: Path) -> None:
    assert [marks.take_park(PEER) for marks in killed(tmp_path, "fail")].count(PARK) >= 3
    assert all(marks.is_parked(PEER) for marks in killed(tmp_path / "again", "fail"))


@pytest.mark.parametrize(
    ("what", "look", "before", "after"),
    [
        ("save", lambda marks: marks.session(PEER)["wokeAt"], 1, 2),
        ("topic", lambda marks: marks.topics(PEER), ["old"], ["old", "new"]),
        ("death", lambda marks: [each.of for each in marks.deaths(PEER)], ["old"], ["old", "new"]),
        ("stop", lambda marks: marks.stopped(PEER), False, True),
    ],
)
def test_a_change_that_is_killed_anywhere_was_made_or_was_not(
    tmp_path: Path, what: str, look: Callable[[Marks], Any], before: object, after: object
) -> None:
    found = [look(marks) for marks in killed(tmp_path, what)]

    assert set(map(str, found)) == {str(before), str(after)}
    assert found[-1] == after
    assert found == sorted(found, key=lambda each: each == after)


def test_a_claim_that_is_killed_anywhere_loses_no_death(tmp_path: Path) -> None:
    for marks in killed(tmp_path, "claim"):
        assert marks.identities() == [PEER]
        later = Marks(marks.parks.folder.parents[2], Clock(boot=lambda: "next"))
        assert later.claim(PEER) or later.reclaim(PEER)


def test_what_killed_writers_left_is_swept_by_the_next(tmp_path: Path) -> None:
    for marks in killed(tmp_path, "topic"):
        marks.add_topic(PEER, "next")
        assert not list(marks.parks.folder.glob(f".{PEER}.topic.*"))


ADDER = """
import sys
from pathlib import Path
from instar.lifecycle.memory.marks import Marks

marks = Marks(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    {change}
"""


def test_of_topics_that_processes_add_at_once_none_is_lost(peer: Peer, at_once: Callable[[str], list[str]]) -> None:
    at_once(ADDER.format(change='marks.add_topic("claude-code-bob", f"{sys.argv[2]}-{number}")'))

    assert sorted(peer.marks.topics(PEER)) == sorted(f"{who}-{number}" for who in range(4) for number in range(4))


def test_of_deaths_that_processes_add_at_once_none_is_lost(peer: Peer, at_once: Callable[[str], list[str]]) -> None:
    at_once(ADDER.format(change='marks.record_death("claude-code-bob")'))

    assert len(peer.marks.deaths(PEER)) == 16


def test_files_that_another_holds_for_long_are_told(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LOCK_S", 0.0)
    peer.folder.mkdir(parents=True)
    with FileLock(peer.place(folders.LOCK)), pytest.raises(InstarError, match="held by another"):
        peer.marks.set_stopped(PEER)
    assert not peer.marks.stopped(PEER)


def test_a_change_of_the_files_may_be_made_under_the_lock_of_the_peer(peer: Peer) -> None:
    with peer.marks.parks.lock(PEER):
        prepare(peer.marks)

        assert peer.marks.take_park(PEER) == PARK


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / FOLDER).parent.mkdir(parents=True)
    (tmp_path / FOLDER).touch()
    marks = Marks(tmp_path)

    for act in (marks.stopped, marks.set_stopped, marks.session, marks.take_park, marks.topics, marks.purge):
        with pytest.raises(InstarError, match="lifecycle"):
            act(PEER)
    with pytest.raises(InstarError, match="cannot be listed"):
        marks.identities()


def test_who_is_forgotten_leaves_nothing_but_locks_and_others_keep_all(peer: Peer) -> None:
    marks = peer.marks
    prepare(marks)
    marks.set_stopped(PEER)
    peer.write(".deaths.corrupt-1", b"")
    (peer.folder / f".{PEER}.topic.abc").touch()
    for other in (f"{PEER}2", f"{PEER}-2", "codex-cli-bob"):
        marks.set_stopped(other)

    marks.purge(PEER)

    left = {path.name for path in peer.folder.iterdir()}
    assert not any(name.startswith((f"{PEER}.", f".{PEER}.")) and not name.endswith(".lock") for name in left)
    assert f"{PEER}{folders.LOCK}" in left
    assert all(marks.stopped(other) for other in (f"{PEER}2", f"{PEER}-2", "codex-cli-bob"))
    marks.purge(PEER)
