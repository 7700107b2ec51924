"""How much longer a stop takes in shadow when its words have a signal: `python benchmarks/shadow.py [ROUNDS]`.

Each round stops once with plain words and once with a signal, which a running server evaluates, as whole processes of
the registered command; the figure is the median of the differences, in milliseconds.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from table import BIN, hook, run

AT_MOST_MS = 60
ROUNDS = 40
YESTERDAY = time.time() - 86_400
PLAIN = "All slices are done, and the tests pass. It is committed."
SIGNAL = "Let's continue with the next slice in a fresh session."


def event(name: str, number: int, words: str) -> bytes:
    """Return what the client says of an event, each of a session of its own: one has a limit an hour."""
    return json.dumps({"session_id": f"s{number}", "hook_event_name": name, "last_assistant_message": words}).encode()


def main() -> int:
    """Print the figure."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    with tempfile.TemporaryDirectory(prefix="instar-bench-") as folder:
        project = Path(folder).resolve() / "project"
        project.mkdir()
        run(["git", "init", "--quiet", "."], project)
        run([str(BIN / "instar-migrate")], project)
        plan = project / "docs/plans/plan.md"
        plan.parent.mkdir(parents=True)
        plan.write_text("# Plan\n\n- [ ] the next slice\n")
        os.utime(plan, (YESTERDAY, YESTERDAY))
        run([str(BIN / "instar-server"), "start"], project)
        try:
            stop = hook(project, "Stop", "stop-gate-router")
            begin = hook(project, "SessionStart", "session-event-hook")
            for number in range(rounds + 2):
                run(begin, project, event("SessionStart", number, ""))
            more = [
                run(stop, project, event("Stop", number, SIGNAL)) - run(stop, project, event("Stop", number, PLAIN))
                for number in range(rounds + 2)
            ][2:]  # the first ones warm the caches
            log = subprocess.run(
                [BIN / "instar-gate", "report", "--json"], cwd=project, capture_output=True, check=True
            )
        finally:
            run([str(BIN / "instar-server"), "stop"], project)
    low, median, high = (each * 1000 for each in statistics.quantiles(more, n=4))
    print(f"a stop with a signal, in shadow: {median:.0f} ms more ({low:.0f} - {high:.0f}; at most {AT_MOST_MS})")
    seen = json.loads(log.stdout)
    print(f"stops that the server was told of: {seen['events']}, evaluated: {seen['evaluations']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
