"""Edit JSON text and leave every character outside the edit as it was.

A settings file belongs to its user: parsed and dumped again, it would lose its formatting, escapes, number
spellings and BOM. So the functions here find the span to edit, and cut or insert just there. What they insert
follows the file: its newline, its indent, and the layout of the object or list that it goes into.

A path is a sequence of object keys (`str`) and list indexes (`int`, from 0); `()` is the outermost value.
Every function reads the whole text first and raises `JsonTextError` where it is not strict JSON, where a step
of the path meets a value of another type, or where a key on the path stands twice in its object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn

Path = Sequence[str | int]
Json = Any  # what `json.loads` returns and `json.dumps` takes

MISSING: Final = object()

_BOM = "\ufeff"
_BLANK = " \t\r\n"
_KINDS = {"{": "an object", "[": "a list", '"': "a string", "t": "a boolean", "f": "a boolean", "n": "null"}

_NEWLINE = re.compile(r"\r?\n")
_BLANK_LINES = re.compile(r"[ \t]*(\r?\n[ \t]*)+")
_INDENT = re.compile(rf"(?:^{_BOM}?|\n)([ \t]+)[^ \t\r\n]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[:,][ \t]*(?![ \t\r\n])|-?Infinity|NaN')

_raw_decode = json.JSONDecoder().raw_decode


class JsonTextError(ValueError):
    """The text cannot be read or edited as asked; the message is one sentence: what is wrong, and where."""


def parse(text: str) -> Json:
    """Return the value of the whole text."""
    body = text.removeprefix(_BOM)

    def refuse(constant: str) -> NoReturn:
        position = next(token.start() for token in _TOKEN.finditer(body) if token[0] == constant)
        raise json.JSONDecodeError(f"Unexpected {constant}", body, position)

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise JsonTextError(_problem(error)) from error


def get(text: str, path: Path) -> Json:
    """Return the value at `path`, or `MISSING` where the path does not lead to one."""
    trail = _trail(text, path)
    return _raw_decode(text, trail[-1].value)[0] if len(trail) > len(path) else MISSING


def put(text: str, path: Path, value: Json) -> str:
    """Set the value at `path`: replace what is there, or add a last member and the objects around it."""
    trail = _trail(text, path)
    missing = _missing_keys(path, trail)
    if missing:
        key, *inner = missing
        for step in reversed(inner):
            value = {step: value}
        return _insert(text, trail[-1], value, key)
    old, style = trail[-1], _Style.of(text)
    is_spread = any("\n" in item.gap for item in _items(text, trail[-2])) if path else not style.on_one_line
    before = text[: old.value]
    return before + style.dump(value, _last_indent(before) if is_spread else None) + text[old.end :]


def append(text: str, path: Path, value: Json) -> str:
    """Add an item at the end of the list at `path`; a missing list is made, and the objects around it."""
    trail = _trail(text, path)
    if _missing_keys(path, trail):
        return put(text, path, [value])
    _expect(text, trail[-1], "[", path)
    return _insert(text, trail[-1], value)


def delete(text: str, path: Path) -> str:
    """Remove the member or item at `path` with its comma and white space; a key that is missing is fine."""
    trail = _trail(text, path)
    if _missing_keys(path, trail):
        return text
    if not path:
        raise _error(path, "cannot be deleted")
    whole, item = trail[-2:]
    siblings = _items(text, whole)
    if len(siblings) == 1:
        return text[: whole.value + 1] + text[whole.end - 1 :]
    if item == siblings[0]:
        return text[: item.start] + text[siblings[1].start :]
    return text[: item.start - len(item.gap)] + text[item.end :]


class _Item(NamedTuple):
    """A member of an object or an item of a list, with the positions where it, its value and its end are."""

    step: str | int
    gap: str  # what stands between the item before, or the opening bracket, and this one
    start: int
    value: int
    end: int


class _Style(NamedTuple):
    """How the file is written: its new line, one level of its indent, what follows its colons and commas."""

    newline: str
    indent: str
    space: str
    on_one_line: bool

    @classmethod
    def of(cls, text: str) -> _Style:
        newline, indent = _NEWLINE.search(text), _INDENT.search(text)
        marks = (token[0] for token in _TOKEN.finditer(text) if token[0][0] in ":,")
        body = text.strip(_BOM + _BLANK)
        is_bare = body[0] not in "{[" or not body[1:-1].strip(_BLANK)
        return cls(
            newline=newline[0] if newline else "\n",
            indent=indent[1] if indent else "  ",
            space=" " if len(next(marks, ", ")) > 1 else "",
            on_one_line=not is_bare and "\n" not in body,
        )

    def dump(self, value: Json, indent: str | None) -> str:
        """Return `value` as text for a line with this indent; None keeps all of it on one line."""
        spread = indent is not None
        dumped = json.dumps(
            value,
            ensure_ascii=False,
            allow_nan=False,
            indent=self.indent if spread else None,
            separators=("," if spread else "," + self.space, ":" + self.space),
        )
        encodable = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", dumped)
        return encodable.replace("\n", f"{self.newline}{indent}")


def _insert(text: str, where: _Item, value: Json, key: str | None = None) -> str:
    """Add a last member (with a key) or a last item (without) to the object or list `where`."""
    style = _Style.of(text)
    position, lead, tail = _slot(text, where, style)
    before = text[:position] + lead
    indent = _last_indent(before) if "\n" in lead else None
    name = "" if key is None else f"{style.dump(key, None)}:{style.space}"
    return before + name + style.dump(value, indent) + tail + text[position:]


def _slot(text: str, where: _Item, style: _Style) -> tuple[int, str, str]:
    """Return the position for a new last item of `where`, and what has to be written before and after it."""
    items = _items(text, where)
    if items:
        return items[-1].end, _next_gap(items, style), ""
    opened, closing = where.value + 1, where.end - 1
    blank = text[opened:closing]
    if style.on_one_line:
        return closing, "", blank
    indent = _last_indent(text[:opened])
    tail = "" if "\n" in blank else style.newline + indent.removesuffix(blank)
    return opened, style.newline + indent + style.indent, tail


def _next_gap(items: list[_Item], style: _Style) -> str:
    """Return what to write between the last of `items` and one more, as it was done in this place before."""
    gaps = ["," + items[0].gap, *(item.gap for item in items[1:])]
    line_starts = [gap for gap in gaps if "\n" in gap]
    if line_starts:
        return _BLANK_LINES.sub(r"\1", line_starts[-1])
    return gaps[-1] if len(gaps) > 1 else "," + style.space


def _trail(text: str, path: Path) -> list[_Item]:
    """Find the outermost value and those that `path` leads to, as far as they exist."""
    parse(text)
    start = _skip_blank(text, len(_BOM) if text.startswith(_BOM) else 0)
    trail = [_Item("", "", start, start, _raw_decode(text, start)[1])]
    for depth, step in enumerate(path):
        _expect(text, trail[-1], "{" if isinstance(step, str) else "[", path[:depth])
        found = [item for item in _items(text, trail[-1]) if item.step == step]
        if len(found) > 1:
            raise _error(path[: depth + 1], "stands twice")
        if not found:
            break
        trail += found
    return trail


def _missing_keys(path: Path, trail: list[_Item]) -> list[str]:
    """Return the keys of `path` that `trail` did not find; a list has no missing items to offer."""
    keys: list[str] = []
    for depth in range(len(trail) - 1, len(path)):
        if isinstance(step := path[depth], int):
            raise _error(path[: depth + 1], "is out of range")
        keys.append(step)
    return keys


def _expect(text: str, item: _Item, bracket: str, path: Path) -> None:
    found = text[item.value]
    if found != bracket:
        raise _error(path, f"is {_KINDS.get(found, 'a number')}, expected {_KINDS[bracket]}")


def _problem(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        problem = error.msg[0].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting")
        return f"line {error.lineno} column {error.colno}: {problem}"
    if isinstance(error, RecursionError):
        return "the text is nested too deeply"
    return "a number in the text has too many digits"  # for `int`, which reads some thousands


def _error(path: Path, problem: str) -> JsonTextError:
    """Return the error for what is at `path`, named as `key "hooks.Stop[0]"`."""
    dotted = "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
    name = f'key "{dotted.removeprefix(".")}"' if path else "the outermost value"
    return JsonTextError(f"{name} {problem}")


def _items(text: str, where: _Item) -> list[_Item]:
    """Find what is in the object or list `where`."""
    items: list[_Item] = []
    end = where.value + 1
    position = _skip_blank(text, end)
    while text[position] not in "]}":
        start = value = _skip_blank(text, position + 1) if items else position
        step: str | int = len(items)
        if text[where.value] == "{":
            step, colon = _raw_decode(text, start)
            value = _skip_blank(text, _skip_blank(text, colon) + 1)
        gap = text[end:start]
        end = _raw_decode(text, value)[1]
        items.append(_Item(step, gap, start, value, end))
        position = _skip_blank(text, end)
    return items


def _skip_blank(text: str, position: int) -> int:
    while text[position] in _BLANK:
        position += 1
    return position


def _last_indent(text: str) -> str:
    line = text.rpartition("\n")[2].removeprefix(_BOM)
    return line[: len(line) - len(line.lstrip(" \t"))]
