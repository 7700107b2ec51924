"""The defaults of a configuration that is there; where there is none, none is made."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from instar.config import PATH, problems
from migrator.changes import Change, Note
from migrator.config_defaults import MANAGED, get_migration_defaults, missing
from migrator.files import look, pristine
from migrator.json_spans import JsonTextError, delete, get, parse, put
from migrator.steps.user_files import Part, edited, restored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.project import Project


def install(project: Project) -> Iterator[Change | Note]:
    """Add what the configuration lacks, and name what in it breaks a rule."""
    if not os.path.lexists(project.root / PATH):
        return
    is_known = bool(project.record) and pristine(project.root, PATH)[0]  # what was there before us cannot be seen in it
    for found in edited(project, PART, "the defaults it lacks"):
        if isinstance(found, Note):
            yield found
            return
        yield replace(found, is_first=False) if is_known else found
    for problem in problems(_parsed(project)):
        yield Note("warning", f"{PATH}: {problem}; until that is mended the default holds")


def uninstall(project: Project) -> Iterator[Change | Note]:
    """Take those defaults out again that nobody changed."""
    return restored(project, PART, "take our defaults out")


def put_defaults(text: str | None) -> str:
    """Return the configuration with what it lacks. Raise `JsonTextError`."""
    text = "{}\n" if text is None else text
    config = parse(text)
    if not isinstance(config, dict):
        raise JsonTextError("it holds no JSON object")
    for addition in missing(config, _defaults(config))[0]:
        text = put(text, addition.path, addition.value)
    return text


def take_defaults(text: str, at_first: str | None) -> str | None:
    """Return the configuration without what is as we added it."""
    config, first = parse(text), parse(at_first or "{}")
    if not isinstance(config, dict) or not isinstance(first, dict):
        return text
    for addition in missing(first, _defaults(first))[0]:
        text = _take_branch(text, addition.path, addition.value)
    return text


def _take_branch(text: str, path: tuple[str, ...], value: object) -> str:
    if isinstance(value, dict) and isinstance(get(text, path), dict):
        for key, inner in value.items():
            text = _take_branch(text, (*path, key), inner)
        return delete(text, path) if get(text, path) == {} else text
    return delete(text, path) if get(text, path) == value else text


def _defaults(config: dict[str, Any]) -> dict[str, Any]:
    kind = config.get("agentType")
    return get_migration_defaults(kind if isinstance(kind, str) else MANAGED)


def _parsed(project: Project) -> object:
    found = look(project.root, PATH)
    return parse(found.data.decode()) if found else {}


PART: Final = Part(PATH, put_defaults, take_defaults)
