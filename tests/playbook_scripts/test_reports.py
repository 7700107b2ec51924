"""What can be seen of builds afterwards, and who takes one over: report, history, adopt, heartbeat."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from hooks.common.identity import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stand_ins import Client, Tmux
    from support import Project


@pytest.fixture
def build(project: Project) -> Project:
    """Return a project with a build in its middle, and a failing step."""
    project.build("init", "Mend the roof", "--owner-session", "s", "--total-steps", "4")
    project.build("transition", "executing")
    project.build("step-complete", "1", "the beams", "7", "7")
    project.build("step-complete", "2", "the slates", "14", "12")
    project.stop("s")
    return project


def text(project: Project, *arguments: str) -> str:
    return project.run(".instar/state/python", ".instar/hooks/instar/build-state.py", *arguments).stdout


def test_a_report_is_text_for_people_piped_or_not(build: Project) -> None:
    said = text(build, "report")

    for line in (
        "Mend the roof",
        "  idle > clarify > planning > [EXECUTING] > verifying > hardening > complete",
        "  holds  #....  1 of 5 used",
        "  steps  2 of 4, 21 tests",
        "      1  PASS      7/7  the beams",
        "      2  FAIL    12/14  the slates",
        "      2  step.completed",
        "      1  stop.blocked",
    ):
        assert line in said.splitlines()


def test_a_report_counts_this_build_alone(build: Project) -> None:
    build.build("cancel")
    build.build("init", "the next", "--owner-session", "s")

    assert build.build("report", "--json")["events"] == {"build.initialized": 1}


def test_without_a_build_a_report_says_so(project: Project) -> None:
    assert text(project, "report") == "no build\n"


@pytest.mark.parametrize("phase", ["fixing", "failed", "escalated", "complete", "of the future"])
def test_every_phase_has_its_place_in_the_line(build: Project, phase: str) -> None:
    build.change_state(phase=phase)

    assert f"[{phase.upper()}]" in text(build, "report") or f"[{phase}]" in text(build, "report")


@pytest.mark.parametrize("key", ["task", "phase", "protection", "steps", "totalSteps", "startedAt", "owner"])
@pytest.mark.parametrize("value", [None, 7, "x", [7], {"a": 1}])
def test_a_mistyped_key_crashes_no_report(build: Project, key: str, value: Any) -> None:
    build.change_state(**{key: value})

    assert text(build, "report")
    assert build.build("report", "--json")["exit"] == 0


def test_history_lists_what_was_finished(build: Project) -> None:
    build.build("cancel")
    for _ in range(2):
        build.build("init", "again")
        build.build("complete", "--force")
    (build.state_path.parent / "history" / "build-0.json").write_text("torn {")
    (build.state_path.parent / "history" / "build-1.json").write_text("[]")

    answer = build.build("history")

    assert answer["count"] == 3
    assert [each["phase"] for each in answer["builds"]] == ["failed", "complete", "complete"]
    assert all((build.root / each["file"]).exists() for each in answer["builds"])


# adopt


def test_a_build_without_an_owner_can_be_adopted(project: Project) -> None:
    project.build("init", "a task")
    assert not project.stop("s").is_held

    answer = project.build("adopt", "--owner-session", "s")

    assert answer["owner"] == {"tmux": "", "session": "s"}
    assert project.stop("s").is_held
    (entry,) = project.events("owner.adopted")
    assert (entry["old"], entry["new"]) == ({"tmux": "", "session": ""}, {"tmux": "", "session": "s"})


def test_nobody_certain_adopts_nothing(build: Project) -> None:
    answer = build.build("adopt")

    assert (answer["code"], answer["exit"]) == ("no_owner", 1)
    assert build.state["owner"]["session"] == "s"


def test_a_living_owner_keeps_its_build_unless_forced(project: Project, start_client: Callable[..., Client]) -> None:
    start_client("claude", CLAUDE_CODE_SESSION_ID="s").init()

    refused = project.build("adopt", "--owner-session", "t")
    assert (refused["code"], project.state["owner"]["session"]) == ("owner_alive", "s")
    assert project.build("adopt", "--owner-session", "t", "--force")["exit"] == 0
    assert project.stop("t").is_held
    assert not project.stop("s").is_held


def test_a_dead_owner_is_followed(project: Project, start_client: Callable[..., Client]) -> None:
    first = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    first.init()
    first.end()
    second = start_client("claude", CLAUDE_CODE_SESSION_ID="t")
    second.run(".instar/state/python .instar/hooks/instar/build-state.py adopt")

    assert project.state["owner"]["agent"]["pid"] == second.process.pid
    assert second.is_held("t")


def test_an_owner_may_adopt_its_own_build_again(start_client: Callable[..., Client]) -> None:
    claude = start_client("claude", CLAUDE_CODE_SESSION_ID="s")
    claude.init()

    assert '"adopted"' in claude.run(".instar/state/python .instar/hooks/instar/build-state.py adopt")


def test_a_tmux_session_that_is_there_keeps_a_build_of_the_peer(
    project: Project, start_tmux: Callable[[str], Tmux]
) -> None:
    server = start_tmux("one")
    pane = server.pane("new-session", "-s", "work")
    server.pane("new-session", "-s", "other")
    project.build("init", "a task", "--owner-tmux", "work")

    assert project.build("adopt", "--owner-session", "t", env=pane)["code"] == "owner_alive"
    server.ask("kill-session", "-t", "work")
    assert project.build("adopt", "--owner-session", "t", env=pane)["exit"] == 0


# heartbeat


class Listener(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers.get("Authorization"), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(self.server.answers)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(build: Project) -> Iterator[Any]:
    """Return a server on loopback that the project knows as its own."""
    with HTTPServer(("127.0.0.1", 0), Listener) as listening:
        listening.received, listening.answers = [], 200  # type: ignore[attr-defined]
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        data = build.root / ".instar/server-data"
        data.mkdir()
        mine = Processes().look(os.getpid())
        assert mine
        endpoint = {"port": listening.server_port, "pid": mine.pid, "start": mine.start}
        (data / "endpoint.json").write_text(json.dumps(endpoint))
        (data / "token").write_text("secret\n")
        yield listening
        listening.shutdown()
        thread.join()


TOPIC = {"INSTAR_TELEGRAM_TOPIC": "42"}


def test_a_phase_that_ends_is_told_to_the_server(build: Project, server: Any) -> None:
    build.build("transition", "verifying", env={**TOPIC, "http_proxy": "http://127.0.0.1:9"})
    build.build("step-complete", "3", "d", "1", "1", env=TOPIC)

    ((path, authorization, body),) = server.received
    assert (path, authorization) == ("/build/heartbeat", "Bearer secret")
    assert list(body) == ["runId", "phase", "tool", "status", "elapsedMs", "topicId"]
    assert (body["phase"], body["tool"], body["status"], body["topicId"]) == ("verifying", "none", "phase-boundary", 42)
    assert len(body["runId"]) == 16
    assert body["elapsedMs"] >= 0


def test_a_heartbeat_can_be_sent_in_between(build: Project, server: Any) -> None:
    channel = {"INSTAR_SLACK_CHANNEL": "C1"}
    answer = build.build("heartbeat", "--tool", "Bash-test", "--status", "no-progress-detected", env=channel)

    assert answer["status"] == "sent"
    assert server.received[0][2]["channelId"] == "C1"


def test_without_a_channel_or_a_server_nothing_is_sent(build: Project, server: Any) -> None:
    assert build.build("heartbeat")["reason"] == "no channel is set"
    endpoint = build.root / ".instar/server-data/endpoint.json"
    endpoint.write_text(json.dumps({**json.loads(endpoint.read_text()), "start": "1"}))  # the pid is another's now
    assert build.build("heartbeat", env=TOPIC)["reason"] == "no server is running"
    assert server.received == []


@pytest.mark.parametrize(("topic", "status"), [("x", 200), ("42", 500)])
def test_what_cannot_be_sent_is_written_down_and_changes_nothing(
    build: Project, server: Any, topic: str, status: int
) -> None:
    server.answers = status

    assert build.build("transition", "verifying", env={"INSTAR_TELEGRAM_TOPIC": topic})["exit"] == 0
    assert build.events("heartbeat.skipped")[0]["phase"] == "verifying"


def test_completing_twice_is_told_once(build: Project, server: Any) -> None:
    build.build("step-complete", "2", "the slates", "14", "14")
    for _ in range(2):
        assert build.build("complete", env=TOPIC)["exit"] == 0

    assert [body["phase"] for _, _, body in server.received] == ["complete"]
