"""What `instar-peers` tells of what was decided, and the look at all peers that decides it."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import click

from instar.cli import peer_views as views
from instar.cli.options import json_option, project_option, refusals, respond, warn
from instar.cli.patience import patience
from instar.cli.peer_words import lifecycle
from instar.lifecycle.eventlog import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from instar.lifecycle.eventlog import EventLog

USUAL: Final = 50
MOST: Final = 10_000
FOLLOW_S: Final = 0.5


@click.command()
@click.option("--limit", type=click.IntRange(1, MOST), default=USUAL, show_default=True, help="How many.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@project_option
@json_option
def logs(folder: str | None, *, limit: int, follow: bool, as_json: bool) -> None:
    """List what was decided about peers, and why, the newest last; --follow --json prints an object a line."""
    with refusals():
        log = lifecycle(folder).log
        if follow:
            with suppress(KeyboardInterrupt):
                _follow(log, limit, as_json=as_json)
            return
        events = log.tail(limit)
    respond(events, lambda: views.print_events(events), as_json=as_json)
    if not events and not as_json:
        warn("nothing is on record")


@click.command()
@click.option("--once", is_flag=True, help="Look once, and end.")
@project_option
@json_option
def supervise(folder: str | None, *, once: bool, as_json: bool) -> None:
    """Look after all peers, as the server does where lifecycle.enabled is true; without --once until Ctrl-C.

    Who died is put away and counted, who was stopped is ended, who is idle is parked. With --json a look is a line,
    unless it is the only one.
    """
    with refusals(), suppress(KeyboardInterrupt):
        life = lifecycle(folder)
        while True:
            with patience("looking after the peers"):
                rows = life.supervisor.run()
            if as_json:
                click.echo(json.dumps(rows, indent=2 if once else None))
            else:
                views.print_pass(rows)
            if once:
                break
            time.sleep(life.policy().interval_s)
    if once and not rows and not as_json:
        warn("there is no peer to look after")


COMMANDS: Final = (logs, supervise)


def _follow(log: EventLog, limit: int, *, as_json: bool) -> None:
    """Print the newest events, and from then on each as it is written."""
    with closing(Growing(log.path)) as growing:
        shown = log.tail(limit)
        for each in shown:
            _print(each, as_json=as_json)
        while True:
            for each in growing.events():
                if each not in shown:  # written between the two
                    _print(each, as_json=as_json)
            shown = []
            time.sleep(FOLLOW_S)


def _print(event: dict[str, str], *, as_json: bool) -> None:
    click.echo(json.dumps(event) if as_json else views.event_words(event))


class Growing:
    """A log that others write on: from its end on, also when it is put aside and another one is begun."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._file = self._opened()
        if self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Read no more."""
        if self._file is not None:
            self._file.close()

    def events(self) -> Iterator[dict[str, str]]:
        """Yield what was written since the last time. Raise OSError."""
        is_another = self._is_another()
        yield from self._written()
        if is_another:  # what was written before that has just been read
            self.close()
            self._file, self._rest = self._opened(), b""
            yield from self._written()

    def _opened(self) -> BinaryIO | None:
        try:
            return self._path.open("rb")
        except FileNotFoundError:
            return None

    def _is_another(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        return self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), there)

    def _written(self) -> Iterator[dict[str, str]]:
        if self._file is None:
            return
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in lines:
            if event := parse(line.decode("utf-8", "replace")):
                yield event
