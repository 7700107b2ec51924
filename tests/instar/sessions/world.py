"""A machine with one idle session, described rather than run: what a look would show of it, to be changed by a test."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.services import Services
from instar.sessions.clock import iso
from instar.sessions.evidence import Host, Sight
from instar.sessions.machine.processes import Process, Table
from instar.sessions.machine.tmux import Pane, View
from instar.sessions.policy import Policy, policy
from instar.sessions.registry import Session

if TYPE_CHECKING:
    from collections.abc import Mapping

FRAMES = Path(__file__).parent / "frames"
BOOT_AT = 1_799_000_000.0
NOW = 1_800_000_000.0
TICK_S = 120.0
SERVER, SHELL, AGENT = 10, 20, 30
TERMINAL = "/dev/pts/9"
ONE = "0a3c9e4e-2f2b-4b8e-9d5c-9a5b8f3f7d11"


@dataclass
class Environments:
    """Who has which environment; the rest of a reader is not asked."""

    told: dict[int, dict[str, str]] = field(default_factory=dict)

    def pids(self) -> list[int]:
        return []

    def look(self, pid: int) -> Process | None:
        raise NotImplementedError(pid)

    def environment(self, process: Process) -> dict[str, str]:
        return self.told.get(process.pid, {})


def process(pid: int, parent: int, name: str, created: float, **said: Any) -> Process:
    base: dict[str, Any] = {
        "start": str(int((created - BOOT_AT) * 100)), "argv": (name,), "cpu_s": 1.0, "memory": 100 << 20,
        "terminal": TERMINAL if pid >= SHELL else None, "uid": 0, "is_zombie": False,
    }  # fmt: skip
    return Process(pid=pid, parent=parent, name=name, created=created, **{**base, **said})


def claude_transcript(*, session: str = ONE, at: float = NOW - 7200) -> str:
    """Return a conversation of one turn that is over."""
    said = {"sessionId": session, "version": "2.1.197", "isSidechain": False, "cwd": "/home/developer01"}
    ask = {
        **said, "type": "user", "uuid": "1", "parentUuid": None, "timestamp": iso(at),
        "message": {"role": "user", "content": "Go."},
    }  # fmt: skip
    answer = {
        **said, "type": "assistant", "uuid": "2", "parentUuid": "1", "timestamp": iso(at + 5), "requestId": "r1",
        "message": {
            "id": "m1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "Done."}], "usage": {"input_tokens": 1, "output_tokens": 2},
        },
    }  # fmt: skip
    return "".join(json.dumps(each) + "\n" for each in (ask, answer))


class World:
    """An idle Claude Code in a pane, looked at for the second time. A test changes what it wants, then looks."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.root.mkdir()
        slug = re.sub("[^A-Za-z0-9-]", "-", str(self.root))  # as Claude names it by the folder it is started in
        self.transcript = folder / "client/projects" / slug / f"{ONE}.jsonl"
        self.transcript.parent.mkdir(parents=True)
        self.transcript.write_text(claude_transcript())
        self.now = NOW
        self.config: dict[str, Any] = {}
        self.processes = {
            each.pid: each
            for each in (
                process(1, 0, "init", BOOT_AT + 1),
                process(SERVER, 1, "tmux: server", BOOT_AT + 10),
                process(SHELL, SERVER, "bash", BOOT_AT + 100),
                process(AGENT, SHELL, "claude", BOOT_AT + 200),
            )
        }
        self.environments = Environments()
        self.is_table_readable = True
        self.pane = Pane(
            id="%1", session_id="$1", session="work", window_id="@1", pid=SHELL, terminal=TERMINAL,
            title="✳ Claude Code", command="claude", width=120, height=40, history=0, cursor=(2, 5), activity=0,
            attached=0, watching=0, is_in_mode=False, is_dead=False, sessions=("work",),
        )  # fmt: skip
        self.others: list[Pane] = []
        self.frame: str | None = (FRAMES / "claude-2.1.197-idle-after-turn.txt").read_text()
        self.view = View(socket="/tmp/tmux-0/default", state="answered", server_pid=SERVER)  # noqa: S108 - never opened
        self.tokens: int | None = None
        self.monotonic: float | None = None  # by which it is as late as by the other clock, unless it is said otherwise
        self.is_calibrated = True
        self.units = folder / "units"
        self.units.mkdir()
        self.services = Services(systemd=(self.units,))
        self.own: frozenset[int] = frozenset((99,))
        self.state = "running"
        agent, server = self.processes[AGENT], self.processes[SERVER]
        self.record: dict[str, Any] = {
            "id": ONE,
            "status": "running",
            "client": "claude-code",
            "cwd": str(self.root),
            "transcriptPath": str(self.transcript),
            "startedAt": iso(agent.created),
            "firstPromptAt": iso(agent.created + 60),
            "lastPrompt": {"id": "p1", "at": iso(NOW - 7200), "text": "the secret plan"},
            "agent": {"pid": AGENT, "start": agent.start, "boot": self.boot()},
            "tmux": {
                "session": "work", "server": SERVER, "serverStart": server.start, "socket": self.view.socket,
                "pane": "%1",
            },
        }  # fmt: skip
        self.before = self.look({}, self.now - TICK_S).marks()

    @staticmethod
    def boot() -> str:
        from instar.sessions.clock import boot_id

        return boot_id()

    def policy(self) -> Policy:
        return policy(self.config)

    def add(self, pid: int, parent: int, name: str, created: float | None = None, **said: Any) -> Process:
        """Have a process more; it began after the agent unless it is said otherwise."""
        found = process(pid, parent, name, BOOT_AT + 5000 if created is None else created, **said)
        self.processes[pid] = found
        return found

    def say(self, **status: Any) -> None:
        """Have the client say something of itself."""
        path = self.transcript.parents[2] / "sessions" / f"{AGENT}.json"
        path.parent.mkdir(exist_ok=True)
        start = int(self.processes[AGENT].start)
        path.write_text(json.dumps({"pid": AGENT, "procStart": start, "sessionId": ONE, **status}))

    def look(self, before: Mapping[str, Any] | None = None, at: float | None = None) -> Sight:
        """Look at the session, with the marks of the look before unless others are given."""
        now = self.now if at is None else at
        panes = {each.id: each for each in (*self.others, self.pane)}
        is_answer = self.view.state == "answered"
        frames = {"%1": self.frame} if self.frame is not None and is_answer else {}
        view = replace(self.view, panes=panes if is_answer else {}, frames=frames)
        monotonic = now if self.monotonic is None else self.monotonic
        whole = Table(monotonic, self.processes.values(), reader=self.environments)
        table = whole if self.is_table_readable else None
        host = Host(
            policy=self.policy(), wall=now, monotonic=monotonic, boot=self.boot(), table=table,
            views={view.socket: view}, own=self.own,
            is_calibrated=lambda client, _version: self.is_calibrated and bool(client),
            tokens_since=lambda _session, _since: self.tokens, managed=self.services.managed_identity,
        )  # fmt: skip
        session = Session(self.root, ONE, self.state, self.record)  # type: ignore[arg-type]  # as a test says
        return Sight(session, host, self.before if before is None else before)
