"""A project with everything beside it: sessions in panes of a private tmux server, peers, and a server that may die."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from clients.builds import commit_all
from clients.gated import LONG_AGO, OPEN, PLAN, RULE
from clients.waiting import wait_until
from instar.files import replace_file
from instar.lifecycle.clients.launch import socket_of
from instar.server import logs, service
from instar.server.endpoint import Endpoint, publish, start_of, withdraw
from instar.sessions.reaper.rows import BYTES_AT_MOST, backup
from support import BIN, Project, executable

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT, REPOSITORY = Path(__file__).with_name("client.py"), Path(__file__).parents[2]
GONE_S = 120.0  # for whatever has to happen on a machine that is busy with something else
CLAUDES, SLOTS = 13, 17  # the others use Codex
PEERS = {"ann": "claude-code", "bob": "claude-code", "cyd": "codex-cli"}
LOG_BYTES, LOG_KEEP = 4096, 100
ROWS = ("reap-log", "reaper-audit", "sentinel-events")
OLD = "of another time"  # what the logs are nearly full of
ROOM, OLD_ROWS = 200, 256
CALM, SHORT = 0, 100  # percents of the memory that may be available, for it to be critically short
# A shell that reads a line at a time, from a terminal that whoever died in it left as it was.
SHELL = '#!/bin/sh\nwhile :; do stty sane; IFS= read -r line || exit; eval "$line"; done\n'
REAPER: dict[str, Any] = {
    "enabled": True, "dryRun": False, "tickIntervalSec": 1, "minAgeMinutes": 0, "confirmObservations": 2,
    "confirmWindowMinutes": 0, "recentUserWindowMinutes": 0.01, "idleThresholdModerateMinutes": 0,
    "idleThresholdCriticalMinutes": 0, "maxReapsPerHour": 1000, "cooldownSec": 0, "finalGraceSec": 0.1,
    "pressure": {"moderateAvailablePercent": 0, "criticalAvailablePercent": CALM, "useStalls": False,
                 "useSpawnDenials": False, "crossProcessJitterMs": 0},
}  # fmt: skip
LIFECYCLE = {
    "enabled": True, "superviseIntervalSec": 1, "idleMinutes": 0.1, "bootDeadlineSec": 60, "readyGateSec": 60,
    "crashLoopWindowSec": 4, "maxWakesPerHour": 10_000, "maxSendsPerHour": 10_000, "logMaxBytes": LOG_BYTES,
    "logKeep": LOG_KEEP,
}  # fmt: skip
FOREIGN = {"kept": ["as it is", 1, None, {"deep": "ä"}]}
Row = dict[str, Any]


class House:
    """All of it, until `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.soak, self.project = folder, folder / "soak", Project.create(folder / "project")
        self.root = self.project.root
        self.soak.mkdir()
        (self.soak / "journal").touch()
        self.project.env |= {
            "PATH": f"{folder / 'bin'}{os.pathsep}{BIN}{os.pathsep}{self.project.env['PATH']}", "SOAK": str(self.soak),
            "TMUX_TMPDIR": str(folder), "INSTAR_SHARED_ROOT": str(folder / "shared"), "TERM": "screen-256color",
        }  # fmt: skip
        self.sockets = {"slots": str(folder / "slots.sock"), "peers": socket_of(self.project.env)}
        self.server: subprocess.Popen[bytes] | None = None
        self.server_deaths: list[bool] = []  # whether it was parking somebody
        self.marked: set[str] = set()  # the records, and the builds by their start, that hold a key of others
        self.told: list[tuple[tuple[str, ...], Row]] = []  # what each call of instar-peers was answered
        self._journal: list[Row] = []
        self._read, self._lock, self._config = 0, threading.Lock(), threading.Lock()
        self._furnish()

    def _furnish(self) -> None:
        for name in ("claude", "codex"):
            python = self.folder / "lib" / name
            python.parent.mkdir(exist_ok=True)
            python.symlink_to(os.path.realpath(sys.executable))  # the hooks know a client by the name of its program
            self._program(name, f'exec {shlex.join([str(python), "-I", "-S", str(CLIENT)])} "$@"')
        shell = executable(self.folder / "bin/shell", SHELL)
        verdict = json.dumps({"decision": "continue", "rule": RULE, "evidence_pointer": {"plan_file": PLAN}})
        judge = self._program("judge", f"cat >/dev/null\necho x >>{self.soak}/judged\necho '{verdict}'")
        gate = {"authority": {"provider": "command", "command": [str(judge)], "budgetMs": 8000},
                "rateLimits": {"perSessionHour": 1000, "perAgentDay": 100_000}}  # fmt: skip
        monitoring = {"soak": FOREIGN, "sessionReaper": REAPER}
        config = {"soak": FOREIGN, "monitoring": monitoring, "lifecycle": LIFECYCLE, "unjustifiedStopGate": gate}
        self.write(".instar/config.json", config)
        settings = self.read(".claude/settings.json")
        settings["hooks"]["Stop"].insert(0, {"soak": FOREIGN, "hooks": [{"type": "command", "command": "true"}]})
        self.write(".claude/settings.json", {"soak": FOREIGN, **settings})
        self._fill_logs()
        (self.root / PLAN).parent.mkdir(parents=True)
        (self.root / PLAN).write_text(OPEN)
        commit_all(self.project, GIT_AUTHOR_DATE=LONG_AGO, GIT_COMMITTER_DATE=LONG_AGO)
        self.run("instar-migrate")
        for name, runtime in PEERS.items():
            self.run("instar-peers", "add", name, "--runtime", runtime)
            profile = f".instar/agents/{name}.json"
            self.write(profile, {**self.read(profile), "soak": FOREIGN})
        for number in range(SLOTS):
            self.tmux("new-session", "-d", "-x", "150", "-y", "40", "-s", f"slot-{number}", str(shell))

    def _fill_logs(self) -> None:
        """Leave room in the logs for a few rows: they have to be rotated while all goes on."""
        bounds = {logs.PATH: logs.BYTES, **{f".instar/logs/{log}.jsonl": BYTES_AT_MOST for log in ROWS}}
        for name, bytes_at_most in bounds.items():
            place = self.root / name
            row = json.dumps({"ts": LONG_AGO, "type": OLD, "old": ""})
            row = row.replace('""', f'"{"x" * ((bytes_at_most - ROOM) // OLD_ROWS - len(row) - 1)}"') + "\n"
            place.parent.mkdir(mode=0o700, exist_ok=True)
            place.write_text(row * OLD_ROWS, encoding="ascii")

    def _program(self, name: str, text: str) -> Path:
        return executable(self.folder / "bin" / name, f"#!/bin/sh\n{text}\n")

    def journal(self, ev: str = "", **wanted: object) -> list[Row]:
        """Return what the clients saw, the oldest first: of an event, with these fields."""
        with self._lock, (self.soak / "journal").open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
            self._read += len(whole) + bool(whole)
            self._journal += [json.loads(line) for line in whole.splitlines()]
            return [row for row in self._journal if ev in ("", row["ev"]) and wanted.items() <= row.items()]

    # Files and programs.

    def read(self, path: str) -> Row:
        """Return an object of the project."""
        return dict(json.loads((self.root / path).read_text(encoding="utf-8")))

    def write(self, path: str, values: Row) -> None:
        """Replace an object of the project in one step, as an editor does."""
        replace_file(self.root / path, json.dumps(values, indent=2, ensure_ascii=False).encode())

    @contextmanager
    def configuring(self) -> Iterator[Row]:
        """Change the configuration, beside nobody else that writes it."""
        with self._config:
            config = self.read(".instar/config.json")
            yield config
            self.write(".instar/config.json", config)

    def press(self, percent: int) -> None:
        """Have the memory be short, or not."""
        with self.configuring() as config:
            config["monitoring"]["sessionReaper"]["pressure"]["criticalAvailablePercent"] = percent

    def migrate(self) -> None:
        """Bring the project up to date."""
        with self._config:
            self.run("instar-migrate")

    def run(self, *words: str, statuses: tuple[int, ...] = (0,)) -> str:
        """Run a program of ours in the project, and return what it said."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]], cwd=self.root, env=self.project.env, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL, timeout=2 * GONE_S,
        )  # fmt: skip
        assert done.returncode in statuses, done
        assert "Traceback" not in done.stderr, done
        return done.stdout

    def ask(self, *words: str) -> Any:
        """Run a program of ours that may refuse, and return its answer."""
        answer = json.loads(self.run(*words, "--json", statuses=(0, 1)))
        if words[0] == "instar-peers":
            self.told.append((words, answer))
        return answer

    def tmux(self, *words: str, where: str = "slots") -> str:
        """Ask one of the tmux servers; "" where it is gone."""
        command = ["tmux", "-u", "-S", self.sockets[where], "-f", os.devnull, *words]
        return subprocess.run(
            command, env=self.project.env, cwd=self.root, capture_output=True, text=True, check=False
        ).stdout.strip()  # fmt: skip

    def rows(self, log: str) -> list[Row]:
        """Return the rows of a log, the oldest first, also those of before it was full."""
        now = self.root / f".instar/logs/{log}.jsonl"
        lines = [line for place in (backup(now), now) if place.exists() for line in place.read_text().splitlines()]
        return [row for line in lines if (row := json.loads(line))["type"] != OLD]

    # The server.

    def serve(self) -> None:
        """Have the server run."""
        self.server = subprocess.Popen(
            [str(BIN / "instar-server"), "run", "--project", str(self.root)], env=self.project.env, cwd="/",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: service.status(self.root).state == "running", "the server runs", timeout_s=GONE_S)

    def kill_server(self) -> None:
        """Kill the server, which tidies nothing; if it can be, while it parks somebody."""
        assert self.server
        folder, deadline = self.root / ".instar/state/lifecycle", time.monotonic() + 5
        while not (is_parking := any(folder.glob("*.pending"))) and time.monotonic() < deadline:
            time.sleep(0.001)
        self.server.kill()
        self.server.wait()
        self.server_deaths.append(is_parking)

    def stop_server(self) -> None:
        """Have the server end as it should."""
        assert self.server
        assert not service.stop(self.root).was_killed
        assert self.server.wait(GONE_S) == 0

    @contextmanager
    def serving_other(self, status: int, reply: Row) -> Iterator[None]:
        """Have a server of another time answer the hooks: by this status, in these words."""

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(reply).encode())

            def log_message(self, *_: object) -> None:
                pass

        gate_on = self.root / ".instar/server-data/gate-on"
        with HTTPServer(("127.0.0.1", 0), Answering) as other:
            here = Endpoint(other.server_port, os.getpid(), start_of(os.getpid()) or "")
            threading.Thread(target=other.serve_forever, args=(0.02,)).start()
            publish(self.root, here)
            replace_file(gate_on, b"enforce 2000\n")
            try:
                yield
            finally:
                gate_on.unlink(missing_ok=True)
                withdraw(self.root, here)
                other.shutdown()

    # What is installed.

    def age_hooks(self) -> None:
        """Put the hooks of an earlier release in the place of ours; where none is at hand, ones that differ."""
        for template, item in json.loads((REPOSITORY / "templates/manifest.json").read_text()).items():
            if template.startswith("hooks/"):
                place = self.root / item["installedPath"]
                old = (
                    _released(template, item.get("shippedHashes", ())) or place.read_bytes() + b"\n# of another time\n"
                )
                replace_file(place, old, 0o755)

    def hooks(self) -> dict[str, bytes]:
        """Return the hooks that are installed."""
        return {place.name: place.read_bytes() for place in (self.root / ".instar/hooks/instar").iterdir()}

    # Who lives, and the end.

    def is_client(self, pid: int) -> bool:
        """Say whether a process is a client that lives."""
        with suppress(psutil.Error):
            return str(self.folder / "lib") in "".join(psutil.Process(pid).cmdline()[:1])
        return False

    def ours(self) -> list[str]:
        """Return all processes that run for this house, zombies too."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_zombie = process.status() == psutil.STATUS_ZOMBIE and process.ppid() == os.getpid()
                if is_zombie or process.environ().get("SOAK") == str(self.soak):
                    found.append(f"{process.pid} {process.name()}")
        return found

    def close(self) -> None:
        """End whatever still runs."""
        if self.server and self.server.poll() is None:
            self.server.kill()
            self.server.wait()
        for where in self.sockets:
            self.tmux("kill-server", where=where)
        for pid in filter(self.is_client, {row["pid"] for row in self.journal()}):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _released(template: str, hashes: list[str]) -> bytes | None:
    """Return a template as a release had it, by the history of the repository; None without one."""
    git = ["git", "-C", str(REPOSITORY)]
    told = subprocess.run([*git, "log", "--format=%H", "--", f"templates/{template}"], capture_output=True, check=False)
    for commit in re.findall(r"\w{40}", told.stdout.decode()) if hashes else ():
        show = subprocess.run([*git, "show", f"{commit}:templates/{template}"], capture_output=True, check=False)
        if hashlib.sha256(show.stdout).hexdigest() in hashes:
            return show.stdout
    return None
