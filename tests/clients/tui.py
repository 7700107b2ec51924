"""Claude and Codex as a person sees them: interactive, in panes of a private tmux server."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Protocol
from uuid import uuid4

from .launch import signal_tree
from .waiting import DeadlineError, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from .launch import Launch

START_TIMEOUT_S = 30.0
TURN_TIMEOUT_S = 30.0
END_TIMEOUT_S = 5.0
SIZE = "120x40"


@dataclass(frozen=True)
class Screen:
    """What a pane shows (without its scrollback), and the title that the client gave it."""

    title: str
    text: str
    has_ended: bool = False


class InteractiveClient(Protocol):
    """What a TUI has to know of its client; Claude and Codex are such."""

    def interactive(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command that starts the TUI without a dialog."""

    def has_empty_composer(self, screen: Screen) -> bool:
        """Tell whether the place for the next prompt is there, and empty; the client may be at work."""

    def is_idle(self, screen: Screen) -> bool:
        """Tell whether the client waits for a prompt, with an empty composer."""

    def is_fresh(self, screen: Screen) -> bool:
        """Tell whether it is idle and shows no conversation."""


class Tmux:
    """A tmux server of our own, which lives inside the ``with`` block, with all that runs in its panes."""

    def __init__(self) -> None:
        self.name = f"clients-{uuid4().hex[:12]}"
        self._socket: Path | None = None

    def __enter__(self) -> Self:
        # A pane stays when its program ends: so a client that fails to start leaves its message to read.
        options = ("remain-on-exit", "on"), ("default-size", SIZE), ("exit-empty", "off")
        settings = [word for option in options for word in ("set-option", "-g", *option, ";")]
        self.run("start-server", ";", *settings)
        self._socket = Path(self.run("display-message", "-p", "#{socket_path}"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(TmuxError):  # the test may have started nothing in the server
            self._end_programs()
        with suppress(TmuxError):  # or have killed it
            self.run("kill-server")
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def run(self, *command: str, stdin: str = "") -> str:
        """Run one tmux command on this server and return what it printed. Raises TmuxError when it fails."""
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", "SHELL": "/bin/sh"}
        done = subprocess.run(
            ("tmux", "-L", self.name, "-f", os.devnull, *command),
            env=environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if done.returncode:
            raise TmuxError(f"tmux {' '.join(command)}: {done.stderr.strip()}")
        return done.stdout.removesuffix("\n")

    def start(
        self,
        client: InteractiveClient,
        *args: str,
        session: str = "main",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Tui:
        """Start a TUI in a new window of ``session`` (made, if need be), and wait until it takes prompts.

        ``args``, ``cwd`` and ``env`` are those of the client's ``interactive``.
        """
        launch = client.interactive(*args, cwd=cwd, env=env)
        pane = self.run(*self._new_window(session), "-c", str(launch.cwd), launch.for_pane())
        tui = Tui(self, client, pane)
        tui.wait_until_idle(timeout_s=timeout_s)
        return tui

    def _new_window(self, session: str) -> tuple[str, ...]:
        reply = ("-d", "-P", "-F", "#{pane_id}")
        try:
            self.run("has-session", "-t", f"={session}")
        except TmuxError:
            return ("new-session", *reply, "-s", session)
        return ("new-window", *reply, "-t", f"={session}:")

    def _end_programs(self) -> None:
        """End what runs in the panes while tmux still knows which of it does, so that no id is somebody else's."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            for pid in self._running_panes():
                signal_tree(pid, number)
            with suppress(DeadlineError):
                wait_until(lambda: not self._running_panes(), "the panes are dead", timeout_s=END_TIMEOUT_S)
                return

    def _running_panes(self) -> list[int]:
        panes = self.run("list-panes", "-a", "-F", "#{pane_dead} #{pane_pid}").splitlines()
        return [int(pid) for dead, pid in map(str.split, panes) if dead == "0"]


class TmuxError(Exception):
    """A tmux command failed; the text says which, and what tmux said."""


class Tui:
    """One interactive client in its pane."""

    def __init__(self, tmux: Tmux, client: InteractiveClient, pane: str) -> None:
        self.pane = pane
        self._tmux = tmux
        self._client = client

    @property
    def pid(self) -> int:
        """The process that tmux started: ``claude`` itself, or the node process that started the native ``codex``."""
        return int(self._tmux.run(*self._tell("#{pane_pid}")))

    def screen(self) -> Screen:
        """Look at the pane."""
        # In one command, so that title and text belong together.
        capture = (";", "capture-pane", "-p", "-t", self.pane)
        dead, title, text = self._tmux.run(*self._tell("#{pane_dead}\n#{pane_title}"), *capture).split("\n", 2)
        return Screen(title, text, has_ended=dead == "1")

    def scrollback(self) -> str:
        """Return the last 200 lines that have left the screen, and the screen."""
        return self._tmux.run("capture-pane", "-p", "-S", "-200", "-t", self.pane).strip("\n")

    def wait_for(
        self, condition: str | Callable[[Screen], bool], *, timeout_s: float = TURN_TIMEOUT_S, what: str = ""
    ) -> Screen:
        """Wait until the screen shows a text or meets a condition; return it as it was then.

        Raises DeadlineError with ``what`` was waited for and all that the pane shows, when that does not come in time,
        and at once when the client has ended.
        """
        holds = condition if callable(condition) else lambda screen: condition in screen.text
        what = what or f"the screen shows {condition!r}"

        def look() -> Screen | None:
            screen = self.screen()
            if not holds(screen) and screen.has_ended:
                raise DeadlineError(f"the client has ended; waited until {what}\n{self.scrollback()}")
            return screen if holds(screen) else None

        return wait_until(look, what, timeout_s=timeout_s, seen=self.scrollback)

    def wait_until_idle(self, *, timeout_s: float = TURN_TIMEOUT_S) -> Screen:
        """Wait until the client takes prompts. Right after ``send`` that may still be the state from before it."""
        return self.wait_for(self._client.is_idle, timeout_s=timeout_s, what="the client takes a prompt")

    def send(self, text: str) -> None:
        """Type ``text`` (of several lines, perhaps), press Enter when it is there, and wait for nothing more."""
        # As a bracketed paste, since after keys that come too fast Codex takes Enter for a line break. And Enter only
        # when the text is there: Claude keeps what is typed during its start, but not the Enter.
        self._tmux.run("load-buffer", "-", stdin=text)
        self._tmux.run("paste-buffer", "-p", "-d", "-t", self.pane)
        self.wait_for(lambda screen: not self._client.has_empty_composer(screen), what=f"{text!r} is typed")
        self.press("Enter")

    def press(self, *keys: str) -> None:
        """Press keys by their tmux names (``"Escape"``, ``"C-c"``)."""
        self._tmux.run("send-keys", "-t", self.pane, *keys)

    def prompt(self, text: str, *, until: str, timeout_s: float = TURN_TIMEOUT_S) -> Screen:
        """Send ``text``, wait until the screen shows ``until`` and the client is idle; return the screen.

        ``until`` should be the last thing that the model says in this turn, and be neither on the screen yet nor in
        ``text``, which the client repeats.
        """
        self.send(text)

        def is_over(screen: Screen) -> bool:
            return until in screen.text and self._client.is_idle(screen)

        return self.wait_for(is_over, timeout_s=timeout_s, what=f"the client has said {until!r} and is idle")

    def clear(self) -> Screen:
        """Send ``/clear`` after a turn, and wait until the conversation is gone from the screen."""
        self.send("/clear")
        return self.wait_for(self._client.is_fresh, what="the conversation is gone")

    def _tell(self, form: str) -> tuple[str, ...]:
        return ("display-message", "-p", "-t", self.pane, form)
