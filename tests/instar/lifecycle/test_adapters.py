"""What a client is started with, and what its recorded screens offer to whoever has a message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from instar.errors import InstarError
from instar.lifecycle.clients.adapters import ADAPTERS, adapter
from instar.lifecycle.peers import Peer

if TYPE_CHECKING:
    from instar.names import Runtime

FRAMES = Path(__file__).parent.parent / "sessions/frames"
TITLES = json.loads((FRAMES / "titles.json").read_text())
RUNTIMES = {"claude": "claude-code", "codex": "codex-cli"}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    for program in ("claude", "codex"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    return {"PATH": str(tmp_path)}


@pytest.mark.parametrize(
    ("runtime", "bypass", "resume", "words"),
    [("claude-code", False, None, "--own"), ("claude-code", True, None, "--dangerously-skip-permissions --own"),
     ("claude-code", False, "0123-4567", "--own --resume 0123-4567"),
     ("codex-cli", False, None, "--disable daemon_auto_start --own"),
     ("codex-cli", True, "0123-4567",
      "--disable daemon_auto_start --dangerously-bypass-approvals-and-sandbox --own resume 0123-4567")],
)  # fmt: skip
def test_a_client_is_started_by_its_words(
    environ: dict[str, str], runtime: Runtime, bypass: bool, resume: str | None, words: str  # noqa: FBT001
) -> None:  # fmt: skip
    peer = Peer(name="bob", runtime=runtime, cwd=Path("/"), bypasses_permissions=bypass, args=("--own",))

    argv = adapter(runtime).launch_argv(peer, resume, environ)

    program = {"claude-code": "claude", "codex-cli": "codex"}[runtime]
    assert argv == ("/usr/bin/env", f"{environ['PATH']}/{program}", *words.split())


@pytest.mark.parametrize("resume", ["", "--last", "a b", "../../x", "x\n", "-"])
def test_what_is_no_id_is_never_a_word_of_a_command(environ: dict[str, str], resume: str) -> None:
    with pytest.raises(InstarError, match="no id"):
        adapter("claude-code").launch_argv(Peer(name="bob", runtime="claude-code", cwd=Path("/")), resume, environ)


def test_an_unknown_client_is_said_to_be_one() -> None:
    with pytest.raises(InstarError, match="claude-code, codex-cli"):
        adapter("vim")


def test_a_program_that_env_would_misread_is_refused(environ: dict[str, str]) -> None:
    odd = Path(environ["PATH"]) / "a=b"
    odd.mkdir()
    (odd.parent / "claude").rename(odd / "claude")

    with pytest.raises(InstarError, match="variable"):
        adapter("claude-code").launch_argv(
            Peer(name="b", runtime="claude-code", cwd=Path("/")), None, {"PATH": str(odd)}
        )


@pytest.mark.parametrize(
    ("name", "moment", "dialog"),
    [("claude-2.1.197-fresh.ansi", "ready", None), ("claude-2.1.197-bypass-fresh.ansi", "ready", None),
     ("claude-2.1.197-background.ansi", "ready", None), ("claude-2.1.197-streaming.ansi", "busy", None),
     ("claude-2.1.197-tool.ansi", "busy", None), ("claude-2.1.197-queued.ansi", "busy", None),
     ("claude-2.1.197-typed.ansi", "draft", None), ("claude-2.1.197-typed-while-streaming.ansi", "draft", None),
     ("claude-2.1.197-pasted.ansi", "draft", None), ("claude-2.1.197-permission.ansi", "dialog", "permission"),
     ("claude-2.1.197-trust-dialog.txt", "dialog", "trust-folder"),
     ("claude-2.1.197-resume-picker.ansi", "dialog", "dialog"), ("codex-0.169.0-fresh.ansi", "ready", None),
     ("codex-0.169.0-resumed.ansi", "ready", None), ("codex-0.169.0-streaming.ansi", "busy", None),
     ("codex-0.169.0-tool.ansi", "busy", None), ("codex-0.169.0-queued.ansi", "busy", None),
     ("codex-0.169.0-typed-while-streaming.ansi", "draft", None), ("codex-0.169.0-pasted.ansi", "draft", None),
     ("codex-0.169.0-permission.ansi", "dialog", "permission"),
     ("codex-0.169.0-trust-dialog.txt", "dialog", "trust-folder"),
     ("codex-0.169.0-hooks-review-dialog.txt", "dialog", "hooks-review")],
)  # fmt: skip
def test_a_recorded_screen_offers(name: str, moment: str, dialog: str | None) -> None:
    told = TITLES[name]

    seen = adapter(RUNTIMES[name.partition("-")[0]]).surface((FRAMES / name).read_text(), told["title"], told["folder"])

    assert (seen.moment, seen.dialog and seen.dialog.name) == (moment, dialog), seen
    assert bool(seen.dialog and seen.dialog.keys) == (dialog == "trust-folder")


@pytest.mark.parametrize("runtime", [each.runtime for each in ADAPTERS])
@pytest.mark.parametrize("frame", ["", "\n\n", "\x1b[31m", "❯ ", "› "])  # noqa: RUF001 - it is what they draw
def test_what_is_not_known_is_not_ready(runtime: str, frame: str) -> None:
    assert adapter(runtime).surface(frame, "", "/x").moment != "ready"
