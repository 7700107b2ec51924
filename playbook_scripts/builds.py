"""The build a command is about: read, or refused."""

from __future__ import annotations

from hooks.common.phases import TERMINAL
from hooks.common.values import text_of
from playbook_scripts.answers import Refusal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from hooks.common.statefile import Build

    State = dict[str, Any]

LOCK_SECONDS = 5.0


def existing(build: Build) -> State:
    """Return the state, or raise `Refusal` when there is no build. An open question ends with it."""
    state = build.load()
    if state is None:
        raise Refusal("no_build", f"there is no build in {build.root}", 'start one: build-state init "the task"')
    state.pop("asked", None)
    return state


def running(build: Build) -> State:
    """Return the state of a build that is not over, or raise `Refusal`."""
    state = existing(build)
    check_running(state)
    return state


def check_running(state: State) -> None:
    """Raise `Refusal` when the build is over."""
    phase = state.get("phase")
    if phase in TERMINAL:
        text = f"the build is {phase}, and that is final"
        raise Refusal("build_terminal", text, "a new build starts with init", phase=phase)


def run_id(state: State) -> str:
    """Return the id of a build: 16 hexadecimal digits that follow from when it was started."""
    import hashlib

    return hashlib.sha256(text_of(state, "startedAt").encode("utf-8", "replace")).hexdigest()[:16]
