"""A scratch project and a person's home, in which the real `instar-migrate` is run from outside."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

MIGRATE = Path(sys.executable).with_name("instar-migrate")
SETTINGS = ".claude/settings.json"
LOCAL = ".claude/settings.local.json"
CODEX = ".codex/hooks.json"
SKILL = ".claude/skills/build/SKILL.md"
AGENTS = "AGENTS.md"
CLAUDE = "CLAUDE.md"
PINS = ".instar/identity-pins.json"
CONFIG = ".instar/config.json"
HOOKS = ".instar/hooks/instar"
PYTHON = ".instar/state/python"
RECORD = ".instar/state/py-migrated-version.json"
BACKUPS = ".instar/backups"
LOCK = ".instar/state/migrate.lock"
CLIENT_FILES = (SETTINGS, CODEX)
CAP = "CLAUDE_CODE_STOP_HOOK_BLOCK_CAP"
DEADLINE_S = 30.0


class Seen(NamedTuple):
    """What stands at a path; for a folder the content is empty, for a link it is the target."""

    mode: int
    mtime_ns: int
    content: bytes


def look(place: Path) -> Seen:
    status = place.lstat()
    content = b""
    if stat.S_ISLNK(status.st_mode):
        content = os.fsencode(place.readlink())
    elif stat.S_ISREG(status.st_mode):
        content = place.read_bytes()
    return Seen(status.st_mode, status.st_mtime_ns, content)


def snapshot(root: Path) -> dict[str, Seen]:
    """Return all that is in a folder, itself included."""
    return {str(place.relative_to(root)): look(place) for place in (root, *root.rglob("*"))}


@dataclass
class Scratch:
    """A project, and the machine of the person who works in it: no client on it, and nothing in the home."""

    project: Path
    home: Path
    environ: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path) -> Scratch:
        project, home, programs = folder / "project", folder / "home", folder / "bin"
        for each in (project, home, programs):
            each.mkdir(parents=True)
        shared = str(
            folder / "shared"
        )  # what stands for ~/.instar, so that a test sees all else that lands in the home
        environ = {"HOME": str(home), "PATH": str(programs), "LANG": "C.UTF-8", "INSTAR_SHARED_ROOT": shared}
        return cls(project, home, environ)

    def start(self, *arguments: str | Path, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [MIGRATE, *arguments], cwd=cwd or self.project, env=self.environ, text=True, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, *arguments: str | Path, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments, cwd=cwd, **options) as process:
            try:
                stdout, stderr = process.communicate(timeout=DEADLINE_S)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def migrate(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run instar-migrate, which must succeed, and return what it said."""
        done = self.run(*arguments, cwd=cwd)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, *arguments: str | Path, cwd: Path | None = None, **options: Any) -> str:
        """Run instar-migrate, which must refuse altogether, and return its one line of reason."""
        done = self.run(*arguments, cwd=cwd, **options)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr.count("\n") == 1
        return done.stderr

    def errors(self, *arguments: str | Path) -> list[str]:
        """Run instar-migrate, which must end with errors, and return them."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (1, ""), done
        return noted(done.stdout, "error")

    def report(self, *arguments: str | Path) -> dict[str, Any]:
        """Run instar-migrate, which must succeed, and return its report for programs."""
        report = json.loads(self.migrate("--json", *arguments))
        assert isinstance(report, dict)
        return report

    def place(self, path: str) -> Path:
        return self.project / path

    def has(self, path: str) -> bool:
        return os.path.lexists(self.place(path))

    def read(self, path: str) -> bytes:
        return self.place(path).read_bytes()

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        place = self.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
        place.chmod(mode)
        return place

    def replace(self, path: str, old: str, new: str, count: int = -1) -> None:
        """Edit a file as a person would."""
        text = self.read(path).decode()
        assert old in text
        self.place(path).write_bytes(text.replace(old, new, count).encode())

    def json(self, path: str) -> Any:
        return json.loads(self.read(path).decode("utf-8-sig"))

    def write_json(self, path: str, value: object) -> None:
        self.write(path, json.dumps(value, indent=2) + "\n")

    def snapshot(self) -> dict[str, Seen]:
        return snapshot(self.project)

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return all that is in the project but what only the migrator uses, without the times."""
        return {
            path: (seen.mode, seen.content)
            for path, seen in self.snapshot().items()
            if not path.startswith((".instar/state/migrate", BACKUPS))
        }

    def users_files(self) -> dict[str, tuple[int, bytes]]:
        """Return all that is in the project but `.instar`, without the times."""
        return {path: seen for path, seen in self.files().items() if not path.startswith(".instar")}

    def copies(self, path: str) -> list[bytes]:
        """Return the copies that migrations kept of a file, the oldest first."""
        return [run.joinpath(path).read_bytes() for run in self.backups() if run.joinpath(path).exists()]

    def backups(self) -> list[Path]:
        return sorted(self.place(BACKUPS).glob("migrate-*"))


def noted(said: str, level: str) -> list[str]:
    """Return the notes of a level among the lines for people."""
    return [line.split(maxsplit=1)[1] for line in said.splitlines() if line.startswith(f"  {level} ")]
