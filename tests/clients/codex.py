"""Codex CLI 0.169.0, headless: prompts and resumed sessions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .launch import DEFAULT_TIMEOUT_S, Finished, Launch, base_environment

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .fake_model import FakeModel
    from .tui import Screen

NO_QUESTIONS = ("--dangerously-bypass-approvals-and-sandbox",)
TRUST_HOOKS = "--dangerously-bypass-hook-trust"

_HOOK_OUTCOME = re.compile(r"^hook: (\w+) (Completed|Blocked|Failed|Stopped)$", re.MULTILINE)
_SESSION_ID = re.compile(r"^session id: (\S+)$", re.MULTILINE)
_EMPTY_COMPOSER = re.compile(r"^› Ask Codex to do anything\s*$", re.MULTILINE)  # noqa: RUF001 - it is what Codex draws
_BUSY_TITLE = re.compile(r"^[⠀-⣿]|Action Required")  # a spinner of braille characters, or a dialog
_ANSWER = re.compile(r"^• ", re.MULTILINE)
_CONFIG = """\
model = "gpt-5"
model_provider = "fake"
check_for_update_on_startup = false

[features]
daemon_auto_start = false

[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
wire_api = "responses"
env_key = "FAKE_KEY"
"""


@dataclass(frozen=True)
class CodexTurn:
    """What a prompt led to.

    ``hook_outcomes`` are pairs such as ("Stop", "Blocked") in the order of their ends; Codex tells no more than that,
    and only for hooks that it trusts. ``result`` is the last answer.
    """

    result: str
    session_id: str
    hook_outcomes: tuple[tuple[str, str], ...]
    stderr: str
    returncode: int


class Codex:
    """Codex with a home of its own, in ``project``, talking to ``model``.

    In all methods ``args`` are further arguments of ``codex`` (``TRUST_HOOKS``, ``"-c", "key=value"``), ``cwd`` is the
    folder to start in instead of the project, and ``env`` is set on top of the usual variables.
    """

    def __init__(
        self, executable: Path, home: Path, model: FakeModel, project: Path, *, trust_folder: bool = True
    ) -> None:
        """Write ``config.toml``, which must not be there yet: a home belongs to one Codex and its model."""
        self.executable = executable
        self.home = home
        self.model = model
        self.project = project
        self.codex_home.mkdir(parents=True)
        self.config.write_text(_CONFIG.format(url=model.url))
        if trust_folder:
            self.trust_folder(project)

    @property
    def codex_home(self) -> Path:
        """Where Codex keeps its configuration and its sessions."""
        return self.home / ".codex"

    @property
    def config(self) -> Path:
        """The user's configuration file."""
        return self.codex_home / "config.toml"

    def trust_folder(self, folder: Path) -> None:
        """Let Codex read the project files (hooks, too) in ``folder``, as if the person had said so."""
        name = json.dumps(str(folder.resolve()), ensure_ascii=False)
        with self.config.open("a") as config:
            config.write(f'\n[projects.{name}]\ntrust_level = "trusted"\n')

    def launch(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command ``codex ARGS``."""
        own = {"CODEX_HOME": str(self.codex_home), "FAKE_KEY": "x"}
        environment = {**base_environment(self.home), **own, **(env or {})}
        return Launch((str(self.executable), *args), cwd or self.project, environment)

    def headless(self, text: str, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command that sends one prompt; ``run`` reads what it prints."""
        return self.launch("exec", "--skip-git-repo-check", *NO_QUESTIONS, *args, text, cwd=cwd, env=env)

    def interactive(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command that starts the TUI, which asks nothing at its start if folder and hooks are trusted.

        Before it runs a tool it may ask, unless ``NO_QUESTIONS`` are among the arguments.
        """
        return self.launch(*args, cwd=cwd, env=env)

    def run(self, launch: Launch, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> CodexTurn:
        """Run a headless launch (wrapped in another command, perhaps) to its end."""
        return _read_turn(launch.run(timeout_s=timeout_s))

    def prompt(
        self,
        text: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> CodexTurn:
        """Send one prompt, and wait until Codex has ended."""
        return self.run(self.headless(text, *args, cwd=cwd, env=env), timeout_s=timeout_s)

    def resume(
        self,
        session_id: str,
        text: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> CodexTurn:
        """Send one prompt to an earlier session, and wait until Codex has ended."""
        arguments = ("exec", "--skip-git-repo-check", *NO_QUESTIONS, *args, "resume", session_id, text)
        return self.run(self.launch(*arguments, cwd=cwd, env=env), timeout_s=timeout_s)

    def has_empty_composer(self, screen: Screen) -> bool:
        """Tell whether the TUI has a place for the next prompt, and it is empty."""
        return bool(_EMPTY_COMPOSER.search(screen.text))

    def is_idle(self, screen: Screen) -> bool:
        """Tell whether the TUI waits for a prompt, with an empty composer."""
        return self.has_empty_composer(screen) and not _BUSY_TITLE.search(screen.title)

    def is_fresh(self, screen: Screen) -> bool:
        """Tell whether the TUI is idle and shows no answer."""
        return self.is_idle(screen) and not _ANSWER.search(screen.text)


def _read_turn(done: Finished) -> CodexTurn:
    session = _SESSION_ID.search(done.stderr)
    return CodexTurn(
        result=done.stdout.strip(),
        session_id=session[1] if session else "",
        hook_outcomes=tuple(_HOOK_OUTCOME.findall(done.stderr)),
        stderr=done.stderr,
        returncode=done.returncode,
    )
