"""The worktree of a build, on real repositories: what is made, merged and removed, and what is never lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import BIN, DEADLINE_S, Project, executable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATH = ".instar/worktrees/build-mend-the-roof"
BRANCH = "build/mend-the-roof"
COMMANDS = [["worktree-create"], ["worktree-merge"], ["worktree-cleanup"], ["worktree-cleanup", "--force"]]
GIT = shutil.which("git") or "git"
LEFT_BY_GIT = {"ORIG_HEAD", "AUTO_MERGE", "packed-refs", "worktrees"}  # of what it refused, or took back


@pytest.fixture(scope="session")
def begun(installed: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a repository with three files, three branches and a build, to be copied and not to be changed."""
    root = tmp_path_factory.mktemp("begun") / "project"
    shutil.copytree(installed.root, root, symlinks=True)
    project = Project(root, installed.env)
    git(project, "checkout", "-qb", "main")
    git(project, "config", "user.name", "A Person")
    git(project, "config", "user.email", "person@example.org")
    (root / ".gitignore").write_text("*.log\n/.instar/\n")
    for name in ("beams", "slates", "walls"):
        (root / name).write_text(f"old {name}\n")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "first")
    git(project, "branch", "other")
    git(project, "checkout", "-q", "other")
    git(project, "checkout", "-q", "main")  # so that @{-1} is a branch
    project.build("init", "Mend the roof", "--owner-session", "s")
    return project


@pytest.fixture
def build(begun: Project, tmp_path: Path) -> Project:
    """Return a clean checkout of `main` with a build and no worktree."""
    return copied(begun, tmp_path / "project")


@pytest.fixture
def tree(build: Project) -> Path:
    """Return the build's worktree, with one commit that changes `slates` and adds `gutter`."""
    build.build("worktree-create")
    tree = build.root / PATH
    write(tree, slates="new slates\n", gutter="new gutter\n")
    commit(build, tree)
    return tree


def copied(begun: Project, root: Path) -> Project:
    shutil.copytree(begun.root, root, symlinks=True)
    home = root.parent / "home"
    home.mkdir()
    return Project(root, {**begun.env, "HOME": str(home)})


def git(project: Project, *arguments: str, cwd: Path | None = None) -> str:
    return project.run("git", *arguments, cwd=cwd).stdout.rstrip("\n")


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text)


def commit(project: Project, folder: Path, message: str = "more") -> str:
    git(project, "add", "-A", cwd=folder)
    git(project, "commit", "-qm", message, cwd=folder)
    return git(project, "rev-parse", "HEAD", cwd=folder)


def seen(project: Project) -> dict[str, Any]:
    """Return all that a command may change: files of the project with their bytes, git's own, refs and index."""
    files = [path for path in project.root.rglob("*") if not path.is_dir() and ".git" not in path.parts]
    found: dict[str, Any] = {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in files
        if path.name not in (".lock", ".worktree.lock")
    }
    if (project.root / ".git").is_dir():
        for what in (["for-each-ref"], ["ls-files", "--stage"], ["status", "--porcelain"], ["worktree", "list"]):
            found[what[0]] = project.run(GIT, *what).stdout
        found["HEAD"] = (project.root / ".git/HEAD").read_text()
        found["under way"] = {path.name for path in (project.root / ".git").iterdir()} - LEFT_BY_GIT
        found["locks"] = list((project.root / ".git").rglob("*.lock"))
    return found


def refused(project: Project, code: str, *command: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run a command that must be refused with a way out, and change nothing at all."""
    before = seen(project)

    answer = project.build(*command, env=env)

    assert (answer.get("code"), answer["exit"]) == (code, 1), answer
    assert answer["error"]
    assert answer["hint"]
    assert seen(project) == before
    return answer


def hurried(project: Project, seconds: float = 1) -> Project:
    """Make git's time in the installed program short."""
    script = project.root / ".instar/hooks/instar/build-worktree.py"
    text = script.read_text()
    assert text.count("\nGIT_SECONDS = 60\n") == text.count("\nMERCY_SECONDS = 5 ") == 1
    text = text.replace("\nGIT_SECONDS = 60\n", f"\nGIT_SECONDS = {seconds}\n")
    script.write_text(text.replace("\nMERCY_SECONDS = 5 ", "\nMERCY_SECONDS = 0.3 "))
    return project


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(path: Path) -> None:
    wait_until(path.exists)


def open_files(pid: int) -> list[str]:
    """Return what a process has open."""
    return [os.path.realpath(each) for each in Path(f"/proc/{pid}/fd").glob("*")]


def has_ended(pid: int) -> bool:
    """Whether a process that is none of ours has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


# worktree-create


def test_create_makes_a_worktree_on_a_branch_of_its_own(build: Project) -> None:
    before = git(build, "rev-parse", "HEAD")

    answer = build.build("worktree-create")

    where = {"path": PATH, "branch": BRANCH, "sourceBranch": "main"}
    assert answer == {
        "status": "worktree_created", **where, "instruction": f"cd {build.root}/{PATH}", "exit": 0,
    }  # fmt: skip
    assert list(build.state["worktree"]) == ["path", "branch", "sourceBranch", "createdAt"]
    assert build.state["worktree"] == {**where, "createdAt": build.state["worktree"]["createdAt"]}
    (entry,) = build.events("worktree.created")
    assert {key: entry[key] for key in list(entry)[2:]} == where
    assert git(build, "symbolic-ref", "HEAD", cwd=build.root / PATH) == f"refs/heads/{BRANCH}"
    assert git(build, "rev-parse", "HEAD", cwd=build.root / PATH) == before
    assert git(build, "status", "--porcelain", cwd=build.root / PATH) == ""


def test_the_main_checkout_does_not_see_its_worktree(project: Project) -> None:
    git(project, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "--allow-empty", "-m", "first")
    project.build("init", "Mend the roof")
    before = git(project, "status", "--porcelain")

    project.build("worktree-create")

    assert (project.root / PATH).is_dir()
    assert git(project, "status", "--porcelain") == before


@pytest.mark.parametrize(
    ("task", "branch"),
    [
        ("Dächer & ÖFEN: 屋根", "build/dächer---öfen--屋根"),
        ("x -- y", "build/x----y"),
        ("--force", "build/force"),
        ("../../etc/passwd", "build/etc-passwd"),
        ("a" * 50, "build/" + "a" * 40),
        ("a" * 39 + " b", "build/" + "a" * 39),
        ("a.lock\n@{-1}", "build/a-lock----1"),
    ],
)
def test_the_branch_is_named_after_the_task(build: Project, task: str, branch: str) -> None:
    build.change_state(task=task)

    answer = build.build("worktree-create")

    assert (answer.get("branch"), answer["path"]) == (branch, f".instar/worktrees/{branch.replace('/', '-')}")
    assert git(build, "symbolic-ref", "HEAD", cwd=build.root / answer["path"]) == f"refs/heads/{branch}"


@pytest.mark.parametrize("task", ["!?", "---"])
def test_a_task_without_a_letter_gives_the_branch_the_name_of_the_run(build: Project, task: str) -> None:
    build.change_state(task=task)
    run_id = hashlib.sha256(build.state["startedAt"].encode()).hexdigest()

    assert build.build("worktree-create")["branch"] == f"build/task-{run_id[:8]}"


@pytest.mark.parametrize(
    "name",
    ["-x", "--force", "-D", "a..b", "a b", "@{-1}", "a@{b", "HEAD", "a^", "a:b", "a.lock", "/a", "a\\b", "a\nb"],
)
def test_what_is_no_name_for_a_branch_is_refused(build: Project, name: str) -> None:
    refused(build, "worktree_failed", "worktree-create", f"--branch={name}")


def test_a_branch_that_exists_is_used_again_and_that_is_said(build: Project) -> None:
    git(build, "checkout", "-q", "other")
    write(build.root, gutter="new\n")
    commit(build, build.root)
    git(build, "checkout", "-q", "main")

    answer = build.build("worktree-create", "--branch", "other")

    assert (answer["branch"], answer["branchReused"], answer["sourceBranch"]) == ("other", True, "main")
    assert (build.root / answer["path"] / "gutter").read_text() == "new\n"


def test_a_branch_that_is_checked_out_elsewhere_is_refused(build: Project, tmp_path: Path) -> None:
    git(build, "worktree", "add", "-q", str(tmp_path / "elsewhere"), "other")

    for branch in ("main", "other"):
        answer = refused(build, "worktree_failed", "worktree-create", "--branch", branch)
        assert "already checked out" in answer["stderr"]


def test_two_branches_never_share_a_folder(build: Project) -> None:
    first = build.build("worktree-create", "--branch", "a/b")
    build.change_state(worktree=None)
    second = build.build("worktree-create", "--branch", "a-b")

    assert (first["path"], second["path"]) == (".instar/worktrees/a-b", ".instar/worktrees/a-b-2")


def test_a_build_has_one_worktree(build: Project, tree: Path) -> None:
    answer = refused(build, "worktree_exists", "worktree-create", "--branch", "another")

    assert (answer["path"], answer["branch"], tree.name) == (PATH, BRANCH, Path(PATH).name)


def test_only_a_build_that_goes_on_gets_a_worktree(build: Project) -> None:
    build.build("cancel")
    refused(build, "build_terminal", "worktree-create")
    build.state_path.unlink()
    for command in COMMANDS:
        refused(build, "no_build", *command)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_repository_nothing_is_done(build: Project, tree: Path, command: list[str]) -> None:
    if command == ["worktree-create"]:
        build.change_state(worktree=None)
    shutil.rmtree(build.root / ".git")

    assert "not a git repository" in refused(build, "not_git", *command)["error"]
    assert tree.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_without_git_nothing_is_done(build: Project, tree: Path, tmp_path: Path, command: list[str]) -> None:
    if command == ["worktree-create"]:
        build.change_state(worktree=None)

    answer = refused(build, "not_git", *command, env={"PATH": str(tmp_path)})

    assert "PATH" in answer["hint"]
    assert tree.exists()


def test_without_a_commit_there_is_nothing_to_branch_from(build: Project) -> None:
    git(build, "checkout", "-q", "--orphan", "fresh")

    assert "no commit" in refused(build, "not_git", "worktree-create")["error"]


def test_on_no_branch_the_source_is_the_commit(build: Project) -> None:
    git(build, "checkout", "-q", "--detach")

    answer = build.build("worktree-create")

    assert answer["sourceBranch"] == build.state["worktree"]["sourceBranch"] == git(build, "rev-parse", "HEAD")


def test_a_tag_with_the_name_of_the_source_is_not_the_source(build: Project) -> None:
    git(build, "tag", "main")
    write(build.root, gutter="newer than the tag\n")
    commit(build, build.root)

    answer = build.build("worktree-create")

    assert answer["sourceBranch"] == "main"
    assert (build.root / PATH / "gutter").exists()


def test_it_is_the_main_checkout_that_gets_the_worktree(build: Project, tmp_path: Path) -> None:
    elsewhere, deep = tmp_path / "elsewhere", build.root / "sub" / "deep"
    git(build, "worktree", "add", "-q", "-b", "aside", str(elsewhere))
    deep.mkdir(parents=True)

    for number, cwd in enumerate((elsewhere, deep)):
        said = build.run(str(BIN / "build-state"), "worktree-create", "--branch", f"b{number}", cwd=cwd).stdout
        assert json.loads(said)["sourceBranch"] == "main"
        assert (build.root / json.loads(said)["path"] / "slates").exists()
        build.run(str(BIN / "build-state"), "worktree-cleanup", cwd=cwd)


def test_the_instruction_can_be_pasted_whatever_the_folder_is_called(begun: Project, tmp_path: Path) -> None:
    build = copied(begun, tmp_path / "it's $HOME; a roof")

    instruction = build.build("worktree-create")["instruction"]

    assert build.run("sh", "-c", f"{instruction} && pwd", cwd=tmp_path).stdout == f"{build.root}/{PATH}\n"


def test_the_repository_of_the_caller_is_left_alone(build: Project, tmp_path: Path) -> None:
    theirs = Project(tmp_path / "theirs", build.env)
    shutil.copytree(build.root, theirs.root, symlinks=True)
    before = seen(theirs)
    env = {
        "GIT_DIR": f"{theirs.root}/.git",
        "GIT_WORK_TREE": str(theirs.root),
        "GIT_INDEX_FILE": f"{theirs.root}/.git/index",
        "GIT_OBJECT_DIRECTORY": f"{theirs.root}/.git/objects",
        "GIT_COMMON_DIR": f"{theirs.root}/.git",
    }

    assert build.build("worktree-create", env=env)["exit"] == 0
    write(build.root / PATH, slates="new\n")
    commit(build, build.root / PATH)
    assert build.build("worktree-merge", env=env)["commit"] == git(build, "rev-parse", "HEAD")
    assert build.build("worktree-cleanup", env=env)["status"] == "cleaned"

    assert (build.root / "slates").read_text() == "new\n"
    assert seen(theirs) == before


def test_a_project_may_be_a_part_of_a_repository(begun: Project, tmp_path: Path) -> None:
    whole = copied(begun, tmp_path / "whole")
    build = replace(whole, root=whole.root / "packages" / "roof")
    build.root.mkdir(parents=True)
    for name in (".instar", "slates"):
        (whole.root / name).rename(build.root / name)
    (whole.root / ".gitignore").write_text("*.log\n.instar/\n")
    commit(whole, whole.root)

    tree = build.root / build.build("worktree-create")["path"]
    write(tree / "packages/roof", slates="new\n")
    (tree / "packages/roof/made.log").write_text("new\n")
    git(build, "add", "-f", "packages/roof/made.log", cwd=tree)
    commit(build, tree)
    write(build.root, **{"made.log": "precious\n"})

    assert refused(build, "worktree_failed", "worktree-merge")["files"] == ["packages/roof/made.log"]
    (build.root / "made.log").unlink()
    assert build.build("worktree-merge")["status"] == "merged"
    assert (build.root / "slates").read_text() == "new\n"
    assert build.build("worktree-cleanup")["exit"] == 0
    assert not tree.exists()


# A worktree-create that was killed


def test_a_worktree_that_was_not_written_down_is_taken_over(build: Project) -> None:
    git(build, "worktree", "add", "-q", "-b", BRANCH, PATH)
    write(build.root / PATH, notes="begun\n")

    answer = build.build("worktree-create")

    assert (answer["path"], answer["branchReused"], "warnings" in answer) == (PATH, True, False)
    assert build.state["worktree"]["branch"] == BRANCH
    assert (build.root / PATH / "notes").read_text() == "begun\n"


def test_a_worktree_that_git_was_killed_over_is_made_anew(build: Project) -> None:
    began = build.root.parent / "began"
    (build.root / ".git/info/attributes").write_text("* filter=slow\n")
    git(build, "config", "filter.slow.smudge", f"touch {began}; sleep 600")
    command = ["git", "worktree", "add", "-q", "-b", BRANCH, PATH]
    with subprocess.Popen(command, cwd=build.root, env=build.env, start_new_session=True) as killed:
        wait_for(began)
        os.killpg(killed.pid, signal.SIGKILL)
    git(build, "config", "--unset", "filter.slow.smudge")
    assert "initializing" in git(build, "worktree", "list", "--porcelain")

    answer = build.build("worktree-create")

    assert answer.get("path") == PATH
    assert git(build, "status", "--porcelain", cwd=build.root / PATH) == ""
    assert "locked" not in git(build, "worktree", "list", "--porcelain")


def test_a_worktree_that_was_removed_behind_git_s_back_is_made_anew(build: Project, tree: Path) -> None:
    shutil.rmtree(tree)
    build.change_state(worktree=None)

    answer = build.build("worktree-create")

    assert answer.get("path") == PATH
    assert (tree / "slates").read_text() == "new slates\n"


def test_a_worktree_of_the_same_branch_in_another_place_is_not_taken(build: Project, tmp_path: Path) -> None:
    git(build, "worktree", "add", "-q", "-b", BRANCH, str(tmp_path / "mine"))

    refused(build, "worktree_failed", "worktree-create")


# worktree-merge


def test_merge_makes_a_merge_commit_that_names_the_branch(build: Project, tree: Path) -> None:
    tip, before = git(build, "rev-parse", "HEAD", cwd=tree), git(build, "rev-parse", "HEAD")

    answer = build.build("worktree-merge")

    head = git(build, "rev-parse", "HEAD")
    assert answer == {"status": "merged", "branch": BRANCH, "into": "main", "commit": head, "exit": 0}
    assert git(build, "log", "-1", "--format=%P %s") == f"{before} {tip} Merge {BRANCH}"
    assert (build.root / "slates").read_text() == "new slates\n"
    (entry,) = build.events("worktree.merged")
    assert {key: entry[key] for key in list(entry)[2:]} == {"branch": BRANCH, "into": "main"}


def test_merging_again_merges_what_is_new_and_nothing_else(build: Project, tree: Path) -> None:
    build.build("worktree-merge")
    before = seen(build)

    again = build.build("worktree-merge")
    assert again == {"status": "merged", "branch": BRANCH, "into": "main", "alreadyMerged": True, "exit": 0}
    assert seen(build) == before
    write(tree, slates="newer\n")
    commit(build, tree)
    assert "alreadyMerged" not in build.build("worktree-merge")
    assert (build.root / "slates").read_text() == "newer\n"


def test_a_branch_with_nothing_new_is_merged_already(build: Project) -> None:
    build.build("worktree-create")
    before = seen(build)

    assert build.build("worktree-merge")["alreadyMerged"] is True
    assert seen(build) == before


def test_a_tag_with_the_name_of_the_branch_is_not_the_branch(build: Project, tree: Path) -> None:
    git(build, "tag", BRANCH, "main")

    assert "alreadyMerged" not in build.build("worktree-merge")
    assert (build.root / "slates").read_text() == (tree / "slates").read_text()


@pytest.mark.parametrize("elsewhere", [["checkout", "-q", "other"], ["checkout", "-q", "--detach"]])
@pytest.mark.parametrize("where", ["main", "tree"])
def test_nothing_is_merged_from_or_into_the_wrong_branch(
    build: Project, tree: Path, where: str, elsewhere: list[str]
) -> None:
    git(build, *elsewhere, cwd=tree if where == "tree" else build.root)

    refused(build, "wrong_branch", "worktree-merge")


def test_what_came_from_no_branch_is_merged_by_hand(build: Project) -> None:
    git(build, "checkout", "-q", "--detach")
    build.build("worktree-create")

    answer = refused(build, "wrong_branch", "worktree-merge")

    assert "check out" not in answer["hint"]


@pytest.mark.parametrize("command", ["worktree-merge", "worktree-cleanup"])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("echo more >>slates", "slates"),
        ("echo more >>slates; git add slates", "slates"),
        ("echo more >' ü\nneu'", " ü\nneu"),
        ("mkdir deep; echo more >deep/new", "deep/new"),
        ("git mv slates tiles", "tiles"),
        ("rm slates", "slates"),
    ],
)
def test_work_that_is_in_no_commit_is_named_and_kept(
    build: Project, tree: Path, change: str, named: str, command: str
) -> None:
    build.run("sh", "-c", change, cwd=tree)

    answer = refused(build, "worktree_dirty", command)

    assert named in answer["files"]
    assert set(answer["files"]) <= {named, "slates"}
    assert named in answer["error"]


@pytest.fixture
def conflict(build: Project, tree: Path) -> Path:
    """Return the worktree, whose commit conflicts with one of `main`; `main` has uncommitted work besides."""
    write(build.root, slates="other slates\n")
    commit(build, build.root)
    write(build.root, walls="my work\n", notes="mine\n", **{"made.log": "mine\n"})
    return tree


@pytest.mark.usefixtures("conflict")
def test_a_conflict_is_told_and_leaves_no_trace(build: Project) -> None:
    answer = refused(build, "merge_conflict", "worktree-merge")

    assert (answer["conflicts"], answer["aborted"]) == (["slates"], True)
    assert "CONFLICT" in answer["stderr"]
    assert "slates" in answer["error"]


def test_a_conflict_can_be_kept_and_finished_by_hand(build: Project, conflict: Path) -> None:
    answer = build.build("worktree-merge", "--keep-conflict")

    assert (answer["code"], answer["conflicts"], answer["aborted"]) == ("merge_conflict", ["slates"], False)
    assert "git merge --abort" in answer["hint"]
    assert "<<<<<<<" in (build.root / "slates").read_text()
    assert (build.root / "walls").read_text() == "my work\n"
    refused(build, "worktree_failed", "worktree-merge")
    write(build.root, slates="both\n")
    git(build, "add", "slates")
    git(build, "commit", "-qm", "by hand")
    assert build.build("worktree-merge")["alreadyMerged"] is True
    assert conflict.exists()


def test_the_way_out_of_a_conflict_works(build: Project, conflict: Path) -> None:
    build.build("worktree-merge")
    subprocess.run(["git", "merge", "-q", "main"], cwd=conflict, check=False, capture_output=True)
    write(conflict, slates="both\n")
    commit(build, conflict)

    assert build.build("worktree-merge")["exit"] == 0
    assert (build.root / "slates").read_text() == "both\n"
    assert (build.root / "walls").read_text() == "my work\n"


@pytest.mark.usefixtures("conflict")
@pytest.mark.parametrize("autostash", ["true", "false"])
def test_what_is_staged_stays_staged(build: Project, autostash: str) -> None:
    git(build, "config", "merge.autoStash", autostash)
    git(build, "add", "walls", "notes")

    refused(build, "worktree_failed", "worktree-merge")


def begun_by_hand(project: Project, *command: str) -> None:
    """Begin what ends in a conflict with `main`."""
    git(project, "checkout", "-q", "other")
    write(project.root, beams="their beams\n")
    commit(project, project.root)
    git(project, "checkout", "-q", "main")
    write(project.root, beams="my beams\n")
    commit(project, project.root)
    assert subprocess.run(["git", *command], cwd=project.root, check=False, capture_output=True).returncode


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("command", [["merge", "other"], ["cherry-pick", "other"], ["revert", "HEAD~1"]])
def test_what_the_person_has_under_way_is_never_ended(build: Project, command: list[str]) -> None:
    begun_by_hand(build, *command)

    answer = refused(build, "worktree_failed", "worktree-merge")

    assert "conflicts" not in answer


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    "mine", [{"slates": "my work\n"}, {"gutter": "not tracked\n"}, {"slates": "my work\n", "walls": "my work\n"}]
)
def test_the_person_s_work_in_a_file_of_the_merge_is_kept(build: Project, mine: dict[str, str]) -> None:
    write(build.root, **mine)

    refused(build, "worktree_failed", "worktree-merge")


def test_a_file_that_git_ignores_is_not_written_over(build: Project, tree: Path) -> None:
    (tree / "made.log").write_text("of the build\n")
    git(build, "add", "-f", "made.log", cwd=tree)
    commit(build, tree)
    (build.root / "made.log").write_text("mine\n")

    answer = refused(build, "worktree_failed", "worktree-merge")

    assert answer["files"] == ["made.log"]
    (build.root / "made.log").unlink()
    assert build.build("worktree-merge")["exit"] == 0


@pytest.mark.usefixtures("tree")
def test_a_file_that_the_source_no_longer_tracks_is_in_nobody_s_way(build: Project) -> None:
    git(build, "rm", "-q", "--cached", "walls")
    (build.root / ".gitignore").write_text("*.log\n/.instar/\nwalls\n")
    commit(build, build.root)

    assert build.build("worktree-merge")["exit"] == 0
    assert (build.root / "walls").read_text() == "old walls\n"


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("hook", ["pre-merge-commit", "commit-msg", "prepare-commit-msg"])
def test_a_hook_that_fails_undoes_the_merge(build: Project, hook: str) -> None:
    executable(build.root / ".git/hooks" / hook, "#!/bin/sh\necho 'not today' >&2\nexit 1\n")
    write(build.root, walls="my work\n")

    answer = refused(build, "worktree_failed", "worktree-merge", "--keep-conflict")

    assert answer["aborted"] is True
    assert "not today" in answer["stderr"]


@pytest.mark.usefixtures("tree")
def test_a_hook_that_hangs_undoes_the_merge(build: Project) -> None:
    began = build.root.parent / "began"
    executable(build.root / ".git/hooks/commit-msg", f"#!/bin/sh\necho $$ >{began}\nsleep 600\n")
    write(build.root, walls="my work\n")

    answer = refused(hurried(build), "worktree_failed", "worktree-merge")

    assert (answer["aborted"], "within 1 s" in answer["error"]) == (True, True)
    wait_until(lambda: has_ended(int(began.read_text())))


@pytest.mark.parametrize("stubborn", ["", "trap '' TERM; "])
def test_a_merge_that_hangs_half_way_leaves_nothing_half_written(build: Project, tree: Path, stubborn: str) -> None:
    (tree / "made.log").write_text("made\n")
    git(build, "add", "-f", "made.log", cwd=tree)
    commit(build, tree)
    (build.root / ".git/info/attributes").write_text("slates filter=slow\n")
    # The old text comes at once, the new one never.
    git(build, "config", "filter.slow.smudge", f"{stubborn}grep '^old' || sleep 30")
    git(build, "config", "filter.slow.clean", "cat")
    write(build.root, walls="my work\n")

    answer = refused(hurried(build), "worktree_failed", "worktree-merge")

    assert answer["aborted"] is True


AFTERWARDS = {"fails": "#!/bin/sh\necho 'not today' >&2\nexit 3\n", "hangs": "#!/bin/sh\nsleep 600\n"}


@pytest.mark.parametrize("hook", AFTERWARDS)
def test_a_hook_that_comes_too_late_undoes_no_worktree(build: Project, hook: str) -> None:
    executable(build.root / ".git/hooks/post-checkout", AFTERWARDS[hook])

    answer = hurried(build).build("worktree-create")

    assert (answer.get("path"), len(answer["warnings"])) == (PATH, 1)
    assert {"fails": "not today", "hangs": "within 1 s"}[hook] in answer["warnings"][0]
    assert git(build, "status", "--porcelain", cwd=build.root / PATH) == ""
    assert build.state["worktree"]["path"] == PATH


@pytest.mark.usefixtures("tree")
def test_a_hook_that_comes_too_late_undoes_no_merge(build: Project) -> None:
    executable(build.root / ".git/hooks/post-merge", AFTERWARDS["hangs"])

    answer = hurried(build).build("worktree-merge")

    assert answer.get("commit") == git(build, "rev-parse", "HEAD")
    assert "within 1 s" in answer["warnings"][0]
    assert len(build.events("worktree.merged")) == 1


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("key", "value"),
    [("branch.main.mergeOptions", "--no-commit"), ("branch.main.mergeOptions", "--squash"), ("merge.ff", "only")],
)
def test_the_person_s_settings_do_not_make_half_a_merge(build: Project, key: str, value: str) -> None:
    git(build, "config", key, value)

    answer = build.build("worktree-merge")

    assert answer.get("commit") == git(build, "rev-parse", "HEAD")
    assert len(git(build, "log", "-1", "--format=%P").split()) == 2
    assert git(build, "status", "--porcelain") == ""


@pytest.mark.usefixtures("tree")
def test_who_commits_may_be_said_in_the_environment(build: Project) -> None:
    git(build, "config", "--remove-section", "user")
    git(build, "config", "user.useConfigOnly", "true")
    refused(build, "worktree_failed", "worktree-merge")
    env = {f"GIT_{role}_{what}": "robot" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}

    assert build.build("worktree-merge", env=env)["exit"] == 0
    assert git(build, "log", "-1", "--format=%an %ce") == "robot robot"


def test_a_worktree_that_is_gone_leaves_its_branch_to_merge(build: Project, tree: Path) -> None:
    shutil.rmtree(tree)

    assert build.build("worktree-merge")["commit"] == git(build, "rev-parse", "HEAD")
    assert (build.root / "slates").read_text() == "new slates\n"


@pytest.mark.usefixtures("tree")
def test_a_branch_that_is_gone_is_not_taken_for_merged(build: Project) -> None:
    git(build, "worktree", "remove", PATH)
    git(build, "branch", "-qD", BRANCH)

    assert f"no branch {BRANCH}" in refused(build, "worktree_failed", "worktree-merge")["error"]
    assert build.build("worktree-cleanup")["exit"] == 0


@pytest.mark.parametrize("command", [*COMMANDS[1:3]])
@pytest.mark.parametrize("broken", ["its .git file is gone", "its index is torn"])
def test_a_worktree_that_cannot_be_asked_is_not_taken_for_clean(
    build: Project, tree: Path, broken: str, command: list[str]
) -> None:
    write(tree, notes="in no commit\n")
    if broken == "its index is torn":
        (build.root / ".git/worktrees" / tree.name / "index").write_bytes(b"torn")
    else:
        (tree / ".git").unlink()

    refused(build, "worktree_failed", *command)


# worktree-cleanup


def test_cleanup_removes_the_worktree_and_its_merged_branch(build: Project, tree: Path) -> None:
    build.build("worktree-merge")

    answer = build.build("worktree-cleanup")

    assert answer == {"status": "cleaned", "path": PATH, "branch": BRANCH, "exit": 0}
    assert not tree.exists()
    assert git(build, "branch", "--list", BRANCH) == ""
    assert build.state["worktree"] is None
    (entry,) = build.events("worktree.cleaned")
    assert (entry["path"], entry["branch"]) == (PATH, BRANCH)
    assert refused(build, "no_worktree", "worktree-cleanup")["hint"]
    refused(build, "no_worktree", "worktree-merge")


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_cleanup_keeps_a_branch_that_is_not_merged(build: Project, tree: Path, options: list[str]) -> None:
    tip = git(build, "rev-parse", "HEAD", cwd=tree)

    answer = build.build("worktree-cleanup", *options)

    assert (answer["branchKept"], tree.exists(), build.state["worktree"]) == (True, False, None)
    assert git(build, "rev-parse", f"refs/heads/{BRANCH}") == tip


def test_only_the_source_makes_a_branch_merged(build: Project, tree: Path) -> None:
    tip = git(build, "rev-parse", "HEAD", cwd=tree)
    git(build, "tag", "main", tip, "-f")
    git(build, "checkout", "-q", "--detach", tip)

    assert build.build("worktree-cleanup")["branchKept"] is True
    assert git(build, "rev-parse", f"refs/heads/{BRANCH}") == tip


def test_cleanup_by_force_removes_what_is_in_no_commit(build: Project, tree: Path) -> None:
    write(tree, slates="not in a commit\n", notes="nor this\n")

    assert build.build("worktree-cleanup", "--force")["status"] == "cleaned"
    assert not tree.exists()


def test_what_git_ignores_keeps_no_worktree(build: Project, tree: Path) -> None:
    (tree / "made.log").write_text("made\n")

    assert build.build("worktree-cleanup")["status"] == "cleaned"
    assert not tree.exists()


def test_a_commit_that_is_on_no_branch_is_not_lost(build: Project, tree: Path) -> None:
    git(build, "checkout", "-q", "--detach", cwd=tree)
    write(tree, slates="newest\n")
    loose = commit(build, tree)

    assert refused(build, "worktree_dirty", "worktree-cleanup")["commit"] == loose
    git(build, "branch", "found", cwd=tree)
    assert build.build("worktree-cleanup")["exit"] == 0
    assert git(build, "rev-parse", "found") == loose


@pytest.mark.parametrize("options", [[], ["--force"]])
def test_a_locked_worktree_is_kept(build: Project, tree: Path, options: list[str]) -> None:
    git(build, "worktree", "lock", "--reason", "on a stick", PATH)

    answer = refused(build, "worktree_failed", "worktree-cleanup", *options)

    assert "on a stick" in answer["stderr"]
    assert tree.exists()


def test_a_worktree_that_is_gone_is_cleaned_up(build: Project, tree: Path) -> None:
    shutil.rmtree(tree)

    assert build.build("worktree-cleanup")["branchKept"] is True
    assert len(git(build, "worktree", "list").splitlines()) == 1
    assert build.state["worktree"] is None


def test_a_finished_build_can_be_merged_and_cleaned_up(build: Project, tree: Path) -> None:
    build.build("transition", "executing")
    build.build("complete")

    assert build.build("worktree-merge")["exit"] == 0
    assert build.build("worktree-cleanup")["exit"] == 0
    assert (build.state["worktree"], build.state["phase"], tree.exists()) == (None, "complete", False)


# A state that somebody else wrote


@pytest.fixture
def outside(build: Project, tmp_path: Path) -> Path:
    """Return a worktree of the same repository that is none of ours."""
    git(build, "worktree", "add", "-q", "-b", "theirs", str(tmp_path / "outside"))
    (build.root / ".instar/worktrees").mkdir()
    return tmp_path / "outside"


def test_what_is_not_below_our_folder_is_not_ours(build: Project, outside: Path) -> None:
    for path in (
        "../outside", "../../outside", str(outside), "", ".", "..", ".instar", ".instar/worktrees",
        ".instar/worktrees/", ".instar/worktrees/.", ".instar/worktrees/..", ".instar/worktrees/../../../outside",
        "--force", 7, [], {"a": 1},
    ):  # fmt: skip
        build.change_state(worktree={"path": path, "branch": "theirs", "sourceBranch": "main", "createdAt": "x"})
        before = build.state_path.read_bytes()
        assert build.build("worktree-cleanup", "--force").get("code") == "state_corrupt", path
        assert (build.state_path.read_bytes(), (outside / "slates").exists()) == (before, True), path

    refused(build, "state_corrupt", "worktree-cleanup", "--force")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_worktree_that_is_none_is_named_by_every_command(build: Project, command: list[str]) -> None:
    half = {"path": PATH, "branch": "", "sourceBranch": "main"}
    for worktree in ("x", 7, [7], {"path": PATH}, half, {**half, "path": "../outside", "branch": "main"}):
        build.change_state(worktree=worktree)
        before = build.state_path.read_bytes()
        answer = build.build(*command)
        assert (answer["code"], '"worktree"' in answer["error"]) == ("state_corrupt", True)
        assert build.state_path.read_bytes() == before


@pytest.mark.parametrize(
    ("branch", "source", "code"),
    [
        ("-D", "main", "worktree_failed"),
        ("--force", "aside", "worktree_failed"),
        ("--all", "--all", "worktree_failed"),
        ("HEAD", "aside", "worktree_failed"),
        ("main~0", "aside", "worktree_failed"),
        ("@{-1}", "aside", "worktree_failed"),
        ("../../HEAD", "aside", "worktree_failed"),
        ("*", "aside", "worktree_failed"),
        ("main", "main", "wrong_branch"),
        ("main", "-D", "wrong_branch"),
        ("a\0b", "aside", "worktree_failed"),
        ("main", "a\0b", "worktree_failed"),
        ("\ud800", "aside", "worktree_failed"),
    ],
)
def test_no_name_of_a_branch_does_harm(build: Project, branch: str, source: str, code: str) -> None:
    git(build, "checkout", "-qb", "aside")
    write(build.root, walls="my work\n")
    build.change_state(worktree={"path": PATH, "branch": branch, "sourceBranch": source, "createdAt": "x"})
    refs = git(build, "for-each-ref")

    refused(build, code, "worktree-merge")
    answer = build.build("worktree-cleanup", "--force")

    assert answer.get("status", answer.get("code")) in ("cleaned", "worktree_failed")
    assert git(build, "for-each-ref") == refs
    assert (build.root / "walls").read_text() == "my work\n"


def test_a_link_is_not_followed(build: Project, outside: Path) -> None:
    (build.root / PATH).symlink_to(outside)
    build.change_state(worktree={"path": PATH, "branch": "theirs", "sourceBranch": "main", "createdAt": "x"})

    build.build("worktree-cleanup", "--force")

    assert (outside / "slates").exists()
    assert "refs/heads/theirs" in git(build, "for-each-ref")


# A git that takes long


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Return a folder and the environment of a git that writes its id into `began` there and waits for `go`."""
    executable(
        tmp_path / "slow/git",
        f"#!/bin/sh\necho $$ >{tmp_path}/new; mv {tmp_path}/new {tmp_path}/began\n"
        f'while [ ! -e {tmp_path}/go ]; do sleep 0.02; done\nexec {GIT} "$@"\n',
    )
    yield tmp_path, {"PATH": f"{tmp_path}/slow:{os.environ['PATH']}"}
    (tmp_path / "go").touch()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_git_that_hangs_is_given_up(
    build: Project, tree: Path, slow: tuple[Path, dict[str, str]], command: list[str]
) -> None:
    if command == ["worktree-create"]:
        build.change_state(worktree=None)
    folder, env = slow

    answer = refused(hurried(build), "worktree_failed", *command, env=env)

    assert "within 1 s" in answer["error"]
    wait_until(lambda: has_ended(int((folder / "began").read_text())))
    assert tree.exists()


def test_a_git_that_will_not_end_is_killed(build: Project, tmp_path: Path) -> None:
    executable(tmp_path / "deaf/git", f"#!/bin/sh\ntrap '' TERM\necho $$ >{tmp_path}/began\nsleep 600\n")

    refused(hurried(build), "worktree_failed", "worktree-create", env={"PATH": f"{tmp_path}/deaf:{os.environ['PATH']}"})

    wait_until(lambda: has_ended(int((tmp_path / "began").read_text())))


def test_a_checkout_that_hangs_leaves_nothing_half_made(build: Project) -> None:
    (build.root / ".git/info/attributes").write_text("* filter=slow\n")
    git(build, "config", "filter.slow.smudge", "sleep 600")
    (build.root / ".instar/worktrees").mkdir()

    refused(hurried(build), "worktree_failed", "worktree-create")

    git(build, "config", "--unset", "filter.slow.smudge")
    answer = build.build("worktree-create")
    assert (answer["path"], "branchReused" in answer) == (PATH, False)


def test_what_a_hook_leaves_running_keeps_nobody(build: Project) -> None:
    began, go = build.root.parent / "began", build.root.parent / "go"
    waits = f"while [ ! -e {go} ]; do sleep 0.05; done"
    executable(build.root / ".git/hooks/post-checkout", f"#!/bin/sh\n({waits}) &\necho $! >{began}\n")

    answer = hurried(build, 5).build("worktree-create")

    running = not has_ended(int(began.read_text()))
    go.touch()
    assert (answer.get("status"), running) == ("worktree_created", True)


def started(build: Project, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
    script = [f"{build.root}/.instar/state/python", f"{build.root}/.instar/hooks/instar/build-state.py"]
    return subprocess.Popen([*script, *arguments], env={**build.env, **env}, stdout=subprocess.PIPE)


def answer_of(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    answer = json.loads(process.communicate(timeout=DEADLINE_S)[0])
    assert isinstance(answer, dict)
    return answer


def test_a_stop_is_answered_while_git_is_at_work(build: Project, slow: tuple[Path, dict[str, str]]) -> None:
    folder, env = slow
    with started(build, "worktree-create", **env) as create:
        wait_for(folder / "began")
        assert build.stop("s").is_held
        assert create.poll() is None
        (folder / "go").touch()
        answer = answer_of(create)

    assert answer["status"] == "worktree_created"
    assert (build.used, build.state["worktree"]["path"]) == (1, PATH)


def test_of_two_at_once_one_wins(build: Project, slow: tuple[Path, dict[str, str]]) -> None:
    folder, env = slow
    with started(build, "worktree-create", "--branch", "one", **env) as one:
        wait_for(folder / "began")
        with started(build, "worktree-create", "--branch", "two") as two:
            lock = str(build.root / ".instar/state/build/.worktree.lock")
            wait_until(lambda: lock in open_files(two.pid))
            (folder / "go").touch()
            answers = answer_of(one), answer_of(two)

    assert (answers[0].get("branch"), answers[1].get("code")) == ("one", "worktree_exists")
    assert build.state["worktree"]["branch"] == "one"
    assert git(build, "branch", "--list", "one", "two", "--format=%(refname:short)") == "one"
    assert len(git(build, "worktree", "list").splitlines()) == 2
    assert [each.name for each in (build.root / ".instar/worktrees").iterdir()] == ["one"]
