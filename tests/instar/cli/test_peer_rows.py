"""Each row by which a peer is woken, refused, looked after and mended, seen from outside: its answer, and its line."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from clients.waiting import wait_until
from instar.lifecycle.tending import QUIET
from tests.instar.cli import peer_pasts as past
from tests.instar.cli.peer_world import NOBODY, World

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from support import Project
    from tests.instar.cli.peer_pasts import Past

MESSAGE = "Do $(touch owned) `touch owned`; 'it' \"now\" \\ &\n--help"
FRESH, RESUME = "fresh", "resume"


def name_of(request: pytest.FixtureRequest) -> str:
    """Return the name of the peer of a row."""
    return re.sub("[^a-z0-9]+", "-", request.node.callspec.id)[:32].strip("-")


# How a peer that sleeps is brought back.


SEND, BUILD = ("send", "NAME", MESSAGE), ("--topic", " build ")
WAKE = ("wake", "NAME", "--task", MESSAGE)


def row(number: str, arrange: Past, arguments: tuple[str, ...], mode: str, cause: str, **said: Any) -> Any:
    """Return a row of the table; `said` are keys of the configuration, and whether people talk to the peer."""
    return pytest.param(arrange, arguments, mode, cause, said, id=f"{number} {cause}")


@pytest.mark.parametrize(
    ("arrange", "arguments", "mode", "cause", "said"),
    [
        row("21.1", past.parked, (*WAKE, "--fresh"), FRESH, "folder-launch"),
        row("21.2a", past.parked, (*WAKE, "--resume"), RESUME, "attach"),
        row("21.3", past.renewed, SEND, FRESH, "soft-reload"),
        row("21.5", past.rebooted, SEND, FRESH, "host-reboot"),
        row("21.5a", past.nothing, SEND, FRESH, "first-wake"),
        row("21.5b", past.crashed, SEND, FRESH, "crash-or-self-close"),
        row("21.6", past.parked, (*SEND, "--topic", "other"), RESUME, "idle-reaped-human", is_human=True),
        row("21.6-", past.parked_and_lost, SEND, FRESH, "idle-reaped-human-no-resume", is_human=True),
        row("21.7", past.parked, SEND, FRESH, "idle-reaped-no-topic", topiclessWake="fresh"),
        row("21.7+", past.parked, SEND, RESUME, "idle-reaped-resume"),
        row("21.8", past.parked, (*SEND, "--topic", "other"), FRESH, "idle-reaped-new-topic"),
        row("21.9", past.parked, (*SEND, *BUILD), RESUME, "idle-reaped-resume"),
        row("21.9-", past.parked_and_lost, (*SEND, *BUILD), FRESH, "idle-reaped-no-resume"),
        row("21.9 tokens", past.parked, SEND, FRESH, "resume-too-costly", resumeMaxTokens=10_000),
        row("21.9 idle", past.parked_long_ago, SEND, FRESH, "resume-too-costly", resumeMaxIdleMinutes=60),
    ],
)
def test_a_sleeping_peer_comes_back_as_its_row_says(
    world: World, request: pytest.FixtureRequest, arrange: Past, arguments: tuple[str, ...],
    mode: str, cause: str, said: dict[str, Any],
) -> None:  # fmt: skip
    is_human = said.get("is_human", False)
    name = name_of(request)
    args = () if mode == RESUME else ("--as", f"new-{name}")
    world.add(name, *args, initial_prompt="You keep $HOME.", is_human=is_human)
    arrange(world, name)
    world.configure(**{key: value for key, value in said.items() if key != "is_human"})

    answer = world.told(*(name if each == "NAME" else each for each in arguments))

    wanted = {"status": "READY", "woke": True, "taskDelivered": True, "mode": mode, "cause": cause, "retryAfter": None}
    assert {key: answer[key] for key in wanted} == wanted
    assert answer["sessionId"] == (world.id(name) if mode == RESUME else f"new-{name}")
    assert bool(answer["resumable"]) == (arrange not in (past.nothing, past.parked_and_lost))
    line = world.line("wake", name, mode=mode, cause=cause)
    assert line.get("ref") == (world.id(name) if mode == RESUME else None)
    assert world.sent(name) == [MESSAGE if mode == RESUME else f"You keep $HOME.\n\n{MESSAGE}"]
    assert world.left(name) == {".session"}
    assert not list(world.root.rglob("owned"))


# How it is not brought back.


def no(number: str, arrange: Past, cause: str, *arguments: str, **said: Any) -> Any:
    """Return a row of the table; `said` are what the answer has beside its status, and keys of the configuration."""
    return pytest.param(arrange, arguments or SEND, cause, said, id=f"{number} {cause}")


@pytest.mark.parametrize(
    ("arrange", "arguments", "cause", "said"),
    [
        no("22.1", past.removed, "unknown-peer"),
        no("22.1 torn", past.torn, "profile-unreadable"),
        no("22.2", past.managed, "systemd-managed"),
        no("22.3", past.nothing, "unknown-runtime", *SEND, "--runtime", "codex-cli"),
        no("22.5", past.stopped, "stopped", stopped=True),
        no("22.10", past.homeless, "cwd-missing"),
        no("22.11", past.in_a_loop, "crash-loop", reason="3 deaths in 300s; left asleep", retryAfter=range(290, 302)),
        no("22.11 failures", past.after_failures, "wake-back-off", retryAfter=range(110, 121)),
        no("22.11 torn", past.with_torn_deaths, "crash-loop", crashLoopMax=1, retryAfter=range(290, 302)),
        no("22.12", past.nothing, "attach-nothing-to-resume", "wake", "NAME", "--resume", mode="fail"),
        no("22 wakes", past.spent("wakes"), "hourly-budget", maxWakesPerHour=2, retryAfter=range(3590, 3601)),
        no("22 sends", past.spent("sends"), "hourly-budget", maxSendsPerHour=2, retryAfter=range(3590, 3601)),
        no("22 topic", past.nothing, "topic-refused", *SEND, "--topic", "a\nb"),
        no("22 message", past.nothing, "message-refused", "send", "NAME", "a\x1b[31mb"),
    ],
)
def test_who_is_not_woken_is_told_why_and_when_to_try_again(
    world: World, request: pytest.FixtureRequest, arrange: Past, arguments: tuple[str, ...],
    cause: str, said: dict[str, Any],
) -> None:  # fmt: skip
    name = world.add(name_of(request))
    arrange(world, name)
    world.configure(**{key: value for key, value in said.items() if re.search("[A-Z]", key) and key != "retryAfter"})
    before = world.left(name)

    answer = world.told(*(name if each == "NAME" else each for each in arguments), status=1)

    assert (answer["status"], answer["woke"], answer["taskDelivered"], answer["cause"]) == (
        "FAILED",
        False,
        False,
        cause,
    )
    assert answer["retryAfter"] in said.get("retryAfter", (None,))
    assert answer["stopped"] == said.get("stopped", False)
    assert said.get("reason", "") in answer["reason"]
    line = world.line("send" if "sends" in str(request.node.callspec.id) else "wake", name, cause=cause)
    assert line.get("mode", line.get("outcome")) == said.get("mode", "refused")
    assert line["reason"] == answer["reason"]
    assert world.left(name) == before
    assert not world.sent(name)


def test_deaths_that_cannot_be_read_are_kept_and_count_as_one_now(world: World) -> None:
    name = world.add("torn-deaths")
    past.with_torn_deaths(world, name)
    world.configure()

    assert world.told("wake", name)["status"] == "READY"
    assert [each.read_text() for each in world.file(name, "").parent.glob("*-torn-deaths.deaths.corrupt-*")] == ["{"]
    assert world.deaths(name) == 1


@contextmanager
def waiting(world: World, name: str) -> Iterator[subprocess.Popen[str]]:
    """Start a wake, and have the peer's lock until the end of the block, which begins when the wake waits for it."""
    world.file(name, "")
    with world.marks.parks.lock(world.identity(name)):
        process = world.start("send", name, MESSAGE, "--json")
        wait_until(lambda: "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text(), "it has tried the lock")
        yield process


@pytest.mark.parametrize(
    ("arrange", "cause", "again"),
    [
        pytest.param(past.nothing, "wake-lock-held", 5.0, id="22.6 wake-lock-held"),
        pytest.param(past.stopped, "stopped-mid-wake", None, id="22.7 stopped-mid-wake"),
        pytest.param(past.managed, "systemd-managed-mid-wake", None, id="22.8 systemd-managed-mid-wake"),
    ],
)
def test_who_waits_for_another_sees_what_became_of_the_peer(
    world: World, request: pytest.FixtureRequest, arrange: Past, cause: str, again: float | None
) -> None:
    name = world.add(name_of(request))
    world.configure(**{"bootDeadlineSec": 0.1, "readyGateSec": 0.1} if again else {})

    with waiting(world, name) as process:
        arrange(world, name)
        if again:
            process.wait(30)
    answer = json.loads(world.done(process, status=1)[0])

    assert (answer["cause"], answer["retryAfter"], answer["stopped"]) == (cause, again, "stopped" in cause)
    assert world.line("wake", name, cause=cause)["mode"] == "refused"
    assert not world.sent(name)


@pytest.mark.parametrize(
    ("args", "cause", "is_alive", "words"),
    [
        pytest.param(("--exit", "3"), "exited", False, "with status 3: It rains. / No roof", id="22.14 exited"),
        pytest.param(("--die", "9"), "exited", False, "by signal 9", id="22.14 killed"),
        pytest.param(("--mute",), "never-ready", True, "it shows: nothing", id="22.14 never-ready"),
        pytest.param(("--trust",), "dialog", True, "instar-peers attach", id="22.14 dialog"),
        pytest.param(("--as", "x"), "another-session", False, "session x came up", id="22.14 another-session"),
        pytest.param(("--deaf",), "undelivered", True, "did not reach it", id="22.14 undelivered"),
        pytest.param((), "launch-failed", False, "claude", id="22.14 launch-failed"),
    ],
)
def test_a_start_that_fails_keeps_what_was_parked_and_says_what_failed(
    world: World, request: pytest.FixtureRequest, args: tuple[str, ...], cause: str, words: str, *, is_alive: bool
) -> None:
    name = world.add(name_of(request), *args)
    world.parked(name)
    world.configure(**{"bootDeadlineSec": 0.5} if cause == "never-ready" else {"readyGateSec": 1})
    env = {"PATH": str(only_tmux(world))} if cause == "launch-failed" else {}

    answer = world.told("send", name, MESSAGE, status=1, **env)

    assert (answer["status"], answer["cause"], answer["woke"]) == ("FAILED", cause, is_alive)
    assert words in answer["reason"]
    assert answer["resumable"]["sessionId"] == world.id(name)
    assert world.line("wake", name, mode="resume")["ref"] == world.id(name)
    assert world.line("wake", name, mode="failed", cause=cause)["reason"] == answer["reason"]
    assert world.left(name) == {".idle-reaped", *([".session"] if is_alive else [])}
    assert world.deaths(name) == (not is_alive)
    assert answer["retryAfter"] in ((None,) if is_alive else range(50, 61))


def only_tmux(world: World) -> Path:
    folder = world.folder / "only"
    folder.mkdir()
    found = shutil.which("tmux")
    assert found
    (folder / "tmux").symlink_to(found)
    return folder


def test_a_start_whose_pane_is_closed_is_told_as_vanished(world: World) -> None:
    name = world.add("vanished", "--mute")
    world.configure()
    process = world.start("wake", name, "--json")
    wait_until((world.folder / "stand-ins-vanished/started.json").exists, "it is started")
    world.tmux("kill-session", "-t", f"={world.identity(name)}")

    assert json.loads(world.done(process, status=1)[0])["cause"] == "vanished"
    assert world.line("wake", name, cause="vanished")["mode"] == "failed"
    assert world.deaths(name) == 1


def test_who_lives_is_left_as_it_is_is_watched_again_and_told_what_is_sent(world: World) -> None:
    name = world.add("lives", "--as", "lives")
    world.configure()
    world.file(name, ".session").mkdir()
    (world.file(name, ".session") / "in-the-way").touch()

    first = world.told("wake", name)
    assert (first["status"], first["woke"], first["cause"]) == ("READY", True, "first-wake")
    assert "cannot be written" in world.line("warning", name, cause="unsupervised")["reason"]  # row 15
    assert not world.sent(name)

    shutil.rmtree(world.file(name, ".session"))
    again = world.told("wake", name, "--task", MESSAGE)
    said = {key: again[key] for key in ("status", "woke", "mode", "taskDelivered", "sessionId")}
    assert said == {"status": "READY", "woke": False, "mode": "live", "taskDelivered": False, "sessionId": "lives"}
    assert world.left(name) == {".session"}
    assert not world.sent(name)

    assert world.told("send", name, "-", read=MESSAGE)["delivery"]["fate"] == "landed"
    assert world.line("send", name)["outcome"] == "landed"
    assert world.sent(name) == [MESSAGE]


# What the supervisor does.


def does(action: str, outcome: str, **more: str) -> dict[str, str]:
    return {"action": action, "outcome": outcome, **more}


def gone(cause: str, **more: str) -> dict[str, str]:
    return does("reaped-gone", "fresh-next-msg", cause=cause, **more)


PARKED = does("reaped-idle", "resume-eligible", cause="parked", by="reaper")
ALIVE = does("alive", "alive")
EAGER = does("needs-eager-fresh", "eager-fresh")
HALTED = does("reaped-idle", "operator-halt-enforced")
UNTOLD = does("skipped-indeterminate", "unknown", reason="its process is ending, or cannot be looked at")
TORN = does("skipped-error", "peer-error-isolated")

# A row's number and name, whether its session lives before it comes about, how that is, what is said of it, what it
# leaves, and how many deaths are counted.
LOOKS: list[tuple[str, bool, Past, dict[str, str], str, int]] = [
    ("25.0 torn", False, past.torn_session, TORN, ".session", 0),
    ("25.0 torn for long", False, past.torn_long_ago, TORN, "", 0),
    ("25.1 managed", False, past.dead(past.managed), does("skipped-launchd", "read-only-h4"), ".session", 0),
    ("25.2 stopped", False, past.dead(past.stopped), does("skipped-stopped", "resume-on-start"), ".idle-reaped", 0),
    ("25.3 busy", False, past.dead(), does("skipped-busy", "in-flight"), ".session", 0),
    ("25.3 claimed", False, past.claimed(os.getpid()), does("asleep", "nothing-to-do"), ".session.reaping", 0),
    ("25.3 abandoned", False, past.claimed(NOBODY), gone("crash", death="unknown"), "", 1),
    ("25.4 eager", False, past.dead(past.eager), EAGER, ".session", 0),
    ("25.4 eager alive", True, past.eager, EAGER, ".session", 0),
    ("25.5 killed", True, past.killed, gone("crash", death="signal 9"), "", 1),
    ("25.5 clean exit", True, past.quitted, gone("clean-exit"), "", 0),
    ("25.5 reboot", False, past.rebooted, gone("host-reboot"), "", 0),
    ("25.5 parked", False, past.watched_and_parked, PARKED, ".idle-reaped", 0),
    ("25.6 halted", True, past.stopped, HALTED, ".idle-reaped", 0),
    ("25.9 idle", True, past.idle, does("reaped-idle", "resume-eligible"), ".idle-reaped", 0),
    ("25.10 alive", True, past.nothing, ALIVE, ".session", 0),
    ("30 intent alive", True, past.half_parked, ALIVE, ".session", 0),
    ("30 intent gone", False, past.dead(past.half_parked), PARKED, ".idle-reaped", 0),
    ("30 intent untold", False, past.untold, UNTOLD, ".session .idle-reaped.pending", 0),
    ("30 intent of another", False, past.dead(past.other_intended), gone("crash"), "", 1),
    ("30 no intent", True, past.half_judged, ALIVE, ".session", 0),
    ("30 marker dead", False, past.dead(past.marked), PARKED, ".idle-reaped", 0),
    ("30 marker alive", True, past.marked, ALIVE, ".session", 0),
    ("30 wake killed", False, past.half_woken, does("asleep", "nothing-to-do"), ".idle-reaped", 0),
]


def peer_of(row: str) -> str:
    return re.sub("[^a-z0-9]+", "-", row)


@pytest.fixture(scope="module")
def looked(tmp_path_factory: pytest.TempPathFactory, installed: Project) -> Iterator[tuple[World, dict[str, Any]]]:
    """Return a project with a peer for each row, after the supervisor has looked once, and what it said."""
    made = World(tmp_path_factory.mktemp("looked"), installed)
    made.configure({"minAgeMinutes": 0})
    names = {peer_of(number): (arrange, is_live) for number, is_live, arrange, *_ in LOOKS}
    for name in names:
        made.add(name, "--as", made.id(name))
    woken = [made.start("wake", name, "--topic", "build") for name, (_, is_live) in names.items() if is_live]
    for each in woken:
        made.done(each)
    for name, (arrange, is_live) in names.items():
        if is_live:
            made.talked(name)
        arrange(made, name)
    with made.marks.parks.lock(made.identity("25-3-busy")):
        rows = made.passed(INSTAR_SUPERVISE_LOG_VERBOSE="yes")
    yield made, rows
    made.end()


@pytest.mark.parametrize(
    ("row", "is_live", "arrange", "said", "left", "deaths"), LOOKS, ids=[each[0] for each in LOOKS]
)
def test_a_look_does_what_its_row_says(
    looked: tuple[World, dict[str, Any]], row: str, arrange: object, said: dict[str, str], left: str, deaths: int, *,
    is_live: bool,
) -> None:  # fmt: skip
    (world, rows), name = looked, peer_of(row)

    assert {key: rows[name].get(key) for key in said} == said
    world.line("supervise", name, **said)
    assert world.left(name) == set(left.split())
    assert world.deaths(name) == deaths
    if is_live:
        assert world.lives(name) == (".session" in left), arrange
    if row.startswith("30"):
        assert world.record(name)["status"] == ("completed" if ".idle-reaped" in left.split() else "running")


def test_what_is_put_aside_is_kept_and_named(looked: tuple[World, dict[str, Any]]) -> None:
    world, rows = looked
    name = "25-0-torn-for-long"
    aside = world.file(name, "").with_name(rows[name]["quarantined"])
    assert aside.read_text() == "{"
    assert world.line("supervise", name)["quarantined"] == aside.name


def test_who_asked_for_it_is_started_clean_in_the_same_look(looked: tuple[World, dict[str, Any]]) -> None:
    world, rows = looked
    for name in ("25-4-eager", "25-4-eager-alive"):
        said = {key: rows[f"relaunch {name}"][key] for key in ("status", "woke", "cause")}
        assert said == {"status": "READY", "woke": True, "cause": "folder-launch"}
        world.line("wake", name, mode="fresh", cause="folder-launch")


def test_what_was_not_decided_is_in_the_log_only_where_that_is_wanted(looked: tuple[World, dict[str, Any]]) -> None:
    world, _ = looked
    told = lambda: [each["personality"] for each in world.lines() if each.get("action") in QUIET]  # noqa: E731
    before = told()
    rows = world.passed()
    world.line("supervise", "25-3-busy", action="reaped-gone")
    assert {rows[name]["action"] for name in ("25-10-alive", "25-1-managed")} == {"alive", "skipped-launchd"}
    assert told() == before
    assert {"25-10-alive", "25-1-managed", "25-3-busy", "25-3-claimed"} <= set(before)
