"""Peers that are real clients, on a tmux server of their own: their project, their model, and who looks after them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import psutil

from instar.lifecycle.clients.adapters import adapter
from instar.lifecycle.clients.launch import socket_of
from instar.lifecycle.peers import Peer
from instar.sessions.machine.process import READER
from instar.sessions.machine.tmux import Tmux
from instar.sessions.transcripts.turns import turn
from support import BIN, DEADLINE_S

from .builds import trusted
from .codex import Codex
from .fake_model import Say
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.lifecycle.lifecycle import Lifecycle
    from instar.names import Runtime
    from instar.sessions.reaper.selftest import MadeUpClock
    from support import Project

    from .claude import Claude
    from .fake_model import FakeModel, Request
    from .wire import Answer

    Client = Union[Claude, Codex]

ANSWER = "Laid with care."
COMMAND = str(BIN / "instar-peers")


@dataclass
class Stage:
    """A project with peers, each a real client on the same model, and the lifecycle that looks after them."""

    project: Project
    model: FakeModel
    clients: dict[str, Client]
    environ: dict[str, str]
    clock: MadeUpClock
    peers: Lifecycle
    script: Callable[[Request], Answer | None] = lambda _request: None

    def answer(self, request: Request) -> Answer:
        """Say what the model answers: what the script has for it, else that it is done."""
        return self.script(request) or Say(ANSWER)

    def add(self, name: str, runtime: Runtime) -> str:
        """Add a peer that works in the project and asks for no permission, and return its identity."""
        env = {"PATH": self.environ["PATH"]}  # a login shell, from which another peer starts it, may set its own
        peer = Peer(name=name, runtime=runtime, cwd=self.project.root, bypasses_permissions=True, env=env)
        return self.peers.peers.add(peer).identity

    def change(self, name: str, **said: Any) -> None:
        """Write into the profile of a peer, as a person does."""
        path = self.project.root / f".instar/agents/{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **said}))

    def press(self, identity: str, key: str) -> None:
        """Press a key where a peer runs, as a person does."""
        assert Tmux(timeout_s=30).run(socket_of(self.environ), "send-keys", "-t", f"={identity}:", key).state == "done"

    def allow(self, **rules: int) -> None:
        """Set rules of the lifecycle in the configuration."""
        path = self.project.root / ".instar/config.json"
        config = json.loads(path.read_text()) if path.exists() else {}
        config.setdefault("lifecycle", {}).update(rules)
        path.write_text(json.dumps(config))

    @property
    def said(self) -> list[str]:
        """All that the model was told by people, the oldest first, but for blanks after it, which a paste may add."""
        return [text.rstrip(" ") for request in self.model.requests for text in request.user_texts]

    def heard(self, text: str) -> bool:
        """Say whether the model was told a text in its last call, perhaps as what was said long before."""
        return text in json.dumps(self.model.requests[-1].body)

    def answered(self, text: str) -> None:
        """Wait until the model was told a text, and the turn that answers it is over, by the session's transcript."""
        wait_until(lambda: text in self.said, f"the model is told {text!r}", seen=lambda: repr(self.said))
        session = self.model.requests[-1].session_id

        def lines() -> list[str]:
            place = Path(str(self.project.record(session).get("transcriptPath")))
            return place.read_text(encoding="utf-8").splitlines() if place.is_file() else []

        def is_over() -> bool:
            record = self.project.record(session)
            # Claude also writes what it was told last in a line of its own, and none of its lines in a certain order.
            is_told = any(json.dumps(text)[1:10] in each and '"last-prompt"' not in each for each in lines())
            return is_told and turn(record["client"], record["transcriptPath"]).state == "closed"

        wait_until(is_over, "the turn is over", seen=lambda: "\n".join([str(self.panes()), *lines()]))

    def status(self, identity: str) -> dict[str, Any]:
        """Return how a peer is."""
        (found,) = (each for each in self.peers.status() if each["identity"] == identity)
        return found

    def agent(self, session: str) -> psutil.Process:
        """Return the process of a session, by its record."""
        return psutil.Process(self.project.record(session)["agent"]["pid"])

    def kill(self, session: str) -> None:
        """Kill a client as the kernel does when memory is short, and see it gone."""
        agent = self.agent(session)
        wrapper = [each for each in agent.parents() if each.name() == "node"]
        agent.send_signal(signal.SIGKILL)
        left = [each.pid for each in (agent, *wrapper)]

        def has_ended() -> bool:
            """Tell; tmux may not have noticed, and then it is a zombie still."""
            return all(found is None or found.is_zombie for found in map(READER.look, left))

        wait_until(has_ended, "it has ended")

    def tick(self, identity: str, until: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Let the supervisor look until what it does about a peer is as it should be, and return that."""
        rows: list[dict[str, Any]] = []

        def look() -> bool:
            rows.extend(row for row in self.peers.supervisor.run() if row["identity"] == identity)
            return bool(until(rows[-1]))

        wait_until(look, "the supervisor does it", timeout_s=DEADLINE_S, seen=lambda: str(rows))
        return rows[-1]

    def processes(self) -> list[psutil.Process]:
        """Return all that runs in the project."""
        here = str(self.project.root)
        return [
            each
            for each in psutil.process_iter(["cwd", "status"])
            if each.info["cwd"] == here and each.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start the installed command, as any program may."""
        return subprocess.Popen(
            [COMMAND, *words, "--json"], cwd=self.project.root, env=self.environ, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def is_at_rest(self, identity: str) -> bool:
        """Say whether a peer waits for a prompt, with nothing typed."""
        tmux, socket = Tmux(timeout_s=30), socket_of(self.environ)
        found = [each for each in tmux.view(socket).panes.values() if identity in each.sessions]
        shown = tmux.view(socket, [each.id for each in found]).frames
        at = adapter(identity.rpartition("-")[0])
        folder = str(self.project.root)
        return [at.surface(shown.get(each.id, ""), each.title, folder).moment for each in found] == ["ready"]

    def panes(self) -> dict[str, str]:
        """Return what the panes of the peers show, those included that one has ended in, by their identities."""
        tmux, socket = Tmux(timeout_s=30), socket_of(self.environ)
        found = {each.id: each.session for each in tmux.view(socket).panes.values()}
        return {found[pane]: frame for pane, frame in tmux.view(socket, found).frames.items()}

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of the event log of that name, the oldest first."""
        return [row for row in self.peers.log.tail(1000) if row["ev"] == name]

    def end(self) -> None:
        """End all that runs in panes, and their server."""
        tmux, socket = Tmux(timeout_s=30), socket_of(self.environ)
        view = tmux.view(socket)
        first = [psutil.Process(each.pid) for each in view.panes.values() if psutil.pid_exists(each.pid)]
        running = [each for one in first for each in (one, *one.children(recursive=True))]
        for each in running:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        tmux.run(socket, "kill-server")


def seat(stage: Stage, client: Client) -> Runtime:
    """Have a client on the PATH, trusting the project and its hooks."""
    if isinstance(client, Codex):
        trusted(client)
    start = client.interactive()
    path = [str(client.executable.parent), stage.environ.get("PATH", start.env["PATH"])]
    stage.environ.update({**start.env, "PATH": os.pathsep.join(path)})
    runtime: Runtime = "codex-cli" if isinstance(client, Codex) else "claude-code"
    stage.clients[runtime] = client
    return runtime


def ready(said: dict[str, Any], **expected: object) -> str:
    """See that a peer was woken, and how, and that it was told its task; return its session."""
    told = {key: said[key] for key in ("status", "woke", "taskDelivered", *expected)}
    assert told == {"status": "READY", "woke": True, "taskDelivered": True, **expected}, said
    return str(said["sessionId"])
