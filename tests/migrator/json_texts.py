"""JSON texts as anybody might have written them, for laws that hold for all of them."""

from __future__ import annotations

import json
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from hypothesis import strategies as st

from migrator.registration import EVENTS, Client, command
from tests.migrator.scratch import CAP

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from migrator.json_spans import Json

    Steps = tuple[str | int, ...]


class Document(NamedTuple):
    """A text, its value, and where each value and its key stand; no path leads into a key that stands twice."""

    text: str
    value: Json
    starts: dict[Steps, int]
    spans: dict[Steps, tuple[int, int]]

    def at(self, path: Steps) -> Json:
        return reduce(lambda value, step: value[step], path, self.value)

    def paths(self, kind: type, *, empty: bool = True) -> list[Steps]:
        return [path for path in self.spans if isinstance(self.at(path), kind) and (empty or self.at(path))]


class Writer:
    """Writes JSON in any spelling, with the white space of a few favourites."""

    def __init__(self, chance: Random, leads: list[str], others: list[str]) -> None:
        self.chance, self.leads, self.others = chance, leads, others
        self.text = ""
        self.starts: dict[Steps, int] = {}
        self.spans: dict[Steps, tuple[int, int]] = {}

    def value(self, value: object, path: Steps) -> None:
        start = len(self.text)
        if isinstance(value, dict):
            self.items("{", [partial(self.member, key, item, path) for key, item in value.items()], "}")
        elif isinstance(value, list):
            self.items("[", [partial(self.item, item, (*path, step)) for step, item in enumerate(value)], "]")
        else:
            self.text += self.scalar(value)
        self.spans[path] = start, len(self.text)

    def items(self, opening: str, items: list[Callable[[], None]], closing: str) -> None:
        self.text += opening
        for i, write in enumerate(items):
            self.text += ("," if i else "") + self.chance.choice(self.leads)
            write()
            self.text += self.chance.choice(self.others)
        self.text += self.chance.choice(self.leads) + closing

    def item(self, value: object, path: Steps) -> None:
        self.starts[path] = len(self.text)
        self.value(value, path)

    def member(self, key: str, value: object, path: Steps) -> None:
        if key == TWIN:
            self.text += f'"{TWIN}": 1.50e+3, "{TWIN}": ' + self.scalar(value)
            return
        self.starts[(*path, key)] = len(self.text)
        self.text += self.scalar(key) + self.chance.choice(self.others) + ":" + self.chance.choice(self.others)
        self.value(value, (*path, key))

    def scalar(self, value: object) -> str:
        if isinstance(value, str):
            return '"' + "".join(self.chance.choice(spellings(character)) for character in value) + '"'
        if isinstance(value, float):
            return self.chance.choice([repr(value), f"{value:.20e}", f"{value:.17E}"])
        return self.chance.choice(["0", "-0"]) if value == 0 and value is not False else json.dumps(value)


def spellings(character: str) -> list[str]:
    units = character.encode("utf-16-be").hex("-", 2).split("-")
    return [
        json.dumps(character, ensure_ascii=False)[1:-1],
        json.dumps(character)[1:-1].replace("/", r"\/"),
        "".join(rf"\u{unit.upper()}" for unit in units),
    ]


TWIN = "twin"
KEYS = st.text(max_size=3) | st.sampled_from(["hooks", "Stop", TWIN])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
BLANKS = st.sampled_from(["", " ", "  ", "\t", "\n", "\r\n", "\n  ", "\n    ", "\n\t", "\r\n  ", " \n\n ", "\r"])
FAVOURITES = st.lists(BLANKS, min_size=1, max_size=3)
OUTERMOST = OBJECTS | st.lists(OBJECTS, min_size=1, max_size=3)


@st.composite
def documents(draw: st.DrawFn, values: st.SearchStrategy[Json] = OUTERMOST) -> Document:
    """Draw any text of any of the values."""
    value = draw(values)
    writer = Writer(draw(st.randoms()), draw(FAVOURITES), draw(FAVOURITES))
    writer.text = draw(st.sampled_from(["", "\ufeff"])) + draw(BLANKS)
    writer.value(value, ())
    text = writer.text + draw(BLANKS)
    value = json.loads(text.removeprefix("\ufeff"))
    return Document(text, value, writer.starts, writer.spans)


# Settings of a client, with hooks in them; and documents

OTHERS = st.fixed_dictionaries({"type": st.just("command"), "command": st.text(max_size=3)}) | VALUES
OURS = st.builds(
    lambda client, role, more: {"type": "command", "command": command(client, role), **more},
    st.sampled_from(get_args(Client)),
    st.sampled_from(sorted({role for roles in EVENTS.values() for role, _ in roles})),
    st.sampled_from([{}, {"timeout": 5000}, {"timeout": 10}, {"statusMessage": "wait"}]),
)
PEERS = st.sampled_from(
    [
        {"type": "command", "command": "node ${CLAUDE_PROJECT_DIR}/.instar/hooks/instar/stop-gate-router.js"},
        {"type": "command", "command": "bash .instar/hooks/instar/build-stop-hook.sh", "timeout": 10000},
        {"type": "command", "command": "node .instar/hooks/instar/hook-event-reporter.js"},
    ]
)
EVENT_NAMES = st.sampled_from([*EVENTS, "Notification"])


def hooks_with(handlers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    groups = st.fixed_dictionaries({"hooks": st.lists(handlers, max_size=3)}, optional={"matcher": VALUES}) | VALUES
    return st.dictionaries(EVENT_NAMES, st.lists(groups, max_size=3), max_size=4)


def texts(hooks: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    """Draw texts of settings, with a hooks key among the others."""
    env = st.dictionaries(KEYS | st.just(CAP), st.text(max_size=3), max_size=2)
    others = OBJECTS.map(lambda value: {key: each for key, each in value.items() if key not in ("hooks", "env")})
    known = st.fixed_dictionaries({}, optional={"hooks": hooks, "env": env})
    values = st.builds(lambda others, known: {**others, **known}, others, known)
    return documents(values).map(lambda document: document.text)


EDITABLE = texts(hooks_with(OTHERS))
WITH_OURS = texts(hooks_with(OTHERS | OURS))
WITH_PEERS = texts(hooks_with(OTHERS | OURS | PEERS))
ANY = texts(VALUES | st.dictionaries(EVENT_NAMES, VALUES, max_size=3) | hooks_with(OTHERS | OURS)) | (
    documents().map(lambda document: document.text)
)
DOCUMENTS = st.lists(st.sampled_from(["# Rules", "é", "\n", "\r\n", "\r", "\ufeff", " "]), max_size=6).map("".join)


def same(left: object, right: object) -> bool:
    """Whether both are equal in types and in the order of their keys too."""
    return json.dumps(left) == json.dumps(right)
