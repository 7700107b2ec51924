"""Shows the main jobs on a scratch project: a build is held, a stop in mid-plan noticed, and an idle session parked.

Runs what a user runs: `instar-migrate`, `build-state`, `instar-sessions`, `instar-server`, `instar-gate`, and the
commands that are registered with Claude Code, with the events that a client would send. `make demo` sets all up for it.
"""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from instar.sessions.reaper.stage import Stage

BIN = Path(sys.executable).parent
BUDGET = 3
IDLE = "3f0c1d8e-6f1b-4b57-9a43-5d2f6c0a7b11"
EXCUSE = "I'll stop here to preserve context; the rest can be done in a fresh session."


def main() -> int:
    """Run the demonstration; the status is 0 when everything went as it says."""
    with tempfile.TemporaryDirectory(prefix="instar-demo-") as folder:
        project = Path(folder).resolve() / "my project"
        project.mkdir()
        return demonstrate(project)


def demonstrate(project: Path) -> int:
    """Go through the demonstration in an empty folder."""
    say("A project, and one command in it")
    run(["git", "init", "--quiet", "."], project)
    show(["instar-migrate"], project)

    say("A session starts a build (its id is given here; inside Claude Code or Codex it is found out)")
    show(["build-state", "init", "Mend the roof", "--size", "SMALL", "--owner-session", "session-1"], project)
    show(["build-state", "transition", "executing"], project)

    say("Another session of the project stops: it is let go, and costs the owner nothing")
    let_go = [stop(project, "session-2") == {} for _ in range(2)]

    say(f"The owner tries to stop: it is held {BUDGET} times, and then let go")
    held = ["decision" in stop(project, "session-1") for _ in range(BUDGET + 1)]

    say("Where the build stands")
    show(["build-state", "query", "--limit", "4"], project)

    noticed = demonstrate_gate(project)
    is_parked = demonstrate_reaper(project)

    say("And out again")
    show(["instar-migrate", "--uninstall"], project)

    went_well = all(let_go) and held == [True] * BUDGET + [False] and noticed and is_parked
    outcome = f"let go {let_go}, held {held}, noticed {noticed}, parked {is_parked}"
    say("It went as it should" if went_well else f"IT DID NOT GO AS IT SHOULD: {outcome}")
    return 0 if went_well else 1


def demonstrate_gate(project: Path) -> bool:
    """Show that the stop gate notices a turn that ends in the middle of a plan; return whether it did."""
    say("A plan of yesterday, and a session that works on it")
    plan = project / "docs/plans/roof.md"
    plan.parent.mkdir(parents=True)
    plan.write_text("# The roof\n\n- [x] take the old tiles off\n- [ ] put the new ones on\n", encoding="utf-8")
    yesterday = f"{int(time.time()) - 86400} +0000"
    who = ["-c", "user.name=demo", "-c", "user.email=demo@example.invalid"]
    run(["git", "add", "docs"], project)
    run(["git", *who, "commit", "-q", "-m", "plan"], project, GIT_AUTHOR_DATE=yesterday, GIT_COMMITTER_DATE=yesterday)
    fire(project, "SessionStart", "session-event-hook", "session-3", source="startup")
    fire(project, "UserPromptSubmit", "session-event-hook", "session-3", prompt="go on with the roof")
    show(["instar-sessions", "list"], project)

    say("The stop gate, in shadow: it notices why the session stops, and holds nobody")
    show(["instar-server", "start"], project)
    try:
        fire(project, "Stop", "stop-gate-router", "session-3", last_assistant_message=EXCUSE)
        print(f'  session-3 stops, saying "{EXCUSE}"')
        deadline = time.monotonic() + 20
        while not (seen := run([str(BIN / "instar-gate"), "log"], project)) and time.monotonic() < deadline:
            time.sleep(0.1)
        show(["instar-gate", "log"], project)
    finally:
        show(["instar-server", "stop"], project)
    return "continue" in seen


def demonstrate_reaper(project: Path) -> bool:
    """Show an idle session parked, and the command that it comes back by; return whether the reaper would do so."""
    say("An idle session, with a person to park it: the shell stays, and so does the way back")
    if shutil.which("tmux") is None:
        print("  without tmux no session's screen is seen, and none is ever parked")
        return True
    with Stage() as stage:
        stage.start(IDLE)
        for arguments in ("list", "terminate {} --reason room", "list"):
            show(["instar-sessions", *arguments.format(IDLE[:8]).split()], stage.project)

    say("Whether the reaper would park it by itself, by a clock and a pressure that are made up")
    said = run([str(BIN / "instar-sessions"), "reaper", "selftest"], project)
    print(f"  $ instar-sessions reaper selftest\n    {said.strip()}")
    return said.startswith("works:")


def stop(project: Path, session: str) -> dict[str, str]:
    """Have a session stop, and show what the hook of builds answers."""
    answer: dict[str, str] = json.loads(fire(project, "Stop", "build-stop-hook", session, stop_hook_active=False))
    print(f"  {session} stops -> {'held' if 'decision' in answer else 'let go'}")
    lines = answer.get("reason", "").splitlines()
    for line in lines if "1/" in "".join(lines[:1]) else [*lines[:1], *lines[-1:]]:
        print(f"    | {line}")
    return answer


def fire(project: Path, event: str, role: str, session: str, **more: object) -> str:
    """Fire a registered command as Claude Code does, and return what it answers."""
    settings = json.loads((project / ".claude/settings.json").read_text(encoding="utf-8"))
    (group,) = settings["hooks"][event]
    (command,) = [hook["command"] for hook in group["hooks"] if f" {role};" in hook["command"]]
    whole = {"session_id": session, "hook_event_name": event, "cwd": str(project), **more}
    return run(["/bin/sh", "-c", command], project, json.dumps(whole))


def show(command: list[str], project: Path, **env: str) -> None:
    """Run a command and show it with what it says."""
    print("  $ " + " ".join(shlex.quote(word) for word in command))
    said = run([str(BIN / command[0]), *command[1:]], project, on_terminal=command[0] == "build-state", **env)
    for line in said.splitlines():
        print(f"    {line}")


def run(command: list[str], project: Path, stdin: str = "", *, on_terminal: bool = False, **env: str) -> str:
    """Run a command in the project, with no client around it and another home, and return what it says."""
    ours, theirs = pty.openpty() if on_terminal else os.pipe()
    clients = ("CLAUDE", "CODEX", "TMUX", "INSTAR")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(clients)}
    environ |= {"HOME": str(project.parent), "CLAUDE_PROJECT_DIR": str(project), "PWD": str(project), **env}
    with subprocess.Popen(
        command, cwd=project, env=environ, stdin=subprocess.PIPE, stdout=theirs, text=True
    ) as process:
        os.close(theirs)
        process.communicate(stdin)
    said = read_all(ours)
    if process.returncode:
        sys.exit(f"{command[0]} failed with status {process.returncode}:\n{said}")
    return said


def read_all(fd: int) -> str:
    """Return what was written to the other end of a pipe or terminal."""
    said = b""
    try:
        while chunk := os.read(fd, 1 << 16):
            said += chunk
    except OSError:  # how Linux tells the end of a terminal
        pass
    os.close(fd)
    return said.decode().replace("\r\n", "\n")


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n{text}")


if __name__ == "__main__":
    sys.exit(main())
