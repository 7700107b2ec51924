"""What can be seen of the sessions of peers: whether one lives, how one ended, and what there is to take up.

A session is told by its record, its process and the pane it was started in; nothing follows from what cannot be seen.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.lifecycle.clients.adapters import adapter
from instar.lifecycle.clients.panes import POLL_S, close_after, exit_cause
from instar.lifecycle.context import context_tokens
from instar.lifecycle.edges import Life, Past
from instar.lifecycle.ends import End, Remains, end
from instar.names import names_of
from instar.sessions import registry
from instar.sessions.machine.process import READER
from instar.sessions.machine.processes import liveness
from instar.sessions.parking import resumption
from instar.sessions.transcripts import probe as transcripts
from instar.sessions.transcripts import turns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.lifecycle.edges import State
    from instar.lifecycle.memory.marks import Marks
    from instar.sessions.clock import Clock
    from instar.sessions.machine.tmux import Pane, Tmux
    from instar.sessions.parking.markers import Park
    from instar.sessions.registry import Session

ENDING_S: Final = 2.0
STAND_IN: Final = "standsFor"  # in a record that we made for a client that has not told of itself


@dataclass(frozen=True)
class Looks:
    """Who looks: at the records of the project at `root`, and at the tmux server at `socket`, which peers run in."""

    root: Path
    marks: Marks
    tmux: Tmux
    socket: str
    clock: Clock

    def live(self, identity: str) -> Life:
        """Return whether an identity has a session that lives. Raise nothing."""
        try:
            return self._live(identity)
        except InstarError as error:
            return Life("indeterminate", str(error))

    def _live(self, identity: str) -> Life:
        state: dict[str, Any] = {}
        with suppress(InstarError):  # what cannot be read tells nothing; the records and the pane do
            state = self.marks.session(identity) or {}
        found = registry.session(self.root, str(state.get("sessionId") or ""))
        if found and found.text("status") == "running" and liveness(found.record.get("agent")) == "alive":
            return _life("alive", found)
        by_record = _by_records(list(self._of(identity, state.get("agent"))))
        watched = liveness(state.get("agent")) if state.get("agent") else "dead"
        if by_record.state == "alive" or watched == "alive":
            return by_record if by_record.state == "alive" else _watched("alive", state)
        shown = self._pane(identity, by_record)
        if shown is not None and shown.state == "alive":
            return shown
        unsure = by_record if by_record.state == "indeterminate" else shown
        if unsure is None and watched == "unknown":
            unsure = _watched("indeterminate", state)
        return unsure or (by_record if by_record.session else _watched("dead", state))

    def _of(self, identity: str, agent: object) -> Iterator[Session]:
        """Yield the recorded sessions of an identity, the newest first; its process may have begun another one."""
        for each in registry.sessions(self.root):
            is_same = agent is not None and each.record.get("agent") == agent
            if each.text("identity") == identity or is_same:
                yield each

    def _pane(self, identity: str, dead: Life) -> Life | None:
        """Return the life that a pane of ours shows, or that nobody can tell; None where none shows any.

        `dead` is what is known by the records, none of which tells of a life.
        """
        view = self.tmux.view(self.socket)
        if view.state == "indeterminate":
            return Life("indeterminate", f"the tmux server of the peers does not answer: {view.why}")
        for pane in view.panes.values():
            if identity in pane.sessions and not pane.is_dead and view.server_pid:
                return self._in_pane(pane, view.server_pid, dead)
        return None

    def _in_pane(self, pane: Pane, server: int, dead: Life) -> Life | None:
        try:
            process, of_server = READER.look(pane.pid), READER.look(server)
        except OSError:
            return Life("indeterminate", "the process of its pane may not be looked at")
        died_in = ((dead.tmux or {}).get("server"), (dead.tmux or {}).get("pane"))
        # What is left where a client has died is its wrapper, as Codex has one, and ends with it.
        if process is None or process.is_zombie or (dead.state == "dead" and died_in == (server, pane.id)):
            return self._ending(pane)
        agent = {"pid": process.pid, "start": process.start, "boot": self.clock.boot()}
        tmux = {
            "session": pane.session, "server": server, "serverStart": of_server.start if of_server else None,
            "socket": self.socket, "pane": pane.id,
        }  # fmt: skip
        return Life("alive", "", None, agent, tmux)

    def _ending(self, pane: Pane) -> Life | None:
        """Return None, for no life, once tmux knows as well that what ran in a pane has ended."""
        deadline = time.monotonic() + ENDING_S
        while True:
            view = self.tmux.view(self.socket)
            left = view.panes.get(pane.id)
            if view.state == "gone" or (view.state == "answered" and (left is None or left.is_dead)):
                return None
            if time.monotonic() > deadline:
                return Life("indeterminate", "the process of its pane is about to end")
            time.sleep(POLL_S)

    def past(self, identity: str, park: Park | None) -> Past | None:
        """Return what of an identity may be taken up: what was parked, else the newest that can be."""
        if park is not None and park.session_id:
            parked = registry.session(self.root, park.session_id)
            return _past({**parked.record, "id": parked.id}, self.clock.wall()) if parked else None
        found = [
            _past({**each.record, "id": each.id}, self.clock.wall())
            for each in self._of(identity, None)
            if STAND_IN not in each.record
        ]
        return next((each for each in found if not each.fault), found[0] if found else None)

    def end(self, life: Life) -> End:
        """Return how a session that is dead ended."""
        record = life.session.record if life.session else {}
        agent, stamp = life.agent or {}, life.tmux or {}
        boot = agent.get("boot")
        is_of_this_boot = boot == self.clock.boot() if isinstance(boot, str) else None
        server = {"pid": stamp.get("server"), "start": stamp.get("serverStart"), "boot": boot}
        is_server_dead = liveness(server) if is_of_this_boot else "unknown"
        left = None
        if is_of_this_boot and is_server_dead != "dead" and stamp.get("socket") and stamp.get("pane"):
            left = exit_cause(self.tmux, str(stamp["socket"]), str(stamp["pane"]))
        client, transcript = str(record.get("client", "")), str(record.get("transcriptPath", ""))
        remains = Remains(
            is_parked=isinstance(record.get("parked"), dict),
            is_of_this_boot=is_of_this_boot,
            server=is_server_dead,
            status=left.status if left else None,
            signal=left.signal if left else None,
            reason=str(record.get("endedReason", "")) if record.get("status") == "completed" else "",
            is_turn_over=bool(transcript) and turns.turn(client, transcript).state == "closed",
        )
        return end(remains, f"{stamp.get('socket')}:{stamp.get('server')}")

    def close(self, life: Life) -> None:
        """Remove the pane that a session died in, where it is one of ours."""
        stamp, agent = life.tmux or {}, life.agent or {}
        pid, server = agent.get("pid"), stamp.get("server")
        if stamp.get("socket") == self.socket and isinstance(pid, int) and isinstance(server, int):
            is_ours = names_of(str(stamp.get("session", ""))) != ("", "")
            close_after(self.tmux, self.socket, str(stamp.get("pane")), server, pid, is_ours=is_ours)

    def spoke_at(self, session: Session) -> float | None:
        """Return when a session, or one below it, last wrote something; None where that cannot be told."""
        place = session.text("transcriptPath")
        times: list[float | None] = []
        with suppress(transcripts.Unresolved):
            times.append(transcripts.probe(place).last_at)
            times.append(transcripts.children_at(Path(place)))
        return max((each for each in times if each is not None), default=None)

    def dialog(self, life: Life) -> str | None:
        """Return the name of the dialog that a peer waits at; None where it waits at none, or nobody can see it."""
        stamp = life.tmux or {}
        socket, pane = str(stamp.get("socket", "")), str(stamp.get("pane", ""))
        client = life.session.text("client") if life.session else names_of(str(stamp.get("session", "")))[0]
        view = self.tmux.view(socket, [pane]) if socket else None
        shown = view.panes.get(pane) if view else None
        if view is None or shown is None or pane not in view.frames or not client:
            return None
        folder = life.session.text("cwd") if life.session else ""
        surface = adapter(client).surface(view.frames[pane], shown.title, folder)
        return surface.dialog.name if surface.dialog else None


def _by_records(sessions: list[Session]) -> Life:
    """Return what the records of an identity come to, the newest first."""
    unsure: Session | None = None
    for each in sessions:
        lives = liveness(each.record.get("agent"))
        is_over = each.text("status") in ("completed", "killed", "failed")
        if lives == "alive" and not is_over:
            return _life("alive", each)
        is_replaced = is_over and each.text("endedReason") in ("replaced", "forked")
        if (lives == "alive" and not is_replaced) or (lives == "unknown" and not is_over):
            unsure = unsure or each
    if unsure is not None:
        return _life("indeterminate", unsure, "its process is ending, or cannot be looked at")
    return _life("dead", sessions[0]) if sessions else Life("dead")


def _watched(state: State, said: dict[str, Any]) -> Life:
    """Return what is known of a session by what is watched alone."""
    why = "its process may not be looked at" if state == "indeterminate" else ""
    return Life(state, why, None, said.get("agent"), said.get("tmux"))


def _life(state: State, session: Session, why: str = "") -> Life:
    agent, tmux = session.record.get("agent"), session.record.get("tmux")
    return Life(
        state, why, session, agent if isinstance(agent, dict) else None, tmux if isinstance(tmux, dict) else None
    )


def _past(record: dict[str, Any], now: float) -> Past:
    client, place = str(record.get("client", "")), str(record.get("transcriptPath", ""))
    try:
        found = resumption.proven(record)
    except resumption.Unresumable as error:
        return Past(str(record["id"]), Path(str(record.get("cwd", ""))), str(error))
    last_at: float | None = None
    with suppress(transcripts.Unresolved):
        last_at = transcripts.probe(place).last_at
    return Past(
        session_id=str(record["id"]),
        cwd=Path(found.cwd),
        tokens=context_tokens(client, place),
        idle_s=None if last_at is None else max(0.0, now - last_at),
        text=found.text,
        is_over=turns.turn(client, place).state == "closed",
    )
