"""The interpreter that the hooks run with: whether it does, and what a start of it costs."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING, Final

from migrator.doctor.findings import MIGRATE, Examined, Finding, broken, ok
from migrator.doctor.programs import Job, run
from migrator.links import leads_out
from migrator.steps.hook_files import PYTHON, base_interpreter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLDEST: Final = (3, 9)
_RUNS: Final = 5
_SECONDS: Final = 10.0
_VERSION: Final = "import sys; print(*sys.version_info[:2])"
_CHOOSE: Final = f"rm {PYTHON} && {MIGRATE}"  # a migration keeps what works, for it may be the person's choice


def check(examined: Examined) -> Iterator[Finding]:
    """Yield whether the interpreter is there, runs, is new enough, and is no slow shim of another."""
    python = examined.root / PYTHON
    if not os.access(python, os.X_OK):
        what = "leads to nothing that can be run" if python.is_symlink() else "is not there"
        yield broken("interpreter-missing", f"{PYTHON} {what}")
        return
    if not is_ours(examined.root):
        yield Finding("interpreter-foreign", "error", f"{PYTHON} is a program of the project's own: not run", _CHOOSE)
        return
    said = run(_job(examined, str(python), "-I", "-S", "-c", _VERSION))
    words = said.stdout.split()
    if said.status or len(words) != len(OLDEST) or not all(word.isdecimal() for word in words):
        text = f"{PYTHON} ({os.path.realpath(python)}) does not run Python"
        yield Finding("interpreter-broken", "error", text, _CHOOSE)
        return
    version = ".".join(words)
    if tuple(map(int, words)) < OLDEST:
        yield Finding("interpreter-old", "error", f"{PYTHON} is Python {version}; hooks need 3.9", _CHOOSE)
        return
    yield _cost(examined, python, version)


def is_ours(root: Path) -> bool:
    """Say whether hooks run with a program from outside of the project: what is in it may be anybody's."""
    return not os.path.lexists(root / PYTHON) or leads_out(root, PYTHON)


def _cost(examined: Examined, python: Path, version: str) -> Finding:
    """Return what a start costs: too much where the interpreter behind a shim starts twice as fast by itself."""
    start = _milliseconds(examined, str(python))
    shell = _milliseconds(examined, "/bin/sh")
    base = base_interpreter()
    if os.path.realpath(python) != os.path.realpath(base) and (faster := _milliseconds(examined, base)) * 2 <= start:
        text = f"{PYTHON} starts in {start:.0f} ms, at every stop; {base} takes {faster:.0f} ms"
        return Finding("interpreter-slow", "warning", text, _CHOOSE)
    ratio = start / max(shell, 0.001)
    return ok("interpreter", f"{PYTHON} is Python {version} and starts in {start:.0f} ms, {ratio:.1f} x `sh -c :`")


def _milliseconds(examined: Examined, program: str) -> float:
    arguments = ["-c", ":"] if program == "/bin/sh" else ["-I", "-S", "-c", "pass"]
    job = _job(examined, program, *arguments)
    return statistics.median(run(job).seconds for _ in range(_RUNS)) * 1000


def _job(examined: Examined, *arguments: str) -> Job:
    return Job(arguments, str(examined.root), dict(examined.environ), _SECONDS)
