"""Reading values out of JSON objects that may hold anything."""

from __future__ import annotations

from hooks.common.trouble import Trouble

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = {dict: "an object", list: "a list", int: "a whole number"}


def text_of(values: dict[str, Any], key: str) -> str:
    """Return the string under `key`, and "" where there is none."""
    value = values.get(key)
    return value if isinstance(value, str) else ""


def expect(values: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    """Return the value under `key`. Raise `Trouble` when it is of another kind: nothing can be built on it."""
    value = values.get(key, default)
    if isinstance(value, kind):
        return value
    raise Trouble("state_corrupt", f'the build state\'s key "{key}" is {value!r:.80}, expected {KINDS[kind]}')


def whole_number(values: dict[str, Any], key: str, default: int) -> int:
    """Return the number under `key`. Raise `Trouble` when it is something else, or cannot be a count."""
    value: int = expect(values, key, int, default)
    if is_count(value):
        return value
    raise Trouble("state_corrupt", f'the build state\'s key "{key}" is {value!r:.80}, expected a count')


def is_count(value: object) -> bool:
    """Say whether `value` is a number of things; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
