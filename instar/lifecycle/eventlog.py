"""What was decided about peers, a line each, in `.instar/logs/lifecycle.log`, which has no other writer.

`ts=2026-09-21T14:13:20.000Z ev=wake mode=fresh reason="three words here"`: the moment and the event, then its fields.
A value stands bare, or is a string of JSON where it is empty, or holds a space, a quote, "=" or what cannot be
printed; so no value makes a line, or a field, of its own. A full log becomes `lifecycle.log.1`, that one `.2`, and so
on, as many as are kept.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from instar.files import append_line, private_folder, unblocked
from instar.locks import let_go
from instar.sessions.clock import iso

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from instar.sessions.clock import Clock

PATH: Final = ".instar/logs/lifecycle.log"
BYTES_AT_MOST: Final = 5 * 2**20
KEEP: Final = 5
CHARACTERS_AT_MOST: Final = 4096  # of a value
LOCK_S: Final = 1.0
VERBOSE: Final = "INSTAR_SUPERVISE_LOG_VERBOSE"

_FIELD: Final = re.compile(r'([A-Za-z_][A-Za-z0-9_.-]*)=("[^"\\]*(?:\\.[^"\\]*)*"|[^\s"=]+)(?: |\Z)')


class EventLog:
    """The log of a project, for any number of processes. `lost` counts the events that could not be written."""

    def __init__(self, root: Path, clock: Clock, *, bytes_at_most: int = BYTES_AT_MOST, keep: int = KEEP) -> None:
        self.path = root / PATH
        self.lost = 0
        self._clock = clock
        self._bytes_at_most = bytes_at_most
        self._keep = keep

    def write(self, ev: str, /, **fields: str | float | Path | None) -> None:
        """Write an event and its fields in their order, without those that are None. Nothing is raised."""
        try:
            line = line_of(self._clock.wall(), ev, fields)
            private_folder(self.path.parent)
            with self._locked() as is_held:
                if is_held:
                    self._rotate(len(line))
                append_line(self.path, line)
        except (OSError, ValueError, OverflowError):
            self.lost += 1

    def tail(self, count: int) -> list[dict[str, str]]:
        """Return the newest events, oldest first, each as its fields; what is no whole line is passed over."""
        events: list[dict[str, str]] = []
        if count > 0 and self.path.parent.is_dir():
            with self._locked():
                for number in range(self._keep + 1):
                    events = _events(self._numbered(number)) + events
                    if len(events) >= count:
                        break
        return events[-count:] if count > 0 else []

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Be the only writer; one that others keep waiting goes on without, for a line is written in one step."""
        lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), LOCK_S, mode=0o600)
        with suppress(Timeout, OSError):
            lock.acquire()
        try:
            yield lock.is_locked
        finally:
            let_go(lock)

    def _rotate(self, more: int) -> None:
        """Put a log aside that so many more bytes would make too long. One that cannot be put aside grows on."""
        with suppress(OSError):
            size = self.path.stat().st_size
            if size and size + more > self._bytes_at_most:
                for number in range(self._keep, 0, -1):
                    with suppress(FileNotFoundError):
                        self._numbered(number - 1).replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


def line_of(now: float, ev: str, fields: Mapping[str, str | float | Path | None]) -> bytes:
    """Return the line of an event at `now`, in seconds since 1970. A field that names none is named for its letters."""
    told = [("ts", iso(now)), ("ev", ev), *((_key(key), value) for key, value in fields.items())]
    return " ".join(f"{key}={_quoted(_text(value))}" for key, value in told if value is not None).encode() + b"\n"


def parse(line: str) -> dict[str, str]:
    """Return the fields of a line, `ts` and `ev` first; {} for what is no whole line of the log."""
    fields: dict[str, str] = {}
    position, text = 0, line.removesuffix("\n")
    while position < len(text):
        found = _FIELD.match(text, position)
        if not found:
            return {}
        key, value = found.groups()
        try:
            fields.setdefault(key, json.loads(value) if value.startswith('"') else value)
        except ValueError:
            return {}
        position = found.end()
    return fields if list(fields)[:2] == ["ts", "ev"] else {}


def is_verbose(environ: Mapping[str, str]) -> bool:
    """Say whether events that decide nothing are wanted, too: `INSTAR_SUPERVISE_LOG_VERBOSE` is 1, true or yes."""
    return environ.get(VERBOSE, "").strip().lower() in ("1", "true", "yes")


def _key(key: str) -> str:
    named = re.sub(r"[^A-Za-z0-9_.-]", "_", key)
    return f"_{named}" if named in ("ts", "ev") or not re.match(r"[A-Za-z_]", named) else named


def _text(value: str | float | Path | None) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= CHARACTERS_AT_MOST else f"{text[: CHARACTERS_AT_MOST - 1]}…"


def _quoted(text: str) -> str:
    if not text.isprintable():
        return json.dumps(text)
    is_bare = text and not any(each in text for each in ' "=')
    return text if is_bare else json.dumps(text, ensure_ascii=False)


def _events(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, "rb", opener=unblocked) as file:
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is torn
    except OSError:
        return []
    return [event for line in lines if (event := parse(line.decode("utf-8", "replace")))]
