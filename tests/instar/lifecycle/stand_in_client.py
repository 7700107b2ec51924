"""A program that stands where Claude Code would: its screen, its prompt, its pastes and its records.

argv: `--exit N` and `--die N` end it at once, by a status or a signal; `--mute` shows nothing; `--ask WORDS` opens a
dialog; `--trust` opens the one about the folder; `--as ID` records another session than was asked for; `--deaf` takes
no Enter; `--no-record` records nothing; `--late PATH` tells of prompts in its transcript alone, there. Ctrl-D ends it
with status 0. What it was started with is in `$STAND_IN/started.json`, each message that was sent to it in a line of
JSON in `$STAND_IN/sent`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from terminal import TAKES_PASTES, composer, read, read_keys

TRUST = "Is this a project you created or one you trust?\r\n\r\n ❯ 1. Yes, I trust this folder\r\n   2. No, exit\r\n"  # noqa: RUF001 - it is what Claude draws
LONG = 5000  # of which Claude shows no more than that it is there
KEYS = "\r\n Enter to confirm · Esc to cancel\r\n"


def show(text: str) -> None:
    sys.stdout.write(f"\x1b[2J\x1b[H{text}")
    sys.stdout.flush()


def draw(typed: str) -> None:
    rows = typed.replace("\r", "\r\n  ") if len(typed) < LONG else "[Pasted text #1]"
    show(f"\x1b]2;✳ Claude Code\x07● Well.\r\n\r\n{composer(rows)}")


def start_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def record(session: str, **more: object) -> None:
    if "--no-record" in sys.argv:
        return
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    socket, server, _ = os.environ["TMUX"].split(",")
    said = {
        "id": session, "status": "running", "client": "claude-code", "cwd": str(Path.cwd()),
        "agent": {"pid": os.getpid(), "start": start_of(os.getpid()), "boot": boot},
        "tmux": {
            "socket": socket, "server": int(server), "serverStart": start_of(int(server)),
            "pane": os.environ["TMUX_PANE"],
        }, **more,
    }  # fmt: skip
    place = Path(os.environ["RECORDS"]) / f"{session}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(place.read_text()) if place.exists() else {}
    for each in ("endedAt", "endedReason", "parked", "reaping"):  # as the hook does
        before.pop(each, None)
    place.with_suffix(".new").write_text(json.dumps({**before, **said}))
    place.with_suffix(".new").replace(place)


def value(option: str) -> str:
    return sys.argv[sys.argv.index(option) + 1] if option in sys.argv else ""


def ask() -> None:
    if "--trust" in sys.argv or "--ask" in sys.argv:
        show((TRUST if "--trust" in sys.argv else value("--ask")) + KEYS)
        while "\r" not in read():
            pass


def begin() -> None:
    place = Path(os.environ["STAND_IN"])
    place.mkdir(exist_ok=True)
    told = {"argv": sys.argv[1:], "cwd": str(Path.cwd()), "environ": dict(os.environ)}
    (place / "started.json").write_text(json.dumps(told))
    if "--exit" in sys.argv:
        sys.stdout.write("It rains.\nNo roof is to be had.\n")
        sys.exit(int(value("--exit")))
    if "--die" in sys.argv:
        os.kill(os.getpid(), int(value("--die")))
    while "--mute" in sys.argv:
        signal.pause()


def main() -> None:
    begin()
    tty.setraw(0)
    ask()
    session = value("--as") or value("--resume") or "fresh-session"
    record(session, **({"transcriptPath": value("--late")} if "--late" in sys.argv else {}))
    sys.stdout.write(TAKES_PASTES)
    typed, number = "", 0
    while True:
        draw(typed)
        for paste, key in read_keys():
            if key == "\x04":
                return
            if key != "\r":
                typed += paste or key
            elif typed and "--deaf" not in sys.argv:
                number += 1
                text = typed.rstrip().replace("\r", "\n")
                with (Path(os.environ["STAND_IN"]) / "sent").open("a") as file:
                    file.write(json.dumps(text) + "\n")
                if "--late" in sys.argv:
                    said = {"type": "user", "sessionId": session, "message": {"role": "user", "content": text}}
                    Path(value("--late")).write_text(json.dumps(said) + "\n")
                else:
                    record(session, lastPrompt={"id": str(number), "text": text[:200]})
                typed = ""


main()
