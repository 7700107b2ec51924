"""Look at COUNT sessions TICKS times, each in a pane of one tmux server: `python benchmarks/sessions.py [COUNT TICKS]`.

All of them are idle. What is measured is the processor time of a look, here and in tmux, and the processes it starts. A
tenth of the sessions shows what a session more costs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import psutil

from instar.config import PATH
from instar.files import replace_file
from instar.sessions.assembly import Assembly
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.selftest import MadeUpClock
from instar.sessions.reaper.stage import Stage

STARTED: list[str] = []


def main(count: int, ticks: int) -> None:
    """Measure a tenth, and all; print both, and what they come to."""
    few, many = measure(count // 10, ticks), measure(count, ticks)
    for how_many, (seconds, processes) in ((count // 10, few), (count, many)):
        print(f"{how_many:>5} sessions: {seconds * 1000:8.1f} ms a look, {processes:.1f} processes started")
    print(f"ten times the sessions take {many[0] / few[0]:.1f} times as long")


def measure(count: int, ticks: int) -> tuple[float, float]:
    """Return the seconds of processor time, and the processes started, of a look at so many sessions."""
    with Stage() as stage:
        settings = {"minAgeMinutes": 0, "recentUserWindowMinutes": 0}  # or nobody's screen would have to be read
        replace_file(stage.project / PATH, json.dumps({"monitoring": {"sessionReaper": settings}}).encode())
        for number in range(count):
            stage.start(f"session-{number}")
        environ = {"INSTAR_SHARED_ROOT": str(stage.folder / "shared")}
        clock = MadeUpClock()
        assembly = Assembly(
            stage.project, environ, clock.clock(), read_pressure=lambda _: Readings(available_percent=50.0)
        )
        assembly.switch.set("dry-run", by="benchmark", reason="benchmark", now=time.time())
        server = psutil.Process(stage.server())
        assembly.reaper.tick()  # the first one reads every transcript
        STARTED.clear()
        before, began = server.cpu_times(), time.process_time()
        for _ in range(ticks):
            clock.passed += 120
            outcome = assembly.reaper.tick()
            assert outcome == "done", outcome
        used = time.process_time() - began + sum(server.cpu_times()[:2]) - sum(before[:2])
        rows = assembly.reaper.snapshot()["sessions"]
        assert {row["keptBy"] for row in rows} == {"all-clear"}, rows[:3]
        return used / ticks, len(STARTED) / ticks


def note(event: str, arguments: tuple[Any, ...]) -> None:
    """Count what is started."""
    if event in {"subprocess.Popen", "os.posix_spawn", "os.system", "os.fork", "os.forkpty"}:
        STARTED.append(str(arguments[0]) if arguments else event)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=500)
    parser.add_argument("ticks", type=int, nargs="?", default=5)
    options = parser.parse_args()
    sys.addaudithook(note)
    main(options.count, options.ticks)
