"""The one door to tmux: what a server shows, in one process for all of its panes, and the few writes to it.

An answer is one of three. "answered": the server said so. "gone": nobody listens at the socket; whether the server is
dead is for the caller to find out, since a socket can be moved or deleted under a living server. "indeterminate":
nothing follows. The texts of tmux decide and never its exit status, which is 1 for all that goes wrong. Needs tmux 3.2;
an older one is "indeterminate". No server is ever started (`-N`) but by `start`, and `$TMUX` is of no matter (`-S`).
"""

from __future__ import annotations

import os
import re
import secrets
import selectors
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final, Literal

from instar.files import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

OUTPUT_BYTES: Final = 128 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024

_PANE_ID: Final = re.compile(r"%[0-9]{1,9}")
_FIELDS: Final = (
    "pane_id", "session_id", "session_name", "window_id", "pane_pid", "pane_tty", "pane_title", "pane_current_command",
    "pane_width", "pane_height", "history_size", "cursor_x", "cursor_y", "window_activity", "session_attached",
    "window_active_clients", "pane_in_mode", "pane_dead",
)  # fmt: skip

# What the client itself says, in client.c and tmux.c; all else is the server's word on the command.
_NOBODY: Final = ("(No such file or directory)", "(Connection refused)")
_NO_ANSWER: Final = (
    "error connecting to ", "lost server", "server exited", "protocol version mismatch", "access not allowed",
    "need UTF-8 locale", "invalid LC_ALL",
)  # fmt: skip
_NO_SESSION: Final = "no current target"  # what a server without any says to `list-panes -a`
_TOO_OLD: Final = re.compile(r"(?:unknown|invalid|illegal) option -- '?N")

# Of a server of ours: what it is to know, so that it is the same whoever starts it.
_OF_A_SERVER: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
_CONTROL: Final = re.compile(r"[\x01-\x1f\x7f]")


@dataclass(frozen=True)
class Pane:
    """A pane as its server describes it; sizes in cells, `history` in lines, `activity` in seconds since 1970.

    `session` and `session_id` are of the first session that shows it; where several do, `sessions` names them all, and
    `attached` counts the clients of all. `watching` are the clients whose current window it is in. `title`, `command`
    and names are what programs chose, and may hold any character.
    """

    id: str
    session_id: str
    session: str
    window_id: str
    pid: int
    terminal: str
    title: str
    command: str
    width: int
    height: int
    history: int
    cursor: tuple[int, int]
    activity: int
    attached: int
    watching: int
    is_in_mode: bool
    is_dead: bool
    sessions: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """What a server shows at one moment. `why` says what kept it from answering; "" where it did.

    `frames` holds the last lines of a pane, escapes and all, lines that wrapped joined; an asked pane that is not in it
    could not be read. `server_pid` is None, and there are no panes, unless it answered.
    """

    socket: str
    state: Literal["answered", "gone", "indeterminate"]
    why: str = ""
    server_pid: int | None = None
    panes: Mapping[str, Pane] = field(default_factory=dict)
    frames: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """What became of a command: "refused" is the server's word that it was not done, and `why` the reason it gave."""

    state: Literal["done", "refused", "gone", "indeterminate"]
    text: str = ""
    why: str = ""


@dataclass(frozen=True)
class _Said:
    """What a tmux client printed before it ended, or was killed."""

    text: bytes
    errors: str
    status: int | None  # None: it did not end in time, could not be started, or talked without end
    is_cut: bool = False  # at OUTPUT_BYTES


@dataclass(frozen=True)
class Tmux:
    """Asks tmux servers by their sockets. A client that does not answer in `timeout_s` seconds is killed."""

    timeout_s: float = 5

    def view(self, socket: str, frames_of: Iterable[str] = (), lines: int = 200) -> View:
        """Return all panes of a server and the frames of some: up to `lines` lines of history and the screen of each.

        All of it is of one moment, and is asked by one process. What would exceed 128 MiB in all is missing. Raises
        nothing.
        """
        word = secrets.token_hex(16)  # no title, name or text can hold what was not thought of before it was asked
        said = self._ask(socket, ("source-file", "-"), _questions(word, frames_of, lines))
        view = _view(socket, word, said)
        if view and (said.status is not None or said.is_cut):
            return view
        state, why = _trouble(said) or ("indeterminate", "the server answers in no known words")
        return View(socket, state, why)

    def run(self, socket: str, *command: str, stdin: str = "") -> Done:
        """Run one command in a server; `stdin` is what it reads at `-`. Raises nothing."""
        # To tmux, a semicolon that ends a word ends the command.
        words = tuple(f"{word[:-1]}\\;" if word.endswith(";") else word for word in command)
        return self._done(self._ask(socket, words, stdin))

    def start(self, socket: str, commands: Sequence[Sequence[str]], folder: Path) -> Done:
        """Run commands in a server that is started where none listens. Raises nothing.

        Nobody's configuration is read, and of our environment the server gets what any program needs. `folder` is
        where new sessions begin. The words go to tmux by its standard input, where nobody who lists processes sees
        them. One command that is refused keeps no other from being run.
        """
        try:
            lines = [" ".join(map(_quoted, command)) for command in commands]
            private_folder(Path(socket).parent)
            if (status := Path(socket).parent.stat()).st_uid != os.geteuid() or status.st_mode & 0o077:
                return Done("refused", why="the folder of the socket is not for this user alone")
        except (OSError, ValueError) as error:
            return Done("refused", why=f"it cannot be started: {error}")
        command = ("-f", os.devnull, "start-server", ";", "source-file", "-")
        return self._done(self._ask(socket, command, "\n".join(lines) + "\n", starts_in=folder))

    def _done(self, said: _Said) -> Done:
        if trouble := _trouble(said):
            return Done(trouble[0], why=trouble[1])
        if said.status:
            return Done("refused" if said.errors else "indeterminate", why=_first_line(said.errors))
        return Done("done", text=said.text.decode("utf-8", "replace"))

    def _ask(self, socket: str, command: tuple[str, ...], stdin: str = "", *, starts_in: Path | None = None) -> _Said:
        if not socket.startswith("/"):
            return _Said(b"", "the socket has no absolute path", None)
        environ = {
            name: value
            for name, value in os.environ.items()
            if (name in _OF_A_SERVER if starts_in else not name.startswith("TMUX"))
        }
        how = () if starts_in else ("-N",)
        deadline = time.monotonic() + self.timeout_s
        try:
            with TemporaryFile() as asked, TemporaryFile() as errors:
                asked.write(stdin.encode())
                asked.seek(0)
                # A session of its own: no terminal to draw on, and no Ctrl-C meant for others.
                with subprocess.Popen(
                    ["tmux", *how, "-u", "-S", socket, *command], env=environ, cwd=starts_in, start_new_session=True,
                    stdin=asked, stdout=subprocess.PIPE, stderr=errors,
                ) as process:  # fmt: skip
                    text, status = _heard(process, deadline)
                errors.seek(0)
                problems = errors.read(_CHUNK_BYTES).decode("utf-8", "replace")
                return _Said(text, problems, status, is_cut=len(text) >= OUTPUT_BYTES)
        except (OSError, ValueError) as error:
            return _Said(b"", f"tmux cannot be asked: {error}", None)


def _heard(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, int | None]:
    """Return what a program prints until it ends, and its status; None where it had to be killed."""
    assert process.stdout  # noqa: S101 - it is a pipe
    said = bytearray()
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while len(said) < OUTPUT_BYTES and selector.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(process.stdout.fileno(), _CHUNK_BYTES)
                if not chunk:
                    with suppress(subprocess.TimeoutExpired):
                        return bytes(said), process.wait(max(0.0, deadline - time.monotonic()))
                    break
                said += chunk
        return bytes(said), None
    finally:
        process.kill()


def _quoted(word: str) -> str:
    """Return a word as tmux reads it from a file: as it is. Raise ValueError where no word can be so."""
    if "\0" in word:
        raise ValueError("no word of a command can hold a null character")
    plain = "'" + word.replace("'", "'\\''") + "'"
    return _CONTROL.sub(lambda found: f"'\"\\{ord(found[0]):03o}\"'", plain)


def _questions(word: str, frames_of: Iterable[str], lines: int) -> str:
    """Return the commands, one group a line: what fails in a group leaves out the rest of it, and no other group."""
    fields = word.join(f"#{{{name}}}" for name in _FIELDS)
    end = f"display-message -p '{word} end'"
    listing = f"display-message -p '{word} server #{{pid}}' ; list-panes -a -F '{word} pane {fields}{word}' ; {end}\n"
    return listing + "".join(
        f"display-message -p '{word} frame {pane[1:]}' ; capture-pane -e -p -J -S -{lines:d} -t '{pane}' ; {end}\n"
        for pane in dict.fromkeys(frames_of)
        if _PANE_ID.fullmatch(pane)
    )


def _view(socket: str, word: str, said: _Said) -> View | None:
    """Return what a server answered; None where the list of panes is not whole."""
    head, *frames = said.text.decode("utf-8", "replace").split(f"{word} frame ")
    listed, is_whole, _ = head.partition(f"{word} end\n")
    first, *rows = listed.split(f"{word} pane ")
    try:
        server_pid = int(first.removeprefix(f"{word} server "))
        found = [_pane(row.split(word)) for row in rows]
    except (ValueError, TypeError):
        return None
    if not is_whole and _first_line(said.errors) != _NO_SESSION:
        return None
    return View(socket, "answered", "", server_pid, _merged(found), dict(_frames(word, frames)))


def _pane(values: list[str]) -> Pane:
    """Return the pane of a row. Raise ValueError where it is none."""
    told = dict(zip((*_FIELDS, ""), values, strict=True))

    def number(name: str) -> int:
        return int(told[name])

    return Pane(
        id=told["pane_id"],
        session_id=told["session_id"],
        session=told["session_name"],
        window_id=told["window_id"],
        pid=number("pane_pid"),
        terminal=told["pane_tty"],
        title=told["pane_title"],
        command=told["pane_current_command"],
        width=number("pane_width"),
        height=number("pane_height"),
        history=number("history_size"),
        cursor=(number("cursor_x"), number("cursor_y")),
        activity=number("window_activity"),
        attached=number("session_attached"),
        watching=number("window_active_clients"),
        is_in_mode=told["pane_in_mode"] not in ("", "0"),
        is_dead=told["pane_dead"] not in ("", "0"),
        sessions=(told["session_name"],),
    )


def _merged(panes: list[Pane]) -> dict[str, Pane]:
    """Return the panes by id; a pane in several sessions is listed once for each."""
    merged: dict[str, Pane] = {}
    for pane in panes:
        before = merged.setdefault(pane.id, pane)
        if pane.session not in before.sessions:
            both, clients = (*before.sessions, pane.session), before.attached + pane.attached
            merged[pane.id] = replace(before, sessions=both, attached=clients)
    return merged


def _frames(word: str, answers: list[str]) -> Iterable[tuple[str, str]]:
    for answer in answers:
        number, _, rest = answer.partition("\n")
        frame, is_whole, _ = rest.partition(f"{word} end\n")
        if is_whole:
            yield f"%{number}", frame


def _trouble(said: _Said) -> tuple[Literal["gone", "indeterminate"], str] | None:
    """Return what kept the server from being asked; None where it heard the question."""
    line = _first_line(said.errors)
    if line.startswith("no server running on ") or (line.startswith("error connecting to ") and line.endswith(_NOBODY)):
        return "gone", line
    if _TOO_OLD.search(line):
        return "indeterminate", "tmux 3.2 or newer is needed"
    if said.status is None:
        return "indeterminate", line or ("it talks without end" if said.is_cut else "no answer in time")
    return ("indeterminate", line) if line.startswith(_NO_ANSWER) else None


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
