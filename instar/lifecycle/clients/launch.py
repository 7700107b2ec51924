"""A peer's client is started in a pane of our own tmux server, and watched until it is up and is who it should be.

No shell is between: tmux is told the words of the command, and gets them and the environment by its standard input.
The pane of a client that has ended stays, so that its exit status and its last lines can be told. The first message
goes in when the client is up, as any later one.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import psutil

from instar.errors import InstarError
from instar.lifecycle.clients.adapters import Dialog, Surface, adapter, environment
from instar.lifecycle.clients.delivery import Delivered, Target, deliver
from instar.lifecycle.clients.messages import unfit
from instar.lifecycle.clients.panes import CLOSED_S, Exit, close, exit_cause, last_lines
from instar.sessions import registry
from instar.sessions.machine.processes import liveness

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.lifecycle.peers import Peer
    from instar.sessions.machine.tmux import Pane, Tmux, View

SERVER: Final = "instar"
LAUNCHED_BY: Final = "instar"  # as records say it
WIDTH, HEIGHT, HISTORY = "200", "50", "50000"
Outcome = Literal["up", "refused", "dialog", "exited", "vanished", "never-ready", "another-session", "undelivered"]

# Of our own server, whatever people have in their configuration: nobody's is read.
_OPTIONS: Final = (
    ("set-option", "-g", "remain-on-exit", "on"),
    ("set-option", "-gq", "remain-on-exit-format", ""),  # tmux before 3.3 has no such option
    ("set-option", "-g", "default-terminal", "screen-256color"),
    ("set-option", "-g", "history-limit", HISTORY),
    ("set-option", "-g", "update-environment", ""),
    ("set-option", "-g", "focus-events", "on"),
)


@dataclass(frozen=True)
class Patience:
    """How long the phases of a launch may take, in seconds.

    `boot_s` is until the client takes prompts, `record_s` until its SessionStart is on record after that, `landing_s`
    until it has begun with its first message.
    """

    boot_s: float = 240.0
    record_s: float = 30.0
    landing_s: float = 30.0
    poll_s: float = 0.25


@dataclass(frozen=True)
class Launched:
    """What became of a launch. All but "up" is a failure, which `why` tells of; `is_alive` tells of a survivor.

    "dialog": it waits for an answer that nobody here gives, `dialog`. "exited": it ended, `exit`. "vanished": its pane
    is gone, or its server. "never-ready": no prompt came in time. "another-session": what came up is not, or does not
    say that it is, the session that was to be resumed; its pane is closed. "undelivered": it is up, and was not told
    its message, `delivered`. "refused": nothing was started, and `is_alive` tells of what was there before.

    `agent` is {pid, start, boot} as it is on record, `session_id` the session; None and "" where no record names the
    pane, as for a Codex that was told nothing. `pid` is the first process of the pane, `server` that of tmux.
    """

    outcome: Outcome
    why: str
    socket: str
    pane: str = ""
    pid: int | None = None
    server: int | None = None
    agent: dict[str, Any] | None = None
    session_id: str = ""
    is_alive: bool = False
    dialog: Dialog | None = None
    exit: Exit | None = None
    delivered: Delivered | None = None


def socket_of(environ: Mapping[str, str]) -> str:
    """Return the socket of the tmux server that peers run in, the one that `tmux -L instar` means."""
    return str(Path(environ.get("TMUX_TMPDIR") or "/tmp").resolve() / f"tmux-{os.getuid()}" / SERVER)  # noqa: S108 - as tmux has it


def launch(  # noqa: PLR0913 - what is asked of the machine is passed in
    root: Path,
    peer: Peer,
    message: str,
    *,
    environ: Mapping[str, str],
    tmux: Tmux,
    resume_id: str | None = None,
    patience: Patience = Patience(),
) -> Launched:
    """Start a peer's client, tell it its first message ("" for none), and return once it is proven who it is.

    `root` is the project whose records tell of its session, which is marked there as the peer's. `environ` is the
    environment to start it in. To be called by one at a time a peer, under its lock. Raise InstarError where it cannot
    be started at all.
    """
    return _Launch(root, peer, environ, tmux, resume_id, patience).done(message)


class _FailedError(Exception):
    """The launch ends here: what is different of its outcome."""

    def __init__(self, outcome: Outcome, why: str, **more: object) -> None:
        super().__init__(why)
        self.changes: dict[str, Any] = {"outcome": outcome, "why": why, **more}


@dataclass
class _Launch:
    """One launch, and what it has come to."""

    root: Path
    peer: Peer
    environ: Mapping[str, str]
    tmux: Tmux
    resume_id: str | None
    patience: Patience

    def __post_init__(self) -> None:
        self.adapter = adapter(self.peer.runtime)
        self.socket = socket_of(self.environ)
        self.now = Launched("up", "", self.socket)
        self.transcript = ""  # of the session that it is proven to be

    def done(self, message: str) -> Launched:
        if message and (why := unfit(self.peer.runtime, message)):
            return replace(self.now, outcome="refused", why=f"its first message cannot be carried: {why}")
        try:
            self._make_room()
            self._start()
            self._boot()
            if self.adapter.tells_at_start:
                self._identify()
            elif self.resume_id:
                self._see_open(self.resume_id)
            if message:
                self._tell(message)
                if not self.adapter.tells_at_start:
                    self._identify()
        except _FailedError as failure:
            return replace(self.now, **failure.changes)
        return self.now

    def _make_room(self) -> None:
        """Close what is left of earlier launches. Raise where something lives there."""
        deadline = time.monotonic() + CLOSED_S
        while (view := self.tmux.view(self.socket)).state == "indeterminate" and time.monotonic() < deadline:
            time.sleep(self.patience.poll_s)  # a server that is ending says so once more
        if view.state == "indeterminate":
            raise _FailedError("refused", f"tmux does not tell whether it runs already: {view.why}")
        for pane in view.panes.values():
            if self.peer.identity in pane.sessions:
                if not pane.is_dead:
                    why = f"something runs already in the session {self.peer.identity} of tmux -L {SERVER}"
                    raise _FailedError("refused", why, pane=pane.id, pid=pane.pid, is_alive=True)
                close(self.tmux, self.socket, pane.id, pane.pid)

    def _start(self) -> None:
        peer = self.peer
        if not peer.cwd.is_dir():
            raise InstarError(f"the folder of {peer.name}, {peer.cwd}, is gone")
        argv = self.adapter.launch_argv(peer, self.resume_id, {**self.environ, **peer.env})
        variables = environment(peer, self.environ)
        session = (
            "new-session", "-d", "-s", peer.identity, "-n", peer.name, "-x", WIDTH, "-y", HEIGHT, "-P", "-F",
            "#{pane_id} #{pane_pid} #{pid}", *(f"-e{name}={value}" for name, value in variables.items()), "--", *argv,
        )  # fmt: skip
        done = self.tmux.start(self.socket, (*_OPTIONS, session), peer.cwd)
        told = re.search(r"(%\d+) (\d+) (\d+)\n", done.text)
        if done.state != "done" or told is None:
            raise _FailedError("refused", f"tmux did not start it: {done.why or 'it names no pane'}")
        self.now = replace(self.now, pane=told[1], pid=int(told[2]), server=int(told[3]), is_alive=True)

    def _boot(self) -> None:
        """Wait until the client takes prompts."""
        deadline = time.monotonic() + self.patience.boot_s
        before, answered = None, set[str]()
        while True:
            surface, frame = self._look()
            if surface.moment == "ready":
                return
            if surface.dialog and surface.dialog == before and surface.dialog.name not in answered:
                self._at_dialog(surface.dialog)
                answered.add(surface.dialog.name)
            before = surface.dialog
            if time.monotonic() > deadline:
                if surface.dialog:
                    self._report(surface.dialog)
                shown = " / ".join(last_lines(frame)) or "nothing"
                raise _FailedError("never-ready", f"{surface.why}; it shows: {shown}")
            time.sleep(self.patience.poll_s)

    def _at_dialog(self, dialog: Dialog) -> None:
        """Answer the one dialog that may be, by one key; report all others."""
        if not (dialog.keys and self.peer.trusts_folder):
            self._report(dialog)
        self.tmux.run(self.socket, "send-keys", "-t", self.now.pane, *dialog.keys)

    def _report(self, dialog: Dialog) -> None:
        raise _FailedError("dialog", f"it {dialog.says}: answer it with instar-peers attach", dialog=dialog)

    def _look(self) -> tuple[Surface, str]:
        """Return what the pane shows; nothing yet where tmux does not tell. Raise where the client is gone."""
        view = self.tmux.view(self.socket, [self.now.pane])
        pane = self._alive(view)
        frame = view.frames.get(self.now.pane, "")
        if pane is None:
            return Surface("starting", f"tmux does not tell: {view.why}"), frame
        return self.adapter.surface(frame, pane.title, str(self.peer.cwd)), frame

    def _alive(self, view: View) -> Pane | None:
        """Return the pane; None where nobody can tell. Raise where the client is gone."""
        if view.state == "indeterminate":
            return None
        pane = view.panes.get(self.now.pane)
        if view.state == "gone" or pane is None or view.server_pid != self.now.server:
            raise _FailedError("vanished", "its pane is gone", is_alive=False)
        if pane.is_dead:
            cause = exit_cause(self.tmux, self.socket, pane.id)
            why = cause.text if cause else "it ended"
            raise _FailedError("exited", why, exit=cause, is_alive=False)
        return pane

    def _identify(self) -> None:
        """Wait until a record names the pane, and see that it is of the session that was wanted."""
        deadline = time.monotonic() + self.patience.record_s
        while (session := self._recorded()) is None:
            self._alive(self.tmux.view(self.socket))
            if time.monotonic() > deadline:
                if self.resume_id:
                    self._another("no record says that it is the session that was to be resumed")
                return
            time.sleep(self.patience.poll_s)
        if self.resume_id not in {None, session.id}:
            self._another(f"session {session.id} came up instead of the one that was to be resumed")
        self.now = replace(self.now, agent=session.record.get("agent"), session_id=session.id)
        self.transcript = session.text("transcriptPath")
        with suppress(InstarError):  # the record is another's to write, too, and the next look marks it
            mark(self.root, session.id, self.peer.identity)

    def _see_open(self, session_id: str) -> None:
        """Wait until the client has the transcript open: Codex does when it takes a session up, and tells nobody."""
        deadline = time.monotonic() + self.patience.record_s
        while not self._has_open(f"-{session_id}.jsonl"):
            self._alive(self.tmux.view(self.socket))
            if time.monotonic() > deadline:
                self._another("it does not write to the session that was to be resumed")
            time.sleep(self.patience.poll_s)
        self.now = replace(self.now, session_id=session_id)

    def _has_open(self, end: str) -> bool:
        with suppress(psutil.Error, OSError):
            first = psutil.Process(self.now.pid)
            opened = [file.path for each in (first, *first.children(recursive=True)) for file in each.open_files()]
            return any(path.endswith(end) for path in opened)
        return False

    def _recorded(self) -> registry.Session | None:
        """Return the session whose process is the pane's, by its record."""
        with suppress(InstarError):
            for session in registry.sessions(self.root):
                stamp = session.record.get("tmux")
                place = (stamp.get("server"), stamp.get("pane")) if isinstance(stamp, dict) else None
                if place == (self.now.server, self.now.pane) and liveness(session.record.get("agent")) == "alive":
                    return session
        return None

    def _another(self, why: str) -> None:
        assert self.now.pid  # noqa: S101 - it was started
        is_gone = close(self.tmux, self.socket, self.now.pane, self.now.pid)
        raise _FailedError("another-session", why, is_alive=not is_gone)

    def _tell(self, message: str) -> None:
        assert self.now.server  # noqa: S101 - it was started
        target = Target(
            self.peer.identity, self.peer.runtime, str(self.peer.cwd), self.socket, self.now.pane, self.now.server,
            self.transcript,
        )  # fmt: skip
        delivered = deliver(self.root, target, message, tmux=self.tmux, landing_s=self.patience.landing_s)
        self.now = replace(self.now, delivered=delivered)
        if delivered.fate not in {"landed", "accepted"}:
            self._alive(self.tmux.view(self.socket))
            raise _FailedError("undelivered", f"its first message did not reach it: {delivered.why}")


def mark(root: Path, session_id: str, identity: str) -> None:
    """Say in the record of a session that it is a peer's, and was launched by us. Raise InstarError."""
    ours = {"identity": identity, "launchedBy": LAUNCHED_BY}
    registry.change(root, session_id, lambda record: None if ours.items() <= record.items() else {**record, **ours})
