"""What each path costs, as a ratio to something every machine has. `python benchmarks/table.py [ROUNDS]`.

Each round runs a path and its yardstick one after the other, as whole processes; the figure is the median of the
ratios of the rounds, so that it holds on a slow machine and on a busy one. The method: docs/performance.md.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BIN = Path(sys.executable).parent
CASUAL = b'{"session_id":"s","last_assistant_message":"All slices are done, and the tests pass. It is committed."}'
OWNER, STRANGER = b'{"session_id":"owner"}', b'{"session_id":"stranger"}'
HOLDS = 50


@dataclass(frozen=True)
class Row:
    """One row: what is measured, by which yardstick, and what it may cost."""

    name: str
    command: list[str]
    yardstick: list[str]
    yardstick_name: str
    at_most: float
    stdin: bytes = b""
    before: Callable[[], object] = lambda: None


def rows(project: Path) -> list[Row]:
    """Return the table, for a project that is set up."""
    build = project / ".instar/state/build"
    python = str((project / ".instar/state/python").resolve())
    shell = ["/bin/sh", "-c", ":"], "sh -c :"
    bare = [python, "-I", "-S", "-c", "pass"], "bare Python"
    imports = [sys.executable, "-c", "import click, filelock, json, pathlib, difflib, subprocess"], "its imports"
    many = [sys.executable, str(Path(__file__).with_name("projects.py"))]
    state = build / "build-state.json"
    command = [python, "-I", "-S", str(project / ".instar/hooks/instar/build-state.py")]

    def no_build() -> None:
        shutil.rmtree(build, ignore_errors=True)

    def shadow() -> None:
        (project / ".instar/server-data").mkdir(exist_ok=True)
        (project / ".instar/server-data/gate-on").write_text("shadow 2000")

    def no_hook() -> None:
        (project / ".instar/hooks/instar/session-event-hook.py").unlink(missing_ok=True)

    def a_build() -> None:
        no_build()
        run([*command, "init", "a task", "--owner-session", "owner"], project)
        run([*command, "transition", "executing"], project)
        text = json.loads(state.read_text())
        state.write_text(json.dumps({**text, "protection": {"reinforcements": HOLDS, "label": "long"}}, indent=2))

    return [
        Row("Stop, no build", hook(project, "Stop", "build-stop-hook"), *shell, 2.5, OWNER, no_build),
        Row("Stop, gate off", hook(project, "Stop", "stop-gate-router"), *shell, 2.5, OWNER),
        Row(
            "event without a hook file",
            hook(project, "SessionStart", "session-event-hook"),
            *shell,
            2.5,
            before=no_hook,
        ),
        Row("Stop, owner held", hook(project, "Stop", "build-stop-hook"), *bare, 3, OWNER, a_build),
        Row("Stop, shadow, no signal", hook(project, "Stop", "stop-gate-router"), *bare, 3, CASUAL, shadow),
        Row("Stop, stranger let go", hook(project, "Stop", "build-stop-hook"), *bare, 3, STRANGER, a_build),
        Row("build-state status", [*command, "status"], *bare, 6, before=a_build),
        Row("build-state step-complete", [*command, "step-complete", "1", "d", "1", "1"], *bare, 6),
        Row("instar-migrate, nothing to do", [str(BIN / "instar-migrate")], *imports, 1.5),
        Row("100 projects in one process", [*many, "100", "1"], [*many, "10", "10"], "ten times 10", 1.2),
    ]


def hook(project: Path, event: str, role: str) -> list[str]:
    """Return the registered command as Claude Code runs it."""
    groups = json.loads((project / ".claude/settings.json").read_text())["hooks"][event]
    (command,) = [each["command"] for group in groups for each in group["hooks"] if f" {role};" in each["command"]]
    return ["/bin/sh", "-c", command]


def run(command: list[str], project: Path, stdin: bytes = b"") -> float:
    """Run a whole process and return the seconds it took."""
    environ = {"PATH": os.environ["PATH"], "HOME": str(project.parent), "CLAUDE_PROJECT_DIR": str(project)}
    start = time.perf_counter()
    subprocess.run(command, cwd=project, env=environ, input=stdin, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measure(row: Row, project: Path, rounds: int) -> tuple[float, float, float]:
    """Return the median ratio and its quartiles."""
    row.before()
    ratios = []
    for number in range(rounds + 2):
        ratio = run(row.command, project, row.stdin) / run(row.yardstick, project)
        if number >= 2:  # noqa: PLR2004 - the first rounds warm the caches
            ratios.append(ratio)
    low, median, high = statistics.quantiles(ratios, n=4)
    return median, low, high


def main() -> int:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else HOLDS - 10
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as folder:
        project = Path(folder).resolve() / "project"
        project.mkdir()
        run(["git", "init", "--quiet", "."], project)
        run([str(BIN / "instar-migrate")], project)
        print(f"{'path':32} {'times':>6}  {'quartiles':13} {'at most':>7}  yardstick")
        for row in rows(project):
            median, low, high = measure(row, project, min(rounds, HOLDS - 5))
            print(f"{row.name:32} {median:6.2f}  {low:5.2f} - {high:5.2f} {row.at_most:7.1f}  {row.yardstick_name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
