"""The commands in a project's `.codex/hooks.json`, each with the position and the hash by which Codex trusts it.

As measured on Codex 0.169.0. The file is taken or rejected as a whole, as Codex does.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from migrator.codex_trust import CodexTrustError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# In the order in which Codex lists them.
_EVENTS = (
    "PreToolUse",
    "PermissionRequest",
    "PostToolUse",
    "PreCompact",
    "PostCompact",
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "SubagentStart",
    "SubagentStop",
    "Stop",
    "Interrupt",
)
_WITHOUT_MATCHER = {"UserPromptSubmit", "Stop", "Interrupt"}  # Codex ignores it there
_AT_MOST_S = {"SessionEnd": 3, "Interrupt": 3}
_KINDS = {"command", "mcp_tool", "prompt", "agent"}
_NAMES = {dict: "table", list: "list", str: "string", int: "whole number", bool: "boolean"}

_T = TypeVar("_T")


class FormError(ValueError):
    """A file is not of the form that Codex expects; the text says where."""


class Hook(NamedTuple):
    """A command that Codex would load."""

    event: str
    position: str  # event, group and place in it, as in "session_start:0:0"
    command: str
    hash: str


def hooks_file(folder: Path) -> Path:
    """Return the place that Codex names in its keys; links in the path below the folder are not followed."""
    return folder / ".codex" / "hooks.json"


def load(folder: Path) -> list[Hook]:
    """Return the commands in the order of Codex's own list; none where there is no such file.

    Hooks of other kinds count for the positions only. Raise CodexTrustError for a file that Codex rejects.
    """
    place = hooks_file(folder)
    try:
        if not place.is_file():
            return []
        text = place.read_bytes().decode()
        return list(_hooks(json.loads(text, parse_constant=_refuse)))
    except OSError as error:
        raise CodexTrustError(f"Codex cannot load {place}: {error.strerror}; mend that and try again") from error
    except (ValueError, RecursionError) as error:
        raise CodexTrustError(f"Codex cannot load {place}: {error}; mend that and try again") from error


def definition_hash(event: str, hook: Mapping[str, Any], matcher: str | None = None) -> str:
    """Return the hash of one entry of hooks.json. Raise UnicodeEncodeError for half a surrogate pair."""
    longest = _AT_MOST_S.get(event)
    timeout = hook.get("timeout")
    if timeout is None:
        timeout = 1 if longest else 600
    definition = {
        "type": "command",
        "command": hook["command"],
        "timeout": max(1, min(timeout, longest or timeout)),
        "async": hook.get("async", False),
    }
    if hook.get("statusMessage") is not None:
        definition["statusMessage"] = hook["statusMessage"]
    identity: dict[str, Any] = {"event_name": _snake_case(event), "hooks": [definition]}
    if matcher is not None and event not in _WITHOUT_MATCHER:
        identity["matcher"] = matcher
    text = json.dumps(identity, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def typed(value: object, kind: type[_T], what: str) -> _T:
    """Return a value that is exactly of this kind (`True` is no number). Raise FormError for any other."""
    if type(value) is not kind:
        raise FormError(f"{what} is no {_NAMES[kind]}")
    return value


def _hooks(outermost: object) -> Iterator[Hook]:
    top = typed(outermost, dict, "the outermost value")
    for name in top.keys() - {"description", "hooks"}:
        raise FormError(f"unknown field `{name}`, expected `description` or `hooks`")
    _check(top, "description", str, "the outermost value")
    events = typed(top.get("hooks", {}), dict, "hooks")
    for event in _EVENTS:
        for number, group in enumerate(typed(events.get(event, []), list, event)):
            yield from _hooks_of_group(event, number, typed(group, dict, f"a group at {event}"))


def _hooks_of_group(event: str, number: int, group: dict[str, Any]) -> Iterator[Hook]:
    matcher = _check(group, "matcher", str, f"a group at {event}")
    for index, hook in enumerate(typed(group.get("hooks", []), list, f"hooks of a group at {event}")):
        if _is_command(typed(hook, dict, f"a hook at {event}"), event) and hook["command"].strip():
            position = f"{_snake_case(event)}:{number}:{index}"
            yield Hook(event, position, hook["command"], definition_hash(event, hook, matcher))


def _is_command(hook: dict[str, Any], event: str) -> bool:
    what = f"a hook at {event}"
    kind = typed(hook.get("type"), str, f"type of {what}")
    if kind not in _KINDS:
        raise FormError(f"type of {what} is `{kind}`, which Codex does not know")
    if kind != "command":
        return False
    typed(hook.get("command"), str, f"command of {what}")
    typed(hook.get("async", False), bool, f"async of {what}")
    _check(hook, "statusMessage", str, what)
    if not 0 <= (_check(hook, "timeout", int, what) or 0) < 1 << 63:
        raise FormError(f"timeout of {what} is out of range")
    return True


def _check(owner: dict[str, Any], name: str, kind: type[_T], what: str) -> _T | None:
    """Return a value that may be missing or null."""
    value = owner.get(name)
    return None if value is None else typed(value, kind, f"{name} of {what}")


def _snake_case(event: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", event).lower()


def _refuse(constant: str) -> NoReturn:
    raise FormError(f"{constant} is no JSON")
