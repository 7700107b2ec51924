"""What the screen of a client says: whether it waits for a prompt, and whether it shows what it showed before.

Only the bottom of a screen is read: where prompts are typed, the rows below, and the rows above up to what was put out
last. Further up is history. Hints and the names of modes are furniture and prove nothing; what is not known to be idle
is not idle. The patterns are data, one file a client beside this one, recorded on the versions that it names.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.sessions.screens import drawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Reading = Literal["idle", "live", "modal", "draft", "queued", "background", "unrecognised"]
Place = Literal["title", "above", "composer", "below"]

CLIENTS: Final = ("claude-code", "codex-cli")
ROWS_ABOVE: Final = 100  # where nothing tells what was put out last
ROWS_OF_A_DIALOG: Final = 3  # of its end, where it says which keys close it

_ORDER: Final[tuple[Reading, ...]] = ("modal", "live", "draft", "queued", "background")


@dataclass(frozen=True)
class Screen:
    """What a screen shows.

    "idle": it waits for a prompt, and nothing is typed. "live": it works. "modal": a dialog, or anything else that is
    not the prompt, is open. "draft": something is typed. "queued": messages wait to be sent. "background": something it
    started goes on. Where several hold, it is the first of modal, live, draft, queued, background.

    `why` is for people, and tells nothing of what is on the screen. `content` is a digest of what stays as long as
    nothing happens: not of usage, clocks and notices beside the prompt, nor of widths and blanks. `raw` is one of all.
    `version` is that of the patterns; "" for a client without any.
    """

    reading: Reading
    why: str
    content: str
    raw: str
    version: str


@dataclass(frozen=True)
class _Rule:
    place: Place
    pattern: re.Pattern[str]
    reading: Reading
    why: str


@dataclass(frozen=True)
class _Patterns:
    """What a client's file says; an empty pattern matches nothing but the empty row."""

    version: str
    measured: tuple[str, ...]
    is_titled: bool  # an idle one has the name of its folder, or of one above (the repository's), for a title
    opens: re.Pattern[str]  # the row above the composer
    prompt: str
    closes: re.Pattern[str]  # the row below it
    placeholders: re.Pattern[str]
    output: re.Pattern[str]  # the rows with which something that was put out begins
    rest: re.Pattern[str] | None  # the last of these rows, where the client tells so that a turn is over
    footer: re.Pattern[str]  # a row that is below every empty composer
    status_rows: int  # rows that may be between composer and footer
    notice: re.Pattern[str]  # rows that may be below the footer
    rules: tuple[_Rule, ...]
    volatile: re.Pattern[str]


@dataclass(frozen=True)
class _Bottom:
    """The bottom of a screen: the composer is the rows from `first` to before `last`; none where they are equal."""

    rows: Sequence[str]
    first: int
    last: int
    above: Sequence[str]
    below: Sequence[str]

    @property
    def has_composer(self) -> bool:
        return self.first < self.last


def read(client: str, frame: str, title: str, folder: str) -> Screen:
    """Return what a client's screen shows.

    `frame` is the text of its pane, with the escapes of `capture-pane -e` or without any, `title` the pane's title, and
    `folder` the folder that the client was started in. Raises nothing.
    """
    raw = _digest([title, frame])
    known = _patterns(client)
    if known is None:
        return Screen("unrecognised", "the screens of this client are not known", raw, raw, "")
    bottom = _bottom(known, drawn.rows(frame))
    reading, why = _reading(known, bottom, frame, title, folder)
    return Screen(reading, why, _digest(_lasting(known, bottom)), raw, known.version)


def composed(client: str, frame: str) -> str | None:
    """Return what is typed where prompts are, also while the client works; None where there is no place for one."""
    known = _patterns(client)
    bottom = _bottom(known, drawn.rows(frame)) if known else None
    if known is None or bottom is None or not bottom.has_composer:
        return None
    text = _typed(bottom)
    return "" if not text or _is_placeholder(known, bottom, frame, text) else text


def measured(client: str) -> tuple[str, ...]:
    """Return the versions of a client that its patterns were recorded on; none for an unknown client."""
    known = _patterns(client)
    return known.measured if known else ()


def _reading(known: _Patterns, bottom: _Bottom, frame: str, title: str, folder: str) -> tuple[Reading, str]:
    typed = _typed(bottom)
    found = dict(_found(known, bottom, title, typed))
    is_empty = bottom.has_composer and (not typed or _is_placeholder(known, bottom, frame, typed))
    if bottom.has_composer and not is_empty:
        found["draft"] = "something is typed and was not sent"
    for reading in _ORDER:
        if reading in found:
            return reading, found[reading]
    if not bottom.has_composer:
        return "unrecognised", "no place for a prompt is on the screen"
    if not _is_furniture(known, bottom.below):
        return "unrecognised", "what is below the prompt is not known"
    if known.rest and not (bottom.above and known.rest.fullmatch(bottom.above[-1])):
        return "unrecognised", "what was put out last does not tell that a turn is over"
    if known.is_titled and title not in filter(None, folder.split("/")):
        return "unrecognised", "the title is not the one of an idle client"
    return "idle", "it waits for a prompt"


def _found(known: _Patterns, bottom: _Bottom, title: str, typed: str) -> Iterator[tuple[Reading, str]]:
    """Yield what the rules find, in the order of the file."""
    places: dict[Place, Sequence[str]] = {
        "title": (title,), "above": bottom.above, "composer": (typed,), "below": bottom.below
    }  # fmt: skip
    for rule in known.rules:
        if any(rule.pattern.search(row) for row in places[rule.place]):
            yield rule.reading, rule.why


def _bottom(known: _Patterns, rows: list[str]) -> _Bottom:
    first, last = _boxed(known, rows) if known.closes.pattern else _open(known, rows)
    if first == last:
        return _Bottom(rows, 0, 0, (), [row for row in rows if row][-ROWS_OF_A_DIALOG:])
    above: list[str] = []
    for row in reversed(rows[max(0, first - ROWS_ABOVE) : first]):
        above.append(row)
        if known.output.fullmatch(row):
            break
    skipped = 1 if known.closes.pattern else 0
    return _Bottom(rows, first, last, above, [row for row in rows[last + skipped :] if row])


def _boxed(known: _Patterns, rows: Sequence[str]) -> tuple[int, int]:
    """Return where the last box is that begins with a prompt; an empty range if the last one does not."""
    last = next((number for number in reversed(range(len(rows))) if known.closes.fullmatch(rows[number])), 0)
    first = last
    while first > 0 and not known.opens.fullmatch(rows[first - 1]):
        first -= 1
    is_one = 0 < first < last and not known.closes.fullmatch(rows[first])
    return (first, last) if is_one and rows[first][:1] in {known.prompt, "!"} else (0, 0)


def _open(known: _Patterns, rows: Sequence[str]) -> tuple[int, int]:
    """Return where the last prompt is, with the rows that follow it at once."""
    starts = (known.prompt, "!")
    found = [number for number, row in enumerate(rows) if row[:1] in starts and row[1:2] in {"", " "}]
    if not found:
        return 0, 0
    last = next((at for at in range(found[-1] + 1, len(rows)) if not rows[at].startswith("  ")), len(rows))
    return found[-1], last


def _typed(bottom: _Bottom) -> str:
    """Return what is in the composer. A prompt of another kind counts as typed."""
    rows = bottom.rows[bottom.first : bottom.last]
    text = "\n".join([rows[0][1:], *rows[1:]]).strip() if rows else ""
    return f"! {text}" if rows and rows[0].startswith("!") else text


def _is_placeholder(known: _Patterns, bottom: _Bottom, frame: str, typed: str) -> bool:
    """Say whether the client wrote that, and not a person: it is dim, except for the cursor on it."""
    if not drawn.has_escapes(frame):
        return known.placeholders.fullmatch(typed) is not None
    lines = list(drawn.characters(frame, bottom.first, bottom.last))
    seen = [each for line in [lines[0][1:], *lines[1:]] for each in line if not each.text.isspace()]
    undimmed = [each for each in seen if not each.is_dim]
    is_cursor = len(undimmed) <= 1 and all(each.is_reverse for each in undimmed)
    return is_cursor and len(undimmed) < len(seen) and not typed.startswith("! ")


def _is_furniture(known: _Patterns, below: Sequence[str]) -> bool:
    """Say whether the rows below a composer are those of an idle client: a status line, the footer, notices."""
    footer = next((number for number, row in enumerate(below) if known.footer.fullmatch(row)), None)
    if footer is None or footer > known.status_rows:
        return False
    return all(known.notice.fullmatch(row) for row in below[footer + 1 :])


def _lasting(known: _Patterns, bottom: _Bottom) -> Iterator[str]:
    """Yield the rows that stay as they are as long as nothing happens; one blank row for several."""
    start = bottom.last if bottom.has_composer else len(bottom.rows)
    before = ""
    for number, row in enumerate(bottom.rows):
        kept = known.volatile.sub("", row).rstrip() if number >= start else row
        kept = re.sub(r"─{3,}", "───", kept)
        if (kept or before) and not (number >= start and not kept):
            yield kept
        before = kept


def _digest(texts: Iterator[str] | Sequence[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache
def _patterns(client: str) -> _Patterns | None:
    if client not in CLIENTS:
        return None
    said: dict[str, Any] = json.loads(files("instar.sessions.screens").joinpath(f"{client}.json").read_text("utf-8"))
    composer = said["composer"]
    return _Patterns(
        version=said["version"],
        measured=tuple(said["measured"]),
        is_titled=said["title"] == "folder",
        opens=re.compile(composer["opens"]),
        prompt=composer["prompt"],
        closes=re.compile(composer["closes"]),
        placeholders=_any_of(said["placeholders"]),
        output=_any_of(said["output"]),
        rest=_any_of(said["rest"]) if said["rest"] else None,
        footer=re.compile(said["footer"]),
        status_rows=said["status_rows"],
        notice=re.compile(said["notice"]),
        rules=tuple(_Rule(**{**rule, "pattern": re.compile(rule["pattern"])}) for rule in said["rules"]),
        volatile=_any_of(said["volatile"]),
    )


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in patterns))
