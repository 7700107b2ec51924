"""The console script `build-state`: the very program that is installed in projects, from anywhere."""

from __future__ import annotations

import sys
from typing import Any

from migrator.shipped import text


def build_state() -> None:
    """Run `build-state` on the project that the working folder lies in."""
    program = _loaded("build-state")
    # What lies in a project in the place of the second program may be anybody's: nothing of it is run from here.
    program["hand_over"] = lambda *_: sys.exit(_loaded("build-worktree")["main"]())
    sys.exit(program["main"]())


def _loaded(name: str) -> dict[str, Any]:
    program: dict[str, Any] = {"__name__": name, "__file__": __file__}
    exec(compile(text(f"hooks/{name}.py"), f"{name}.py", "exec"), program)  # noqa: S102 - our own, as the wheel carries it
    return program
