"""Read the server's hot path while stops are evaluated: `python benchmarks/server.py [READS CLIENTS EVALUATIONS]`.

The evaluations come all at once, each of an authority that takes half a second; the reads go over one connection a
client, one after the other. What is printed are the milliseconds of a read, and what failed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hooks.common.clock import now_iso
from instar.gate.gate import Gate
from instar.server import service
from instar.server.endpoint import Endpoint, endpoint, start_of, token
from instar.sessions.machine.processes import boot_id
from instar.sessions.registry import FOLDER

if TYPE_CHECKING:
    from collections.abc import Awaitable

AUTHORITY_S = 0.5
PAUSE_S = 0.05
SESSION = "s"
HOT_PATH = f"/internal/stop-gate/hot-path?session={SESSION}"
EVALUATE = "/internal/stop-gate/evaluate"


class SlowGate(Gate):
    """The gate, with an authority that takes its time in place of one that thinks."""

    def evaluate(self, _body: dict[str, Any], _budget_ms: int | None = None) -> tuple[int, dict[str, Any]]:
        """Take the time."""
        time.sleep(AUTHORITY_S)
        return 200, {"decision": "allow"}


def record(root: Path) -> None:
    """Put the session that is asked about on record, as one that lives."""
    agent = {"pid": os.getpid(), "start": start_of(os.getpid()), "boot": boot_id()}
    place = root / FOLDER / f"{SESSION}.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"id": SESSION, "status": "running", "startedAt": now_iso(), "agent": agent}))


class Client:
    """One connection that is kept."""

    def __init__(self, found: Endpoint, word: str) -> None:
        self.port = found.port
        self.head = f"Host: 127.0.0.1\r\nAuthorization: Bearer {word}\r\n"
        self.times: list[float] = []
        self.failures = 0

    async def ask(self, count: int, method: str, path: str, body: bytes = b"", pause_s: float = 0.0) -> None:
        """Ask so many times."""
        request = f"{method} {path} HTTP/1.1\r\n{self.head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for _ in range(count):
            if pause_s:
                await asyncio.sleep(pause_s)
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(None, 1)[0])
            await reader.readexactly(length)
            self.times.append((time.perf_counter() - began) * 1000)
            self.failures += not head.startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()


async def measure(found: Endpoint, word: str, counts: tuple[int, int, int], pause_s: float) -> None:
    """Print how long the reads took."""
    reads, clients, evaluations = counts
    readers = [Client(found, word) for _ in range(clients)]
    stops = [Client(found, word) for _ in range(evaluations)]
    body = json.dumps({"sessionId": SESSION}).encode()
    judged = asyncio.gather(*(each.ask(1, "POST", EVALUATE, body) for each in stops), return_exceptions=True)
    work: list[Awaitable[None]] = [each.ask(reads // clients, "GET", HOT_PATH, pause_s=pause_s) for each in readers]
    broken = [each for each in await asyncio.gather(*work, return_exceptions=True) if each]
    unjudged = [each for each in await judged if each]
    times = statistics.quantiles([each for reader in readers for each in reader.times], n=100)
    failures = sum(reader.failures for reader in readers) + len(broken)
    refused = sum(stop.failures for stop in stops) + len(unjudged)
    how = f"every {pause_s * 1000:.0f} ms" if pause_s else "without a pause"
    print(
        f"{clients} clients, {how}: {reads} reads, p50 {times[49]:.1f} ms, p99 {times[98]:.1f} ms, {failures} failed;"
    )
    print(f"  meanwhile {evaluations} evaluations, {refused} failed")


def main(reads: int = 10_000, clients: int = 50, evaluations: int = 200) -> None:
    """Start a server, measure, and stop it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([sys.executable, __file__, "serve", folder]) as server,
    ):
        root = Path(folder)
        record(root)
        while service.status(root).state != "running":
            assert server.poll() is None  # it has said what ails it
            time.sleep(0.1)
        found = endpoint(root)
        assert found
        for pause_s in (PAUSE_S, 0.0):
            asyncio.run(measure(found, token(root), (reads, clients, evaluations), pause_s))
        server.send_signal(signal.SIGTERM)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        from instar.server.process import run

        run(Path(sys.argv[2]), 0, SlowGate)
    else:
        main(*map(int, sys.argv[1:]))
