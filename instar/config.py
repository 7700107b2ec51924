"""The configuration of a project, `.instar/config.json`: what may stand in it, and what holds where it is silent.

The file is the operator's. Keys that are not named here are of others, and nobody's business.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PATH: Final = ".instar/config.json"

# What holds where the file is silent.
DEFAULTS: Final[dict[str, Any]] = {"sessions": {"keepEndedDays": 30}}

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "projectName": {
            "type": "string",
            "minLength": 1,
            "description": "How the project is called in what people read.",
        },
        "_instar_noMigrate": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Dotted paths that instar-migrate never adds.",
        },
        "sessions": {
            "type": "object",
            "properties": {
                "keepEndedDays": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "For how many days the record of an ended session is kept.",
                }
            },
        },
    },
}


def load(root: Path) -> dict[str, Any]:
    """Return the configuration of a project; ``{}`` without one. Raise InstarError for a file that is none."""
    try:
        config = json.loads((root / PATH).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InstarError(f"cannot read {root / PATH}: {error}") from error
    if not isinstance(config, dict):
        raise InstarError(f"{root / PATH} holds no JSON object")
    return config


def problems(config: object) -> list[str]:
    """Return a sentence for each value that breaks a rule: its key, the value, and the rule."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only a project with a configuration waits for it

    errors = sorted(Draft202012Validator(SCHEMA).iter_errors(config), key=lambda error: error.json_path)
    return [f'key "{_dotted(error.absolute_path)}": {error.message}' for error in errors]


def _dotted(path: Iterable[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
