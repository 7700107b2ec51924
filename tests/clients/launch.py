"""A command with its whole environment: run it, wrap it, start it, or print it for a shell."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from .waiting import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import TextIO

DEFAULT_TIMEOUT_S = 60.0
GRACE_S = 5.0


@dataclass(frozen=True)
class Finished:
    """How a command ended, and all it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Launch:
    """A command, its folder, and every variable that it gets to see; nothing of the test's environment leaks in."""

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]

    def wrapped_in(self, *command: str) -> Launch:
        """Return the same launch, started by ``command``, which has to run its arguments (``setsid --wait``, say)."""
        return replace(self, argv=(*command, *self.argv))

    def run(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Finished:
        """Run to the end, with nothing on stdin.

        Raises DeadlineError with the output so far, after ending it and its descendants, when that takes longer.
        """
        # Files, not pipes: a descendant that lives on cannot delay the end, and the output so far is never lost.
        with scratch_file() as stdout, scratch_file() as stderr:
            with self.start(stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr) as process:
                in_time = ended_within(process, timeout_s)
                if not in_time:
                    end(process)
            done = Finished(process.returncode, whole_text(stdout), whole_text(stderr))
        if not in_time:
            raise DeadlineError(f"not within {timeout_s:g} s: {shlex.join(self.argv)}\n{done.stdout}\n{done.stderr}")
        return done

    def start(self, **streams: Any) -> subprocess.Popen[str]:
        """Start as the leader of a process group of its own; ``streams`` are those of Popen, in text mode."""
        return subprocess.Popen(
            self.argv,
            cwd=self.cwd,
            env=dict(self.env),
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            **streams,
        )

    def for_shell(self) -> str:
        """Return a shell command that does the same in the environment of that shell.

        Our variables are set on top of what is there: so the command started by a client's Bash tool sees what that
        client hands to its children.
        """
        return f"cd {shlex.quote(os.fspath(self.cwd))} && {self._env_command()} {shlex.join(self.argv)} </dev/null"

    def for_pane(self) -> str:
        """Return a shell command that becomes this launch in a tmux pane, with the pane's terminal and variables."""
        of_the_pane = 'TERM="$TERM" TMUX="$TMUX" TMUX_PANE="$TMUX_PANE"'
        return f"exec {self._env_command('-i')} {of_the_pane} {shlex.join(self.argv)}"

    def _env_command(self, *options: str) -> str:
        return shlex.join(["env", *options, *(f"{name}={value}" for name, value in self.env.items())])


def base_environment(home: Path) -> dict[str, str]:
    """Return the variables that any program needs, with ``home`` for a home, and no others."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.fspath(home),
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "SHELL": "/bin/bash",
    }


def scratch_file() -> TextIO:
    """Open a nameless file to collect a program's output in."""
    return TemporaryFile("w+", encoding="utf-8", errors="replace")


def whole_text(file: TextIO) -> str:
    """Read ``file`` from its start."""
    file.seek(0)
    return file.read()


def ended_within(process: subprocess.Popen[str], timeout_s: float) -> bool:
    """Wait for the end of ``process``, and tell whether it came in time."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    return process.returncode is not None


def end(process: subprocess.Popen[str]) -> None:
    """End the running ``process`` and all its descendants, by force if need be."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        signal_tree(process.pid, number)
        if ended_within(process, GRACE_S):
            return


def signal_tree(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process group that ``pid`` leads, and kill the descendants that have left the group.

    Claude starts each tool and hook in a session of its own, and leaves them alone when it is ended itself. The caller
    guarantees that ``pid`` is not reaped, so that no id can be somebody else's.
    """
    outside = [child for child in _descendants(pid) if _group(child) not in (None, pid)]
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
    for child in outside:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    listing = subprocess.run(("ps", "-A", "-o", "pid=,ppid="), capture_output=True, text=True, check=True)
    children = defaultdict(list)
    for child, parent in (map(int, line.split()) for line in listing.stdout.splitlines()):
        children[parent].append(child)
    found = [pid]
    for parent in found:  # grows while it is walked
        found += children[parent]
    return found[1:]


def _group(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None
