#!/usr/bin/env python3
"""build-worktree: the worktree of a build. `build-state worktree-create|merge|cleanup` become this program.

stdout  one JSON object when piped or with --json; text for people on a terminal
exit    0 done, 1 refused (``{"error", "code", "hint"}``), 2 wrong usage
files   .instar/worktrees/ of the project, its git repository, and the state and audit log of the build
env     git's own variables that name the person; those that name a repository are not passed on
"""
# instar-hooks: rendered from playbook_scripts/build_worktree.py and what it imports; overwritten at every upgrade.

import argparse
import fcntl
import json
import os
import sys
import time


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


def shell_word(text):
    plain = text.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    return text if plain.isalnum() and plain.isascii() else "'" + text.replace("'", "'\"'\"'") + "'"


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


def text_of(values, key):
    value = values.get(key)
    return value if isinstance(value, str) else ""


TERMINAL = ("complete", "failed", "escalated")


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


GIT_SECONDS = 60
MERCY_SECONDS = 5  # to take its locks and halves away
SETTINGS = ("-c", "merge.autoStash=false")  # which would take what is staged out of the index
OF_THE_PERSON = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG_")
SAID_AT_MOST = 2000


class Git:
    def __init__(self, folder, *, is_top = False):
        self.folder = folder
        # A caller inside a git hook has GIT_DIR and its like set, which would lead git to another repository.
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("GIT_") or name.startswith(OF_THE_PERSON)
        }
        self.environ.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0")
        if is_top:
            self.environ["GIT_CEILING_DIRECTORIES"] = os.path.dirname(folder)

    def run(self, *arguments):
        import subprocess
        import tempfile

        # Files, not pipes: what a hook of git's leaves running would hold a pipe open long after git has ended.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            try:
                process = subprocess.Popen(
                    ["git", *SETTINGS, *arguments],
                    cwd=self.folder,
                    env=self.environ,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                )
            except OSError as error:
                text = f"git cannot be run in {self.folder}: {error.strerror}: {error.filename}"
                raise Refusal("not_git", text, "install git, or put it on PATH") from error
            except ValueError as error:
                hint = "mend what names it, in the build state or on the command line"
                raise Refusal("worktree_failed", f"git {arguments[0]} cannot be told: {error}", hint) from error
            try:
                status = process.wait(GIT_SECONDS)
            except subprocess.TimeoutExpired as error:
                text = f"git {arguments[0]} did not end within {GIT_SECONDS} s"
                raise Refusal("worktree_failed", text, "see what keeps it, then try again") from error
            finally:
                end(process)
            return subprocess.CompletedProcess(process.args, status, content(stdout), content(stderr))

    def says(self, *arguments):
        done = self.run(*arguments)
        return str(done.stdout).rstrip("\n") if done.returncode == 0 else ""

    def agrees(self, *arguments):
        return bool(self.run(*arguments).returncode == 0)

    def do(self, *arguments, hint = "mend what git names, then try again"):
        done = self.run(*arguments)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()[:SAID_AT_MOST]
            raise Refusal("worktree_failed", f"git {arguments[0]} failed: {said}", hint, stderr=said)
        return str(done.stdout)

    def trouble(self, *arguments):
        try:
            self.do(*arguments)
        except Refusal as refusal:
            return refusal
        return None

    def branch(self):
        # Not --short, which lengthens the name again where a tag has the same.
        return self.says("symbolic-ref", "--quiet", "HEAD").replace("refs/heads/", "", 1)

    def has_branch(self, name):
        return self.agrees("show-ref", "--verify", "--quiet", f"refs/heads/{name}")

    def has_commits_of(self, one, other = "HEAD"):
        return self.agrees("merge-base", "--is-ancestor", one, other)

    def is_merging(self):
        return self.agrees("rev-parse", "--quiet", "--verify", "MERGE_HEAD")

    def changed(self):
        fields = self.do("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split("\0")
        return [field[3:] for field in fields if field]  # two letters and a blank stand first

    def differing(self, *what):
        return [name for name in self.do("diff", "--name-only", "--no-renames", "-z", *what).split("\0") if name]


def end(process):
    import signal
    import subprocess

    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(MERCY_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def content(file):
    file.seek(0)
    return str(file.read().decode("utf-8", "surrogateescape"))


def free_name(stem, ending):
    path, number = stem + ending, 1
    while os.path.lexists(path):
        number += 1
        path = f"{stem}-{number}{ending}"
    return path


FOLDER = ".instar/worktrees"
WAIT_SECONDS = GIT_SECONDS + 5.0
LISTED_AT_MOST = 20


def worktree_create(build, options):
    with Turn(build):
        state = running(build)
        check_none(state)
        git = repository(build.root)
        source = source_of(git)
        branch = options.branch or default_branch(state)
        # git spells out what stands for a branch, like @{-1}: that is no name either.
        if git.says("check-ref-format", "--branch", branch) != branch:
            raise Refusal("worktree_failed", f"{branch} is no name for a branch", "name one with --branch")
        is_reused = git.has_branch(branch)
        place = left_behind(git, branch)
        path, warned = (place, {}) if place else made(git, branch, is_reused=is_reused)
        record(build, {"path": path, "branch": branch, "sourceBranch": source, "createdAt": now_iso()})
    return {
        "status": "worktree_created",
        "path": path,
        "branch": branch,
        "sourceBranch": source,
        **({"branchReused": True} if is_reused else {}),
        **warned,
        "instruction": f"cd {shell_word(os.path.join(build.root, path))}",
    }


def worktree_merge(build, options):
    with Turn(build):
        tree = Tree(build)
        git = repository(build.root)
        tree.check_clean()
        tree.check_branches(git)
        if git.is_merging():
            raise Refusal("worktree_failed", f"a merge is under way in {build.root}", "finish or abort it first")
        answer = {"status": "merged", "branch": tree.branch, "into": tree.source}
        if git.has_commits_of(tree.ref):
            return {**answer, "alreadyMerged": True}
        reach = Reach(git, tree)
        reach.check_way()
        # What the branch's `mergeOptions` may ask for would leave the merge without a commit.
        whole = ("--no-ff", "--no-squash", "--commit", "--no-edit")
        trouble = git.trouble("merge", *whole, "-m", f"Merge {tree.branch}", tree.ref)
        if trouble and not git.has_commits_of(tree.ref):
            raise merge_failed(git, tree, reach, trouble, keep=options.keep_conflict)
        with build.lock(LOCK_SECONDS):
            build.audit("worktree.merged", branch=tree.branch, into=tree.source)
    warned = {"warnings": [str(trouble)]} if trouble else {}
    return {**answer, "commit": git.says("rev-parse", "HEAD"), **warned}


def worktree_cleanup(build, options):
    with Turn(build):
        tree = Tree(build)
        git = repository(build.root)
        if not options.force:
            tree.check_clean()
            tree.check_reachable()
        if tree.is_there:
            forced = ("--force",) if options.force else ()
            hint = f"mend what git names; where nothing in {tree.path} is needed, move it away and try again"
            git.do("worktree", "remove", *forced, "--", tree.folder, hint=hint)
        git.do("worktree", "prune")
        if is_merged(git, tree):
            git.run("branch", "-D", "--", tree.branch)
        is_kept = git.has_branch(tree.branch)
        record(build, None, path=tree.path, branch=tree.branch, branchKept=is_kept)
    kept = {"branchKept": True} if is_kept else {}
    return {"status": "cleaned", "path": tree.path, "branch": tree.branch, **kept}


class Turn(Lock):
    def __init__(self, build):
        super().__init__(build.root, build.folder, WAIT_SECONDS, ".worktree.lock")


class Tree:
    def __init__(self, build):
        known = worktree_of(existing(build))
        if known is None:
            raise Refusal("no_worktree", "the build has no worktree", "make one with worktree-create")
        self.path, self.branch, self.source = known
        self.ref = f"refs/heads/{self.branch}"  # a tag may have the short name, and comes first
        self.folder = os.path.join(build.root, self.path)
        self.is_there = os.path.isdir(self.folder) and not os.path.islink(self.folder)
        self.git = Git(self.folder, is_top=True)

    def check_clean(self):
        changed = self.git.changed() if self.is_there else []
        if changed:
            text = f"{self.path} has changes that are in no commit: {listed(changed, 3)}"
            raise Refusal("worktree_dirty", text, "commit them, or remove them, there", files=changed[:LISTED_AT_MOST])

    def check_reachable(self):
        kept = ("--not", "--branches", "--tags", "--remotes")
        loose = self.git.do("rev-list", "--max-count=1", "HEAD", *kept).strip() if self.is_there else ""
        if loose:
            text = f"{self.path} is at a commit that is on no branch: {loose}"
            raise Refusal("worktree_dirty", text, "put it on a branch there: git branch NAME", commit=loose)

    def check_branches(self, main):
        if not main.has_branch(self.branch):
            hint = "bring it back with git branch, or end the worktree with worktree-cleanup"
            raise Refusal("worktree_failed", f"there is no branch {self.branch} any more", hint)
        for git, branch in ((main, self.source), *(((self.git, self.branch),) if self.is_there else ())):
            current = git.branch()
            if current != branch:
                text = f"{git.folder} is on {current or 'no branch'}, and the build's worktree was made for {branch}"
                there = f"check out {branch} there, or merge" if main.has_branch(branch) else "merge"
                raise Refusal("wrong_branch", text, f"{there} {self.branch} by hand where it belongs")


def worktree_of(state):
    worktree = state.get("worktree")
    if not worktree:
        return None
    values = worktree if isinstance(worktree, dict) else {}
    path, branch, source = (text_of(values, key) for key in ("path", "branch", "sourceBranch"))
    folder, name = os.path.split(path)
    if folder == FOLDER and name not in ("", ".", "..") and branch and source:
        return path, branch, source
    text = f'the build state\'s key "worktree" is {worktree!r:.200}, expected path, branch and sourceBranch'
    raise Trouble("state_corrupt", f"{text} of one below {FOLDER}")


class Reach:
    def __init__(self, git, tree):
        self.git = git
        self.top = git.says("rev-parse", "--show-toplevel")
        self.changed = git.changed()
        self.written = git.differing("--diff-filter=d", f"HEAD...{tree.ref}")
        not_in_head = set(git.differing("--diff-filter=A", "HEAD", tree.ref))
        self.new = [name for name in self.written if name in not_in_head]

    def check_way(self):
        lost = self.there(self.new)
        if lost:
            text = f"the merge would write over files that are in no commit: {listed(lost, LISTED_AT_MOST)}"
            raise Refusal("worktree_failed", text, "move them away, then merge again", files=lost[:LISTED_AT_MOST])

    def take_back(self):
        torn = sorted(set(self.git.changed()) & set(self.written) - {*self.changed, *self.new})
        new = self.there(self.new)
        for name in new:
            os.unlink(os.path.join(self.top, name))
        if torn:
            names = [f":(top,literal){name}" for name in torn]
            self.git.do("checkout", "HEAD", "--", *names, hint=f"bring back what is in HEAD of {listed(torn, 20)}")
        return bool(torn or new)

    def there(self, names):
        return [name for name in names if os.path.lexists(os.path.join(self.top, name))]


def merge_failed(git, tree, reach, refusal, *, keep):
    is_merging = git.is_merging()
    conflicts = git.differing("--diff-filter=U") if is_merging else []
    aborted = False
    if not is_merging:
        aborted = reach.take_back()
    elif not (keep and conflicts):
        aborted = git.agrees("merge", "--abort")
    text, hint = str(refusal), str(refusal.answer["hint"])
    if conflicts:
        text = f"{tree.branch} and {tree.source} conflict in {listed(conflicts, LISTED_AT_MOST)}"
        hint = f"merge {tree.source} in {tree.path}, mend the conflicts there, commit, and merge again"
    if is_merging and not aborted:
        hint = f"finish the merge in {git.folder} with git commit, or undo it with git merge --abort"
    code = "merge_conflict" if conflicts else "worktree_failed"
    named = {"conflicts": conflicts} if conflicts else {}
    return Refusal(code, text, hint, **named, aborted=aborted, stderr=refusal.answer.get("stderr", ""))


def listed(names, at_most):
    return ", ".join(names[:at_most]) + (", ..." if len(names) > at_most else "")


def is_merged(git, tree):
    source = f"refs/heads/{tree.source}" if git.has_branch(tree.source) else tree.source
    return tree.source != tree.branch and git.has_commits_of(tree.ref, source)


def check_none(state):
    known = worktree_of(state)
    if known:
        path, branch, _ = known
        hint = "work there, or end it with worktree-cleanup"
        raise Refusal("worktree_exists", f"the build has a worktree: {path}", hint, path=path, branch=branch)


def repository(root):
    git = Git(root)
    done = git.run("rev-parse", "--git-dir")
    if done.returncode:
        text = f"git finds no repository in {root}: {done.stderr.strip()[:SAID_AT_MOST]}"
        raise Refusal("not_git", text, "mend what git names, or make one with git init and commit once")
    return git


def source_of(git):
    commit = git.says("rev-parse", "--quiet", "--verify", "HEAD^{commit}")
    if not commit:
        text = f"the repository of {git.folder} has no commit yet"
        raise Refusal("not_git", text, "commit once, then try again")
    return git.branch() or commit


def default_branch(state):
    text = text_of(state, "task")[:40].lower()
    slug = "".join(char if char.isalnum() or char == "-" else "-" for char in text).strip("-")
    return f"build/{slug or 'task-' + run_id(state)[:8]}"


def left_behind(git, branch):
    folder = os.path.realpath(os.path.join(git.folder, FOLDER))
    for entry in git.do("worktree", "list", "--porcelain").split("\n\n"):
        place, *said = entry[len("worktree ") :].split("\n")
        if f"branch refs/heads/{branch}" not in said or os.path.dirname(place) != folder:
            continue
        is_half = "locked initializing" in said  # by git, until all files are checked out
        if os.path.isdir(place) and not is_half:
            return f"{FOLDER}/{os.path.basename(place)}"
        git.do("worktree", "remove", *(("--force", "--force") if is_half else ()), "--", place)
    return ""


def made(git, branch, *, is_reused):
    path = free_path(git.folder, branch)
    make_folder(git.folder, os.path.join(git.folder, FOLDER))
    what = ("--", path, branch) if is_reused else ("-b", branch, "--", path, "HEAD")
    trouble = git.trouble("worktree", "add", *what)
    if not trouble:
        return path, {}
    path = left_behind(git, branch)
    if path:
        return path, {"warnings": [str(trouble)]}
    if not is_reused:
        git.run("branch", "-d", "--", branch)
    raise trouble


def free_path(root, branch):
    return os.path.relpath(free_name(os.path.join(root, FOLDER, branch.replace("/", "-")), ""), root)


def record(build, worktree, **cleaned):
    with build.lock(LOCK_SECONDS):
        state = existing(build)
        state["worktree"] = worktree
        build.save(state)
        if worktree is None:
            build.audit("worktree.cleaned", **cleaned)
        else:
            build.audit("worktree.created", **{key: worktree[key] for key in ("path", "branch", "sourceBranch")})


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


def add_worktree_commands(line, create, merge, cleanup):
    sub = line.add("worktree-create", create, "make a git worktree for the build, on a branch of its own", as_lines)
    sub.add_argument("--branch", metavar="NAME", help="the branch (build/<the task>)")
    sub = line.add("worktree-merge", merge, "merge the build's branch into the one it came from", as_lines)
    sub.add_argument("--keep-conflict", action="store_true", help="leave a merge with conflicts to be finished by hand")
    sub = line.add("worktree-cleanup", cleanup, "remove the worktree, and its branch if it was merged", as_lines)
    sub.add_argument("--force", action="store_true", help="with what is in no commit")


def main(arguments = None):
    line = CommandLine("build-state", "The worktree of a build.")
    add_worktree_commands(line, worktree_create, worktree_merge, worktree_cleanup)
    return line.carry_out(sys.argv[1:] if arguments is None else arguments, __file__)


if __name__ == "__main__":
    leave(main())
