"""A project with any number of peers, driven by the installed commands alone: real files, tmux, processes and kills.

Where a peer is to have a past, its files are written as the product would have written them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zlib
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.waiting import wait_until
from instar.lifecycle.clients.launch import socket_of
from instar.lifecycle.memory.marks import Marks
from instar.lifecycle.peers import Peer, Peers
from instar.sessions.clock import boot_id
from instar.sessions.parking.markers import Park
from support import BIN, DEADLINE_S

if TYPE_CHECKING:
    from support import Project

STAND_IN = Path(__file__).parents[1] / "lifecycle/stand_in_client.py"
ENDS = (".session", ".session.reaping", ".idle-reaped", ".idle-reaped.pending", ".fresh-next", ".new-eager")
NOBODY = 2**22 + 1  # no machine has so many processes


def gone(name: str, boot: str = "") -> dict[str, Any]:
    """Return the stamp of a process that a peer had, in this boot unless another one is named."""
    return {"pid": NOBODY, "start": f"{zlib.crc32(name.encode())}", "boot": boot or boot_id()}


class World:
    """A project whose Claude is a stand-in, and whose peers have a tmux server of their own.

    Each peer has a session that it may take up, `id(name)`, and a folder of what its stand-in got.
    """

    def __init__(self, folder: Path, installed: Project) -> None:
        self.folder, self.root, self.home = folder, folder / "project", folder / "home"
        shutil.copytree(installed.root, self.root, symlinks=True)
        self.home.mkdir()
        program = folder / "bin/claude"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(STAND_IN)])} "$@"\n')
        program.chmod(0o755)
        self.env = {
            **installed.env, "HOME": str(self.home), "TMUX_TMPDIR": str(folder),
            "PATH": f"{program.parent}{os.pathsep}{installed.env['PATH']}",
            "RECORDS": str(self.root / ".instar/state/sessions"),
        }  # fmt: skip
        self.marks = Marks(self.root)
        self.socket = socket_of(self.env)
        self._log = (folder / "followed").open("wb")
        follow = [str(BIN / "instar-peers"), "logs", "--follow", "--json"]
        self._following = subprocess.Popen(follow, cwd=self.root, env=self.env, stdout=self._log)

    def end(self) -> None:
        self._following.send_signal(signal.SIGINT)
        assert self._following.wait(DEADLINE_S) == 0
        self._log.close()
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)

    # Commands.

    def start(self, *arguments: str, program: str = "instar-peers", **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BIN / program), *arguments], cwd=self.root, env={**self.env, **env}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def done(self, process: subprocess.Popen[str], status: int = 0, read: str = "") -> tuple[str, str]:
        with process:
            said, errors = process.communicate(read, timeout=DEADLINE_S)
        assert process.returncode == status, (said, errors)
        assert "Traceback" not in errors
        assert all(each.isprintable() or each in "\n\t" for each in said + errors)
        return said, errors

    def told(self, *arguments: str, status: int = 0, read: str = "", **env: str) -> Any:
        return json.loads(self.done(self.start(*arguments, "--json", **env), status, read)[0])

    def passed(self, **env: str) -> dict[str, dict[str, Any]]:
        """Have the supervisor look once, and return what it did about each peer; its relaunches by "relaunch NAME"."""
        rows = self.told("supervise", "--once", **env)
        names = [each["identity"].removeprefix("claude-code-") for each in rows]
        again = ["relaunch " * (each["action"] == "eager-relaunch") for each in rows]
        return {f"{first}{name}": row for first, name, row in zip(again, names, rows, strict=True)}

    def lines(self) -> list[dict[str, str]]:
        """Return what the log was seen to hold so far, without its times."""
        whole = (self.folder / "followed").read_text().split("\n")[:-1]
        return [{key: value for key, value in json.loads(each).items() if key != "ts"} for each in whole]

    def line(self, ev: str, name: str, **said: str) -> dict[str, str]:
        """Return the newest line of a peer that says this, once it is in the log."""
        wanted = {"ev": ev, "personality": name, **said}.items()
        fitting = lambda: next((each for each in reversed(self.lines()) if wanted <= each.items()), None)  # noqa: E731
        mine = lambda: str([each for each in self.lines() if each.get("personality") == name])  # noqa: E731
        return wait_until(fitting, f"a line {dict(wanted)}", seen=mine)

    # Peers, and what is remembered of them.

    def add(self, name: str, *args: str, **said: Any) -> str:
        env = {"STAND_IN": str(self.folder / f"stand-ins-{name}")}
        values = {"cwd": self.root, "args": args, "env": env, **said}
        Peers(self.root).add(Peer(name, "claude-code", **values))
        return name

    def identity(self, name: str) -> str:
        return f"claude-code-{name}"

    def id(self, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, name))

    def configure(self, reaper: dict[str, Any] | None = None, **lifecycle: Any) -> None:
        said = {"lifecycle": lifecycle, "monitoring": {"sessionReaper": reaper or {}}}
        (self.root / ".instar/config.json").write_text(json.dumps(said))

    def file(self, name: str, end: str) -> Path:
        self.marks.parks.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.marks.parks.folder / f"{self.identity(name)}{end}"

    def left(self, name: str) -> set[str]:
        """Return which files say how a peer is."""
        return {end for end in ENDS if self.file(name, end).exists()}

    def deaths(self, name: str) -> int:
        return len(self.marks.deaths(self.identity(name)))

    def record(self, name: str, **said: Any) -> dict[str, Any]:
        """Put this into the record of the session that a peer may take up, beside what stands there."""
        place = Path(self.env["RECORDS"]) / f"{self.id(name)}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        before = {
            "id": self.id(name), "status": "running", "client": "claude-code", "cwd": str(self.root),
            "agent": gone(name), "identity": self.identity(name),
        }  # fmt: skip
        if place.exists():
            before = json.loads(place.read_text())
        if said:
            place.with_suffix(".new").write_text(json.dumps({**before, **said}))
            place.with_suffix(".new").replace(place)
        return {**before, **said}

    def talked(self, name: str, *, minutes: float = 0) -> dict[str, Any]:
        """Give the session of a peer a conversation whose turn was over so long ago, and return its record."""
        slug = "".join(each if each.isalnum() or each == "-" else "-" for each in str(self.root))
        place = self.folder / "projects" / slug / f"{self.id(name)}.jsonl"
        place.parent.mkdir(parents=True, exist_ok=True)
        at = datetime.fromtimestamp(time.time() - 60 * minutes, timezone.utc).isoformat()
        base = {"sessionId": self.id(name), "version": "2.1.197", "isSidechain": False, "timestamp": at}
        answer = {
            "id": "m", "role": "assistant", "stop_reason": "end_turn", "content": [{"type": "text", "text": "Done."}],
            "usage": {"input_tokens": 30_000, "output_tokens": 12},
        }  # fmt: skip
        rows = (
            {"type": "user", "uuid": "1", "parentUuid": None, "message": {"role": "user", "content": "do it"}},
            {"type": "assistant", "uuid": "2", "parentUuid": "1", "requestId": "r1", "message": answer},
        )
        place.write_text("".join(json.dumps({**base, "cwd": str(self.root), **each}) + "\n" for each in rows))
        return self.record(name, transcriptPath=str(place))

    def ended(self, name: str, boot: str = "") -> None:
        """Have a session be watched that has ended, in this boot unless another one is named."""
        agent = gone(name, boot)
        record = self.record(name, agent=agent)
        said = {"sessionId": record["id"], "agent": agent, "wokeAt": round(time.time() * 1000)}
        self.marks.save_session(self.identity(name), said)

    def park(self, name: str, **said: Any) -> Park:
        """Have there be an intent to park the session of a peer as it is on record."""
        at = datetime.now(timezone.utc).isoformat()
        agent = self.record(name, client="claude-code")["agent"]
        parks = Park(**{
            "id": "p", "session_id": self.id(name), "at": at, "by": "reaper", "reason": "reaped-idle",
            "status": "completed", "agent": agent, **said,
        })  # fmt: skip
        self.file(name, "")
        self.marks.parks.write_intent(self.identity(name), parks)
        return parks

    def parked(self, name: str, *, minutes: float = 0) -> None:
        """Have the session of a peer be parked, whole."""
        self.talked(name, minutes=minutes)
        parks = self.park(name)
        said = {"id": "p", "at": parks.at, "by": parks.by, "reason": parks.reason}
        self.record(name, status="completed", endedAt=parks.at, parked=said)
        self.marks.parks.promote(self.identity(name))

    # What lives.

    def tmux(self, *command: str) -> str:
        said = ["tmux", "-N", "-S", self.socket, *command]
        return subprocess.run(said, check=True, capture_output=True, text=True).stdout.strip()

    def pid(self, name: str) -> int:
        """Return the process of a peer as it is on record."""
        return int(self.record(name)["agent"]["pid"])

    def lives(self, name: str) -> bool:
        state = Path(f"/proc/{self.pid(name)}/stat")
        return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"

    def kill(self, name: str) -> None:
        """Have a peer die by signal 9."""
        os.kill(self.pid(name), signal.SIGKILL)
        wait_until(lambda: not self.lives(name), "it is dead")

    def quit(self, name: str) -> None:
        """Have a peer end by itself, with status 0."""
        self.tmux("send-keys", "-t", f"={self.identity(name)}:", "C-d")
        wait_until(lambda: not self.lives(name), "it has ended")

    def sent(self, name: str) -> list[str]:
        place = self.folder / f"stand-ins-{name}/sent"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []
