"""A machine with peers, small enough to be watched whole: what is on disk is real, what lives is told by this."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from instar.config import over
from instar.errors import InstarError
from instar.lifecycle.clients.delivery import Delivered
from instar.lifecycle.clients.launch import Launched
from instar.lifecycle.edges import Edges, Life, Past
from instar.lifecycle.ends import End
from instar.lifecycle.eventlog import EventLog
from instar.lifecycle.memory.allowance import Allowance
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.peers import Peer, Peers
from instar.lifecycle.policy import policy
from instar.locks import BusyError
from instar.sessions.clock import Clock, iso
from instar.sessions.parking.markers import Park
from instar.sessions.registry import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from instar.lifecycle.policy import Policy
    from instar.services import Managed

NOW = 1_790_000_000.0
BOB = "claude-code-bob"
UP = Launched("up", "", "/s")
LANDED = Delivered("landed", "")
CRASH = End("crash", "signal 9")


@dataclass
class Lived:
    """A session as it truly is."""

    id: str
    pid: int
    boot: str
    is_alive: bool = True
    ended: End = CRASH
    spoke_at: float = 0.0
    fault: str = ""
    tokens: int | None = 1000
    is_known: bool = True  # by a record
    is_prompted: bool = False  # by anybody since it was started

    @property
    def agent(self) -> dict[str, Any]:
        return {"pid": self.pid, "start": "5", "boot": self.boot}


@dataclass
class Machine:
    """What lives, and the edges that show it. A test sets what it wants to happen."""

    root: Path
    wall: float = NOW
    monotonic: float = 1000.0
    boot: str = "boot-1"
    config: dict[str, Any] = field(default_factory=dict)
    managed: dict[str, Managed] = field(default_factory=dict)
    lives: dict[str, list[Lived]] = field(default_factory=dict)
    unseen: set[str] = field(default_factory=set)  # of whom nobody can tell whether they live
    torn: set[str] = field(default_factory=set)  # at whom every look fails
    launches: list[tuple[str, str, str | None]] = field(default_factory=list)
    launched: Launched | InstarError = UP
    delivered: Delivered = LANDED
    told: list[str] = field(default_factory=list)
    parks: list[tuple[str, str, bool]] = field(default_factory=list)
    kept: str = ""  # by what a session is not ended
    shown: str | None = None  # the dialog that is
    held: ExitStack = field(default_factory=ExitStack)  # what others hold
    on_launch: Callable[[], None] = lambda: None
    on_wait: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self.clock = Clock(lambda: self.wall, lambda: self.monotonic, lambda: self.boot)
        self.marks = Marks(self.root, self.clock)
        self.markers = self.marks.parks
        self.peers = Peers(self.root)
        self.log = EventLog(self.root, self.clock)
        self.allowance = Allowance(self.root, self.clock)
        self._numbers = itertools.count(1)

    def add(self, name: str = "bob", **said: Any) -> Peer:
        folder = self.root / "work"
        folder.mkdir(parents=True, exist_ok=True)
        return self.peers.add(Peer(**{"name": name, "runtime": "claude-code", "cwd": folder, **said}))

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def policy(self) -> Policy:
        return policy({"lifecycle": self.config})

    def configure(self, **said: Any) -> None:
        self.config = over(self.config, said)

    @property
    def edges(self) -> Edges:
        return Edges(
            peer=self.peers.get,
            peers=self.peers.all,
            managed=self.managed.get,
            is_in_git=lambda _peer: False,
            live=self.live,
            settle=self._settle,
            past=self.past,
            end=lambda life: self._of(life).ended,
            launch=self.launch,
            enrol=self._enrol,
            deliver=self._deliver,
            dialog=lambda _life: self.shown,
            spoke_at=lambda session: self.session(session.id).spoke_at,
            park=self.park,
            kill=lambda session_id, by: self._end(session_id, "manual-kill", by),
            close=lambda _life: None,
            log=self.log.write,
            marks=self.marks,
            markers=self.markers,
            allowance=self.allowance,
            policy=self.policy,
            clock=self.clock,
            sleep=self._wait,
        )

    # What a test does.

    def begin(self, identity: str = BOB, **said: Any) -> Lived:
        """Have a session live; it is not watched by that."""
        number = next(self._numbers)
        made = Lived(f"session-{number}", number, self.boot, spoke_at=self.wall, **said)
        self.lives.setdefault(identity, []).append(made)
        return made

    def begin_watched(self, identity: str = BOB, **said: Any) -> Lived:
        made = self.begin(identity, **said)
        agent = {"sessionId": made.id, "agent": made.agent, "wokeAt": self.wall * 1000}
        self.marks.save_session(identity, {"identity": identity, **agent})
        return made

    def dies(self, ended: End = CRASH, identity: str = BOB) -> None:
        for each in self.lives.get(identity, []):
            if each.is_alive:
                each.is_alive, each.ended = False, ended

    def reboots(self) -> None:
        self.boot = f"boot-{next(self._numbers)}"
        self.monotonic = 10.0
        for identity in self.lives:
            self.dies(End("host-reboot", ""), identity)

    def alive(self, identity: str = BOB) -> list[Lived]:
        return [each for each in self.lives.get(identity, []) if each.is_alive]

    def session(self, session_id: str) -> Lived:
        return next(each for lives in self.lives.values() for each in lives if each.id == session_id)

    def lines(self, ev: str | None = None) -> list[dict[str, str]]:
        """Return the lines of the log without their times."""
        return [
            {key: value for key, value in each.items() if key != "ts"}
            for each in self.log.tail(1000)
            if ev in (None, each["ev"])
        ]

    def last(self, ev: str) -> dict[str, str]:
        return self.lines(ev)[-1]

    def park_marker(self, made: Lived, identity: str = BOB) -> None:
        park = Park("p", made.id, iso(self.wall), "reaper", "reaped-idle", "completed", made.agent)
        self.markers.write_intent(identity, park)
        self.markers.promote(identity)
        made.is_alive, made.ended = False, End("parked", "")

    def has(self, end: str, identity: str = BOB) -> bool:
        return (self.markers.folder / f"{identity}{end}").exists()

    # What the edges show.

    def live(self, identity: str) -> Life:
        if identity in self.torn:
            raise ValueError("a look that fails")
        if identity in self.unseen:
            return Life("indeterminate", "tmux does not answer")
        found = self.lives.get(identity, [])
        living = [each for each in found if each.is_alive]
        if not found:
            return Life("dead")
        newest = (living or found)[-1]
        session = self._session(identity, newest) if newest.is_known else None
        return Life("alive" if living else "dead", "", session, newest.agent, {"socket": "/s", "pane": "%1"})

    def past(self, identity: str, park: Park | None) -> Past | None:
        found = [each for each in self.lives.get(identity, []) if park is None or each.id == park.session_id]
        if not found:
            return None
        last = found[-1]
        return Past(
            last.id, self.root / "work", last.fault, last.tokens, self.wall - last.spoke_at, f"resume {last.id}"
        )

    def launch(self, peer: Peer, message: str, resume: str | None) -> Launched:
        assert not self.alive(peer.identity), "two sessions of one identity"
        self.on_launch()
        if isinstance(self.launched, InstarError):
            raise self.launched
        self.launches.append((peer.identity, message, resume))
        is_up = self.launched.outcome == "up"
        if not (is_up or self.launched.is_alive):
            return self.launched
        made = self.begin(peer.identity)
        if resume is not None:
            made.id = resume
        self.lives[peer.identity] = [
            each for each in self.lives[peer.identity] if each.id != made.id or each is made
        ]  # a session has one record
        return replace(self.launched, agent=made.agent, session_id=made.id, is_alive=True)

    def park(self, session_id: str, reason: str, is_lifted: bool) -> Mapping[str, Any]:  # noqa: FBT001 - an edge
        self.parks.append((session_id, reason, is_lifted))
        return self._end(session_id, reason, "supervisor")

    def _end(self, session_id: str, reason: str, by: str) -> Mapping[str, Any]:
        """End a session as the session manager does: alone, and with the marker before the end."""
        identity = next(name for name, lives in self.lives.items() if any(each.id == session_id for each in lives))
        made = self.session(session_id)
        if self.kept:
            return {"terminated": False, "skipped": self.kept}
        try:
            with self.markers.lock(identity):
                if not made.is_alive:
                    return {"terminated": False, "skipped": "already-gone"}
                park = Park("p", made.id, iso(self.wall), by, reason, "completed", made.agent)
                self.markers.write_intent(identity, park)
                self.markers.promote(identity)
                made.is_alive, made.ended = False, End("parked", "")
        except BusyError:
            return {"terminated": False, "skipped": "in-flight"}
        return {"terminated": True, "skipped": None}

    def _settle(self, identity: str) -> None:
        """Drop a marker whose session goes on."""
        marker = self.markers.marker(identity)
        if marker and any(
            each.agent != marker.agent for each in self.lives.get(identity, []) if each.id == marker.session_id
        ):
            self.markers.drop_marker(identity)

    def _enrol(self, identity: str, life: Life) -> None:
        for each in self.lives[identity]:
            if each.agent == life.agent:
                each.is_known = True

    def _deliver(self, _peer: Peer, life: Life, message: str) -> Delivered:
        if self.delivered.fate == "landed":
            self.told.append(message)
            self._of(life).spoke_at = self.wall
        return self.delivered

    def _of(self, life: Life) -> Lived:
        return next(each for lives in self.lives.values() for each in lives if each.agent == life.agent)

    def _session(self, identity: str, made: Lived) -> Session:
        record = {"identity": identity, "agent": made.agent, "client": "claude-code", "cwd": str(self.root)}
        if made.is_prompted:
            record["firstPromptAt"] = iso(self.wall)
        return Session(self.root, made.id, "running" if made.is_alive else "gone", record)

    def _wait(self, seconds: float) -> None:
        self.passes(seconds)
        self.on_wait()
