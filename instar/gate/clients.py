"""Judges that are programs: the prompt goes in, a verdict comes out, and nothing of the program is left behind.

They get no tools, no settings and no hooks as far as they know such things, and an empty folder to work in.
`INSTAR_GATE_CHILD` is set for them: with it in its environment, a hook of ours ends at once.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from instar.gate.answer import validated
from instar.gate.children import output_of
from instar.gate.prompt import prompt
from instar.gate.verdict import Unusable

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from instar.gate.evidence import Evidence
    from instar.gate.verdict import Verdict

CHILD: Final = "INSTAR_GATE_CHILD"
TOKEN: Final = "INSTAR_AUTH_TOKEN"  # noqa: S105 - the name of the variable
MODEL: Final = "haiku"

# What tells a program in which session, pane or client it runs: a judge runs in none.
_OF_SESSIONS: Final = frozenset({
    "AI_AGENT", "CLAUDECODE", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_EXECPATH",
    "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_SSE_PORT", "CLAUDE_EFFORT", "CLAUDE_ENV_FILE", "CLAUDE_PROJECT_DIR",
    "CLAUDE_SESSION_ID", "CODEX_CI", "CODEX_MANAGED_BY_NPM", "CODEX_MANAGED_PACKAGE_ROOT", "CODEX_SESSION_ID",
    "CODEX_THREAD_ID", "CODEX_TOOL_CALL_ID", "CODEX_VERSION", "INSTAR_SESSION_ID", "TMUX", "TMUX_PANE",
})  # fmt: skip
_CLAUDE: Final = (
    "-p", "--output-format", "json", "--max-turns", "1", "--setting-sources", "", "--settings",
    '{"disableAllHooks": true}', "--strict-mcp-config", "--tools", "", "--disable-slash-commands",
    "--no-session-persistence", "--system-prompt", "You answer with one bare JSON object.",
)  # fmt: skip
_CODEX_OFF: Final = (
    "hooks", "shell_tool", "unified_exec", "view_image", "image_generation", "multi_agent", "plugins", "apps", "goals",
    "sleep_tool", "skill_search", "tool_suggest", "browser_use", "computer_use",
)  # fmt: skip
_CODEX: Final = (
    "exec", "--skip-git-repo-check", "--sandbox", "read-only", "--ephemeral", "--ignore-rules",
    *(word for feature in _CODEX_OFF for word in ("-c", f"features.{feature}=false")),
    "-c", 'web_search="disabled"', "-c", "project_doc_max_bytes=0", "-c", "notify=[]",
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """Asks a program of the operator's: the prompt on its standard input, a verdict on its standard output."""

    argv: tuple[str, ...]
    name: ClassVar[str] = "command"
    is_offline: ClassVar[bool] = False

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:
        """Return the program's verdict, if it is valid. Raise Unusable, nothing else."""
        return _asked(self.argv, (evidence, stop_reason, signals), seconds)


@dataclass(frozen=True)
class ClaudeCli:
    """Asks Claude Code, headless: no tools, no settings, no hooks, no servers, no session that is kept."""

    program: str = "claude"
    model: str = ""
    name: ClassVar[str] = "claude-cli"
    is_offline: ClassVar[bool] = False

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:
        """Return Claude's verdict, if it is valid. Raise Unusable, nothing else."""
        argv = (self.program, *_CLAUDE, "--model", self.model or MODEL)
        return _asked(argv, (evidence, stop_reason, signals), seconds, MAX_THINKING_TOKENS="0")


@dataclass(frozen=True)
class CodexCli:
    """Asks Codex, headless: no shell and no other tool that acts, no hooks, no servers, no session that is kept."""

    program: str = "codex"
    model: str = ""
    name: ClassVar[str] = "codex-cli"
    is_offline: ClassVar[bool] = False

    def judge(self, evidence: Evidence, stop_reason: str, signals: Collection[str], seconds: float) -> Verdict:
        """Return Codex's verdict, if it is valid. Raise Unusable, nothing else."""
        model = ("--model", self.model) if self.model else ()
        argv = (self.program, *_CODEX, *_without_servers(os.environ), *model, "-")
        return _asked(argv, (evidence, stop_reason, signals), seconds)


def _asked(argv: Sequence[str], question: tuple[Evidence, str, Collection[str]], seconds: float, **own: str) -> Verdict:
    evidence, stop_reason, signals = question
    try:
        text = prompt(evidence, stop_reason, signals, secrets.token_hex(16))
        with tempfile.TemporaryDirectory(prefix="instar-gate-", ignore_cleanup_errors=True) as folder:
            said = output_of(argv, text.encode("ascii"), seconds, Path(folder), {**environment(os.environ), **own})
    except (OSError, ValueError) as error:
        raise Unusable("llmUnavailable", f"{argv[0]} cannot be asked: {error}") from error
    return validated(said.decode("utf-8", "replace"), evidence)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a judge: ours, outside of every session, and without the server's token."""
    left_out = {*_OF_SESSIONS, TOKEN}
    kept = {name: value for name, value in environ.items() if name not in left_out and not name.startswith("GIT_")}
    return {**kept, CHILD: "1"}


def _without_servers(environ: Mapping[str, str]) -> list[str]:
    """Return the arguments that keep Codex from starting the servers of its configuration: only each by name does."""
    home = environ.get("CODEX_HOME") or os.path.join(environ.get("HOME", ""), ".codex")  # noqa: PTH118 - maybe relative
    try:
        config = tomlkit.parse(Path(home, "config.toml").read_text(encoding="utf-8")).unwrap()
    except (OSError, ValueError, TOMLKitError):
        return []
    servers = config.get("mcp_servers")
    if not isinstance(servers, dict) or not servers:
        return []
    names = ", ".join(f"{json.dumps(name, ensure_ascii=False)} = {{enabled = false}}" for name in servers)
    return ["-c", f"mcp_servers={{{names}}}"]
