"""One door to git: in the project, without the caller's own git environment, and never for ever."""

from __future__ import annotations

import os

from playbook_scripts.answers import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GIT_SECONDS = 60


class Git:
    """Runs git in one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        # A caller inside a git hook has GIT_DIR and its like set, which would lead git to another repository.
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self.environ.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0")

    def run(self, *arguments: str) -> Any:
        """Return the finished process, whatever its status. Raise `Refusal` where git is missing or hangs."""
        import subprocess

        try:
            return subprocess.run(
                ["git", *arguments],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=GIT_SECONDS,
                check=False,
                encoding="utf-8",
                errors="surrogateescape",
            )
        except FileNotFoundError as error:
            raise Refusal("not_git", "git is not on PATH", "install it, or put it there") from error
        except subprocess.TimeoutExpired as error:
            text = f"git {arguments[0]} did not end within {GIT_SECONDS} s"
            raise Refusal("worktree_failed", text, "see what keeps it, then try again") from error

    def says(self, *arguments: str) -> str:
        """Return what git prints, and "" where it fails."""
        done = self.run(*arguments)
        return str(done.stdout).strip() if done.returncode == 0 else ""

    def agrees(self, *arguments: str) -> bool:
        """Say whether git ends with status 0."""
        return bool(self.run(*arguments).returncode == 0)

    def do(self, *arguments: str) -> None:
        """Run git for its effect. Raise `Refusal` with its words where it fails."""
        done = self.run(*arguments)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Refusal("worktree_failed", f"git {arguments[0]} failed: {said[:2000]}", stderr=said[:2000])

    def branch(self) -> str:
        """Return the branch that is checked out, and "" where there is none."""
        return self.says("symbolic-ref", "--quiet", "--short", "HEAD")

    def changed(self) -> list[str]:
        """Return the files that are changed or not tracked."""
        fields = self.run("status", "--porcelain", "-z", "--untracked-files=all").stdout.split("\0")
        return [field[3:] for field in fields if len(field) > 3]  # noqa: PLR2004 - two letters and a blank stand first
