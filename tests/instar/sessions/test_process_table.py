"""The process table is read once, and what it tells of a process is of that process."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from clients.waiting import wait_until
from instar.sessions.clock import boot_id
from instar.sessions.machine.process import Process, ProcReader, PsutilReader, Reader
from instar.sessions.machine.processes import SESSION_VARIABLES, Table, liveness, memory, read_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SESSION = f"session-of-{os.getpid()}"  # other test processes have their own
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="there is no /proc")
READERS = [pytest.param(ProcReader(), id="proc", marks=needs_proc), pytest.param(PsutilReader(), id="psutil")]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return what starts a Python program in a group of its own, of which nothing is left in the end."""
    started: list[subprocess.Popen[bytes]] = []

    def start(code: str, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", code, *arguments]
        started.append(subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **how))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stamp(process: Process, **other: Any) -> dict[str, Any]:
    return {"pid": process.pid, "start": process.start, "boot": boot_id(), **other}


def at_home(reader: Reader = ProcReader()) -> tuple[Table, Process]:  # noqa: B008 - it holds nothing
    """Return the table, and this very process in it."""
    table = read_table(reader=reader)
    me = table.get(os.getpid())
    assert me
    return table, me


@pytest.mark.parametrize("reader", READERS)
def test_a_process_is_told_as_it_is(reader: Reader) -> None:
    _, me = at_home(reader)

    real = psutil.Process()
    assert (me.pid, me.parent, me.uid) == (os.getpid(), os.getppid(), os.geteuid())
    assert me.name == real.name()
    assert list(me.argv) == real.cmdline()
    assert me.created == pytest.approx(real.create_time(), abs=2)
    assert me.cpu_s
    assert 0 < me.memory < 10**12
    assert not me.is_zombie


@needs_proc
def test_both_readers_tell_the_same() -> None:
    (proc, me), (ps, _) = at_home(ProcReader()), at_home(PsutilReader())
    chain = [me, *proc.above(me.pid)]

    assert len(chain) > 1
    for process in chain:
        same = ps.get(process.pid)
        assert same
        told = ("pid", "parent", "name", "argv", "terminal", "uid", "is_zombie")
        assert [getattr(process, name) for name in told] == [getattr(same, name) for name in told]
        assert process.created == pytest.approx(same.created, abs=2)


@pytest.mark.parametrize("reader", READERS)
def test_a_stamp_holds_for_one_process_of_one_boot(reader: Reader, run: Callable[..., subprocess.Popen[bytes]]) -> None:
    table, me = at_home(reader)

    assert table.stamped(stamp(me)) == me
    assert table.liveness(stamp(me)) == "alive"
    assert table.stamped(stamp(me, boot="another")) is None
    assert table.liveness(stamp(me, boot="another")) == "dead"
    assert table.liveness(stamp(me, start="no date")) == "unknown"
    ended = run("")
    ended.wait()
    assert table.liveness(stamp(me, pid=ended.pid)) == "dead"


@needs_proc
@pytest.mark.parametrize("off", [-1, 1, 100])
def test_a_process_that_got_the_number_of_another_is_another(off: int) -> None:
    table, me = at_home()
    reused = stamp(me, start=str(int(me.start) + off))

    assert table.stamped(reused) is None
    assert table.liveness(reused) == liveness(reused) == "dead"
    assert memory(reused) is None


@pytest.mark.parametrize(
    "agent",
    [None, 7, [], {}, {"pid": 1}, {"pid": "1", "start": "1"}, {"pid": True, "start": "1"}, {"pid": 1, "start": 1}],
)  # fmt: skip
def test_of_what_is_no_stamp_nothing_is_known(agent: object) -> None:
    assert liveness(agent) == read_table().liveness(agent) == "unknown"
    assert read_table().stamped(agent) is None
    assert memory(agent) is None


def test_a_date_stamps_a_process_where_there_are_no_ticks() -> None:
    table, me = at_home(PsutilReader())

    assert table.stamped(stamp(me)) == me
    assert table.liveness(stamp(me, start="Mon Jan  5 10:00:00 2015")) == "dead"
    assert table.liveness(stamp(me, start="12345")) == "unknown"


def test_what_may_not_be_looked_at_is_neither_alive_nor_dead() -> None:
    _, me = at_home()

    assert Table(0, [], hidden=[me.pid]).liveness(stamp(me)) == "unknown"
    assert Table(0, []).liveness(stamp(me)) == "dead"


class Hiding(ProcReader):
    """Hides one process, as a system may."""

    def look(self, pid: int) -> Process | None:
        if pid == os.getpid():
            raise PermissionError
        return super().look(pid)


@needs_proc
def test_a_process_that_is_hidden_hides_no_other() -> None:
    table = read_table(reader=Hiding())

    assert table.get(os.getpid()) is None
    assert table.get(os.getppid())


@needs_proc
def test_a_table_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        read_table(reader=ProcReader(str(tmp_path / "missing")))


@pytest.mark.parametrize("reader", READERS)
def test_a_zombie_is_dead(reader: Reader, run: Callable[..., subprocess.Popen[bytes]]) -> None:
    ended = run("")
    wait_until(lambda: psutil.Process(ended.pid).status() == psutil.STATUS_ZOMBIE, "it ended")

    process = read_table(reader=reader).get(ended.pid)

    assert process
    assert process.is_zombie
    assert read_table(reader=reader).liveness(stamp(process)) == "dead"


@needs_proc
def test_a_process_whose_first_thread_ended_lives(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    half = run(code)
    wait_until(lambda: psutil.Process(half.pid).status() == psutil.STATUS_ZOMBIE, "its first thread ended")

    process = read_table().get(half.pid)

    assert process
    assert liveness(stamp(process)) == "alive"


@pytest.mark.parametrize("reader", READERS)
def test_what_is_above_and_below_is_told_in_order(reader: Reader, run: Callable[..., subprocess.Popen[bytes]]) -> None:
    top = run("import os, signal\nfor _ in 'ab':\n    os.fork()\nsignal.pause()")
    wait_until(lambda: len(read_table().below(top.pid)) == 3, "all are there")
    table = read_table(reader=reader)

    below = table.below(top.pid)

    seen = {top.pid}
    for process in below:
        assert process.parent in seen
        seen.add(process.pid)
    chain = [process.pid for process in table.above(below[-1].pid)]
    assert chain[: chain.index(os.getpid()) + 1][-2:] == [top.pid, os.getpid()]
    assert table.below(2**22 + 1) == table.above(2**22 + 1) == []


@needs_proc
def test_a_tree_that_bites_its_tail_has_an_end() -> None:
    _, me = at_home()
    ring = [Process(**{**vars(me), "pid": pid, "parent": parent}) for pid, parent in ((1, 3), (2, 1), (3, 2))]
    table = Table(0, ring)

    assert [process.pid for process in table.below(1)] == [2, 3]
    assert [process.pid for process in table.above(1)] == [3, 2]


@needs_proc
def test_a_terminal_opened_after_the_first_look_is_known(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = (
        "import fcntl, signal, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "print('ready', flush=True)\nsignal.pause()"
    )
    for reader in (ProcReader(), PsutilReader(), ProcReader(), PsutilReader()):
        read_table(reader=reader)
        ours, theirs = pty.openpty()
        on_it = run(code, stdin=theirs, stdout=subprocess.PIPE)
        assert on_it.stdout
        assert on_it.stdout.readline()

        assert [process.pid for process in read_table(reader=reader).on_terminal(os.ttyname(theirs))] == [on_it.pid]
        on_it.kill()
        on_it.communicate()
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("variable", SESSION_VARIABLES)
def test_a_daemon_that_left_the_tree_still_carries_its_session(
    reader: Reader, variable: str, run: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    code = (
        "import os, signal\nos.fork() and os._exit(0)\nos.setsid()\nos.fork() and os._exit(0)\n"
        "open('pid.new', 'w').write(str(os.getpid()))\nos.rename('pid.new', 'pid')\nsignal.pause()"
    )
    run(code, env={variable: SESSION, "OTHER": "another"}).wait()
    wait_until((tmp_path / "pid").exists, "the daemon is there")
    daemon = int((tmp_path / "pid").read_text())
    try:
        table = read_table(reader=reader)

        assert [process.pid for process in table.carrying(SESSION)] == [daemon]
        assert table.carrying("another") == table.carrying("") == []
        assert daemon not in {process.pid for process in table.below(os.getpid())}
    finally:
        os.kill(daemon, signal.SIGKILL)


@needs_proc
def test_the_environment_of_a_process_that_got_the_number_is_not_told() -> None:
    _, me = at_home()

    assert ProcReader().environment(me)
    assert ProcReader().environment(Process(**{**vars(me), "start": "1"})) == {}


class Late(ProcReader):
    """Starts a process below it when half of the listed ones are read."""

    def __init__(self, start: Callable[[], int]) -> None:
        super().__init__()
        self.start = start
        self.late = 0

    def look(self, pid: int) -> Process | None:
        self.late = self.late or self.start()
        return super().look(pid)


@needs_proc
def test_who_comes_while_the_table_is_read_is_in_it(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    reader = Late(lambda: run("import signal; signal.pause()").pid)

    assert read_table(reader=reader).get(reader.late)


class Counting(ProcReader):
    """Counts the environments that it is asked for."""

    asked = 0

    def environment(self, process: Process) -> dict[str, str]:
        self.asked += 1
        return super().environment(process)


@needs_proc
def test_environments_are_read_once_and_only_when_asked_for() -> None:
    reader = Counting()
    table = read_table(reader=reader)
    assert reader.asked == 0

    for session in "abc":
        table.carrying(session)

    assert 0 < reader.asked <= len(list(table))


@needs_proc
def test_processes_that_come_and_go_are_no_end_of_a_look(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    storm = run("import os\nwhile True:\n    pid = os.fork()\n    if not pid: os._exit(0)\n    os.waitpid(pid, 0)")
    for _ in range(20):
        table = read_table()
        assert table.get(os.getpid())
        assert all(process.name for process in table)
    assert storm.poll() is None


@needs_proc
def test_a_look_starts_no_process_and_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208 - it is counted
    children = psutil.Process().children()

    table = read_table()
    table.carrying("x")

    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before  # noqa: PTH208 - it is counted
    assert psutil.Process().children() == children


def test_the_time_of_a_look_is_by_the_clock_it_is_given() -> None:
    assert read_table(lambda: 7.5).taken_at == 7.5
    assert read_table().taken_at == pytest.approx(time.monotonic(), abs=60)


@needs_proc
def test_processor_time_holds_what_children_used(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    code = (
        "import os, signal, time\nif not os.fork():\n    while time.process_time() < 0.3: pass\n    os._exit(0)\n"
        "os.wait()\nsignal.pause()"
    )
    parent = run(code)

    def used() -> float:
        process = read_table().get(parent.pid)
        return process.cpu_s or 0 if process else 0

    wait_until(lambda: used() >= 0.25, "the child's time is its parent's")


def test_memory_is_that_of_all_below(run: Callable[..., subprocess.Popen[bytes]]) -> None:
    top = run("import os, signal; os.fork(); signal.pause()")
    wait_until(lambda: len(read_table().below(top.pid)) == 1, "its child is there")
    table = read_table()
    process = table.get(top.pid)
    assert process

    assert process.memory < (memory(stamp(process)) or 0)
