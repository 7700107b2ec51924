"""The proof of a continue: what the verdict points to is looked at again, and nothing is held without it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from instar.gate.plans import has_open_item, is_finished, plan_status, read_plan
from instar.gate.repository import SHA, EvidenceError, SlowError, git
from instar.gate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.gate.evidence import Artifact, Evidence
    from instar.gate.rules import Pointer
    from instar.gate.verdict import Verdict

SECONDS: Final = 0.4


def refutation(verdict: Verdict, evidence: Evidence, seconds: float = SECONDS) -> str:
    """Return why a continue does not stand, one of a few fixed words; "" when it does, and for any other decision.

    A continue stands when the plan is older than the session, is as it was when the evidence was taken, and bears the
    rule out: by an open item; or by not being finished, and a commit of the session on top of one that has the plan.
    Never raises; what is not proven within `seconds` does not stand.
    """
    if verdict.decision != "continue":
        return ""
    deadline = time.monotonic() + seconds
    artifact = evidence.artifact(verdict.pointer.plan_file)
    if artifact is None or verdict.rule not in RULES:
        return "plan-unknown"
    try:
        return _first_problem(verdict, evidence, artifact, deadline)
    except SlowError:
        return "verify-timeout"
    except (EvidenceError, OSError, ValueError):
        return "git-failed"


def _first_problem(verdict: Verdict, evidence: Evidence, artifact: Artifact, deadline: float) -> str:
    is_by_commits = "incremental_commit_sha" in RULES[verdict.rule].needs
    proof = _Proof(evidence, verdict.pointer, deadline)
    checks: list[tuple[str, Callable[[], bool]]] = [
        ("plan-not-older", lambda: artifact in evidence.older),
        ("commit-missing", proof.has_commits),
        ("plan-changed", lambda: _is_unchanged(evidence, artifact)),
    ]
    if is_by_commits:
        checks.append(("no-progress", proof.is_progress))
    checks.append(("head-moved", proof.is_head_kept))
    if is_by_commits:
        checks.append(("not-of-session", proof.is_of_session))
        checks.append(("plan-finished", lambda: not is_finished(read_plan(evidence.root, artifact.path))))
    else:
        checks.append(("no-open-item", lambda: has_open_item(read_plan(evidence.root, artifact.path))))
    for problem, holds in checks:
        if not holds():
            return problem
        if time.monotonic() >= deadline:
            return "verify-timeout"
    return ""


class _Proof:
    """What git says of the commits that a verdict points to: one process for what there is, one a descent."""

    def __init__(self, evidence: Evidence, pointer: Pointer, deadline: float) -> None:
        self._evidence = evidence
        self._pointer = pointer
        self._deadline = deadline
        self._head = ""

    def has_commits(self) -> bool:
        """Say whether all that is pointed to are commits of the repository; takes down where its branch is by now."""
        named = [sha for sha in (self._pointer.plan_commit_sha, self._pointer.incremental_commit_sha) if sha]
        if not self._evidence.head:
            return not named
        if not all(map(SHA.fullmatch, named)):
            return False
        asked = "".join(f"{name}\n" for name in ("HEAD", *named)).encode("ascii")
        said = self._git("cat-file", "--batch-check", stdin=asked).decode("ascii", "replace").splitlines()
        found = [line.split(" ") for line in said]
        if len(found) != len(named) + 1 or any(words[1:2] != ["commit"] for words in found):
            return False
        self._head = found[0][0]
        return [words[0] for words in found[1:]] == named

    def is_progress(self) -> bool:
        """Say whether the commit of the session came after the one that has the plan."""
        before, after = self._pointer.plan_commit_sha, self._pointer.incremental_commit_sha
        return bool(before) and bool(after) and before != after and self._descends(before, after)

    def is_head_kept(self) -> bool:
        """Say whether the branch still has all that the evidence was taken from."""
        then = self._evidence.head
        return then == self._head or (bool(self._head) and self._descends(then, self._head))

    def is_of_session(self) -> bool:
        """Say whether the commit is one of the branch since the session began."""
        return any(commit.sha == self._pointer.incremental_commit_sha for commit in self._evidence.session_commits)

    def _descends(self, before: str, after: str) -> bool:
        try:
            self._git("merge-base", "--is-ancestor", before, after)
        except EvidenceError as error:
            if error.status == 1:
                return False
            raise
        return True

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return git(self._evidence.root, *arguments, deadline=self._deadline, stdin=stdin)


def _is_unchanged(evidence: Evidence, artifact: Artifact) -> bool:
    status = plan_status(evidence.root, artifact.path)
    return status is not None and (status.st_ctime_ns, status.st_size) == (artifact.changed_at, artifact.size)
