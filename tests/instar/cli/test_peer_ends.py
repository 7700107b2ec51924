"""How a session of a peer ended is told, and decides how its next one begins; what cannot be told changes nothing."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

from clients.waiting import wait_until
from tests.instar.cli import peer_pasts as past

if TYPE_CHECKING:
    from tests.instar.cli.peer_world import World

FRESH, RESUME = "fresh", "resume"
GONE = {"action": "reaped-gone", "outcome": "fresh-next-msg", "cause": "server-dead"}


def test_what_cannot_be_told_changes_nothing_and_a_server_that_dies_is_told_once(own: World) -> None:
    world = own
    for name in ("ann", "bob", "eve", "joe"):
        world.add(name, "--as", world.id(name))
    for each in [world.start("wake", name) for name in ("ann", "bob")]:
        world.done(each)
    world.talked("bob")
    past.crashed(world, "eve")
    server = int(world.tmux("display-message", "-p", "#{pid}"))
    files = {each: each.read_bytes() for each in world.file("eve", "").parent.iterdir()}

    os.kill(server, signal.SIGSTOP)
    try:
        waking = world.start("wake", "joe", "--json")
        rows = world.passed()
        said = json.loads(world.done(waking, status=1)[0])
    finally:
        os.kill(server, signal.SIGCONT)
    assert (rows["eve"]["action"], rows["ann"]["action"]) == ("skipped-indeterminate", "alive")
    assert (said["cause"], said["retryAfter"]) == ("liveness-indeterminate", 5.0)
    assert world.line("supervise", "eve", action="skipped-indeterminate")["outcome"] == "unknown"
    world.line("wake", "joe", cause="liveness-indeterminate")
    assert {each: each.read_bytes() for each in files} == files

    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not (world.lives("ann") or world.lives("bob")), "they end with it")
    rows = world.passed()
    for name in ("ann", "bob"):
        assert GONE.items() <= rows[name].items()
        world.line("supervise", name, **GONE)
        assert world.deaths(name) == 0
    assert rows["eve"]["cause"] == "crash"
    wait_until(lambda: [each["peers"] for each in world.lines() if each["ev"] == "server-dead"] == ["2"], "it is told")

    said = world.told("wake", "bob")
    assert (said["mode"], said["cause"], said["resumable"]["sessionId"]) == ("fresh", "server-dead", world.id("bob"))
    world.line("wake", "bob", mode="fresh", cause="server-dead")


def test_each_way_to_end_says_how_the_next_wake_begins(own: World) -> None:
    world = own
    bob = world.add("bob", "--as", world.id("bob"))

    def woken(mode: str, cause: str) -> None:
        """See how it is woken by a message about what it was told before."""
        said = world.told("send", bob, f"message {len(world.sent(bob))}", "--topic", "build")
        assert (said["mode"], said["cause"]) == (mode, cause)
        assert world.line("wake", bob, cause=cause)["mode"] == mode
        assert said["resumable"] or cause == "first-wake"
        assert world.left(bob) == {".session"}

    assert world.told("wake", bob, "--topic", "build")["cause"] == "first-wake"
    world.talked(bob)

    assert world.told("stop", bob)["status"] == "DONE"
    world.line("stopped", bob)
    assert world.left(bob) == {".idle-reaped"}
    assert world.told("start", bob)["status"] == "DONE"
    world.line("started", bob)
    woken(RESUME, "idle-reaped-resume")

    ended = world.start("kill", world.id(bob), "--json", program="instar-sessions")
    assert json.loads(world.done(ended)[0])["terminated"]
    woken(RESUME, "idle-reaped-resume")
    world.line("supervise", bob, cause="parked", by="operator")
    assert world.deaths(bob) == 0

    world.quit(bob)
    assert world.passed()[bob]["cause"] == "clean-exit"
    assert (world.left(bob), world.deaths(bob)) == (set(), 0)
    woken(FRESH, "crash-or-self-close")

    said = world.told("new", bob)
    assert (said["cause"], said["previous"]["sessionId"]) == ("folder-launch", world.id(bob))
    assert world.deaths(bob) == 0

    world.kill(bob)
    woken(FRESH, "crash-or-self-close")
    world.line("supervise", bob, cause="crash", death="signal 9")
    assert world.deaths(bob) == 1


def test_many_who_wake_it_at_once_start_it_once_and_heal_nobody_else(own: World) -> None:
    for name in ("bob", "eve"):
        own.add(name, "--as", own.id(name))
        past.crashed(own, name)

    asked = [own.start("send", "bob", f"message {number}", "--json") for number in range(3)]
    said = [json.loads(own.done(each)[0]) for each in asked]

    assert sorted((each["status"], each["woke"]) for each in said) == [("READY", False)] * 2 + [("READY", True)]
    assert sorted(own.sent("bob")) == [f"message {number}" for number in range(3)]
    own.line("supervise", "bob", cause="crash")
    lines = [each for each in own.lines() if each.get("mode") == "fresh" or each.get("personality") == "eve"]
    assert [(each["ev"], each["personality"]) for each in lines] == [("wake", "bob")]
    assert own.left("eve") == {".session"}


def test_what_a_verb_finds_of_a_peer_is_in_the_log(own: World) -> None:
    for name in ("bob", "eve"):
        own.add(name, "--as", own.id(name))
        past.crashed(own, name)

    assert own.told("stop", "eve")["status"] == "DONE"
    assert own.told("new", "bob")["cause"] == "folder-launch"
    own.line("stopped", "eve")
    own.line("wake", "bob", mode="fresh")
    assert own.line("supervise", "eve", action="skipped-stopped")["outcome"] == "resume-on-start"
    assert own.line("supervise", "bob", action="reaped-gone")["death"] == "unknown"
    assert (own.deaths("eve"), own.deaths("bob")) == (0, 1)
