"""The worktree of a build: made, merged back and cleaned up without losing work or merging into the wrong branch."""

from __future__ import annotations

import hashlib
import os

from hooks.common.clock import now_iso
from hooks.common.files import make_folder
from hooks.common.project import shell_word
from hooks.common.statefile import Lock
from hooks.common.values import text_of
from playbook_scripts.answers import Refusal
from playbook_scripts.builds import LOCK_SECONDS, existing, running
from playbook_scripts.git import GIT_SECONDS, Git

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from hooks.common.statefile import Build
    from playbook_scripts.answers import Answer

    State = dict[str, Any]

FOLDER = ".instar/worktrees"
WAIT_SECONDS = GIT_SECONDS + 5.0
LISTED_AT_MOST = 20


def worktree_create(build: Build, options: argparse.Namespace) -> Answer:
    """Make a worktree on a branch of its own, to build in."""
    with Turn(build):
        state = running(build)
        check_none(state)
        git = Git(build.root)
        source = source_of(git, build.root)
        branch = options.branch or default_branch(state)
        if not git.agrees("check-ref-format", "--branch", branch):
            raise Refusal("worktree_failed", f"{branch} is no name for a branch", "name one with --branch")
        is_reused = has_branch(git, branch)
        path = left_behind(git, build.root, branch) or free_path(build.root, branch)
        if not os.path.exists(os.path.join(build.root, path)):
            make_folder(build.root, os.path.join(build.root, FOLDER))
            made = ("--", path, branch) if is_reused else ("-b", branch, "--", path, source)
            git.do("worktree", "add", *made)
        record(build, {"path": path, "branch": branch, "sourceBranch": source, "createdAt": now_iso()})
    return {
        "status": "worktree_created",
        "path": path,
        "branch": branch,
        "sourceBranch": source,
        **({"branchReused": True} if is_reused else {}),
        "instruction": f"cd {shell_word(os.path.join(build.root, path))}",
    }


def worktree_merge(build: Build, options: argparse.Namespace) -> Answer:
    """Merge the build's branch into the branch it came from."""
    with Turn(build):
        tree = Tree(build)
        tree.check_branches()
        tree.check_clean()
        git, branch = Git(build.root), tree.branch
        if git.agrees("rev-parse", "--quiet", "--verify", "MERGE_HEAD"):
            raise Refusal("worktree_failed", f"a merge is under way in {build.root}", "finish or abort it first")
        if git.agrees("merge-base", "--is-ancestor", branch, "HEAD"):
            return {"status": "merged", "branch": branch, "into": tree.source, "alreadyMerged": True}
        done = git.run("merge", "--no-ff", "--no-edit", "-m", f"Merge {branch}", f"refs/heads/{branch}")
        if done.returncode:
            raise merge_failed(git, tree, (done.stderr or done.stdout).strip(), keep=options.keep_conflict)
        with Lock(build, LOCK_SECONDS):
            build.audit("worktree.merged", branch=branch, into=tree.source)
    return {"status": "merged", "branch": branch, "into": tree.source, "commit": git.says("rev-parse", "HEAD")}


def worktree_cleanup(build: Build, options: argparse.Namespace) -> Answer:
    """Remove the build's worktree, and its branch if that was merged."""
    with Turn(build):
        tree = Tree(build)
        if not options.force:
            tree.check_clean()
        git = Git(build.root)
        if os.path.isdir(tree.folder):
            git.do("worktree", "remove", *(("--force",) if options.force else ()), "--", tree.path)
        git.run("worktree", "prune")
        if git.agrees("merge-base", "--is-ancestor", f"refs/heads/{tree.branch}", tree.source):
            git.run("branch", "-D", "--", tree.branch)
        is_kept = has_branch(git, tree.branch)
        record(build, None, path=tree.path, branch=tree.branch, branchKept=is_kept)
    kept = {"branchKept": True} if is_kept else {}
    return {"status": "cleaned", "path": tree.path, "branch": tree.branch, **kept}


class Turn(Lock):
    """The turn of one worktree command: git may take long, and stops shall not wait for it."""

    def __init__(self, build: Build) -> None:
        super().__init__(build, WAIT_SECONDS, ".worktree.lock")


class Tree:
    """The worktree that the state names. Raise `Refusal` where there is none."""

    def __init__(self, build: Build) -> None:
        worktree = existing(build).get("worktree")
        values = worktree if isinstance(worktree, dict) else {}
        self.root = build.root
        self.path, self.branch, self.source = (text_of(values, key) for key in ("path", "branch", "sourceBranch"))
        if not (self.path and self.branch and self.source):
            raise Refusal("no_worktree", "the build has no worktree", "make one with worktree-create")
        self.folder = os.path.join(build.root, self.path)

    def check_clean(self) -> None:
        """Raise `Refusal` when the worktree has changes that are in no commit."""
        changed = Git(self.folder).changed() if os.path.isdir(self.folder) else []
        if changed:
            listed = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")  # noqa: PLR2004 - enough to tell
            hint = "commit them, or remove them, there"
            text = f"{self.path} has changes that are in no commit: {listed}"
            raise Refusal("worktree_dirty", text, hint, files=changed[:LISTED_AT_MOST])

    def check_branches(self) -> None:
        """Raise `Refusal` unless both checkouts are on the branches that the worktree was made with."""
        for folder, branch in ((self.root, self.source), (self.folder, self.branch)):
            current = Git(folder).branch() if os.path.isdir(folder) else branch
            if current != branch:
                text = f"{folder} is on {current or 'no branch'}, and the build's worktree was made for {branch}"
                raise Refusal("wrong_branch", text, f"check out {branch} there, or merge by hand")


def merge_failed(git: Git, tree: Tree, said: str, *, keep: bool) -> Refusal:
    """Return the refusal of a merge that git did not finish; unless `keep`, it is as if it had not been tried."""
    conflicts = [name for name in git.says("diff", "--name-only", "--diff-filter=U", "-z").split("\0") if name]
    is_under_way = git.agrees("rev-parse", "--quiet", "--verify", "MERGE_HEAD")
    aborted = is_under_way and not keep and git.agrees("merge", "--abort")
    outcome = {"aborted": aborted, "stderr": said[:2000]}
    if not conflicts:
        return Refusal("worktree_failed", f"git merge failed: {said[:2000]}", "see what git says", **outcome)
    text = f"{tree.branch} and {tree.source} conflict in {', '.join(conflicts[:LISTED_AT_MOST])}"
    hint = f"merge {tree.source} in {tree.path}, mend the conflicts there, commit, and merge again"
    return Refusal("merge_conflict", text, hint, conflicts=conflicts, **outcome)


def check_none(state: State) -> None:
    """Raise `Refusal` when the build has a worktree."""
    worktree = state.get("worktree")
    if worktree:
        known = {key: text_of(worktree, key) for key in ("path", "branch")} if isinstance(worktree, dict) else {}
        text = f"the build has a worktree: {known.get('path')}"
        raise Refusal("worktree_exists", text, "work there, or end it with worktree-cleanup", **known)


def source_of(git: Git, root: str) -> str:
    """Return the branch that is checked out, or the commit where it is none."""
    if not git.agrees("rev-parse", "--git-dir"):
        raise Refusal("not_git", f"{root} is no git repository", "make it one with git init, and commit once")
    commit = git.says("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    if not commit:
        raise Refusal("not_git", f"the repository {root} has no commit yet", "commit once, then try again")
    return git.branch() or commit


def default_branch(state: State) -> str:
    """Return a branch named after the task, or after the build where the task has no letter for it."""
    text = text_of(state, "task")[:40].lower()
    slug = "".join(char if char.isalnum() or char == "-" else "-" for char in text).strip("-")
    run_id = hashlib.sha256(text_of(state, "startedAt").encode("utf-8", "replace")).hexdigest()
    return f"build/{slug or 'task-' + run_id[:8]}"


def has_branch(git: Git, branch: str) -> bool:
    """Say whether there is such a branch."""
    return git.agrees("show-ref", "--verify", "--quiet", f"refs/heads/{branch}")


def left_behind(git: Git, root: str, branch: str) -> str:
    """Return the worktree of a branch that a killed worktree-create did not write down, and "" where there is none."""
    place = ""
    for line in git.run("worktree", "list", "--porcelain").stdout.splitlines():
        place = line[len("worktree ") :] if line.startswith("worktree ") else place
        if line == f"branch refs/heads/{branch}" and os.path.dirname(place) == os.path.realpath(f"{root}/{FOLDER}"):
            return f"{FOLDER}/{os.path.basename(place)}"
    return ""


def free_path(root: str, branch: str) -> str:
    """Return the folder for a branch: two branches may read the same once their slashes are gone."""
    stem = path = f"{FOLDER}/{branch.replace('/', '-')}"
    number = 1
    while os.path.lexists(os.path.join(root, path)):
        number += 1
        path = f"{stem}-{number}"
    return path


def record(build: Build, worktree: dict[str, str] | None, **cleaned: object) -> None:
    """Write the worktree into the state, or that it is gone."""
    with Lock(build, LOCK_SECONDS):
        state = existing(build)
        state["worktree"] = worktree
        build.save(state)
        if worktree is None:
            build.audit("worktree.cleaned", **cleaned)
        else:
            build.audit("worktree.created", **{key: worktree[key] for key in ("path", "branch", "sourceBranch")})
