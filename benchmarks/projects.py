"""Set up COUNT fresh projects in one process, TIMES times over: `python benchmarks/projects.py COUNT TIMES`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from migrator.files import apply
from migrator.plan import plan
from migrator.project import open_project


def main(count: int, times: int) -> None:
    """Migrate, and check that a second migration would change nothing."""
    for _ in range(times):
        with tempfile.TemporaryDirectory() as folder:
            for number in range(count):
                root = Path(folder) / f"project-{number}"
                (root / ".git").mkdir(parents=True)
                apply(root, plan(open_project(str(root), ())).changes)
                assert not plan(open_project(str(root), ())).changes


if __name__ == "__main__":
    os.environ["HOME"] = tempfile.gettempdir()
    main(int(sys.argv[1]), int(sys.argv[2]))
