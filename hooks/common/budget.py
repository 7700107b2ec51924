"""How often a build may hold its session."""

from __future__ import annotations

from hooks.common.values import expect, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOLDS_AT_MOST = 50
DEFAULT_BUDGET = 5


def budget(state: dict[str, Any]) -> int:
    """Return how often the build may be held. Raise `Trouble` where the state does not say it in numbers."""
    return min(whole_number(expect(state, "protection", dict, {}), "reinforcements", DEFAULT_BUDGET), HOLDS_AT_MOST)


def is_spent(state: dict[str, Any]) -> bool:
    """Say whether the build was held as often as it may be."""
    return whole_number(state, "reinforcementsUsed", 0) >= budget(state)
