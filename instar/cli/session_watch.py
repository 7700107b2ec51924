"""The list of sessions on a terminal, looked at again and again until a person has seen enough."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live

from instar.cli import session_views as views
from instar.cli.listing import table
from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.table import Table

    from instar.cli.session_look import Looked

QUIT: Final = b"qQ\x03\x04"


def watch(look: Callable[[], list[Looked]], every_s: float, *, with_project: bool) -> None:
    """Show what a look finds, every so many seconds, until q or Ctrl-C. Raise InstarError without a terminal."""
    if not sys.stdout.isatty():
        raise InstarError("--watch needs a terminal: leave it out to have the list once")

    def drawn() -> Table:
        rows = [views.row(each, with_project=with_project) for each in look()]
        shown = table(views.columns(with_project=with_project), rows, views.STYLES)
        shown.caption = f"{len(rows)} session{'' if len(rows) == 1 else 's'} at {time.strftime('%H:%M:%S')}; q ends"
        return shown

    try:
        with _keys() as fd, Live(drawn(), console=Console(), screen=True, auto_refresh=False) as live:
            while not _is_enough(fd, every_s):
                live.update(drawn(), refresh=True)
    except KeyboardInterrupt:
        return


@contextmanager
def _keys() -> Iterator[int | None]:
    """Have each key come by itself until the end of the block; None where no person types."""
    if not sys.stdin.isatty():
        yield None
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _is_enough(fd: int | None, seconds: float) -> bool:
    """Wait so long; say whether the person ended it meanwhile, or their terminal is gone."""
    if fd is None:
        time.sleep(seconds)
        return False
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            keys = os.read(fd, 64)
            if not keys or any(key in QUIT for key in keys):
                return True
    return False
