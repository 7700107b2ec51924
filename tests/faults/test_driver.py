"""The driver breaks what it is told to break, at the call it is told, and nothing else."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.faults.harness import DRIVER, Done, Log, faults, run

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import errno, fcntl, os, subprocess, sys
from pathlib import Path

def show(name):
    try:
        ACTIONS[name]()
    except OSError as error:
        print(name, errno.errorcode[error.errno])

def write():
    with open("text", "w") as file:
        file.write("x" * 100)

def lock():
    with Path("lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

ACTIONS = {
    "mkdir": lambda: os.makedirs("a/b"),
    "write": write,
    "replace": lambda: Path("text").replace("other"),
    "lock": lock,
    "spawn": lambda: subprocess.run(["true"], check=True),
    "unlink": lambda: Path("lock").unlink(),
    "descriptor": lambda: os.write(os.open("raw", os.O_WRONLY | os.O_CREAT), b"y" * 10),
}
for name in ACTIONS:
    show(name)
print(Path(__file__).name, __name__, sys.argv[1:])
"""
CALLS = [
    "mkdir a", "mkdir b", "open text", "write text", "replace text", "open lock", "flock", "spawn", "unlink lock",
    "open raw", "write", "write",
]  # fmt: skip


@pytest.fixture
def script(tmp_path: Path) -> Path:
    place = tmp_path / "script.py"
    place.write_text(SCRIPT, encoding="utf-8")
    (tmp_path / "work").mkdir()
    return place


def drive(script: Path, fault: str, *options: str) -> Done:
    folder = script.parent / "work"
    return run([sys.executable, *options, DRIVER, fault, script, "an argument"], folder, dict(os.environ))


def names(script: Path) -> list[str]:
    """Return the edge calls of the script, with the names they are about."""
    log = Log(script.parent / "calls")
    drive(script, log.fault, "-I", "-S")
    return [f"{call.name} {call.about}" if call.about.isalpha() else call.name for call in log.read()]


@pytest.mark.parametrize("options", [(), ("-I", "-S")])
def test_a_script_that_is_not_broken_runs_as_it_would(script: Path, options: tuple[str, ...]) -> None:
    done = drive(script, "none", *options)

    assert (done.status, done.stderr) == (0, b"")
    assert done.stdout == b"script.py __main__ ['an argument']\n"
    assert (script.parent / "work/other").read_text() == "x" * 100


def test_every_edge_call_is_seen(script: Path) -> None:
    assert names(script) == CALLS


@pytest.mark.parametrize("at", range(1, len(CALLS) + 1))
def test_a_kill_comes_right_before_or_right_after_the_call(script: Path, at: int) -> None:
    work = script.parent / "work"
    seen = []
    for moment in ("before", "after"):
        for place in sorted(work.rglob("*"), reverse=True):
            place.rmdir() if place.is_dir() else place.unlink()
        assert drive(script, f"kill-{moment}@{at}").was_killed
        seen.append({(place.name, place.stat().st_size if place.is_file() else 0) for place in work.rglob("*")})
    changes = CALLS[at - 1] not in ("flock", "spawn") and at != len(CALLS)
    assert (seen[0] != seen[1]) is changes


ERRORS = [("mkdir", 1, "ENOSPC"), ("mkdir", 2, "EIO"), ("write", 3, "EACCES"), ("write", 4, "ENOSPC"),
          ("replace", 5, "EIO"), ("lock", 7, "ENOLCK"), ("spawn", 8, "EAGAIN"), ("descriptor", 11, "EIO")]  # fmt: skip


@pytest.mark.parametrize(("name", "at", "error"), ERRORS)
def test_an_error_is_raised_by_its_call_alone(script: Path, name: str, at: int, error: str) -> None:
    first, *others = drive(script, f"{error}@{at}").stdout.decode().splitlines()

    assert first == f"{name} {error}"
    assert all("ENOENT" in line for line in others[:-1])  # what needs the file that is not there


def test_a_disk_that_is_gone_stays_gone_and_can_be_told_of(script: Path) -> None:
    lines = drive(script, "EROFS@3+").stdout.decode().splitlines()

    assert [line for line in lines if line.endswith("EROFS")] == [
        f"{name} EROFS" for name in ("write", "replace", "lock", "spawn", "unlink", "descriptor")
    ]


def test_a_short_write_is_completed_by_a_buffer_and_by_nobody_else(script: Path) -> None:
    work = script.parent / "work"
    drive(script, "short@4")
    assert (work / "other").read_text() == "x" * 100
    drive(script, "short@11")
    assert (work / "raw").read_bytes() == b"yyyyyyyyyy"
    (work / "raw").unlink()
    drive(script, "short@10")
    assert (work / "raw").read_bytes() == b"yyyyy"


CLOCKS = """
import datetime, json, time
print(json.dumps([time.time(), time.time_ns() / 1e9, time.strftime("%Y", time.gmtime()), time.strftime("%Y"),
                  datetime.datetime.now(datetime.timezone.utc).year, time.monotonic()]))
"""


def test_clocks_stand_still_or_are_stepped(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "script.py").write_text(CLOCKS, encoding="utf-8")

    still = json.loads(drive(tmp_path / "script.py", "wall=1000000000 steady=7").stdout)
    real, ahead = (json.loads(drive(tmp_path / "script.py", fault).stdout) for fault in ("none", "wall=+1000000000"))

    assert still == [1e9, 1e9, "2001", "2001", 2001, 7.0]
    assert 1e9 <= ahead[0] - real[0] < 1e9 + 60
    assert int(ahead[2]) >= int(real[2]) + 31


def test_every_point_of_a_kind_is_listed(script: Path) -> None:
    log = Log(script.parent / "calls")
    drive(script, log.fault)
    calls = log.read()

    assert list(faults("EIO", calls)) == [f"EIO@{number}" for number in range(1, len(CALLS) + 1)]
    assert list(faults("disk", calls))[:3] == ["EIO@1", "ENOSPC@2", "EIO@3"]
    assert list(faults("ENOLCK", calls)) == ["ENOLCK@7"]
    assert len(faults("short", calls)) == 3
    kills = list(faults("kill", calls))
    assert kills[-2:] == ["kill-after@8", f"kill-after@{len(CALLS)}"]
    assert len(kills) == len(CALLS) + 2
