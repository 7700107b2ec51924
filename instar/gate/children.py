"""Running a program that may hang, talk without end, or leave others behind."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from contextlib import suppress
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final

from instar.gate.verdict import Unusable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OUTPUT_BYTES: Final = 64 * 1024
GRACE_S: Final = 0.2
_LOOK_S: Final = 0.02


def output_of(argv: Sequence[str], stdin: bytes, seconds: float, folder: Path, environ: Mapping[str, str]) -> bytes:
    """Return what a program printed that ended well in time.

    It leads a process group, which is asked to end, and killed 200 ms later, at the deadline, and after 64 KiB of
    output; nothing of the group is left in any case. Raise Unusable, and OSError where the program cannot be started.
    """
    deadline = time.monotonic() + seconds
    if seconds <= 0:
        raise Unusable("timeout", "no time was left to ask in")
    with TemporaryFile() as heard:
        heard.write(stdin)
        heard.seek(0)
        process = subprocess.Popen(
            list(argv), cwd=folder, env=dict(environ), stdin=heard, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    with process:
        try:
            said = _said(process, deadline)
        except Unusable:
            _signal(process, signal.SIGTERM)
            _await_end(process, time.monotonic() + GRACE_S)
            raise
        finally:
            # Before it is reaped, while no other group can have its number.
            _signal(process, signal.SIGKILL)
    if process.returncode:
        raise Unusable("llmUnavailable", f"{argv[0]} ended with status {process.returncode}")
    return said


def _said(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return all that a program says until it has ended."""
    assert process.stdout  # noqa: S101 - it is a pipe
    said = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if time.monotonic() >= deadline:
                raise Unusable("timeout", "there was no answer in time")
            has_ended = _has_ended(process)  # asked first: all that it said is there by then
            if selector.select(min(_LOOK_S, max(0.0, deadline - time.monotonic()))):
                chunk = os.read(process.stdout.fileno(), OUTPUT_BYTES)
                said += chunk
                if len(said) > OUTPUT_BYTES:
                    raise Unusable("malformed", "the answer has no end")
                if not chunk:
                    break
            elif has_ended:  # something that it left behind may hold its output open for ever
                break
    if not _await_end(process, deadline):
        raise Unusable("timeout", "there was an answer, but no end in time")
    return bytes(said)


def _await_end(process: subprocess.Popen[bytes], deadline: float) -> bool:
    while not _has_ended(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_S / 4)
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Say whether it has ended, leaving it unreaped where that can be had: so that its number stays its own."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
