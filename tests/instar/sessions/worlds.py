"""A small world for a reaper: sessions that work or are idle, clocks that are set, and all its files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instar.config import over
from instar.sessions.clock import Clock, iso
from instar.sessions.policy import policy
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.reaper import SessionReaper
from instar.sessions.reaper.seen import Deps, Seen
from instar.sessions.registry import Session
from instar.sessions.verdict import ALL_CLEAR, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from instar.sessions.policy import Policy

NOW = 1_790_000_000.0
TICK = 120.0
CLEAR = Verdict(ALL_CLEAR, "")
WORKS = Verdict("turn-open", "its turn is open")
CRITICAL = Readings(available_percent=1.0)
NORMAL = Readings(available_percent=90.0)


@dataclass
class Agent:
    """A session of the world: what it shows, and what it does when it is parked."""

    verdict: Verdict = CLEAR
    picture: int = 0  # another one is another screen
    memory: int = 100
    pid: int = 1
    prompt: int = 1
    prompted_at: float = NOW - 3600
    started_at: float = NOW - 7200
    is_over: bool = False
    parked: dict[str, str] | None = None  # as its record tells it
    is_ending: bool = False  # so says its record
    is_quiet: bool = True
    answer: object = field(default_factory=lambda: {"terminated": True, "skipped": None})
    on_look: Callable[[], None] = lambda: None

    def works(self) -> None:
        self.verdict, self.is_quiet = WORKS, False
        self.picture += 1

    def is_idle(self) -> None:
        self.verdict, self.is_quiet = CLEAR, True

    def is_prompted(self, now: float) -> None:
        self.prompt += 1
        self.prompted_at = now
        self.works()


class World:
    """A project with its sessions, and its reaper as a process may run it."""

    def __init__(self, folder: Path, mode: str = "live", **reaper: Any) -> None:
        self.root, self.shared = folder / "project", folder / "shared"
        self.root.mkdir(exist_ok=True)
        self.agents: dict[str, Agent] = {}
        self.wall, self.monotonic, self.boot = NOW, 1000.0, "boot"
        self.readings: Readings | Exception = CRITICAL
        self.config: dict[str, Any] = {"monitoring": {"sessionReaper": reaper}}
        self.config_error: Exception | None = None
        self.mode(mode)
        self.parked: list[tuple[str, str]] = []
        self.looks: list[list[str]] = []
        self.recovered = 0
        self.recovery: Exception | None = None
        self.looking_takes = 0.0
        self.on_list: Callable[[], None] = lambda: None
        self.host = "host"
        self.reaper = self.process()

    def process(self) -> SessionReaper:
        """Return a reaper that knows nothing but what is on disk."""
        clock = Clock(lambda: self.wall, lambda: self.monotonic, lambda: self.boot)
        deps = Deps(
            policy=self._policy,
            look=self.look,
            park=self.park,
            recover=self._recover,
            read_pressure=lambda _before: self._read(),
            shared=self.shared,
            host=self.host,
            clock=clock,
            sessions=self._sessions,
            sleep=lambda _seconds: None,
            chance=lambda: 0.0,
        )
        self.reaper = SessionReaper(self.root, deps=deps)
        return self.reaper

    def mode(self, mode: str) -> None:
        """Configure it."""
        said = {"enabled": mode != "off", "dryRun": mode != "live"}
        self.config = over(self.config, {"monitoring": {"sessionReaper": said}})

    def passes(self, seconds: float, wall: float | None = None) -> None:
        self.monotonic += seconds
        self.wall += seconds if wall is None else wall

    def ticks(self, count: int = 1, seconds: float = TICK) -> str:
        """Let so many intervals go by, with a tick at the end of each; return what the last one was."""
        said = ""
        for _ in range(count):
            self.passes(seconds)
            said = self.reaper.tick()
        return said

    def session(self, name: str) -> Session:
        agent = self.agents[name]
        record = {
            "agent": {"pid": agent.pid, "start": "5", "boot": "boot"},
            "tmux": {"session": f"tmux-{name}"},
            "startedAt": iso(agent.started_at),
            "lastPrompt": {"id": str(agent.prompt), "at": iso(agent.prompted_at), "text": "a secret"},
            "cwd": "/secret/place",
            "parked": agent.parked,
            **({"reaping": {}} if agent.is_ending else {}),
        }
        return Session(self.root, name, "completed" if agent.is_over else "running", record)

    def rows(self, event: str | None = None, name: str = "sentinel-events") -> list[dict[str, Any]]:
        """Return the rows of an event, or the events of all."""
        path = self.root / f".instar/logs/{name}.jsonl"
        told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in told if event in (None, row["event"])]

    def events(self) -> list[str]:
        return [row["event"] for row in self.rows()]

    def state(self) -> dict[str, Any]:
        values = json.loads((self.root / ".instar/state/session-reaper.json").read_bytes())
        assert isinstance(values, dict)
        return values

    def row(self, name: str) -> dict[str, Any]:
        """Return what the snapshot tells of a session."""
        return next(each for each in self.reaper.snapshot()["sessions"] if each["sessionId"] == name)

    def _sessions(self, _root: Path) -> list[Session]:
        self.on_list()
        return [self.session(each) for each in self.agents]

    def _policy(self) -> Policy:
        if self.config_error:
            raise self.config_error
        return policy(self.config)

    def look(self, sessions: Sequence[Session], marks: Mapping[str, dict[str, Any]], _policy: Policy) -> list[Seen]:
        self.looks.append([each.id for each in sessions])
        self.passes(self.looking_takes)
        return [self._seen(each, marks.get(each.id, {})) for each in sessions]

    def _seen(self, session: Session, marks: dict[str, Any]) -> Seen:
        agent = self.agents[session.id]
        agent.on_look()
        return Seen(
            session=session,
            verdict=agent.verdict,
            marks={"picture": agent.picture},
            is_still=marks.get("picture") == agent.picture,
            memory=agent.memory,
            is_working=agent.verdict is WORKS,
            is_quiet=agent.is_quiet,
        )

    def park(self, session_id: str, reason: str) -> Mapping[str, Any]:
        agent = self.agents[session_id]
        if isinstance(agent.answer, Exception):
            raise agent.answer
        answer: Any = agent.answer
        if isinstance(answer, dict) and answer.get("terminated") is True:
            assert agent.verdict is CLEAR, "a session was parked that was at work"
            self.parked.append((session_id, reason))
            agent.is_over = True
        return answer  # type: ignore[no-any-return]  # it may be nonsense

    def _recover(self) -> object:
        self.recovered += 1
        if self.recovery:
            raise self.recovery
        return []

    def _read(self) -> Readings:
        if isinstance(self.readings, Exception):
            raise self.readings
        return self.readings
