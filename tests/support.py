"""A scratch project, driven from outside: by the commands that are registered in it and installed in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
DEADLINE_S = 60.0


@dataclass
class Stop:
    """What a client would see of a Stop hook that ran."""

    status: int
    stdout: bytes
    stderr: bytes

    @property
    def answer(self) -> dict[str, Any]:
        """The one JSON object on standard output; no output at all is an empty one, as it is to the clients."""
        assert self.status == 0, self
        if not self.stdout:
            return {}
        assert self.stdout.isascii()
        answer = json.loads(self.stdout)
        assert isinstance(answer, dict)
        assert set(answer) <= {"decision", "reason", "systemMessage"}, answer
        return answer

    @property
    def is_held(self) -> bool:
        """Whether the session was kept from stopping."""
        answer = self.answer
        if "decision" not in answer:
            return False
        assert answer["decision"] == "block"
        assert answer["reason"].strip()
        return True


@dataclass
class Project:
    """A project that is set up, in an environment with no client in it."""

    root: Path
    env: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, root: Path, *options: str, git: bool = True) -> Project:
        """Make a repository and run instar-migrate in it."""
        root.mkdir(parents=True)
        home = root.parent / f"{root.name}-home"
        home.mkdir()
        project = cls(root, {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"})
        if git:
            project.run("git", "init", "-q", ".")
        project.run(str(BIN / "instar-migrate"), *options)
        return project

    def run(self, *command: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project and return what it said; it must succeed."""
        done = subprocess.run(
            command, cwd=cwd or self.root, env={**self.env, **env}, capture_output=True, text=True, timeout=DEADLINE_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done
        return done

    def registered(self, client: str = "claude", role: str = "build-stop-hook", event: str = "Stop") -> str:
        """Return the command that is registered with a client."""
        settings = {"claude": ".claude/settings.json", "codex": ".codex/hooks.json"}[client]
        groups = json.loads((self.root / settings).read_text(encoding="utf-8"))["hooks"][event]
        (found,) = [hook["command"] for group in groups for hook in group["hooks"] if f" {role};" in hook["command"]]
        assert isinstance(found, str)
        return found

    def start_hook(
        self, client: str = "claude", cwd: Path | None = None, shell: str = "/bin/sh", stdin: int = subprocess.PIPE,
        role: str = "build-stop-hook", **env: str,
    ) -> subprocess.Popen[bytes]:  # fmt: skip
        """Start the registered command as the client would."""
        where = cwd or self.root
        environ = {**self.env, "PWD": str(where)}
        if client == "claude":
            environ["CLAUDE_PROJECT_DIR"] = str(where)
        return subprocess.Popen(
            [shell, "-c", self.registered(client, role)], cwd=where, env={**environ, **env}, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def stop(self, session: str = "", *, stdin: bytes | None = None, client: str = "claude", cwd: Path | None = None,
             shell: str = "/bin/sh", env: dict[str, str] | None = None, **event: Any) -> Stop:  # fmt: skip
        """Fire the registered Stop hook with an event, or with these very bytes."""
        if stdin is None:
            base = {"session_id": session, "hook_event_name": "Stop", "stop_hook_active": False}
            stdin = json.dumps({**base, **event}).encode()
        with self.start_hook(client, cwd, shell, **(env or {})) as hook:
            stdout, stderr = hook.communicate(stdin, timeout=DEADLINE_S)
        return Stop(hook.returncode, stdout, stderr)

    def build(self, *arguments: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> dict[str, Any]:
        """Run the installed build-state and return its answer, with the exit status under `exit`."""
        done = subprocess.run(
            [f"{self.root}/.instar/state/python", f"{self.root}/.instar/hooks/instar/build-state.py", *arguments],
            cwd=cwd or self.root, env={**self.env, **(env or {})}, capture_output=True, text=True, timeout=DEADLINE_S,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert isinstance(answer, dict)
        assert ("error" in answer) == (done.returncode != 0)
        return {**answer, "exit": done.returncode}

    def record(self, session: str) -> dict[str, Any]:
        """Return the record of a session; empty without one."""
        place = self.root / f".instar/state/sessions/{session}.json"
        return dict(json.loads(place.read_text(encoding="ascii"))) if place.exists() else {}

    @property
    def state_path(self) -> Path:
        """The build's state file."""
        return self.root / ".instar/state/build/build-state.json"

    @property
    def state(self) -> dict[str, Any]:
        """The build's state."""
        state = json.loads(self.state_path.read_bytes())
        assert isinstance(state, dict)
        return state

    def change_state(self, **changes: Any) -> None:
        """Edit the state as some other program would; None removes a key."""
        state = {key: value for key, value in {**self.state, **changes}.items() if value is not None}
        self.state_path.write_text(json.dumps(state, indent=2), encoding="ascii")

    @property
    def used(self) -> int:
        """How often the session was held."""
        used = self.state["reinforcementsUsed"]
        assert isinstance(used, int)
        return used

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the entries of the audit log."""
        lines = (self.root / ".instar/state/build/audit.jsonl").read_text(encoding="ascii").splitlines()
        entries = [json.loads(line) for line in lines if line]
        return [entry for entry in entries if name in (None, entry["event"])]


def executable(path: Path, text: str) -> Path:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path
