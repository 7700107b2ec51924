"""instar-gate steers a gate through its server, or its files where none answers, and says which it was."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from click.testing import CliRunner, Result

from instar.cli import gate_review
from instar.cli.gate import main
from instar.cli.moments import duration_ms, moment_ms, told
from instar.gate.mode import DATABASE, FOLDER, GATE_ON, KILL_FILE, MODE_FILE
from instar.gate.store import DWELL_MS, Event, Store
from instar.server import service
from instar.server.endpoint import start_of
from instar.server.remote import Server, ServerError
from support import BIN, DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000
NO_SERVER = "no server runs"


@dataclass
class Gate:
    """A project with a gate, and the command."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / FOLDER

    def run(self, *arguments: str, status: int = 0, said: str = "") -> Result:
        result = CliRunner().invoke(main, [*arguments, "--project", str(self.root)], input=said)
        assert result.exit_code == status, (result.output, result.exception)
        assert isinstance(result.exception, SystemExit | None)
        return result

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_bytes())

    def store(self) -> closing[Store]:
        return closing(Store.open(self.folder / DATABASE))

    def audits(self) -> list[tuple[Any, ...]]:
        with self.store() as store:
            return [
                tuple(each[key] for key in ("kind", "prior", "next", "operator", "reason")) for each in store.audits()
            ]

    def configure(self, **gate: Any) -> None:
        (self.root / ".instar").mkdir(exist_ok=True)
        (self.root / ".instar/config.json").write_text(json.dumps({"unjustifiedStopGate": gate}))

    def fill(self) -> None:
        """Have seen everything that enforce asks for."""
        self.configure(authority={"provider": "command", "command": ["x"]})
        now = int(time.time() * 1000)
        with self.store() as store:
            for index in range(50):
                decision = "continue" if index < 5 else "allow"
                store.record(Event(f"e{index}", "s", now - 15 * DAY_MS, "shadow", decision, latency_ms=3))
            for index in range(20):
                store.annotate(f"e{index}", "me", "correct", "", DWELL_MS)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    root = tmp_path / "project é"
    root.mkdir()
    return Gate(root)


def wait_for(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline


@dataclass
class StandIn:
    """A server of a project that gives the answers it was told, and remembers the questions."""

    gate: Gate
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def begin(self) -> ThreadingHTTPServer:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = url.path.removeprefix("/internal/stop-gate")
                stand_in.asked.append((self.command, path, dict(parse_qsl(url.query)), json.loads(body or "null")))
                stand_in.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, answer = stand_in.answers.get(path, (404, {"error": "Not found"}))
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET  # noqa: N815 - the name is the library's

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.publish(server.server_port)
        return server

    def publish(self, port: int, **changes: object) -> None:
        self.gate.folder.mkdir(parents=True, exist_ok=True)
        here = {"port": port, "pid": os.getpid(), "start": start_of(os.getpid()), **changes}
        (self.gate.folder / "endpoint.json").write_text(json.dumps(here))
        (self.gate.folder / "token").write_text("t0ken\n")


@pytest.fixture
def server(gate: Gate) -> Iterator[StandIn]:
    stand_in = StandIn(gate)
    http = stand_in.begin()
    yield stand_in
    http.shutdown()
    http.server_close()


def test_the_files_tell_how_a_gate_without_a_server_stands(gate: Gate) -> None:
    result = gate.run("status", status=1)
    assert result.stdout.startswith("mode\tshadow: stops are judged and recorded, and none is held\n")
    assert NO_SERVER in result.stderr
    assert not (gate.root / ".instar").exists(), "a look changes nothing"

    status = gate.json("status", status=1)
    assert (status["mode"], status["effective"], status["source"]) == ("shadow", "shadow", "default")
    assert status["server"] == {"running": False, "port": None}
    assert status["killSwitch"] == {"value": False}


def test_the_mode_is_set_in_the_file_and_on_record_without_a_server(gate: Gate) -> None:
    result = gate.run("mode", "off", "--reason", "quiet", "--operator", "me")

    assert result.stdout == "off: no stop is looked at (was shadow)\n"
    assert NO_SERVER in result.stderr
    assert gate.read(MODE_FILE)["mode"] == "off"
    assert gate.audits() == [("mode", "shadow", "off", "me", "quiet")]
    assert gate.run("set", "unjustified-stop", "--mode", "off").stdout == "no change: off\n"
    assert (gate.root / ".instar/.gitignore").read_text() == "*\n"


def test_without_a_server_the_router_is_told_of_off_and_of_nothing_else(gate: Gate) -> None:
    gate.run("mode", "shadow")
    assert not (gate.folder / GATE_ON).exists()
    (gate.folder / GATE_ON).write_text("shadow")
    gate.run("mode", "off")
    assert not (gate.folder / GATE_ON).exists()


def test_enforce_is_refused_until_enough_was_seen(gate: Gate) -> None:
    result = gate.run("mode", "enforce", status=1)
    assert "not met\tevaluations\t0\t>= 50\n" in result.stdout
    assert "--force REASON" in result.stderr
    assert not (gate.folder / MODE_FILE).exists()

    refused = gate.json("set", "unjustified-stop", "--mode", "enforce", status=1)
    assert refused["met"] is False
    assert {each["name"]: each["have"] for each in refused["thresholds"]}["evaluations"] == 0

    gate.fill()
    assert gate.run("mode", "enforce", "--operator", "me").stdout.startswith("enforce: ")
    assert gate.read(MODE_FILE)["mode"] == "enforce"
    assert gate.audits() == [("mode", "shadow", "enforce", "me", "")]


def test_the_thresholds_are_shown_and_nothing_is_set(gate: Gate) -> None:
    assert (
        "not met\tevaluations\t0" in gate.run("mode", "enforce", "--check-thresholds", "--force", "x", status=1).stdout
    )
    gate.fill()
    assert gate.json("set", "unjustified-stop", "--check-thresholds")["met"] is True
    assert not (gate.folder / MODE_FILE).exists()


def test_a_reason_forces_enforce_and_is_kept(gate: Gate) -> None:
    result = gate.run("mode", "enforce", "--force", "a trial", "--operator", "me", "--reason", "other")

    assert "rulesMayEnforce" in result.stderr
    assert gate.read(MODE_FILE)["mode"] == "enforce"
    assert gate.audits() == [("mode", "shadow", "enforce", "me", "forced: a trial")]
    assert gate.json("status", status=1)["effective"] == "shadow", "rules hold nobody unless they are told to"


def test_no_reason_forces_nothing(gate: Gate) -> None:
    gate.run("mode", "enforce", "--force", " ", status=2)
    assert not (gate.folder / MODE_FILE).exists()


def test_what_cannot_be_put_on_record_is_not_forced(gate: Gate) -> None:
    gate.folder.mkdir(parents=True)
    (gate.folder / DATABASE).mkdir()
    assert DATABASE in gate.run("mode", "enforce", "--force", "x", status=1).stderr
    assert not (gate.folder / MODE_FILE).exists()

    assert "not on record" in gate.run("mode", "off").stderr
    assert "not on record" in gate.run("kill-switch", "--set").stderr
    assert gate.read(MODE_FILE)["mode"] == "off"
    assert gate.read(KILL_FILE)["value"] is True


def test_the_kill_switch_works_without_a_server(gate: Gate) -> None:
    gate.folder.mkdir(parents=True)
    (gate.folder / GATE_ON).write_text("enforce")
    result = gate.run("kill-switch", "--set", "--expires-in", "30m", "--reason", "loud", "--operator", "me")

    assert result.stdout == "the kill switch is set: every stop is let go\n"
    assert not (gate.folder / GATE_ON).exists()
    record = gate.read(KILL_FILE)
    assert (record["value"], record["operator"], record["reason"]) == (True, "me", "loud")
    assert record["expiresAt"] - record["setAt"] == 1_800_000
    assert gate.json("status", status=1)["effective"] == "off"
    assert "SET until" in gate.run("status", status=1).stdout
    assert "the kill switch is set" in gate.run("mode", "shadow").stderr
    assert (
        gate.run("kill-switch", "--clear", "--operator", "me").stdout
        == "the kill switch is clear: the mode is shadow\n"
    )
    assert [each[:3] for each in gate.audits()] == [
        ("kill-switch", "false", "true"), ("mode", "shadow", "shadow"), ("kill-switch", "true", "false"),
    ]  # fmt: skip


def test_the_kill_switch_works_with_a_configuration_that_is_none(gate: Gate) -> None:
    gate.configure()
    (gate.root / ".instar/config.json").write_text("{")
    assert "config.json" in gate.run("kill-switch", "--set").stderr
    assert gate.read(KILL_FILE)["value"] is True


@pytest.mark.parametrize(
    "arguments",
    [["kill-switch"], ["kill-switch", "--set", "--clear"], ["kill-switch", "--clear", "--expires-in", "1h"],
     ["kill-switch", "--set", "--expires-in", "soon"], ["kill-switch", "--set", "--expires-in", "31d"], ["mode", "on"],
     ["mode"], ["set", "unjustified-stop"], ["set", "x", "--mode", "off"], ["log", "--since", "soon"],
     ["log", "--tail", "0"], ["explain"], ["report", "--since", "x"]],
)  # fmt: skip
def test_what_is_said_wrongly_changes_nothing(gate: Gate, arguments: list[str]) -> None:
    gate.run(*arguments, status=2)
    assert not (gate.folder / KILL_FILE).exists()


def test_a_corrupt_mode_file_is_told_and_enforces_nothing(gate: Gate) -> None:
    gate.configure(mode="enforce", authority={"provider": "command"})
    gate.folder.mkdir()
    (gate.folder / MODE_FILE).write_text("{")

    result = gate.run("status", status=1)
    assert "mode\tshadow" in result.stdout
    assert f"{MODE_FILE} cannot be used" in result.stderr


def test_the_log_is_read_from_the_file_without_a_server(gate: Gate) -> None:
    assert gate.json("log") == []
    with gate.store() as store:
        store.record(
            Event("a" * 36, "s" * 36, NOW_MS, "shadow", "continue", "U2", reason_preview="x" * 300, latency_ms=4)
        )
        store.record(Event("b", "t", NOW_MS + 1, "enforce", None, invalid_kind="timeout"))
        store.record(Event("c", "t", NOW_MS + 2, "off", "allow", short_circuit="no-signal"))

    lines = [line.split("\t") for line in gate.run("log").stdout.splitlines()]
    assert [line[0] for line in lines] == ["allow", "FAIL:timeout", "continue"]
    assert lines[2][2:] == ["shadow", "U2", "4", "ssssssss", "aaaaaaaa", "x" * 120]
    assert lines[0][-1] == "no-signal:"
    assert [each["event_id"] for each in gate.json("log", "--outcome", "fail:timeout")] == ["b"]
    assert [each["event_id"] for each in gate.json("log", "--session", "t", "--tail", "1")] == ["c"]
    assert len(gate.json("log", "--since", str(NOW_MS + 1))) == 2
    assert gate.json("log", "--since", "2030-01-01") == []


def test_what_others_wrote_steers_no_terminal(gate: Gate) -> None:
    evil = "\x1b[2J\x07\u202e\nx"
    with gate.store() as store:
        store.record(
            Event("e", evil, NOW_MS, "shadow", "allow", evil, reason_preview=evil, rationale=evil, provider=evil)
        )
        store.annotate("e", evil, "correct", evil)
    gate.run("kill-switch", "--set", "--reason", evil, "--operator", evil)

    for arguments, status in ((["log"], 0), (["explain", "e"], 0), (["status"], 1), (["report", "--since", "9w"], 0)):
        said = gate.run(*arguments, status=status).output
        assert not {"\x1b", "\x07", "\u202e"} & set(said), arguments
        assert json.loads(gate.run(*arguments, "--json", status=status).stdout)


def test_a_report_sums_up_and_tells_what_is_missing(gate: Gate) -> None:
    assert gate.json("report")["events"] == 0
    gate.fill()
    found = gate.json("report", "--since", "20d")

    assert (found["events"], found["byDecision"]) == (50, {"allow": 45, "continue": 5})
    assert found["annotations"]["reviewed"] == 20
    assert all(each["met"] for each in found["thresholds"])
    assert gate.json("report")["events"] == 0
    lines = gate.run("report", "--since", "20d").stdout.splitlines()
    assert "events\t50" in lines
    assert "decision continue\t5" in lines
    assert "rate of continue\t10.0%" in lines
    assert "rate of invalid evidence on continue\t0.0%" in lines
    assert "met\tevaluations\t50\t>= 50" in lines


@pytest.mark.parametrize(
    ("columns", "meaning"),
    [
        (
            {"decision": "continue", "rule": "U2_PLAN_FILE_NEXT_STEP_EXPLICIT"},
            "would have been held: the plan spells out",
        ),
        (
            {"decision": "continue", "rule": "U2_PLAN_FILE_NEXT_STEP_EXPLICIT", "mode": "enforce"},
            "held: the plan spells",
        ),
        ({"decision": "allow", "rule": "U_LEGIT_ERROR"}, "let go: an error blocks"),
        ({"decision": "escalate", "rule": "U_AMBIGUOUS_INSUFFICIENT_SIGNAL"}, "let go, for you to look at: it is not"),
        ({"invalid_kind": "timeout"}, "let go: the authority was not done in time (timeout)"),
        ({"decision": "force_allow", "short_circuit": "continue-ceiling"}, "let go: the session had been sent on"),
        ({"decision": "allow", "rule": "of another version"}, "let go: no rule is on record"),
    ],
)
def test_an_event_is_explained(gate: Gate, columns: dict[str, Any], meaning: str) -> None:
    with gate.store() as store:
        store.record(Event(**{"event_id": "abc1", "session_id": "s", "ts": NOW_MS, "mode": "shadow", **columns}))
        store.record(Event("abd2", "s", NOW_MS, "shadow", "allow"))
        store.annotate("abc1", "me", "incorrect", "it was done")

    assert meaning in gate.run("explain", "abc").stdout
    assert "incorrect by me" in gate.run("explain", "abc1").stdout
    explained = gate.json("explain", "abc1")
    assert explained["meaning"].startswith(meaning.split(":", maxsplit=1)[0])
    assert explained["annotations"][0]["rationale"] == "it was done"
    assert "say more of the id" in gate.run("explain", "ab", status=1).stderr
    assert "instar-gate log" in gate.run("explain", "x", status=1).stderr


def test_an_explanation_tells_what_the_verdict_points_to(gate: Gate) -> None:
    with gate.store() as store:
        store.record(Event(
            "e", "s", NOW_MS, "shadow", "continue", "U2_PLAN_FILE_NEXT_STEP_EXPLICIT", provider="rules", latency_ms=3,
            evidence_pointer_json='{"plan_file": "PLAN.md", "plan_commit_sha": ""}', rationale="it says so",
            signals_json='["mentionsContext", {"x": 1}]', artifacts_summary_json="{torn",
        ))  # fmt: skip
    lines = dict(line.split("\t") for line in gate.run("explain", "e").stdout.splitlines())

    assert lines["points to"] == "plan_file PLAN.md"
    assert lines["signals"] == 'mentionsContext, {"x": 1}'
    assert lines["plans"] == "{torn"
    assert lines["judged by"] == "rules in 3 ms"
    assert lines["its reason"] == "it says so"
    assert "last words" not in lines


def test_a_database_that_cannot_be_used_is_told(gate: Gate) -> None:
    gate.folder.mkdir(parents=True)
    (gate.folder / DATABASE).write_bytes(b"no database" * 1000)

    for command in ("log", "report"):
        assert "not a database" in gate.run(command, status=1).stderr
    assert "not a database" in gate.run("status", status=1).stderr
    assert (gate.folder / DATABASE).read_bytes() == b"no database" * 1000


def test_a_running_server_is_asked_with_the_token(gate: Gate, server: StandIn) -> None:
    (gate.root / ".instar/config.json").write_text('{"projectName": "demo"}')
    server.answers["/hot-path"] = (
        200,
        {"mode": "shadow", "killSwitch": False, "breaker": {"open": True, "openUntil": 5}},
    )
    result = gate.run("status")

    assert NO_SERVER not in result.stderr
    assert "breaker\tOPEN" in result.stdout
    assert server.asked == [("GET", "/hot-path", {"session": "status-probe"}, None)]
    assert server.headers[0]["authorization"] == "Bearer t0ken"
    assert server.headers[0]["x-instar-agentid"] == "demo"
    assert gate.json("status")["server"]["running"] is True


def test_a_running_server_makes_the_changes(gate: Gate, server: StandIn) -> None:
    server.answers["/mode"] = (200, {"mode": "off", "prior": "shadow", "changed": True, "persisted": True})
    server.answers["/kill-switch"] = (200, {"killSwitch": True, "persisted": True})
    server.answers["/reset-breaker"] = (200, {"reset": True, "breaker": {}})
    gate.run("mode", "off", "--reason", "r", "--operator", "me")
    gate.run("mode", "enforce", "--force", "f", "--operator", "me")
    gate.run("kill-switch", "--set", "--expires-in", "1m", "--reason", "r", "--operator", "me")
    gate.run("kill-switch", "--clear", "--operator", "me")
    assert gate.run("reset-breaker").stdout == "the breaker is reset\n"

    assert server.asked == [
        ("POST", "/mode", {}, {"mode": "off", "operator": "me", "reason": "r"}),
        ("POST", "/mode", {}, {"mode": "enforce", "operator": "me", "reason": "forced: f"}),
        ("POST", "/kill-switch", {}, {"value": True, "operator": "me", "reason": "r", "expiresInMs": 60_000}),
        ("POST", "/kill-switch", {}, {"value": False, "operator": "me", "reason": ""}),
        ("POST", "/reset-breaker", {}, {}),
    ]
    assert not (gate.folder / MODE_FILE).exists()
    assert not (gate.folder / DATABASE).exists()


def test_a_server_that_could_not_write_a_change_down_is_no_success(gate: Gate, server: StandIn) -> None:
    server.answers["/mode"] = server.answers["/kill-switch"] = (200, {"persisted": False})
    assert "lost when the server ends" in gate.run("mode", "off", status=1).stderr
    assert "lost when the server ends" in gate.run("kill-switch", "--set", status=1).stderr


def test_what_the_server_knows_is_asked_of_it(gate: Gate, server: StandIn) -> None:
    server.answers["/log"] = (200, {"events": [{"event_id": "e", "decision": "allow", "ts": NOW_MS}]})
    server.answers["/report"] = (
        200,
        {"events": 3, "thresholds": [{"name": "n", "have": None, "need": "x", "met": False}]},
    )

    assert gate.json("log", "--since", str(NOW_MS), "--rule", "U2")[0]["event_id"] == "e"
    assert server.asked[-1] == ("GET", "/log", {"tail": "20", "since": str(NOW_MS), "rule": "U2"}, None)
    assert "not met\tn\t-\tx" in gate.run("report").stdout


@pytest.mark.parametrize(
    "answer", [(404, {"error": "Not found"}), (503, {"error": "queue_shed_overload"}), (200, b"<html>"), (200, b"[]"),
               (302, {}), (403, {"error": "Invalid auth token"}), (500, b"")]
)  # fmt: skip
def test_where_the_server_cannot_the_files_do_and_that_is_told(
    gate: Gate, server: StandIn, answer: tuple[int, Any]
) -> None:
    server.answers = dict.fromkeys(("/hot-path", "/kill-switch", "/log"), answer)

    for arguments, status in ((["status"], 1), (["kill-switch", "--set"], 0), (["log"], 0)):
        assert "this is from the files" in gate.run(*arguments, status=status).stderr
    assert gate.read(KILL_FILE)["value"] is True
    assert not any(asked[1] == "/elsewhere" for asked in server.asked)


def test_what_the_server_calls_wrong_is_a_refusal(gate: Gate, server: StandIn) -> None:
    server.answers["/mode"] = (400, {"error": "mode must be off | shadow | enforce\x1b"})
    result = gate.run("mode", "off", status=1)

    assert "the server refuses: mode must be" in result.stderr
    assert "\x1b" not in result.stderr
    assert not (gate.folder / MODE_FILE).exists()


@pytest.mark.parametrize(
    "changes", [{"start": "1"}, {"pid": 2**22 + 1}, {"pid": "1"}, {"port": 0}, {"port": True}, {"start": None}]
)
def test_a_server_that_is_another_process_is_none(gate: Gate, server: StandIn, changes: dict[str, object]) -> None:
    port = Server.of(gate.root)
    assert port is not None
    server.publish(**{"port": port.port, **changes})  # type: ignore[arg-type]

    assert Server.of(gate.root) is None
    assert NO_SERVER in gate.run("status", status=1).stderr
    assert server.asked == []


def test_without_a_token_nothing_is_asked(gate: Gate, server: StandIn) -> None:
    (gate.folder / "token").unlink()
    assert "token" in gate.run("status", status=1).stderr
    assert server.asked == []


def test_nothing_of_the_environment_leads_elsewhere(
    gate: Gate, server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.answers["/x"] = (201, {"y": 1})
    found = Server.of(gate.root)

    assert found is not None
    assert found.ask("GET", "/x", query={"a": "b c"}) == (201, {"y": 1})
    assert server.asked == [("GET", "/x", {"a": "b c"}, None)]


def test_a_port_where_nobody_answers_is_told(gate: Gate, server: StandIn) -> None:
    server.publish(9)
    found = Server.of(gate.root)
    assert found is not None
    with pytest.raises(ServerError, match="port 9"):
        found.ask("GET", "/x")
    assert "port 9" in gate.run("kill-switch", "--set").stderr
    assert gate.read(KILL_FILE)["value"] is True


class Clock:
    """A clock that goes on by pausing, and by a second at every look."""

    now = 0.0

    def look(self) -> float:
        self.now += 1
        return self.now

    def pause(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gate_review, "clock", clock.look)
    monkeypatch.setattr(gate_review, "pause", clock.pause)
    return clock


def to_review(gate: Gate) -> None:
    with gate.store() as store:
        for index, decision in enumerate(["allow", "continue", "allow", None, "force_allow"]):
            circuit = "continue-ceiling" if decision == "force_allow" else None
            store.record(Event(f"e{index}", "s", NOW_MS + index, "shadow", decision, short_circuit=circuit))


def test_a_review_asks_for_each_verdict_and_a_word_counts_after_looking(
    gate: Gate, server: StandIn, clock: Clock
) -> None:
    to_review(gate)
    server.answers["/annotations"] = (200, {"ok": True, "counted": True})
    result = gate.run("review", "--operator", "me", said="c\nx\ni\n\ni\nit was done\ns\n")

    assert "Look at it for" in result.stdout
    assert result.stdout.endswith("2 recorded\n")
    bodies = [asked[3] for asked in server.asked]
    assert [(body["eventId"], body["verdict"], body["rationale"]) for body in bodies] == [
        ("e1", "correct", ""), ("e2", "incorrect", "it was done"),
    ]  # fmt: skip
    assert all(body["dwellMs"] >= DWELL_MS and body["operator"] == "me" for body in bodies)
    assert clock.now >= 30


@pytest.mark.parametrize("said", ["", "q\n", "i\n"])
def test_a_review_that_is_left_records_nothing(gate: Gate, server: StandIn, clock: Clock, said: str) -> None:
    to_review(gate)
    assert gate.run("review", said=said).stdout.endswith("0 recorded\n")
    assert server.asked == []
    assert clock.now < 15


def test_what_somebody_judged_waits_for_the_others(gate: Gate) -> None:
    to_review(gate)
    with gate.store() as store:
        store.annotate("e1", "me", "correct", "", DWELL_MS)
        store.annotate("e2", "me", "correct", "", DWELL_MS - 1)

    assert [each["event_id"] for each in gate.json("review", "--operator", "me")] == ["e2", "e0"]
    assert [each["event_id"] for each in gate.json("review", "--operator", "you", "--limit", "2")] == ["e1", "e2"]
    assert [each["event_id"] for each in gate.json("review", "e1", "--operator", "me")] == ["e1"]


def test_a_review_needs_the_server(gate: Gate) -> None:
    assert "nothing waits" in gate.run("review").stderr
    to_review(gate)
    assert "instar-server start" in gate.run("review", said="c\n", status=1).stderr


def test_without_a_server_there_is_no_breaker(gate: Gate) -> None:
    assert gate.json("reset-breaker") == {"reset": False}


def test_reading_leaves_the_database_as_it_is(gate: Gate) -> None:
    gate.fill()
    with closing(sqlite3.connect(gate.folder / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = (gate.folder / DATABASE).read_bytes()
    for arguments in (["log"], ["report"], ["explain", "e10"], ["review", "--json"], ["mode", "x", "--help"]):
        gate.run(*arguments)

    assert (gate.folder / DATABASE).read_bytes() == before


def test_the_command_speaks_to_a_terminal_and_to_a_pipe(gate: Gate) -> None:
    with gate.store() as store:
        store.record(Event("e", "s", NOW_MS, "shadow", "continue", reason_preview="[red]\x1b[2J"))
    command = [str(BIN / "instar-gate"), "log", "--project", str(gate.root)]
    piped = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S)
    assert piped.stdout.endswith(b"[red] [2J\n")
    assert NO_SERVER.encode() in piped.stderr

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, env={**os.environ, "TERM": "xterm", "COLUMNS": "160"}, stdout=theirs, stderr=subprocess.PIPE
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # how a terminal ends on Linux
            pass
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0
    os.close(ours)
    assert b"outcome" in shown
    assert b"[red] [2J" in shown
    assert b"\x1b[2J" not in shown


def test_a_real_server_and_its_files_tell_the_same_before_and_after_it_is_killed(gate: Gate) -> None:
    with gate.store() as store:
        store.record(Event("e", "s", int(time.time() * 1000), "shadow", "allow", "U_LEGIT_ERROR"))
    command = [sys.executable, "-m", "instar.cli.server", "run", "--project", str(gate.root), "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: service.status(gate.root).state == "running")
            gate.run("mode", "enforce", "--force", "a trial", "--operator", "me")
            assert (gate.folder / GATE_ON).read_text().startswith("shadow")
            status = gate.json("status")
            assert (status["mode"], status["effective"]) == ("enforce", "shadow"), "rules hold nobody by themselves"
            gate.run("kill-switch", "--set", "--operator", "me")
            assert not (gate.folder / GATE_ON).exists()
            gate.run("kill-switch", "--clear", "--operator", "me")
            gate.run("reset-breaker")
            asked = [gate.json("log"), gate.json("report", "--since", str(NOW_MS))["byRule"], gate.json("review")]
            assert NO_SERVER not in gate.run("status").stderr
        finally:
            process.kill()

    assert [gate.json("log"), gate.json("report", "--since", str(NOW_MS))["byRule"], gate.json("review")] == asked
    assert NO_SERVER in gate.run("mode", "off", "--operator", "me").stderr
    assert not (gate.folder / GATE_ON).exists()
    assert [each[0::2] for each in gate.audits()] == [
        ("mode", "enforce", "forced: a trial"), ("kill-switch", "true", ""), ("kill-switch", "false", ""),
        ("breaker", "reset", ""), ("mode", "off", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "ms"), [("30m", 1_800_000), ("1s", 1000), ("2h", 7_200_000), ("7d", 7 * DAY_MS), ("1w", 7 * DAY_MS),
                     ("", None), ("7", None), ("-1d", None), ("1.5h", None), ("7 d", None)]
)  # fmt: skip
def test_a_duration_is_a_number_and_a_unit(text: str, ms: int | None) -> None:
    assert duration_ms(text) == ms


@pytest.mark.parametrize(
    ("text", "ms"), [("7d", NOW_MS - 7 * DAY_MS), (str(NOW_MS), NOW_MS), ("2026-01-01T00:00:00Z", 1_767_225_600_000),
                     ("2026-01-01T01:00:00+01:00", 1_767_225_600_000), ("99999w", 0), ("yesterday", None), ("", None)]
)  # fmt: skip
def test_a_time_is_a_moment_or_how_long_ago(text: str, ms: int | None) -> None:
    assert moment_ms(text, NOW_MS) == ms


@pytest.mark.parametrize("ms", [None, "x", 10**30, -(10**30), 1.5])
def test_what_is_no_time_is_told_as_none(ms: object) -> None:
    assert told(ms) == "-"
