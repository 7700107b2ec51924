"""The page about the configuration, `docs/configuration.md`: what the schema says of itself, as tables for people.

Written by `python -m migrator.render` with all else that is generated.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from instar.config import DEFAULTS, PATH, SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Values = Mapping[str, Any]

PAGE: Final = "docs/configuration.md"

_HEAD: Final = f"""\
<!-- Written by `python -m migrator.render` from `instar/config.py`; do not edit. -->
# Configuration

One JSON object in `{PATH}` of a project.
The file is yours, and none is made for you: without it the defaults below hold. One that is there gets the defaults it
lacks from `instar-migrate`, so that they can be found and changed; what you wrote is never changed, and what
`_instar_noMigrate` names is never added.

    instar-migrate --diff       # the defaults that would be added, among all else
    instar-migrate doctor       # names each value that breaks a rule

Where a value breaks a rule, its default holds. A fault in `sessions` or `monitoring` keeps the reaper from parking
anybody. Keys that are not named here belong to others, and are left alone.

A change in `sessions`, `monitoring` or `lifecycle` holds from the next look on. What is outside of them a server reads
when it starts: `instar-server stop`, then `instar-server start`. What was set by `instar-gate mode` or
`instar-sessions reaper enable` goes before what stands in the file.

An empty default means that nothing is set.
"""

_TAIL: Final = """\

## Environment

| Variable | Meaning |
|---|---|
| `INSTAR_SHARED_ROOT` | The folder of what concerns all projects of the machine; `~/.instar` without it. |
| `INSTAR_PROJECT_DIR` | The project that `build-state` is about, where it is not installed in one. |
| `INSTAR_AUTH_TOKEN` | The token of the server, before its own file and the configuration. |
| `INSTAR_SUPERVISE_LOG_VERBOSE` | `1`: looks at peers that decided nothing are logged, too. |
| `INSTAR_SESSION_ID` | Set by us in Claude's tool shells: the session. |
| `INSTAR_PEER` | Set by us for a peer and what it starts: its name. |
| `CLAUDE_CODE_STOP_HOOK_BLOCK_CAP` | Claude Code's own: how often a stop is held in a row; we set it to 11. |
"""


def page() -> str:
    """Return the text of the page."""
    keys = {key: inner for key, inner in SCHEMA["properties"].items() if "properties" not in inner}
    sections = [_section("At the top", keys, DEFAULTS)]
    for name, block, defaults in _blocks(SCHEMA["properties"], DEFAULTS):
        sections.append(_section(f"`{name}`: {_begun(block['description'])}", block["properties"], defaults))
    return _HEAD + "".join(sections) + _TAIL


def _blocks(properties: Values, defaults: Values, above: str = "") -> Iterator[tuple[str, Values, Values]]:
    """Yield each block with its dotted name and its defaults; one that holds nothing but blocks gives way to those."""
    for key, inner in properties.items():
        below = inner.get("properties", {})
        if below and all("properties" in each for each in below.values()):
            yield from _blocks(below, defaults.get(key, {}), f"{above}{key}.")
        elif below:
            yield f"{above}{key}", inner, defaults.get(key, {})


def _section(heading: str, properties: Values, defaults: Values) -> str:
    head = f"\n## {heading}\n\n| Key | May be | Default | Meaning |\n|---|---|---|---|\n"
    return head + "".join(_rows(properties, defaults))


def _rows(properties: Values, defaults: Values, above: str = "") -> Iterator[str]:
    """Yield the row of each key, also of the blocks inside."""
    for key, inner in properties.items():
        if "properties" in inner:
            yield from _rows(inner["properties"], defaults.get(key, {}), f"{above}{key}.")
        else:
            default = f"`{json.dumps(defaults[key])}`" if key in defaults else ""
            yield f"| `{above}{key}` | {_kind(inner)} | {default} | {inner['description']} |\n"


def _kind(schema: Values) -> str:
    """Return what a value may be, in words."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    words = {"boolean": "`true`, `false`", "string": "a text", "array": "a list of texts"}
    if schema.get("type") in ("integer", "number"):
        kind = "a whole number" if schema["type"] == "integer" else "a number"
        return f"{kind}, {schema['minimum']} to {schema['maximum']}"
    return words.get(schema.get("type", ""), "anything")


def _begun(sentence: str) -> str:
    """Return a sentence as the rest of one: without its full stop, and without the capital it began with."""
    return (sentence[:1].lower() + sentence[1:]).rstrip(".")
