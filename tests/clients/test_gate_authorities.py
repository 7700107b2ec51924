"""The real clients as judges of a stop: the verdict comes through, and they run no tool, no hook and no server."""

from __future__ import annotations

import json
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from instar.gate.clients import ClaudeCli, CodexCli
from instar.gate.evidence import Artifact, Evidence
from instar.gate.rules import Pointer
from instar.gate.verdict import Unusable, Verdict
from support import executable

from . import fake_model as module
from .codex import TRUST_HOOKS
from .fake_model import FakeModel, Run, Say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from support import Project

    from .conftest import ClaudeFactory, CodexFactory
    from .launch import Launch
    from .wire import Answer

PLAN = "docs/plans/alpha.md"
EVIDENCE = Evidence(Path("/nowhere"), session_start=1.0, artifacts=(Artifact(PLAN, has_open_item=True),))
RULE = "U2_PLAN_FILE_NEXT_STEP_EXPLICIT"
ANSWER = json.dumps({"decision": "continue", "rule": RULE, "evidence_pointer": {"plan_file": PLAN}})
SECONDS = 60
EVENTS = ("SessionStart", "UserPromptSubmit", "Stop", "SessionEnd")


class Judge(FakeModel):
    """A model whose only calls are those of a judge: to the harness one without tools is no turn of a conversation."""

    def __init__(self, answer: Answer) -> None:
        super().__init__([answer])
        self.said = answer
        self.bodies: list[dict[str, Any]] = []

    def answer_side_call(self) -> tuple[Answer, int]:
        _, number = super().answer_side_call()
        return self.said, number


@contextmanager
def judge(answer: Answer, patch: pytest.MonkeyPatch) -> Iterator[Judge]:
    """Start a model that gives this answer, and keeps all that it is asked."""
    with Judge(answer) as model:
        ask = module._Handler._ask_model  # noqa: SLF001 - the one place that sees each request

        def kept(handler: Any, wire: Any, body: dict[str, Any]) -> tuple[Answer | None, int]:
            model.bodies.append(body)
            return ask(handler, wire, body)

        patch.setattr(module._Handler, "_ask_model", kept)  # noqa: SLF001
        yield model


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the file that any hook and any server of the person's would make."""
    return tmp_path / "ran"


@pytest.fixture
def hooks(ran: Path) -> dict[str, Any]:
    command = {"type": "command", "command": f"touch '{ran}'"}
    return {"hooks": {event: [{"hooks": [command]}] for event in EVENTS}}


def enter(launch: Launch, patch: pytest.MonkeyPatch) -> None:
    """Be where a server that asks the client would be."""
    for name, value in launch.env.items():
        patch.setenv(name, value)


def trusting(program: Path, tmp_path: Path) -> str:
    """Return a Codex that would run every hook that it knows, trusted or not."""
    script = f'#!/bin/sh\nshift\nexec "{program}" exec {TRUST_HOOKS} "$@"\n'
    return str(executable(tmp_path / "trusting-codex", script))


def asked(client: ClaudeCli | CodexCli) -> Verdict:
    return client.judge(EVIDENCE, "Pausing to preserve context.", ("mentionsContext",), SECONDS)


def test_claude_judges_without_tools_hooks_servers_and_traces(
    claude: ClaudeFactory, hooks: dict[str, Any], ran: Path, client_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (client_home / ".claude").mkdir()
    (client_home / ".claude/settings.json").write_text(json.dumps(hooks))
    (client_home / ".claude/CLAUDE.md").write_text("INSTRUCTIONS OF THE PERSON")
    server = {"command": "touch", "args": [str(ran)]}
    (client_home / ".claude.json").write_text(json.dumps({"mcpServers": {"x": server}}))
    with judge(Say(ANSWER), monkeypatch) as model:
        driven = claude(model)
        enter(driven.launch(), monkeypatch)
        verdict = asked(ClaudeCli(str(driven.executable)))

    assert verdict == Verdict("continue", RULE, Pointer(PLAN))
    (body,) = model.bodies
    assert body["tools"] == []
    assert "haiku" in body["model"]
    assert "thinking" not in body or body["thinking"]["type"] == "disabled"
    assert PLAN in json.dumps(body["messages"])
    assert "INSTRUCTIONS OF THE PERSON" not in json.dumps(body)
    assert not ran.exists()
    assert not list(client_home.rglob("*.jsonl"))


def test_codex_judges_without_tools_that_act_hooks_servers_and_traces(
    codex: CodexFactory, hooks: dict[str, Any], ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with judge(Say(ANSWER), monkeypatch) as model:
        driven = codex(model)
        (driven.codex_home / "hooks.json").write_text(json.dumps(hooks))
        with driven.config.open("a") as config:
            config.write(f'\n[mcp_servers."a server"]\ncommand = "touch"\nargs = ["{ran}"]\n')
        enter(driven.launch(), monkeypatch)
        verdict = asked(CodexCli(trusting(driven.executable, tmp_path)))

    assert verdict == Verdict("continue", RULE, Pointer(PLAN))
    (body,) = model.bodies
    assert {tool.get("name", tool["type"]) for tool in body["tools"]} <= {"request_user_input"}
    assert PLAN in json.dumps(body["input"])
    assert not ran.exists()
    assert not list(driven.codex_home.rglob("*.jsonl"))


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_judge_that_wants_to_run_a_tool_runs_none(
    client: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with judge(Run(f"touch '{tmp_path}/tool'"), monkeypatch) as model:
        driven = request.getfixturevalue(client)(model)
        enter(driven.launch(), monkeypatch)
        program = str(driven.executable)
        with pytest.raises(Unusable) as caught:
            asked(ClaudeCli(program) if client == "claude" else CodexCli(program))

    assert caught.value.kind in ("llmUnavailable", "malformed")
    assert len(model.bodies) <= 2
    assert not (tmp_path / "tool").exists()


@pytest.mark.parametrize("client", ["claude", "codex"])
def test_a_judge_never_fires_what_we_install(
    client: str, request: pytest.FixtureRequest, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = request.getfixturevalue("client_home")
    installed = {"claude": ".claude/settings.json", "codex": ".codex/hooks.json"}[client]
    place = home / installed
    executable(project.root / ".instar/hooks/instar/run", f"#!/bin/sh\ntouch '{tmp_path}/fired'\n")
    with judge(Say(ANSWER), monkeypatch) as model:
        driven = request.getfixturevalue(client)(model)
        place.parent.mkdir(exist_ok=True)
        shutil.copy(project.root / installed, place)
        enter(driven.launch(), monkeypatch)
        monkeypatch.setattr(tempfile, "tempdir", str(project.root))  # so that the judge's folder lies in the project
        program = driven.executable
        verdict = asked(ClaudeCli(str(program)) if client == "claude" else CodexCli(trusting(program, tmp_path)))

    assert verdict.rule == RULE
    assert not (tmp_path / "fired").exists()
    assert not list(project.root.glob("instar-gate-*"))
