"""Real clients that work, or that somebody has to do with, are kept by the gate that says so, however long they are."""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any, Union

import psutil
import pytest

from . import codex as codex_module
from .builds import session_of, trusted
from .codex import Codex
from .fake_model import Call, FakeModel, Run, Say
from .reaped import LOOKS, Reaped, Seated, attached, have_ended, seat
from .waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support import Project

    from .claude import Claude
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import Request
    from .tui import Tmux
    from .wire import Answer

    Client = Union[Claude, Codex]

IN_PARTS = "The slates are\n\nlaid"  # Claude shows whole lines alone
NEVER = 1440  # minutes: longer than any of it takes, by any clock
AT_ONCE: dict[str, Any] = {
    "confirmObservations": 2, "confirmWindowMinutes": 0, "idleThresholdCriticalMinutes": 0, "finalGraceSec": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Room:
    """Where clients are started: a project, a tmux server, and a folder for what a command waits for."""

    project: Project
    tmux: Tmux
    folder: Path
    factory: ClaudeFactory | CodexFactory

    def client(self, model: FakeModel) -> Client:
        """Set up the client in the project, able to run its hooks."""
        driven = self.factory(model, project=self.project.root)
        return trusted(driven) if isinstance(driven, Codex) else driven

    def seat(self, model: FakeModel, *args: str, may_ask: bool = False) -> Seated:
        """Start the client in a pane."""
        return seat(self.tmux, self.client(model), *args, may_ask=may_ask)

    def seat_idle(self, model: FakeModel, *args: str) -> Seated:
        """Start it, and have it do what the model says, until it is idle again."""
        seated = self.seat(model, *args)
        seated.tui.prompt("go", until="done.")
        return seated

    @property
    def waits(self) -> str:
        """A shell command that says that it has begun, and waits for what never comes."""
        return f"touch {self.folder}/begun; until [ -e {self.folder}/end ]; do sleep 0.1; done"

    def wait_for(self, name: str, seated: Seated) -> None:
        """Wait for a file in the folder."""
        wait_until((self.folder / name).exists, f"{name} is there", seen=seated.tui.scrollback)


@pytest.fixture(params=["claude", "codex"])
def room(request: pytest.FixtureRequest, project: Project, tmux: Tmux, tmp_path: Path) -> Room:
    """Return the room for one client after the other."""
    return Room(project, tmux, tmp_path, request.getfixturevalue(request.param))


@pytest.fixture
def claude_room(claude: ClaudeFactory, project: Project, tmux: Tmux, tmp_path: Path) -> Room:
    """Return the room for Claude."""
    return Room(project, tmux, tmp_path, claude)


@pytest.fixture
def reaped(project: Project) -> Reaped:
    """Return the reaper of the project."""
    return Reaped(project)


class Thinking(FakeModel):
    """A model that never comes to an answer."""

    def answer(self, request: Request) -> tuple[Answer | None, int]:
        answer = super().answer(request)
        self.wait_for(Event())
        return answer


class TestAClientAtWorkIsKept:
    def test_before_the_first_word(self, room: Room, reaped: Reaped) -> None:
        with Thinking() as model:
            seated = room.seat(model)
            seated.tui.send("go")
            wait_until(lambda: model.calls, "the model is asked")

            reaped.keeps(seated.session, "turn-open")

    def test_mid_stream(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat(fake_model([Say(IN_PARTS, ends_at=Event())]))
        seated.tui.send("go")
        seated.tui.wait_for("The slates are")

        reaped.keeps(seated.session, "turn-open")

    def test_mid_tool(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat(fake_model([Run(room.waits)]))
        seated.tui.send("go")
        room.wait_for("begun", seated)

        reaped.keeps(seated.session, "active-process")
        assert {"turn-open", "no-positive-idle"} <= reaped.gates(seated.session).keys()

    def test_with_a_message_that_waits_for_its_turn(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat(fake_model([Run(room.waits)]))
        seated.tui.send("go")
        room.wait_for("begun", seated)
        seated.tui.send("and the gutter")
        seated.tui.wait_for("Messages to be submitted" if seated.is_codex else "edit queued messages")

        reaped.keeps(seated.session, "active-process")
        assert {"turn-open", "no-positive-idle"} <= reaped.gates(seated.session).keys()

    def test_while_a_stop_hook_runs(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        client = room.client(fake_model())
        hook = {"type": "command", "command": room.waits, "timeout": 600}
        of_codex = isinstance(client, Codex)
        place = client.home / (".codex/hooks.json" if of_codex else ".claude/settings.json")
        place.parent.mkdir(exist_ok=True)
        no_dialog = {} if of_codex else {"skipDangerousModePermissionPrompt": True}
        place.write_text(json.dumps({**no_dialog, "hooks": {"Stop": [{"hooks": [hook]}]}}))
        seated = seat(room.tmux, client, *((codex_module.TRUST_HOOKS,) if of_codex else ()))
        seated.tui.send("go")
        room.wait_for("begun", seated)

        reaped.keeps(seated.session, "active-process")
        assert {"turn-open", "no-positive-idle"} <= reaped.gates(seated.session).keys()

    def test_with_a_command_in_the_background(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat_idle(fake_model([Run(room.waits, background=True)]))

        reaped.keeps(seated.session, "active-process")
        assert {"background-task", "no-positive-idle"} <= reaped.gates(seated.session).keys()

    def test_with_a_client_of_its_own(self, claude_room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        model = fake_model([Say(IN_PARTS, ends_at=Event())])
        within = claude_room.client(model)
        seated = claude_room.seat(fake_model([Run(within.headless("go in").for_shell())]))
        seated.tui.send("go")
        wait_until(lambda: model.calls, "the one within is asked", seen=seated.tui.scrollback)

        reaped.keeps(seated.session, "active-process")
        reaped.keeps(session_of(model), "frame-unreadable")

    def test_with_a_job_at_a_set_time(self, claude_room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        job = {"cron": "7 4 1 1 *", "prompt": "look at the roof", "recurring": False}
        seated = claude_room.seat_idle(fake_model([Call("CronCreate", job)]))

        reaped.keeps(seated.session, "scheduled-wake")


class TestAClientThatSomebodyHasToDoWithIsKept:
    def test_at_a_dialog(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        escalated = {"cmd": "echo tiles", "sandbox_permissions": "require_escalated", "justification": "Tiles?"}
        tools = {True: Call("exec_command", escalated), False: Run("touch tiles")}
        client = room.client(fake_model(lambda _request: tools[isinstance(client, Codex)]))
        seated = seat(room.tmux, client, may_ask=True)
        seated.tui.send("go")
        seated.tui.wait_for("to confirm or esc to cancel" if seated.is_codex else "Esc to cancel")

        reaped.keeps(seated.session, "modal-open")
        assert {"turn-open", "no-positive-idle"} <= reaped.gates(seated.session).keys()

    def test_with_text_that_was_not_sent(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat_idle(fake_model())
        seated.type("half a thought")
        seated.tui.wait_for("half a thought")

        reaped.keeps(seated.session, "composer-not-empty")

    def test_with_a_terminal_that_shows_it(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat_idle(fake_model())

        with attached(seated):
            reaped.keeps(seated.session, "client-attached")

        assert 1 < reaped.until_parked(seated.session) <= LOOKS

    def test_in_copy_mode(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat_idle(fake_model())
        room.tmux.run("copy-mode", "-t", seated.tui.pane)

        reaped.keeps(seated.session, "client-attached")

    def test_right_after_a_prompt(self, room: Room, fake_model: ModelFactory) -> None:
        reaped = Reaped(room.project, recentUserWindowMinutes=NEVER)
        seated = room.seat_idle(fake_model())

        reaped.keeps(seated.session, "recent-user-message")

    def test_when_it_is_young(self, room: Room, fake_model: ModelFactory) -> None:
        reaped = Reaped(room.project, minAgeMinutes=NEVER)
        seated = room.seat_idle(fake_model())

        reaped.keeps(seated.session, "spawn-grace")

    def test_below_the_shared_daemon_of_codex(
        self, codex: CodexFactory, reaped: Reaped, project: Project, fake_model: ModelFactory, tmux: Tmux
    ) -> None:
        client = trusted(codex(fake_model(), project=project.root))
        client.config.write_text(client.config.read_text().replace("auto_start = false", "auto_start = true"))
        try:
            seated = seat(tmux, client)
            seated.tui.prompt("go", until="done.")

            reaped.keeps(seated.session, "liveness-indeterminate")
            assert not project.record(seated.session).keys() & {"agent", "tmux"}
        finally:
            client.launch("app-server", "daemon", "stop").run()
            shutil.rmtree(client.codex_home / "packages", ignore_errors=True)  # where it ran: 400 MB


class TestWhatDoesNotKeepAnIdleClient:
    @pytest.mark.parametrize("in_tool", [False, True], ids=["mid-stream", "mid-tool"])
    def test_that_it_was_interrupted(
        self, room: Room, reaped: Reaped, fake_model: ModelFactory, *, in_tool: bool
    ) -> None:
        seated = room.seat(fake_model([Run(room.waits) if in_tool else Say(IN_PARTS, ends_at=Event())]))
        seated.tui.send("go")
        if in_tool:
            room.wait_for("begun", seated)
        else:
            seated.tui.wait_for("The slates are")
        seated.tui.press("Escape")
        seated.tui.wait_for("nterrupted")
        seated.tui.wait_until_idle()

        assert reaped.until_parked(seated.session) <= LOOKS

    def test_that_something_runs_beside_it(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated = room.seat_idle(fake_model())
        beside = room.tmux.run(
            "split-window", "-d", "-P", "-F", "#{pane_id}", "-t", seated.tui.pane, "while sleep 0.05; do date +%N; done"
        )
        seated.tui.wait_until_idle()

        assert reaped.until_parked(seated.session) <= LOOKS
        assert room.tmux.run("display-message", "-p", "-t", beside, "#{pane_dead}") == "0"

    def test_that_a_helper_of_its_own_waits(self, room: Room, reaped: Reaped, fake_model: ModelFactory) -> None:
        seated, helper = seat_with_a_helper(room, fake_model())

        assert reaped.until_parked(seated.session) <= LOOKS
        assert have_ended([helper])

    def test_but_a_helper_that_works_does(self, room: Room, fake_model: ModelFactory) -> None:
        reaped = Reaped(room.project, tickIntervalSec=2, **AT_ONCE)
        seated, helper = seat_with_a_helper(room, fake_model())
        (room.folder / "busy").touch()

        def work() -> None:
            used = sum(helper.cpu_times()[:2])
            wait_until(lambda: sum(helper.cpu_times()[:2]) > used + 0.1, "the helper works")

        reaped.keeps(seated.session, "active-process", looks=LOOKS, between=work)
        assert helper.is_running()


# Speaks the Model Context Protocol as far as a client needs it, and works as long as a file is there.
HELPER = """
import json, os, sys, threading, time

def work():
    while True:
        if not os.path.exists(sys.argv[1] + "/busy"):
            time.sleep(0.05)

def answer(request):
    if request["method"] == "initialize":
        said = {"name": "roofs", "version": "1"}
        version = request["params"]["protocolVersion"]
        return {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": said}
    return {"tools": []} if request["method"] == "tools/list" else {}

threading.Thread(target=work, daemon=True).start()
with open(sys.argv[1] + "/pid.new", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + "/pid.new", sys.argv[1] + "/pid")
for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}), flush=True)
"""


def seat_with_a_helper(room: Room, model: FakeModel) -> tuple[Seated, psutil.Process]:
    """Start a client that starts a helper before its first prompt, and have it be idle."""
    program = room.folder / "roofs.py"
    program.write_text(HELPER)
    words: dict[str, Any] = {"command": sys.executable, "args": [str(program), str(room.folder)]}
    client = room.client(model)
    if isinstance(client, Codex):
        args = [word for key, value in words.items() for word in ("-c", f"mcp_servers.roofs.{key}={json.dumps(value)}")]
    else:
        config = room.folder / "mcp.json"
        config.write_text(json.dumps({"mcpServers": {"roofs": words}}))
        args = ["--mcp-config", str(config)]
    seated = seat(room.tmux, client, *args)
    room.wait_for("pid", seated)
    helper = psutil.Process(int((room.folder / "pid").read_text()))
    wait_until(lambda: time.time() > helper.create_time() + 2, "the helper is older than the prompt by any clock")
    seated.tui.prompt("go", until="done.")
    return seated, helper
