"""A session is parked only when every gate lets it go; each gate keeps it for one reason, and by its own name."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable

import pytest

from instar.sessions.classifier import GATES, OPAQUE, Gate, ask, explain, judge, needs_screen
from instar.sessions.clock import iso
from instar.sessions.leases import Lease, take
from instar.sessions.verdict import ALL_CLEAR
from tests.instar.sessions.world import AGENT, BOOT_AT, FRAMES, NOW, ONE, SHELL, World, claude_transcript

if TYPE_CHECKING:
    from pathlib import Path

    Change = Callable[[World], Any]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def configure(world: World, **keys: Any) -> None:
    world.config = {"monitoring": {"sessionReaper": keys}}


def show(name: str, title: str = "✳ Claude Code") -> Change:
    def change(world: World) -> None:
        world.frame = (FRAMES / f"{name}.txt").read_text()
        world.pane = replace(world.pane, title=title)

    return change


def append(world: World, *entries: dict[str, Any]) -> None:
    with world.transcript.open("a") as file:
        file.writelines(json.dumps({"sessionId": ONE, "isSidechain": False, **each}) + "\n" for each in entries)


def put_subagent(world: World, age: float) -> None:
    path = world.transcript.with_suffix("") / "subagents" / "agent-1.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    os.utime(path, (NOW - age, NOW - age))


def put_build(world: World, **state: Any) -> None:
    path = world.root / ".instar/state/build/build-state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(state))
    os.utime(path, (NOW - 60, NOW - 60))


def manage(world: World, *, identity: str = "", tmux_session: str = "work") -> None:
    """Have a service run the peer that is called bob; the session is of `identity`."""
    (world.units / "instar-peer@bob.service").touch()
    world.record |= {"identity": identity, "tmux": {**world.record["tmux"], "session": tmux_session}}


def hide_units(world: World, *, identity: str) -> None:
    world.units.rmdir()
    world.units.symlink_to(world.units)  # to itself: nobody can read it, whoever runs this
    world.record["identity"] = identity


def queue(world: World) -> None:
    assert world.frame is not None
    world.frame = world.frame.replace("\u276f\xa0\n", "\u276f\xa0Press up to edit queued messages\n")


def test_an_idle_session_is_all_clear(world: World) -> None:
    verdict = judge(world.look())

    assert (verdict.kept_by, verdict.confidence) == (ALL_CLEAR, "high")
    assert world.look().is_still()
    assert [(gate.name, word) for gate, word in explain(world.look()) if word] == []


KEPT: dict[str, tuple[Change, str, str]] = {
    # what is the matter -> what is changed, the name it is kept by, how sure that is
    "it is protected by its id": (lambda it: it.config.update(sessions={"protected": [ONE]}), "protected", "high"),
    "its tmux session is protected": (lambda it: it.config.update(sessions={"protected": ["w*"]}), "protected", "high"),
    "systemd runs its peer": (lambda it: manage(it, identity="claude-code-bob"), "protected", "high"),
    "its tmux session is such a peer's": (lambda it: manage(it, tmux_session="codex-cli-bob"), "protected", "high"),
    "nobody can tell who runs its peer": (lambda it: hide_units(it, identity="codex-cli-bob"), "protected", "low"),
    "the look is made from within": (lambda it: setattr(it, "own", frozenset((AGENT,))), "self", "high"),
    "it is not on record": (lambda it: setattr(it, "state", "unrecorded"), "unmanaged", "high"),
    "only named agents are parked": (lambda it: configure(it, reapUnmanaged=False), "unmanaged", "high"),
    "no process can be read": (lambda it: setattr(it, "is_table_readable", False), "liveness-indeterminate", "low"),
    "its process is not known": (lambda it: it.record.pop("agent"), "liveness-indeterminate", "low"),
    "its process is gone": (lambda it: it.processes.pop(AGENT), "liveness-indeterminate", "low"),
    "its pid is another's": (
        lambda it: it.processes.update({AGENT: replace(it.processes[AGENT], start="1")}),
        "liveness-indeterminate",
        "low",
    ),
    "it ran before the machine was restarted": (
        lambda it: it.record["agent"].update(boot="another"),
        "liveness-indeterminate",
        "low",
    ),
    "tmux does not answer": (
        lambda it: setattr(it, "view", replace(it.view, state="indeterminate", why="no answer in 5 s")),
        "liveness-indeterminate",
        "low",
    ),
    "its tmux server is gone": (
        lambda it: setattr(it, "view", replace(it.view, state="gone", server_pid=None)),
        "identity-mismatch",
        "low",
    ),
    "another server has its socket": (
        lambda it: (it.add(11, 1, "tmux: server"), setattr(it, "view", replace(it.view, server_pid=11))),
        "identity-mismatch",
        "low",
    ),
    "its server was started anew": (
        lambda it: it.record["tmux"].update(serverStart="7"),
        "identity-mismatch",
        "low",
    ),
    "its pane is gone": (lambda it: it.record["tmux"].update(pane="%7"), "identity-mismatch", "low"),
    "its pane is dead": (lambda it: setattr(it, "pane", replace(it.pane, is_dead=True)), "identity-mismatch", "low"),
    "its pane runs something else": (
        lambda it: setattr(it, "pane", replace(it.pane, pid=77)),
        "identity-mismatch",
        "low",
    ),
    "its process talks of another session": (lambda it: it.say(sessionId="another"), "identity-mismatch", "low"),
    "it is behind ssh": (lambda it: setattr(it, "pane", replace(it.pane, command="ssh")), "opaque-pane", "low"),
    "it is in a tmux in a tmux": (
        lambda it: it.processes.update({SHELL: replace(it.processes[SHELL], name="screen")}),
        "opaque-pane",
        "low",
    ),
    "it has just begun": (lambda it: configure(it, minAgeMinutes=100_000), "spawn-grace", "high"),
    "it begins tomorrow": (
        lambda it: it.processes.update({AGENT: replace(it.processes[AGENT], created=NOW + 86_400)}),
        "spawn-grace",
        "high",
    ),
    "a lease is on it": (
        lambda it: take(it.root, ONE, Lease("relay", "", NOW + 60), NOW),
        "lease:relay",
        "high",
    ),
    "a terminal shows its tmux session": (
        lambda it: setattr(it, "pane", replace(it.pane, attached=1)),
        "client-attached",
        "high",
    ),
    "somebody scrolls in its pane": (
        lambda it: setattr(it, "pane", replace(it.pane, is_in_mode=True)),
        "client-attached",
        "high",
    ),
    "a terminal shows its window": (
        lambda it: (configure(it, attachedKeeps="window"), setattr(it, "pane", replace(it.pane, watching=1))),
        "client-attached",
        "high",
    ),
    "it was spoken to": (lambda it: it.record["lastPrompt"].update(at=iso(NOW - 60)), "recent-user-message", "high"),
    "it was spoken to tomorrow": (
        lambda it: it.record["lastPrompt"].update(at=iso(NOW + 86_400)),
        "recent-user-message",
        "high",
    ),
    "when it was spoken to is no time": (
        lambda it: it.record["lastPrompt"].update(at="noon"),
        "recent-user-message",
        "low",
    ),
    "an agent of its own writes": (lambda it: put_subagent(it, 5), "active-subagent", "high"),
    "it has a build to finish": (lambda it: put_build(it, phase="executing"), "structural-long-work", "high"),
    "the build cannot be read": (lambda it: put_build(it, phase={}), "structural-long-work", "high"),
    "a tool runs": (lambda it: it.add(40, AGENT, "make"), "active-process", "high"),
    "a tool runs below a tool": (
        lambda it: (it.add(40, AGENT, "bash"), it.add(41, 40, "make")),
        "active-process",
        "high",
    ),
    "a job of it runs elsewhere": (
        lambda it: (
            it.add(40, 1, "python", terminal=None),
            it.environments.told.update({40: {"INSTAR_SESSION_ID": ONE}}),
        ),
        "active-process",
        "high",
    ),
    "something runs on its terminal": (lambda it: it.add(40, SHELL, "make"), "active-process", "high"),
    "it computes": (
        lambda it: it.processes.update({AGENT: replace(it.processes[AGENT], cpu_s=50.0)}),
        "main-process-active",
        "high",
    ),
    "it is seen for the first time": (lambda it: setattr(it, "before", {}), "main-process-active", "low"),
    "its pane cannot be read": (lambda it: setattr(it, "frame", None), "frame-unreadable", "low"),
    "it has no pane": (lambda it: it.record.pop("tmux"), "frame-unreadable", "low"),
    "its client was never seen": (lambda it: setattr(it, "is_calibrated", False), "unsupported-client", "low"),
    "its client is not known": (lambda it: it.record.pop("client"), "unsupported-client", "low"),
    "it asks for a permission": (show("claude-2.1.197-permission-dialog"), "modal-open", "high"),
    "it says that it waits": (
        lambda it: it.say(status="waiting", waitingFor="permission prompt"),
        "modal-open",
        "high",
    ),
    "it asks whether to trust a folder": (show("claude-2.1.197-trust-dialog", "host"), "modal-open", "high"),
    "text is not sent": (show("claude-2.1.197-typed-not-sent"), "composer-not-empty", "high"),
    "a message is queued": (queue, "composer-not-empty", "high"),
    "a shell runs in the background": (show("claude-2.1.197-idle-with-background-task"), "background-task", "high"),
    "it says that a shell runs": (lambda it: it.say(status="shell"), "background-task", "high"),
    "its transcript is gone": (lambda it: it.transcript.unlink(), "transcript-unresolved", "low"),
    "its transcript is another's": (
        lambda it: it.transcript.write_text(claude_transcript(session="another")),
        "transcript-unresolved",
        "low",
    ),
    "it is not told where its transcript is": (
        lambda it: it.record.pop("transcriptPath"),
        "transcript-unresolved",
        "low",
    ),
    "its transcript shrank": (
        lambda it: it.transcript.write_text(claude_transcript().splitlines()[0] + "\n"),
        "transcript-unresolved",
        "low",
    ),
    "it wrote": (
        lambda it: append(
            it, {"type": "user", "uuid": "3", "timestamp": iso(NOW), "message": {"role": "user", "content": "x"}}
        ),
        "transcript-grew",
        "high",
    ),
    "it says that it works": (lambda it: it.say(status="busy"), "turn-open", "high"),
    "it used tokens": (lambda it: setattr(it, "tokens", 12), "token-activity", "high"),
    "it works, as its status row shows": (
        show("claude-2.1.197-working-streaming", "⠂ Claude Code"),
        "no-positive-idle",
        "high",
    ),
    "its screen shows something else": (
        lambda it: setattr(it, "frame", "$ ? for shortcuts\n"),
        "no-positive-idle",
        "high",
    ),
    "where it was started is not known": (lambda it: it.record.update(cwd=""), "not-resumable", "high"),
    "it was parked again and again": (
        lambda it: it.record.update(parks=[iso(NOW - 3600), iso(NOW - 600)]),
        "park-thrash",
        "high",
    ),
}


@pytest.mark.parametrize(("change", "kept_by", "confidence"), KEPT.values(), ids=KEPT)
def test_one_thing_that_is_the_matter_keeps_it(world: World, change: Change, kept_by: str, confidence: str) -> None:
    change(world)
    verdict = judge(world.look())

    assert (verdict.kept_by, verdict.confidence) == (kept_by, confidence), verdict.why
    assert verdict.why
    assert "secret" not in verdict.why
    assert str(world.root.parent) not in verdict.why
    assert not verdict.is_clear


def turn_cut_short(world: World) -> None:
    """Have a turn that was open at the look before, too."""
    world.transcript.write_text(claude_transcript().splitlines()[0] + "\n")
    world.before = world.look({}, NOW - 120).marks()


def turn_untold(world: World) -> None:
    world.transcript.write_text(f'{{"sessionId": "{ONE}", "type": "of tomorrow"}}\n')
    world.before = world.look({}, NOW - 120).marks()


@pytest.mark.parametrize(("change", "kept_by"), [(turn_cut_short, "turn-open"), (turn_untold, "turn-unknown")])
def test_a_turn_that_is_not_shown_to_be_over_keeps_it(world: World, change: Change, kept_by: str) -> None:
    change(world)

    assert judge(world.look()).kept_by == kept_by


LET_GO: dict[str, Change] = {
    "a lease that is over": lambda it: take(it.root, ONE, Lease("relay", "", NOW - 1), NOW - 60),
    "an agent of its own that is done": lambda it: put_subagent(it, 600),
    "a build of another session": lambda it: put_build(it, phase="executing", owner={"session": "another"}),
    "a build that is done": lambda it: put_build(it, phase="complete", owner={"session": ONE}),
    "a helper from before the first prompt": lambda it: (
        it.add(40, AGENT, "node", BOOT_AT + 210),
        setattr(it, "before", it.look({}, NOW - 120).marks()),
    ),
    "a job of the shell from before the client": lambda it: it.add(40, SHELL, "gitstatusd", BOOT_AT + 150),
    "a window that nobody sees": lambda it: (
        configure(it, attachedKeeps="window"),
        setattr(it, "pane", replace(it.pane, attached=1)),
    ),
    "a client that says that it is idle": lambda it: it.say(status="idle"),
    "a word of another process": lambda it: it.say(status="busy", procStart=1),
    "no word on tokens": lambda it: setattr(it, "tokens", 0),
    "one park of late": lambda it: it.record.update(parks=[iso(NOW - 600)]),
    "parks of yesterday": lambda it: it.record.update(parks=[iso(NOW - 90_000), iso(NOW - 86_400)]),
}


@pytest.mark.parametrize("change", LET_GO.values(), ids=LET_GO)
def test_what_is_not_the_matter_does_not_keep_it(world: World, change: Change) -> None:
    change(world)

    assert judge(world.look()).is_clear, judge(world.look())


def test_every_gate_is_shown_to_keep_something() -> None:
    shown = {kept_by.split(":")[0] for _, kept_by, _ in KEPT.values()} | {"turn-open", "turn-unknown"}

    # Two need what only a real machine has: processes that may not be read, and a client that plans to wake up.
    assert {gate.name for gate in GATES} - shown == {"process-uninspectable", "scheduled-wake"}


@pytest.mark.parametrize("name", sorted(OPAQUE))
def test_whatever_hides_a_session_keeps_it(world: World, name: str) -> None:
    world.pane = replace(world.pane, command=name)

    assert judge(world.look()).kept_by == "opaque-pane"


def test_the_first_gate_gives_the_name_and_a_lifted_one_hides_no_other(world: World) -> None:
    world.add(40, AGENT, "make")
    world.pane = replace(world.pane, attached=1)

    assert judge(world.look()).kept_by == "client-attached"
    assert judge(world.look(), {"client-attached"}).kept_by == "active-process"
    assert judge(world.look(), {gate.name for gate in GATES}).is_clear


def test_a_gate_that_fails_keeps_it_and_says_how(world: World) -> None:
    def fail(_sight: object) -> None:
        raise ZeroDivisionError

    word = ask(Gate("some", "proof", fail), world.look())

    assert word is not None
    assert (word.by, word.confidence) == ("eval-error", "low")
    assert "ZeroDivisionError" in word.why


def test_what_somebody_wants_kept_needs_no_look_at_its_screen(world: World) -> None:
    assert needs_screen(world.look())
    world.record["lastPrompt"]["at"] = iso(NOW - 60)
    assert not needs_screen(world.look())


STIRRED: dict[str, Change] = {
    "another text": lambda it: setattr(it, "frame", f"one more line\n{it.frame}"),
    "another size": lambda it: setattr(it, "pane", replace(it.pane, width=80)),
    "another place of the cursor": lambda it: setattr(it, "pane", replace(it.pane, cursor=(3, 5))),
    "lines that went by": lambda it: setattr(it, "pane", replace(it.pane, history=9)),
    "something drawn that looks the same": lambda it: setattr(it, "pane", replace(it.pane, activity=7)),
}


@pytest.mark.parametrize("change", STIRRED.values(), ids=STIRRED)
def test_a_pane_that_stirred_is_not_still(world: World, change: Change) -> None:
    change(world)

    assert not world.look().is_still()


def test_what_is_drawn_beside_a_pane_is_no_sign_of_it(world: World) -> None:
    world.others = [replace(world.pane, id="%2", activity=0)]
    world.before = world.look({}, NOW - 120).marks()
    world.pane = replace(world.pane, activity=7)

    assert world.look().is_still()


def test_marks_of_another_process_are_no_marks(world: World) -> None:
    world.before = {**world.before, "agent": {"pid": 1, "start": "1", "boot": ""}}

    assert judge(world.look()).kept_by == "main-process-active"
    assert not world.look().is_still()


def test_looks_in_a_quick_row_come_to_tell_whether_it_computes(world: World) -> None:
    world.before = {}
    words = []
    for number in range(8):
        sight = world.look(at=NOW + number * 0.4)
        words.append(sight.is_busy)
        world.before = sight.marks()

    assert words[:3] == [None] * 3
    assert words[3:] == [False] * 5


def test_marks_survive_a_file(world: World) -> None:
    assert json.loads(json.dumps(world.before)) == world.before
