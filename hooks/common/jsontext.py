"""JSON, read and written as the package `json` does it, without importing that.

`import json` costs as much as a bare start of the interpreter, nearly all of it for `re`, which its own C code has no
need of. What that code raises is the same: ValueError for what is no JSON, RecursionError for what is too deep.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def codec() -> tuple[Any, Any]:
    """Return what makes a reader of JSON, None where only the package has one, and what quotes a string."""
    try:
        import _json
    except ImportError:  # another Python than CPython
        from json.encoder import encode_basestring_ascii

        return None, encode_basestring_ascii
    return _json.make_scanner, _json.encode_basestring_ascii


CODEC = codec()
BLANK = " \t\n\r"
NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Reading:
    """How a text is read: as `json.loads` does without any options."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = NOT_FINITE.__getitem__


def loads(text: str) -> Any:
    """Return the value of a JSON text."""
    start = len(text) - len(text.lstrip(BLANK))
    try:
        value, end = CODEC[0](Reading)(text, start)
        if not text[end:].strip(BLANK):
            return value
    except (StopIteration, ValueError, SystemError, TypeError):  # the C code leaves the telling to the package
        pass
    import json  # which says what is wrong, and where

    return json.loads(text)


def dumps(value: Any, indent: int = 0, level: int = 0) -> str:
    """Return the JSON text of a value, in ASCII; over lines with an indent. Raise TypeError for any other value."""
    if isinstance(value, str):
        return str(CODEC[1](value))
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return next((name for name, each in NOT_FINITE.items() if repr(each) == repr(value)), float.__repr__(value))
    if isinstance(value, dict):
        items = [f"{CODEC[1](key)}: {dumps(each, indent, level + 1)}" for key, each in value.items()]
        return enclosed("{", items, "}", indent, level)
    if isinstance(value, (list, tuple)):
        return enclosed("[", [dumps(each, indent, level + 1) for each in value], "]", indent, level)
    raise TypeError(f"{type(value).__name__} is no JSON")


def enclosed(opening: str, items: list[str], closing: str, indent: int, level: int) -> str:
    """Return items between brackets, on one line or each on its own."""
    if not items or not indent:
        return opening + ", ".join(items) + closing
    line = "\n" + " " * indent * (level + 1)
    return opening + line + f",{line}".join(items) + "\n" + " " * indent * level + closing
