"""Real clients that are idle are parked when memory is short, and taken up again with their conversation."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Callable, Union

import psutil
import pytest

from instar.sessions import classifier, registry
from instar.sessions.assembly import Assembly
from support import BIN, DEADLINE_S

from .builds import trusted
from .codex import Codex
from .fake_model import Say
from .reaped import CLEAR, LOOKS, Reaped, Seated, by_name, have_ended, seat, seat_by_hand, write_rules
from .waiting import wait_until

if TYPE_CHECKING:
    from instar.sessions.verdict import Verdict
    from support import Project

    from .claude import Claude
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .tui import Tmux

    Client = Union[Claude, Codex]

IDLE_S = 900
FIRST = "Lay the slates"
PARKED = "Parked: instar-sessions resume"


@pytest.fixture(params=["claude", "codex"])
def client(request: pytest.FixtureRequest, fake_model: ModelFactory, project: Project) -> Client:
    """Set up one client after the other in the project, able to run its hooks, with a model that has three words."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(request.param)
    driven = factory(fake_model([Say("The roof is on."), Say("It rains."), Say("It pours.")]), project=project.root)
    return trusted(driven) if isinstance(driven, Codex) else driven


@pytest.fixture
def reaped(project: Project) -> Reaped:
    """Return the reaper of the project."""
    return Reaped(project)


def parked_as(project: Project, session: str) -> dict[str, Any]:
    """Return what is on record of a session that was parked for being idle, after a look at all of its traces."""
    record = project.record(session)
    assert (record["status"], record["endedReason"]) == ("completed", "reaped-idle")
    marker = project.root / f".instar/state/lifecycle/{record['client']}-{session}.idle-reaped"
    assert marker.read_text().startswith(record["parked"]["at"])
    assert not list(marker.parent.glob("*.pending"))
    assert (record["parked"]["by"], record["parked"]["freed"] > 0) == ("reaper", True)
    found: dict[str, Any] = record["parked"]
    return found


def goes_on(seated: Seated, reaped: Reaped, project: Project, before: dict[str, Any]) -> None:
    """See that a session that was taken up again has its conversation, and is judged as any other."""
    session = before["id"]
    seated.tui.prompt("go on", until="It rains.")
    assert (seated.session, seated.heard(FIRST)) == (session, True)
    record = project.record(session)
    assert (record["status"], record["tmux"]["pane"]) == ("running", seated.tui.pane)
    assert not record.keys() & {"parked", "reaping", "endedAt", "endedReason"}
    assert record["agent"] != before["agent"]
    reaped.until(session, lambda row: row["keptBy"] == CLEAR)
    assert reaped.parked(session) is None


class TestAnIdleClient:
    def test_is_parked_and_taken_up_again_in_the_shell_that_it_was_started_from(
        self, client: Client, reaped: Reaped, project: Project, tmux: Tmux
    ) -> None:
        seated = seat_by_hand(tmux, client, "ROOF=slate; export GUTTER=zinc; echo be''fore")
        seated.tui.prompt(FIRST, until="The roof is on.")
        session, shell, processes = seated.session, seated.told("#{pane_pid}"), seated.processes()
        before = project.record(session)

        assert reaped.until_parked(session) <= LOOKS

        parked = parked_as(project, session)
        (end,) = reaped.events("reaped")
        assert (end["idleMs"] >= IDLE_S * 1000, end["memory"] > 0) == (True, True)
        assert have_ended(processes)
        wait_until(lambda: PARKED in seated.text, "the line is there", seen=lambda: seated.text)
        (line,) = [line for line in seated.text.splitlines() if PARKED in line]
        assert line.startswith(f"{PARKED} {session} | ")
        command = line.rpartition(" | or ")[2].strip()
        assert command == parked["resume"]["text"]
        assert "\nbefore\n" in seated.text
        assert (seated.told("#{pane_pid}"), seated.told("#{pane_dead}")) == (shell, "0")
        assert seated.told("#{alternate_on} #{mouse_any_flag} #{cursor_flag}") == "0 0 1"
        seated.enter('echo "It is $ROOF" and $(printenv GUTTER); stty -a')
        seated.tui.wait_for("It is slate and zinc")
        seated.tui.wait_for(lambda screen: {"echo", "icanon", "onlcr", "isig"} <= set(screen.text.split()))

        seated.enter(f"clear; {command}")
        seated.tui.wait_until_idle()
        goes_on(seated, reaped, project, before)

    def test_is_parked_and_taken_up_again_in_the_pane_whose_command_it_is(
        self, client: Client, reaped: Reaped, project: Project, tmux: Tmux
    ) -> None:
        seated = seat(tmux, client)
        tmux.run("set-option", "-g", "remain-on-exit", "off")  # as people have it
        seated.tui.prompt(FIRST, until="The roof is on.")
        session, processes = seated.session, seated.processes()
        before = project.record(session)

        assert reaped.until_parked(session) <= LOOKS

        parked_as(project, session)
        assert have_ended(processes)
        assert seated.told("#{pane_dead}") == "1"
        assert "The roof is on." in seated.text
        said = re.search(r"Parked: (instar-sessions resume \S+) \|", seated.text)
        assert said
        assert tmux.run("show-options", "-p", "-t", seated.tui.pane) == ""

        tmux.run("respawn-pane", "-t", seated.tui.pane, by_name(client, "sh", "-c", said[1]).for_pane())
        seated.tui.wait_until_idle()
        goes_on(seated, reaped, project, before)
        tmux.run("new-session", "-d", "-s", "other")
        seated.tui.send("/exit")
        wait_until(lambda: seated.tui.pane not in panes(tmux), "the pane goes with it, as it did before")


def panes(tmux: Tmux) -> str:
    """Return the panes that there are."""
    return tmux.run("list-panes", "-a", "-F", "#{pane_id}")


class SpokenTo(Assembly):
    """Has somebody speak to a session when all agree that it may be ended, right before it is."""

    speak: Callable[[], object]

    def manager(self, look: Any = None) -> Any:
        """Return who ends sessions, after a look that takes its time."""

        def last_look(session_id: str, lifted: frozenset[str]) -> Verdict:
            found = registry.session(self.root, session_id)
            assert found
            (sight,) = self.sights([found])
            verdict = classifier.judge(sight, lifted)
            assert verdict.is_clear
            self.speak()
            return verdict

        return super().manager(look or last_look)


class TestAPrompt:
    def test_during_the_grace_keeps_the_session(self, client: Client, reaped: Reaped, tmux: Tmux) -> None:
        seated = seat(tmux, client)
        seated.tui.prompt(FIRST, until="The roof is on.")
        session = seated.session
        reaped.until(session, lambda row: row["reapPending"])

        seated.tui.prompt("go on", until="It rains.")

        row = reaped.look(session)  # its minute is over
        assert row
        assert (row["reapPending"], reaped.parked(session)) == (False, None)
        assert len(reaped.events("reap-aborted")) == 1
        assert 1 < reaped.until_parked(session) <= LOOKS  # all of it is observed anew
        (end,) = reaped.events("reaped")
        assert end["idleMs"] >= IDLE_S * 1000

    def test_in_the_last_second_keeps_the_session(self, client: Client, project: Project, tmux: Tmux) -> None:
        reaped = Reaped(project, SpokenTo)
        seated = seat(tmux, client)
        seated.tui.prompt(FIRST, until="The roof is on.")
        session = seated.session
        agent = psutil.Process(project.record(session)["agent"]["pid"])

        def speak() -> None:
            seated.tui.send("go on")
            wait_until(lambda: project.record(session)["lastPrompt"]["text"] == "go on", "the prompt is on record")

        assert isinstance(reaped.assembly, SpokenTo)
        reaped.assembly.speak = speak
        reaped.until(session, lambda _row: reaped.events("reap-skipped"))

        assert [row["skipped"] for row in reaped.events("reap-skipped")] == ["recent-user-message"]
        seated.tui.wait_for("It rains.")
        assert (project.record(session)["status"], reaped.parked(session)) == ("running", None)
        assert agent.is_running()
        assert reaped.events("reaped") == []


class Commands:
    """The installed commands, as somebody beside the clients runs them."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._env = {**project.env, "INSTAR_SHARED_ROOT": str(project.root.parent / "shared")}

    def text(self, *words: str) -> str:
        """Run `instar-sessions` and return what it printed."""
        done = subprocess.run(
            (str(BIN / "instar-sessions"), *words), cwd=self._project.root, env=self._env, capture_output=True,
            text=True, timeout=DEADLINE_S, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0 or done.stdout, done
        return done.stdout

    def said(self, *words: str) -> Any:
        """Run `instar-sessions` and return its answer."""
        return json.loads(self.text(*words, "--json"))


def test_the_commands_park_and_end_and_take_up_again(client: Client, project: Project, tmux: Tmux) -> None:
    at_once = dict.fromkeys(("minAgeMinutes", "recentUserWindowMinutes", "confirmWindowMinutes", "finalGraceSec"), 0)
    thresholds = {"idleThresholdModerateMinutes": 0, "idleThresholdCriticalMinutes": 0, "cooldownSec": 0}
    write_rules(project, **at_once, **thresholds, pressure={"moderateAvailablePercent": 100})
    commands = Commands(project)
    seated = seat_by_hand(tmux, client)
    seated.tui.prompt(FIRST, until="The roof is on.")
    session = seated.session

    def ended(*words: str) -> dict[str, Any]:
        """End the session once nothing keeps it: a client may still draw and write after its turn."""
        told: list[dict[str, Any]] = []

        def is_ended() -> bool:
            told.append(commands.said(*words))
            return bool(told[-1]["terminated"])

        wait_until(is_ended, "the session has ended", timeout_s=DEADLINE_S, seen=lambda: str(told))
        return told[-1]

    gates = commands.said("explain", session)["gates"]
    assert [gate["gate"] for gate in gates] == [gate.name for gate in classifier.GATES]
    assert commands.said("reaper", "enable", "--live")["mode"] == "live"
    told: list[dict[str, Any]] = []

    def is_parked() -> bool:
        if not told or commands.said("reaper", "status")["ageS"] > 1:  # over less, processor time tells nothing
            told.append(commands.said("reaper", "tick"))
        return "parked" in project.record(session)

    wait_until(is_parked, "the reaper parks it", timeout_s=DEADLINE_S, seen=lambda: str(told[-1]))
    assert told[-1]["ended"][0]["sessionId"] == session
    (listed,) = commands.said("list")
    printed = commands.text("resume", session, "--print").strip()
    assert (listed["doing"], listed["resume"]) == ("parked", printed)
    assert printed == parked_as(project, session)["resume"]["text"]

    seated.enter(f"clear; {printed}")
    seated.tui.wait_until_idle()
    seated.tui.prompt("go on", until="It rains.")
    assert seated.heard(FIRST)
    result = ended("terminate", session[:8], "--reason", "lunch")
    assert (result["resume"], result["freed"] > 0) == (printed, True)
    assert (project.record(session)["endedReason"], project.record(session)["parked"]["by"]) == ("lunch", "operator")
    wait_until(lambda: ", lunch | " in seated.text, "the line is there", seen=lambda: seated.text)

    seated.enter(f"clear; instar-sessions resume {session}")
    seated.tui.wait_until_idle()
    seated.tui.prompt("go on again", until="It pours.")
    assert seated.heard(FIRST)
    processes = seated.processes()
    assert ended("kill", session)["sessionId"] == session
    assert (project.record(session)["status"], project.record(session)["endedReason"]) == ("killed", "manual-kill")
    assert have_ended(processes)
