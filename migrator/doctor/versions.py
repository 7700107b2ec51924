"""The versions of the clients, against those that the hooks were tried with."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

from migrator.doctor.findings import Examined, Finding, ok
from migrator.doctor.firing import NAMES
from migrator.doctor.programs import Job, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from migrator.registration import Client

NEWEST_TRIED: Final[dict[Client, tuple[int, ...]]] = {"claude": (2, 1, 197), "codex": (0, 169, 0)}
_SECONDS: Final = 5.0
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")


def check(examined: Examined) -> Iterator[Finding]:
    """Yield the version of each client that is on PATH."""
    for client in examined.project.clients:
        program = shutil.which(client, path=examined.environ.get("PATH", ""))
        if program is None:
            continue
        ran = run(Job([program, "--version"], "/", dict(examined.environ), _SECONDS))
        found = _VERSION.search(ran.stdout) if ran.status == 0 else None
        if found is None:
            yield ok("client-version", f"{program} does not tell its version")
        elif tuple(map(int, found.groups())) > NEWEST_TRIED[client]:
            tried = ".".join(map(str, NEWEST_TRIED[client]))
            text = f"{NAMES[client]} {found[0]} is newer than {tried}, the newest that these hooks were tried with"
            yield Finding("client-newer", "warning", text, "see whether a newer instar-hooks is out")
        else:
            yield ok("client-version", f"{NAMES[client]} {found[0]}")
