"""Real git repositories with a history at chosen times, and evidence without any."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from instar.gate.evidence import Artifact, Evidence
from instar.gate.repository import Commit

DAY = 86400
START = 1_790_000_000  # when the session of a test began
BEFORE, DURING = START - DAY, START + 60
PLAN = "docs/plans/alpha.md"
OPEN = "# Alpha\n- [x] one\n- [ ] two\n"
A, B, C = ("a" * 40, "b" * 40, "c" * 40)


@dataclass
class Repository:
    """A repository; `at` is the time of the next commit."""

    root: Path
    at: int = BEFORE
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path) -> Repository:
        root.mkdir(parents=True, exist_ok=True)
        made = cls(root)
        made.git("init", "-q", "-b", "main")
        return made

    def git(self, *arguments: str, cwd: Path | None = None, stdin: bytes = b"") -> str:
        who = {f"GIT_{role}_{what}": "x@y.invalid" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        when = {f"GIT_{role}_DATE": f"{self.at} +0000" for role in ("AUTHOR", "COMMITTER")}
        done = subprocess.run(
            ["git", *arguments], cwd=cwd or self.root, env={**os.environ, **who, **when}, input=stdin, check=True,
            capture_output=True,
        )  # fmt: skip
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, path: str, text: str = OPEN, at: int | None = None) -> Path:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        if at is not None:
            os.utime(place, (at, at))
        return place

    def commit(self, at: int, **files: str) -> str:
        """Commit what is there, with these files (by path, `__` for a slash, `_md` for the ending)."""
        for name, text in files.items():
            self.write(name.replace("__", "/").removesuffix("_md") + ".md", text)
        self.at = at
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")


def evidence_of(*artifacts: Artifact, commits: tuple[Commit, ...] = (), root: Path = Path("/nowhere")) -> Evidence:
    return Evidence(root, A, float(START), artifacts, commits, commits[0] if commits else None)


PROVEN = Artifact(PLAN, A, B, modified_this_session=True, has_open_item=True)
PROGRESS = Commit(B, DURING, (PLAN,))
