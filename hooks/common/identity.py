"""Who is running: the client session, the agent process and the tmux pane a command or a hook belongs to.

Everything here is proof or nothing. A process is (pid, start time, boot), never a bare pid. A tmux pane counts only
where `$TMUX` says so, and together with its server, since session names repeat across servers.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# The process name of a client, and the variable in which it tells its tools the session id.
SESSION_VARIABLES = {"claude": "CLAUDE_CODE_SESSION_ID", "codex": "CODEX_SESSION_ID"}

TMUX_SECONDS = 0.5
PS_SECONDS = 1.0
PS_WORDS = 9  # pid, parent, state, five of the start date, name; what follows are the arguments


class Process:
    """One process as seen at one moment; `start` tells it from a later one with the same pid."""

    def __init__(self, pid: int, parent: int, start: str, name: str, arguments: str = "") -> None:
        self.pid = pid
        self.parent = parent
        self.start = start
        self.client = name if name in SESSION_VARIABLES else ""
        self.arguments = arguments  # of a client; of others they are not asked for


def is_shared(client: Process) -> bool:
    """Say whether sessions of several terminals run below a client, as they do below Codex's app server."""
    return client.client == "codex" and "app-server" in client.arguments.split()


class Processes:
    """Looks processes up by pid: in /proc, or in the answer of a single `ps` where there is no /proc."""

    def __init__(self, proc: str = "/proc") -> None:
        self.proc = proc
        self.has_proc = os.path.exists(os.path.join(proc, "self", "stat"))
        self.table: dict[int, Process] | None = None

    def look(self, pid: int) -> Process | None:
        """Return the living process with this pid; None when there is none, or none that can be read."""
        if self.has_proc:
            return self.read_proc(pid)
        if self.table is None:
            self.table = read_ps()
        return self.table.get(pid)

    def read_proc(self, pid: int) -> Process | None:
        """Read one process from /proc; the name stands in brackets and may hold any character (proc(5))."""
        try:
            head, _, tail = read_text(f"{self.proc}/{pid}/stat").rpartition(")")
            fields = tail.split()
            if fields[0] in "ZX":
                return None
            process = Process(pid, int(fields[1]), fields[19], head.partition("(")[2])
            if process.client:
                process.arguments = read_text(f"{self.proc}/{pid}/cmdline").replace("\0", " ")
        except (OSError, ValueError, IndexError):
            return None
        return process

    def boot(self) -> str:
        """Return an id that changes with every boot; "" where `start` is a date and needs none."""
        try:
            return read_text(f"{self.proc}/sys/kernel/random/boot_id").strip()
        except OSError:
            return ""

    def nearest_client(self, pid: int) -> Process | None:
        """Return the nearest client at or above `pid`; None when there is none, or the chain cannot be read."""
        for _ in range(64):
            process = self.look(pid) if pid > 1 else None
            if process is None or process.client:
                return process
            pid = process.parent
        return None


def read_text(path: str) -> str:
    """Return a small file of /proc; `open` with its buffers would cost five times as much."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(fd)


def read_ps() -> dict[int, Process]:
    """Return the process table as `ps` of macOS and Linux print it; empty when it cannot be had."""
    import subprocess

    try:
        listing = subprocess.run(
            ["ps", "-axww", "-o", "pid=,ppid=,stat=,lstart=,ucomm=,args="],
            env=dict(os.environ, LC_ALL="C"),
            capture_output=True,
            timeout=PS_SECONDS,
            check=False,
        ).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.SubprocessError):
        return {}
    table = {}
    for line in listing.splitlines():
        words = line.split(None, PS_WORDS)
        if len(words) >= PS_WORDS and not words[2].startswith("Z"):
            pid, arguments = int(words[0]), "".join(words[PS_WORDS:])
            # macOS may know a program by the file a link led to; what it was started as is the other name.
            started_as = os.path.basename(arguments.partition(" ")[0])
            name = started_as if started_as in SESSION_VARIABLES else words[8]
            table[pid] = Process(pid, int(words[1]), " ".join(words[3:8]), name, arguments)
    return table


class Self:
    """The identity of this very process, found out bit by bit as it is asked for."""

    def __init__(self, session: str, environ: Mapping[str, str], processes: Processes | None = None) -> None:
        self.session = session
        self.environ = environ
        self.processes = processes or Processes()
        self.known: dict[str, Any] = {}

    def client(self) -> Process | None:
        """Return the client this process runs below."""
        if "client" not in self.known:
            self.known["client"] = self.processes.nearest_client(os.getppid())
        found: Process | None = self.known["client"]
        return found

    def client_session(self) -> str:
        """Return the session id that the own client gave its tools, and "" where that is not certain."""
        client = self.client()
        if client:
            return self.environ.get(SESSION_VARIABLES[client.client], "").strip()
        # No client above that could be read (a sandbox with its own process ids): one id alone is certain.
        ids = {self.environ.get(variable, "").strip() for variable in SESSION_VARIABLES.values()} - {""}
        return ids.pop() if len(ids) == 1 else ""

    def agent(self) -> dict[str, Any] | None:
        """Return the stamp of the own client process; None below a shared one, which proves nothing."""
        client = self.client()
        if client is None or is_shared(client):
            return None
        return {"pid": client.pid, "start": client.start, "boot": self.processes.boot()}

    def lives(self, agent: dict[str, Any]) -> bool:
        """Say whether the stamped process is alive, by pid, start time and boot."""
        pid = agent.get("pid")
        if not isinstance(pid, int) or agent.get("boot") != self.processes.boot():
            return False
        process = self.processes.look(pid)
        return process is not None and process.start == agent.get("start")

    def tmux(self, seconds: float = TMUX_SECONDS) -> dict[str, Any]:
        """Return ``{tmux, tmuxServer, pane, panes}`` of the own pane, as far as each is certain.

        `INSTAR_HOOK_NO_TMUX=1` and `INSTAR_HOOK_TMUX_SESSION` answer in tmux's stead; they name no server or pane.
        """
        if "tmux" not in self.known:
            self.known["tmux"] = self.find_tmux(seconds)
        found: dict[str, Any] = self.known["tmux"]
        return found

    def find_tmux(self, seconds: float) -> dict[str, Any]:
        """Find out what `tmux` returns."""
        if self.environ.get("INSTAR_HOOK_NO_TMUX") == "1":
            return {"tmux": ""}
        if "INSTAR_HOOK_TMUX_SESSION" in self.environ:
            return {"tmux": self.environ["INSTAR_HOOK_TMUX_SESSION"]}
        client = self.client()
        if client and is_shared(client):
            return {"tmux": ""}
        return ask_tmux(self.environ, seconds)


def socket_of(environ: Mapping[str, str]) -> str:
    """Return the socket of the tmux server that `$TMUX` names."""
    return environ.get("TMUX", "").rpartition(",")[0].rpartition(",")[0]


def ask_tmux(environ: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """Ask the tmux server of `$TMUX` about `$TMUX_PANE`; ``{"tmux": ""}`` when either is unset or it cannot say."""
    socket = socket_of(environ)
    pane = environ.get("TMUX_PANE", "")
    if not (socket and pane):
        return {"tmux": ""}
    import subprocess

    ask = ["tmux", "-S", socket, "display-message", "-p", "-t", pane, "#{pid} #{session_name}"]
    list_panes = [";", "list-panes", "-a", "-F", "#{pane_id}"]
    try:
        said = subprocess.run(ask + list_panes, capture_output=True, timeout=seconds, check=True).stdout
        server, _, session = said.decode("utf-8", "replace").partition("\n")[0].partition(" ")
        panes = said.decode("utf-8", "replace").splitlines()[1:]
        return {"tmux": session, "tmuxServer": int(server), "pane": pane, "panes": panes}
    except (OSError, ValueError, subprocess.SubprocessError):
        return {"tmux": ""}
