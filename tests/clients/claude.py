"""Claude Code 2.1.197, headless: prompts, resumed sessions, and conversations in one process."""

from __future__ import annotations

import json
import re
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, Queue
from threading import Thread
from typing import TYPE_CHECKING, Any

from .installation import VERSIONS
from .launch import DEFAULT_TIMEOUT_S, GRACE_S, Launch, base_environment, end, ended_within, scratch_file, whole_text
from .waiting import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

    from .fake_model import FakeModel
    from .tui import Screen

API_KEY = "sk-ant-fake"
JSON_OUTPUT = ("--output-format", "stream-json", "--verbose", "--include-hook-events")
NO_QUESTIONS = ("--dangerously-skip-permissions",)

_EMPTY_COMPOSER = re.compile(r"^─{20,}\n❯\s*\n─{20,}$", re.MULTILINE)  # noqa: RUF001 - it is what Claude draws
_ANSWER = re.compile(r"^[●⏺] ", re.MULTILINE)


@dataclass(frozen=True)
class HookRun:
    """One run of one hook, as Claude reports it.

    ``outcome`` is "success", "error" or "cancelled" (by its timeout); a block is a success.
    """

    event: str
    stdout: str
    stderr: str
    exit_code: int | None
    outcome: str


@dataclass(frozen=True)
class ClaudeTurn:
    """What a prompt led to, up to the end of the turn.

    ``result`` is None if Claude ended without one. ``returncode`` is None while the process goes on (a turn of a
    Conversation). ``events`` are all the lines that Claude printed.
    """

    result: str | None
    session_id: str
    hooks: tuple[HookRun, ...]
    events: tuple[dict[str, Any], ...]
    stderr: str = ""
    returncode: int | None = None

    @property
    def stop_hooks(self) -> tuple[HookRun, ...]:
        """The runs of Stop hooks, in the order in which they ended."""
        return tuple(run for run in self.hooks if run.event == "Stop")


@dataclass(frozen=True)
class Claude:
    """Claude Code with a home of its own, in ``project``, talking to ``model``.

    In all methods ``args`` are further arguments of ``claude`` (``"--worktree", "name"``), ``cwd`` is the folder to
    start in instead of the project, and ``env`` is set on top of the usual variables.
    """

    executable: Path
    home: Path
    model: FakeModel
    project: Path

    def launch(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command ``claude ARGS``."""
        own = {
            "ANTHROPIC_BASE_URL": self.model.url,
            "ANTHROPIC_API_KEY": API_KEY,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            "DISABLE_TELEMETRY": "1",
            "IS_SANDBOX": "1",  # or root may not skip permissions
        }
        environment = {**base_environment(self.home), **own, **(env or {})}
        return Launch((str(self.executable), *args), cwd or self.project, environment)

    def headless(self, text: str, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command that sends one prompt; ``run`` reads what it prints."""
        return self.launch("-p", text, *JSON_OUTPUT, *NO_QUESTIONS, *args, cwd=cwd, env=env)

    def interactive(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Launch:
        """Return the command that starts the TUI, after writing what keeps it from asking questions at its start.

        Before it runs a tool it asks, unless ``NO_QUESTIONS`` are among the arguments.
        """
        folder = cwd or self.project
        self._answer_dialogs(folder)
        return self.launch(*args, cwd=folder, env=env)

    def run(self, launch: Launch, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ClaudeTurn:
        """Run a headless launch (wrapped in another command, perhaps) to its end."""
        done = launch.run(timeout_s=timeout_s)
        turn = _read_turn(map(json.loads, done.stdout.splitlines()))
        return replace(turn, stderr=done.stderr, returncode=done.returncode)

    def prompt(
        self,
        text: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> ClaudeTurn:
        """Send one prompt in a process of its own, and wait until that process has ended."""
        return self.run(self.headless(text, *args, cwd=cwd, env=env), timeout_s=timeout_s)

    def resume(
        self,
        session_id: str,
        text: str,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> ClaudeTurn:
        """Send one prompt to an earlier session, which has to be one of the same folder."""
        return self.prompt(text, "--resume", session_id, *args, cwd=cwd, env=env, timeout_s=timeout_s)

    def converse(self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Conversation:
        """Start a process that takes prompt after prompt; use it as a context manager."""
        arguments = ("-p", "--input-format", "stream-json", *JSON_OUTPUT, *NO_QUESTIONS, *args)
        return Conversation(self.launch(*arguments, cwd=cwd, env=env))

    def has_empty_composer(self, screen: Screen) -> bool:
        """Tell whether the TUI has a place for the next prompt, and it is empty."""
        return bool(_EMPTY_COMPOSER.search(screen.text))

    def is_idle(self, screen: Screen) -> bool:
        """Tell whether the TUI waits for a prompt, with an empty composer."""
        return screen.title.startswith("✳") and self.has_empty_composer(screen)

    def is_fresh(self, screen: Screen) -> bool:
        """Tell whether the TUI is idle and shows no answer."""
        return self.is_idle(screen) and not _ANSWER.search(screen.text)

    def _answer_dialogs(self, folder: Path) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        path = self.home / ".claude.json"
        before = path.read_text() if path.exists() else "{}"
        state = json.loads(before)
        state["hasCompletedOnboarding"] = True
        state["lastOnboardingVersion"] = VERSIONS["@anthropic-ai/claude-code"]
        state.setdefault("customApiKeyResponses", {"approved": [API_KEY[-20:]]})
        state.setdefault("projects", {}).setdefault(str(folder.resolve()), {})["hasTrustDialogAccepted"] = True
        if state != json.loads(before):  # Claude writes to this file while it runs
            path.write_text(json.dumps(state))
        settings = self.home / ".claude" / "settings.json"
        settings.parent.mkdir(exist_ok=True)
        if not settings.exists():
            settings.write_text('{"skipDangerousModePermissionPrompt": true}')


class Conversation:
    """Many prompts in one Claude process, which lives inside the ``with`` block.

    After the block ``returncode`` and ``stderr`` tell how the process ended.
    """

    def __init__(self, launch: Launch) -> None:
        self.returncode: int | None = None
        self.stderr = ""
        self._launch = launch
        self._lines: Queue[str | None] = Queue()  # None: Claude has closed its output

    def __enter__(self) -> Self:
        self._stderr_file = scratch_file()
        self._process = self._launch.start(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr_file)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process, self._stderr_file:
            with suppress(BrokenPipeError):
                self._stdin.close()  # no more prompts: Claude ends
            if not ended_within(self._process, GRACE_S):
                end(self._process)
            self._reader.join(GRACE_S)
            self.returncode = self._process.returncode
            self.stderr = whole_text(self._stderr_file)

    def prompt(self, text: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ClaudeTurn:
        """Send one prompt and wait for the end of its turn."""
        message = {"type": "user", "message": {"role": "user", "content": text}}
        print(json.dumps(message), file=self._stdin, flush=True)
        return self.next_turn(timeout_s=timeout_s)

    def next_turn(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> ClaudeTurn:
        """Wait for the end of a turn, which Claude may have begun by itself (after a background command, say).

        Raises DeadlineError when none ends in time, and when Claude ends instead.
        """
        events: list[dict[str, Any]] = []
        for event in self._events_within(timeout_s):
            events.append(event)
            if event["type"] == "result":
                return _read_turn(events)
        raise DeadlineError(f"no turn ended within {timeout_s:g} s; Claude printed {events}")

    def _events_within(self, timeout_s: float) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + timeout_s
        with suppress(Empty):
            while (line := self._lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
                yield json.loads(line)

    def _read(self) -> None:
        for line in self._stdout:
            self._lines.put(line)
        self._lines.put(None)


def _read_turn(events: Iterable[dict[str, Any]]) -> ClaudeTurn:
    events = tuple(events)
    results = [event for event in events if event["type"] == "result"]
    return ClaudeTurn(
        result=results[-1].get("result") if results else None,
        session_id=next((event["session_id"] for event in reversed(events) if "session_id" in event), ""),
        hooks=tuple(_hook_run(event) for event in events if event.get("subtype") == "hook_response"),
        events=events,
    )


def _hook_run(event: dict[str, Any]) -> HookRun:
    return HookRun(
        event=event["hook_event"],
        stdout=event["stdout"],
        stderr=event["stderr"],
        exit_code=event.get("exit_code"),
        outcome=event["outcome"],
    )
