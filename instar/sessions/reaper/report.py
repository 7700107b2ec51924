"""How well the reaper judges: what it would have ended that was at work, and what it kept that was not.

Sums by day, of the last month; pure but for what is handed in.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.sessions.clock import epoch, iso

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from instar.sessions.reaper.seen import Seen
    from instar.sessions.registry import Session

DAYS: Final = 30
SOON_S: Final = 600.0  # after its end, within which the next prompt of its user was a nuisance
ENDS_AT_MOST: Final = 500
_GIB_HOUR: Final = 2**30 * 3600
_COUNTS: Final = ("ticks", "looks", "wouldReap", "reaped", "skipped", "falseOnes", "cameBack")

Outcome = Literal["", "worked-after", "came-back", "prompted", "over"]
Day = dict[str, Any]


@dataclass(frozen=True)
class End:
    """A session that was ended, or would have been. `at` is in seconds since 1970, `prompt` was its user's last one.

    `outcome` is what became of it: "worked-after", by itself; "came-back", prompted soon; "prompted", later; "over".
    """

    session_id: str
    name: str
    at: float
    reason: str
    is_dry: bool
    idle_s: float
    memory: int | None
    prompt: str
    outcome: Outcome = ""

    @property
    def is_open_and_dry(self) -> bool:
        """Whether it is still to be seen if it would have been a mistake."""
        return self.is_dry and not self.outcome

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> End:
        """Return it as it was written. Raise ValueError for what is none."""
        if not isinstance(values, dict) or not isinstance(values.get("at"), int | float):
            raise ValueError("no end")  # noqa: TRY004 - what is read is wrong, not what is called
        try:
            return cls(**{each.name: values[each.name] for each in fields(cls)})
        except KeyError as error:
            raise ValueError("no end") from error

    def told(self) -> dict[str, Any]:
        """Return it as the snapshot tells it."""
        return {
            "sessionId": self.session_id, "session": self.name, "at": iso(self.at), "reason": self.reason,
            "dryRun": self.is_dry, "idleMs": round(self.idle_s * 1000), "memory": self.memory, "outcome": self.outcome,
        }  # fmt: skip


def prompt_of(session: Session) -> str:
    """Return what tells the last prompt of a session from any other; "" without one."""
    return f"{session.text('lastPrompt', 'id')} {session.text('lastPrompt', 'at')}".strip()


def follow(end: End, session: Session | None, seen: Seen | None) -> End:
    """Return an end with what became of it, as far as that can be told by now.

    `session` is its record, `seen` what a look showed of it; None where there is none.
    """
    if end.outcome or session is None:
        return end
    if prompt_of(session) != end.prompt:
        prompted = epoch(session.text("lastPrompt", "at"))
        is_soon = prompted is None or prompted - end.at <= SOON_S
        return replace(end, outcome="came-back" if is_soon else "prompted")
    if end.is_dry and seen is not None and seen.is_working:
        return replace(end, outcome="worked-after")
    return replace(end, outcome="over") if end.is_dry and session.is_over else end


def bounded(ends: Sequence[End]) -> list[End]:
    """Return the newest ends."""
    return list(ends)[-ENDS_AT_MOST:]


class Sums:
    """What was counted, by day. Days are of UTC."""

    def __init__(self, days: object = None) -> None:
        kept = days.items() if isinstance(days, dict) else ()
        self.days: dict[str, Day] = {key: day for key, day in kept if isinstance(day, dict)}

    def count(self, now: float, what: str, number: int = 1) -> None:
        """Count something that happened at a moment in seconds since 1970: one of `_COUNTS`."""
        day = self._day(now)
        day[what] = _counted(day.get(what)) + number

    def missed(self, now: float, gate: str, memory: int | None, seconds: float) -> None:
        """Count for how long a gate kept the memory of a session, in bytes, that was idle by all that it showed."""
        kept = self._day(now).setdefault("missed", {}).setdefault(gate, {"seconds": 0.0, "byteSeconds": 0.0})
        kept["seconds"] += seconds
        kept["byteSeconds"] += seconds * (memory or 0)

    def forget(self) -> None:
        """Keep the newest days alone."""
        for day in sorted(self.days)[:-DAYS]:
            del self.days[day]

    def _day(self, now: float) -> Day:
        return self.days.setdefault(datetime.fromtimestamp(now, timezone.utc).date().isoformat(), {})


def report(days: Mapping[str, Day], ends: Iterable[End], events: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what is on record, for JSON: sums by day and of all, and each false one.

    `events` are rows of the audit: they know of false ones that a lost state no longer does.
    """
    table = [{"day": day, **_summed([days[day]])} for day in sorted(days)]
    false_rows = [row for row in events if row.get("event") == "worked-after"]
    totals = _summed(days.values())
    totals["falseOnes"] = max(totals["falseOnes"], len(false_rows))
    return {
        "days": table,
        "totals": totals,
        "false": [{key: row.get(key) for key in ("ts", "session", "sessionId", "idleMs")} for row in false_rows],
        "open": sum(1 for end in ends if end.is_open_and_dry),
    }


def may_go_live(told: Mapping[str, Any]) -> list[str]:
    """Return why the reaper should not leave dry-run yet, by its report: a sentence each; [] where nothing speaks."""
    count = told["totals"]["falseOnes"]
    if not count:
        return []
    which = "session that it would have parked was" if count == 1 else "sessions that it would have parked were"
    return [f"{count} {which} at work again without a new prompt: see instar-sessions reaper report"]


def _summed(days: Iterable[Day]) -> dict[str, Any]:
    days = list(days)
    sums: dict[str, Any] = {name: sum(_counted(day.get(name)) for day in days) for name in _COUNTS}
    gates = sorted({gate for day in days for gate in day.get("missed", {})})
    sums["missed"] = {
        gate: _kept([day["missed"][gate] for day in days if gate in day.get("missed", {})]) for gate in gates
    }
    return sums


def _kept(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    parts = list(parts)
    return {
        "hours": round(math.fsum(part["seconds"] for part in parts) / 3600, 2),
        "memoryHoursGiB": round(math.fsum(part["byteSeconds"] for part in parts) / _GIB_HOUR, 2),
    }


def _counted(value: object) -> int:
    return value if isinstance(value, int) else 0
