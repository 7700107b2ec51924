"""Sessions that are not on record: they began before the hooks were set up, or without them. They are only seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from instar.project import find_root
from instar.sessions.clock import iso
from instar.sessions.registry import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from instar.sessions.machine.processes import Process, Table

CLIENTS: Final = {"claude": "claude-code", "codex": "codex-cli"}
SERVICES: Final = frozenset(("app-server", "mcp-server", "mcp", "exec-server"))  # words of a client that is no session


def unrecorded(root: Path, table: Table, recorded: Iterable[Session], boot: str) -> Iterator[Session]:
    """Yield a session for each client that runs in the project and that no record stamps; its id is made of its pid."""
    stamped = [session.record.get("agent") for session in recorded]
    known = {agent.get("pid") for agent in stamped if isinstance(agent, dict)}
    for process in table:
        is_unknown = process.name in CLIENTS and process.pid not in known
        if is_unknown and _is_session(process, table) and _is_in(root, process):
            agent = {"pid": process.pid, "start": process.start, "boot": boot}
            record = {"client": CLIENTS[process.name], "agent": agent, "startedAt": iso(process.created)}
            yield Session(root, f"{process.name}-{process.pid}", "unrecorded", record)


def _is_session(process: Process, table: Table) -> bool:
    """Say whether a client is one that a person started: no service, and not below another client."""
    is_below = any(each.name in CLIENTS for each in table.above(process.pid))
    return not process.is_zombie and not is_below and not SERVICES.intersection(process.argv[1:])


def _is_in(root: Path, process: Process) -> bool:
    try:
        return find_root(Path(psutil.Process(process.pid).cwd())) == root
    except (psutil.Error, OSError):
        return False
