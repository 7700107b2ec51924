"""The project's server: its port as long as its process lives, and the token it asks for."""

from __future__ import annotations

import os

from hooks.common.identity import Processes
from hooks.common.jsontext import loads
from hooks.common.values import is_count, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def server_of(root: str) -> int | None:
    """Return the port of the project's server, as long as the process that wrote it lives."""
    values = read_json(os.path.join(root, ".instar", "server-data", "endpoint.json"))
    pid, port = values.get("pid"), values.get("port")
    if not (isinstance(pid, int) and isinstance(port, int) and is_count(port)):
        return None
    process = Processes().look(pid)
    return port if process and process.start == str(values.get("start")) else None


def token_of(root: str) -> str:
    """Return the token of the server, and "" where none is known; an object in the config is a secret of others."""
    try:
        with open(os.path.join(root, ".instar", "server-data", "token"), encoding="utf-8") as file:
            kept = file.read().strip()
    except (OSError, ValueError):
        kept = ""
    return os.environ.get("INSTAR_AUTH_TOKEN") or kept or text_of(read_json(f"{root}/.instar/config.json"), "authToken")


def read_json(path: str) -> dict[str, Any]:
    """Return the object in a file; ``{}`` where there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            values = loads(file.read())
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
