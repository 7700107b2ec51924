"""The steps of a build, as they can be read from a state that may hold anything."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def steps_of(state: dict[str, Any]) -> list[Any]:
    """Return the steps for reading; none where the key holds something else."""
    steps = state.get("steps")
    return steps if isinstance(steps, list) else []


def latest(steps: list[Any]) -> list[dict[str, Any]]:
    """Return the last record of each step number."""
    return list({str(step.get("step")): step for step in steps if isinstance(step, dict)}.values())


def is_failing(step: dict[str, Any]) -> bool:
    """Say whether not all tests of a step pass."""
    return bool(step.get("tests") != step.get("passing"))
