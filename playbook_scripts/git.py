"""One door to git: in the project, whatever repository the caller works in, and never for ever."""

from __future__ import annotations

import os

from playbook_scripts.answers import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GIT_SECONDS = 60
MERCY_SECONDS = 5  # to take its locks and halves away
SETTINGS = ("-c", "merge.autoStash=false")  # which would take what is staged out of the index
OF_THE_PERSON = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_")
SAID_AT_MOST = 2000


class Git:
    """Runs git in one folder; with `is_top`, the repository has to begin right there."""

    def __init__(self, folder: str, *, is_top: bool = False) -> None:
        self.folder = folder
        # A caller inside a git hook has GIT_DIR and its like set, which would lead git to another repository.
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(OF_THE_PERSON)
        }
        self.environ.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0")
        if is_top:
            self.environ["GIT_CEILING_DIRECTORIES"] = os.path.dirname(folder)

    def run(self, *arguments: str) -> Any:
        """Return the finished process, whatever its status. Raise `Refusal` where git is missing or hangs."""
        import subprocess
        import tempfile

        # Files, not pipes: what a hook of git's leaves running would hold a pipe open long after git has ended.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    ["git", *SETTINGS, *arguments],
                    cwd=self.folder,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                text = f"git cannot be run in {self.folder}: {error.strerror}: {error.filename}"
                raise Refusal("not_git", text, "install git, or put it on PATH") from error
            except ValueError as error:
                hint = "mend what names it, in the build state or on the command line"
                raise Refusal("worktree_failed", f"git {arguments[0]} cannot be told: {error}", hint) from error
            try:
                status = process.wait(GIT_SECONDS)
            except subprocess.TimeoutExpired as error:
                text = f"git {arguments[0]} did not end within {GIT_SECONDS} s"
                raise Refusal("worktree_failed", text, "see what keeps it, then try again") from error
            finally:
                end(process)
            return subprocess.CompletedProcess(process.args, status, content(stdout), content(stderr))

    def says(self, *arguments: str) -> str:
        """Return what git prints, and "" where it fails."""
        done = self.run(*arguments)
        return str(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def agrees(self, *arguments: str) -> bool:
        """Say whether git ends with status 0."""
        return bool(self.run(*arguments).returncode == 0)

    def do(self, *arguments: str, hint: str = "mend what git names, then try again") -> str:
        """Return what git prints. Raise `Refusal` with its words where it fails or hangs."""
        done = self.run(*arguments)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:SAID_AT_MOST]
            raise Refusal("worktree_failed", f"git {arguments[0]} failed: {said}", hint, stderr=said)
        return str(done.stdout)

    def trouble(self, *arguments: str) -> Refusal | None:
        """Run git and return what `do` would raise: a hook of its may fail or hang when all is done already."""
        try:
            self.do(*arguments)
        except Refusal as refusal:
            return refusal
        return None

    def branch(self) -> str:
        """Return the branch that is checked out, and "" where there is none."""
        # Not --short, which lengthens the name again where a tag has the same.
        return self.says("symbolic-ref", "--quiet", "HEAD").replace("refs/heads/", "", 1)

    def has_branch(self, name: str) -> bool:
        """Say whether there is such a branch."""
        return self.agrees("show-ref", "--verify", "--quiet", f"refs/heads/{name}")

    def has_commits_of(self, one: str, other: str = "HEAD") -> bool:
        """Say whether every commit of `one` is in `other`."""
        return self.agrees("merge-base", "--is-ancestor", one, other)

    def is_merging(self) -> bool:
        """Say whether a merge is begun and not finished."""
        return self.agrees("rev-parse", "--quiet", "--verify", "MERGE_HEAD")

    def changed(self) -> list[str]:
        """Return the files that are changed or not tracked."""
        fields = self.do("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split("\0")
        return [field[3:] for field in fields if field]  # two letters and a blank stand first

    def differing(self, *what: str) -> list[str]:
        """Return the files, as seen from the top of the repository, that `git diff` names."""
        return [name for name in self.do("diff", "--name-only", "--no-renames", "-z", *what).split("\0") if name]


def end(process: Any) -> None:
    """End a process that has not ended, and all that it started: with mercy first."""
    import signal
    import subprocess

    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(MERCY_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def content(file: Any) -> str:
    """Return what was written into a file; bytes that are no UTF-8 stay what they are in Python's file names."""
    file.seek(0)
    return str(file.read().decode("utf-8", "surrogateescape"))
