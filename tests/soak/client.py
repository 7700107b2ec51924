"""A program that stands where Claude Code or Codex would: it takes prompts, and fires the hooks that are registered.

It goes by the name it is started under, `claude` or `codex`, and takes `--resume ID`, or `resume ID`. A prompt is
`soak NUMBER: word, word, ...`; it does one word after the other: `bs ARGUMENTS` runs build-state, `excuse` has its last
words excuse the stop, `hold` works until `$SOAK/go-NUMBER` is there, `stop` tries to stop: when it is let go, the turn
is over, when it is held, the next word follows. After the last one it tries to stop until it is let go. What it sees it
writes to `$SOAK/journal`, in lines of JSON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
import tty
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from terminal import TAKES_PASTES, composer, read_keys

HERE, CWD, CLIENT = Path(os.environ["SOAK"]), Path.cwd(), Path(sys.executable).name
IS_CODEX = CLIENT == "codex"
SETTINGS = CWD / (".codex/hooks.json" if IS_CODEX else ".claude/settings.json")
TITLE, BUSY_TITLE = (CWD.name, f"⠋ {CWD.name}") if IS_CODEX else ("✳ Claude Code", "⠂ Soak")
EXCUSE = "I'll stop here to preserve context; the rest can be done in a fresh session."
TRIES = 60  # no hook holds for longer, or all is lost
BUILD_STATE = [f"{CWD}/.instar/state/python", f"{CWD}/.instar/hooks/instar/build-state.py"]


def note(ev: str, **said: object) -> None:
    own = {"pid": os.getpid(), "pane": os.environ.get("TMUX_PANE"), "peer": os.environ.get("INSTAR_PEER")}
    with (HERE / "journal").open("a") as file:
        file.write(json.dumps({"ev": ev, **own, **said}) + "\n")


def row(session: str, turn: str, kind: str, text: str) -> dict[str, Any]:
    """Return what the clients write down of a prompt ("user") or an answer ("assistant")."""
    if IS_CODEX:
        ev = {"user": "task_started", "assistant": "task_complete"}[kind]
        return {"type": "event_msg", "payload": {"type": ev, "turn_id": turn, "last_agent_message": text}}
    answer = {"id": turn, "stop_reason": "end_turn", "usage": {"input_tokens": 9, "output_tokens": 3}}
    message = {"role": kind, "content": [{"type": "text", "text": text}], **(answer if kind == "assistant" else {})}
    return {"sessionId": session, "cwd": str(CWD), "version": "2.1.197", "isSidechain": False, "type": kind,
            "uuid": str(uuid.uuid4()), "parentUuid": None, "requestId": turn, "message": message}  # fmt: skip


def frame(typed: str, said: str, *, is_busy: bool) -> str:
    """Return what the clients draw."""
    if IS_CODEX:
        above = "• Working (1s • esc to interrupt)" if is_busy else f"• {said}\r\n\r\n  Worked for 1s • 05:58"
        shown = typed or "\x1b[2mAsk Codex to do anything\x1b[0m"
        return f"{above}\r\n\r\n› {shown}\r\n\r\n  gpt-5 default · ~/demo\r\n  ? for shortcuts\r\n"  # noqa: RUF001
    above = "✶ Soaking…" if is_busy else f"● {said}"
    return f"{above}\r\n\r\n{composer(typed)}"


class Client:
    """One session: a new one, or one that is taken up."""

    def __init__(self, resumed: str) -> None:
        self.id, self.is_resumed = resumed or str(uuid.uuid4()), bool(resumed)
        self.turns, self.turn, self.at_work, self.has_begun = 0, "", False, False
        slug = re.sub("[^A-Za-z0-9-]", "-", str(CWD))
        rollout = f"sessions/2026/01/02/rollout-2026-01-02T03-04-05-{self.id}.jsonl"
        self.transcript = HERE / (rollout if IS_CODEX else f"projects/{slug}/{self.id}.jsonl")
        self.transcript.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.transcript.open("a")  # Codex has it open as long as it lives
        if IS_CODEX and not resumed:
            told = {"id": self.id, "session_id": self.id, "cwd": str(CWD), "cli_version": "0.169.0"}
            self.write({"type": "session_meta", "payload": told})
        os.environ["CODEX_SESSION_ID" if IS_CODEX else "CLAUDE_CODE_SESSION_ID"] = self.id
        signal.signal(signal.SIGTERM, self.end)

    def write(self, said: dict[str, Any]) -> None:
        self.file.write(json.dumps({"timestamp": datetime.now(timezone.utc).isoformat(), **said}) + "\n")
        self.file.flush()

    def draw(self, typed: str, *, is_busy: bool = False) -> None:
        shown = frame(typed.replace("\r", "\r\n  "), f"Turn {self.turns}.", is_busy=is_busy)
        sys.stdout.write(f"\x1b]2;{BUSY_TITLE if is_busy else TITLE}\x07\x1b[2J\x1b[H{shown}")
        sys.stdout.flush()

    def fire(self, event: str, **fields: object) -> dict[str, dict[str, Any]]:
        """Run all hooks of an event at once, as they are registered; return the answers of ours by their roles."""
        base = {
            "session_id": self.id,
            "hook_event_name": event,
            "cwd": str(CWD),
            "transcript_path": str(self.transcript),
        }
        said = {**base, "prompt_id": self.turn, "turn_id": self.turn, **fields}
        groups = json.loads(SETTINGS.read_text())["hooks"].get(event, [])
        environ = {**os.environ, **({} if IS_CODEX else {"CLAUDE_PROJECT_DIR": str(CWD)})}
        running = [
            (re.search(r" ([a-z-]+);", hook["command"]), subprocess.Popen(
                ["/bin/sh", "-c", hook["command"]], env=environ, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            for group in groups for hook in group["hooks"]
        ]  # fmt: skip
        answers = {}
        for role, hook in running:
            stdout, stderr = hook.communicate(json.dumps(said))
            if role:
                answers[role[1]] = json.loads(stdout or "{}")
                if hook.returncode or stderr:
                    note("fault", session=self.id, role=role[1], status=hook.returncode, stderr=stderr[-500:])
        return answers

    def begin(self) -> None:
        if not self.has_begun:
            self.has_begun = True
            self.fire("SessionStart", source="resume" if self.is_resumed else "startup")

    def take(self, text: str) -> None:
        """Have a turn."""
        found = re.fullmatch(r"soak (\d+): (.*)", text)
        number, words = (int(found[1]), found[2].split(", ")) if found else (0, [])
        self.turn = str(uuid.uuid4())
        self.draw("", is_busy=True)
        self.begin()
        self.fire("UserPromptSubmit", prompt=text)
        self.at_work = True
        note("prompt", session=self.id, n=number, text=text)
        self.write(row(self.id, self.turn, "user", text))
        self.work(number, words)
        self.turns += 1
        self.at_work = False
        self.draw("")
        note("turn", session=self.id, n=number)

    def work(self, number: int, words: list[str]) -> None:
        tries = 0
        for word in [*words, *["stop"] * TRIES]:
            if word == "hold":
                while not (HERE / f"go-{number}").exists():
                    time.sleep(0.02)
            elif word.startswith("bs "):
                self.build(shlex.split(word[3:]))
            elif word == "stop":
                if not self.stop(EXCUSE if "excuse" in words else "Done.", is_again=tries > 0):
                    return
                tries += 1
        note("fault", session=self.id, role="loop", status=tries, stderr="it was never let go")

    def stop(self, said: str, *, is_again: bool) -> bool:
        """Try to stop, and return whether that was held."""
        self.write(row(self.id, self.turn, "assistant", said))
        note("stop", session=self.id)
        answers = self.fire("Stop", stop_hook_active=is_again, last_assistant_message=said)
        held = sorted(role for role, answer in answers.items() if answer.get("decision") == "block")
        if held:
            self.write(row(self.id, self.turn, "user", "Stop hook feedback"))
        note("stopped", session=self.id, held=held)
        return bool(held)

    def build(self, arguments: list[str]) -> None:
        done = subprocess.run([*BUILD_STATE, *arguments], capture_output=True, check=False, stdin=subprocess.DEVNULL)
        code = json.loads(done.stdout).get("code", "")
        note("bs", session=self.id, verb=arguments[0], exit=done.returncode, code=code)

    def end(self, *_: object) -> None:
        """End as the clients do when they are told to, from whatever they are at."""
        note("term", session=self.id, at_work=self.at_work)
        self.fire("SessionEnd", reason="other")
        os._exit(0)

    def live(self) -> None:
        typed = ""
        while True:
            self.draw(typed)
            for paste, key in read_keys():
                if key not in ("\r", "\n"):
                    typed += paste or key
                elif typed.strip():
                    text, typed = typed.strip().replace("\r", "\n"), ""
                    self.take(text)


words = sys.argv[1:]
client = Client(next((words[at + 1] for at, word in enumerate(words) if word in ("--resume", "resume")), ""))
tty.setraw(0, termios.TCSANOW)  # nothing that was typed meanwhile is thrown away
if not IS_CODEX:  # which tells of itself with its first prompt
    client.begin()
sys.stdout.write(TAKES_PASTES)
client.draw("")
note("start", session=client.id, resumed=client.is_resumed)
client.live()
