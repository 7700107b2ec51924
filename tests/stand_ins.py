"""Real processes and real tmux servers that stand where a client or a person's terminal would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project

BASH = shutil.which("bash") or "/bin/bash"


class Client:
    """A shell under the name of a client: what it runs has a `claude` or `codex` process above it."""

    def __init__(self, project: Project, program: Path, *arguments: str, **env: str) -> None:
        self.project = project
        self.process = subprocess.Popen(
            [str(program), "-c", 'while read -r line; do eval "$line"; done', *arguments],
            cwd=project.root,
            env={**project.env, "CLAUDE_PROJECT_DIR": str(project.root), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, line: str) -> str:
        """Run a shell line below the client and return what it prints."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}; echo; echo END\n")
        self.process.stdin.flush()
        return "".join(iter(self.process.stdout.readline, "END\n"))

    def init(self, *options: str) -> None:
        self.run(f'.instar/state/python .instar/hooks/instar/build-state.py init "a task" {" ".join(options)}')

    def is_held(self, session: str) -> bool:
        return "block" in self._fire(self.project.registered(), {"session_id": session})

    def tell(self, name: str, session: str, client: str = "claude", **fields: object) -> str:
        """Fire an event of the session's life as the client would, and return what reaches the model."""
        base: dict[str, object] = {"session_id": session, "hook_event_name": name, "cwd": str(self.project.root)}
        command = self.project.registered(client, "session-event-hook", name)
        return self._fire(command, {**base, **fields}).removesuffix("\n")

    def _fire(self, registered: str, said: dict[str, object]) -> str:
        command, event = (self.project.root.parent / name for name in ("command", "event"))
        command.write_text(registered)
        event.write_text(json.dumps(said))
        return self.run(f"sh {command} <{event}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Tmux:
    """A private tmux server with one session."""

    socket: Path

    def ask(self, *command: str) -> str:
        return subprocess.run(
            ["tmux", "-S", str(self.socket), "-f", os.devnull, *command], check=True, capture_output=True, text=True
        ).stdout.strip()

    def pane(self, *how: str) -> dict[str, str]:
        """Make a pane and return what a program in it has in its environment."""
        made = self.ask(*how, "-d", "-P", "-F", "#{socket_path},#{pid},0 #{pane_id}", "sleep 600")
        variable, pane = made.rsplit(" ", 1)
        return {"TMUX": variable, "TMUX_PANE": pane}
