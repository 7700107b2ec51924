"""What the doctor finds in a project that was set up, what it mends, and what it leaves alone."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from migrator.doctor import examination
from migrator.doctor.findings import Finding
from stand_ins import Client
from support import BIN, Project, executable
from tests.migrator.scratch import CAP, CLIENT_FILES, CODEX, HOOKS, LOCAL, PYTHON, SETTINGS, Scratch, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Break = Callable[[Scratch], object]

STATE = ".instar/state/build/build-state.json"
CONFIG = ".codex/config.toml"
SETTING = ".instar/config.json"
DATA = ".instar/server-data"
MODE = ".instar/state/session-reaper-mode.json"
REAPER = ".instar/state/session-reaper.json"
RECORDS = ".instar/state/sessions"
AGENTS = ".instar/agents"
EVENTS = ".instar/logs/sentinel-events.jsonl"
AT_HOME = "../home/"  # from the project
COMMANDS = {"claude": 5, "codex": 6}  # of ours that are registered with a client
ALL = sum(COMMANDS.values())
WEEK_S = 7 * 24 * 3600


class Seen(NamedTuple):
    """What a doctor said to a program."""

    status: int
    findings: list[dict[str, Any]]

    def codes(self, *levels: str) -> set[str]:
        return {each["code"] for each in self.findings if each["level"] in levels and not each["fixed"]}

    @property
    def defects(self) -> set[str]:
        return self.codes("error", "warning")

    @property
    def fixed(self) -> set[str]:
        return {each["code"] for each in self.findings if each["fixed"]}

    def one(self, code: str) -> dict[str, Any]:
        (found,) = [each for each in self.findings if each["code"] == code]
        return found


def doctor(scratch: Scratch, *options: str) -> Seen:
    """Run the doctor and return what it found; its report must be sound."""
    done = scratch.run("doctor", "--json", *options)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert list(report) == ["project", "findings", "errors", "warnings"]
    assert report["project"] == str(scratch.project)
    for each in report["findings"]:
        assert list(each) == ["code", "level", "text", "fix", "fixed"]
        assert "\n" not in each["text"] + each["fix"]
        assert bool(each["fix"]) == (each["level"] != "ok")
    for level in ("error", "warning"):
        left = [each for each in report["findings"] if each["level"] == level and not each["fixed"]]
        assert report[f"{level}s"] == len(left)
    assert done.returncode == (1 if report["errors"] else 0)
    return Seen(done.returncode, report["findings"])


def first_entry(scratch: Scratch, path: str, **changes: object) -> None:
    """Edit the first hook of ours at Stop; None takes a key out."""
    settings = scratch.json(path)
    entry = settings["hooks"]["Stop"][0]["hooks"][0]
    entry.update(changes)
    for key in [key for key, value in entry.items() if value is None]:
        del entry[key]
    scratch.write_json(path, settings)


def add_hook(scratch: Scratch, path: str, event: str = "Stop", **entry: object) -> None:
    settings = scratch.json(path) if scratch.has(path) else {}
    settings.setdefault("hooks", {}).setdefault(event, []).append({"hooks": [entry]})
    scratch.write_json(path, settings)


def add_key(scratch: Scratch, path: str, **keys: object) -> None:
    scratch.write_json(path, {**(scratch.json(path) if scratch.has(path) else {}), **keys})


def registered(scratch: Scratch, path: str) -> dict[str, Any]:
    entry = scratch.json(path)["hooks"]["Stop"][0]["hooks"][0]
    assert isinstance(entry, dict)
    return entry


def meaning(scratch: Scratch) -> dict[str, object]:
    """Return all that is in the project; of the clients' files what they mean: what is mended may stand elsewhere."""
    return {**scratch.files(), **{path: scratch.json(path) for path in CLIENT_FILES}}


def link_python(scratch: Scratch, target: str | Path) -> None:
    scratch.place(PYTHON).unlink()
    scratch.place(PYTHON).symlink_to(target)


def program(scratch: Scratch, name: str, *lines: str) -> Path:
    """Write a shell script that the person has on PATH."""
    return executable(scratch.project.parent / "bin" / name, "\n".join(["#!/bin/sh", *lines, ""]))


def aged(place: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(place, (then, then), follow_symlinks=False)


# A healthy project


def test_healthy_project_has_no_defect(installed: Scratch) -> None:
    seen = doctor(installed)
    assert seen.defects == set()
    assert f"{ALL} registered commands" in seen.one("hooks-fired")["text"]
    assert {"our-files", "interpreter", "registrations", "no-codex", "build", "logs"} <= seen.codes("ok")


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_healthy_project_of_one_client_has_no_defect(scratch: Scratch, client: str) -> None:
    scratch.migrate("--clients", client)
    seen = doctor(scratch)
    assert seen.defects == set()
    assert f"{COMMANDS[client]} registered commands" in seen.one("hooks-fired")["text"]


def test_looking_changes_nothing(installed: Scratch) -> None:
    installed.write(".instar/logs/build-stop-hook.err", "it died\n")
    installed.write(".instar/logs/session-event-hook.err", "it died, too\n")
    before = {path: (seen.mode, seen.content) for path, seen in snapshot(installed.project.parent).items()}
    doctor(installed)
    assert {path: (seen.mode, seen.content) for path, seen in snapshot(installed.project.parent).items()} == before


def test_mending_a_healthy_project_changes_nothing(installed: Scratch) -> None:
    before = installed.files()
    assert doctor(installed, "--fix").fixed == set()
    assert installed.files() == before


def test_project_is_found_from_a_folder_in_it_and_by_name(installed: Scratch) -> None:
    inside = installed.place("a/b")
    inside.mkdir(parents=True)
    assert installed.run("doctor", cwd=inside).stdout.startswith(f"project {installed.project}\n")
    done = installed.run("doctor", "--project", installed.project, cwd=installed.home)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("options", [[], ["--fix"]])
def test_project_that_was_not_set_up_has_one_defect(scratch: Scratch, options: list[str]) -> None:
    before = scratch.snapshot()
    seen = doctor(scratch, *options)
    assert [each["code"] for each in seen.findings] == ["not-installed"]
    assert seen.one("not-installed")["fix"] == "instar-migrate"
    assert scratch.snapshot() == before


def test_home_is_refused(scratch: Scratch) -> None:
    assert str(scratch.home) in scratch.refused("doctor", "--json", cwd=scratch.home)


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["argument"], ["--project", "missing"]])
def test_wrong_usage_is_refused(scratch: Scratch, arguments: list[str]) -> None:
    assert scratch.run("doctor", *arguments).returncode == 2


# What a migration mends

MENDED: dict[str, tuple[Break, set[str], set[str]]] = {  # what is done to the project, the errors, the warnings
    "launcher missing": (lambda it: it.place(f"{HOOKS}/run").unlink(), {"missing-file", "dangling"}, set()),
    "hook file missing": (lambda it: it.place(f"{HOOKS}/build-stop-hook.py").unlink(), {"missing-file"}, set()),
    "launcher not executable": (lambda it: it.place(f"{HOOKS}/run").chmod(0o644), {"not-executable"}, set()),
    "mode of a hook": (lambda it: it.place(f"{HOOKS}/build-state.py").chmod(0o700), set(), {"changed-mode"}),
    "hook edited": (
        lambda it: it.replace(f"{HOOKS}/build-stop-hook.py", "# instar-hooks", "# my hooks"),
        set(),
        {"edited-file"},
    ),
    "interpreter gone": (lambda it: link_python(it, "/nowhere/python3"), {"interpreter-missing"}, set()),
    "no interpreter": (lambda it: it.place(PYTHON).unlink(), {"interpreter-missing"}, set()),
    "claude timeout 0": (
        lambda it: first_entry(it, SETTINGS, timeout=0),
        {"settings-dropped"},
        {"edited-registration"},
    ),
    "claude timeout text": (
        lambda it: first_entry(it, SETTINGS, timeout="10"),
        {"settings-dropped"},
        {"edited-registration"},
    ),
    "codex timeout negative": (
        lambda it: first_entry(it, CODEX, timeout=-1),
        {"settings-dropped"},
        {"edited-registration"},
    ),
    "codex timeout a float": (
        lambda it: first_entry(it, CODEX, timeout=2.5),
        {"settings-dropped"},
        {"edited-registration"},
    ),
    "codex type gone": (lambda it: first_entry(it, CODEX, type=None), {"settings-dropped"}, {"edited-registration"}),
    "block cap gone": (lambda it: it.place(LOCAL).unlink(), set(), {"block-cap-unset"}),
    "gitignore gone": (lambda it: it.place(".instar/.gitignore").unlink(), set(), {"gitignore"}),
}
for _path in CLIENT_FILES:
    MENDED |= {
        f"duplicate in {_path}": (
            lambda it, path=_path: add_hook(it, path, **registered(it, path)),
            {"duplicate-registration"},
            set(),
        ),
        f"nothing at an event of {_path}": (
            lambda it, path=_path: it.replace(path, '"SessionEnd"', '"Elsewhere"'),
            {"missing-registration"},
            {"edited-registration"},
        ),
        f"no {_path}": (lambda it, path=_path: it.place(path).unlink(), {"missing-registration"}, set()),
        f"milliseconds in {_path}": (
            lambda it, path=_path: first_entry(it, path, timeout=10_000),
            {"wrong-timeout"},
            set(),
        ),
        f"no timeout in {_path}": (
            lambda it, path=_path: first_entry(it, path, timeout=None),
            set(),
            {"edited-registration"},
        ),
        f"command edited in {_path}": (
            lambda it, path=_path: it.replace(path, "; exit 0", "; :; exit 0", 1),
            set(),
            {"edited-registration"},
        ),
    }


@pytest.mark.parametrize("name", MENDED)
def test_what_is_ours_is_named_and_mended(installed: Scratch, name: str) -> None:
    damage, errors, warnings = MENDED[name]
    before = meaning(installed)
    damage(installed)
    damaged = installed.files()

    seen = doctor(installed)
    assert (seen.codes("error"), seen.codes("warning")) == (errors, warnings)
    assert {each["fix"] for each in seen.findings if each["level"] != "ok"} == {"instar-migrate"}
    assert installed.files() == damaged

    mended = doctor(installed, "--fix")
    assert (mended.status, mended.defects, mended.fixed) == (0, set(), errors | warnings)
    assert meaning(installed) == before
    assert doctor(installed).defects == set()


# What is the person's to mend


def stale(scratch: Scratch, **keys: object) -> Path:
    return scratch.write(STATE, json.dumps({"phase": "executing", **keys}))


def reaper(scratch: Scratch, mode: str, **switch: object) -> None:
    """Have the session reaper set so by its operator."""
    scratch.write_json(MODE, {"mode": mode, **switch})


def peer(scratch: Scratch, file: str, **values: object) -> None:
    """Have the profile of a peer say this."""
    scratch.write_json(f"{AGENTS}/{file}.json", {"name": file, "runtime": "claude-code", **values})


def starved(seconds: float) -> str:
    """Return the row in which the reaper told that it starves, so long ago."""
    at = datetime.fromtimestamp(time.time() - seconds, timezone.utc).isoformat()
    return (
        json.dumps({"ts": at, "event": "reaper-starved", "why": "one gate keeps all", "keptBy": "opaque-pane"}) + "\n"
    )


USERS: dict[str, tuple[Break, str, str]] = {  # what is done to the project, the code, its level
    "foreign hook dangling": (
        lambda it: add_hook(
            it, SETTINGS, type="command", command='python3 "$CLAUDE_PROJECT_DIR"/.instar/hooks/custom/gone.py'
        ),
        "dangling",
        "error",
    ),
    "foreign hook dangling in codex": (
        lambda it: add_hook(it, CODEX, type="command", command="sh .instar/hooks/custom/gone.sh"),
        "dangling",
        "error",
    ),
    "broken claude settings": (lambda it: it.write(SETTINGS, '{\n  "hooks": {,\n}\n'), "settings-broken", "error"),
    "broken local settings": (lambda it: it.write(LOCAL, "{"), "settings-broken", "warning"),
    "broken settings of the person": (
        lambda it: it.write(f"{AT_HOME}.claude/settings.json", "{"),
        "settings-broken",
        "warning",
    ),
    "broken codex hooks": (lambda it: it.write(CODEX, "[,]"), "settings-broken", "error"),
    "broken codex config": (lambda it: it.write(f"{AT_HOME}{CONFIG}", "[features\n"), "settings-broken", "error"),
    "foreign timeout of 0": (
        lambda it: add_hook(it, SETTINGS, type="command", command="say", timeout=0),
        "settings-dropped",
        "error",
    ),
    "foreign hook without a command": (
        lambda it: add_hook(it, SETTINGS, "PreToolUse", type="command"),
        "settings-dropped",
        "error",
    ),
    "foreign codex timeout": (
        lambda it: add_hook(it, CODEX, type="command", command="say", timeout="5"),
        "settings-dropped",
        "error",
    ),
    "unknown key in codex hooks": (lambda it: add_key(it, CODEX, **{"$schema": "x"}), "settings-dropped", "error"),
    "codex features": (lambda it: it.write(CONFIG, "[features]\nhooks = false\n"), "hooks-disabled", "error"),
    "codex features of the person": (
        lambda it: it.write(f"{AT_HOME}{CONFIG}", "[features]\nhooks = false\n"),
        "hooks-disabled",
        "error",
    ),
    "registered in codex's home": (
        lambda it: add_hook(it, f"{AT_HOME}{CODEX}", **registered(it, CODEX)),
        "fires-twice",
        "error",
    ),
    "registered in codex's config": (
        lambda it: it.write(
            CONFIG,
            "[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ntype = 'command'\n"
            f"command = {json.dumps(registered(it, CODEX)['command'])}\n",
        ),
        "fires-twice",
        "error",
    ),
    "another registration of the person": (
        lambda it: add_hook(
            it, f"{AT_HOME}{SETTINGS}", type="command", command=f'"$CLAUDE_PROJECT_DIR"/{HOOKS}/run build-stop-hook'
        ),
        "fires-twice",
        "error",
    ),
    "low block cap": (lambda it: it.write_json(LOCAL, {"env": {CAP: "3"}}), "block-cap-low", "warning"),
    "gitignore without a star": (lambda it: it.write(".instar/.gitignore", "state/\n"), "gitignore", "warning"),
    "interpreter that is none": (lambda it: link_python(it, "/bin/sh"), "interpreter-broken", "error"),
    "interpreter that is too old": (
        lambda it: link_python(it, program(it, "old", 'case $* in *version*) echo 3 6;; *) exec "$0.py";; esac')),
        "interpreter-old",
        "error",
    ),
    "interpreter behind a slow shim": (
        lambda it: link_python(it, program(it, "shim", f'/bin/sleep 0.2; exec {sys.executable} "$@"')),
        "interpreter-slow",
        "warning",
    ),
    "build of a process that ended": (
        lambda it: stale(it, owner={"session": "s", "agent": {"pid": 2**22 + 1, "start": "1", "boot": "x"}}),
        "stale-build",
        "warning",
    ),
    "build that nobody touched": (lambda it: aged(stale(it), WEEK_S + 3600), "stale-build", "warning"),
    "configuration that is no JSON": (lambda it: it.write(SETTING, "{"), "config-broken", "error"),
    "value that breaks a rule": (
        lambda it: it.write(SETTING, '{"sessions": {"keepEndedDays": 0}}'),
        "config-value",
        "warning",
    ),
    "gate without a server": (lambda it: it.write(f"{DATA}/gate-on", "shadow"), "gate-without-server", "error"),
    "gate whose server is gone": (
        lambda it: (it.write(f"{DATA}/gate-on", "shadow"), it.write(f"{DATA}/endpoint.json", '{"pid": 4194303}')),
        "gate-without-server",
        "error",
    ),
    "reaper without a server": (lambda it: reaper(it, "dry-run"), "reaper-without-server", "warning"),
    "reaper whose last look is old": (
        lambda it: (reaper(it, "live"), it.write_json(REAPER, {"at": {"wall": time.time() - 90_000}})),
        "reaper-without-server",
        "warning",
    ),
    "reaper by the configuration without a server": (
        lambda it: it.write(SETTING, '{"monitoring": {"sessionReaper": {"enabled": true}}}'),
        "reaper-without-server",
        "warning",
    ),
    "reaper that stopped itself": (
        lambda it: reaper(it, "off", autoDisabled={"at": "", "cause": "a session\nlived \x1b on"}),
        "reaper-stopped-itself",
        "warning",
    ),
    "reaper whose switch is no JSON": (lambda it: it.write(MODE, "{"), "reaper-switch-broken", "warning"),
    "reaper that a fault keeps from parking": (
        lambda it: (reaper(it, "live"), it.write(SETTING, '{"sessions": {"protected": 7}}')),
        "reaper-config",
        "warning",
    ),
    "reaper that starves": (
        lambda it: (reaper(it, "dry-run"), it.write(EVENTS, starved(3600) + '{"torn')),
        "reaper-starved",
        "warning",
    ),
    "panes without tmux": (
        lambda it: it.write_json(f"{RECORDS}/s.json", {"status": "running", "tmux": {"pane": "%1"}}),
        "tmux-missing",
        "warning",
    ),
    "lease of a session that is gone": (
        lambda it: it.write_json(f"{RECORDS}/s.leases/ci", {"pid": 1}),
        "stale-leases",
        "warning",
    ),
    "lease that is long over": (
        lambda it: (
            it.write_json(f"{RECORDS}/s.json", {"status": "running"}),
            it.write_json(f"{RECORDS}/s.leases/ci", {"expiresAt": "2026-01-01T00:00:00Z"}),
        ),
        "stale-leases",
        "warning",
    ),
    "parking that broke off": (
        lambda it: aged(it.write(".instar/state/lifecycle/claude-code-s.idle-reaped.pending", "x"), 7200),
        "parking-broken-off",
        "warning",
    ),
    "peer whose profile is no JSON": (lambda it: it.write(f"{AGENTS}/bob.json", "{"), "peer-broken", "warning"),
    "peer with another's profile": (lambda it: peer(it, "bob", name="eve"), "peer-broken", "warning"),
    "peer in a client that is none": (lambda it: peer(it, "bob", runtime="vim"), "peer-broken", "warning"),
    "peer with a hostile name": (lambda it: it.write(f"{AGENTS}/a\x1b]0;b.json", "{}"), "peer-broken", "warning"),
    "peer whose client is missing": (
        lambda it: peer(it, "bob", launch={"env": {"PATH": "/nowhere"}}),
        "peer-program-missing",
        "warning",
    ),
    "peer whose folder is missing": (lambda it: peer(it, "bob", cwd="gone"), "peer-folder-missing", "warning"),
    "peers that nobody looks after": (
        lambda it: (peer(it, "bob"), it.write(SETTING, '{"lifecycle": {"enabled": true}}')),
        "peers-without-server",
        "warning",
    ),
    "wake that broke off": (
        lambda it: aged(it.write(".instar/state/lifecycle/claude-code-bob.idle-reaped.inuse", "x"), 7200),
        "peer-broken-off",
        "warning",
    ),
    "death that nobody has told of": (
        lambda it: aged(it.write(".instar/state/lifecycle/claude-code-bob.session.reaping", "{}"), 7200),
        "peer-broken-off",
        "warning",
    ),
    "build whose state is no JSON": (lambda it: it.write(STATE, "{"), "build-state-broken", "error"),
    "file of a killed migration": (
        lambda it: aged(it.write(".claude/.instar-123-settings.json", "{"), 7200),
        "leftover-files",
        "warning",
    ),
    "file of a killed command": (
        lambda it: aged(it.write(".instar/state/build/.build-state.json.123.tmp", "{"), 7200),
        "leftover-files",
        "warning",
    ),
    "trouble in the log": (
        lambda it: it.write(".instar/logs/build-stop-hook.log", "older\nthe disk is full\n"),
        "hook-trouble-logged",
        "warning",
    ),
    "errors of a hook": (
        lambda it: it.write(".instar/logs/build-stop-hook.err", "Traceback (most\n  File x\nZeroDivisionError: y\n"),
        "hook-errors",
        "warning",
    ),
}
for _path in (SETTINGS, LOCAL, f"{AT_HOME}{SETTINGS}"):
    USERS[f"disabled in {_path}"] = (
        lambda it, path=_path: add_key(it, path, disableAllHooks=True),
        "hooks-disabled",
        "error",
    )


@pytest.mark.parametrize("name", USERS)
def test_what_is_the_persons_is_named_and_left(installed: Scratch, name: str) -> None:
    damage, code, level = USERS[name]
    damage(installed)
    before = snapshot(installed.project.parent)

    left = doctor(installed, "--fix")
    assert code in left.codes(level)
    assert left.status == (1 if left.codes("error") else 0)
    after = snapshot(installed.project.parent)
    edited = {path for path, found in after.items() if path in before and before[path].content != found.content}
    assert edited <= {"project/.instar/logs/build-stop-hook.log"}


def test_sessions_that_are_looked_after_are_no_defect(installed: Scratch) -> None:
    assert "off" in doctor(installed).one("sessions")["text"]
    reaper(installed, "live")
    installed.write_json(REAPER, {"at": {"wall": time.time() - 3600}})
    installed.write(EVENTS, starved(90_000))
    installed.write_json(f"{RECORDS}/s.json", {"status": "completed", "tmux": {"pane": "%1"}})
    installed.write_json(f"{RECORDS}/s.leases/ci", {"expiresAt": "2999-01-01T00:00:00Z"})
    installed.write(".instar/state/lifecycle/claude-code-s.idle-reaped.pending", "x")
    seen = doctor(installed)
    assert seen.defects == set()
    assert "on (live)" in seen.one("sessions")["text"]


def test_peers_that_can_be_woken_are_no_defect(installed: Scratch, tmp_path: Path) -> None:
    assert doctor(installed).one("peers")["text"] == "there are none"
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("claude", "codex", "tmux"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    path = {"launch": {"env": {"PATH": str(programs)}}}
    peer(installed, "bob", runtimes=["claude-code", "codex-cli"], cwd=str(tmp_path), **path)
    installed.write(SETTING, '{"lifecycle": {"enabled": true}}')
    installed.write_json(f"{DATA}/endpoint.json", {"pid": os.getpid()})
    installed.write(".instar/state/lifecycle/claude-code-bob.idle-reaped.inuse", "x")

    seen = doctor(installed)
    assert seen.defects <= {"peers-without-tmux"}
    if not seen.defects:
        assert seen.one("peers")["text"] == "1 peer can be woken, and nothing broke off"


def test_reaper_whose_server_lives_is_no_defect(installed: Scratch) -> None:
    reaper(installed, "dry-run")
    installed.write_json(f"{DATA}/endpoint.json", {"pid": os.getpid()})
    assert doctor(installed).defects == set()


def test_gate_that_starves_the_reaper_is_named(installed: Scratch) -> None:
    reaper(installed, "dry-run")
    installed.write(EVENTS, starved(60))
    assert "opaque-pane" in doctor(installed).one("reaper-starved")["text"]


def test_broken_settings_are_named_with_the_place(installed: Scratch) -> None:
    installed.write(SETTINGS, '{\n  "hooks": {,\n}\n')
    text = doctor(installed).one("settings-broken")["text"]
    assert SETTINGS in text
    assert "line 2 column 13" in text


def test_command_that_claude_runs_once_is_no_defect_in_two_files(installed: Scratch) -> None:
    add_hook(installed, f"{AT_HOME}{SETTINGS}", **registered(installed, SETTINGS))
    assert doctor(installed).defects == set()


def test_hook_of_the_persons_that_is_there_is_no_defect(installed: Scratch) -> None:
    installed.write(".instar/hooks/custom/mine.py", "")
    for command in (
        "python3 .instar/hooks/custom/mine.py",
        '"$CLAUDE_PROJECT_DIR"/.instar/hooks/custom/mine.py',
        '"$SOMEWHERE"/.instar/hooks/custom/unknown.py',
        "it's broken .instar/hooks/custom/unknown.py",
    ):
        add_hook(installed, SETTINGS, type="command", command=command)
    assert doctor(installed).defects == set()


def test_timeouts_that_a_client_takes_are_no_defect(installed: Scratch) -> None:
    add_hook(installed, SETTINGS, type="command", command="say", timeout=2.5)
    add_hook(installed, SETTINGS, type="prompt", prompt="Is it done?")
    add_hook(installed, CODEX, type="command", command="say", timeout=0)
    assert doctor(installed).defects == set()


def test_role_that_is_left_to_instars_own_hook_is_no_defect(scratch: Scratch) -> None:
    scratch.write(f"{HOOKS}/stop-gate-router.js", "")
    add_hook(scratch, SETTINGS, type="command", command=f"node {HOOKS}/stop-gate-router.js")
    scratch.migrate()
    seen = doctor(scratch)
    assert seen.defects == set()
    assert f"{ALL - 1} registered commands" in seen.one("hooks-fired")["text"]


def test_codex_of_an_editor_that_never_came_here_is_no_defect(installed: Scratch) -> None:
    installed.write(f"{AT_HOME}{CONFIG}", "\ufeffmodel = 'gpt-5'\n")
    assert doctor(installed).defects == set()


def test_project_that_switches_hooks_on_decides_over_the_person(installed: Scratch) -> None:
    installed.write(f"{AT_HOME}{CONFIG}", "[features]\nhooks = false\n")
    installed.write(CONFIG, "[features]\nhooks = true\n")
    assert doctor(installed).defects == set()


def test_old_trouble_and_fresh_files_are_no_defects(installed: Scratch) -> None:
    aged(installed.write(".instar/logs/build-stop-hook.log", "the disk is full\n"), 2 * 24 * 3600)
    installed.write(".instar/state/build/.build-state.json.123.tmp", "")
    installed.write(".instar/logs/build-stop-hook.err", "")
    installed.write(STATE, json.dumps({"phase": "complete"}))
    aged(installed.place(STATE), 2 * WEEK_S)
    assert doctor(installed).defects == set()


# Hooks that answer as no client expects

HANGING = "while :; do /bin/sleep 1; done"
BLOCK = '{"decision": "block", "reason": "go on"}'

LAUNCHERS = {
    "prints text": ("echo hello", {"hook-output"}),
    "prints two objects": ("echo '{} {}'", {"hook-output"}),
    "prints no ASCII": ("""echo '{"systemMessage": "caf\u00e9"}'""", {"hook-output"}),
    "prints a list": ("echo '[]'", {"hook-output"}),
    "answers with unknown keys": ("""echo '{"continue": true}'""", {"hook-output"}),
    "approves": ("""echo '{"decision": "approve"}'""", {"hook-output"}),
    "floods": ("while :; do echo 0123456789012345678901234567890123456789; done", {"hook-output"}),
    "hangs": (HANGING, {"hook-hangs"}),
    "leaves a child that holds its output": (f"({HANGING}) & exit 0", {"hook-hangs"}),
    "holds strangers": (f"[ $1 != build-stop-hook ] || echo '{BLOCK}'", {"hook-holds-strangers"}),
    "tells of trouble": ("""[ $1 != build-stop-hook ] || echo '{"systemMessage": "no disk"}'""", {"hook-trouble"}),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_launcher_that_misbehaves_is_named_and_replaced(installed: Scratch, name: str) -> None:
    script, codes = LAUNCHERS[name]
    installed.write(f"{HOOKS}/run", f"#!/bin/sh\n{script}\n", 0o755)
    for path in CLIENT_FILES:
        for timeout in ("10", "5", "3"):
            installed.place(path).write_text(
                installed.read(path).decode().replace(f'"timeout": {timeout}', '"timeout": 1')
            )

    seen = doctor(installed)
    assert seen.defects == codes | {"edited-file", "edited-registration"}
    told = [each["text"] for each in seen.findings if each["code"] in codes]
    assert all(any(path in text and "build-stop-hook" in text for text in told) for path in CLIENT_FILES)

    assert doctor(installed, "--fix").defects == set()


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize("end", ["exit 2", "exit 1", "nonesuch", "kill -9 $$"])
def test_command_that_fails_is_named_and_replaced(installed: Scratch, path: str, end: str) -> None:
    first_entry(installed, path, command=f"{HOOKS}/run stop-gate-router; {end}")
    found = doctor(installed).one("hook-status")
    assert (found["level"], path in found["text"]) == ("error", True)
    assert doctor(installed, "--fix").defects == set()


@pytest.mark.parametrize("code", ["1 / 0", "raise SystemExit(2)", "no python", "import click"])
def test_hook_file_that_dies_is_named_though_its_launcher_hides_it(installed: Scratch, code: str) -> None:
    installed.write(f"{HOOKS}/build-stop-hook.py", code, 0o755)
    seen = doctor(installed)
    assert seen.codes("error") == {"hook-dies"}
    assert f"{HOOKS}/build-stop-hook.py" in seen.one("hook-dies")["text"]
    assert doctor(installed, "--fix").defects == set()


def test_hook_is_told_what_its_client_would_tell_it(installed: Scratch) -> None:
    seen = installed.project.parent / "seen"
    seen.mkdir()
    script = f"""IFS= read -r said
{{ echo "$said"; echo "$PWD"; echo "$INSTAR_DOCTOR"; echo "$CLAUDE_PROJECT_DIR"
   echo "$CLAUDE_CODE_SESSION_ID$CODEX_SESSION_ID$TMUX$TMUX_PANE$INSTAR_PROJECT_DIR"; }} >{seen}/$1-$$"""
    installed.write(f"{HOOKS}/run", f"#!/bin/sh\n{script}\n", 0o755)
    ambient = ("CLAUDE_CODE_SESSION_ID", "CODEX_SESSION_ID", "TMUX", "TMUX_PANE", "INSTAR_PROJECT_DIR")
    installed.environ |= dict.fromkeys(ambient, "mine")
    doctor(installed)
    heard = [place.read_text(encoding="utf-8").splitlines() for place in seen.iterdir()]
    assert len(heard) == ALL
    root = str(installed.project)
    for said, folder, is_doctor, claudes_project, others in heard:
        event = json.loads(said)
        assert (event["session_id"], event["cwd"]) == ("instar-doctor", root)
        is_codex = "model" in event or not claudes_project
        assert (folder, is_doctor, claudes_project, others) == (root, "1", "" if is_codex else root, "")


# From within a session that owns a build


@pytest.fixture
def claude(tmp_path: Path) -> Iterator[Client]:
    """Return a process named claude in a project that was set up; a build that it starts is its own."""
    project = Project.create(tmp_path / "project")
    named_claude = tmp_path / "bin/claude"
    named_claude.parent.mkdir()
    named_claude.symlink_to("/bin/bash")
    client = Client(project, named_claude, CLAUDE_CODE_SESSION_ID="the-owner", CLAUDECODE="1")
    yield client
    client.end()


def test_owner_of_a_build_can_ask_the_doctor(claude: Client) -> None:
    claude.init()
    project = claude.project
    before = {path: seen.content for path, seen in snapshot(project.root).items() if "logs/" not in path}
    report = json.loads(claude.run(f"{BIN}/instar-migrate doctor --json"))
    assert [each["code"] for each in report["findings"] if each["level"] != "ok"] == []
    assert {path: seen.content for path, seen in snapshot(project.root).items() if "logs/" not in path} == before
    assert project.used == 0
    assert claude.is_held("the-owner")


def test_build_whose_owner_ended_is_stale(claude: Client) -> None:
    claude.init()
    claude.end()
    done = claude.project.run(str(BIN / "instar-migrate"), "doctor", "--json")
    assert [each["code"] for each in json.loads(done.stdout)["findings"] if each["level"] != "ok"] == ["stale-build"]


# Clients


def answer_as_codex(scratch: Scratch, *, trust: str, folder: bool = True, version: str = "0.169.0") -> None:
    """Put a codex on PATH that says of our hooks what Codex's app-server would."""
    text = f"""#!{sys.executable}
import json, sys
if "--version" in sys.argv:
    sys.exit(print("codex-cli {version}"))
place = "{scratch.project}/.codex/hooks.json"
found = json.load(open(place))["hooks"]
hooks = [dict(eventName=event[:1].lower() + event[1:], command=hook["command"], key=event + str(number),
              currentHash="", trustStatus="trusted" if "{trust}" == "disabled" else "{trust}",
              enabled="{trust}" != "disabled", sourcePath=place)
         for event in found for group in found[event] for number, hook in enumerate(group["hooks"])]
layer = dict(name=dict(dotCodexFolder="{scratch.project}/.codex"), disabledReason={None if folder else "not trusted"!r})
results = {{"hooks/list": dict(data=[dict(hooks=hooks if {folder} else [], warnings=[], errors=[])]),
            "config/read": dict(layers=[layer])}}
for line in sys.stdin:
    asked = json.loads(line)
    if "id" in asked:
        print(json.dumps(dict(id=asked["id"], result=results.get(asked["method"], {{}}))), flush=True)
"""
    executable(scratch.project.parent / "bin/codex", text)
    scratch.write(f"{AT_HOME}{CONFIG}", "[features]\ndaemon_auto_start = false\n")


@pytest.mark.parametrize(
    ("trust", "folder", "level", "code"),
    [
        ("trusted", True, "ok", "codex-trust"),
        ("untrusted", True, "error", "codex-untrusted"),
        ("modified", True, "error", "codex-untrusted"),
        ("disabled", True, "warning", "codex-hooks-disabled"),
        ("trusted", False, "error", "codex-folder-untrusted"),
    ],
)
def test_what_codex_trusts_is_told(installed: Scratch, trust: str, folder: bool, level: str, code: str) -> None:  # noqa: FBT001 - a column
    answer_as_codex(installed, trust=trust, folder=folder)
    seen = doctor(installed, "--fix")
    assert seen.one(code)["level"] == level
    assert seen.defects == ({code} if level != "ok" else set())


def test_codex_that_was_never_used_is_told_and_not_started(installed: Scratch) -> None:
    program(installed, "codex", f"[ $1 = --version ] && echo codex-cli 0.169.0 || : >{installed.home}/started")
    seen = doctor(installed)
    assert (seen.status, seen.defects) == (0, {"codex-folder-untrusted", "codex-daemon"})
    assert not (installed.home / "started").exists()


def test_codex_that_does_not_answer_is_told(installed: Scratch) -> None:
    program(installed, "codex", "exit 3")
    installed.write(f"{AT_HOME}{CONFIG}", "")
    assert doctor(installed).defects == {"codex-unknown", "codex-daemon"}


@pytest.mark.parametrize(
    ("said", "level", "code"),
    [
        ("echo 2.1.197", "ok", "client-version"),
        ("echo '1.0.99 (Claude Code)'", "ok", "client-version"),
        ("echo '2.1.198 (Claude Code)'", "warning", "client-newer"),
        ("echo 10.0.0", "warning", "client-newer"),
        ("exit 1", "ok", "client-version"),
    ],
)
def test_client_that_is_newer_than_tried_is_told(installed: Scratch, said: str, level: str, code: str) -> None:
    program(installed, "claude", said)
    seen = doctor(installed)
    assert (seen.status, seen.one(code)["level"]) == (0, level)


# The report


def test_people_are_told_a_line_a_finding_and_how_many(installed: Scratch) -> None:
    installed.place(f"{HOOKS}/run").chmod(0o644)
    add_key(installed, LOCAL, disableAllHooks=True)
    installed.write(".instar/.gitignore", "state/\n")
    done = installed.run("doctor")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[0]) == (1, "", f"project {installed.project}")
    assert f"  error   {HOOKS}/run is not executable, so that no hook runs  (not-executable)" in lines
    assert (
        lines[lines.index(next(line for line in lines if "not-executable" in line)) + 1] == "          instar-migrate"
    )
    assert sum(line.startswith("  ok ") for line in lines) > 5
    assert lines[-1] == "2 errors, 1 warning"
    assert "\x1b" not in done.stdout


def test_people_are_told_what_was_mended_and_what_is_left(installed: Scratch) -> None:
    installed.place(f"{HOOKS}/run").chmod(0o644)
    add_key(installed, LOCAL, disableAllHooks=True)
    done = installed.run("doctor", "--fix")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert f"  fixed   {HOOKS}/run is not executable, so that no hook runs  (not-executable)" in lines
    assert lines[-1] == "1 error, no warnings, 1 fixed"


def test_warnings_alone_are_no_failure(installed: Scratch) -> None:
    installed.write(".instar/.gitignore", "state/\n")
    done = installed.run("doctor")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no errors, 1 warning")


def test_what_cannot_be_mended_is_told(installed: Scratch) -> None:
    installed.place(f"{HOOKS}/run").unlink()
    installed.place(".instar/state/migrate.lock").unlink()
    installed.place(".instar/state/migrate.lock").mkdir()
    seen = doctor(installed, "--fix")
    assert {"missing-file", "not-mended"} <= seen.codes("error")
    assert seen.fixed == set()


def test_check_that_breaks_stops_no_other(
    installed: Scratch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_: object) -> Iterator[Finding]:
        yield Finding("seen", "ok", "this much was seen")
        raise RuntimeError("out of order")

    for name, value in installed.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(examination, "CHECKS", (("the weather", breaks), *examination.CHECKS))
    status = examination.examine(str(installed.project), fix=False, as_json=True)
    report = json.loads(capsys.readouterr().out)
    codes = [each["code"] for each in report["findings"]]
    assert (status, report["errors"], codes[:2]) == (1, 1, ["seen", "check-failed"])
    assert "the weather: RuntimeError: out of order" in report["findings"][1]["text"]
    assert {"our-files", "hooks-fired", "logs"} <= set(codes)
