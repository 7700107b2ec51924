"""Harmless sessions: in a project and a tmux server of their own, idle for certain, and real in all that is looked at.

What stands for a client shows that it waits for a prompt, and waits; its transcript holds one turn that is over.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from instar import config
from instar.errors import InstarError
from instar.files import replace_file
from instar.sessions import registry
from instar.sessions.clock import boot_id, iso
from instar.sessions.machine.processes import read_table
from instar.sessions.parking.resumption import slug

if TYPE_CHECKING:
    from typing_extensions import Self

VERSION: Final = "2.1.197"  # of the client whose screen and transcript are shown
READY_S: Final = 10.0
LOOK_AGAIN_S: Final = 0.02

_STAND_IN: Final = """\
printf '\\033]2;\u2733 Claude Code\\007\\n\u25cf Done.\\n\\n'
printf '%s\\n\u276f\u00a0\\n%s\\n  ? for shortcuts\\033[2A\\r\\033[2C' "$1" "$1"
exec sleep 3600
"""
_RULE: Final = "\u2500" * 60
_FORM: Final = "#{pane_id} #{pane_pid} #{pid} #{session_name}"


class Stage:
    """A project and a tmux server, until the end of the `with` block; `like` lends its configuration."""

    def __init__(self, like: Path | None = None) -> None:
        self._folder = TemporaryDirectory(prefix="instar-stage-")
        self._like = like
        self.folder = Path(self._folder.name).resolve()
        self.project = self.folder / "project"
        self.socket = self.folder / "tmux"

    def __enter__(self) -> Self:
        (self.project / ".instar").mkdir(parents=True)
        (self.folder / "stand-in").write_text(_STAND_IN, encoding="utf-8")
        if self._like and (self._like / config.PATH).exists():
            shutil.copyfile(self._like / config.PATH, self.project / config.PATH)
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server", check=False)
        self._folder.cleanup()

    def start(self, session_id: str) -> None:
        """Start a session, and return once it waits for a prompt. Raise InstarError."""
        transcript = self.folder / "client" / "projects" / slug(self.project) / f"{session_id}.jsonl"
        replace_file(transcript, _transcript(session_id, self.project))
        record = {
            "id": session_id,
            "status": "running",
            "client": "claude-code",
            "cwd": str(self.project),
            "transcriptPath": str(transcript),
            "startedAt": iso(time.time()),
            **self._stamps(self._pane()),
        }
        replace_file(self.project / registry.FOLDER / f"{session_id}.json", json.dumps(record).encode("ascii"))

    def server(self) -> int:
        """Return the process of the tmux server."""
        return int(self._tmux("display-message", "-p", "#{pid}"))

    def _pane(self) -> dict[str, str]:
        """Start a shell in a pane, with the stand-in below it, and return where that is once it can be seen."""
        shell = ["sh", "-c", 'sh "$0" "$1"; exec sh', str(self.folder / "stand-in"), _RULE]
        verb = "new-window" if self.socket.exists() else "new-session"
        size = () if self.socket.exists() else ("-x", "100", "-y", "30")
        said = self._tmux(verb, "-d", *size, "-P", "-F", _FORM, *shell)
        pane = dict(zip(("pane", "pid", "server", "session"), said.split(maxsplit=3)))
        deadline = time.monotonic() + READY_S
        while "for shortcuts" not in self._tmux("capture-pane", "-p", "-t", pane["pane"]):
            if time.monotonic() > deadline:
                raise InstarError("a harmless session did not start: its pane stays empty")
            time.sleep(LOOK_AGAIN_S)
        return pane

    def _stamps(self, pane: dict[str, str]) -> dict[str, Any]:
        """Return what the hooks would stamp."""
        table = read_table()
        below, server = table.below(int(pane["pid"])), table.get(int(pane["server"]))
        if not below or server is None:
            raise InstarError("a harmless session did not start: its process is not there")
        agent = {"pid": below[0].pid, "start": below[0].start, "boot": boot_id()}
        where = {"session": pane["session"].strip(), "server": server.pid, "serverStart": server.start}
        return {"agent": agent, "tmux": {**where, "socket": str(self.socket), "pane": pane["pane"]}}

    def _tmux(self, *command: str, check: bool = True) -> str:
        environ = {name: value for name, value in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}
        try:
            done = subprocess.run(
                ["tmux", "-u", "-S", str(self.socket), "-f", os.devnull, *command],
                env=environ, capture_output=True, encoding="utf-8", timeout=READY_S, check=check,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            raise InstarError(f"tmux cannot be used: {error}") from error
        return done.stdout


def _transcript(session_id: str, project: Path) -> bytes:
    """Return a conversation of one turn that is over, as the client writes it."""
    said = {"sessionId": session_id, "cwd": str(project), "version": VERSION, "isSidechain": False}
    ask = {
        **said, "type": "user", "uuid": "1", "parentUuid": None, "timestamp": iso(time.time() - 2),
        "message": {"role": "user", "content": "Say that you are done."},
    }  # fmt: skip
    answer = {
        **said, "type": "assistant", "uuid": "2", "parentUuid": "1", "timestamp": iso(time.time() - 1),
        "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "none", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "Done."}], "usage": {"input_tokens": 1, "output_tokens": 1},
        },
    }  # fmt: skip
    return b"".join(json.dumps(each).encode("ascii") + b"\n" for each in (ask, answer))
