"""A peer whose client is a stand-in, on a tmux server of its own."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.waiting import wait_until
from instar.lifecycle.clients.delivery import Target
from instar.lifecycle.clients.launch import Launched, Patience, launch, socket_of
from instar.lifecycle.peers import Peer
from instar.sessions.machine.tmux import Tmux
from instar.sessions.registry import FOLDER

if TYPE_CHECKING:
    from collections.abc import Mapping

STAND_IN = Path(__file__).with_name("stand_in_client.py")
PATIENCE = Patience(boot_s=30, record_s=20, landing_s=20, poll_s=0.05)
HASTY = Patience(boot_s=2, record_s=1, landing_s=1, poll_s=0.05)


@dataclass
class Stage:
    """Where stand-ins are launched."""

    root: Path
    environ: dict[str, str]
    peer: Peer
    tmux: Tmux

    @classmethod
    def made(cls, folder: Path) -> Stage:
        root, program = folder / "project", folder / "bin/claude"
        root.mkdir()
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(STAND_IN)])} "$@"\n')
        program.chmod(0o755)
        environ = {
            "PATH": f"{program.parent}{os.pathsep}{os.defpath}", "TMUX_TMPDIR": str(folder), "LANG": "C.UTF-8",
            "STAND_IN": str(folder / "stand-in"), "RECORDS": str(root / FOLDER),
        }  # fmt: skip
        return cls(root, environ, Peer(name="bob", runtime="claude-code", cwd=root), Tmux(timeout_s=30))

    def launch(self, *args: str, message: str = "", resume_id: str | None = None, patience: Patience = PATIENCE,
               environ: Mapping[str, str] | None = None, **changes: Any) -> Launched:  # fmt: skip
        peer = replace(self.peer, args=args, **changes)
        environ = {**self.environ, **(environ or {})}
        return launch(
            self.root, peer, message, environ=environ, tmux=self.tmux, resume_id=resume_id, patience=patience
        )  # fmt: skip

    def up(self, *args: str) -> Target:
        """Launch one that comes up, and return where it takes messages."""
        up = self.launch(*args)
        assert up.outcome == "up", up
        return Target(self.peer.identity, "claude-code", str(self.root), up.socket, up.pane, up.server or 0)

    @property
    def socket(self) -> str:
        return socket_of(self.environ)

    @property
    def started(self) -> dict[str, Any]:
        """What the stand-in was started with."""
        place = Path(self.environ["STAND_IN"]) / "started.json"
        told = wait_until(lambda: place.exists() and place.read_text(), "it is started")
        return dict(json.loads(told))

    @property
    def sent(self) -> list[str]:
        """The messages that were sent to it."""
        place = Path(self.environ["STAND_IN"]) / "sent"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def frame(self, pane: str) -> str:
        return self.tmux.view(self.socket, [pane]).frames.get(pane, "")

    def end(self) -> None:
        self.tmux.run(self.socket, "kill-server")
