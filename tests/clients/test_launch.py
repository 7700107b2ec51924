"""Real clients are launched as peers, told messages as they are, and resumed by the id of their session."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import psutil
import pytest

from instar.lifecycle.clients.delivery import Target, deliver, target_of
from instar.lifecycle.clients.launch import Launched, Patience, launch, socket_of
from instar.lifecycle.peers import Peer
from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.resumption import Unresumable, proven

from .builds import trusted
from .codex import Codex
from .fake_model import Say
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from instar.names import Runtime
    from support import Project

    from .claude import Claude
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory

    Client = Union[Claude, Codex]

FIRST = "Lay the slates\n\n  \"in rows\" of $(seven); `nails`, 'copper' \\n @roof \\"
SECOND = "What was it?\n/clear\n!ls # é 日本 @"
HOSTILE = "before\x1b[201~\x1b]0;after\x07"
ANSWER = "The roof is on."
LONG = "word\n\n" * 60 + SECOND
PATIENCE = Patience(boot_s=40, record_s=20, landing_s=20)


@dataclass
class Launcher:
    """A real client as a peer, on a tmux server of its own."""

    project: Project
    client: Client
    peer: Peer
    environ: dict[str, str]
    tmux: Tmux

    def launch(self, message: str = "", resume_id: str | None = None, **changes: Any) -> Launched:
        peer = replace(self.peer, **changes)
        return launch(
            self.project.root, peer, message, environ=self.environ, tmux=self.tmux, resume_id=resume_id,
            patience=PATIENCE,
        )  # fmt: skip

    def target(self, launched: Launched) -> Target:
        return target_of(self.project.record(launched.session_id))

    def transcript(self, launched: Launched) -> Path:
        """Return the transcript, once the client has put its turn down, which it does after it has shown it."""
        path = Path(self.project.record(launched.session_id)["transcriptPath"])
        parts = [FIRST[:9], ANSWER]  # in any order: Claude writes its lines in none

        def is_put_down() -> bool:
            return path.is_file() and all(each in path.read_text() for each in parts)

        wait_until(is_put_down, "the client puts its turn down")
        return path

    def close(self, launched: Launched) -> None:
        """Close its pane, and see its client gone: it goes on for a moment, at its session, without one."""
        assert launched.pid
        client = [psutil.Process(launched.pid), *psutil.Process(launched.pid).children(recursive=True)]
        self.tmux.run(launched.socket, "kill-pane", "-t", launched.pane)
        wait_until(lambda: launched.pane not in self.tmux.view(launched.socket).panes, "its pane is gone")
        wait_until(lambda: not any(each.is_running() for each in client), "its client is gone")

    @property
    def said(self) -> list[str]:
        return [text for request in self.client.model.requests for text in request.user_texts]


@pytest.fixture(params=["claude", "codex"])
def launcher(
    request: pytest.FixtureRequest, fake_model: ModelFactory, project: Project, tmp_path: Path
) -> Iterator[Launcher]:
    """Set up one client after the other in the project, able to run its hooks."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(request.param)
    client = factory(fake_model([Say(ANSWER), Say("It rains.")]), project=project.root)
    if isinstance(client, Codex):
        trusted(client)
    runtime: Runtime = "codex-cli" if isinstance(client, Codex) else "claude-code"
    start = client.interactive()
    path = f"{client.executable.parent}{os.pathsep}{start.env['PATH']}"
    environ = {**start.env, "PATH": path, "TMUX_TMPDIR": str(tmp_path)}
    tmux = Tmux(timeout_s=30)
    yield Launcher(project, client, Peer(name="bob", runtime=runtime, cwd=project.root), environ, tmux)
    tmux.run(socket_of(environ), "kill-server")


def test_a_fresh_peer_is_told_its_message_and_a_resumed_one_knows_it(launcher: Launcher) -> None:
    up = launcher.launch(FIRST)

    assert (up.outcome, up.delivered and up.delivered.fate) == ("up", "landed"), up
    wait_until(lambda: FIRST in launcher.said, "the model is told", seen=lambda: str(launcher.said))
    record = launcher.project.record(up.session_id)
    assert (record["identity"], record["launchedBy"]) == (launcher.peer.identity, "instar")
    assert record["agent"] == up.agent
    assert launcher.transcript(up)
    launcher.close(up)
    assert proven(record).argv[-1] == up.session_id

    again = launcher.launch(SECOND, resume_id=up.session_id)

    assert (again.outcome, again.session_id) == ("up", up.session_id), again
    wait_until(lambda: SECOND in launcher.said, "the model is told", seen=lambda: str(launcher.said))
    assert "in rows" in json.dumps(launcher.client.model.requests[-1].body)


def test_a_living_peer_takes_message_after_message_but_not_into_a_draft(launcher: Launcher) -> None:
    up = launcher.launch()
    assert up.outcome == "up", up
    root, tmux = launcher.project.root, launcher.tmux
    target = Target(launcher.peer.identity, launcher.peer.runtime, str(root), up.socket, up.pane, up.server or 0)

    assert deliver(root, target, HOSTILE, tmux=tmux).fate == "refused"
    assert deliver(root, target, FIRST, tmux=tmux).fate == "landed"
    assert deliver(root, target, LONG, tmux=tmux).fate in {"landed", "accepted"}
    wait_until(lambda: [text for text in launcher.said if text.rstrip().endswith(SECOND)], "the model is told")
    tmux.run(up.socket, "send-keys", "-l", "-t", up.pane, "a draft")
    wait_until(lambda: "a draft" in tmux.view(up.socket, [up.pane]).frames[up.pane], "it is typed")

    assert deliver(root, target, "Over it.", tmux=tmux).fate == "held"
    assert not any("after" in text or "Over" in text for text in launcher.said)


def test_a_session_that_is_not_there_is_no_other(launcher: Launcher) -> None:
    ended = launcher.launch("Go on.", resume_id="11111111-2222-4333-8444-555555555555")

    assert (ended.outcome, ended.is_alive) == ("exited", False), ended
    assert ended.exit
    assert ended.exit.status == 1
    assert "11111111-2222" in ended.why
    assert launcher.said == []


@pytest.mark.parametrize("launcher", ["claude"], indirect=True)
def test_a_session_whose_client_put_no_turn_down_is_not_taken_up_and_the_reason_is_told(launcher: Launcher) -> None:
    up = launcher.launch(FIRST)
    transcript = launcher.transcript(up)
    launcher.close(up)
    lines = [line for line in transcript.read_text().splitlines(keepends=True) if "uuid" not in json.loads(line)]
    transcript.write_text("".join(lines))
    with pytest.raises(Unresumable, match="no conversation"):
        proven(launcher.project.record(up.session_id))

    ended = launcher.launch(SECOND, resume_id=up.session_id)

    assert (ended.outcome, ended.is_alive) == ("exited", False), ended
    assert "No conversation found" in ended.why


def test_the_question_about_the_folder_is_answered_for_those_alone_who_may(launcher: Launcher) -> None:
    if isinstance(launcher.client, Codex):
        config = launcher.client.config
        config.write_text(config.read_text().replace('trust_level = "trusted"', ""))
    else:
        config = launcher.client.home / ".claude.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "projects": {}}))

    asked = launcher.launch("Hello.")

    assert (asked.outcome, asked.is_alive, asked.dialog and asked.dialog.name) == ("dialog", True, "trust-folder")
    launcher.close(asked)
    answered = launcher.launch("Hello.", trusts_folder=True)
    assert (answered.outcome, answered.dialog) == ("up", None), answered
    wait_until(lambda: "Hello." in launcher.said, "the model is told")
