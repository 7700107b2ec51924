"""The registered router, a real server and a real repository: a stop is judged, or let go, whatever the server does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from support import BIN, DEADLINE_S, Stop
from tests.clients.gated import EXCUSE, HELD, PATIENT, PLAN, RULE, RULES, Gated
from tests.clients.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Project

VERDICT = {"decision": "continue", "rule": RULE, "evidence_pointer": {"plan_file": PLAN}}
SESSIONS = [f"s{number}" for number in range(5)]
AT_ONCE = 20


def tell(project: Project, session: str, name: str, **event: str) -> None:
    """Fire the hook that keeps the records of sessions."""
    said = json.dumps({"session_id": session, "hook_event_name": name, **event}).encode()
    subprocess.run(
        ["/bin/sh", "-c", project.registered(role="session-event-hook", event=name)], input=said, check=True,
        cwd=project.root, env=project.env, timeout=DEADLINE_S,
    )  # fmt: skip


def begin(project: Project, *sessions: str) -> None:
    """Have sessions start."""
    for session in sessions:
        tell(project, session, "SessionStart", source="startup")
        assert project.record(session)["startedAt"]


def start_stop(project: Project, session: str) -> subprocess.Popen[bytes]:
    """Start the router at a stop that excuses itself, and hand it the event at once, as a client does."""
    router = project.start_hook(role="stop-gate-router")
    event = {"session_id": session, "cwd": str(project.root), "last_assistant_message": EXCUSE}
    assert router.stdin
    with suppress(BrokenPipeError), router.stdin:  # where the gate is off nobody reads it
        router.stdin.write(json.dumps({**event, "hook_event_name": "Stop", "stop_hook_active": False}).encode())
    router.stdin = None
    return router


def answer(router: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what a router said, which complained about nothing."""
    with router:
        stdout, stderr = router.communicate(timeout=DEADLINE_S)
    assert stderr == b""
    return Stop(router.returncode, stdout, stderr).answer


def stop(project: Project, session: str = "s") -> dict[str, Any]:
    """Fire the router, and return its answer."""
    return answer(start_stop(project, session))


@pytest.fixture
def starting(project: Project, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Return what has a server begin in the foreground, and does not wait for it; it ends with the test."""
    with ExitStack() as ending:

        def start() -> None:
            said = ending.enter_context((tmp_path / "said").open("wb"))
            command = [str(BIN / "instar-server"), "run"]
            server = ending.enter_context(
                subprocess.Popen(command, cwd=project.root, env=project.env, stdout=said, stderr=said)
            )
            ending.callback(server.terminate)

        yield start


def is_served(port: int) -> bool:
    """Say whether anybody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
    except ConnectionRefusedError:
        return False
    return True


def test_in_shadow_a_stop_is_judged_after_the_router_has_answered(project: Project, tmp_path: Path) -> None:
    may_judge, verdict = tmp_path / "may judge", tmp_path / "verdict"
    verdict.write_text(json.dumps(VERDICT))
    script = f"until [ -e '{may_judge}' ]; do sleep 0.02; done; cat '{verdict}'"
    gated = Gated.create(project, {"provider": "command", "command": ["sh", "-c", script], **PATIENT})
    begin(project, "s")
    with gated.serving("shadow"):
        assert stop(project) == {}
        assert gated.rows == []
        may_judge.touch()
        (row,) = gated.wait_for_rows(1)

    assert (row["session_id"], row["decision"], row["rule"], row["provider"]) == ("s", "continue", RULE, "command")
    assert gated.troubles == []


def test_stops_are_let_go_while_the_server_starts_and_judged_from_then_on(
    project: Project, starting: Callable[[], None]
) -> None:
    gated = Gated.create(project, RULES)
    begin(project, "s")
    gated.set_mode("enforce")
    answers: list[dict[str, Any]] = []

    def is_held() -> bool:
        answers.append(stop(project))
        return answers[-1] == HELD

    starting()
    wait_until(is_held, "a stop is held", seen=lambda: str(answers))

    assert len(answers) > 1
    assert not any("decision" in each for each in answers[:-1])


def test_the_gate_is_on_no_sooner_than_its_server_can_be_found(project: Project, starting: Callable[[], None]) -> None:
    data = project.root / ".instar/server-data"
    gate_on, endpoint = data / "gate-on", data / "endpoint.json"
    deadline = time.monotonic() + DEADLINE_S

    starting()
    while not gate_on.exists():  # without a pause: what is looked for lasts for some milliseconds
        assert time.monotonic() < deadline

    assert endpoint.exists()


def test_nobody_is_told_of_a_server_that_is_about_to_end(project: Project, tmp_path: Path) -> None:
    is_asked, may_end = tmp_path / "is asked", tmp_path / "may end"
    script = f"touch '{is_asked}'; until [ -e '{may_end}' ]; do sleep 0.02; done"
    gated = Gated.create(project, {"provider": "command", "command": ["sh", "-c", script], **PATIENT})
    begin(project, "s", "another")
    with gated.serving("shadow"):
        port = gated.start()
        assert stop(project) == {}
        wait_until(is_asked.exists, "the stop is being judged")
        os.kill(gated.server, signal.SIGTERM)
        wait_until(lambda: not is_served(port), "the server takes no more stops")
        said = stop(project, "another")
        may_end.touch()

    assert said == {}
    assert gated.troubles == []


def test_a_stop_that_a_build_holds_for_the_last_time_is_not_judged(project: Project) -> None:
    gated = Gated.create(project, RULES)
    begin(project, "s")
    with gated.serving("enforce"):
        tell(project, "s", "UserPromptSubmit", prompt="go")
        project.build("init", "mend the roof", "--size", "SMALL", "--owner-session", "s")
        project.change_state(reinforcementsUsed=2)
        assert project.stop("s").is_held
        assert stop(project) == {}  # the hooks of a stop run at the same time: either may be the first
        assert gated.rows == []

        tell(project, "s", "UserPromptSubmit", prompt="go on")
        assert not project.stop("s").is_held
        assert stop(project) == HELD


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_session_finds_the_server_that_came_after_at_another_port(project: Project, end: str) -> None:
    gated = Gated.create(project, RULES)
    begin(project, "s")
    with gated.serving("enforce"):
        assert stop(project) == HELD
        with socket.create_server(("127.0.0.1", 0)) as listener:
            another = listener.getsockname()[1]
        (gated.stop if end == "stopped" else gated.kill)()
        assert gated.start("--port", str(another)) == another
        assert [stop(project), stop(project)] == [HELD, {}]

    assert [row["decision"] for row in gated.rows] == ["continue", "continue", "force_allow"]
    assert gated.troubles == []


def test_twenty_stops_at_once_in_shadow_are_all_on_record(project: Project) -> None:
    gated = Gated.create(project, RULES)
    begin(project, *SESSIONS)
    with gated.serving("shadow"):
        routers = [start_stop(project, SESSIONS[number % len(SESSIONS)]) for number in range(AT_ONCE)]
        assert [answer(router) for router in routers] == [{}] * AT_ONCE
        rows = gated.wait_for_rows(AT_ONCE)

    assert {(row["decision"], row["invalid_kind"]) for row in rows} <= {("continue", None), (None, "shed")}
    assert sorted(row["session_id"] for row in rows) == sorted(SESSIONS * (AT_ONCE // len(SESSIONS)))
    assert gated.troubles == []
