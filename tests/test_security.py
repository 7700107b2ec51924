"""What a hostile repository, an open umask and hostile words come to; `docs/security.md` names all of it."""

from __future__ import annotations

import ast
import json
import os
import pty
import re
import shlex
import stat
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from clients.waiting import wait_until
from instar.sessions.clock import boot_id
from instar.sessions.machine.process import READER
from instar.sessions.parking.resumption import Unresumable, command
from support import BIN, DEADLINE_S, Project, executable

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs/security.md"
ROLES = {"build-stop-hook": "Stop", "stop-gate-router": "Stop", "session-event-hook": "SessionStart"}
EXCUSE = "I stop here to save context; the rest is for a fresh session."
STEERING = "\x1b]0;owned\x07\x9b2J\u202e"


def run(project: Project, *words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run an installed command in a project, however it ends."""
    return subprocess.run(
        [str(BIN / words[0]), *words[1:]], cwd=cwd or project.root, env={**project.env, **env}, capture_output=True,
        text=True, check=False, timeout=DEADLINE_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def fire(project: Project, role: str, **env: str) -> dict[str, object]:
    """Fire a registered hook for session "s" and return its answer."""
    event = ROLES[role]
    said = {"session_id": "s", "hook_event_name": event, "last_assistant_message": EXCUSE}
    done = subprocess.run(
        ["/bin/sh", "-c", project.registered("claude", role, event)], cwd=project.root, capture_output=True, check=True,
        env={**project.env, "CLAUDE_PROJECT_DIR": str(project.root), **env}, input=json.dumps(said).encode(),
        timeout=DEADLINE_S,
    )  # fmt: skip
    return dict(json.loads(done.stdout or b"{}"))


def on_a_terminal(project: Project, *words: str, cwd: Path | None = None) -> str:
    """Run a command on a terminal and return all that it wrote there."""
    ours, theirs = pty.openpty()
    env = {**project.env, "TERM": "xterm"}
    with subprocess.Popen(words, cwd=cwd or project.root, env=env, stdin=theirs, stdout=theirs, stderr=theirs):
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                said += chunk
        except OSError:  # it has ended, and nobody else has the terminal
            pass
    os.close(ours)
    return said.decode("utf-8", "replace")


def mode(place: Path) -> int:
    return stat.S_IMODE(place.lstat().st_mode)


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return what lies in a folder, by name."""
    return {place.name: (mode(place), place.read_bytes()) for place in folder.iterdir() if place.is_file()}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """Return a folder of the person's, outside of every project."""
    folder = tmp_path / "precious"
    folder.mkdir()
    return folder


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return what is there once something ran that must not."""
    return tmp_path / "ran"


@pytest.fixture
def served(project: Project) -> Iterator[Project]:
    """Return a project whose server is stopped in the end."""
    yield project
    run(project, "instar-server", "stop", "--grace", "0")


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def link(project: Project, path: str, precious: Path, text: str = "precious\n") -> Path:
    """Have a path of a project lead to a file of the person's, one that is not there where the text is empty."""
    target = precious / path.replace("/", "_")
    if text:
        target.write_text(text)
        target.chmod(0o644)
    place = project.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return target


def commit(project: Project) -> None:
    """Put all of a project into git, also what is ignored, as if long ago."""
    project.run("git", "add", "-Af", ".")
    who = ("-c", "user.name=x", "-c", "user.email=x@y")
    project.run("git", *who, "commit", "-qm", "x", GIT_COMMITTER_DATE="2020-01-01T00:00:00Z")


# Other users of the machine.


@pytest.mark.usefixtures("open_umask")
def test_nothing_of_ours_is_open_to_others_whatever_the_umask(tmp_path: Path) -> None:
    project = Project.create(tmp_path / "project")
    project.build("init", "a task", "--owner-session", "s")
    assert project.stop("s").is_held
    for role in ROLES:
        fire(project, role)
    project.build("cancel", "enough")
    project.build("init", "another", "--owner-session", "s")
    project.state_path.write_text("{")
    assert "systemMessage" in fire(project, "build-stop-hook")
    for words in ("instar-server start", "instar-gate kill-switch --set", "instar-sessions reaper enable",
                  "instar-sessions lease s ci --for 1h", "instar-peers add bob --runtime claude-code --cwd .",
                  "instar-peers stop bob", "instar-server stop"):  # fmt: skip
        done = run(project, *words.split())
        assert done.returncode == 0, done

    inside, shared = project.root / ".instar", Path(project.env["HOME"]) / ".instar"
    assert (mode(inside), mode(shared), mode(shared / "projects")) == (0o700, 0o700, 0o700)
    folders = ("agents", "logs", "server-data", "state", "backups")
    files = [place for folder in folders for place in (inside / folder).rglob("*") if place.is_file()]
    assert len(files) > 20
    record = inside / "state/py-migrated-version.json"
    assert {str(place) for place in files if mode(place) & 0o077 and not place.is_symlink()} == {str(record)}
    assert mode(record) & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_process_of_another_user_is_never_ended() -> None:
    with subprocess.Popen(["sleep", "600"]) as theirs:
        look = READER.look(theirs.pid)
        assert look
        stamp = {"pid": theirs.pid, "start": look.start, "boot": boot_id()}
        program = (
            "import os, signal, sys; from instar.sessions.parking.ending import UntoldError, hold\n"
            f"hold({stamp!r}).close()\nos.setuid(65534)\ntry:\n    hold({stamp!r}).signal(signal.SIGKILL)\n"
            "except UntoldError as error:\n    print(error)"
        )
        words = [sys.executable, "-c", program]
        said = subprocess.run(words, cwd=TESTS.parent, capture_output=True, text=True, check=False)
        lives = theirs.poll() is None
        theirs.kill()

    assert lives
    assert said.stdout == f"process {theirs.pid} may not be signalled\n", said


# Links.


BY_HOOKS = (
    *(f"logs/{role}.{end}" for role in ROLES for end in ("err", "log")), "logs/.told-build-stop-hook-state_corrupt",
    "state/build/audit.jsonl", "state/sessions/s.json",
)  # fmt: skip
LOCKS = ("state/build/.lock", "state/sessions/.lock")


@pytest.mark.parametrize("paths", [BY_HOOKS, LOCKS], ids=["files", "locks"])
def test_no_hook_and_no_build_command_writes_through_a_link(
    project: Project, precious: Path, paths: tuple[str, ...]
) -> None:
    for path in paths:
        link(project, f".instar/{path}", precious, "" if path.endswith((".lock", "_corrupt")) else "precious\n")
    before = seen(precious)

    project.build("init", "a task", "--owner-session", "s")
    for state in (None, "{"):
        if state:
            project.state_path.write_text(state)
        for role in ROLES:
            fire(project, role)
        project.build("status")

    assert seen(precious) == before


@pytest.mark.parametrize(
    ("path", "text"),
    [("logs/server.log", "precious\n"), ("server-data/token", "a word that many know\n"),
     ("server-data/stop-gate.db", ""), ("server-data/stop-gate.db.lock", ""),
     ("server-data/server.lock", ""), ("server-data/endpoint.json", "{}"), ("server-data", "")],
)  # fmt: skip
def test_the_server_writes_through_no_link(served: Project, precious: Path, path: str, text: str) -> None:
    link(served, f".instar/{path}", precious, text)
    if path == "server-data":
        (precious / ".instar_server-data").mkdir(mode=0o755)
    before = seen(precious)

    run(served, "instar-server", "start")
    run(served, "instar-gate", "mode", "shadow")
    run(served, "instar-server", "stop")

    assert seen(precious) == before
    if path == "server-data":
        assert not list((precious / ".instar_server-data").iterdir())
        assert mode(precious / ".instar_server-data") == 0o755


@pytest.mark.parametrize("path", ["CLAUDE.md", ".claude/settings.json", ".claude", ".codex/hooks.json"])
def test_a_link_out_of_the_project_that_is_in_git_is_not_followed(project: Project, precious: Path, path: str) -> None:
    run(project, "instar-migrate", "--uninstall")
    if path == ".claude":
        (precious / "claude").mkdir()
        (precious / "settings.json").write_text("{}")
        (project.root / path).symlink_to(precious)
    else:
        link(project, path, precious, "{}")
    project.run("git", "add", "-f", path)
    before = seen(precious)

    done = run(project, "instar-migrate")

    assert done.returncode == 1
    assert f"{path}" in done.stdout
    assert "leads out of the project by a link that is in git" in done.stdout
    assert seen(precious) == before


@pytest.mark.parametrize("path", [".instar/config.json", ".instar/state/py-migrated-version.json"])
def test_a_file_of_ours_that_leads_out_of_the_project_is_not_written(
    project: Project, precious: Path, path: str
) -> None:
    link(project, path, precious, "{}")
    before = seen(precious)

    done = run(project, "instar-migrate")

    assert done.returncode == 1
    assert f"{path} leads out of the project" in done.stdout
    assert seen(precious) == before


# What a repository brings along.


def test_a_token_that_comes_with_the_repository_is_not_believed(served: Project) -> None:
    token = served.root / ".instar/server-data/token"
    token.parent.mkdir()
    token.write_text("a word that many know\n")
    token.chmod(0o644)  # as git writes files

    assert run(served, "instar-server", "start").returncode == 0

    assert len(token.read_text().strip()) == 64
    assert mode(token) == 0o600


def test_an_interpreter_that_comes_with_the_repository_is_replaced(project: Project, ran: Path) -> None:
    python = project.root / ".instar/state/python"
    wanted = python.readlink()
    executable(project.root / "tools/python", f"#!/bin/sh\ntouch '{ran}'\n")
    python.unlink()
    python.symlink_to("../../tools/python")

    doctor = run(project, "instar-migrate", "doctor")
    done = run(project, "instar-migrate")

    assert "interpreter-foreign" in doctor.stdout
    assert (done.returncode, python.readlink()) == (0, wanted)
    assert not ran.exists()


def test_a_program_in_the_place_of_the_interpreter_is_not_run(project: Project, ran: Path) -> None:
    python = project.root / ".instar/state/python"
    python.unlink()
    executable(python, f"#!/bin/sh\ntouch '{ran}'\n")

    for role in ROLES:
        fire(project, role)
    run(project, "instar-migrate")
    run(project, "instar-migrate", "doctor")

    assert project.record("s")["status"] == "running"
    assert not ran.exists()


def test_hooks_that_come_with_the_repository_are_told_of_and_not_fired(project: Project, ran: Path) -> None:
    executable(project.root / ".instar/hooks/instar/run", f"#!/bin/sh\ntouch '{ran}'\n")
    executable(project.root / ".instar/hooks/instar/build-stop-hook.py", f"open({str(ran)!r}, 'w')\n")
    commit(project)

    doctor = run(project, "instar-migrate", "doctor")
    shown = run(project, "instar-migrate", "--dry-run")

    assert "(not-fired)" in doctor.stdout
    assert "(in-git)" in doctor.stdout
    assert "whoever commits decides what runs here" in shown.stdout
    assert not ran.exists()


def test_a_profile_that_comes_with_the_repository_is_not_woken(project: Project, ran: Path, tmp_path: Path) -> None:
    program = executable(project.root / "tools/claude", f"#!/bin/sh\ntouch '{ran}'\n")
    run(project, "instar-peers", "add", "bob", "--runtime", "claude-code")
    profile = project.root / ".instar/agents/bob.json"
    profile.write_text(
        json.dumps({**json.loads(profile.read_text()), "launch": {"env": {"PATH": str(program.parent)}}})
    )
    commit(project)

    woken = run(project, "instar-peers", "wake", "bob", "--json", TMUX_TMPDIR=str(tmp_path))

    assert (woken.returncode, json.loads(woken.stdout)["cause"]) == (1, "profile-in-git")
    assert not ran.exists()


def test_a_command_runs_no_program_that_a_project_has_in_the_place_of_ours(project: Project, ran: Path) -> None:
    (project.root / "file").touch()
    commit(project)
    project.build("init", "a task", "--owner-session", "s")
    executable(project.root / ".instar/hooks/instar/build-worktree.py", f"open({str(ran)!r}, 'w')\n")

    done = run(project, "build-state", "worktree-create")

    assert json.loads(done.stdout)["status"] == "worktree_created", done
    assert not ran.exists()


MODULES = ("sitecustomize", "usercustomize", "json", "os", "click", "httpx", "rich", "filelock", "instar", "migrator")
COMMANDS = (
    "build-state status", "instar-migrate", "instar-migrate doctor", "instar-gate status", "instar-sessions list",
    "instar-peers list", "instar-server start", "instar-server status",
)  # fmt: skip


def test_no_module_of_a_project_is_imported(served: Project, ran: Path) -> None:
    for name in MODULES:
        (served.root / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write({name!r})\n")
    root = str(served.root)

    answer = served.build("init", "a task", "--owner-session", "s")["command"]
    for role in ROLES:
        fire(served, role, PYTHONPATH=root, PYTHONSTARTUP=f"{root}/os.py", PYTHONHOME=root)
    served.run("/bin/sh", "-c", f"{answer} status", PYTHONPATH=root)
    for words in COMMANDS:
        run(served, *words.split())

    assert served.record("s")["status"] == "running"
    assert not ran.exists()


JUDGE = """#!{python}
import json, os, sys
if sys.stdin.read():
    with open({told!r} + "-", "w") as file:
        json.dump([dict(os.environ), sys.argv], file)
    os.rename({told!r} + "-", {told!r})
"""


def test_judging_a_stop_runs_nothing_of_the_repository_and_hands_no_secret_on(
    served: Project, ran: Path, tmp_path: Path
) -> None:
    evil = executable(tmp_path / "evil", f"#!/bin/sh\ntouch '{ran}'\ncat\n")
    told = tmp_path / "told"
    judge = executable(tmp_path / "judge", JUDGE.format(python=sys.executable, told=str(told)))
    (served.root / ".gitattributes").write_text("* diff=evil filter=evil merge=evil\n")
    (served.root / "PLAN.md").write_text("- [ ] the next step\n")
    commit(served)
    settings = ("core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "core.askPass", "diff.external",
                "diff.evil.textconv", "diff.evil.command", "filter.evil.clean", "filter.evil.smudge",
                "filter.evil.process", "merge.evil.driver", "gpg.program", "credential.helper", "alias.log",
                "alias.ls-tree", "pager.log", "interactive.diffFilter", "uploadpack.packObjectsHook")  # fmt: skip
    for key in settings:
        served.run("git", "config", key, f"!{evil}" if key.startswith("alias") else str(evil))
    hooks = served.root / "hooks"
    for name in ("post-index-change", "reference-transaction", "post-checkout", "pre-commit"):
        executable(hooks / name, f"#!/bin/sh\ntouch '{ran}'\n")
    served.run("git", "config", "core.hooksPath", str(hooks))
    served.run("git", "config", "log.showSignature", "true")
    authority = {"provider": "command", "command": [str(judge)]}
    gate = {"mode": "shadow", "requireSessionStart": True, "authority": authority}
    (served.root / ".instar/config.json").write_text(json.dumps({"unjustifiedStopGate": gate}))
    env = {"INSTAR_AUTH_TOKEN": "s3cret", "GIT_EXTERNAL_DIFF": str(evil), "GIT_SSH_COMMAND": str(evil)}

    fire(served, "session-event-hook")
    assert run(served, "instar-server", "start", **env).returncode == 0
    fire(served, "stop-gate-router", **env)
    wait_until(told.exists, "the judge was asked", seen=lambda: run(served, "instar-gate", "log", **env).stdout)
    for words in ("instar-gate status", "instar-gate log", "instar-migrate", "instar-migrate doctor",
                  "instar-sessions list", "build-state status"):  # fmt: skip
        run(served, *words.split(), **env)

    environ, argv = json.loads(told.read_text())
    assert "s3cret" not in json.dumps([environ, argv])
    assert not [name for name in environ if name.startswith("GIT_")]
    pid = json.loads((served.root / ".instar/server-data/endpoint.json").read_text())["pid"]
    assert "s3cret" not in str(psutil.Process(pid).cmdline())
    assert not ran.exists()
    served.run("git", "status")
    assert ran.exists()  # by whoever asks git without care


def test_a_judge_that_comes_with_the_repository_is_not_asked(served: Project, ran: Path) -> None:
    judge = executable(served.root / "tools/judge", f"#!/bin/sh\ntouch '{ran}'\n")
    (served.root / "PLAN.md").write_text("- [ ] the next step\n")
    gate = {"requireSessionStart": True, "authority": {"provider": "command", "command": [str(judge)]}}
    (served.root / ".instar/config.json").write_text(json.dumps({"unjustifiedStopGate": gate}))
    commit(served)

    fire(served, "session-event-hook")
    run(served, "instar-server", "start")
    fire(served, "stop-gate-router")

    said = partial(run, served, "instar-gate", "log", "--json")
    wait_until(lambda: "llmUnavailable" in said().stdout, "it is evaluated", seen=lambda: said().stdout)
    assert ".instar/config.json is in git" in (served.root / ".instar/degradations.json").read_text()
    assert not ran.exists()


# Words of others.


def test_no_command_of_a_build_steers_a_terminal(project: Project) -> None:
    begun = project.build("init", STEERING, "--owner-session", STEERING)
    project.build("step-complete", "1", STEERING, "1", "1")
    command_line = shlex.split(begun["command"])
    refused = ["transition", STEERING], ["transition", "complete"], ["worktree-merge"], [STEERING]
    for words in (["status"], ["report"], ["query"], ["resume"], ["history"], *refused):
        check_harmless(on_a_terminal(project, *command_line, *words))
    worktree = {"path": f".instar/worktrees/{STEERING}", "branch": STEERING, "sourceBranch": STEERING}
    project.change_state(phase=STEERING, worktree=worktree)
    for words in (["status"], *refused, ["cancel", STEERING]):
        check_harmless(on_a_terminal(project, *command_line, *words))


def test_no_migration_and_no_doctor_steers_a_terminal(project: Project) -> None:
    (project.root / "AGENTS.md").write_text(f"# {STEERING}\n")
    (project.root / ".instar/config.json").write_text(
        json.dumps({"sessions": {STEERING: 1, "keepEndedDays": STEERING}})
    )
    for end in ("log", "err"):
        (project.root / f".instar/logs/build-stop-hook.{end}").write_text(f"{STEERING}\n")
    odd = project.root / STEERING
    odd.mkdir()
    project.run("git", "init", "-q", str(odd))

    migrate = str(BIN / "instar-migrate")
    assert f" # {STEERING}\n" in run(project, "instar-migrate", "--diff").stdout  # a patch that is piped stays one
    for words in (["--diff"], ["--dry-run"], ["doctor"], [], ["--clients", STEERING], ["--project", STEERING]):
        check_harmless(on_a_terminal(project, migrate, *words))
    (project.root / ".claude/settings.json").write_text(json.dumps({"hooks": {"Stop": STEERING, STEERING: STEERING}}))
    for words in (["--diff"], ["doctor"], ["--repair", "--diff"]):
        check_harmless(on_a_terminal(project, migrate, *words))


def check_harmless(said: str) -> None:
    """See that a terminal was told colours, and nothing else that it obeys."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert plain.strip()
    assert not [each for each in plain if not each.isprintable() and each not in "\r\n\t"], ascii(plain)


# The server.


def test_the_server_listens_on_this_machine_alone(served: Project) -> None:
    assert run(served, "instar-server", "start").returncode == 0
    said = json.loads((served.root / ".instar/server-data/endpoint.json").read_text())

    listening = psutil.Process(said["pid"]).net_connections()

    assert {each.laddr for each in listening if each.status == psutil.CONN_LISTEN} == {("127.0.0.1", said["port"])}


def test_a_web_page_reads_nothing_and_changes_nothing(served: Project) -> None:
    assert run(served, "instar-server", "start").returncode == 0
    port = json.loads((served.root / ".instar/server-data/endpoint.json").read_text())["port"]
    token = (served.root / ".instar/server-data/token").read_text().strip()
    url, path = f"http://127.0.0.1:{port}", "/internal/stop-gate/kill-switch"
    page = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with httpx.Client(trust_env=False) as client:
        answers = [
            client.options(url + path, headers={**page, **preflight}),
            client.post(url + path, content='{"value": true}', headers={**page, "Content-Type": "text/plain"}),
            client.post(url + path, json={"value": True}, headers={**page, "Authorization": f"Bearer {token}"}),
            client.get(url + path, headers=page),
            client.get(url + path, headers={"Host": "rebound.example", "Authorization": f"Bearer {token}"}),
            client.get(f"{url}{path}?token={token}"),
        ]
        health = client.get(f"{url}/health", headers=page)
        own = client.get(url + path, headers={"Authorization": f"Bearer {token}"})

    assert {answer.status_code for answer in answers} <= {401, 403}
    assert not [name for answer in (*answers, health) for name in answer.headers if name.startswith("access-control")]
    assert served.root.name not in health.text
    assert own.status_code == 200
    assert "true" not in own.text


# What is handed to programs.


def test_no_id_of_a_session_is_an_option_of_its_client() -> None:
    with pytest.raises(Unresumable, match="option"):
        command({"client": "claude-code", "id": "--settings=evil", "cwd": "/"})


# The page.


def test_each_test_that_the_page_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE.read_text())
    assert len(named) > 80
    missing = [f"{path}::{name}" for path, name in named if name not in names_in(TESTS.parent / path)]
    assert not missing


def test_each_claim_of_the_page_names_a_test() -> None:
    """See that no row of a table that has a column of tests goes without one."""
    shown = False
    for line in PAGE.read_text().splitlines():
        shown = line.startswith("|") and (shown or line.endswith("| Shown by |"))
        if shown and not line.endswith(("| Shown by |", "|---|")):
            assert "::" in line.rsplit(" | ", 1)[-1], line


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text()) if path.is_file() else ast.parse("")
    return {each.name for each in ast.walk(tree) if isinstance(each, (ast.FunctionDef, ast.AsyncFunctionDef))}
