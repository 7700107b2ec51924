"""The file that a peer is told by, `.instar/agents/<name>.json`: what may stand in it, and how it is read and written.

What it says decides which program runs with which rights. So it is read only where it lies by itself, as a file that
nobody else can write.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from instar.files import replace_file, unblocked
from instar.names import RUNTIMES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jsonschema.exceptions import ValidationError

BYTES_AT_MOST: Final = 1 << 20
_SHOWN_AT_MOST: Final = 200

_TEXT: Final = {"type": "string", "pattern": r"\A[^\0]*\Z"}
_RUNTIME: Final = {"enum": list(RUNTIMES)}
SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "runtime": _RUNTIME,
        "runtimes": {"type": "array", "items": _RUNTIME, "minItems": 1, "uniqueItems": True},
        "cwd": {**_TEXT, "minLength": 1},
        "interfaces": {"type": ["object", "null"]},
        "wake_policy": {"type": ["string", "null"]},
        "initial_prompt": {**_TEXT, "type": ["string", "null"]},
        "trustFolder": {"type": "boolean"},
        "bypassPermissions": {"type": "boolean"},
        "launch": {
            "type": "object",
            "properties": {
                "args": {"type": "array", "items": _TEXT},
                "env": {
                    "type": "object",
                    "propertyNames": {"pattern": r"\A[A-Za-z_][A-Za-z0-9_]*\Z"},
                    "additionalProperties": _TEXT,
                },
            },
        },
    },
}


class UnusableError(Exception):
    """A profile cannot be used; the text says why, in a part of a sentence that is fit to be shown."""


def read(path: Path, name: str) -> dict[str, Any]:
    """Return what stands in the profile of the peer of this name. Raise FileNotFoundError, and UnusableError."""
    text = _text(path)
    try:
        values = json.loads(text.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"it holds no JSON, {shown(str(error))}") from error
    return _sound(values, name)


def write(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Write the profile of the peer of this name, in one step. Raise OSError, and UnusableError for what is none."""
    replace_file(path, json.dumps(_sound(values, name), indent=2).encode("ascii") + b"\n")


def _sound(values: object, name: str) -> dict[str, Any]:
    """Return the values of a profile. Raise UnusableError for what breaks a rule, or is of another peer."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only who has peers waits for it

    faults = sorted(Draft202012Validator(SCHEMA).iter_errors(values), key=lambda error: error.json_path)
    if faults or not isinstance(values, dict):
        raise UnusableError(_told(faults[0]))
    if values["name"] != name:
        raise UnusableError(f"it is of a peer named {shown(values['name'])!r}")
    runtimes = values.get("runtimes", [values.get("runtime")])
    if runtimes == [None]:
        raise UnusableError(f'it names no "runtime", which is {" or ".join(RUNTIMES)}')
    if values.get("runtime", runtimes[0]) not in runtimes:
        raise UnusableError('its "runtime" is none of its "runtimes"')
    if values.get("wake_policy") == "ephemeral":
        raise UnusableError('its "wake_policy" is "ephemeral", and there are no such peers')
    return values


def shown(text: str) -> str:
    """Return a text of others on one line, with nothing in it that a terminal obeys, and of a bounded length."""
    plain = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: _SHOWN_AT_MOST + 1])
    return plain if len(plain) <= _SHOWN_AT_MOST else f"{plain[: _SHOWN_AT_MOST - 1]}…"


def _told(fault: ValidationError) -> str:
    key = ".".join(str(step) for step in fault.absolute_path)
    return f'key "{shown(key)}": {shown(fault.message)}' if key else shown(fault.message)


def _text(path: Path) -> bytes:
    try:
        with open(path, "rb", opener=unblocked) as file:
            _require_private(os.fstat(file.fileno()))
            text = file.read(BYTES_AT_MOST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableError("it is a symbolic link" if path.is_symlink() else f"{error.strerror}") from error
    if len(text) > BYTES_AT_MOST:
        raise UnusableError(f"it is longer than {BYTES_AT_MOST} bytes")
    return text


def _require_private(state: os.stat_result) -> None:
    if not stat.S_ISREG(state.st_mode):
        raise UnusableError("it is no file")
    if state.st_uid not in (0, os.geteuid()) or state.st_mode & stat.S_IWOTH:
        raise UnusableError("somebody else can write it")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")
