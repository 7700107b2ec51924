"""Trust in a project's hooks: read from a real Codex with a home of its own, and asked of programs that misbehave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from migrator import codex_trust
from migrator.codex_trust import CodexTrustError, Granted, HookTrust

OURS = "[ -x run ] && ./run 'stop'; exit 0"
FOREIGN = "exit 0 # somebody else's"
SOON_S = 5.0  # far below the deadline of an exchange


@dataclass(frozen=True)
class Machine:
    """A project, and the Codex of a user who works there."""

    codex: str
    project: Path
    environ: dict[str, str]

    @property
    def codex_home(self) -> Path:
        return Path(self.environ["CODEX_HOME"])

    @property
    def config(self) -> Path:
        return self.codex_home / "config.toml"

    def hook_key(self, event: str = "stop", group: int = 0) -> str:
        return f"{self.project}/.codex/hooks.json:{event}:{group}:0"

    def write_hooks(self, *commands: str, **properties: object) -> None:
        groups = [{"hooks": [{"type": "command", "command": command, **properties}]} for command in commands]
        self.write_hooks_file(json.dumps({"hooks": {"Stop": groups}}))

    def write_hooks_file(self, text: str) -> None:
        file = self.project / ".codex" / "hooks.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def trust_folder(self, more_config: str = "") -> None:
        key = str(self.project).replace("\\", "\\\\").replace('"', '\\"')
        self.config.write_text(f'{more_config}\n[projects."{key}"]\ntrust_level = "trusted"\n', encoding="utf-8")

    def read(self, project: Path | None = None) -> list[HookTrust] | None:
        return codex_trust.read(project or self.project, self.codex, self.environ)

    def grant(self, project: Path | None = None) -> Granted:
        return codex_trust.grant(project or self.project, {OURS}, self.codex, self.environ)

    def statuses(self) -> dict[str, str]:
        return {hook.command: hook.status for hook in self.read() or []}


@pytest.fixture(scope="session")
def codex() -> str:
    local = Path(__file__).parents[2] / ".clients" / "node_modules" / ".bin" / "codex"
    for candidate in (os.environ.get("INSTAR_TEST_CODEX"), str(local), codex_trust.find_codex(os.environ)):
        if candidate and os.access(candidate, os.X_OK):
            return candidate
    return pytest.skip("no Codex: set INSTAR_TEST_CODEX, or install one below .clients or on PATH")


def machine_at(project: Path, codex: str, home: Path) -> Machine:
    project.mkdir()
    (home / ".codex").mkdir(parents=True)
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "CODEX_HOME": str(home / ".codex"), "LANG": "C.UTF-8"}
    return Machine(codex, project.resolve(), environ)


@pytest.fixture
def machine(codex: str, tmp_path: Path) -> Machine:
    return machine_at(tmp_path / "project", codex, tmp_path / "home")


def open_files() -> set[str]:
    return {file.name for file in Path("/dev/fd").iterdir()}


# What a real Codex says and does


def test_hook_that_nobody_trusted_is_untrusted(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()

    (hook,) = machine.read() or []

    assert hook.current_hash.startswith("sha256:")
    assert hook == HookTrust("Stop", OURS, machine.hook_key(), hook.current_hash, "untrusted", enabled=True)


def test_event_is_spelled_as_in_hooks_json(machine: Machine) -> None:
    group = [{"hooks": [{"type": "command", "command": OURS}]}]
    events = {"Stop", "SessionStart", "SessionEnd", "UserPromptSubmit", "PreCompact"}
    machine.write_hooks_file(json.dumps({"hooks": dict.fromkeys(events, group)}))
    machine.trust_folder()

    assert {hook.event for hook in machine.read() or []} == events


def test_granted_hook_is_trusted_by_the_next_codex(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()

    granted = machine.grant()

    assert [hook.status for hook in granted.newly_trusted] == ["trusted"]
    assert machine.read() == granted.newly_trusted


def test_second_grant_writes_nothing(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()
    first = machine.grant()
    before = machine.config.read_bytes()

    second = machine.grant()

    assert second == Granted(newly_trusted=[], already_trusted=first.newly_trusted, disabled=[], foreign=[])
    assert machine.config.read_bytes() == before


@pytest.mark.parametrize("command", [FOREIGN, OURS + " ", OURS.upper(), "sh -c " + OURS])
def test_hook_with_any_other_command_stays_untrusted(machine: Machine, command: str) -> None:
    machine.write_hooks(command, OURS)
    machine.trust_folder()

    granted = machine.grant()

    assert [hook.command for hook in granted.foreign] == [command]
    assert machine.statuses() == {command: "untrusted", OURS: "trusted"}


def test_hook_that_the_user_switched_off_is_reported_and_stays_off(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder(f'[hooks.state."{machine.hook_key()}"]\nenabled = false\n')
    before = machine.config.read_bytes()

    granted = machine.grant()

    assert [hook.enabled for hook in granted.disabled] == [False]
    assert (granted.newly_trusted, granted.already_trusted) == ([], [])
    assert machine.config.read_bytes() == before


def test_changed_definition_is_modified_until_granted_again(machine: Machine) -> None:
    machine.write_hooks(OURS, timeout=5)
    machine.trust_folder()
    machine.grant()

    machine.write_hooks(OURS, timeout=10)

    assert machine.statuses() == {OURS: "modified"}
    machine.grant()
    assert machine.statuses() == {OURS: "trusted"}


def test_hooks_of_an_untrusted_folder_cannot_be_read(machine: Machine) -> None:
    machine.write_hooks(OURS)

    assert machine.read() is None


@pytest.mark.parametrize("config", ["# nothing yet\n", '[projects."{project}"]\ntrust_level = "untrusted"\n'])
def test_grant_leaves_trust_in_the_folder_to_the_user(machine: Machine, config: str) -> None:
    machine.write_hooks(OURS)
    machine.config.write_text(config.format(project=machine.project))
    before = machine.config.read_bytes()

    with pytest.raises(CodexTrustError, match=r"does not trust the folder .* start codex there once and accept"):
        machine.grant()

    assert machine.config.read_bytes() == before


def test_trusted_folder_without_hooks_reads_as_empty(machine: Machine) -> None:
    machine.trust_folder()

    assert machine.read() == []


def test_grant_where_none_of_our_hooks_is_loaded_says_so(machine: Machine) -> None:
    machine.write_hooks(FOREIGN)
    machine.trust_folder()

    with pytest.raises(CodexTrustError, match=r"loads no hook of ours from .* install them first"):
        machine.grant()


def test_users_other_entries_and_comments_survive_a_grant(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder("""\
# the user's own words
model = 'some' # why this one

[hooks.state.'/other/.codex/hooks.json:stop:0:0'] # theirs
trusted_hash = 'sha256:1' # single quotes
enabled=false

[tui]
theme   =   'dark'
""")
    before = machine.config.read_text()

    (hook,) = machine.grant().newly_trusted

    entry = f'[hooks.state."{hook.key}"]\ntrusted_hash = "{hook.current_hash}"\n\n'
    after = machine.config.read_text()
    assert after.count(entry) == 1
    assert after.replace(entry, "") == before


@pytest.mark.parametrize("name", ["a b", "it's", 'say "so"', "größe 漢字", "$HOME", "back\\slash", "a.b=[c]#d"])
def test_any_name_of_a_project_will_do(codex: str, tmp_path: Path, name: str) -> None:
    machine = machine_at(tmp_path / name, codex, tmp_path / "home")
    machine.write_hooks(OURS)
    machine.trust_folder()

    machine.grant()

    assert machine.statuses() == {OURS: "trusted"}


def test_trust_given_through_a_symlink_holds_for_the_real_folder(machine: Machine, tmp_path: Path) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()
    link = tmp_path / "link"
    link.symlink_to(machine.project)

    granted = machine.grant(link)

    assert [hook.key for hook in granted.newly_trusted] == [machine.hook_key()]
    assert machine.read(link) == machine.read() == granted.newly_trusted


def test_our_command_in_the_users_own_hooks_is_none_of_our_business(machine: Machine) -> None:
    hooks = {"hooks": {"Stop": [{"hooks": [{"type": "command", "command": OURS}]}]}}
    (machine.codex_home / "hooks.json").write_text(json.dumps(hooks))
    machine.write_hooks(OURS)
    machine.trust_folder(f'[[hooks.Stop]]\n[[hooks.Stop.hooks]]\ntype = "command"\ncommand = """{OURS}"""\n')

    granted = machine.grant()

    assert [hook.key for hook in granted.newly_trusted] == [machine.hook_key()]
    assert machine.read() == granted.newly_trusted
    assert machine.config.read_text().count("trusted_hash") == 1


def test_hooks_file_that_codex_rejects_is_an_error_in_its_words(machine: Machine) -> None:
    machine.write_hooks_file('{"$schema": "x", "hooks": {}}')
    machine.trust_folder()

    with pytest.raises(CodexTrustError, match=r"cannot load .*hooks\.json: .* unknown field `\$schema`"):
        machine.read()


def test_config_that_codex_cannot_parse_is_an_error_in_its_words(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.config.write_text("model = [\n")

    with pytest.raises(CodexTrustError, match=r"cannot load .*hooks\.json: .*config\.toml:\d+:\d+: "):
        machine.read()


def test_missing_codex_home_is_an_error_in_its_words(machine: Machine) -> None:
    machine.codex_home.rmdir()

    with pytest.raises(CodexTrustError, match=r"ended before it answered initialize: .* does not exist"):
        machine.read()


def test_reading_asks_for_no_plugins(machine: Machine) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()

    machine.read()

    assert list(machine.codex_home.glob(".tmp/git-*")) == []


def test_real_codex_leaves_no_process_and_no_open_file(machine: Machine, tmp_path: Path) -> None:
    machine.write_hooks(OURS)
    machine.trust_folder()
    wrapper = Program(tmp_path, f'exec "{machine.codex}" "$@"')
    before = open_files()

    assert codex_trust.read(machine.project, wrapper.path, {**machine.environ, **wrapper.environ})

    assert wrapper.is_gone()
    assert open_files() == before


# Programs that are no Codex


class Program:
    """A shell script that notes the process group it runs in."""

    def __init__(self, folder: Path, body: str) -> None:
        self._pid_file = folder / "pid"
        file = folder / "program"
        file.write_text(f'#!/bin/sh\necho $$ >"$PID_FILE"\n{body}\n')
        file.chmod(0o755)
        self.path = str(file)
        self.environ = {"PATH": os.environ["PATH"], "PID_FILE": str(self._pid_file)}

    def is_gone(self) -> bool:
        """Wait for the end of all its processes; a zombie that waits for a lazy init counts as ended."""
        group = self._pid_file.read_text().strip()
        ends_at = time.monotonic() + SOON_S
        while time.monotonic() < ends_at:
            listing = subprocess.run(["ps", "-A", "-o", "pgid=,stat="], capture_output=True, text=True, check=True)
            members = [line.split() for line in listing.stdout.splitlines()]
            if not any(pgid == group and not stat.startswith("Z") for pgid, stat in members):
                return True
        return False


@pytest.mark.parametrize(
    ("body", "deadline_s", "sentence"),
    [
        pytest.param("sleep 1000 & sleep 1000", 0.3, r"did not answer initialize within 0\.3 s", id="hangs"),
        pytest.param("trap '' TERM; while :; do sleep 1; done", 0.3, "did not answer initialize", id="hangs on"),
        pytest.param("""while :; do echo '{"method":"x"}'; done""", 0.3, "did not answer initialize", id="chats"),
        pytest.param("yes >&2", 0.3, "did not answer initialize", id="floods stderr"),
        pytest.param("yes '[' | tr -d '\\n'", 20, "flooded its output instead of", id="floods stdout"),
        pytest.param("printf 'No\\033[0m  disk' >&2; exit 3", 20, "ended before .*: No disk;", id="dies with a word"),
        pytest.param("exit 0", 20, "ended before it answered initialize: no word on stderr;", id="ends in silence"),
        pytest.param("exec >&-; sleep 0.2; echo late >&2; sleep 1000", 20, "ended .*: late;", id="closes stdout"),
        pytest.param("echo Hello; sleep 1000", 20, "with no JSON-RPC: Hello;", id="answers text"),
        pytest.param("echo 1; sleep 1000", 20, "with no JSON-RPC: 1;", id="answers a number"),
        pytest.param("printf '\\377\\n'; sleep 1000", 20, "with no JSON-RPC", id="answers no UTF-8"),
    ],
)
def test_program_that_misbehaves_is_named_in_one_sentence_and_ended(
    tmp_path: Path, body: str, deadline_s: float, sentence: str
) -> None:
    program = Program(tmp_path, body)
    before = open_files()
    started = time.monotonic()

    with pytest.raises(CodexTrustError, match=sentence) as raised:
        codex_trust.read(tmp_path, program.path, program.environ, deadline_s)

    assert time.monotonic() - started < SOON_S
    assert str(raised.value).startswith(f"{program.path} app-server ")
    assert "\n" not in str(raised.value)
    assert program.is_gone()
    assert open_files() == before


def test_missing_program_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CodexTrustError, match=r"cannot start .*/codex: No such file .*; install Codex"):
        codex_trust.read(tmp_path, str(tmp_path / "codex"), {})


def test_codex_is_found_on_the_path_that_is_given(tmp_path: Path) -> None:
    (tmp_path / "codex").touch(mode=0o755)

    assert codex_trust.find_codex({"PATH": f"/nowhere:{tmp_path}"}) == str(tmp_path / "codex")
    assert codex_trust.find_codex({"PATH": "/nowhere"}) is None
    assert codex_trust.find_codex({}) is None


# Another Codex than the one we know


def server_that_answers(folder: Path, answers: dict[str, dict[str, Any]]) -> str:
    """Return a program that answers each method as told, each time after a request of its own with the same id.

    It takes a moment to end, and leaves a file named ``tidy`` when it was let.
    """
    file = folder / "server"
    file.write_text(f"""#!{sys.executable} -IS
import json, pathlib, sys, time
answers = json.loads({json.dumps(answers)!r})
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        answer = answers.get(request["method"], {{"result": {{}}}})
        print(json.dumps({{"id": request["id"], "method": "askTheUser"}}))
        print(json.dumps({{"id": request["id"], **answer}}), flush=True)
time.sleep(0.1)
pathlib.Path(__file__).with_name("tidy").touch()
""")
    file.chmod(0o755)
    return str(file)


def listing(project: Path, **properties: object) -> dict[str, Any]:
    hook = {
        "eventName": "stop",
        "command": OURS,
        "key": "the key",
        "sourcePath": str(project / ".codex" / "hooks.json"),
        "currentHash": "sha256:0",
        "trustStatus": "untrusted",
        "enabled": True,
        **properties,
    }
    return {"result": {"data": [{"hooks": [hook], "warnings": [], "errors": []}]}}


def test_server_is_let_to_end_by_itself(tmp_path: Path) -> None:
    codex_trust.read(tmp_path, server_that_answers(tmp_path, {"hooks/list": listing(tmp_path)}), {})

    assert (tmp_path / "tidy").exists()


def test_grant_of_what_is_trusted_asks_for_no_write(tmp_path: Path) -> None:
    answers = {"hooks/list": listing(tmp_path, trustStatus="trusted"), "config/batchWrite": {"error": "asked to write"}}

    granted = codex_trust.grant(tmp_path, {OURS}, server_that_answers(tmp_path, answers), {})

    assert [hook.status for hook in granted.already_trusted] == ["trusted"]


def test_unknown_status_is_handed_on_as_it_came(tmp_path: Path) -> None:
    server = server_that_answers(tmp_path, {"hooks/list": listing(tmp_path, trustStatus="pondered")})

    assert [hook.status for hook in codex_trust.read(tmp_path, server, {}) or []] == ["pondered"]


def test_hook_without_a_command_is_foreign(tmp_path: Path) -> None:
    answer = listing(tmp_path, trustStatus="trusted")
    (entry,) = answer["result"]["data"]
    entry["hooks"].append({name: value for name, value in entry["hooks"][0].items() if name != "command"})
    server = server_that_answers(tmp_path, {"hooks/list": answer})

    assert [hook.command for hook in codex_trust.grant(tmp_path, {OURS}, server, {}).foreign] == [""]


def test_trust_that_codex_accepts_but_does_not_keep_is_an_error(tmp_path: Path) -> None:
    server = server_that_answers(tmp_path, {"hooks/list": listing(tmp_path)})

    with pytest.raises(CodexTrustError, match=r"did not take the trust in .* \(Stop is untrusted\)"):
        codex_trust.grant(tmp_path, {OURS}, server, {})


def test_error_that_codex_answers_is_quoted_short(tmp_path: Path) -> None:
    refusal = {"error": {"code": -32600, "message": "unknown variant `hooks/list`, expected " + "one of\n" * 999}}
    server = server_that_answers(tmp_path, {"hooks/list": refusal})

    with pytest.raises(CodexTrustError, match="answered hooks/list with an error: unknown variant") as raised:
        codex_trust.read(tmp_path, server, {})

    assert len(str(raised.value)) < len(server) + 500


@pytest.mark.parametrize("answer", [{}, {"result": None}, {"result": {"data": []}}, {"result": {"data": [{}]}}])
def test_answer_in_an_unknown_form_is_an_error(tmp_path: Path, answer: dict[str, Any]) -> None:
    server = server_that_answers(tmp_path, {"hooks/list": answer})

    with pytest.raises(CodexTrustError, match="answered hooks/list in an unknown form"):
        codex_trust.read(tmp_path, server, {})


def test_path_that_is_not_utf8_is_an_error_at_once(tmp_path: Path) -> None:
    server = server_that_answers(tmp_path, {})

    with pytest.raises(CodexTrustError, match="cannot be asked about a path that is not UTF-8"):
        codex_trust.read(tmp_path / os.fsdecode(b"\xff"), server, {})
