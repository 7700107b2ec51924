"""What a configuration that is there gets when it is silent; whatever the operator wrote stays.

Defaults are added, never changed: a value of another type, an empty list and null are answers, too.
"""

from __future__ import annotations

import copy
from typing import Any, Final, NamedTuple

from instar.config import DEFAULTS, over

Config = dict[str, Any]

OPT_OUT: Final = "_instar_noMigrate"  # a list of dotted paths, at the top of the configuration
MANAGED: Final = "managed-project"

# What differs by the kind of agent, and what only a new or only an old project gets.
_BY_TYPE: Final[dict[str, Config]] = {MANAGED: {}, "standalone": {}}
_INIT: Final[Config] = {}
_MIGRATION: Final[Config] = {}


class Addition(NamedTuple):
    """A default that a configuration lacks."""

    path: tuple[str, ...]
    value: Any

    @property
    def dotted(self) -> str:
        """The path as people write it."""
        return ".".join(self.path)


def get_init_defaults(agent_type: str) -> Config:
    """Return what a new project's configuration begins with; an unknown type is a managed project."""
    return _layered(DEFAULTS, _BY_TYPE.get(agent_type, _BY_TYPE[MANAGED]), _INIT)


def get_migration_defaults(agent_type: str) -> Config:
    """Return what the configuration of a project that is there gets; an unknown type is a managed project."""
    return _layered(DEFAULTS, _BY_TYPE.get(agent_type, _BY_TYPE[MANAGED]), _MIGRATION)


def apply_defaults(config: Config, defaults: Config) -> dict[str, Any]:
    """Add to `config`, in place, what of `defaults` it lacks.

    Return ``{"patched": bool, "changes": ["a.b (added)", …], "skipped": ["a.c (opted out)", …]}``. A branch that is
    missing is one change. What is added is a copy. `config` and the lists and values in it are otherwise not touched.
    """
    additions, skipped = missing(config, defaults)
    for addition in additions:
        target = config
        for key in addition.path[:-1]:
            target = target.setdefault(key, {})
        target[addition.path[-1]] = copy.deepcopy(addition.value)
    return {
        "patched": bool(additions),
        "changes": [f"{addition.dotted} (added)" for addition in additions],
        "skipped": [f"{dotted} (opted out)" for dotted in skipped],
    }


def missing(config: Config, defaults: Config) -> tuple[list[Addition], list[str]]:
    """Return what `config` lacks, and the dotted paths of defaults that it opted out of."""
    listed = config.get(OPT_OUT)
    opted_out = {path for path in listed if isinstance(path, str)} if isinstance(listed, list) else set()
    return _missing(config, defaults, (), opted_out)


def _missing(
    config: Config, defaults: Config, above: tuple[str, ...], opted_out: set[str]
) -> tuple[list[Addition], list[str]]:
    additions: list[Addition] = []
    skipped: list[str] = []
    for key, value in defaults.items():
        path = (*above, key)
        dotted = ".".join(path)
        if dotted in opted_out:
            skipped.append(dotted)
        elif isinstance(value, dict) and isinstance(config.get(key, {}), dict):
            more, passed = _missing(config.get(key, {}), value, path, opted_out)
            is_whole_branch = key not in config and not passed
            additions += [Addition(path, value)] if is_whole_branch else more
            skipped += passed
        elif key not in config:
            additions.append(Addition(path, value))
    return additions, skipped


def _layered(*layers: Config) -> Config:
    """Return all layers in one, the later over the earlier, as a copy."""
    merged: Config = {}
    for layer in layers:
        merged = over(merged, layer)
    return merged
