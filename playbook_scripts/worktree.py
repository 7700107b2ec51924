"""The worktree of a build: made, merged back and cleaned up without losing work or merging into the wrong branch."""

from __future__ import annotations

import os

from hooks.common.clock import now_iso
from hooks.common.files import make_folder
from hooks.common.lock import Lock
from hooks.common.project import shell_word
from hooks.common.trouble import Trouble
from hooks.common.values import text_of
from playbook_scripts.answers import Refusal
from playbook_scripts.builds import LOCK_SECONDS, existing, run_id, running
from playbook_scripts.git import GIT_SECONDS, SAID_AT_MOST, Git
from playbook_scripts.history import free_name

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
        git = repository(build.root)
        source = source_of(git)
        branch = options.branch or default_branch(state)
        # git spells out what stands for a branch, like @{-1}: that is no name either.
        if git.says("check-ref-format", "--branch", branch) != branch:
            raise Refusal("worktree_failed", f"{branch} is no name for a branch", "name one with --branch")
        is_reused = git.has_branch(branch)
        place = left_behind(git, branch)
        path, warned = (place, {}) if place else made(git, branch, is_reused=is_reused)
        record(build, {"path": path, "branch": branch, "sourceBranch": source, "createdAt": now_iso()})
    return {
        "status": "worktree_created",
        "path": path,
        "branch": branch,
        "sourceBranch": source,
        **({"branchReused": True} if is_reused else {}),
        **warned,
        "instruction": f"cd {shell_word(os.path.join(build.root, path))}",
    }


def worktree_merge(build: Build, options: argparse.Namespace) -> Answer:
    """Merge the build's branch into the branch it came from."""
    with Turn(build):
        tree = Tree(build)
        git = repository(build.root)
        tree.check_clean()
        tree.check_branches(git)
        if git.is_merging():
            raise Refusal("worktree_failed", f"a merge is under way in {build.root}", "finish or abort it first")
        answer = {"status": "merged", "branch": tree.branch, "into": tree.source}
        if git.has_commits_of(tree.ref):
            return {**answer, "alreadyMerged": True}
        reach = Reach(git, tree)
        reach.check_way()
        # What the branch's `mergeOptions` may ask for would leave the merge without a commit.
        whole = ("--no-ff", "--no-squash", "--commit", "--no-edit")
        trouble = git.trouble("merge", *whole, "-m", f"Merge {tree.branch}", tree.ref)
        if trouble and not git.has_commits_of(tree.ref):
            raise merge_failed(git, tree, reach, trouble, keep=options.keep_conflict)
        with build.lock(LOCK_SECONDS):
            build.audit("worktree.merged", branch=tree.branch, into=tree.source)
    warned = {"warnings": [str(trouble)]} if trouble else {}
    return {**answer, "commit": git.says("rev-parse", "HEAD"), **warned}


def worktree_cleanup(build: Build, options: argparse.Namespace) -> Answer:
    """Remove the build's worktree, and its branch if that was merged."""
    with Turn(build):
        tree = Tree(build)
        git = repository(build.root)
        if not options.force:
            tree.check_clean()
            tree.check_reachable()
        if tree.is_there:
            forced = ("--force",) if options.force else ()
            hint = f"mend what git names; where nothing in {tree.path} is needed, move it away and try again"
            git.do("worktree", "remove", *forced, "--", tree.folder, hint=hint)
        git.do("worktree", "prune")
        if is_merged(git, tree):
            git.run("branch", "-D", "--", tree.branch)
        is_kept = git.has_branch(tree.branch)
        record(build, None, path=tree.path, branch=tree.branch, branchKept=is_kept)
    kept = {"branchKept": True} if is_kept else {}
    return {"status": "cleaned", "path": tree.path, "branch": tree.branch, **kept}


class Turn(Lock):
    """The turn of one worktree command: git may take long, and stops shall not wait for it."""

    def __init__(self, build: Build) -> None:
        super().__init__(build.root, build.folder, WAIT_SECONDS, ".worktree.lock")


class Tree:
    """The worktree that the state names. Raise `Refusal` where there is none."""

    def __init__(self, build: Build) -> None:
        known = worktree_of(existing(build))
        if known is None:
            raise Refusal("no_worktree", "the build has no worktree", "make one with worktree-create")
        self.path, self.branch, self.source = known
        self.ref = f"refs/heads/{self.branch}"  # a tag may have the short name, and comes first
        self.folder = os.path.join(build.root, self.path)
        self.is_there = os.path.isdir(self.folder) and not os.path.islink(self.folder)
        self.git = Git(self.folder, is_top=True)

    def check_clean(self) -> None:
        """Raise `Refusal` when the worktree has changes that are in no commit."""
        changed = self.git.changed() if self.is_there else []
        if changed:
            text = f"{self.path} has changes that are in no commit: {listed(changed, 3)}"
            raise Refusal("worktree_dirty", text, "commit them, or remove them, there", files=changed[:LISTED_AT_MOST])

    def check_reachable(self) -> None:
        """Raise `Refusal` when the worktree has commits that would be gone with it."""
        kept = ("--not", "--branches", "--tags", "--remotes")
        loose = self.git.do("rev-list", "--max-count=1", "HEAD", *kept).strip() if self.is_there else ""
        if loose:
            text = f"{self.path} is at a commit that is on no branch: {loose}"
            raise Refusal("worktree_dirty", text, "put it on a branch there: git branch NAME", commit=loose)

    def check_branches(self, main: Git) -> None:
        """Raise `Refusal` unless both checkouts are on the branches that the worktree was made with."""
        if not main.has_branch(self.branch):
            hint = "bring it back with git branch, or end the worktree with worktree-cleanup"
            raise Refusal("worktree_failed", f"there is no branch {self.branch} any more", hint)
        for git, branch in ((main, self.source), *(((self.git, self.branch),) if self.is_there else ())):
            current = git.branch()
            if current != branch:
                text = f"{git.folder} is on {current or 'no branch'}, and the build's worktree was made for {branch}"
                there = f"check out {branch} there, or merge" if main.has_branch(branch) else "merge"
                raise Refusal("wrong_branch", text, f"{there} {self.branch} by hand where it belongs")


def worktree_of(state: State) -> tuple[str, str, str] | None:
    """Return path, branch and source of the worktree that the state names, and None where it names none.

    Raise `Trouble` where it can be none of ours: what is not below our folder is not ours to remove.
    """
    worktree = state.get("worktree")
    if not worktree:
        return None
    values = worktree if isinstance(worktree, dict) else {}
    path, branch, source = (text_of(values, key) for key in ("path", "branch", "sourceBranch"))
    folder, name = os.path.split(path)
    if folder == FOLDER and name not in ("", ".", "..") and branch and source:
        return path, branch, source
    text = f'the build state\'s key "worktree" is {worktree!r:.200}, expected path, branch and sourceBranch'
    raise Trouble("state_corrupt", f"{text} of one below {FOLDER}")


class Reach:
    """The files that a merge of the branch writes, and how they are before it."""

    def __init__(self, git: Git, tree: Tree) -> None:
        self.git = git
        self.top = git.says("rev-parse", "--show-toplevel")
        self.changed = git.changed()
        self.written = git.differing("--diff-filter=d", f"HEAD...{tree.ref}")
        not_in_head = set(git.differing("--diff-filter=A", "HEAD", tree.ref))
        self.new = [name for name in self.written if name in not_in_head]

    def check_way(self) -> None:
        """Raise `Refusal` when there are files in the way of new ones: git spares none that it ignores."""
        lost = self.there(self.new)
        if lost:
            text = f"the merge would write over files that are in no commit: {listed(lost, LISTED_AT_MOST)}"
            raise Refusal("worktree_failed", text, "move them away, then merge again", files=lost[:LISTED_AT_MOST])

    def take_back(self) -> bool:
        """Undo what git had written when it was stopped: for git it has not begun. Return whether there was any."""
        torn = sorted(set(self.git.changed()) & set(self.written) - {*self.changed, *self.new})
        new = self.there(self.new)
        for name in new:
            os.unlink(os.path.join(self.top, name))
        if torn:
            names = [f":(top,literal){name}" for name in torn]
            self.git.do("checkout", "HEAD", "--", *names, hint=f"bring back what is in HEAD of {listed(torn, 20)}")
        return bool(torn or new)

    def there(self, names: list[str]) -> list[str]:
        """Return those of the files that are there."""
        return [name for name in names if os.path.lexists(os.path.join(self.top, name))]


def merge_failed(git: Git, tree: Tree, reach: Reach, refusal: Refusal, *, keep: bool) -> Refusal:
    """Return the refusal of a merge that git did not finish; it is as if it had not been tried.

    With `keep`, conflicts are left to be mended. Where no merge is under way, what conflicts there are come from
    something of the person's.
    """
    is_merging = git.is_merging()
    conflicts = git.differing("--diff-filter=U") if is_merging else []
    aborted = False
    if not is_merging:
        aborted = reach.take_back()
    elif not (keep and conflicts):
        aborted = git.agrees("merge", "--abort")
    text, hint = str(refusal), str(refusal.answer["hint"])
    if conflicts:
        text = f"{tree.branch} and {tree.source} conflict in {listed(conflicts, LISTED_AT_MOST)}"
        hint = f"merge {tree.source} in {tree.path}, mend the conflicts there, commit, and merge again"
    if is_merging and not aborted:
        hint = f"finish the merge in {git.folder} with git commit, or undo it with git merge --abort"
    code = "merge_conflict" if conflicts else "worktree_failed"
    named = {"conflicts": conflicts} if conflicts else {}
    return Refusal(code, text, hint, **named, aborted=aborted, stderr=refusal.answer.get("stderr", ""))


def listed(names: list[str], at_most: int) -> str:
    """Return some names in words."""
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")


def is_merged(git: Git, tree: Tree) -> bool:
    """Say whether every commit of the branch is in the branch, or the commit, it came from."""
    source = f"refs/heads/{tree.source}" if git.has_branch(tree.source) else tree.source
    return tree.source != tree.branch and git.has_commits_of(tree.ref, source)


def check_none(state: State) -> None:
    """Raise `Refusal` when the build has a worktree."""
    known = worktree_of(state)
    if known:
        path, branch, _ = known
        hint = "work there, or end it with worktree-cleanup"
        raise Refusal("worktree_exists", f"the build has a worktree: {path}", hint, path=path, branch=branch)


def repository(root: str) -> Git:
    """Return the git of the project. Raise `Refusal` where there is none."""
    git = Git(root)
    done = git.run("rev-parse", "--git-dir")
    if done.returncode:
        text = f"git finds no repository in {root}: {done.stderr.strip()[:SAID_AT_MOST]}"
        raise Refusal("not_git", text, "mend what git names, or make one with git init and commit once")
    return git


def source_of(git: Git) -> str:
    """Return the branch that is checked out, or the commit where it is none."""
    commit = git.says("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    if not commit:
        text = f"the repository of {git.folder} has no commit yet"
        raise Refusal("not_git", text, "commit once, then try again")
    return git.branch() or commit


def default_branch(state: State) -> str:
    """Return a branch named after the task, or after the build where the task has no letter for it."""
    text = text_of(state, "task")[:40].lower()
    slug = "".join(char if char.isalnum() or char == "-" else "-" for char in text).strip("-")
    return f"build/{slug or 'task-' + run_id(state)[:8]}"


def left_behind(git: Git, branch: str) -> str:
    """Return the worktree of a branch that a killed worktree-create did not write down, and "" where there is none.

    What git itself was killed over, or somebody removed without telling git, is taken out of the way.
    """
    folder = os.path.realpath(os.path.join(git.folder, FOLDER))
    for entry in git.do("worktree", "list", "--porcelain").split("\n\n"):
        place, *said = entry[len("worktree ") :].split("\n")
        if f"branch refs/heads/{branch}" not in said or os.path.dirname(place) != folder:
            continue
        is_half = "locked initializing" in said  # by git, until all files are checked out
        if os.path.isdir(place) and not is_half:
            return f"{FOLDER}/{os.path.basename(place)}"
        git.do("worktree", "remove", *(("--force", "--force") if is_half else ()), "--", place)
    return ""


def made(git: Git, branch: str, *, is_reused: bool) -> tuple[str, Answer]:
    """Make the worktree. Return its path, and what a hook that failed or hung after that had to say."""
    path = free_path(git.folder, branch)
    make_folder(git.folder, os.path.join(git.folder, FOLDER))
    what = ("--", path, branch) if is_reused else ("-b", branch, "--", path, "HEAD")
    trouble = git.trouble("worktree", "add", *what)
    if not trouble:
        return path, {}
    path = left_behind(git, branch)
    if path:
        return path, {"warnings": [str(trouble)]}
    if not is_reused:
        git.run("branch", "-d", "--", branch)
    raise trouble


def free_path(root: str, branch: str) -> str:
    """Return the folder for a branch: two branches may read the same once their slashes are gone."""
    return os.path.relpath(free_name(os.path.join(root, FOLDER, branch.replace("/", "-")), ""), root)


def record(build: Build, worktree: dict[str, str] | None, **cleaned: object) -> None:
    """Write the worktree into the state, or that it is gone."""
    with build.lock(LOCK_SECONDS):
        state = existing(build)
        state["worktree"] = worktree
        build.save(state)
        if worktree is None:
            build.audit("worktree.cleaned", **cleaned)
        else:
            build.audit("worktree.created", **{key: worktree[key] for key in ("path", "branch", "sourceBranch")})
