"""Wakes a peer from several threads of a process: `waker.py ROOT SOCKET THREADS`, a line of JSON for each result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[3]))

from instar.lifecycle.clients.launch import Launched
from instar.lifecycle.looks import Looks
from instar.lifecycle.orders import Order
from instar.lifecycle.wake import wake
from instar.sessions.clock import Clock
from instar.sessions.machine.tmux import Tmux
from tests.instar.lifecycle.machines import Machine

if TYPE_CHECKING:
    from instar.lifecycle.peers import Peer


def main(root: Path, socket: str, threads: int) -> None:
    """Wake."""
    machine = Machine(root)
    machine.clock = Clock()
    looks = Looks(root, machine.marks, Tmux(), socket, machine.clock)

    def launch(peer: Peer, _message: str, _resume: str | None) -> Launched:
        line = f"echo $$ >>{root}/spawns; exec sleep 600"
        command = ["tmux", "-S", socket, "-f", os.devnull, "new-session", "-d", "-s", peer.identity, "sh", "-c", line]
        subprocess.run(command, check=True, env=dict(os.environ))
        return Launched("up", "", socket)

    edges = replace(
        machine.edges, live=looks.live, end=looks.end, past=looks.past, enrol=lambda _identity, _life: None,
        launch=launch, sleep=time.sleep, clock=machine.clock, settle=lambda _identity: None,
    )  # fmt: skip
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(lambda _number: wake(Order("bob", "go on"), edges), range(threads)):
            print(json.dumps(result))  # noqa: T201 - it is what it is for


main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
