#!/usr/bin/env python3
"""Keeps the record of each session of a project: who it is, where it runs, what happened to it last.

Runs at SessionStart, UserPromptSubmit and SessionEnd of Claude Code and Codex, and at PreCompact of Codex.

stdin   the client's JSON event
stdout  nothing: no word of ours reaches the model
exit    0, always
env     TMUX, TMUX_PANE; INSTAR_PEER; CLAUDE_ENV_FILE; with INSTAR_DOCTOR set nothing is recorded

The record is `.instar/state/sessions/<session id>.json`: `status` running, completed or failed (or, of those who end
sessions, reaping and killed, with `reaping` and `parked`, which the next event of its life drops); `client`, `cwd`,
`transcriptPath`, `source`, `model`; `agent` (pid, start, boot of the client's process) and `tmux` (session, server,
serverStart, socket, pane), each only where it proves something; `firstPromptAt` of that process; `lastPrompt`,
`lastEvent`; `startedAt`, `endedAt`, `endedReason`; `forkedFrom`; of a peer's `identity`. A process has one running
record, and a pane at most one. A prompt also ends the question of a build that its owner asked, and tells Claude's tool
shells the session as `INSTAR_SESSION_ID`.
"""
# instar-hooks: rendered from hooks/session_event_hook.py and what it imports; overwritten at every upgrade.

import fcntl
import os
import time


def now_iso():
    return iso(time.time())


def iso(seconds):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06d}+00:00"


# The process name of a client, and the variable in which it tells its tools the session id.
SESSION_VARIABLES = {"claude": "CLAUDE_CODE_SESSION_ID", "codex": "CODEX_SESSION_ID"}
TMUX_SECONDS = 0.5
PS_SECONDS = 1.0
PS_WORDS = 9  # pid, parent, state, five of the start date, name; what follows are the arguments


class Process:
    def __init__(self, pid, parent, start, name, arguments = ""):
        self.pid = pid
        self.parent = parent
        self.start = start
        self.client = name if name in SESSION_VARIABLES else ""
        self.arguments = arguments  # of a client; of others they are not asked for


def is_shared(client):
    return client.client == "codex" and "app-server" in client.arguments.split()


class Processes:
    def __init__(self, proc = "/proc"):
        self.proc = proc
        self.has_proc = os.path.exists(os.path.join(proc, "self", "stat"))
        self.table = None

    def look(self, pid):
        if self.has_proc:
            return self.read_proc(pid)
        if self.table is None:
            self.table = read_ps()
        return self.table.get(pid)

    def read_proc(self, pid):
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

    def boot(self):
        try:
            return read_text(f"{self.proc}/sys/kernel/random/boot_id").strip()
        except OSError:
            return ""

    def nearest_client(self, pid):
        for _ in range(64):
            process = self.look(pid) if pid > 1 else None
            if process is None or process.client:
                return process
            pid = process.parent
        return None


def read_text(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 1 << 16).decode("utf-8", "replace")
    finally:
        os.close(fd)


def read_ps():
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
    def __init__(self, session, environ, processes = None):
        self.session = session
        self.environ = environ
        self.processes = processes or Processes()
        self.known = {}

    def client(self):
        if "client" not in self.known:
            self.known["client"] = self.processes.nearest_client(os.getppid())
        found = self.known["client"]
        return found

    def client_session(self):
        client = self.client()
        if client:
            return self.environ.get(SESSION_VARIABLES[client.client], "").strip()
        # No client above that could be read (a sandbox with its own process ids): one id alone is certain.
        ids = {self.environ.get(variable, "").strip() for variable in SESSION_VARIABLES.values()} - {""}
        return ids.pop() if len(ids) == 1 else ""

    def agent(self):
        client = self.client()
        if client is None or is_shared(client):
            return None
        return {"pid": client.pid, "start": client.start, "boot": self.processes.boot()}

    def lives(self, agent):
        pid = agent.get("pid")
        if not isinstance(pid, int) or agent.get("boot") != self.processes.boot():
            return False
        process = self.processes.look(pid)
        return process is not None and process.start == agent.get("start")

    def tmux(self, seconds = TMUX_SECONDS):
        if "tmux" not in self.known:
            self.known["tmux"] = self.find_tmux(seconds)
        found = self.known["tmux"]
        return found

    def find_tmux(self, seconds):
        if self.environ.get("INSTAR_HOOK_NO_TMUX") == "1":
            return {"tmux": ""}
        if "INSTAR_HOOK_TMUX_SESSION" in self.environ:
            return {"tmux": self.environ["INSTAR_HOOK_TMUX_SESSION"]}
        client = self.client()
        if client and is_shared(client):
            return {"tmux": ""}
        return ask_tmux(self.environ, seconds)


def socket_of(environ):
    return environ.get("TMUX", "").rpartition(",")[0].rpartition(",")[0]


def ask_tmux(environ, seconds):
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


def codec():
    try:
        import _json
    except ImportError:  # another Python than CPython
        from json.encoder import encode_basestring_ascii

        return None, encode_basestring_ascii
    return _json.make_scanner, _json.encode_basestring_ascii


CODEC = codec()
BLANK = " \t\n\r"
NOT_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class Reading:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = NOT_FINITE.__getitem__


def loads(text):
    start = len(text) - len(text.lstrip(BLANK))
    try:
        value, end = CODEC[0](Reading)(text, start)
        if not text[end:].strip(BLANK):
            return value
    except (StopIteration, ValueError, SystemError, TypeError):  # the C code leaves the telling to the package
        pass
    import json  # which says what is wrong, and where

    return json.loads(text)


def dumps(value, indent = 0, level = 0):
    if isinstance(value, str):
        return str(CODEC[1](value))
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return next((name for name, each in NOT_FINITE.items() if repr(each) == repr(value)), float.__repr__(value))
    if isinstance(value, dict):
        items = [f"{CODEC[1](key)}: {dumps(each, indent, level + 1)}" for key, each in value.items()]
        return enclosed("{", items, "}", indent, level)
    if isinstance(value, (list, tuple)):
        return enclosed("[", [dumps(each, indent, level + 1) for each in value], "]", indent, level)
    raise TypeError(f"{type(value).__name__} is no JSON")


def enclosed(opening, items, closing, indent, level):
    if not items or not indent:
        return opening + ", ".join(items) + closing
    line = "\n" + " " * indent * (level + 1)
    return opening + line + f",{line}".join(items) + "\n" + " " * indent * level + closing


TERMINAL = ("complete", "failed", "escalated")


def replace_file(path, data, mode = 0o600):
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(fd, "wb") as file:
            keep_mode(path, fd)
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError:
        remove_if_there(temporary)
        raise
    sync_folder(folder)


def keep_mode(path, fd):
    try:
        os.fchmod(fd, os.stat(path, follow_symlinks=False).st_mode & 0o777)
    except FileNotFoundError:
        pass


def sync_folder(folder):
    try:
        fd = os.open(folder, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    except OSError:
        pass


def sweep(folder):
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith(".") and name.endswith(".tmp"):
            os.unlink(os.path.join(folder, name))


def write_all(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def remove_if_there(path):
    try:
        os.unlink(path)
    except OSError:
        pass


def make_folder(root, folder):
    if os.path.isdir(folder):
        return
    inside = os.path.join(root, ".instar")
    os.makedirs(inside, 0o700, exist_ok=True)
    ignore = os.path.join(inside, ".gitignore")
    if not os.path.lexists(ignore):
        with open(ignore, "w", encoding="ascii") as file:
            file.write("*\n")
    os.makedirs(folder, exist_ok=True)


AN_HOUR_S = 3600


class Trouble(Exception):  # noqa: N818 - it is told, not raised to the top
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


def tell(root, role, trouble):
    logs = os.path.join(root, ".instar", "logs")
    told = os.path.join(logs, f".told-{role}-{trouble.code}")
    try:
        if 0 <= time.time() - os.stat(told).st_mtime < AN_HOUR_S:
            return ""
    except OSError:
        pass
    try:
        make_folder(root, logs)
        append(os.path.join(logs, f"{role}.log"), f"{now_iso()} {trouble.code} {trouble}\n")
        append(told, "")
        os.utime(told)
    except OSError as error:
        complain(f"{role}: cannot write its log: {error}")
    return f"instar {role}: {trouble} ({trouble.code})."


def append(path, text):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        write_all(fd, text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(fd)


def complain(text):
    try:
        os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass


def text_of(values, key):
    value = values.get(key)
    return value if isinstance(value, str) else ""


def owned(build, me):
    state = build.load()
    if state is None or state.get("phase") in TERMINAL:
        return None
    stamp = claim(state.get("owner"), me)
    return None if stamp is None else (state, stamp)


def claim(owner, me):
    stamp = owner if isinstance(owner, dict) else {}
    session, tmux = text_of(stamp, "session").strip(), text_of(stamp, "tmux").strip()
    if not session and not tmux:
        return None
    agent = stamp.get("agent") if isinstance(stamp.get("agent"), dict) else None
    if session and session == me.session:
        # Resumed in a new process: that one is the agent from now on, so that a later `/clear` finds its owner.
        return {} if agent and me.lives(agent) else changes(stamp, me)
    if agent:
        mine = me.agent()
        if mine and all(agent.get(key) == mine[key] for key in mine):
            return changes(stamp, me)
        if me.lives(agent):
            return None
    return changes(stamp, me) if tmux and is_same_pane(stamp, me.tmux()) else None


def is_same_pane(stamp, mine):
    if mine["tmux"] != stamp["tmux"]:
        return False
    if "tmuxServer" in stamp and "tmuxServer" in mine and stamp["tmuxServer"] != mine["tmuxServer"]:
        return False
    pane = stamp.get("pane")
    return pane is None or "pane" not in mine or pane == mine["pane"] or pane not in mine["panes"]


def changes(stamp, me):
    mine = {"session": me.session, "agent": me.agent()}
    return {key: value for key, value in mine.items() if value and stamp.get(key) != value}


INSTALLED_BELOW = os.path.join(".instar", "hooks", "instar")


def installed_root(script):
    folder = os.path.dirname(os.path.abspath(script))
    root = os.path.normpath(os.path.join(folder, "..", "..", ".."))
    return main_checkout(root) if folder == os.path.join(root, INSTALLED_BELOW) else None


def main_checkout(folder):
    try:
        with open(os.path.join(folder, ".git"), encoding="utf-8", errors="surrogateescape") as file:
            line = file.read(1 << 16)
    except OSError:  # a folder: this is a main checkout; missing: no checkout at all
        return folder
    if not line.startswith("gitdir: "):
        return folder
    git_folder = os.path.normpath(os.path.join(folder, line[len("gitdir: ") :].rstrip("\n")))
    main, separator, _ = git_folder.rpartition(os.sep + os.path.join(".git", "worktrees") + os.sep)
    return main if separator else folder


EVENT_BYTES_AT_MOST = 8 * 1024 * 1024
EVENT_SECONDS_AT_MOST = 0.8


def secure_standard_streams():
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free descriptor: this one


def read_event(fd = 0):
    import select  # not at the top: a start with nothing to read must not pay for it

    deadline = time.monotonic() + EVENT_SECONDS_AT_MOST
    received = bytearray()
    try:
        while len(received) < EVENT_BYTES_AT_MOST:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                break
            chunk = os.read(fd, 1 << 16)
            received += chunk
            if not chunk:
                break
            if len(chunk) < 1 << 16 and chunk.rstrip().endswith(b"}"):
                event = parse_event(received)
                if event:
                    return event
    except (OSError, ValueError):
        pass
    return parse_event(received)


def parse_event(received):
    try:
        event = loads(received.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def prompt_id(event):
    return text_of(event, "prompt_id") or text_of(event, "turn_id")


class Lock:
    def __init__(self, root, folder, seconds, name = ".lock"):
        self.root = root
        self.folder = folder
        self.seconds = seconds
        self.name = name
        self.fd = -1

    def __enter__(self):
        try:
            make_folder(self.root, self.folder)
            path = os.path.join(self.folder, self.name)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self.wait()
        except OSError as error:
            self.__exit__()
            raise Trouble("unwritable", f"{self.folder} cannot be locked: {error.strerror}") from error
        except Trouble:
            self.__exit__()
            raise

    def __exit__(self, *_):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def wait(self):
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"{self.folder} was locked by another process for {self.seconds:g} s"
                    raise Trouble("lock_timeout", text) from None
                time.sleep(0.005)


RECORD_BYTES_AT_MOST = 1 << 20
ID_CHARACTERS_AT_MOST = 128


class Records:
    def __init__(self, root):
        self.root = root
        self.folder = os.path.join(root, ".instar", "state", "sessions")

    def lock(self, seconds):
        return Lock(self.root, self.folder, seconds)

    def path(self, session):
        return os.path.join(self.folder, f"{session}.json")

    def load(self, session):
        try:
            fd = os.open(self.path(session), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                record = loads(os.read(fd, RECORD_BYTES_AT_MOST).decode("utf-8"))
            finally:
                os.close(fd)
        except (OSError, ValueError, RecursionError):
            return {}
        return record if isinstance(record, dict) else {}

    def others(self, session):
        for name in sorted(os.listdir(self.folder)):
            other, extension = os.path.splitext(name)
            if extension == ".json" and other != session and is_session_id(other):
                record = self.load(other)
                if record:
                    yield other, record

    def save(self, session, record):
        version = record.get("version")
        counted = {**record, "version": version + 1 if isinstance(version, int) else 1}
        path = self.path(session)
        try:
            make_folder(self.root, self.folder)
            sweep(self.folder)
            if os.path.lexists(path) and not self.load(session):
                os.replace(path, f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
            replace_file(path, dumps(counted, indent=2).encode("ascii"), 0o600)
        except OSError as error:
            raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error

    def remove(self, session):
        try:
            os.unlink(self.path(session))
        except OSError as error:
            raise Trouble("unwritable", f"{self.path(session)} cannot be removed: {error.strerror}") from error


def is_session_id(text):
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return plain.isascii() and plain.isalnum() and text[0] != "." and len(text) <= ID_CHARACTERS_AT_MOST


STATE_BYTES_AT_MOST = 2 * 1024 * 1024  # some 10,000 steps; more than that is not a build's state


class Build:
    def __init__(self, root):
        self.root = root
        self.folder = os.path.join(root, ".instar", "state", "build")
        self.state_path = os.path.join(self.folder, "build-state.json")
        self.audit_path = os.path.join(self.folder, "audit.jsonl")
        self.unaudited = []

    def lock(self, seconds, name = ".lock"):
        return Lock(self.root, self.folder, seconds, name)

    def load(self):
        try:
            fd = os.open(self.state_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                data = os.read(fd, STATE_BYTES_AT_MOST + 1)  # all of it: this is a regular file
            finally:
                os.close(fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Trouble("state_corrupt", f"{self.state_path} cannot be read: {error.strerror}") from error
        return self.parse(data)

    def parse(self, data):
        if len(data) > STATE_BYTES_AT_MOST:
            raise Trouble("state_corrupt", f"{self.state_path} is larger than {STATE_BYTES_AT_MOST} bytes")
        try:
            state = loads(data.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Trouble("state_corrupt", f"{self.state_path} is not JSON: {error}") from error
        if not isinstance(state, dict):
            raise Trouble("state_corrupt", f"{self.state_path} holds no JSON object")
        return state

    def save(self, state):
        data = dumps(state, indent=2).encode("ascii")
        if len(data) > STATE_BYTES_AT_MOST:  # it could not be read again
            raise Trouble("unwritable", f"{self.state_path} would be larger than {STATE_BYTES_AT_MOST} bytes")
        try:
            sweep(self.folder)
            sweep(os.path.join(self.folder, "history"))
            replace_file(self.state_path, data)
        except OSError as error:
            raise Trouble("unwritable", f"{self.state_path} cannot be written: {error.strerror}") from error

    def audit(self, event, **fields):
        line = dumps({"event": event, "timestamp": now_iso(), **fields}).encode("ascii") + b"\n"
        try:
            fd = os.open(self.audit_path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                write_all(fd, b"\n" + line if torn else line)
            finally:
                os.close(fd)
        except OSError as error:
            text = f"{self.audit_path} cannot be written: {error.strerror}"
            self.unaudited.append(Trouble("unaudited", text))


ROLE = "session-event-hook"
LOCK_SECONDS = 1.0
PROMPT_CHARACTERS_KEPT = 200
NOTICE = "<task-notification>"  # with it begins what Claude prompts itself with when a background task has ended
KEPT_DAYS = 30  # how long an ended session is remembered, unless the configuration says otherwise
EXPORT = "export INSTAR_SESSION_ID="
CLIENTS = {"claude": "claude-code", "codex": "codex-cli"}
PEER = "INSTAR_PEER"
ALIVE = ("running", "reaping")
OF_AN_END = ("endedAt", "endedReason", "parked", "reaping")
OF_THE_PEER = ("identity", "launchedBy")
COPIED = {"cwd": "cwd", "transcript_path": "transcriptPath", "model": "model"}


def main():
    secure_standard_streams()
    root = installed_root(__file__)
    if root and not os.environ.get("INSTAR_DOCTOR"):
        event = read_event()
        for duty in (keep_record, end_question, export_session):
            try:
                duty(root, event)
            except Trouble as trouble:
                tell(root, ROLE, trouble)
            except Exception as error:  # noqa: BLE001 - one duty that fails keeps no other from being done
                tell(root, ROLE, Trouble("unexpected", f"{type(error).__name__}: {error}"))
    return 0


def keep_record(root, event):
    session, name = text_of(event, "session_id"), text_of(event, "hook_event_name")
    if not is_session_id(session):
        raise Trouble("no_session", f"an event of the client names no session that can be recorded: {session!r:.80}")
    records, me = Records(root), Self(session, os.environ)
    who = seen(me)
    with records.lock(LOCK_SECONDS):
        record = records.load(session)
        if not record and name == "SessionEnd":
            return
        # Two processes of one session: the first keeps the record. Claude starts a fork under the id of the session it
        # forks, too, which may go on elsewhere; the fork's prompts have the new id.
        is_elsewhere = runs_elsewhere(record, me)
        if is_elsewhere and name != "UserPromptSubmit":
            return
        is_moved = not is_elsewhere and (name == "SessionStart" or record.get("agent") != who.get("agent"))
        after = followed(record, event, who if is_moved else {}, now_iso())
        if is_moved:
            after.update(settle(records, session, after, me))
        records.save(session, after)  # the last: an event that broke off before is settled by the next


def seen(me):
    client = me.client()
    if client is None:
        return {}
    found = {"client": CLIENTS[client.client], "agent": me.agent()}
    if me.processes.nearest_client(client.parent) is None:  # below another client the pane is that one's
        found["tmux"] = pane_of(me)
        found.update(peer_of(found))
    return found


def peer_of(found):
    identity = f"{found['client']}-{os.environ.get(PEER)}"
    tmux = found["tmux"]
    return {"identity": identity} if tmux and tmux["session"] == identity else {}


def pane_of(me):
    tmux = me.tmux()
    if "pane" not in tmux:
        return None
    server = me.processes.look(tmux["tmuxServer"])
    return {
        "session": tmux["tmux"],
        "server": tmux["tmuxServer"],
        "serverStart": server.start if server else None,
        "socket": socket_of(me.environ),
        "pane": tmux["pane"],
    }


def runs_elsewhere(record, me):
    agent = record.get("agent")
    if record.get("status") not in ALIVE or not isinstance(agent, dict):
        return False
    return agent != me.agent() and me.lives(agent)


def followed(record, event, who, now):
    name = text_of(event, "hook_event_name")
    copied = {key: event[said] for said, key in COPIED.items() if text_of(event, said)}
    after = {"id": text_of(event, "session_id"), "status": "running", "startedAt": now, **record, **who, **copied}
    after["lastEvent"] = {"name": name, "at": now}
    if after.get("agent") != record.get("agent"):
        after.pop("firstPromptAt", None)
    if name == "SessionEnd" and record.get("parked"):  # the client was ended; why is known
        return after
    if name == "SessionEnd":
        return {**after, "status": "completed", "endedAt": now, "endedReason": text_of(event, "reason") or "other"}
    if name == "SessionStart":
        after["source"] = text_of(event, "source")
    if name == "UserPromptSubmit" and not is_notice(event):
        text = text_of(event, "prompt")[:PROMPT_CHARACTERS_KEPT]
        after["lastPrompt"] = {"id": prompt_id(event), "at": now, "text": text}
        after.setdefault("firstPromptAt", now)
    after["status"] = "running"
    return {key: value for key, value in after.items() if key not in OF_AN_END and value is not None}


def settle(records, session, record, me):
    learned = {}
    now, oldest = now_iso(), iso(time.time() - kept_days(records.root) * 86400)
    can_see = me.processes.look(os.getpid()) is not None
    for other, old in list(records.others(session)):
        agent = old.get("agent")
        is_mine = bool(agent) and agent == record.get("agent")
        if is_mine:
            learn(learned, old, now)
        if is_mine and is_fork(record, old):
            learned.update(source="fork", forkedFrom=other)
        if old.get("status") not in ALIVE:
            if "" < text_of(old, "endedAt") < oldest and not old.get("parked"):
                records.remove(other)
        elif is_mine:
            records.save(other, ended(old, "completed", "forked" if is_fork(record, old) else "replaced", now))
        elif isinstance(agent, dict) and can_see and not me.lives(agent):
            if old["status"] == "reaping":  # whoever ends it has not done with it
                continue
            records.save(other, ended(old, "failed", "process gone", now))
        elif old.get("tmux") and is_one_pane(old["tmux"], record.get("tmux")):
            records.save(other, {key: value for key, value in old.items() if key != "tmux"})
    return learned


def learn(learned, old, now):
    learned.update((key, old[key]) for key in OF_THE_PEER if key in old)
    if "" < text_of(old, "firstPromptAt") < (text_of(learned, "firstPromptAt") or now):
        learned["firstPromptAt"] = old["firstPromptAt"]


def is_fork(record, old):
    if old.get("status") not in ALIVE:
        return old.get("endedReason") == "forked" and "source" not in record
    return record.get("source") == "fork" or ("source" not in record and old.get("source") == "resume")


def is_notice(event):
    return text_of(event, "prompt").startswith(NOTICE)


def ended(record, status, reason, now):
    return {**record, "status": status, "endedAt": now, "endedReason": reason}


def is_one_pane(one, other):
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return all(one.get(key) == other.get(key) for key in ("server", "serverStart", "pane"))


def kept_days(root):
    try:
        with open(os.path.join(root, ".instar", "config.json"), encoding="utf-8-sig") as file:
            days = loads(file.read())["sessions"]["keepEndedDays"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return KEPT_DAYS
    return days if isinstance(days, int) and not isinstance(days, bool) and days > 0 else KEPT_DAYS


def end_question(root, event):
    build = Build(root)
    if text_of(event, "hook_event_name") != "UserPromptSubmit" or not os.path.lexists(build.state_path):
        return
    me = Self(text_of(event, "session_id"), os.environ)
    if owned(build, me) is None:
        return
    with build.lock(LOCK_SECONDS):
        found = owned(build, me)
        if found is None:
            return
        state, stamp = found
        asked, old = state.pop("asked", None), state["owner"]
        if isinstance(asked, dict) and is_notice(event):
            state["asked"] = {**asked, "prompt": prompt_id(event)}
        elif not stamp and asked is None:
            return
        build.save({**state, "owner": {**old, **stamp}})
        if "session" in stamp:
            build.audit("owner.reconciled", old=old.get("session"), new=stamp["session"])
    if build.unaudited:
        raise build.unaudited[0]


def export_session(_root, event):
    path, session = os.environ.get("CLAUDE_ENV_FILE"), text_of(event, "session_id")
    if text_of(event, "hook_event_name") != "SessionStart" or not path or not is_session_id(session):
        return
    # A fork starts under the id of the session it forks; the client's own variable is right in each shell.
    line = f'{EXPORT}"${{CLAUDE_CODE_SESSION_ID:-{session}}}"\n'
    try:
        with open(path, "a+", encoding="utf-8", errors="surrogateescape") as file:
            file.seek(0)
            there = file.read()
            if EXPORT not in there or not there[there.rindex(EXPORT) :].startswith(line):
                file.write(line if not there or there.endswith("\n") else "\n" + line)
    except OSError as error:
        raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    os._exit(main())  # nothing is left to flush, and taking the interpreter down costs a tenth of a start
