"""Collect the evidence of a large repository: `python benchmarks/evidence.py [COMMITS PLANS ROUNDS]`.

Prints how many times as long it takes as one `git log -50 --name-status` there, run in turn: the median of the rounds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from instar.gate.evidence import collect

AT_MOST = 3.0


def main(commits: int = 3000, plans: int = 200, rounds: int = 20) -> None:
    """Measure, and print."""
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as folder:
        root = Path(folder)
        make(root, commits, plans)
        began = time.time() - 3600
        ratios = []
        for _ in range(rounds + 2):
            start = time.perf_counter()
            subprocess.run(["git", "log", "-50", "--name-status"], cwd=root, check=True, stdout=subprocess.PIPE)
            between = time.perf_counter()
            collect(root, began, seconds=10)
            ratios.append((time.perf_counter() - between) / (between - start))
    low, median, high = statistics.quantiles(ratios[2:], n=4)
    name = f"evidence, {commits} commits, {plans} plans"
    print(f"{name:32} {median:6.2f}  {low:5.2f} - {high:5.2f} {AT_MOST:7.1f}  git log -50 --name-status")


def make(root: Path, commits: int, plans: int) -> None:
    """Make the repository with one `git fast-import`."""
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    lines = []
    for number in range(commits):
        paths = [f"src/file-{number % 500}.py"] + ([f"docs/plans/plan-{number}.md"] if number < plans else [])
        text = f"- [ ] step {number}\n"
        lines.append(f"commit refs/heads/main\ncommitter x <x@example.invalid> {1_700_000_000 + number * 60} +0000")
        lines.append("data 1\nx")
        lines += [f"M 100644 inline {path}\ndata {len(text)}\n{text}" for path in paths]
    script = "\n".join(lines) + "\n"
    subprocess.run(["git", "fast-import", "--quiet"], cwd=root, input=script, text=True, check=True)
    subprocess.run(["git", "checkout", "-q", "-f", "-B", "main", "refs/heads/main"], cwd=root, check=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
