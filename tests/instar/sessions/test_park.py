"""A session is ended by one place, once, and only the judged process; what is left can be taken up again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from clients.waiting import wait_until
from instar.services import Services
from instar.sessions.clock import Clock
from instar.sessions.machine.processes import liveness
from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.ending import Graces
from instar.sessions.parking.park import SessionManager
from instar.sessions.policy import policy
from instar.sessions.verdict import ALL_CLEAR, Verdict
from stand_ins import BASH
from support import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stand_ins import Client
    from stand_ins import Tmux as Server
    from support import Project

PARKING = Path(__file__).parents[2] / "parking.py"
CLEAR = Verdict(ALL_CLEAR, "")
GRACES = Graces(term_s=5, kill_s=5, helper_s=2)

# What stands in for a client in a pane: it tells its start, then does what it is told until it is ended.
AGENT = """
{before}
sh {folder}/SessionStart <{folder}/SessionStart.json
echo $$ >{folder}/up
while :; do read -r -t 0.2 line && eval "$line"; done
"""
END = "trap 'sh {folder}/SessionEnd <{folder}/SessionEnd.json; exit 0' TERM"


@dataclass
class Parking:
    """A manager of a project's sessions, and the rows it told."""

    project: Project
    rows: list[dict[str, Any]] = field(default_factory=list)
    looks: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def manager(
        self, look: Callable[[], Verdict] = lambda: CLEAR, config: dict[str, Any] | None = None, **edges: Any
    ) -> SessionManager:
        def judge(session_id: str, lifted: frozenset[str]) -> Verdict:
            self.looks.append((session_id, lifted))
            return look()

        return SessionManager(
            self.project.root, policy(config or {}), look=judge, tell=self.rows.append,
            **{"tmux": Tmux(), "graces": GRACES, **edges},
        )  # fmt: skip

    def terminate(self, session: str = "s", **edges: Any) -> dict[str, Any]:
        return self.manager(**edges).terminate(session, "reaped-idle", by="reaper")

    def transcript(self, session: str) -> Path:
        place = self.project.root.parent / "projects" / "any" / f"{session}.jsonl"
        slug = "".join(letter if letter.isalnum() or letter == "-" else "-" for letter in str(self.project.root))
        place = place.parent.with_name(slug) / place.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"type": "user", "sessionId": session, "timestamp": "2026-01-01T00:00:00Z"}) + "\n")
        return place

    def start(self, client: Client, session: str = "s") -> None:
        client.tell("SessionStart", session, source="startup", transcript_path=str(self.transcript(session)))

    def change(self, session: str = "s", **fields: Any) -> None:
        """Write a record as somebody else would; None removes a key."""
        record = {**self.project.record(session), **fields}
        place = self.project.root / f".instar/state/sessions/{session}.json"
        place.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))

    def files(self) -> set[str]:
        folder = self.project.root / ".instar/state/lifecycle"
        names = {path.name for path in folder.iterdir()} if folder.exists() else set()
        return {name for name in names if not name.endswith(".lock")}

    def is_untouched(self, session: str = "s") -> bool:
        record = self.project.record(session)
        is_running = record["status"] == "running" and liveness(record["agent"]) == "alive"
        return is_running and not record.keys() & {"reaping", "parked"} and not self.files()


@pytest.fixture
def parking(project: Project) -> Parking:
    return Parking(project)


@pytest.fixture
def client(start_client: Callable[..., Client], parking: Parking) -> Client:
    """Return a recorded client of session s, with no pane."""
    made = start_client("claude")
    parking.start(made)
    return made


def test_a_parked_session_is_ended_once_and_can_be_taken_up(parking: Parking, client: Client) -> None:
    parking.change(mine={"kept": 1})
    result = parking.terminate()
    record = parking.project.record("s")

    assert (result["terminated"], result["skipped"], result["unfinished"], result["forced"]) == (True, None, [], False)
    assert result["freed"] > 0
    assert client.process.wait(DEADLINE_S) == -signal.SIGTERM
    assert (record["status"], record["endedReason"]) == ("completed", "reaped-idle")
    assert record["mine"] == {"kept": 1}
    assert "reaping" not in record
    assert record["parked"]["resume"] == {
        "argv": ["claude", "--resume", "s"], "cwd": str(parking.project.root), "text": result["resume"],
    }  # fmt: skip
    assert (record["parked"]["by"], record["parked"]["reason"]) == ("reaper", "reaped-idle")
    assert record["parks"] == [record["parked"]["at"]]
    assert parking.files() == {"claude-code-s.idle-reaped"}
    first, second = (
        (parking.project.root / ".instar/state/lifecycle/claude-code-s.idle-reaped").read_text().splitlines()
    )
    assert first == record["parked"]["at"]
    assert json.loads(second)["agent"] == record["agent"]
    assert [row["type"] for row in parking.rows] == ["reaped"]
    assert parking.terminate()["skipped"] == "already-completed"
    assert parking.manager().recover() == []


def test_what_is_on_disk_is_for_its_owners_eyes_only(parking: Parking, client: Client) -> None:
    parking.terminate()
    folder = parking.project.root / ".instar/state/lifecycle"

    assert client
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert (parking.project.root / ".instar/state/sessions/s.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("fields", "skipped"),
    [
        ({"status": "completed"}, "already-completed"),
        ({"status": "failed"}, "already-failed"),
        ({"status": "killed"}, "already-killed"),
        ({"agent": None}, "liveness-indeterminate"),
        ({"transcriptPath": None}, "not-resumable"),
        ({"transcriptPath": "/nowhere/s.jsonl"}, "not-resumable"),
        ({"client": "other"}, "not-resumable"),
        ({"identity": "../up"}, "state-write-refused"),
        ({"tmux": {"socket": "/nowhere", "server": 1, "pane": "%1"}}, "liveness-indeterminate"),
    ],
)
def test_a_session_that_may_not_be_ended_is_left_as_it_is(
    parking: Parking, client: Client, fields: dict[str, Any], skipped: str
) -> None:
    parking.change(**fields)
    before = {**parking.project.record("s"), "version": 0}
    result = parking.terminate()

    assert (result["terminated"], result["skipped"]) == (False, skipped)
    assert client.process.poll() is None
    assert {**parking.project.record("s"), "version": 0} == before
    assert not parking.files()
    assert [(row["type"], row["skipped"]) for row in parking.rows] == [("skipped", skipped)]


def test_what_is_no_session_is_told_as_that(parking: Parking) -> None:
    folder = parking.project.root / ".instar/state/sessions"
    folder.mkdir(parents=True)
    (folder / "torn.json").write_text("{")

    assert parking.terminate("nobody")["skipped"] == "not-found"
    assert parking.terminate("../config")["skipped"] == "not-found"
    assert parking.terminate("torn")["skipped"] == "unreadable"
    assert (folder / "torn.json").read_text() == "{"


def test_a_protected_session_is_ended_by_force_alone(parking: Parking, client: Client) -> None:
    config = {"sessions": {"protected": ["s*"]}}
    lifted = frozenset({"protected", "spawn-grace"})

    assert parking.manager(config=config).terminate("s", "r", by="x", lifted=lifted)["skipped"] == "protected"
    assert parking.manager(config=config).kill("s")["skipped"] == "protected"
    assert parking.is_untouched()
    assert parking.manager(config=config).kill("s", force=True)["terminated"]
    assert client.process.wait(DEADLINE_S)


def test_a_peer_that_a_service_runs_is_ended_by_force_alone(parking: Parking, client: Client, tmp_path: Path) -> None:
    parking.change(identity="claude-code-bob")
    services = Services(systemd=(tmp_path / "units",))
    (tmp_path / "units").mkdir()
    (tmp_path / "units/instar-peer@bob.service").touch()

    assert parking.terminate(services=services)["why"] == "systemd runs its peer"
    assert parking.manager(services=services).kill("s")["skipped"] == "protected"
    assert parking.is_untouched()
    assert parking.manager(services=services).kill("s", force=True)["terminated"]
    assert client.process.wait(DEADLINE_S)


def test_the_last_look_decides_and_knows_what_is_lifted(parking: Parking, client: Client) -> None:
    kept = Verdict("active-process", "a build runs")
    manager = parking.manager(lambda: kept)

    assert (
        manager.terminate("s", "r", by="x", lifted=frozenset({"protected", "spawn-grace"}))["skipped"] == kept.kept_by
    )
    assert parking.looks == [("s", frozenset({"spawn-grace"}))]
    assert parking.is_untouched()
    assert client.process.poll() is None


def test_a_look_that_is_unsure_that_fails_or_that_is_none_keeps(parking: Parking, client: Client) -> None:
    def fail() -> Verdict:
        raise ValueError("no")

    assert parking.terminate(look=fail)["skipped"] == "eval-error"
    assert parking.terminate(look=lambda: Verdict(ALL_CLEAR, "", "low"))["skipped"] == ALL_CLEAR
    blind = SessionManager(parking.project.root, policy({}), tmux=Tmux())
    assert blind.terminate("s", "r", by="x")["skipped"] == "eval-error"
    assert parking.is_untouched()
    assert client.process.poll() is None


def test_a_look_is_not_believed_for_long(parking: Parking, client: Client) -> None:
    moments = iter([0.0, 1.5])

    assert parking.terminate(clock=Clock(monotonic=lambda: next(moments)))["skipped"] == "look-outdated"
    assert parking.is_untouched()
    assert client.process.poll() is None


def test_a_prompt_in_the_last_second_keeps_the_session(parking: Parking, client: Client) -> None:
    def look() -> Verdict:
        client.tell("UserPromptSubmit", "s", prompt="one more thing")
        return CLEAR

    assert parking.terminate(look=look)["skipped"] == "recent-user-message"
    assert parking.is_untouched()
    assert parking.project.record("s")["lastPrompt"]["text"] == "one more thing"


def test_a_session_that_ends_by_itself_in_the_last_second_is_not_parked(parking: Parking, client: Client) -> None:
    def leave() -> Verdict:
        client.tell("SessionEnd", "s", reason="prompt_input_exit")
        return CLEAR

    assert parking.terminate(look=leave)["skipped"] == "already-completed"
    assert parking.project.record("s")["endedReason"] == "prompt_input_exit"
    assert not parking.files()


def test_an_agent_that_dies_in_the_last_second_is_not_signalled(parking: Parking, client: Client) -> None:
    def die() -> Verdict:
        client.end()
        return CLEAR

    result = parking.terminate(look=die)

    assert (result["terminated"], result["skipped"]) == (False, "already-gone")
    assert not parking.files()
    assert parking.project.record("s")["status"] == "running"  # as the hooks find it: gone
    assert parking.terminate()["skipped"] == "already-gone"


def test_a_process_with_the_number_of_the_recorded_one_is_not_ended(parking: Parking, client: Client) -> None:
    agent = parking.project.record("s")["agent"]
    parking.change(agent={**agent, "start": str(int(agent["start"]) - 500)})

    assert parking.terminate()["skipped"] == "identity-mismatch"
    assert parking.manager().kill("s")["skipped"] == "identity-mismatch"
    assert client.process.poll() is None


def test_a_session_that_went_on_in_another_process_is_not_ended(
    parking: Parking, client: Client, start_client: Callable[..., Client]
) -> None:
    other = start_client("claude")

    def move() -> Verdict:
        record = parking.project.record("s")
        parking.start(other, "other")
        parking.change(agent=parking.project.record("other")["agent"], status=record["status"])
        return CLEAR

    assert parking.terminate(look=move)["skipped"] == "identity-mismatch"
    assert client.process.poll() is None
    assert other.process.poll() is None


def test_an_agent_that_ignores_the_signal_is_killed(parking: Parking, client: Client) -> None:
    client.run("trap '' TERM")
    result = parking.terminate(graces=Graces(term_s=0.2, kill_s=10))

    assert (result["terminated"], result["forced"]) == (True, True)
    assert client.process.wait(DEADLINE_S) == -signal.SIGKILL


@pytest.mark.parametrize("before", ["", "trap '' TERM"])
def test_a_system_without_pidfds_ends_an_agent_as_well(
    parking: Parking, client: Client, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    client.run(before or "true")

    assert parking.terminate(graces=Graces(term_s=0.5, kill_s=10))["forced"] == bool(before)
    assert client.process.wait(DEADLINE_S) < 0


def test_helpers_that_outlive_the_agent_end_with_it(parking: Parking, client: Client) -> None:
    polite = int(client.run("sleep 600 >/dev/null & echo $!"))
    rude = int(client.run("sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' >/dev/null & echo $!"))
    result = parking.terminate(graces=Graces(helper_s=0.2))

    assert result["terminated"]
    for pid in (polite, rude):
        wait_until(lambda pid=pid: not is_alive(pid), "the helper has ended")  # type: ignore[misc]


def test_a_terminal_of_its_own_below_the_agent_is_left_alone(parking: Parking, client: Client, tmp_path: Path) -> None:
    inner = f"import os, pty, time; pty.fork()[0] or os.execlp('sh', 'sh', '-c', 'echo $$ >{tmp_path}/pid; sleep 600')"
    client.run(f"{sys.executable} -c {shlex.quote(f'{inner}; time.sleep(600)')} >/dev/null 2>&1 & true")
    shell = int(wait_until(lambda: read(tmp_path / "pid"), "the shell has its terminal"))
    host = psutil.Process(shell).parent()
    try:
        assert parking.terminate()["terminated"]
        assert is_alive(shell)
    finally:
        for pid in (shell, host.pid if host else 0):
            if pid and is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_person_ends_any_session_and_it_is_no_crash(parking: Parking, client: Client) -> None:
    parking.change(transcriptPath=None)
    result = parking.manager(lambda: Verdict("active-process", "busy")).kill("s")
    record = parking.project.record("s")

    assert result["terminated"]
    assert client.process.wait(DEADLINE_S)
    assert (record["status"], record["endedReason"]) == ("killed", "manual-kill")
    assert (record["parked"]["by"], record["parked"]["resume"]) == ("operator", None)
    assert parking.files() == {"claude-code-s.idle-reaped"}
    assert parking.looks == []
    assert parking.manager().kill("s")["skipped"] == "already-killed"


def test_of_many_at_once_one_ends_it(parking: Parking, client: Client, tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(PARKING), str(parking.project.root), str(tmp_path / "rows")]
    many = [
        subprocess.Popen([*command, "kill" if number % 5 == 0 else "terminate", "s"], stdout=subprocess.PIPE, text=True)
        for number in range(20)
    ]
    results = [json.loads(each.communicate(timeout=DEADLINE_S)[0]) for each in many]
    skipped = {result["skipped"] for result in results if not result["terminated"]}
    rows = [json.loads(line)["type"] for line in (tmp_path / "rows").read_text().splitlines()]

    assert sum(result["terminated"] for result in results) == 1
    assert skipped <= {"in-flight", "already-completed", "already-killed", "already-gone", "already-reaping"}
    assert sorted(rows) == ["reaped", *["skipped"] * 19]
    assert client.process.wait(DEADLINE_S)


def test_while_somebody_else_wakes_it_a_session_is_not_parked(parking: Parking, client: Client) -> None:
    manager = parking.manager()
    with manager.markers.lock("claude-code-s"):
        assert parking.terminate()["skipped"] == "in-flight"
        assert manager.recover() == []
    assert parking.is_untouched()
    assert client.process.poll() is None


def test_a_log_that_cannot_be_written_keeps_nobody(parking: Parking, client: Client) -> None:
    def fail(_row: dict[str, Any]) -> None:
        raise OSError("full")

    manager = SessionManager(parking.project.root, policy({}), tmux=Tmux(), look=lambda *_: CLEAR, tell=fail)

    assert manager.terminate("nobody", "r", by="x")["skipped"] == "not-found"
    assert manager.terminate("s", "r", by="x")["terminated"]
    assert client.process.wait(DEADLINE_S)


@dataclass
class Place:
    """A stand-in for a client in a pane of a real tmux server."""

    parking: Parking
    server: Server
    folder: Path

    def start(self, *how: str, before: str = "", **options: str) -> None:
        """Start the client in a new pane: as its command, or from a shell, as a person would."""
        project = self.parking.project
        base = {"session_id": "s", "cwd": str(project.root), "transcript_path": str(self.parking.transcript("s"))}
        for name, fields in (("SessionStart", {"source": "startup"}), ("SessionEnd", {"reason": "other"})):
            (self.folder / name).write_text(project.registered("claude", "session-event-hook", name))
            (self.folder / f"{name}.json").write_text(json.dumps({**base, "hook_event_name": name, **fields}))
        program = self.folder / "claude"
        program.symlink_to(BASH)
        (self.folder / "agent.sh").write_text(AGENT.format(folder=self.folder, before=before))
        words = f"{program} {self.folder}/agent.sh"
        self.server.ask("new-session", "-d", "-x", "100", "-y", "12", "-c", str(project.root), *(how or (words,)))
        self.server.ask("set-option", "-g", "default-size", "100x12")
        for name, value in options.items():
            self.server.ask("set-option", "-p", "-t", "%0", name.replace("_", "-"), value)
        if how:
            self.type("mine=kept")
            self.type(words)
        wait_until(lambda: read(self.folder / "up"), "the client is up", seen=self.screen)

    def type(self, line: str) -> None:
        self.server.ask("send-keys", "-t", "%0", "-l", line)
        self.server.ask("send-keys", "-t", "%0", "Enter")

    def screen(self) -> str:
        return self.server.ask("capture-pane", "-p", "-J", "-S", "-50", "-t", "%0")

    def told(self, form: str) -> str:
        return self.server.ask("display-message", "-p", "-t", "%0", form)

    def option(self, name: str) -> str:
        return self.server.ask("show-options", "-pqv", "-t", "%0", name)


@pytest.fixture
def place(parking: Parking, start_tmux: Callable[[str], Server], tmp_path: Path) -> Iterator[Place]:
    (tmp_path / "pane").mkdir()
    made = Place(parking, start_tmux("main"), tmp_path / "pane")
    yield made
    up = read(made.folder / "up")
    if up and is_alive(int(up)):
        os.kill(int(up), signal.SIGKILL)


SHELL = (BASH, "--norc", "--noprofile", "-i")


def test_the_shell_that_started_a_client_stays_as_it_was(place: Place) -> None:
    place.start(*SHELL)
    shell = int(place.told("#{pane_pid}"))
    result = place.parking.terminate()

    assert result["terminated"]
    screen = wait_until(lambda: "Parked: " in place.screen() and place.screen(), "the line is there", seen=place.screen)
    assert "Parked: instar-sessions resume s" in screen
    assert "claude --resume s" in screen
    place.type('echo "it is $mine"')
    wait_until(lambda: "it is kept" in place.screen(), "the shell answers", seen=place.screen)
    assert int(place.told("#{pane_pid}")) == shell
    assert place.option("remain-on-exit") == ""


def test_a_pane_whose_command_is_the_client_stays_and_says_how_to_go_on(place: Place) -> None:
    place.start(before="echo what was said before")
    result = place.parking.terminate()

    assert result["terminated"]
    assert place.parking.project.record("s")["parked"]["resume"]
    screen = wait_until(lambda: "Parked: " in place.screen() and place.screen(), "the line is there", seen=place.screen)
    assert "what was said before" in screen
    assert "Parked: instar-sessions resume s" in screen
    assert place.told("#{pane_dead}") == "1"


def test_a_pane_gets_its_options_back_when_the_session_is_kept(place: Place) -> None:
    place.start(remain_on_exit_format="mine")
    kept = []

    def look() -> Verdict:
        kept.append(place.option("remain-on-exit"))
        return Verdict("client-attached", "somebody looks")

    assert place.parking.terminate(look=look)["skipped"] == "client-attached"
    assert kept == ["on"]
    assert (place.option("remain-on-exit"), place.option("remain-on-exit-format")) == ("", "mine")
    assert place.parking.is_untouched()


def test_the_event_of_the_end_does_not_take_the_reason_away(place: Place) -> None:
    place.start(*SHELL, before=END.format(folder=place.folder))
    result = place.parking.terminate()
    record = place.parking.project.record("s")

    assert result["terminated"]
    assert record["lastEvent"]["name"] == "SessionEnd"
    assert (record["status"], record["endedReason"], record["parked"]["by"]) == ("completed", "reaped-idle", "reaper")


def test_a_pane_of_another_server_is_not_taken_for_the_recorded_one(place: Place) -> None:
    place.start()
    tmux = place.parking.project.record("s")["tmux"]
    for wrong in ({"pane": "%7"}, {"server": os.getpid()}, {"serverStart": "1"}):
        place.parking.change(tmux={**tmux, **wrong})
        assert place.parking.terminate()["skipped"] == "identity-mismatch"
    place.parking.change(tmux=tmux)
    assert place.parking.is_untouched()


def test_a_server_that_does_not_answer_keeps_the_session(place: Place) -> None:
    place.start()
    server = int(place.told("#{pid}"))
    os.kill(server, signal.SIGSTOP)
    try:
        assert place.parking.terminate(tmux=Tmux(timeout_s=0.3))["skipped"] == "liveness-indeterminate"
    finally:
        os.kill(server, signal.SIGCONT)
    assert place.parking.is_untouched()


def read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
