"""Does something to the marks of a peer over and over, and is killed at each file it is about to touch, one later each.

Called with a folder and the name of what to do. Each time is a project of its own below the folder: 0, 1, 2 and so on.
The last one comes to its end.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.lifecycle.memory.marks import Marks
from instar.sessions.parking.markers import FOLDER, Park

if TYPE_CHECKING:
    from collections.abc import Callable

PEER: Final = "claude-code-bob"
PARK: Final = Park(
    id="p", session_id="s", at="2026-01-01T00:00:00.000Z", by="reaper", reason="reaped-idle", status="completed",
    agent={"pid": 1, "start": "1", "boot": "b"}, resume={"argv": ["claude"], "cwd": "/"},
)  # fmt: skip
SESSION: Final = {"identity": PEER, "runtime": "claude-code", "personality": "bob", "cwd": "/", "wokeAt": 1}
TOUCHES: Final = ("open", "os.rename", "os.remove", "os.mkdir")


def prepare(marks: Marks) -> None:
    """Leave a peer that was parked, with something in every file."""
    marks.parks.write_intent(PEER, PARK)
    marks.parks.promote(PEER)
    marks.save_session(PEER, SESSION)
    marks.add_topic(PEER, "old")
    marks.record_death(PEER, of="old")


def _wake(marks: Marks) -> None:
    marks.take_park(PEER)
    marks.save_session(PEER, {**SESSION, "wokeAt": 2})
    marks.finish_park(PEER)


def _fail(marks: Marks) -> None:
    marks.take_park(PEER)
    marks.give_back_park(PEER)


WHAT: Final[dict[str, Callable[[Marks], Any]]] = {
    "wake": _wake,
    "fail": _fail,
    "save": lambda marks: marks.save_session(PEER, {**SESSION, "wokeAt": 2}),
    "topic": lambda marks: marks.add_topic(PEER, "new"),
    "death": lambda marks: marks.record_death(PEER, of="new"),
    "stop": lambda marks: marks.set_stopped(PEER),
    "claim": lambda marks: marks.claim(PEER),
}


def _killed_at(number: int, root: Path, act: Callable[[Marks], Any]) -> bool:
    """Do it, and die before the file of that number is touched; say whether it came to that."""
    marks = Marks(root)
    prepare(marks)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    folder, touched = str(root / FOLDER), 0

    def die(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal touched
        if event in TOUCHES and str(arguments[0]).startswith(folder):
            if touched == number:
                os.kill(os.getpid(), signal.SIGKILL)
            touched += 1

    sys.addaudithook(die)
    act(marks)
    os._exit(0)


if __name__ == "__main__":
    for step in range(1000):
        if not _killed_at(step, Path(sys.argv[1]) / str(step), WHAT[sys.argv[2]]):
            break
