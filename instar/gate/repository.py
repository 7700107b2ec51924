"""A checkout as git sees it: the one door to git, the newest commits, the files of a commit.

Nothing of the environment or of the repository's configuration makes git look elsewhere, page, write, fetch, or run a
program of the repository's.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Timer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMITS_READ: Final = 50
SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")

_SETTINGS: Final = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "log.showSignature=false", "log.follow=false")
_ENVIRON: Final = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",  # a replaced commit is not the one that its name proves
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_NO_COMMIT: Final = b"does not have any commits yet"
_HEAD_OF_COMMIT: Final = re.compile(rb"\x01([0-9a-f]{40,64}) (\d{1,15}) ([0-9a-f ]*)")


@dataclass(frozen=True)
class Commit:
    """A commit; `time` is when it was committed, in whole seconds since 1970.

    `changed` are the files that it left behind another way than its first parent had them, `added` those of them that
    were not there before, `removed` those that were, and `renamed` pairs of an old and a new name of the same bytes.
    """

    sha: str
    time: int
    changed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    parent: str = ""


class EvidenceError(Exception):
    """What is on disk could not be seen; nothing follows from it.

    `status` is that of a git that failed by itself, and `words` are what it said about it.
    """

    def __init__(self, text: str, status: int | None = None, words: bytes = b"") -> None:
        super().__init__(text)
        self.status = status
        self.words = words


class SlowError(EvidenceError):
    """It could not be seen in time."""


def git(root: Path, *arguments: str, deadline: float, stdin: bytes = b"") -> bytes:
    """Return what a git command prints.

    Raise EvidenceError where it fails, and SlowError where it is not done at the deadline, a time of `time.monotonic`.
    """
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    if time.monotonic() >= deadline:
        raise SlowError(f"no time was left for git {arguments[0]}")
    try:
        with subprocess.Popen(
            ["git", "--no-pager", "--literal-pathspecs", *settings, "-C", str(root), *arguments],
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env={**environ, **_ENVIRON},
        ) as process:  # fmt: skip
            # Not `communicate` with a timeout: that polls for the end, which takes longer than git does.
            killer = Timer(max(0.0, deadline - time.monotonic()), _kill, (process,))
            killer.start()
            try:
                said, words = process.communicate(stdin or None)
            finally:
                killer.cancel()
    except (OSError, ValueError) as error:
        raise EvidenceError(f"git cannot be run: {error}") from error
    if process.returncode == -signal.SIGKILL:
        raise SlowError(f"git {arguments[0]} was not done in time")
    if process.returncode:
        text = f"git {arguments[0]} ended with status {process.returncode}"
        raise EvidenceError(text, process.returncode, words)
    return said


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, unless it is reaped: until then the number is its own."""
    if process.returncode is None:
        with suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def is_checkout(root: Path) -> bool:
    """Say whether a folder lies in a repository's checkout: asked without a process."""
    return any(os.path.lexists(folder / ".git") for folder in (root, *root.parents))


def newest_commits(root: Path, deadline: float) -> list[Commit]:
    """Return the newest commits of the branch, the newest first; none on a branch without any. Paths are below `root`.

    Renames are seen only where the bytes are the same: so a new file cannot pass for an old one.
    """
    try:
        said = git(
            root, "log", f"-{COMMITS_READ}", "--format=%x01%H %ct %P", "-z", "--name-status", "-M100%", "--relative",
            "--diff-merges=first-parent", "--no-ext-diff", deadline=deadline,
        )  # fmt: skip
    except EvidenceError as error:
        if _NO_COMMIT in error.words:
            return []
        raise
    return list(_commits(said))


def files_of(root: Path, commit: str, deadline: float) -> Iterator[str]:
    """Return the files of a commit, below `root`."""
    said = git(root, "ls-tree", "-r", "-z", "--name-only", commit, deadline=deadline)
    return (os.fsdecode(path) for path in said.split(b"\0") if path)


def _commits(said: bytes) -> Iterator[Commit]:
    """Yield the commits of a log, read field by field: a name of a file may hold anything but NUL."""
    fields = iter(said.split(b"\0"))
    head: re.Match[bytes] | None = None
    changes: list[tuple[str, str, str]] = []
    for field in fields:
        begun = _HEAD_OF_COMMIT.fullmatch(field) if field.startswith(b"\x01") else None
        if begun:
            if head:
                yield _commit(head, changes)
            head, changes = begun, []
        elif kind := field.strip(b"\n").decode("ascii", "replace")[:1]:
            path = os.fsdecode(next(fields, b""))
            changes.append((kind, path, os.fsdecode(next(fields, b"")) if kind == "R" else path))
    if head:
        yield _commit(head, changes)


def _commit(head: re.Match[bytes], changes: list[tuple[str, str, str]]) -> Commit:
    sha, committed, parents = (part.decode("ascii") for part in head.groups())
    return Commit(
        sha=sha,
        time=int(committed),
        changed=tuple(path for kind, _, path in changes if kind != "D"),
        added=tuple(path for kind, _, path in changes if kind == "A"),
        removed=tuple(path for kind, path, _ in changes if kind == "D"),
        renamed=tuple((old, new) for kind, old, new in changes if kind == "R"),
        parent=parents.partition(" ")[0],
    )
