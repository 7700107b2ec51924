"""The console script `build-state`: the very program that is installed in projects, from anywhere."""

from __future__ import annotations

import sys

from migrator.shipped import text


def build_state() -> None:
    """Run `build-state` on the project that the working folder lies in."""
    code = compile(text("hooks/build-state.py"), "build-state.py", "exec")
    program = {"__name__": "build_state", "__file__": __file__}
    exec(code, program)  # noqa: S102 - our own program, as the wheel carries it
    sys.exit(program["main"]())  # type: ignore[operator]
