"""The panes that clients were launched in: how what ran there ended, and the end of a pane itself.

The server of the peers keeps the panes of what has ended, with its exit status and its last lines.
"""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from instar.sessions.screens import drawn

if TYPE_CHECKING:
    from instar.sessions.machine.tmux import Tmux

LAST_LINES: Final = 3  # Claude ends with two that say how to resume, whatever it is that ended it
LAST_CHARACTERS: Final = 160
_STATUS: Final = re.compile(r"(\d*) (\d*|[A-Z0-9]*) (\d*)")
CLOSED_S: Final = 5.0
POLL_S: Final = 0.1


@dataclass(frozen=True)
class Exit:
    """How the command of a pane ended: by a `status` or a `signal`, both None where tmux does not tell.

    `at` is when, in seconds since 1970. `last` are its last lines that are not blank, three at most.
    """

    status: int | None
    signal: int | None
    at: float | None
    last: tuple[str, ...]

    @property
    def text(self) -> str:
        """How it ended, in words for people."""
        how = "for a reason that tmux does not tell"
        if self.signal is not None:
            how = f"by signal {self.signal}"
        elif self.status is not None:
            how = f"with status {self.status}"
        return f"it ended {how}" + (f": {' / '.join(self.last)}" if self.last else "")


def exit_cause(tmux: Tmux, socket: str, pane: str) -> Exit | None:
    """Return how the command of a pane ended; None while it lives, or where nobody can tell."""
    view = tmux.view(socket, [pane])
    found = view.panes.get(pane)
    if found is None or not found.is_dead:
        return None
    # tmux with utempter is deaf to what ends while that tidies up after a pane, until another of its children ends.
    tmux.run(socket, "run-shell", ":")
    form = "#{pane_dead_status} #{pane_dead_signal} #{pane_dead_time}"
    told = _STATUS.fullmatch(tmux.run(socket, "display-message", "-p", "-t", pane, form).text.strip("\n"))
    status, number, at = told.groups() if told else ("", "", "")
    return Exit(
        status=int(status) if status and not number else None,
        signal=_signal(number),
        at=float(at) if at else None,
        last=last_lines(view.frames.get(pane, "")),
    )


def close(tmux: Tmux, socket: str, pane: str, pid: int) -> bool:
    """Close a pane that was launched here, if `pid` is still its first process; say whether it is gone.

    What runs in it is told by a hang-up, as when a terminal is closed.
    """
    deadline = time.monotonic() + CLOSED_S
    while True:
        view = tmux.view(socket)
        found = view.panes.get(pane)
        if view.state == "gone" or (view.state == "answered" and (found is None or found.pid != pid)):
            return True
        if time.monotonic() > deadline:
            return False
        tmux.run(socket, "kill-pane", "-t", pane)
        time.sleep(POLL_S)


def close_after(tmux: Tmux, socket: str, pane: str, server: int, pid: int, *, is_ours: bool) -> bool:  # noqa: PLR0913 - what tells a pane
    """Close the pane that a client, `pid`, has ended in; say whether it is gone.

    What was started there may be a wrapper, which ends after its client, as that of Codex does: in a pane that is ours
    its end is waited for. Where anything else goes on, the pane is left.
    """
    deadline = time.monotonic() + CLOSED_S
    while True:
        view = tmux.view(socket)
        found = view.panes.get(pane) if view.server_pid == server else None
        if found and (found.is_dead or found.pid == pid):
            return close(tmux, socket, pane, found.pid)
        if view.state != "indeterminate" and found is None:
            return True
        if (found and not is_ours) or time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)


def _signal(told: str) -> int | None:
    """Return the number of a signal that tmux tells by its number or its name."""
    if told.isdecimal():
        return int(told)
    with suppress(KeyError):
        return int(signal.Signals[f"SIG{told.removeprefix('SIG')}"])
    return None


def last_lines(frame: str) -> tuple[str, ...]:
    """Return the last lines that are not blank, without what would steer a terminal."""
    lines = ["".join(each for each in row if each.isprintable()).strip() for row in drawn.rows(frame)]
    return tuple(line[:LAST_CHARACTERS] for line in lines if line)[-LAST_LINES:]
