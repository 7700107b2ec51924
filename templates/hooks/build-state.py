#!/usr/bin/env python3
"""build-state: the commands of a build that a Stop hook protects. See `build-state --help`.

stdout  one JSON object when piped or with --json; text for people on a terminal
exit    0 done, 1 refused (``{"error", "code", "hint"}``), 2 wrong usage
files   .instar/state/build/ of the project: build-state.json, audit.jsonl, history/
env     INSTAR_PROJECT_DIR; CLAUDE_CODE_SESSION_ID, CODEX_SESSION_ID; TMUX, TMUX_PANE;
        INSTAR_HOOK_TMUX_SESSION and INSTAR_HOOK_NO_TMUX answer in tmux's stead

The project is the one the script is installed in; started from elsewhere it is looked for upwards from the working
folder. In a linked git worktree it is the main checkout.
"""
# instar-hooks: rendered from playbook_scripts/build_state.py and what it imports; overwritten at every upgrade.

import argparse
import fcntl
import json
import os
import sys
import time


PHASES = (
    "idle",
    "clarify",
    "planning",
    "executing",
    "verifying",
    "fixing",
    "hardening",
    "complete",
    "failed",
    "escalated",
)
TERMINAL = ("complete", "failed", "escalated")
# `failed` and `escalated` can be reached from every phase that is not terminal.
TRANSITIONS = {
    "idle": ("clarify", "planning", "executing"),
    "clarify": ("planning",),
    "planning": ("executing",),
    "executing": ("verifying", "complete"),
    "verifying": ("complete", "fixing", "hardening"),
    "fixing": ("verifying",),
    "hardening": ("complete",),
}
NEXT = {
    "idle": "Begin: settle what is unclear about the task, or write the plan.",
    "clarify": "Settle the open questions about the task, then write the plan.",
    "planning": "Finish the plan with its test strategy, then carry it out.",
    "executing": "Finish the current step: its code, its tests, the whole suite; then record it.",
    "verifying": "Check the work independently of how it was written, and use it for real.",
    "fixing": "Mend what the checks found, then verify again.",
    "hardening": "Finish the hardening list: errors surface, logs tell, health can be seen.",
}


def legal_targets(phase):
    if phase in TERMINAL:
        return []
    return [each for each in PHASES if each in TRANSITIONS.get(phase, ()) or each in ("failed", "escalated")]


INSTALLED_BELOW = os.path.join(".instar", "hooks", "instar")


def installed_root(script):
    folder = os.path.dirname(os.path.abspath(script))
    root = os.path.normpath(os.path.join(folder, "..", "..", ".."))
    return main_checkout(root) if folder == os.path.join(root, INSTALLED_BELOW) else None


def find_root(start, environ):
    named = environ.get("INSTAR_PROJECT_DIR")
    if named:
        return main_checkout(os.path.abspath(named))
    folder = start = os.path.abspath(start)
    while True:
        checkout = main_checkout(folder)
        if is_project(checkout):
            return checkout
        parent = os.path.dirname(folder)
        # A repository without `.instar` ends the search. It has a HEAD: Codex's sandbox puts an empty `.git` into each
        # folder that may be written, while a command runs in it.
        if parent == folder or os.path.exists(os.path.join(folder, ".git", "HEAD")):
            return main_checkout(start)
        folder = parent


def is_project(folder):
    inside = os.path.join(folder, ".instar")
    return any(os.path.isdir(os.path.join(inside, name)) for name in ("hooks", "state"))


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


def build_command(root):
    python = os.path.join(root, ".instar", "state", "python")
    script = os.path.join(root, INSTALLED_BELOW, "build-state.py")
    is_ours = os.path.islink(python) and os.access(python, os.X_OK)
    return f"{shell_word(python if is_ours else 'python3')} -I -S {shell_word(script)}"


def shell_word(text):
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    return text if plain.isalnum() and plain.isascii() else "'" + text.replace("'", "'\"'\"'") + "'"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure
    def __init__(self, code, text, hint = "", **fields):
        super().__init__(text)
        self.answer = {"error": text, "code": code, **fields, **({"hint": hint} if hint else {})}


WAYS_OUT = {
    "state_corrupt": "mend the file, or set it aside and start anew with init",
    "lock_timeout": "another command is at work: try again",
    "unwritable": "nothing was changed: make room or make it writable, then try again",
}


def trouble_answer(trouble):
    return Refusal(trouble.code, str(trouble), WAYS_OUT.get(trouble.code, "")).answer


def print_answer(answer, *, as_json, show):
    if as_json:
        sys.stdout.write(json.dumps(answer) + "\n")
        if answer.get("code") == "usage":
            sys.stderr.write(harmless(f"build-state: {answer['error']}\n"))
    elif "error" in answer:
        sys.stderr.write(harmless(f"build-state: {answer['error']}\n{answer.get('hint', '')}\n"))
    elif show:
        sys.stdout.write(harmless("\n".join(show(answer)) + "\n"))


def harmless(text):
    return "".join(each if each.isprintable() or each == "\n" else " " for each in text)


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


class Trouble(Exception):  # noqa: N818 - it is told, not raised to the top
    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


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


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refusal("usage", message, f"see {self.prog} --help")


class CommandLine:
    def __init__(self, prog, about):
        self.common = Parser(add_help=False, argument_default=argparse.SUPPRESS)
        where = "the project (else: where the script is installed)"
        self.common.add_argument("--project", "--dir", metavar="DIR", help=where)
        self.common.add_argument("--json", action="store_true", help="print one JSON object, on a terminal, too")
        self.parser = Parser(prog=prog, description=about, parents=[self.common])
        # With `prog` given, argparse need not format a usage text for it: that would import half the library.
        self.commands = self.parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser, prog=prog)

    def add(self, name, run, about, show):
        sub = self.commands.add_parser(name, parents=[self.common], help=about, description=about)
        sub.set_defaults(run=run, show=show)
        return sub

    def carry_out(self, arguments, script, *, as_text = None):
        as_json = "--json" in arguments or not sys.stdout.isatty()
        show = None
        try:
            options = self.parser.parse_args(arguments)
            show = options.show
            as_json = as_json and ("--json" in arguments or options.run is not as_text)
            build = Build(root_of(options, script))
            answer = options.run(build, options)
            if build.unaudited:
                answer = {**answer, "warnings": [*answer.get("warnings", []), *map(str, build.unaudited)]}
        except Refusal as refusal:
            answer = refusal.answer
        except Trouble as trouble:
            answer = trouble_answer(trouble)
        except OSError as error:
            answer = trouble_answer(Trouble("unwritable", f"{error.filename or 'the project'}: {error.strerror}"))
        print_answer(answer, as_json=as_json, show=show)
        return 0 if "error" not in answer else 2 if answer["code"] == "usage" else 1


def count(text):
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def root_of(options, script):
    named = getattr(options, "project", None)
    if named is None:
        return installed_root(script) or find_root(os.getcwd(), os.environ)
    if not os.path.isdir(named):
        raise Refusal("usage", f"--project {named} is no folder")
    return main_checkout(os.path.abspath(named))


def leave(status):
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads any more
        pass
    os._exit(status)


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


LOCK_SECONDS = 5.0


def existing(build):
    state = build.load()
    if state is None:
        raise Refusal("no_build", f"there is no build in {build.root}", 'start one: build-state init "the task"')
    state.pop("asked", None)
    return state


def running(build):
    state = existing(build)
    check_running(state)
    return state


def check_running(state):
    phase = state.get("phase")
    if phase in TERMINAL:
        text = f"the build is {phase}, and that is final"
        raise Refusal("build_terminal", text, "a new build starts with init", phase=phase)


def run_id(state):
    import hashlib

    return hashlib.sha256(text_of(state, "startedAt").encode("utf-8", "replace")).hexdigest()[:16]


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


def archive(build, state):
    history = os.path.join(build.folder, "history")
    make_folder(build.root, history)
    path = copy_of(history, state) or free_name(os.path.join(history, f"build-{utc_stamp()}"), ".json")
    relative = os.path.relpath(path, build.root)
    try:
        replace_file(path, json.dumps({**state, "archivedTo": relative}, indent=2).encode("ascii"))
    except OSError as error:
        raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error
    return relative


def copy_of(history, state):
    for name in os.listdir(history):
        if name.startswith("."):  # a temporary file of theirs
            continue
        path = os.path.join(history, name)
        try:
            with open(path, encoding="utf-8") as file:
                copy = json.load(file)
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(copy, dict) and all(copy.get(key) == state.get(key) for key in ("task", "startedAt")):
            return path
    return ""


def free_name(stem, ending):
    path, number = stem + ending, 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}{ending}"
    return path


def utc_stamp():
    return time.strftime("%Y%m%d-%H%M%S", time.gmtime())


def minutes_between(started, ended):
    from datetime import datetime, timezone

    times = []
    for text in (started, ended or now_iso()):
        try:
            time_read = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
        except ValueError:
            return None
        times.append(time_read if time_read.tzinfo else time_read.replace(tzinfo=timezone.utc))
    return round((times[1] - times[0]).total_seconds() / 60, 1)


def audit_entries(build):
    try:
        with open(build.audit_path, encoding="utf-8", errors="replace") as file:
            lines = file.readlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Trouble("unreadable", f"{build.audit_path} cannot be read: {error.strerror}") from error
    entries = []
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


TOOLS = ("Monitor", "Bash-test", "Bash-tsc", "Bash-install", "Bash-lint", "Bash-other", "none")
STATUSES = ("still-working", "no-progress-detected", "phase-boundary")
ROUTE = "/build/heartbeat"
SECONDS = 2.0
A_DAY_MS = 86_400_000


def heartbeat(build, options):
    state = running(build)
    return send(build, state, minutes_between(boundaries(build, state)[-1], None), options.tool, options.status)


def beat(build, state):
    if channel_of(os.environ):
        try:
            times = boundaries(build, state)
        except Trouble:  # an audit log that cannot be read: the command itself went well, and says so
            return
        send(build, state, minutes_between(times[-2], times[-1]), "none", "phase-boundary")


def boundaries(build, state):
    begun = state.get("startedAt")
    moves = [entry.get("timestamp") for entry in audit_entries(build) if entry.get("event") == "phase.transition"]
    return [begun, begun, *(time for time in moves if str(time) >= str(begun))]


def send(build, state, minutes, tool, status):
    channel = channel_of(os.environ)
    server = server_of(build.root)
    if channel is None or server is None:
        return {"status": "skipped", "reason": "no channel is set" if channel is None else "no server is running"}
    elapsed = int((minutes or 0) * 60_000)
    body = {
        "runId": run_id(state),
        "phase": state.get("phase"),
        "tool": tool,
        "status": status,
        "elapsedMs": elapsed if 0 <= elapsed < A_DAY_MS else 0,
        **channel,
    }
    problem = "the topic is no number" if None in channel.values() else post(build, server, body)
    if not problem:
        return {**body, "status": "sent"}
    try:
        with build.lock(LOCK_SECONDS):
            build.audit("heartbeat.skipped", phase=state.get("phase"), error=problem[:200])
    except Trouble:  # nor can that be written down: the command itself went well, and says so
        pass
    return {"status": "skipped", "reason": problem}


def channel_of(environ):
    topic, channel = environ.get("INSTAR_TELEGRAM_TOPIC"), environ.get("INSTAR_SLACK_CHANNEL")
    if topic:
        return {"topicId": int(topic) if topic.lstrip("-").isdecimal() else None}
    return {"channelId": channel} if channel else None


def post(build, port, body):
    import http.client

    headers = {"Content-Type": "application/json"}
    token = token_of(build.root)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", ROUTE, json.dumps(body), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return "" if status < 300 else f"the server answered {status}"  # noqa: PLR2004 - what HTTP calls success


INIT_TMUX_SECONDS = 3.0


def owner_stamp(options):
    me = Self("", os.environ)
    own = me.client_session()
    session = options.owner_session.strip() or own
    stamp = {"tmux": options.owner_tmux.strip(), "session": session, "stampedAt": now_iso()}
    is_mine = session == own
    if not stamp["tmux"] and (is_mine or "INSTAR_HOOK_TMUX_SESSION" in os.environ):
        stamp.update((key, value) for key, value in me.tmux(INIT_TMUX_SECONDS).items() if key != "panes")
    agent = me.agent()
    if session and is_mine and agent:
        stamp["agent"] = agent
    return stamp


def is_alive(owner, mine):
    agent = owner.get("agent")
    if isinstance(agent, dict):
        return agent != mine.get("agent") and Self("", os.environ).lives(agent)
    tmux = owner.get("tmux")
    return isinstance(tmux, str) and tmux not in ("", mine["tmux"]) and has_tmux_session(tmux)


def has_tmux_session(name):
    import subprocess

    socket = socket_of(os.environ)
    command = ["tmux", *(("-S", socket) if socket else ()), "has-session", "-t", f"={name}"]
    try:
        return subprocess.run(command, capture_output=True, timeout=INIT_TMUX_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def warnings_of(root, stamp):
    warnings = []
    if not (stamp["session"] or stamp["tmux"]):
        warnings.append(
            "no session owns this build, so none will be held: start it from the agent's own shell, "
            "or name the session with --owner-session"
        )
    if not is_registered(root):
        warnings.append(f"no Stop hook is registered in {root}: run instar-migrate there")
    return {"warnings": warnings} if warnings else {}


def is_registered(root):
    if not os.path.exists(os.path.join(root, ".instar", "hooks", "instar", "build-stop-hook.py")):
        return False
    for settings in (".claude/settings.json", ".claude/settings.local.json", ".codex/hooks.json"):
        try:
            with open(os.path.join(root, settings), encoding="utf-8", errors="replace") as file:
                if "build-stop-hook" in file.read():
                    return True
        except OSError:
            continue
    return False


def steps_of(state):
    steps = state.get("steps")
    return steps if isinstance(steps, list) else []


def latest(steps):
    return list({str(step.get("step")): step for step in steps if isinstance(step, dict)}.values())


def is_failing(step):
    return bool(step.get("tests") != step.get("passing"))


SIZES = {
    "SMALL": {"reinforcements": 3, "label": "light"},
    "STANDARD": {"reinforcements": 5, "label": "medium"},
    "LARGE": {"reinforcements": 10, "label": "heavy"},
}
COMPLETE_FROM = ("executing", "verifying", "hardening")


def init(build, options):
    task = options.task.strip()
    if not task:
        raise Refusal("usage", "the task is blank", 'name it: build-state init "what is to be built"')
    stamp = owner_stamp(options)
    with build.lock(LOCK_SECONDS):
        before, left = clear_the_way(build)
        build.save(new_state(task, options.size, options.total_steps, stamp))
        build.audit(
            "build.initialized",
            task=task,
            size=options.size,
            ownerTmux=stamp["tmux"],
            ownerSession=stamp["session"],
        )
    protection = SIZES[options.size]
    return {
        "status": "initialized",
        "task": task,
        "size": options.size,
        "protection": protection["label"],
        "reinforcements": protection["reinforcements"],
        "owner": {key: stamp[key] for key in ("session", "tmux")},
        "command": build_command(build.root),
        "next": NEXT["idle"],
        **before,
        **left,
        **warnings_of(build.root, stamp),
    }


def new_state(task, size, total_steps, stamp):
    return {
        "task": task,
        "phase": "idle",
        "size": size,
        "protection": SIZES[size],
        "startedAt": now_iso(),
        "completedAt": None,
        "owner": stamp,
        "currentStep": 0,
        "totalSteps": total_steps,
        "steps": [],
        "totalTests": 0,
        "allPassing": True,
        "fixIterations": 0,
        "maxFixIterations": 3,
        "verifyIterations": 0,
        "maxVerifyIterations": 3,
        "reinforcementsUsed": 0,
        "worktree": None,
    }


def clear_the_way(build):
    try:
        state = build.load()
    except Trouble as trouble:
        if not os.path.lexists(build.state_path):
            raise
        aside = free_name(f"{build.state_path}.corrupt-{utc_stamp()}", "")
        os.rename(build.state_path, aside)
        build.audit("state.corrupt", path=os.path.relpath(aside, build.root), error=str(trouble))
        return {"recovered": os.path.relpath(aside, build.root)}, {}
    if state is None:
        return {}, {}
    phase = state.get("phase")
    if phase not in TERMINAL:
        raise Refusal(
            "active_build",
            f"a build is active in {build.root}: {state.get('task')} (phase {phase}); a checkout has one at a time",
            "finish it with `complete`, end it with `cancel`, or start yours in another clone",
            phase=phase,
            task=state.get("task"),
        )
    answer = {} if "archivedTo" in state else {"archivedPrevious": archive(build, state)}
    worktree = state.get("worktree")
    if isinstance(worktree, dict):
        return answer, {"orphanWorktree": {key: worktree.get(key) for key in ("path", "branch")}}
    return answer, {}


def transition(build, options):
    target = options.phase
    if target not in PHASES:
        raise Refusal("invalid_phase", f"{target} is no phase", f"one of: {', '.join(PHASES)}", valid=list(PHASES))
    with build.lock(LOCK_SECONDS):
        state = running(build)
        current = text_of(state, "phase")
        if target not in legal_targets(current):
            legal = legal_targets(current)
            raise Refusal(
                "illegal_transition",
                f"a build cannot go from {current} to {target}",
                f"from {current} it can go to: {', '.join(legal)}",
                legal_targets=legal,
            )
        if target == "complete":
            check_tests(state)
        if target == "fixing":
            enter_fixing(build, state, options.evidence)
        if (current, target) == ("fixing", "verifying"):
            state["verifyIterations"] = whole_number(state, "verifyIterations", 0) + 1
        move(build, state, target, options.evidence)
    beat(build, state)
    return {
        "status": "transitioned",
        "from": current,
        "to": target,
        **({"archivedTo": state["archivedTo"]} if target in TERMINAL else {"next": NEXT[target]}),
    }


def enter_fixing(build, state, evidence):
    state["fixIterations"] = whole_number(state, "fixIterations", 0) + 1
    limit = whole_number(state, "maxFixIterations", 3)
    if state["fixIterations"] <= limit:
        return
    move(build, state, "escalated", evidence, "max_fix_iterations")
    raise Refusal(
        "fix_limit",
        f"{limit} fix cycles did not mend the build: it is escalated now",
        "tell the person what keeps failing; a new build starts with init",
        action="escalated",
    )


def move(build, state, target, evidence, reason = None):
    before, state["phase"] = state.get("phase"), target
    if target in TERMINAL:
        state["completedAt"] = now_iso()
        state["archivedTo"] = archive(build, state)
    build.save(state)
    build.audit("phase.transition", **{"from": before, "to": target, "evidence": evidence or None})
    if target == "escalated":
        build.audit("build.escalated", reason=reason or evidence, iterations=state.get("fixIterations"))
    if target == "complete":
        build.audit("build.complete", **summary(state), fixIterations=state.get("fixIterations"))


def step_complete(build, options):
    if min(options.number, options.tests, options.passing) < 0 or options.passing > options.tests:
        raise Refusal("usage", "numbers are 0 or more, and no more tests pass than there are")
    with build.lock(LOCK_SECONDS):
        state = running(build)
        phase = text_of(state, "phase")
        if phase != "executing":
            legal = legal_targets(phase)
            raise Refusal(
                "wrong_phase",
                f"steps are recorded in phase executing, and the build is in {phase}",
                f"from {phase} it can go to: {', '.join(legal)}",
                phase=phase,
            )
        steps = expect(state, "steps", list, [])
        is_repeat = any(isinstance(step, dict) and step.get("step") == options.number for step in steps)
        record = {
            "step": options.number,
            "description": options.description,
            "tests": options.tests,
            "passing": options.passing,
            "timestamp": now_iso(),
        }
        state["steps"] = [*steps, record]
        state["currentStep"] = options.number
        state["totalTests"] = sum(whole_number(step, "tests", 0) for step in state["steps"] if isinstance(step, dict))
        state["allPassing"] = not any(is_failing(step) for step in latest(state["steps"]))
        build.save(state)
        counted = {"tests": options.tests, "passing": options.passing, "totalTests": state["totalTests"]}
        build.audit("step.completed", step=options.number, description=options.description, **counted)
    return {
        "status": "step_completed",
        "step": options.number,
        **counted,
        "allPassing": state["allPassing"],
        **({"repeat": True} if is_repeat else {}),
    }


def complete(build, options):
    with build.lock(LOCK_SECONDS):
        state = existing(build)
        phase = text_of(state, "phase")
        is_repeat = phase == "complete" and "archivedTo" in state
        if phase != "complete":
            check_running(state)
            check_tests(state)
            if phase not in COMPLETE_FROM and not options.force:
                raise Refusal(
                    "illegal_transition",
                    f"a build cannot be completed from {phase}",
                    f"it can from {', '.join(COMPLETE_FROM)}; --force completes it all the same",
                    legal_targets=legal_targets(phase),
                )
        if not is_repeat:
            move(build, state, "complete", "--force" if options.force else None)
    if not is_repeat:
        beat(build, state)
    return {"status": "complete", **summary(state), "archivedTo": state["archivedTo"]}


def cancel(build, options):
    with build.lock(LOCK_SECONDS):
        state = running(build)
        state["cancelled"] = options.why
        move(build, state, "failed", options.why)
        build.audit("build.cancelled", task=state.get("task"), reason=options.why)
    return {
        "status": "cancelled",
        "task": state.get("task"),
        "reason": options.why,
        "archivedTo": state["archivedTo"],
    }


def ask(build, options):
    question = options.question.strip()
    if not question:
        raise Refusal("usage", "the question is blank", 'ask it: build-state ask "which of the two is meant?"')
    with build.lock(LOCK_SECONDS):
        state = running(build)
        state["asked"] = {"question": question, "at": now_iso()}
        build.save(state)
        build.audit("build.asked", question=question)
    return {"status": "asked", "question": question, "next": "End the turn with the question to the person."}


def adopt(build, options):
    stamp = owner_stamp(options)
    if not (stamp["session"] or stamp["tmux"]):
        hint = "run it in the agent's own shell, or name the session with --owner-session"
        raise Refusal("no_owner", "who adopts the build is not certain", hint)
    with build.lock(LOCK_SECONDS):
        state = running(build)
        before = expect(state, "owner", dict, {})
        if is_alive(before, stamp) and not options.force:
            hint = "let it go on, or take the build from it with --force"
            raise Refusal("owner_alive", "the session that owns the build is alive", hint, owner=before)
        state["owner"] = stamp
        build.save(state)
        old, new = ({key: each.get(key, "") for key in ("tmux", "session")} for each in (before, stamp))
        build.audit("owner.adopted", old=old, new=new, forced=options.force)
    return {"status": "adopted", "task": state.get("task"), "owner": new, **warnings_of(build.root, stamp)}


def check_tests(state):
    failing = [step.get("step") for step in latest(steps_of(state)) if is_failing(step)]
    if failing or state.get("allPassing") is False:
        listed = ", ".join(map(str, failing)) or "?"
        hint = "mend them and record the step again with step-complete"
        raise Refusal("tests_failing", f"tests fail in step {listed}", hint, failing=failing)


def summary(state):
    return {
        "task": state.get("task"),
        "totalTests": state.get("totalTests"),
        "stepsCompleted": len(latest(steps_of(state))),
    }


def status(build, _):
    state = build.load()
    if state is None:
        return {"status": "no_active_build"}
    asked = state.get("asked")
    fixes = ("fixIterations", "maxFixIterations", "verifyIterations")
    return {
        **{key: state.get(key) for key in ("task", "phase", "size")},
        **holds(state),
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in ("currentStep", "totalSteps", "totalTests", "allPassing", *fixes)},
        "elapsedMinutes": minutes_between(state.get("startedAt"), state.get("completedAt")),
        "owner": state.get("owner"),
        **({"worktree": state["worktree"]} if state.get("worktree") else {}),
        **({"asked": asked.get("question")} if isinstance(asked, dict) else {}),
        "next": NEXT.get(text_of(state, "phase"), ""),
        "steps": brief(state),
    }


def holds(state):
    protection = state.get("protection")
    known = protection if isinstance(protection, dict) else {}
    return {
        "protection": known.get("label", "unknown"),
        "reinforcements": known.get("reinforcements"),
        "reinforcementsUsed": state.get("reinforcementsUsed"),
    }


def brief(state):
    keys = ("step", "description", "tests", "passing")
    return [{key: step.get(key) for key in keys} for step in latest(steps_of(state))]


def resume(build, _):
    state = build.load()
    if state is None:
        return {"canResume": False, "reason": "there is no build"}
    if state.get("phase") in TERMINAL:
        return {"canResume": False, "reason": f"the build is {state['phase']}"}
    return {
        "canResume": True,
        **{key: state.get(key) for key in ("task", "phase", "size", "currentStep")},
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in ("totalTests", "allPassing")},
        "planExists": os.path.exists(os.path.join(build.folder, "plan.md")),
        **({"worktree": state["worktree"]} if state.get("worktree") else {}),
        "next": NEXT.get(text_of(state, "phase"), ""),
    }


def report(build, _):
    state = build.load()
    if state is None:
        return {"status": "no_active_build"}
    since = text_of(state, "startedAt")
    happened = [text_of(entry, "event") for entry in audit_entries(build) if text_of(entry, "timestamp") >= since]
    shown = ("totalTests", "allPassing", "fixIterations", "maxFixIterations", "worktree", "archivedTo")
    return {
        **{key: state.get(key) for key in ("task", "phase", "size")},
        **holds(state),
        "elapsedMinutes": minutes_between(state.get("startedAt"), state.get("completedAt")),
        "totalSteps": state.get("totalSteps"),
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in shown},
        "steps": brief(state),
        "events": {name: happened.count(name) for name in sorted(set(happened) - {""})},
    }


def query(build, options):
    if options.limit < 0:
        raise Refusal("usage", f"--limit is {options.limit}, expected 0 or more")
    entries = [
        entry
        for entry in audit_entries(build)
        if options.event in (None, entry.get("event"))
        and (options.phase is None or options.phase in (entry.get("from"), entry.get("to")))
    ]
    entries = entries[len(entries) - min(options.limit, len(entries)) :]
    return {"count": len(entries), "entries": entries}


def history(build, _):
    folder = os.path.join(build.folder, "history")
    builds = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                state = json.load(file)
            kept = {key: state.get(key) for key in ("task", "phase", "startedAt", "completedAt")}
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        builds.append({"file": os.path.relpath(os.path.join(folder, name), build.root), **kept})
    builds.sort(key=lambda each: str(each["startedAt"]))
    return {"count": len(builds), "builds": builds}


BAR_AT_MOST = 50


def as_lines(answer):
    return indented(answer, "")


def indented(answer, indent):
    lines = []
    for key, value in answer.items():
        label = indent + "".join(f" {each.lower()}" if each.isupper() else each for each in key)
        if isinstance(value, dict):
            lines += [f"{label}:", *indented(value, indent + "  ")]
        elif isinstance(value, list):
            lines += [f"{label}:", *(indent + "  " + as_line(item) for item in value)]
        elif value not in (None, ""):
            lines.append(f"{label}: {value}")
    return lines


def as_line(item):
    if not isinstance(item, dict):
        return str(item)
    bare = ("event", "timestamp", "file")
    return "  ".join(str(value) if key in bare else f"{key}={value}" for key, value in item.items())


def as_picture(answer):
    if "task" not in answer:
        return ["no build"]
    lines = [
        f"{answer['task']}",
        f"  {answer.get('size')} build, {minutes(answer.get('elapsedMinutes'))}{owner(answer.get('owner'))}",
        "",
        f"  {phase_line(answer.get('phase'))}",
        f"  holds  {hold_bar(answer.get('reinforcementsUsed'), answer.get('reinforcements'))}",
        f"  fixes  {answer.get('fixIterations')} of {answer.get('maxFixIterations')} rounds",
        f"  steps  {step_count(answer)}",
        *(step_line(step) for step in answer.get("steps", [])),
    ]
    worktree = answer.get("worktree")
    if isinstance(worktree, dict):
        lines.append(f"  in     {worktree.get('path')}, branch {worktree.get('branch')}")
    if answer.get("asked"):
        lines.append(f"  asked  {answer['asked']}")
    if answer.get("next"):
        lines += ["", f"  next   {answer['next']}"]
    events = answer.get("events")
    if isinstance(events, dict) and events:
        lines += ["", *(f"  {count:5}  {name}" for name, count in events.items())]
    return lines


def phase_line(phase):
    way = [each for each in PHASES if each not in TERMINAL and each != "fixing"]
    way += [phase] if phase in TERMINAL else ["complete"]
    if phase == "fixing":
        way.insert(way.index("verifying") + 1, "fixing")
    marked = [f"[{each.upper()}]" if each == phase else each for each in way]
    return " > ".join(marked) if phase in way else f"[{phase}]"


def hold_bar(used, budget):
    if not (is_count(used) and is_count(budget)):
        return f"{used} of {budget} used"
    done, size = min(int(str(used)), BAR_AT_MOST), min(int(str(budget)), BAR_AT_MOST)
    return f"{'#' * done}{'.' * (size - done)}  {used} of {budget} used"


def step_count(answer):
    of_all = f" of {answer['totalSteps']}" if answer.get("totalSteps") else ""
    return f"{answer.get('stepsCompleted')}{of_all}, {answer.get('totalTests')} tests"


def step_line(step):
    tests = f"{step.get('passing')}/{step.get('tests')}"
    return (
        f"    {step.get('step')!s:>3}  {'FAIL' if is_failing(step) else 'PASS'}  {tests:>7}  {step.get('description')}"
    )


def minutes(value):
    return "of unknown age" if value is None else f"{value} min"


def owner(stamp):
    if not isinstance(stamp, dict):
        return ""
    known = [f"{name} {stamp[key]}" for key, name in (("session", "session"), ("tmux", "tmux")) if stamp.get(key)]
    return f", owned by {' in '.join(known)}" if known else ", owned by nobody"


def add_worktree_commands(line, create, merge, cleanup):
    sub = line.add("worktree-create", create, "make a git worktree for the build, on a branch of its own", as_lines)
    sub.add_argument("--branch", metavar="NAME", help="the branch (build/<the task>)")
    sub = line.add("worktree-merge", merge, "merge the build's branch into the one it came from", as_lines)
    sub.add_argument("--keep-conflict", action="store_true", help="leave a merge with conflicts to be finished by hand")
    sub = line.add("worktree-cleanup", cleanup, "remove the worktree, and its branch if it was merged", as_lines)
    sub.add_argument("--force", action="store_true", help="with what is in no commit")


def command_line():
    line = CommandLine("build-state", "The commands of a build that holds its session until it is done.")

    def owner_options(sub):
        own = "else: the calling one"
        sub.add_argument("--owner-session", metavar="ID", default="", help=f"the client session that owns it ({own})")
        sub.add_argument("--owner-tmux", metavar="NAME", default="", help=f"the tmux session that owns it ({own})")

    sub = line.add("init", init, "start a build that the calling session owns", as_lines)
    sub.add_argument("task", help="what is to be built")
    sizes = "how often its session is held: 3, 5 or 10 times"
    sub.add_argument("--size", choices=list(SIZES), default="STANDARD", help=sizes)
    owner_options(sub)
    sub.add_argument("--total-steps", metavar="N", type=count, default=0, help="how many steps are planned")
    sub = line.add("transition", transition, "move the build to another phase", as_lines)
    sub.add_argument("phase", help=", ".join(PHASES))
    sub.add_argument("--evidence", metavar="TEXT", help="what was seen that allows it")
    sub = line.add("step-complete", step_complete, "record a finished step with its tests", as_lines)
    sub.add_argument("number", type=int, help="the number of the step")
    sub.add_argument("description", help="what was done")
    sub.add_argument("tests", type=int, help="how many tests it has")
    sub.add_argument("passing", type=int, help="how many of them pass")
    sub = line.add("complete", complete, "finish the build", as_lines)
    sub.add_argument("--force", action="store_true", help="from any phase that is not final")
    sub = line.add("cancel", cancel, "end the build unfinished", as_lines)
    sub.add_argument("why", nargs="?", default="", help="why it shall not go on")
    sub = line.add("ask", ask, "let the owner stop until the next prompt or build command", as_lines)
    sub.add_argument("question", help="what the person has to answer")
    sub = line.add("adopt", adopt, "take over the build of an owner that is gone", as_lines)
    owner_options(sub)
    sub.add_argument("--force", action="store_true", help="from an owner that lives, too")
    sub = line.add("heartbeat", heartbeat, "tell the project's server that the build goes on", as_lines)
    sub.add_argument("--tool", choices=TOOLS, default="none", help="what is running")
    sub.add_argument("--status", choices=STATUSES, default="still-working", help="how it goes")
    line.add("status", status, "show where the build stands", as_picture)
    line.add("resume", resume, "say whether there is a build to go on with", as_lines)
    line.add("report", report, "sum the build up, step by step", as_picture)
    sub = line.add("query", query, "show the last entries of the audit log", as_lines)
    sub.add_argument("--event", help="only this event, for example stop.blocked")
    sub.add_argument("--phase", help="only transitions from or to this phase")
    sub.add_argument("--limit", metavar="N", type=int, default=50, help="at most the last N (50)")
    line.add("history", history, "list the finished builds", as_lines)
    add_worktree_commands(line, hand_over, hand_over, hand_over)
    return line


def hand_over(build, _):
    program = os.path.join(build.root, INSTALLED_BELOW, "build-worktree.py")
    if not os.path.exists(program):
        text = f"the program for worktrees is not installed in {build.root}"
        raise Refusal("not_installed", text, "run instar-migrate there")
    os.execv(sys.executable, [sys.executable, "-I", "-S", program, *sys.argv[1:]])  # noqa: S606 - no shell is wanted


def main(arguments = None):
    arguments = sys.argv[1:] if arguments is None else arguments
    return command_line().carry_out(arguments, __file__, as_text=report)  # the peer's report is text, piped or not


if __name__ == "__main__":
    leave(main())
