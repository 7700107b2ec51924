"""Peers are real clients in a tmux server of their own: woken by a message, parked, killed, and started clean."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import pytest

from instar.lifecycle import verbs
from instar.lifecycle.clients.messages import CHARACTERS_AT_MOST
from instar.lifecycle.lifecycle import Lifecycle
from instar.sessions.reaper.selftest import MadeUpClock
from support import DEADLINE_S

from .codex import Codex
from .fake_model import Run, Say
from .peers import ANSWER, COMMAND, Stage, ready, seat
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import Project

    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import Request
    from .wire import Answer

FACT = "The roof is of zinc"
ROLE = "You keep the roof."
LATER_S = 4000.0  # more than the hour after which an idle peer is parked
HOSTILE = """First "of" all, it's $(touch ran) `touch ran`; touch ran & <b> {%d} \\n \\
  #{pane_id} ; kill-server

~/*? | tee ran > ran !touch ran
/exit
é 日本 @2"""
STEERING = "before\x1b[201~\x1b]0;after\x07\r"


@pytest.fixture
def stage(project: Project, fake_model: ModelFactory, tmp_path: Path) -> Iterator[Stage]:
    """Set up a project without any peer."""
    model = fake_model(lambda request: made.answer(request))  # noqa: PLW0108 - it is made below
    clock = MadeUpClock()
    environ = {"TMUX_TMPDIR": str(tmp_path), "INSTAR_SHARED_ROOT": str(tmp_path / "shared")}
    made = Stage(project, model, {}, environ, clock, Lifecycle(project.root, environ, clock.clock()))
    made.allow(bootDeadlineSec=60, readyGateSec=30)
    yield made
    made.end()


@pytest.fixture(params=["claude", "codex"])
def bob(request: pytest.FixtureRequest, stage: Stage) -> str:
    """Add bob, a peer in one client after the other, and return his identity."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(request.param)
    return stage.add("bob", seat(stage, factory(stage.model, project=stage.project.root)))


def test_a_peer_that_was_parked_knows_what_it_was_told(stage: Stage, bob: str) -> None:
    session = ready(stage.peers.wake("bob", FACT, "roof"), mode="fresh", cause="first-wake")
    stage.answered(FACT)
    wait_until(lambda: ANSWER in stage.panes()[bob], "it is shown")
    assert (stage.status(bob)["state"], stage.status(bob)["sessionId"]) == ("alive", session)
    record = stage.project.record(session)
    assert (record["identity"], record["launchedBy"]) == (bob, "instar")
    agent = stage.agent(session)

    stage.clock.passed += LATER_S
    parked = stage.tick(bob, lambda row: row["action"] == "reaped-idle")

    assert parked["outcome"] == "resume-eligible"
    assert not agent.is_running()
    assert stage.panes() == {}
    left = stage.status(bob)
    assert (left["state"], left["deaths"], session in left["resume"]) == ("parked", 0, True)
    assert stage.tick(bob, bool)["action"] == "asleep"

    again = stage.peers.wake("bob", "What was it?", "roof")
    assert ready(again, mode="resume", cause="idle-reaped-resume") == session
    assert again["resumable"]["idleMinutes"] >= 60
    stage.answered("What was it?")
    assert stage.heard(FACT)
    assert stage.model.requests[-1].session_id == session
    assert stage.status(bob)["state"] == "alive"


def test_a_peer_that_was_stopped_sleeps_until_it_is_started_and_is_clean_for_a_new_topic(
    stage: Stage, bob: str
) -> None:
    session = ready(stage.peers.wake("bob", FACT, "roof"))
    stage.answered(FACT)
    agent = stage.agent(session)

    assert verbs.stop("bob", stage.peers.edges)["status"] == "DONE"

    assert not agent.is_running()
    assert stage.status(bob)["state"] == "stopped"
    refused = stage.peers.send("bob", "Hello?")
    assert (refused["status"], refused["cause"], refused["stopped"]) == ("FAILED", "stopped", True)
    stage.tick(bob, lambda row: row["action"] in ("asleep", "skipped-stopped"))
    assert stage.panes() == {}
    assert verbs.start("bob", stage.peers.edges)["wasStopped"]
    assert stage.status(bob)["state"] == "parked"

    again = ready(stage.peers.send("bob", "Now the gutter", "gutter"), mode="fresh", cause="idle-reaped-new-topic")
    stage.answered("Now the gutter")
    assert (again != session, stage.heard(FACT)) == (True, False)


def test_a_peer_that_was_killed_is_fresh_and_after_three_deaths_is_left_asleep(stage: Stage, bob: str) -> None:
    session = ready(stage.peers.wake("bob", FACT))
    stage.answered(FACT)
    for count in (1, 2):
        stage.kill(session)
        gone = stage.tick(bob, lambda row: row["action"] == "reaped-gone")
        assert (gone["cause"], gone["outcome"]) == ("crash", "fresh-next-msg")
        assert "9" in gone["death"] or "137" in gone["death"]
        assert (stage.status(bob)["state"], stage.status(bob)["deaths"], stage.panes()) == ("asleep", count, {})
        task = f"Go on, for the {count}. time"
        before, session = session, ready(stage.peers.wake("bob", task), mode="fresh", cause="crash-or-self-close")
        stage.answered(task)
        assert (session != before, stage.heard(FACT)) == (True, False)
    stage.kill(session)

    refused = stage.peers.send("bob", "Go on")

    assert (refused["status"], refused["cause"], refused["woke"]) == ("FAILED", "crash-loop", False), refused
    assert 0 < refused["retryAfter"] <= 300
    assert "3 deaths" in refused["reason"]
    left = stage.status(bob)
    assert (left["state"], left["deaths"]) == ("crashed", 3)
    assert stage.panes() == {}
    stage.clock.passed += refused["retryAfter"]
    assert stage.status(bob)["state"] == "asleep"


def test_what_is_said_to_a_peer_that_dies_is_told_to_the_next_session_once(stage: Stage, bob: str) -> None:
    session = ready(stage.peers.wake("bob", FACT))
    stage.answered(FACT)
    stage.agent(session).kill()

    def is_told() -> bool:
        said = stage.peers.send("bob", "Go on")
        assert said["status"] == "READY" or said["retryAfter"], said
        return bool(said["woke"])

    wait_until(is_told, "it is woken for it")
    stage.answered("Go on")
    assert stage.said == [FACT, "Go on"]
    assert [row["cause"] for row in stage.events("supervise")] == ["crash"]  # and its server lives
    assert (stage.status(bob)["state"], list(stage.panes())) == ("alive", [bob])
    assert stage.model.requests[-1].session_id != session


def test_new_is_clean_and_attach_takes_up_what_there_is_or_fails(stage: Stage, bob: str) -> None:
    nothing = verbs.attach("bob", stage.peers.edges)
    assert (nothing["status"], nothing["mode"], nothing["cause"]) == ("FAILED", "fail", "attach-nothing-to-resume")
    assert (nothing["reason"] != "", stage.panes(), stage.model.calls) == (True, {}, 0)
    session = ready(stage.peers.wake("bob", FACT))
    stage.answered(FACT)
    agent = stage.agent(session)

    new = verbs.new("bob", stage.peers.edges, task="Begin anew")

    assert ready(new, mode="fresh") != session
    assert new["previous"]["sessionId"] == session
    assert not agent.is_running()
    stage.answered("Begin anew")
    assert not stage.heard(FACT)
    assert list(stage.panes()) == [bob]
    attached = verbs.attach("bob", stage.peers.edges)
    assert (attached["status"], attached["woke"], attached["command"][-1]) == ("READY", False, f"={bob}")
    stage.kill(new["sessionId"])

    again = verbs.attach("bob", stage.peers.edges)

    assert ready(again, mode="resume", cause="attach", command=attached["command"]) == new["sessionId"]
    assert stage.peers.send("bob", "Where were we?")["status"] == "READY"
    stage.answered("Where were we?")
    assert (stage.heard("Begin anew"), stage.heard(FACT)) == (True, False)
    assert len([row for row in stage.events("supervise") if row.get("cause") == "crash"]) == 1


@pytest.mark.parametrize("bob", ["claude"], indirect=True)
def test_a_session_that_was_left_without_a_word_is_passed_over(stage: Stage, bob: str) -> None:
    session = ready(stage.peers.wake("bob", FACT))
    stage.answered(FACT)
    stage.kill(session)
    silent = stage.peers.wake("bob")
    assert (silent["status"], silent["sessionId"] != session) == ("READY", True)
    transcript = Path(stage.project.record(silent["sessionId"])["transcriptPath"])

    stage.press(bob, "/exit")
    stage.press(bob, "Enter")
    wait_until(lambda: stage.status(bob)["state"] == "asleep", "it has left", seen=lambda: str(stage.panes()))

    # What Claude 2.1.197 leaves of such a session, but for the command to exit, which it may put down or not.
    lines = [line for line in transcript.read_text().splitlines(keepends=True) if "uuid" not in json.loads(line)]
    transcript.write_text("".join(lines))
    assert ready(verbs.attach("bob", stage.peers.edges), mode="resume", cause="attach") == session
    assert stage.peers.send("bob", "What was it?")["status"] == "READY"
    stage.answered("What was it?")
    assert stage.heard(FACT)


def test_a_question_about_the_folder_is_told_and_left_to_a_person(stage: Stage, bob: str) -> None:
    stage.change("bob", initial_prompt=ROLE)
    (client,) = stage.clients.values()
    config = client.config if isinstance(client, Codex) else client.home / ".claude.json"
    text = config.read_text()
    config.write_text(
        text.replace('trust_level = "trusted"', "")
        if isinstance(client, Codex)
        else json.dumps({**json.loads(text), "projects": {}})
    )

    asked = stage.peers.wake("bob", FACT)

    assert (asked["status"], asked["cause"], asked["dialog"]) == ("FAILED", "dialog", "trust-folder")
    assert (asked["taskDelivered"], "instar-peers attach" in asked["reason"]) == (False, True)
    waits = stage.status(bob)
    assert (waits["state"], waits["dialog"]) == ("dialog", "trust-folder")
    again = stage.peers.send("bob", FACT)
    assert (again["status"], again["taskDelivered"], list(stage.panes())) == ("FAILED", False, [bob])
    assert stage.status(bob)["state"] == "dialog"
    assert stage.said == []

    stage.press(bob, "Enter")
    wait_until(lambda: stage.is_at_rest(bob), "it waits for a prompt")
    told = stage.peers.send("bob", FACT)
    assert (told["status"], told["woke"]) == ("READY", False), told
    stage.answered(f"{ROLE}\n\n{FACT}")
    assert stage.said == [f"{ROLE}\n\n{FACT}"]
    assert verbs.stop("bob", stage.peers.edges)["status"] == "DONE"
    assert stage.panes() == {}
    assert [row for row in stage.events("supervise") if row.get("cause") == "crash"] == []


@pytest.mark.usefixtures("bob")
def test_a_message_arrives_as_it_is_or_not_at_all(stage: Stage) -> None:
    session = ready(stage.peers.wake("bob", HOSTILE))
    stage.answered(HOSTILE)

    refused = stage.peers.send("bob", STEERING)
    second = stage.peers.send("bob", f"Once more:\n{HOSTILE}")

    assert (refused["cause"], "U+001B" in refused["reason"]) == ("message-refused", True)
    assert (second["status"], second["woke"], second["taskDelivered"]) == ("READY", False, True), second
    stage.answered(f"Once more:\n{HOSTILE}")
    assert stage.said == [HOSTILE, f"Once more:\n{HOSTILE}"]
    assert {each.session_id for each in stage.model.requests} == {session}
    assert not list(stage.project.root.rglob("ran"))


def test_two_peers_that_answer_each_other_come_to_rest(
    stage: Stage, claude: ClaudeFactory, codex: CodexFactory
) -> None:
    stage.add("ann", seat(stage, claude(stage.model, project=stage.project.root)))
    stage.add("bob", seat(stage, codex(stage.model, project=stage.project.root)))
    stage.allow(maxSendsPerHour=3)
    sent: list[str] = []
    to, other = "ann", "bob"
    while (said := stage.peers.send(to, f"Yours, {len(sent)}"))["status"] == "READY":
        sent.append(to)
        assert len(sent) <= 6, sent
        stage.answered(f"Yours, {len(sent) - 1}")
        to, other = other, to

    assert (said["cause"], sent) == ("hourly-budget", ["ann", "bob"] * 3)
    assert 3000 < said["retryAfter"] <= 3600
    assert stage.peers.send(other, "Yours")["cause"] == "hourly-budget"
    assert stage.said == [f"Yours, {number}" for number in range(6)]


def test_two_peers_that_tell_each_other_by_themselves_come_to_rest(
    stage: Stage, claude: ClaudeFactory, codex: CodexFactory
) -> None:
    ann = stage.add("ann", seat(stage, claude(stage.model, project=stage.project.root)))
    bob = stage.add("bob", seat(stage, codex(stage.model, project=stage.project.root)))
    stage.allow(maxSendsPerHour=3)
    heard: dict[str, list[int]] = {"ann": [], "bob": []}
    answers: list[str] = []

    def answer(request: Request) -> Answer | None:
        """Answer each message by the next; what comes while a client works it words in its own way."""
        me, other = ("ann", "bob") if "messages" in request.body else ("bob", "ann")
        answers.extend(request.tool_results)
        told = {int(number) for number in re.findall(rf"No. (\d+) for {me}", json.dumps(request.body))}
        news = sorted(told - set(heard[me]))
        heard[me] += news
        return Run(f"{COMMAND} send {other} 'No. {news[-1] + 1} for {other}' --json") if news else None

    stage.script = answer
    assert stage.peers.send("ann", "No. 0 for ann")["status"] == "READY"

    wait_until(
        lambda: "hourly-budget" in str(answers), "one is refused", timeout_s=DEADLINE_S, seen=lambda: str(answers)
    )
    wait_until(lambda: stage.is_at_rest(ann) and stage.is_at_rest(bob), "both rest", seen=lambda: str(stage.panes()))

    assert heard == {"ann": [0, 2, 4], "bob": [1, 3, 5]}
    refused = json.loads(answers[-1])
    assert (refused["status"], refused["cause"], refused["identity"]) == ("FAILED", "hourly-budget", ann)
    assert 3000 < refused["retryAfter"] <= 3600
    assert len(answers) == 6
    calls = stage.model.calls
    assert {row["action"] for row in stage.peers.supervisor.run()} == {"alive"}
    assert stage.model.calls == calls


def test_a_peer_that_asks_for_it_is_started_clean_once_its_turn_is_over(stage: Stage, bob: str) -> None:
    is_over = Event()

    def answer(request: Request) -> Answer | None:
        if request.tool_results:
            return Say(ANSWER, ends_at=is_over)
        return Run(f"{COMMAND} self-fresh --json") if FACT in str(request.user_texts) else None

    stage.script = answer
    session = ready(stage.peers.wake("bob", FACT))
    agent = stage.agent(session)
    (told,) = wait_until(lambda: stage.model.calls and stage.model.requests[-1].tool_results, "it has asked")
    assert json.loads(told)["status"] == "DONE"

    kept = stage.tick(bob, bool)

    assert (kept["action"], kept["outcome"], agent.is_running()) == ("alive", "kept", True)
    is_over.set()
    clean = stage.tick(bob, lambda row: row["action"] == "eager-relaunch")
    assert (clean["status"], clean["mode"], agent.is_running()) == ("READY", "fresh", False)
    said = stage.peers.send("bob", "What was it?")
    assert (said["status"], said["woke"]) == ("READY", False)
    stage.answered("What was it?")
    assert (stage.model.requests[-1].session_id != session, stage.heard(FACT)) == (True, False)
    assert [row for row in stage.events("supervise") if row.get("cause") == "crash"] == []


@pytest.mark.usefixtures("bob")
def test_the_longest_message_arrives_as_it_is_and_a_longer_one_is_not_typed(stage: Stage) -> None:
    (runtime,) = stage.clients
    most = CHARACTERS_AT_MOST[runtime]
    longest = "".join(f"{number} slates\n" for number in range(most // 8))[: most - 1] + "."
    ready(stage.peers.wake("bob", longest))
    stage.answered(longest)

    refused = stage.peers.send("bob", f"{longest}.")

    assert (refused["status"], refused["cause"], refused["retryAfter"]) == ("FAILED", "message-refused", None)
    assert f"more than {most} characters" in refused["reason"]
    assert stage.said == [longest]


def test_fifty_who_wake_a_peer_at_once_start_it_once(stage: Stage, claude: ClaudeFactory) -> None:
    client = claude(stage.model, project=stage.project.root)
    stage.add("bob", seat(stage, client))

    waking = [stage.command("wake", "bob", "--task", FACT) for _ in range(20)]
    with ThreadPoolExecutor(30) as pool:
        said = list(pool.map(lambda _: stage.peers.wake("bob", FACT), range(30)))
    said += [json.loads(each.communicate(timeout=2 * DEADLINE_S)[0]) for each in waking]

    assert [each for each in said if each["status"] != "READY"] == []
    (woke,) = (each for each in said if each["woke"])
    assert {each["sessionId"] for each in said} == {ready(woke, mode="fresh", cause="first-wake")}
    assert sum(each["taskDelivered"] for each in said) == 1
    stage.answered(FACT)
    assert stage.said == [FACT]
    assert len(list((stage.project.root / ".instar/state/sessions").glob("*.json"))) == 1
    assert [row["cause"] for row in stage.events("wake") if row["mode"] == "fresh"] == ["first-wake"]
    agent = stage.agent(woke["sessionId"])
    assert [each.pid for each in stage.processes() if each.exe() == agent.exe()] == [agent.pid]


def test_a_stop_wins_over_a_wake_that_is_under_way(stage: Stage, claude: ClaudeFactory) -> None:
    bob = stage.add("bob", seat(stage, claude(stage.model, project=stage.project.root)))
    waking = stage.command("wake", "bob", "--task", FACT)
    wait_until(stage.panes, "it boots")
    assert waking.poll() is None

    stopped = verbs.stop("bob", stage.peers.edges)

    said = json.loads(waking.communicate(timeout=DEADLINE_S)[0])
    assert (said["status"], said["cause"], said["stopped"]) == ("FAILED", "stopped-mid-wake", True)
    assert (stopped["status"], stage.panes(), stage.processes()) == ("DONE", {}, [])
    assert stage.status(bob)["state"] == "stopped"
    assert stage.peers.send("bob", FACT)["cause"] == "stopped"
