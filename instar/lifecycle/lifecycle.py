"""The peers of a project with everything that a command or a server needs to wake, watch and end them."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from instar.config import load
from instar.errors import InstarError
from instar.files import replace_file
from instar.lifecycle import policy as policies
from instar.lifecycle import verbs
from instar.lifecycle.clients import delivery
from instar.lifecycle.clients import launch as launching
from instar.lifecycle.clients.adapters import NAME_VARIABLE
from instar.lifecycle.edges import Edges
from instar.lifecycle.eventlog import EventLog, is_verbose
from instar.lifecycle.looks import STAND_IN, Looks
from instar.lifecycle.memory.allowance import Allowance
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.orders import Order
from instar.lifecycle.peers import Peers
from instar.lifecycle.supervise import Supervisor
from instar.lifecycle.wake import wake
from instar.names import names_of
from instar.services import Services
from instar.sessions import registry
from instar.sessions.assembly import LIFTED, Assembly
from instar.sessions.clock import Clock, iso
from instar.sessions.machine.tmux import Tmux
from instar.tracked import is_tracked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from instar.lifecycle.clients.delivery import Delivered
    from instar.lifecycle.clients.launch import Launched
    from instar.lifecycle.edges import Life
    from instar.lifecycle.orders import Want
    from instar.lifecycle.peers import Peer
    from instar.lifecycle.policy import Policy
    from instar.sessions.registry import Session


class Lifecycle:
    """The peers of the project at `root`. `environ` names the folders and programs, `sleep` waits between looks."""

    def __init__(
        self,
        root: Path,
        environ: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        *,
        services: Services | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self.peers = Peers(root)
        self.services = services or Services.of_machine(environ)
        self._environ = environ
        self._clock = clock or Clock()
        self._sleep = sleep
        self._sessions = Assembly(root, environ, self._clock, sleep=sleep, services=self.services)
        self._marks = Marks(root, self._clock)

    def policy(self) -> Policy:
        """Return what holds by the configuration. Raise InstarError for a file that is none."""
        return policies.policy(load(self.root))

    @cached_property
    def log(self) -> EventLog:
        """What was decided. Raise InstarError where the configuration is none."""
        rules = self.policy()
        return EventLog(self.root, self._clock, bytes_at_most=rules.log_bytes, keep=rules.log_keep)

    @cached_property
    def supervisor(self) -> Supervisor:
        """Who looks after the peers: `run` makes a pass."""
        return Supervisor(self.edges, is_verbose=is_verbose(self._environ))

    def wake(self, name: str, task: str = "", topic: str = "", want: Want = "", *, runtime: str = "") -> dict[str, Any]:
        """Have a peer live, and know its task: see `wake.wake`."""
        return wake(Order(name, task, topic, want, runtime), self.edges)

    def send(self, name: str, message: str, topic: str = "", *, runtime: str = "") -> dict[str, Any]:
        """Have a message reach a peer: see `verbs.send`."""
        return verbs.send(name, message, self.edges, topic=topic, runtime=runtime)

    def status(self) -> list[dict[str, Any]]:
        """Return how all peers are, in each of their clients: see `verbs.status`. Raise InstarError."""
        return [verbs.status(each, self.edges) for peer in self.peers.all() for each in verbs.in_all_clients(peer)]

    def own_name(self) -> str | None:
        """Return the name of the peer that this process runs below; None where it runs below none."""
        return self._environ.get(NAME_VARIABLE) or None

    @cached_property
    def edges(self) -> Edges:
        """All that waking, watching and ending touches: the machine."""
        looks = self._looks
        return Edges(
            peer=self.peers.get,
            peers=self.peers.all,
            managed=self.services.managed,
            is_in_git=lambda peer: peer.path is not None and is_tracked(self.root, str(peer.path)),
            live=looks.live,
            settle=self._settle,
            past=looks.past,
            end=looks.end,
            launch=self._launch,
            enrol=self._enrol,
            deliver=self._deliver,
            dialog=looks.dialog,
            spoke_at=looks.spoke_at,
            park=lambda session_id, reason, is_lifted: self._sessions.terminate(
                session_id, reason, "supervisor", LIFTED if is_lifted else frozenset()
            ),
            kill=lambda session_id, by: self._sessions.kill(session_id, by=by),
            close=looks.close,
            log=self.log.write,
            marks=self._marks,
            markers=self._marks.parks,
            allowance=Allowance(self.root, self._clock),
            policy=self.policy,
            clock=self._clock,
            sleep=self._sleep,
        )

    @cached_property
    def _looks(self) -> Looks:
        return Looks(self.root, self._marks, Tmux(), launching.socket_of(self._environ), self._clock)

    def _settle(self, identity: str) -> object:
        """Complete or undo what is left of the parkings of an identity, whose lock is held."""
        reaping = (each.id for each in registry.sessions(self.root) if _is_reaping(each, identity))
        return self._sessions.manager().settle(identity, next(reaping, ""))

    def _launch(self, peer: Peer, message: str, resume_id: str | None) -> Launched:
        rules = self.policy()
        patience = launching.Patience(boot_s=rules.boot_deadline_s, landing_s=rules.ready_gate_s)
        return launching.launch(
            self.root, peer, message, resume_id=resume_id, environ=self._environ, tmux=Tmux(), patience=patience
        )

    def _deliver(self, peer: Peer, life: Life, message: str) -> Delivered:
        if life.session is not None:
            try:
                told = {"cwd": str(peer.cwd), **life.session.record}  # one that stands in has no folder
                target = delivery.target_of(told | {"id": life.session.id})
            except InstarError as error:
                return delivery.Delivered("refused", str(error))
        else:
            stamp = life.tmux or {}
            target = delivery.Target(
                peer.identity, peer.runtime, str(peer.cwd), str(stamp.get("socket")), str(stamp.get("pane")),
                int(stamp.get("server") or 0),
            )  # fmt: skip
        return delivery.deliver(self.root, target, message, tmux=Tmux())

    def _enrol(self, identity: str, life: Life) -> None:
        """Make the record of a session say whose it is; one that has none yet gets one that stands in for it."""
        if life.session is None:
            self._stand_in(identity, life)
            return
        if life.session.text("identity") != identity:  # as after a /clear, which begins another session
            launching.mark(self.root, life.session.id, identity)

    def _stand_in(self, identity: str, life: Life) -> None:
        """Have a client on record that has not told of itself, so that it can be ended as any.

        The record that the client's own events make takes its place: a process has one that runs.
        """
        if not life.agent or not life.tmux:
            return
        session_id = f"{identity}-{life.agent['pid']}-{life.agent['start']}".replace(" ", "-").replace(":", "-")
        now, runtime = iso(self._clock.wall()), names_of(identity)[0]
        record = {
            "id": session_id, "status": "running", "startedAt": now, "client": runtime, "agent": life.agent,
            "tmux": life.tmux, "identity": identity, "launchedBy": launching.LAUNCHED_BY, STAND_IN: identity,
            "version": 1,
        }  # fmt: skip
        with suppress(InstarError):
            record["cwd"] = str(self.peers.get(names_of(identity)[1]).cwd)
        place = self.root / registry.FOLDER / f"{session_id}.json"
        with registry.locked(self.root):
            if place.exists() or any(each.record.get("agent") == life.agent for each in registry.sessions(self.root)):
                return
            try:
                replace_file(place, json.dumps(record, indent=2).encode("ascii"))
            except OSError as error:
                raise InstarError(f"{place} cannot be written: {error.strerror}") from error


def _is_reaping(session: Session, identity: str) -> bool:
    return session.state == "reaping" and session.text("identity") == identity
