"""What the reaper is given: a look at sessions, the end of one, and the machine around them, each to be replaced."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instar.sessions import registry
from instar.sessions.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from instar.sessions.evidence import Marks
    from instar.sessions.policy import Policy
    from instar.sessions.reaper.pressure import Readings
    from instar.sessions.registry import Session
    from instar.sessions.verdict import Verdict


@dataclass(frozen=True)
class Seen:
    """A session in one look.

    `marks` is what the next look compares with, for JSON. `is_still` says that its screen is as in the marks that were
    handed in; False at first sight. `memory` is in bytes, with all below the agent; None where it cannot be told.
    `is_working` says that the session is shown at work: a turn is open, the transcript grew, a process works; not that
    it cannot be told. `is_quiet` says that its turn is closed and its screen stood still, whatever else keeps it.
    """

    session: Session
    verdict: Verdict
    marks: Marks = field(default_factory=dict)
    is_still: bool = False
    memory: int | None = None
    is_working: bool = False
    is_quiet: bool = False


@dataclass(frozen=True)
class Deps:
    """The edges of a reaper. Each may raise; what raises parks nobody.

    `policy` is asked at each tick, without the switch: the reaper applies it. `look` is handed sessions that are not
    over, and by their ids the marks of the last look; what it leaves out could not be told. `park` is handed a session
    id and "reaped-idle", "idle-zombie" or "age-limit", and returns `{"terminated": bool, "skipped": str | None}`.
    `recover` finishes or takes back what a reaper left half done. `read_pressure` is handed the last readings, which
    rates are measured from. `shared` is the folder of what concerns all projects; `host` tells machines apart.
    `sleep` and `chance`, of 0 to 1, spread what several reapers do at once.
    """

    policy: Callable[[], Policy]
    look: Callable[[Sequence[Session], Mapping[str, Marks], Policy], list[Seen]]
    park: Callable[[str, str], Mapping[str, Any]]
    recover: Callable[[], object]
    read_pressure: Callable[[Readings | None], Readings]
    shared: Path
    host: str
    clock: Clock = field(default_factory=Clock)
    sessions: Callable[[Path], list[Session]] = registry.sessions
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random
