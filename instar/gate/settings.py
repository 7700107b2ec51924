"""The gate's part of a configuration that may hold anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FEATURE: Final = "unjustifiedStopGate"  # the key, and what its troubles are reported by


def gate_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is set of the gate; nothing where the key holds no object."""
    return _object(config.get(FEATURE))


def authority_settings(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is set of its authority."""
    return _object(gate_settings(config).get("authority"))


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
