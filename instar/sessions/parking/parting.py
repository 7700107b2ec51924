"""The pane of a session that is ended: it stays, with its scrollback, and says how the session comes back.

Where the client is the pane's own command, tmux is told to keep the pane after its end (`remain-on-exit`) and what to
write in it; where a shell started the client, the line is written to the pane's terminal after the end.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import psutil

from instar.sessions.machine.processes import liveness, read_table

if TYPE_CHECKING:
    from instar.sessions.machine.processes import Process
    from instar.sessions.machine.tmux import Done, Pane, View

STAYS: Final = "remain-on-exit"
SAYS: Final = "remain-on-exit-format"
POLL_S: Final = 0.1
DEAD_WITHIN_S: Final = 2.0
_SHELLS: Final = ("sh", "bash", "zsh", "fish", "dash", "ksh", "mksh", "ash", "csh", "tcsh", "nu", "xonsh", "elvish")

# What a client left switched on that was killed, or just died of a TERM, as Codex 0.169 does: the second screen, the
# mouse, pastes, key codes; and no cursor.
_RESETS: Final = "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l\x1b[<u\x1b[?25h\x1b[0m"


class Server(Protocol):
    """What is asked of tmux; `instar.sessions.machine.tmux.Tmux` is such."""

    def view(self, socket: str, /) -> View:
        """Return all panes of a server."""

    def run(self, socket: str, /, *command: str) -> Done:
        """Run one command in a server."""


class AstrayError(Exception):
    """The recorded pane is not to be had: `keeps` is the name of the gate that says so, the text why."""

    def __init__(self, keeps: str, why: str) -> None:
        super().__init__(why)
        self.keeps = keeps


def pane_of(tmux: Server, stamp: dict[str, Any], boot: str) -> Pane:
    """Return the stamped pane, on the very server that was stamped. Raise AstrayError."""
    view = tmux.view(str(stamp.get("socket", "")))
    if view.state != "answered":
        raise AstrayError("liveness-indeterminate", f"tmux does not tell about its pane: {view.why}")
    server = {"pid": stamp.get("server"), "start": stamp.get("serverStart"), "boot": boot}
    pane = view.panes.get(str(stamp.get("pane")))
    if view.server_pid != stamp.get("server") or liveness(server) == "dead" or pane is None or pane.is_dead:
        raise AstrayError("identity-mismatch", "its pane is not the recorded one")
    return pane


def is_command(agent: dict[str, Any], pane: Pane) -> bool:
    """Say whether the pane ends with the agent: whether no shell that a person types into is between them."""
    if agent["pid"] == pane.pid:
        return True
    try:
        above = read_table().above(agent["pid"])
    except (psutil.Error, OSError):
        return False
    numbers = [process.pid for process in above]
    if pane.pid not in numbers:
        return False
    return not any(_is_typed_into(process) for process in above[: numbers.index(pane.pid) + 1])


def options_of(tmux: Server, stamp: dict[str, Any]) -> dict[str, str]:
    """Return what the pane's own options say before they are changed; "" for one that is not set."""
    return {
        name: tmux.run(stamp["socket"], "show-options", "-pqv", "-t", stamp["pane"], name).text.rstrip("\n")
        for name in (STAYS, SAYS)
    }


def make_stay(tmux: Server, stamp: dict[str, Any], line: str) -> None:
    """Have the pane stay when its command ends, and say a line then. Raise AstrayError where it would not stay."""
    set_option = ("set-option", "-p", "-t", stamp["pane"])
    # To tmux, `#` begins what it fills in. A tmux before 3.3 has no such option, and says that the pane is dead.
    tmux.run(stamp["socket"], *set_option, SAYS, line.replace("#", "##"))
    done = tmux.run(stamp["socket"], *set_option, STAYS, "on")
    if done.state != "done":
        raise AstrayError("pane-not-kept", f"tmux would close its pane: {done.why}")


def restore(tmux: Server, stamp: dict[str, Any], options: dict[str, str]) -> None:
    """Give the pane back the options it had."""
    for name, value in options.items():
        words = ("set-option", "-p", "-t", stamp["pane"], name, value)
        unset = ("set-option", "-pu", "-t", stamp["pane"], name)
        tmux.run(stamp["socket"], *(words if value else unset))


def is_left_dead(tmux: Server, stamp: dict[str, Any]) -> bool:
    """Say whether the pane has died with its command, which takes a moment; what it says is then on its screen."""
    deadline = time.monotonic() + DEAD_WITHIN_S
    while True:
        # tmux 3.3 may miss the end of a command, and with it write no line, until another child of it ends.
        tmux.run(stamp["socket"], "run-shell", ":")
        view = tmux.view(stamp["socket"])
        pane = view.panes.get(stamp["pane"])
        if view.state != "answered" or pane is None or pane.is_dead:
            tmux.run(stamp["socket"], "run-shell", ":")
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


def give_back(tmux: Server, stamp: dict[str, Any], options: dict[str, str]) -> None:
    """Give a dead pane the options it had, where its line is written: nobody who starts it anew is told that again."""
    # A pane counts as dead before its line is written; until then it would go without the option that has it stay.
    if tmux.run(stamp["socket"], "display-message", "-p", "-t", stamp["pane"], "#{pane_dead_time}").text.strip():
        restore(tmux, stamp, options)


def has_second_screen(tmux: Server, stamp: dict[str, Any]) -> bool:
    """Say whether a pane shows the second screen: what ended there has then left it as it was."""
    form = "#{alternate_on}"
    return tmux.run(stamp["socket"], "display-message", "-p", "-t", stamp["pane"], form).text.strip() == "1"


def write_line(terminal: str, line: str, *, is_left_on: bool) -> bool:
    """Write a line on a terminal; say whether that could be done, which may never wait for anybody.

    `is_left_on` says that what was there has not put the terminal back to what a shell expects.
    """
    before = _RESETS if is_left_on else ""
    with suppress(OSError):
        fd = os.open(terminal, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if os.isatty(fd):
                return os.write(fd, f"{before}\r\n{line}\r\n".encode()) > 0
        finally:
            os.close(fd)
    return False


def _is_typed_into(process: Process) -> bool:
    """Say whether a process is a shell without a script or a command to end with."""
    if process.name.lstrip("-") not in _SHELLS:
        return False
    words = process.argv[1:]
    return not any(not word.startswith("-") or (word[1:2] != "-" and "c" in word) for word in words)
