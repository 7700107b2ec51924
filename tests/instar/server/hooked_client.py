"""A program that stands where Claude Code would: its screen, prompt and transcript, and the hooks that are installed.

argv: `--resume ID` takes a session up; `/clear` begins another. Files in `$STAND_IN` hold it back as long as they are
there: `hold-start` before it shows anything, `hold-keys` before it shows what was typed, `hold-turn` in the midst of a
turn, `hold-end` when it was told to end. There it also tells of itself, in lines of JSON: what it was started with in
`starts`, what was sent to it in `sent`, that it is to end in `ends`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tty
import uuid
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from terminal import TAKES_PASTES, composer, read_keys

HERE, CWD = Path(os.environ["STAND_IN"]), Path.cwd()


def note(name: str, **said: object) -> None:
    with (HERE / name).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **said}) + "\n")


def wait(name: str) -> None:
    while (HERE / f"hold-{name}").exists():
        time.sleep(0.05)


class Client:
    """The process of a client."""

    turns = 0

    def begin(self, resumed: str, source: str) -> None:
        self.id = resumed or str(uuid.uuid4())
        slug = re.sub("[^A-Za-z0-9-]", "-", str(CWD))
        self.transcript = HERE / "projects" / slug / f"{self.id}.jsonl"
        self.transcript.parent.mkdir(parents=True, exist_ok=True)
        self.fire("SessionStart", source=source)

    def draw(self, typed: str) -> None:
        title = "\x1b]2;✳ Claude Code\x07\x1b[2J\x1b[H"
        rows = typed.replace("\r", "\r\n  ")
        sys.stdout.write(f"{title}● Turn {self.turns}.\r\n\r\n{composer(rows)}")
        sys.stdout.flush()

    def fire(self, event: str, **fields: str) -> None:
        """Run the project's hooks for an event, as they are registered."""
        place = str(self.transcript)
        base = {"session_id": self.id, "hook_event_name": event, "cwd": str(CWD), "transcript_path": place}
        groups = json.loads((CWD / ".claude/settings.json").read_text())["hooks"][event]
        for command in (hook["command"] for group in groups for hook in group["hooks"]):
            if " session-event-hook;" in command:
                subprocess.run(
                    ["/bin/sh", "-c", command], input=json.dumps({**base, **fields}), text=True, check=False,
                    env={**os.environ, "CLAUDE_PROJECT_DIR": str(CWD)}, stdout=subprocess.DEVNULL,
                )  # fmt: skip

    def write(self, kind: str, **message: object) -> None:
        row = {
            "sessionId": self.id, "cwd": str(CWD), "version": "2.1.197", "isSidechain": False,
            "uuid": str(uuid.uuid4()), "parentUuid": None, "requestId": "r", "type": kind,
            "timestamp": datetime.now(timezone.utc).isoformat(),
        }  # fmt: skip
        with self.transcript.open("a") as file:
            file.write(json.dumps({**row, "message": {"role": kind, **message}}) + "\n")

    def take(self, text: str) -> None:
        """Have a turn, or begin another conversation."""
        if text == "/clear":
            self.fire("SessionEnd", reason="clear")
            self.begin("", "clear")
            return
        note("sent", text=text)  # before anybody can be told that it has landed
        self.fire("UserPromptSubmit", prompt=text, prompt_id=str(uuid.uuid4()))
        self.write("user", content=text)
        wait("turn")
        self.turns += 1
        usage = {"input_tokens": 1, "output_tokens": 1}
        done = [{"type": "text", "text": "Done."}]
        self.write("assistant", id=f"m{self.turns}", stop_reason="end_turn", content=done, usage=usage)

    def end(self, *_: object) -> None:
        note("ends")
        wait("end")
        self.fire("SessionEnd", reason="other")
        os._exit(0)

    def live(self) -> None:
        typed = ""
        while True:
            self.draw(typed)
            keys = read_keys()
            wait("keys")
            for paste, key in keys:
                if key != "\r":
                    typed += paste or key
                elif typed:
                    text, typed = typed.rstrip().replace("\r", "\n"), ""
                    self.draw("")
                    self.take(text)


def main() -> None:
    HERE.mkdir(exist_ok=True)
    note("starts", argv=sys.argv[1:])
    resumed = sys.argv[sys.argv.index("--resume") + 1] if "--resume" in sys.argv else ""
    client = Client()
    wait("start")
    tty.setraw(0)
    client.begin(resumed, "resume" if resumed else "startup")
    signal.signal(signal.SIGTERM, client.end)
    sys.stdout.write(TAKES_PASTES)
    client.live()


main()
