"""What is meant to do harm is carried as it is or refused in a sentence; what is broken of one peer stays its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from clients.waiting import wait_until
from tests.instar.cli import peer_pasts as past

if TYPE_CHECKING:
    from pathlib import Path

    from tests.instar.cli.peer_world import World


def test_what_cannot_be_used_of_one_peer_keeps_no_other_from_anything(own: World) -> None:
    world = own
    for name, end in (("torn-marker", ".idle-reaped"), ("torn-record", ".session"), ("torn-deaths", ".deaths")):
        world.add(name)
        world.file(name, end).write_bytes(b"\xff{")
    world.parked("torn-record")
    (world.root / f".instar/state/sessions/{world.id('torn-record')}.json").write_text("[")
    world.add("torn-profile")
    past.torn(world, "torn-profile")
    world.add("healthy")
    past.crashed(world, "healthy")

    rows = world.passed()
    assert rows["healthy"]["cause"] == "crash"
    assert {rows[name]["action"] for name in ("torn-marker", "torn-record")} == {"skipped-error"}
    world.line("supervise", "torn-marker", outcome="peer-error-isolated")
    states = {each["name"]: each["state"] for each in world.told("list")}
    assert (states["healthy"], states["torn-profile"], states["torn-deaths"]) == ("asleep", "broken", "asleep")
    assert len(states) == 5
    assert world.told("wake", "torn-marker")["status"] == "READY"
    assert world.line("warning", "torn-marker")["cause"] == "marker-unreadable"


EVIL = "$(touch owned)'\"`touch owned`;touch owned|&"
NAMES = ["../bob", "bob/../bob", "a\nts=1 ev=wake personality=bob", "\x1b]0;owned\x07", EVIL, "", "b" * 33]


def trees(world: World) -> set[Path]:
    """Return all files of the project and beside it, but for what may come with any command."""
    logs = world.root / ".instar/logs"
    return {each for each in world.folder.rglob("*") if not each.is_relative_to(logs)}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_what_is_no_name_is_refused_by_every_verb_and_makes_no_file_and_no_line_of_its_own(
    world: World, name: str
) -> None:
    world.configure()
    before = trees(world)
    verbs = ["wake", "send", "stop", "start", "new", "refresh", "attach"]
    verb = verbs[NAMES.index(name)]
    told = len(world.lines())

    said = world.told(verb, name, *([EVIL] if verb == "send" else []), status=1)

    assert (said["status"], said["cause"]) == ("FAILED", "unknown-peer")
    assert "is no name of a peer" in said["reason"]
    assert said["reason"].isprintable()
    wait_until(lambda: len(world.lines()) > told, "it is in the log")
    (line,) = world.lines()[told:]
    assert (line["personality"], line["cause"]) == (name, "unknown-peer")
    assert trees(world) == before


def test_what_is_said_is_carried_as_it_is_or_refused_and_run_by_nobody(world: World) -> None:
    name = world.add(
        "evil",
        "--as",
        "evil",
        initial_prompt=EVIL,
        env={"STAND_IN": str(world.folder / "stand-ins-evil"), "EVIL": EVIL},
    )
    world.configure()
    long = f"{EVIL}\n" + "größer " * 149_000
    assert 2**20 - len(long) in range(10_000)

    assert world.told("wake", name, "--topic", EVIL, "--task", "-", read=EVIL)["status"] == "READY"
    assert world.told("send", name, "-", read=long)["delivery"]["fate"] == "landed"
    assert world.told("send", name, "-", "--topic", "-", read=EVIL)["taskDelivered"]
    assert world.sent(name) == [f"{EVIL}\n\n{EVIL}", long.strip(), EVIL]
    assert world.marks.topics(world.identity(name)) == [EVIL, "-"]
    assert json.loads((world.folder / "stand-ins-evil/started.json").read_text())["environ"]["EVIL"] == EVIL

    for text in (f"{long}{long}", "a\x00b", "\x1b[201~\rrm", " \n"):
        assert world.told("send", name, "-", status=1, read=text)["cause"] == "message-refused"
        world.line("wake", name, cause="message-refused")
    errors = world.done(world.start("send", name, "-"), status=2, read="x" * (2**22 + 1))[1]
    assert "longer than" in errors
    assert len(world.sent(name)) == 3
    assert not list(world.folder.rglob("owned*"))
