"""Real clients in panes, and a reaper that looks at them by a made-up clock and under pressure that is made up.

The machine is short of memory, and two minutes go by between two looks. All else is real: the clients, their records
(which their own events write), the process table, tmux and the files.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import termios
import time
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Any, Union

import psutil

from instar.sessions import classifier, registry
from instar.sessions.assembly import Assembly
from instar.sessions.reaper.pressure import Readings
from instar.sessions.reaper.selftest import MadeUpClock
from support import BIN, DEADLINE_S

from . import claude as claude_module
from . import codex as codex_module
from .builds import session_of
from .codex import Codex
from .launch import Launch
from .tui import START_TIMEOUT_S, Tui
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Project

    from .claude import Claude
    from .fake_model import FakeModel
    from .tui import Tmux

    Client = Union[Claude, Codex]

LOOKS = 10  # to be idle for a quarter of an hour takes nine, the first of them included; then one after the grace
MANY_LOOKS = 3 * LOOKS
NOBODY_IS_NEW_S = 2000.0  # after so long nobody is young any more, or was spoken to of late
CLEAR = "all-clear"
GREW = "transcript-grew"  # a client may write late, and that is told before much else


@dataclass(frozen=True)
class Seated:
    """A client in a pane, and the model it talks to."""

    tmux: Tmux
    client: Client
    model: FakeModel
    tui: Tui

    @property
    def session(self) -> str:
        """The session that last called the model."""
        return session_of(self.model)

    @property
    def is_codex(self) -> bool:
        """Whether it is Codex, and not Claude."""
        return isinstance(self.client, Codex)

    @property
    def text(self) -> str:
        """What the pane shows, and what has left its screen; a line that was too long for it is one."""
        return self.tmux.run("capture-pane", "-p", "-J", "-S", "-", "-t", self.tui.pane)

    def told(self, form: str) -> str:
        """Return what tmux says of the pane."""
        return self.tmux.run("display-message", "-p", "-t", self.tui.pane, form)

    def type(self, text: str) -> None:
        """Type into the pane, without Enter."""
        self.tmux.run("send-keys", "-l", "-t", self.tui.pane, text)

    def enter(self, line: str) -> None:
        """Type a line into the shell in the pane."""
        self.type(line)
        self.tui.press("Enter")

    def processes(self) -> list[psutil.Process]:
        """Return all that runs in the pane, but for the shell of a person."""
        first = psutil.Process(int(self.told("#{pane_pid}")))
        below = first.children(recursive=True)
        return below if first.name() == "bash" else [first, *below]

    def heard(self, text: str) -> bool:
        """Say whether the model was told a text in its last call, perhaps as what was said long before."""
        return text in json.dumps(self.model.requests[-1].body)


def seat(tmux: Tmux, client: Client, *args: str, may_ask: bool = False) -> Seated:
    """Start a client as the command of a pane; it asks nothing before it runs a tool, unless it may."""
    module = codex_module if isinstance(client, Codex) else claude_module
    tui = tmux.start(client, *(() if may_ask else module.NO_QUESTIONS), *args)
    return Seated(tmux, client, client.model, tui)


def seat_by_hand(tmux: Tmux, client: Client, *lines: str) -> Seated:
    """Start a client as people do: by its name, in a shell in a pane, into which ``lines`` are typed before."""
    bash = by_name(client, "bash", "--norc", "--noprofile", "-i")
    pane = tmux.run("new-session", "-d", "-P", "-F", "#{pane_id}", "-c", str(bash.cwd), bash.for_pane())
    seated = Seated(tmux, client, client.model, Tui(tmux, client, pane))
    for line in (*lines, client.executable.name):
        seated.enter(line)
    seated.tui.wait_until_idle(timeout_s=START_TIMEOUT_S)
    return seated


def by_name(client: Client, *command: str) -> Launch:
    """Return a command that finds the client, and ours, on its PATH."""
    launch = client.interactive()
    path = os.pathsep.join([str(client.executable.parent), str(BIN), launch.env["PATH"]])
    return Launch(command, launch.cwd, {**launch.env, "PATH": path, "PS1": "$ "})


class Reaped:
    """The sessions of a project, and a reaper that ends those that are idle.

    ``rules`` are set in the configuration of the reaper; for all else holds what holds for everybody.
    """

    def __init__(self, project: Project, kind: type[Assembly] = Assembly, **rules: Any) -> None:
        self._project = project
        write_rules(project, **rules)
        self.clock = MadeUpClock(passed=NOBODY_IS_NEW_S)
        environ = {"INSTAR_SHARED_ROOT": str(project.root.parent / "shared")}
        self.assembly = kind(project.root, environ, self.clock.clock(), read_pressure=_no_memory)
        self.assembly.switch.set("live", by="test", reason="test", now=time.time())

    def look(self, session: str) -> dict[str, Any] | None:
        """Have the reaper look and do what is due, let time go by, and return what it says of a session that lives."""
        reaper = self.assembly.reaper
        assert reaper.tick() == "done"
        told = reaper.snapshot()
        assert told["troubles"] == []
        self.clock.passed += max(1.0, min(self.assembly.policy().tick_s, reaper.next_due()))
        return next((row for row in told["sessions"] if row["sessionId"] == session), None)

    def until(self, session: str, condition: Callable[[dict[str, Any]], object]) -> int:
        """Look until a session is as it should be; return in how many looks, from the first that found it idle."""
        looks = 0

        def is_so() -> bool:
            nonlocal looks
            row = self.look(session)
            looks = looks + 1 if row is None or row["consecutive"] > 1 else 1
            return row is None or bool(condition(row))

        wait_until(is_so, "the reaper sees it so", timeout_s=DEADLINE_S, seen=lambda: str(self.rows))
        return looks

    def until_parked(self, session: str) -> int:
        """Look until a session is parked; return in how many looks, from the first that found it idle."""
        looks = self.until(session, lambda _row: False)
        assert self.parked(session), self.rows
        return looks

    def keeps(self, session: str, by: str, *, looks: int = MANY_LOOKS, between: Callable[[], object] = bool) -> None:
        """Look that often, and see that a session is kept by that gate alone, and is never idle before, either."""
        said: list[tuple[str, str]] = []

        def look() -> bool:
            between()
            row = self.look(session)
            assert row, self.rows
            said.append((row["keptBy"], row["why"]))
            return said[-1][0] == by

        wait_until(look, f"{by} keeps it", timeout_s=DEADLINE_S, seen=lambda: str(said))
        settled = len(said)
        for _ in range(looks):
            look()
        assert {gate for gate, _ in said[settled:]} <= {by, GREW}, said
        assert (said[-1][0], CLEAR in dict(said)) == (by, False), said
        assert (self._project.record(session)["status"], self.parked(session)) == ("running", None)

    def gates(self, session: str) -> dict[str, str]:
        """Return all that keeps a session at this moment, each with why."""
        found = registry.session(self._project.root, session)
        assert found
        (sight,) = self.assembly.sights([found])
        return {answer.by: answer.why for _gate, answer in classifier.explain(sight) if answer}

    def parked(self, session: str) -> dict[str, Any] | None:
        """Return what is on record of a session's parking; None for one that is not parked."""
        found: dict[str, Any] | None = self._project.record(session).get("parked")
        return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what the reaper did of that name, the oldest first."""
        return [row for row in self.rows if row["event"] == name]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What the reaper decided and did, the oldest first."""
        return self.assembly.reaper.audit()


def write_rules(project: Project, **rules: Any) -> None:
    """Set rules of the reaper in a project's configuration."""
    path = project.root / ".instar/config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    reaper = config.setdefault("monitoring", {}).setdefault("sessionReaper", {})
    at_once = {"crossProcessJitterMs": 0}  # there is no other reaper to wait for
    reaper.update({**rules, "pressure": {**at_once, **rules.get("pressure", {})}})
    path.write_text(json.dumps(config))


def have_ended(processes: list[psutil.Process]) -> bool:
    """Wait for the end of processes, and say whether it has come for all of them."""
    return not psutil.wait_procs(processes, timeout=DEADLINE_S)[1]


@contextmanager
def attached(seated: Seated) -> Iterator[None]:
    """Have a terminal show the tmux session of a client."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
    target = ("-t", seated.told("#{session_id}"))
    words = ("tmux", "-L", seated.tmux.name, "attach-session", *target)
    client = subprocess.Popen(
        words, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    reader = Thread(target=_drain, args=(ours,))
    reader.start()
    try:
        wait_until(lambda: seated.tmux.run("list-clients", *target), "a terminal is attached")
        yield
    finally:
        client.terminate()
        client.wait()
        reader.join()
        os.close(ours)


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:  # nobody has the other end any more
        return


def _no_memory(_before: Readings | None) -> Readings:
    return Readings(available_percent=0.0)
