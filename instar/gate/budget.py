"""For how long an authority may think."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from instar.gate.settings import authority_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORT_MS: Final = 2000
LONG_MS: Final = 8000  # a client needs 5 to 9 seconds for a verdict, and a hook has 10 in all
BY_PROVIDER: Final = {"claude-cli": LONG_MS, "codex-cli": LONG_MS}


def budget_ms(config: Mapping[str, Any]) -> int:
    """Return the milliseconds that the configuration gives its authority, proof and all."""
    settings = authority_settings(config)
    named = settings.get("budgetMs")
    if isinstance(named, int) and not isinstance(named, bool):
        return min(max(named, 200), LONG_MS)
    return BY_PROVIDER.get(str(settings.get("provider")), SHORT_MS)
