"""What the gate's memory shows: a summary for people, and whether enough was seen to let it hold sessions."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.gate.budget import budget_ms
from instar.gate.settings import authority_settings
from instar.gate.store import DWELL_MS, day_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from instar.gate.store import Store

DAY_MS: Final = 86_400_000
EVALUATIONS: Final = 50
REVIEWED: Final = 20
REVIEWED_OF_EACH: Final = 5
SHADOW_DAYS: Final = 14

DECISIONS: Final = frozenset({"continue", "allow", "escalate"})
# Of the ways a stop is let go these are the authority's.
ITS_FAILURES: Final = frozenset(
    {"timeout", "malformed", "invalidRule", "missingPointer", "invalidEvidence", "llmUnavailable"}
)
INVALID: Final = frozenset({"invalidRule", "invalidEvidence"})

Row = dict[str, Any]


@dataclass(frozen=True)
class Threshold:
    """One thing that has to be seen before the gate may hold sessions."""

    name: str
    have: float | str | None
    need: str
    met: bool


def report(store: Store, since_ms: int, now_ms: int) -> dict[str, Any]:
    """Return what is on record since a time, for JSON. Raise StoreError."""
    rows = store.events(None, since=since_ms)
    known = {row["event_id"] for row in rows}
    words = [word for word in store.annotations() if word["event_id"] in known]
    counters = store.counters(day_of(since_ms))
    stuck = [each for each in store.stuck() if each["last_ceiling_hit_at"] >= since_ms]
    return {"since": since_ms, "until": now_ms, **summary(rows, words), "counters": counters, "stuck": stuck}


def summary(rows: Sequence[Row], words: Sequence[Row]) -> dict[str, Any]:
    """Return the numbers of rows of events, and of the annotations of them."""
    judged = _judged(rows)
    kinds = Counter(row["invalid_kind"] for row in rows if row["invalid_kind"])
    continues = sum(row["decision"] == "continue" for row in judged)
    latencies = [row["latency_ms"] for row in judged]
    verdicts = Counter(word["verdict"] for word in _standing(words))
    return {
        "events": len(rows),
        "evaluations": len(judged),
        "sessions": len({row["session_id"] for row in rows}),
        "byMode": _counted(row["mode"] for row in rows),
        "byDecision": _counted(row["decision"] for row in rows),
        "byRule": _counted(row["rule"] for row in rows),
        "byFailure": dict(kinds.most_common()),
        "byProvider": _counted(row["provider"] for row in judged),
        "rates": {
            "continue": _rate(continues, len(judged)),
            "failure": _rate(sum(kinds.values()), len(rows)),
            "invalidEvidenceOnContinue": _rate(kinds["invalidEvidence"], continues + kinds["invalidEvidence"]),
        },
        "latencyMs": {f"p{percent}": percentile(latencies, percent) for percent in (50, 95, 99)},
        "signalPatterns": len({row["signals_json"] for row in judged if row["signals_json"]}),
        "annotations": {
            "reviewed": len({word["event_id"] for word in _standing(words)}),
            **{each: verdicts[each] for each in ("correct", "incorrect", "unclear")},
        },
    }


def thresholds(store: Store, now_ms: int, config: Mapping[str, Any], audits: Sequence[Row]) -> list[Threshold]:
    """Return what enforce asks for, and how far it is met. Raise StoreError."""
    return thresholds_of(store.events(None), store.annotations(), now_ms, config, audits)


def thresholds_of(
    rows: Sequence[Row], words: Sequence[Row], now_ms: int, config: Mapping[str, Any], audits: Sequence[Row]
) -> list[Threshold]:
    """Return the same of rows of events, the newest first, and the annotations of them."""
    judged = _judged(rows)
    decisions = {row["event_id"]: row["decision"] for row in judged}
    reviewed = [decisions[each] for each in {word["event_id"] for word in _standing(words)} & set(decisions)]
    invalid = sum(row["invalid_kind"] in INVALID for row in judged[:EVALUATIONS])
    return [
        _at_least("evaluations", len(judged), EVALUATIONS),
        _at_least("evaluations reviewed", len(reviewed), REVIEWED),
        _at_least("of them continue", reviewed.count("continue"), REVIEWED_OF_EACH),
        _at_least("of them allow", reviewed.count("allow"), REVIEWED_OF_EACH),
        _at_least("days since shadow began", shadow_days(rows, audits, now_ms), SHADOW_DAYS),
        Threshold(f"invalid verdicts in the last {EVALUATIONS}", invalid, "none", invalid == 0),
        _within_budget([row["latency_ms"] for row in judged], config),
        _is_named(config),
    ]


def as_json(met: Iterable[Threshold]) -> list[dict[str, Any]]:
    """Return thresholds for JSON."""
    return [asdict(each) for each in met]


def shadow_days(rows: Sequence[Row], audits: Sequence[Row], now_ms: int) -> float:
    """Return for how many days the gate has looked without holding anybody.

    They begin when the mode was set to shadow; where it was not, with the first event in shadow that is on record
    since the mode was set last. That it was set to enforce since then ends nothing.
    """
    changes = [each for each in audits if each["kind"] == "mode" and each["next"] != each["prior"]]
    last = next((each for each in reversed(changes) if each["next"] != "enforce"), None)
    if last and last["next"] == "shadow":
        began: float = last["ts"]
    else:
        since = last["ts"] if last else -math.inf
        began = min((row["ts"] for row in rows if row["mode"] == "shadow" and row["ts"] >= since), default=now_ms)
    return math.floor(max(0, now_ms - began) / DAY_MS * 10) / 10


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest of the values that `percent` of them do not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _judged(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of stops that an authority was asked about."""
    return [
        row
        for row in rows
        if not row["short_circuit"] and (row["decision"] in DECISIONS or row["invalid_kind"] in ITS_FAILURES)
    ]


def _standing(words: Iterable[Row]) -> list[Row]:
    """Return the last word of everybody on every event, as far as it counts. They come in order of time."""
    last = {(word["event_id"], word["operator"]): word for word in words if word["dwell_ms"] >= DWELL_MS}
    return list(last.values())


def _within_budget(latencies: Sequence[float], config: Mapping[str, Any]) -> Threshold:
    budget = budget_ms(config)
    slowest = percentile(latencies, 99)
    return Threshold("authority's p99 in ms", slowest, f"< {budget}", slowest is not None and slowest < budget)


def _is_named(config: Mapping[str, Any]) -> Threshold:
    """Return whether the authority may hold anybody: rules have to be told to, since they understand nothing."""
    authority = authority_settings(config)
    provider = authority.get("provider") or "rules"
    is_named = provider != "rules" or authority.get("rulesMayEnforce") is True
    return Threshold("authority", str(provider), "a model, or rulesMayEnforce: true", is_named)


def _at_least(name: str, have: float, need: int) -> Threshold:
    return Threshold(name, have, f">= {need}", have >= need)


def _counted(values: Iterable[str | None]) -> dict[str, int]:
    return dict(Counter(value for value in values if value).most_common())


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
