"""Ends a session of a project as its own process: ``parking.py ROOT ROWS terminate|kill|recover [SESSION]``.

Prints the answer; the rows of the reap log go to the file ROWS. Every session is judged to be idle.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.ending import Graces
from instar.sessions.parking.park import SessionManager
from instar.sessions.policy import policy
from instar.sessions.verdict import ALL_CLEAR, Verdict

GRACES = Graces(term_s=2, kill_s=5, helper_s=2)


def main() -> None:
    """Do what the arguments say."""
    root, rows, action, *session = sys.argv[1:]

    def tell(row: dict[str, Any]) -> None:
        with Path(rows).open("a", encoding="ascii") as file:
            file.write(json.dumps(row) + "\n")

    manager = SessionManager(
        Path(root), policy({}), tmux=Tmux(), look=lambda *_: Verdict(ALL_CLEAR, ""), tell=tell, graces=GRACES
    )
    act = {"terminate": lambda: manager.terminate(*session, "reaped-idle", by="reaper"), "recover": manager.recover,
           "kill": lambda: manager.kill(*session)}[action]  # fmt: skip
    print(json.dumps(act()))  # noqa: T201 - it is a program


if __name__ == "__main__":
    main()
