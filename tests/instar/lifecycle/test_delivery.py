"""A message arrives as it is, once, with proof; or nothing is typed, and why is told."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from clients.waiting import wait_until
from instar.errors import InstarError
from instar.lifecycle.clients import delivery
from instar.lifecycle.clients.delivery import deliver, target_of
from instar.lifecycle.clients.messages import CHARACTERS_AT_MOST, unfit
from instar.sessions import registry
from instar.sessions.machine.tmux import Done, Tmux
from tests.instar.lifecycle.launched import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CARRIED = [
    "one", "two\nlines", 'a\n\n  "quoted" $(x) `y` \'z\'\n\nend', "é 日本 \U0001f389", "ends in \\", "see @", "; ",
    "#{pid}",    "word " * 300, "-", "\\033[201~", "\u202e\u200b!",
]  # fmt: skip


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage.made(tmp_path)
    yield stage
    stage.end()


def test_messages_land_as_they_are(stage: Stage) -> None:
    target = stage.up()

    for message in CARRIED:
        landed = deliver(stage.root, target, message, tmux=stage.tmux)
        assert (landed.fate, landed.session_id) == ("landed", "fresh-session"), (message, landed)

    assert stage.sent == [message.rstrip() for message in CARRIED]
    assert stage.tmux.run(stage.socket, "list-buffers").text == ""


def test_the_same_message_lands_twice(stage: Stage) -> None:
    target = stage.up()

    fates = [deliver(stage.root, target, "again", tmux=stage.tmux).fate for _ in range(2)]

    assert (fates, stage.sent) == (["landed", "landed"], ["again", "again"])


@pytest.mark.parametrize(
    ("client", "message", "why"),
    [("claude-code", " \n", "empty"), ("claude-code", "a\x1b[201~b", "U\\+001B"), ("codex-cli", "a\x03", "U\\+0003"),
     ("claude-code", "a\rb", "U\\+000D"), ("claude-code", "a\x9bb", "U\\+009B"),
     ("claude-code", "\ud800", "half"),
     ("claude-code", "x" * (CHARACTERS_AT_MOST["claude-code"] + 1), "more than"),
     ("claude-code", "!ls", "begins with '!'"),
     ("claude-code", "\n/clear", "begins with '/'"),
     ("claude-code", " Exit", "ends when"),
     ("claude-code", "a\tb", "tabs")],
)  # fmt: skip
def test_what_would_be_changed_or_run_is_refused(client: str, message: str, why: str) -> None:
    found = unfit(client, message)

    assert found
    assert re.search(why, found)


@pytest.mark.parametrize("message", ["!ls", "/clear", "a\tb", "exit", "x" * CHARACTERS_AT_MOST["codex-cli"]])
def test_codex_takes_more(message: str) -> None:
    assert unfit("codex-cli", message) is None


def test_the_path_of_a_picture_is_refused_where_the_picture_would_take_its_place(tmp_path: Path) -> None:
    picture = tmp_path / "roof.png"
    picture.touch()

    assert unfit("codex-cli", f"'{picture}'")
    assert unfit("codex-cli", f"see {picture}") is None
    assert unfit("claude-code", f"see {picture}")
    assert unfit("claude-code", f"see {picture} there") is None
    assert unfit("claude-code", f"see {tmp_path}/none.png") is None


def test_a_draft_is_left_alone(stage: Stage) -> None:
    target = stage.up()
    stage.tmux.run(stage.socket, "send-keys", "-l", "-t", target.pane, "a draft")
    wait_until(lambda: "a draft" in stage.frame(target.pane), "it is typed")

    held = deliver(stage.root, target, "Hello.", tmux=stage.tmux)

    assert held.fate == "held"
    assert "Hello." not in stage.frame(target.pane)


def test_who_looks_back_is_left_alone(stage: Stage) -> None:
    target = stage.up()
    stage.tmux.run(stage.socket, "copy-mode", "-t", target.pane)

    assert deliver(stage.root, target, "Hello.", tmux=stage.tmux).fate == "held"

    stage.tmux.run(stage.socket, "send-keys", "-X", "-t", target.pane, "cancel")
    assert deliver(stage.root, target, "Hello.", tmux=stage.tmux).fate == "landed"
    assert stage.sent == ["Hello."]


def test_a_dialog_gets_no_key(stage: Stage) -> None:
    asked = stage.launch("--ask", "Do you want to proceed?")
    target = delivery.Target("x", "claude-code", str(stage.root), stage.socket, asked.pane, asked.server or 0)

    held = deliver(stage.root, target, "Hello.", tmux=stage.tmux)

    assert (held.fate, held.why) == ("held", "it asks for a permission")
    assert "Enter to confirm" in stage.frame(asked.pane)


def test_one_that_is_gone_is_told_nothing_and_may_be_tried_again(stage: Stage) -> None:
    target = stage.up()

    for gone in (replace(target, pane="%77"), replace(target, server=target.server + 1)):
        assert deliver(stage.root, gone, "Hello.", tmux=stage.tmux).fate == "held"
    stage.tmux.run(stage.socket, "send-keys", "-t", target.pane, "x")
    stage.end()
    assert deliver(stage.root, target, "Hello.", tmux=stage.tmux).fate == "held"
    assert stage.sent == []


def test_a_paste_into_what_has_just_died_leaves_the_others_alive(stage: Stage) -> None:
    target = stage.up()
    stage.tmux.run(stage.socket, "new-session", "-d", "-s", "other", "sleep", "60")

    class Late(Tmux):
        def run(self, socket: str, *command: str, stdin: str = "") -> Done:
            if command[0] == "load-buffer":
                os.kill(stage.tmux.view(socket).panes[target.pane].pid, signal.SIGKILL)
                wait_until(lambda: stage.tmux.view(socket).panes[target.pane].is_dead, "it has died")
            return super().run(socket, *command, stdin=stdin)

    held = deliver(stage.root, target, "Hello.", tmux=Late(timeout_s=30))

    assert (held.fate, held.why) == ("held", "it has ended")
    assert len(stage.tmux.view(stage.socket).panes) == 2
    assert stage.tmux.run(stage.socket, "list-buffers").text == ""


def test_without_a_record_it_is_accepted_and_no_more(stage: Stage) -> None:
    target = stage.up("--no-record")

    accepted = deliver(stage.root, target, "Hello.", tmux=stage.tmux, landing_s=1)

    assert (accepted.fate, accepted.session_id, stage.sent) == ("accepted", "", ["Hello."])


def test_what_was_on_record_before_proves_nothing(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "SENT_S", 1.0)
    target = stage.up("--deaf")
    said = {"lastPrompt": {"id": "0", "text": "Hello."}}
    registry.change(stage.root, "fresh-session", lambda record: {**record, **said})

    refused = deliver(stage.root, target, "Hello.", tmux=stage.tmux, landing_s=1)

    assert (refused.fate, refused.why) == ("refused", "it is typed, and Enter did not send it")


def test_a_client_that_is_not_known_is_told_nothing(stage: Stage) -> None:
    target = delivery.Target("x", "vim", "/", stage.socket, "%0", 1)

    assert deliver(stage.root, target, "Hello.", tmux=stage.tmux).why == "its client is not known"


def test_many_at_once_arrive_one_after_another(stage: Stage) -> None:
    target = stage.up()
    messages = [f"message {number}" for number in range(6)]

    with ThreadPoolExecutor(len(messages)) as senders:
        fates = list(senders.map(lambda each: deliver(stage.root, target, each, tmux=stage.tmux).fate, messages))

    assert (set(fates), sorted(stage.sent)) == ({"landed"}, messages)


def test_where_a_session_takes_messages_is_on_record(stage: Stage) -> None:
    target = stage.up()
    session = registry.session(stage.root, "fresh-session")
    assert session

    assert target_of(session.record) == target
    with pytest.raises(InstarError, match="no pane"):
        target_of({"id": "x", "client": "claude-code"})
