"""What the disk proves about a session's work: its plans, and the commits of the session.

Two git processes, whatever the repository holds: the newest commits with their files, and the files of the newest one.
Texts of files are the only part of it that is not to be trusted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from instar.gate.plans import GLOBS, excerpt, has_open_item, is_plan, listed, plan_status, read_plan
from instar.gate.repository import files_of, is_checkout, newest_commits

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from instar.gate.repository import Commit

SECONDS: Final = 1.0
PLANS_LISTED: Final = 200
PLANS_TOLD: Final = 30
EXCERPTS: Final = 3


@dataclass(frozen=True)
class Artifact:
    """A plan: a file that outlives the session.

    `introducing` is a commit before the session that has the file: the one that added it, if it is among those read,
    else the newest of the branch before the session. It is None for a file that no such commit is known to have.
    `latest` is the newest commit that changed it; where that is older than those read, it is `introducing`.
    """

    path: str
    introducing: str | None = None
    latest: str | None = None
    created_this_session: bool = False
    modified_this_session: bool = False
    tracked: bool = True
    has_open_item: bool = False
    excerpt: str = ""
    size: int = 0
    changed_at: int = 0  # ctime in nanoseconds


@dataclass(frozen=True)
class Evidence:
    """What was found. With `session_start` None nothing is older than the session."""

    root: Path
    head: str = ""
    session_start: float | None = None
    artifacts: tuple[Artifact, ...] = ()
    session_commits: tuple[Commit, ...] = ()
    newest_commit: Commit | None = None

    def artifact(self, path: str) -> Artifact | None:
        """Return the plan at a path, if it is among those found."""
        return next((artifact for artifact in self.artifacts if artifact.path == path), None)

    @property
    def counts(self) -> dict[str, int]:
        """How many plans were found, how many of them are older than the session, and how many have an open item."""
        is_open = sum(artifact.has_open_item for artifact in self.artifacts)
        return {"found": len(self.artifacts), "older": len(self.older), "open": is_open}

    @property
    def older(self) -> tuple[Artifact, ...]:
        """The plans that are older than the session."""
        if self.session_start is None:
            return ()
        return tuple(artifact for artifact in self.artifacts if not artifact.created_this_session)


def collect(
    root: Path, session_start: float | None, globs: Sequence[str] = GLOBS, said: str = "", seconds: float = SECONDS
) -> Evidence:
    """Return the evidence of a checkout. `said` is the last message: plans that it names rank higher.

    Raise EvidenceError where git does not answer within `seconds`, or fails. No repository, or no commit, is no error.
    """
    deadline = time.monotonic() + seconds
    patterns = tuple(globs)
    commits = newest_commits(root, deadline) if is_checkout(root) else []
    history = _History.of(commits, session_start)
    tracked = [path for path in files_of(root, commits[0].sha, deadline) if is_plan(path, patterns)] if commits else []
    plans = [_tracked_plan(path, history) for path in tracked]
    plans += _untracked_plans(root, patterns, set(tracked), session_start)
    ranked = sorted(plans, key=lambda plan: (plan.created_this_session, *history.rank(plan.path, said)))
    on_disk = (seen for plan in ranked[:PLANS_LISTED] if (seen := _seen(root, plan)))
    return Evidence(
        root=root,
        head=commits[0].sha if commits else "",
        session_start=session_start,
        artifacts=tuple(_read(root, plan, number) for number, plan in enumerate(islice(on_disk, PLANS_TOLD))),
        session_commits=tuple(commit for commit in commits if commit.sha in history.of_session),
        newest_commit=commits[0] if commits else None,
    )


@dataclass(frozen=True)
class _Change:
    """What a commit did to a file; `number` is that of the commit among those read, `renamed_from` an earlier name."""

    number: int
    is_added: bool = False
    is_removed: bool = False
    renamed_from: str = ""


@dataclass(frozen=True)
class _Past:
    """The commits that changed a file since its name was last free, the newest first, and the one that added it."""

    touching: tuple[Commit, ...] = ()
    adding: Commit | None = None


@dataclass(frozen=True)
class _History:
    """The commits that were read, the newest first, and which of them are the session's."""

    commits: Sequence[Commit]
    of_session: frozenset[str]
    base: Commit | None  # the newest of the branch before the session
    changes: dict[str, list[_Change]]  # by path, the newest first

    @classmethod
    def of(cls, commits: Sequence[Commit], session_start: float | None) -> _History:
        own = frozenset(
            commit.sha for commit in commits if session_start is not None and commit.time >= int(session_start)
        )
        known = {commit.sha: commit for commit in commits}
        base = commits[0] if commits else None
        # Along first parents: a commit of a branch that was merged need not have the files of this one.
        while base and base.sha in own:
            base = known.get(base.parent)
        changes: dict[str, list[_Change]] = {}
        for number, commit in enumerate(commits):
            for path, change in _changes(number, commit).items():
                changes.setdefault(path, []).append(change)
        return cls(commits, own, base, changes)

    def rank(self, path: str, said: str) -> tuple[bool, bool, int, str]:
        """Return what files are sorted by: changed in the session, named in what was said, newest, name."""
        numbers = [change.number for change in self.changes.get(path, ())]
        is_of_session = any(self.commits[number].sha in self.of_session for number in numbers)
        return not is_of_session, path not in said, numbers[0] if numbers else len(self.commits), path

    def past(self, path: str, since: int = -1) -> _Past:
        """Return the past of a file before a commit."""
        touching: list[Commit] = []
        adding = None
        for change in self.changes.get(path, ()):
            if change.number <= since:
                continue
            if change.is_removed:
                break
            commit = self.commits[change.number]
            touching.append(commit)
            if change.renamed_from:
                earlier = self.past(change.renamed_from, change.number)
                return _Past((*touching, *earlier.touching), earlier.adding)
            adding = commit if change.is_added else adding
        return _Past(tuple(touching), adding)


def _changes(number: int, commit: Commit) -> dict[str, _Change]:
    return {
        **{path: _Change(number) for path in commit.changed},
        **{path: _Change(number, is_added=True) for path in commit.added},
        **{path: _Change(number, is_removed=True) for path in (*commit.removed, *(old for old, _ in commit.renamed))},
        **{new: _Change(number, renamed_from=old) for old, new in commit.renamed},
    }


def _tracked_plan(path: str, history: _History) -> Artifact:
    past = history.past(path)
    is_own = past.adding is not None and past.adding.sha in history.of_session
    # What no commit of the session added, the newest commit before it has.
    introducing = None if is_own else past.adding or history.base
    latest = past.touching[0] if past.touching else introducing
    return Artifact(
        path=path,
        introducing=introducing.sha if introducing else None,
        latest=latest.sha if latest else None,
        created_this_session=introducing is None,
        modified_this_session=any(commit.sha in history.of_session for commit in past.touching),
    )


def _untracked_plans(
    root: Path, globs: tuple[str, ...], tracked: set[str], session_start: float | None
) -> Iterator[Artifact]:
    """Yield the plans that the newest commit does not have: they are as old as their last change."""
    for path in islice(listed(root, globs, tracked), PLANS_LISTED):
        status = plan_status(root, path)
        if status is not None:
            is_own = session_start is None or status.st_mtime >= int(session_start)
            yield Artifact(path=path, created_this_session=is_own, modified_this_session=is_own, tracked=False)


def _seen(root: Path, plan: Artifact) -> Artifact | None:
    """Return the plan as it lies on the disk; None where it does not."""
    status = plan_status(root, plan.path)
    return replace(plan, size=status.st_size, changed_at=status.st_ctime_ns) if status else None


def _read(root: Path, plan: Artifact, number: int) -> Artifact:
    """Return the plan with what its text says, the first few with an excerpt."""
    text = read_plan(root, plan.path)
    return replace(plan, has_open_item=has_open_item(text), excerpt=excerpt(text) if number < EXCERPTS else "")
