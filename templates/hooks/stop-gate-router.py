#!/usr/bin/env python3
"""Stop hook of Claude Code and Codex: has the project's server look at a stop that excuses itself with its context.

stdin   the client's Stop event; used: `session_id`, `stop_hook_active`, `cwd`, and the last words of the agent
stdout  ``{"decision": "block", "reason": ...}`` when the server, in enforce, wants the session to go on; else ``{}``;
        `systemMessage` beside it tells the person what went wrong
exit    0, always
files   .instar/server-data/: `gate-on` (the mode, and for how many milliseconds the server may think), `endpoint.json`,
        `token`

Nothing is asked without a signal in the agent's words, about a session that its own build still holds, or twice in one
prompt. In shadow the stop is handed over and never waited for. The token goes to the living process of the server
alone, on this machine. Whatever fails, the session may stop, and the log has a line.
"""
# instar-hooks: rendered from hooks/stop_gate_router.py and what it imports; overwritten at every upgrade.

import fcntl
import os
import time


def now_iso():
    return iso(time.time())


def iso(seconds):
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1_000_000):06d}+00:00"


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


KINDS = {dict: "an object", list: "a list", int: "a whole number"}


def text_of(values, key):
    value = values.get(key)
    return value if isinstance(value, str) else ""


def expect(values, key, kind, default):
    value = values.get(key, default)
    if isinstance(value, kind):
        return value
    raise Trouble("state_corrupt", f'the build state\'s key "{key}" is {value!r:.80}, expected {KINDS[kind]}')


def whole_number(values, key, default):
    value = expect(values, key, int, default)
    if is_count(value):
        return value
    raise Trouble("state_corrupt", f'the build state\'s key "{key}" is {value!r:.80}, expected a count')


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


HOLDS_AT_MOST = 50
DEFAULT_BUDGET = 5


def budget(state):
    return min(whole_number(expect(state, "protection", dict, {}), "reinforcements", DEFAULT_BUDGET), HOLDS_AT_MOST)


def is_spent(state):
    return whole_number(state, "reinforcementsUsed", 0) >= budget(state)


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


def server_of(root):
    values = read_json(os.path.join(root, ".instar", "server-data", "endpoint.json"))
    pid, port = values.get("pid"), values.get("port")
    if not (isinstance(pid, int) and isinstance(port, int) and is_count(port)):
        return None
    process = Processes().look(pid)
    return port if process and process.start == str(values.get("start")) else None


def token_of(root):
    try:
        with open(os.path.join(root, ".instar", "server-data", "token"), encoding="utf-8") as file:
            kept = file.read().strip()
    except (OSError, ValueError):
        kept = ""
    return os.environ.get("INSTAR_AUTH_TOKEN") or kept or text_of(read_json(f"{root}/.instar/config.json"), "authToken")


def read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            values = loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


TERMINAL = ("complete", "failed", "escalated")


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


ALLOW = {}


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


def let_go(root, role, trouble):
    message = tell(root, role, trouble)
    return {"systemMessage": f"{message} The stop was allowed."} if message else ALLOW


def block(reason):
    return {"decision": "block", "reason": reason}


def answer(reply, fd = 1):
    try:
        write_all(fd, dumps(reply).encode("ascii"))
    except OSError:
        pass


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


TEXT_CHARACTERS = 8000
QUIET_CHARACTERS = 20
# Patterns are compiled only for a text that has one of the words they need: most have none.
NOISE = r"(?s)```.*?(?:```|\Z)|(?m:`[^`\n]*`|^[ \t]*>[^\n]*$)|(?<!\S)[^\s/]*/\S*"
COMPOUNDS = (
    r"\b(?:auth|access|api|csrf|refresh|bearer|id|jwt|session|design|lexer|security)[ -]tokens?\b"
    r"|\bcontext (?:managers?|processors?|providers?|menus?|variables?|objects?|switch\w*)\b"
    r"|\b(?:react|request|execution|ssl|app|django) contexts?\b"
    r"|\bsession (?:tokens?|cookies?|ids?|keys?|stores?|variables?|objects?|factory|maker|hijack\w*)\b"
)
SENTENCE = r"[.!?;\n]+"
WORDS = {
    "mentionsContext": ("context", "token"),
    "mentionsCompaction": ("compact",),
    "mentionsFreshSession": ("session", "chat", "conversation", "window", "context", "start"),
    "mentionsLaterSession": ("session", "chat", "conversation", "window", "tomorrow", "pick"),
    "mentionsBreakPoint": ("point", "boundary", "stopping", "break", "paus", "hand", "check"),
    "mentionsNaturalPause": ("natural pause", " here"),
    "mentionsClarityPause": ("clarity", "thread"),
}
CONTEXT = r"\b(?:context|tokens?)\b"
RUNS_OUT = (
    r"\b(?:stop|paus|sav(?:e|ing)|preserv|conserv|protect|limit|budget|full|fill|wrap|hand(?:ing)? (?:off|over)|exhaust"
    r"|runn?(?:ing)? (?:out|low))"
)
CONVERSATION = r"\b(?:context|conversation|session|history)\b"
POINT = r"(?:good|natural|clean|logical|sensible|safe|nice) (?:stopping|breaking|break|pausing|pause|hand-?off|check)"
# A detector fires where a sentence has all patterns of one of its rows.
DETECTORS = {
    "mentionsContext": ((CONTEXT, RUNS_OUT),),
    "mentionsCompaction": (
        (r"\b(?:auto-?)?compaction\b",),
        (r"\bcompact(?:ed|ing|s)?\b", CONVERSATION),
        (r"\b(?:get|gets|getting|am|is|being) (?:auto-?)?compacted\b",),
    ),
    "mentionsFreshSession": (
        (r"\b(?:fresh|new|clean|another)(?: \w+)? (?:session|chat|conversation|window|context)\b",),
        (r"\brestart(?:ing)? (?:the |this |our )?(?:session|chat|conversation)\b",),
        (r"\bstart(?:ing)? (?:over|fresh|afresh)\b",),
    ),
    "mentionsLaterSession": (
        (r"\b(?:later|next|future|separate|follow-?up|subsequent)(?: \w+)? (?:session|chat|conversation|window)\b",),
        (r"\btomorrow\b",),
        (r"\bpick(?:ing|ed)? (?:this |it |that |things |the work )?(?:back )?up\b",),
    ),
    "mentionsBreakPoint": (
        (rf"\b{POINT}[ -]?(?:point|place|spot)?\b",),
        (r"\b(?:stopping|breaking) point\b",),
        (r"\bslice boundary\b",),
    ),
    "mentionsNaturalPause": ((r"\bnatural pause\b",), (r"\b(?:paus(?:e|ing)|stop(?:ping)?) here\b",)),
    "mentionsClarityPause": ((r"\bpaus(?:e|ing) for clarity\b",), (r"\blos(?:e|ing) (?:the |my )?thread\b",)),
}


def detect(text):
    text = text[-TEXT_CHARACTERS:]
    if len(text.strip()) <= QUIET_CHARACTERS:
        return ["suspiciouslyQuiet"]
    low = text.lower()
    likely = [name for name in DETECTORS if any(word in low for word in WORDS[name])]
    if not likely:
        return []
    import re  # not at the top: most stops have no use for it

    plain = re.sub(COMPOUNDS, " ", re.sub(NOISE, " ", low))
    sentences = [" ".join(sentence.split()) for sentence in re.split(SENTENCE, plain)]
    together = "\n".join(sentences)
    return [name for name in likely if any(fires(row, together, sentences) for row in DETECTORS[name])]


def fires(row, together, sentences):
    import re

    if not all(re.search(pattern, together) for pattern in row):
        return False
    return len(row) == 1 or any(all(re.search(pattern, each) for pattern in row) for each in sentences)


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


ROLE = "stop-gate-router"
ROUTE = "/internal/stop-gate/evaluate"
BUDGET_MS = 2000
BUDGET_MS_AT_MOST = 8000
GRACE_S = 0.5  # for the way there and back
HAND_OVER_S = 0.3
FRESH_S = 5.0
REPLY_BYTES_AT_MOST = 1 << 20
REMINDER_CHARACTERS_AT_MOST = 1000
STATUS_OK = b"200"


def main():
    secure_standard_streams()
    root = installed_root(__file__)
    reply = ALLOW
    if root:
        try:
            reply = route(root, read_event())
        except Trouble as trouble:
            reply = let_go(root, ROLE, trouble)
        except Exception as error:  # noqa: BLE001 - a hook that dies holds nobody and says nothing
            reply = let_go(root, ROLE, Trouble("unexpected", f"{type(error).__name__}: {error}"))
    answer(reply)
    return 0


def route(root, event):
    mode, budget_ms = gate(root)
    if not mode or event.get("stop_hook_active") or os.environ.get("INSTAR_GATE_CHILD"):
        return ALLOW
    said = text_of(event, "stop_reason") or text_of(event, "reason") or text_of(event, "last_assistant_message")
    signals = detect(said)
    if not signals:
        return ALLOW
    session = text_of(event, "session_id")
    if not is_session_id(session):
        raise Trouble("unbound_session", f"a stop that names no session cannot be evaluated: {session!r:.80}")
    if is_held_by_its_build(root, session):
        return ALLOW
    question = {
        "sessionId": session,
        "cwd": text_of(event, "cwd"),
        "evidenceMetadata": {"artifacts": [], "evidenceSource": "server", "signals": dict.fromkeys(signals, True)},
        "untrustedContent": {"stopReason": ending(said), "recentTurns": []},
    }
    if mode == "shadow":
        consult(root, question, 0)
        return ALLOW
    return judged(consult(root, question, budget_ms))


def ending(said):
    return said if len(said) <= TEXT_CHARACTERS else said[-TEXT_CHARACTERS:].partition(" ")[2]


def gate(root):
    try:
        with open(os.path.join(root, ".instar", "server-data", "gate-on"), encoding="ascii") as file:
            words = file.read(100).split()
    except (OSError, ValueError):
        return "", 0
    mode = words[0] if words and words[0] in ("shadow", "enforce") else ""
    budget_ms = int(words[1]) if len(words) > 1 and words[1].isdecimal() else BUDGET_MS
    return mode, min(budget_ms, BUDGET_MS_AT_MOST)


def is_held_by_its_build(root, session):
    build = Build(root)
    try:
        found = owned(build, Self(session, os.environ)) if os.path.lexists(build.state_path) else None
        if found is None or not is_spent(found[0]):
            return found is not None
    except Trouble:
        return False
    prompt = Records(root).load(session).get("lastPrompt")
    prompted = text_of(prompt, "at") if isinstance(prompt, dict) else ""
    return text_of(found[0], "lastHeldAt") >= (prompted or iso(time.time() - FRESH_S))


def judged(reply):
    reminder = "".join(each for each in text_of(reply, "reminder") if each == "\n" or each.isprintable()).strip()
    if reply.get("decision") != "continue" or reply.get("mode") != "enforce" or not reminder:
        return ALLOW
    return block(reminder[:REMINDER_CHARACTERS_AT_MOST])


def consult(root, question, budget_ms):
    import socket

    port = server_of(root)
    if port is None:
        raise Trouble(
            "server_gone", "the stop gate is on and its server is not running: start it with instar-server start"
        )
    body = dumps(question).encode("ascii")
    head = [
        f"POST {ROUTE} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token_of(root)}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"X-Instar-Gate-Budget-Ms: {budget_ms}",
        "Connection: close",
    ]
    if any("\n" in line or "\r" in line for line in head):
        raise Trouble("bad_token", "the token of the server is no single line")
    deadline = time.monotonic() + (budget_ms / 1000 + GRACE_S if budget_ms else HAND_OVER_S)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=HAND_OVER_S) as connection:
            connection.sendall("\r\n".join([*head, "", ""]).encode("latin-1", "replace") + body)
            received = receive(connection, deadline) if budget_ms else b""
    except OSError as error:
        raise Trouble("server_unreachable", f"the server of the stop gate cannot be asked: {error}") from error
    return parsed(received) if budget_ms else {}


def receive(connection, deadline):
    import socket

    received = b""
    while len(received) <= REPLY_BYTES_AT_MOST:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection.settimeout(left)
        try:
            chunk = connection.recv(1 << 16)
        except socket.timeout:
            break
        if not chunk:
            return received
        received += chunk
    raise Trouble("server_slow", "the server of the stop gate did not answer in time")


def parsed(received):
    head, _, body = received.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    try:
        reply = loads(body.decode("utf-8")) if status == [STATUS_OK] else None
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        told = status[0].decode("ascii", "replace") if status else "nothing"
        raise Trouble("server_refused", f"the server of the stop gate answered with no verdict: {told:.20}")
    return reply


if __name__ == "__main__":
    os._exit(main())  # nothing is left to flush, and taking the interpreter down costs a tenth of a start
