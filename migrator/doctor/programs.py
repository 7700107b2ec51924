"""Programs run at arm's length: bounded in time and in what they may say, and, if asked for, below no client.

Run as a script, this file is the middleman of `run_detached`: jobs as JSON on stdin, their outcomes on stdout. It then
has the standard library alone.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

OUTPUT_AT_MOST: Final = 1 << 16
CLIENTS: Final = ("claude", "codex")  # the process names
_SPARE_S: Final = 20.0  # for the middleman, beyond the longest job


class Job(NamedTuple):
    """A program to run, and how many seconds it has."""

    arguments: Sequence[str]
    cwd: str
    env: dict[str, str]
    seconds: float
    stdin: str = ""


class Ran(NamedTuple):
    """What a program did. The status is None when it was killed: at its deadline, or drowning us in output."""

    status: int | None
    stdout: str
    stderr: str
    seconds: float

    @property
    def is_flood(self) -> bool:
        """Whether it said more than anybody listens to."""
        return max(len(self.stdout), len(self.stderr)) >= OUTPUT_AT_MOST


class Process(NamedTuple):
    """A process in /proc; `start` tells it from a later one with the same pid."""

    parent: int
    start: str
    name: str


class DetachError(Exception):
    """A program cannot be run below no client."""


def run(job: Job) -> Ran:
    """Run a program to its end or its deadline, at which its whole process group is killed."""
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            job.arguments, cwd=job.cwd, env=job.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Ran(127, "", f"{error.filename}: {error.strerror}", 0.0)
    with process:
        status, said = _listen(process, job.stdin.encode(errors="surrogateescape"), started + job.seconds)
        if status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    stdout, stderr = (each.decode(errors="surrogateescape") for each in said)
    return Ran(status, stdout, stderr, time.monotonic() - started)


def _listen(process: subprocess.Popen[bytes], stdin: bytes, ends_at: float) -> tuple[int | None, list[bytes]]:
    """Return the status, None when it has to be killed, and what was said on stdout and stderr."""
    assert process.stdin  # noqa: S101 - mypy cannot know that it is a pipe
    with suppress(BrokenPipeError):
        process.stdin.write(stdin)  # far less than a pipe takes at once
    with suppress(BrokenPipeError):
        process.stdin.close()
    said = {pipe.fileno(): b"" for pipe in (process.stdout, process.stderr) if pipe}
    with selectors.DefaultSelector() as selector:
        for output in said:
            selector.register(output, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, ends_at - time.monotonic()))
            for key, _ in ready:
                chunk = os.read(key.fd, 8192)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fd)
            if not ready or max(map(len, said.values())) >= OUTPUT_AT_MOST:
                return None, list(said.values())
    try:
        return process.wait(max(0.0, ends_at - time.monotonic())), list(said.values())
    except subprocess.TimeoutExpired:
        return None, list(said.values())


def run_detached(jobs: Sequence[Job]) -> list[Ran]:
    """Run programs all at once, as children of a process without a client above it, and return what they did.

    A hook knows the owner of a build by the client process it runs below. One that is fired from within a session of
    that client must not be taken for its own. Raise `DetachError` where a client stays above, as its subreaper.
    """
    longest = max((job.seconds for job in jobs), default=0.0)
    done = subprocess.run(
        [sys.executable, "-I", "-S", __file__], input=json.dumps(jobs).encode(), stdout=subprocess.PIPE,
        timeout=longest + _SPARE_S, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    if isinstance(answer, str):
        raise DetachError(answer)
    return [Ran(*each) for each in answer]


def look_up(pid: int) -> Process | None:
    """Return a living process; None where there is none, or no /proc to read it in."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - a plain read
            head, _, tail = file.read().rpartition(")")  # the name stands in brackets, and may hold any character
        fields = tail.split()
        return None if fields[0] in "ZX" else Process(int(fields[1]), fields[19], head.partition("(")[2])
    except (OSError, ValueError, IndexError):
        return None


def _client_above(pid: int) -> str:
    while pid > 1 and (process := look_up(pid)):
        if process.name in CLIENTS:
            return process.name
        pid = process.parent
    return ""


def _middleman() -> None:
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    os.setsid()
    while os.getppid() == parent:
        time.sleep(0.001)
    jobs = [Job(*each) for each in json.load(sys.stdin)]
    client = _client_above(os.getppid())
    answer: Any = f"what is started here stays below {client}"
    if not client:
        with ThreadPoolExecutor(max(1, len(jobs))) as pool:
            answer = list(pool.map(run, jobs))
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    _middleman()
