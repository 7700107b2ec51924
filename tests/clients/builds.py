"""Builds that the model of a real client starts by its own shell, and what came of them."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

from hooks.build_stop_hook import reason
from support import BIN, Project

from .fake_model import Run, Say
from .launch import Launch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .codex import Codex
    from .fake_model import FakeModel, Request
    from .launch import Finished
    from .wire import Answer

BUDGETS = {"SMALL": 3, "STANDARD": 5, "LARGE": 10}
TASK = 'Mend <roof> & "gutter", été'


def build_state(project: Project, *words: str) -> Run:
    """Let the model run a command of its build, from whatever folder it is in."""
    root = project.root
    return Run(shlex.join([f"{root}/.instar/state/python", f"{root}/.instar/hooks/instar/build-state.py", *words]))


def init(project: Project, size: str = "SMALL") -> Run:
    """Let the model start a build; nothing but its own shell says whose build it is."""
    return build_state(project, "init", TASK, "--size", size)


def ask(project: Project) -> Run:
    """Let the model ask a question, so that its next stop is allowed."""
    return build_state(project, "ask", "Slate or tile?")


def script(*answers: Answer, between: Run | None = None) -> Callable[[Request], Answer | None]:
    """Answer with ``answers``, one a call; but when held with ``between``, or else "Told 1.", "Told 2." and so on."""
    left = iter(answers)
    held = 0

    def answer(request: Request) -> Answer | None:
        nonlocal held
        held += len(request.hook_feedback)
        return (between or Say(f"Told {held}.")) if request.hook_feedback else next(left, None)

    return answer


def holds(project: Project, model: FakeModel) -> int:
    """Return how often the model was held; each time it was told exactly the reason, and counted and audited once."""
    told = [request for request in model.requests if request.hook_feedback]
    root, state = str(project.root), project.state
    reasons = [reason(root, {**state, "reinforcementsUsed": number + 1}) for number in range(len(told))]
    assert [request.user_texts for request in told] == [(each,) for each in reasons]
    assert project.used == len(told)
    assert [entry["used"] for entry in project.events("stop.blocked")] == list(range(1, len(told) + 1))
    assert len(project.events("stop.exhausted")) == (len(told) == state["protection"]["reinforcements"])
    return len(told)


def session_of(model: FakeModel) -> str:
    """Return the session that called the model last."""
    return model.requests[-1].session_id


def owner(project: Project) -> dict[str, Any]:
    """Return whose build it is."""
    stamp = project.state["owner"]
    assert isinstance(stamp, dict)
    return stamp


def migrate(codex: Codex, *options: str) -> Finished:
    """Run instar-migrate in the project of a Codex, which is on its PATH."""
    env = codex.launch().env
    path = f"{codex.executable.parent}:{env['PATH']}"
    return Launch((str(BIN / "instar-migrate"), *options), codex.project, {**env, "PATH": path}).run()


def trusted(codex: Codex) -> Codex:
    """Have a Codex trust the hooks of its project."""
    done = migrate(codex, "--trust-codex")
    assert (done.returncode, done.stderr) == (0, ""), done
    return codex


def commit_all(project: Project, **env: str) -> None:
    """Commit what people share: all but what git ignores and the settings of this machine."""
    project.run("git", "add", "-A", "--", ":!.claude/settings.local.json")
    project.run("git", "-c", "user.name=T", "-c", "user.email=t@example.org", "commit", "-q", "-m", "start", **env)


def add_worktree(project: Project, folder: Path) -> Path:
    """Commit all and make a linked worktree."""
    commit_all(project)
    project.run("git", "worktree", "add", "-q", "--detach", os.fspath(folder))
    return folder


def record_events(project: Project, log: Path) -> None:
    """Put a hook in the place of the session-event hook that writes each event into ``log``."""
    hook = project.root / ".instar/hooks/instar/session-event-hook.py"
    hook.write_text(f'import sys\nopen({os.fspath(log)!r}, "a").write(sys.stdin.read().strip() + "\\n")\n')


def recorded(log: Path, *keys: str) -> list[tuple[Any, ...]]:
    """Return these fields of the events in ``log``, as far as an event has them."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return [tuple(event[key] for key in keys if key in event) for event in events]
