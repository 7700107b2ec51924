"""What waking, watching and ending peers is given: looks, launches and ends, each to be replaced."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from instar.sessions.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from instar.lifecycle.clients.delivery import Delivered
    from instar.lifecycle.clients.launch import Launched
    from instar.lifecycle.ends import End
    from instar.lifecycle.memory.allowance import Allowance
    from instar.lifecycle.memory.marks import Marks
    from instar.lifecycle.peers import Broken, Peer
    from instar.lifecycle.policy import Policy
    from instar.services import Managed
    from instar.sessions.parking.markers import Markers, Park
    from instar.sessions.registry import Session

State = Literal["alive", "dead", "indeterminate"]


@dataclass(frozen=True)
class Life:
    """Whether a peer has a session, by its records, its process and its pane. `why` is for people.

    `session` is the record of the one that lives, else of the newest that did; None where there is none, as with a
    client that tells of itself at its first prompt only. `agent` is the stamp of the process, `tmux` that of the pane.
    """

    state: State
    why: str = ""
    session: Session | None = None
    agent: dict[str, Any] | None = None
    tmux: dict[str, Any] | None = None


@dataclass(frozen=True)
class Past:
    """What a peer would take up again: its last session, or the one that was parked.

    `cwd` is the folder it was started in. `fault` tells in words why it cannot be taken up; "" where it can. `tokens`
    is the size of its context, `idle_s` for how long nothing was said in it; None where that cannot be told. `text` is
    the command for people. `is_over` says that its last turn was over.
    """

    session_id: str
    cwd: Path
    fault: str = ""
    tokens: int | None = None
    idle_s: float | None = None
    text: str = ""
    is_over: bool = False


class Log(Protocol):
    """The event log: `eventlog.EventLog.write`."""

    def __call__(self, ev: str, /, **fields: str | float | Path | None) -> None:
        """Write one line, and raise nothing."""


@dataclass(frozen=True)
class Edges:
    """All that the lifecycle of peers touches. What is said to raise raises InstarError.

    `peer` returns a peer by its name, or raises; `peers` lists them all. `managed` tells by a name who else runs it,
    `is_in_git` whether the repository brings its profile.
    `live` looks for the session of an identity, and raises nothing. `settle` completes what a parking of the identity
    left, under its lock, or raises. `past` returns what may be taken up: of the marker's session, else of the newest.
    `end` tells how a session that is dead ended, `close` removes the pane in which it died. `launch` starts a peer with
    its first message ("" for none), and takes up the session that is named, or raises; `enrol` makes the records say
    which identity a session is of, or raises. `deliver` puts a message into what lives, `dialog` names the one that it
    waits at for a person. `spoke_at` tells when a session, or one below it, last wrote something, in seconds since
    1970. `park` ends a session that nothing shows at work, for a reason; its third is whether the gates that a person
    may lift are. `kill` ends it, at work or not, and its second says by whom. Both take the lock of the identity
    themselves, and return what the session manager does.
    """

    peer: Callable[[str], Peer]
    peers: Callable[[], list[Peer | Broken]]
    managed: Callable[[str], Managed | None]
    is_in_git: Callable[[Peer], bool]
    live: Callable[[str], Life]
    settle: Callable[[str], object]
    past: Callable[[str, Park | None], Past | None]
    end: Callable[[Life], End]
    launch: Callable[[Peer, str, str | None], Launched]
    enrol: Callable[[str, Life], None]
    deliver: Callable[[Peer, Life, str], Delivered]
    dialog: Callable[[Life], str | None]
    spoke_at: Callable[[Session], float | None]
    park: Callable[[str, str, bool], Mapping[str, Any]]
    kill: Callable[[str, str], Mapping[str, Any]]
    close: Callable[[Life], object]
    log: Log
    marks: Marks
    markers: Markers
    allowance: Allowance
    policy: Callable[[], Policy]
    clock: Clock = field(default_factory=Clock)
    sleep: Callable[[float], None] = time.sleep
