"""The project's configuration, and the stop gate: whether what is switched on can do its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from instar.config import PATH, load, problems
from instar.errors import InstarError
from migrator.doctor import server
from migrator.doctor.findings import Examined, Finding, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

GATE_ON: Final = ".instar/server-data/gate-on"
_START: Final = "instar-server start, or switch the gate off with instar-gate mode off"


def check_config(examined: Examined) -> Iterator[Finding]:
    """Yield what in the configuration breaks a rule."""
    try:
        wrong = problems(load(examined.root))
    except InstarError as error:
        yield Finding("config-broken", "error", str(error), f"mend {PATH}; until then the defaults hold")
        return
    for problem in wrong:
        yield Finding(
            "config-value", "warning", f"{PATH}: {problem}", f"mend it in {PATH}; until then its default holds"
        )
    if not wrong:
        yield ok("config", f"{PATH} breaks no rule" if (examined.root / PATH).exists() else f"there is no {PATH}")


def check_gate(examined: Examined) -> Iterator[Finding]:
    """Yield a gate that is on without a server to judge."""
    place = examined.root / GATE_ON
    if not place.exists():
        yield ok("gate", "the stop gate is off")
        return
    try:
        mode = "".join(place.read_text(encoding="ascii").split()[:1])
        is_judged = server.runs(examined.root)
    except (OSError, ValueError):
        mode, is_judged = "", False
    if is_judged:
        yield ok("gate", f"the stop gate is on ({mode}), and its server runs")
    else:
        yield Finding("gate-without-server", "error", "the stop gate is on and its server does not run", _START)
