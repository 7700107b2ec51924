"""Telling the project's server that a build goes on, for the channel that the session reports to."""

from __future__ import annotations

import json
import os

from hooks.common.endpoint import server_of, token_of
from hooks.common.trouble import Trouble
from playbook_scripts.builds import LOCK_SECONDS, run_id, running
from playbook_scripts.history import audit_entries, minutes_between

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from hooks.common.statefile import Build
    from playbook_scripts.answers import Answer

    State = dict[str, Any]

TOOLS = ("Monitor", "Bash-test", "Bash-tsc", "Bash-install", "Bash-lint", "Bash-other", "none")
STATUSES = ("still-working", "no-progress-detected", "phase-boundary")
ROUTE = "/build/heartbeat"
SECONDS = 2.0
A_DAY_MS = 86_400_000


def heartbeat(build: Build, options: argparse.Namespace) -> Answer:
    """Send one in the middle of a phase."""
    state = running(build)
    return send(build, state, minutes_between(boundaries(build, state)[-1], None), options.tool, options.status)


def beat(build: Build, state: State) -> None:
    """Send one at the boundary of a phase: how long the one that ended took."""
    if channel_of(os.environ):
        try:
            times = boundaries(build, state)
        except Trouble:  # an audit log that cannot be read: the command itself went well, and says so
            return
        send(build, state, minutes_between(times[-2], times[-1]), "none", "phase-boundary")


def boundaries(build: Build, state: State) -> list[Any]:
    """Return the times at which the build began, and its phases after the first."""
    begun = state.get("startedAt")
    moves = [entry.get("timestamp") for entry in audit_entries(build) if entry.get("event") == "phase.transition"]
    return [begun, begun, *(time for time in moves if str(time) >= str(begun))]


def send(build: Build, state: State, minutes: float | None, tool: str, status: str) -> Answer:
    """Send a heartbeat where a channel and a server are known. Never an error: what fails is audited."""
    channel = channel_of(os.environ)
    server = server_of(build.root)
    if channel is None or server is None:
        return {"status": "skipped", "reason": "no channel is set" if channel is None else "no server is running"}
    elapsed = int((minutes or 0) * 60_000)
    body = {
        "runId": run_id(state),
        "phase": state.get("phase"),
        "tool": tool,
        "status": status,
        "elapsedMs": elapsed if 0 <= elapsed < A_DAY_MS else 0,
        **channel,
    }
    problem = "the topic is no number" if None in channel.values() else post(build, server, body)
    if not problem:
        return {**body, "status": "sent"}
    try:
        with build.lock(LOCK_SECONDS):
            build.audit("heartbeat.skipped", phase=state.get("phase"), error=problem[:200])
    except Trouble:  # nor can that be written down: the command itself went well, and says so
        pass
    return {"status": "skipped", "reason": problem}


def channel_of(environ: Any) -> dict[str, Any] | None:
    """Return whom the session reports to; a topic wins over a channel, and one that is no number is None."""
    topic, channel = environ.get("INSTAR_TELEGRAM_TOPIC"), environ.get("INSTAR_SLACK_CHANNEL")
    if topic:
        return {"topicId": int(topic) if topic.lstrip("-").isdecimal() else None}
    return {"channelId": channel} if channel else None


def post(build: Build, port: int, body: dict[str, Any]) -> str:
    """Send the body to our own machine, past every proxy, and return what went wrong; "" when nothing did."""
    import http.client

    headers = {"Content-Type": "application/json"}
    token = token_of(build.root)
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("POST", ROUTE, json.dumps(body), headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return "" if status < 300 else f"the server answered {status}"  # noqa: PLR2004 - what HTTP calls success
