"""What is different between the clients a peer may run in: how one is started, and what its screen offers.

The texts of dialogs are data, `dialogs.json`; where prompts are typed is known from `instar.sessions.screens`. Of all
dialogs one may be answered, by whoever launches: the question whether the folder is trusted, of a peer whose owner said
so before.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from instar.errors import InstarError
from instar.sessions.screens import drawn, screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.lifecycle.peers import Peer

Moment = Literal["ready", "busy", "draft", "dialog", "starting"]

NAME_VARIABLE: Final = "INSTAR_PEER"  # tells all that a peer runs whose it is
ROWS_OF_A_DIALOG: Final = 60

# Of another session, or another terminal: what a client that is started from within one must not take for its own.
_NOT_ITS_OWN: Final = re.compile(
    r"TMUX(?!_TMPDIR$).*|TERM|TERM_.*|COLORTERM|COLUMNS|LINES|PWD|OLDPWD|SHLVL|_|WINDOWID|STY|VTE_VERSION|AI_AGENT"
    r"|CLAUDECODE|CLAUDE_CODE_(?:SESSION_ID|CHILD_SESSION|ENTRYPOINT|EXECPATH|SSE_PORT)|CLAUDE_(?:PROJECT_DIR|ENV_FILE|EFFORT)"
    r"|CODEX_(?:SESSION_ID|THREAD_ID|SANDBOX.*)|INSTAR_SESSION_ID|INSTAR_PEER|INSTAR_DOCTOR"
)
_OF_CLAUDES_SHELL: Final = "GIT_EDITOR"  # Claude sets it for what its tools start
_ENV: Final = "/usr/bin/env"
_RESUMABLE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{7,63}")


@dataclass(frozen=True)
class Dialog:
    """An open dialog: its name, what it says in words for people, and the keys that answer it; () where none may."""

    name: str
    says: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Surface:
    """What a client's screen offers to whoever has a message.

    "ready": an empty prompt, and nothing goes on but in the background. "busy": an empty prompt, while it works.
    "draft": something is typed, `typed` tells what. "dialog": one is open, `dialog`. "starting": none of these, or
    nothing that is known. `why` is for people.
    """

    moment: Moment
    why: str
    typed: str = ""
    dialog: Dialog | None = None


@dataclass(frozen=True)
class Adapter:
    """A client that peers run in. `tells_at_start`: its SessionStart comes when it is up, not with its first prompt."""

    runtime: str
    program: str
    tells_at_start: bool
    resumes_by: tuple[str, ...]
    always: tuple[str, ...]
    bypasses_by: tuple[str, ...]

    def launch_argv(self, peer: Peer, resume_id: str | None, environ: Mapping[str, str]) -> tuple[str, ...]:
        """Return the command of a peer's client. Raise InstarError where there is no program, or no such session.

        The program is looked for on the PATH of `environ`, and is absolute.
        """
        found = shutil.which(self.program, path=environ.get("PATH", os.defpath))
        if found is None:
            raise InstarError(f"{self.program} is not on the PATH: install it, or set PATH in the peer's launch.env")
        if resume_id is not None and not _RESUMABLE.fullmatch(resume_id):
            raise InstarError(f"{resume_id!r:.80} is no id of a session that can be resumed")
        bypass = self.bypasses_by if peer.bypasses_permissions else ()
        resume = (*self.resumes_by, resume_id) if resume_id is not None else ()
        place = str(Path(found).absolute())
        if "=" in place:
            raise InstarError(f"{place} cannot be started: env takes a name with '=' for a variable")
        # Not alone: tmux gives a single word to a shell.
        return (_ENV, place, *self.always, *bypass, *peer.args, *resume)

    def surface(self, frame: str, title: str, folder: str) -> Surface:
        """Return what a screen offers; the arguments are those of `screen.read`. Raise nothing."""
        seen = screen.read(self.runtime, frame, title, folder)
        typed = screen.composed(self.runtime, frame)
        if seen.reading == "modal" or typed is None:
            dialog = self._dialog(frame, is_one=seen.reading == "modal")
            return Surface("dialog", f"it {dialog.says}", dialog=dialog) if dialog else Surface("starting", seen.why)
        if typed:
            return Surface("draft", "something is typed and was not sent", typed)
        if seen.reading in {"idle", "background"}:
            return Surface("ready", seen.why)
        return Surface("busy" if seen.reading in {"live", "queued"} else "starting", seen.why)

    def _dialog(self, frame: str, *, is_one: bool) -> Dialog | None:
        rows = drawn.rows(frame)[-ROWS_OF_A_DIALOG:]
        for known in _dialogs(self.runtime):
            if known.pattern.search("\n".join(rows)):
                is_chosen = known.selected and any(known.selected.search(row) for row in rows)
                return Dialog(known.name, known.says, known.keys if is_chosen else ())
        return Dialog("dialog", "shows a dialog that is not known") if is_one else None


def environment(peer: Peer, environ: Mapping[str, str]) -> dict[str, str]:
    """Return all variables that a peer's client gets: ours but those of another session, and the peer's own."""
    is_a_tool = "CLAUDECODE" in environ
    inherited = {
        name: value
        for name, value in environ.items()
        if not _NOT_ITS_OWN.fullmatch(name) and not (is_a_tool and name == _OF_CLAUDES_SHELL)
    }
    own = {name: value for name, value in peer.env.items() if not name.startswith("TMUX")}
    return {**inherited, **own, NAME_VARIABLE: peer.name}


def adapter(runtime: str) -> Adapter:
    """Return the adapter of a runtime. Raise InstarError for one that is not known."""
    for known in ADAPTERS:
        if known.runtime == runtime:
            return known
    names = ", ".join(each.runtime for each in ADAPTERS)
    raise InstarError(f"{runtime!r:.80} is no client that a peer can run in: those are {names}")


@dataclass(frozen=True)
class _Known:
    name: str
    says: str
    pattern: re.Pattern[str]
    selected: re.Pattern[str] | None
    keys: tuple[str, ...]


@lru_cache
def _dialogs(runtime: str) -> tuple[_Known, ...]:
    said = json.loads(files("instar.lifecycle.clients").joinpath("dialogs.json").read_text("utf-8"))
    return tuple(
        _Known(
            each["name"],
            each["says"],
            re.compile(each["pattern"]),
            re.compile(each["selected"]) if "selected" in each else None,
            tuple(each.get("keys", ())),
        )
        for each in said[runtime]
    )


ADAPTERS: Final = (
    Adapter(
        runtime="claude-code",
        program="claude",
        tells_at_start=True,
        resumes_by=("--resume",),
        always=(),
        bypasses_by=("--dangerously-skip-permissions",),
    ),
    # Below its shared daemon, no process of Codex could be told to be the peer's.
    Adapter(
        runtime="codex-cli",
        program="codex",
        tells_at_start=False,
        resumes_by=("resume",),
        always=("--disable", "daemon_auto_start"),
        bypasses_by=("--dangerously-bypass-approvals-and-sandbox",),
    ),
)
