"""The report adds up what is on record, and enforce asks for what the thresholds say."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from instar.gate.report import DAY_MS, percentile, report, shadow_days, summary, thresholds, thresholds_of
from instar.gate.store import CEILING, DWELL_MS, Event, Store

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_790_000_000_000
CONFIG: dict[str, Any] = {"unjustifiedStopGate": {"authority": {"provider": "command", "budgetMs": 1000}}}


def row(name: str, **columns: Any) -> dict[str, Any]:
    given = {"event_id": name, "session_id": "s", "ts": NOW_MS, "mode": "shadow", "decision": "allow", "latency_ms": 5}
    return asdict(Event(**{**given, **columns}))


def word(name: str, **columns: Any) -> dict[str, Any]:
    return {"event_id": name, "operator": "me", "verdict": "correct", "dwell_ms": DWELL_MS, **columns}


def enough(**more: Any) -> list[dict[str, Any]]:
    """Return rows that meet every threshold, the newest first."""
    decisions = ["continue"] * 5 + ["allow"] * 45
    return [row(str(index), decision=decision, **more) for index, decision in enumerate(decisions)]


def unmet(
    rows: list[dict[str, Any]], words: list[dict[str, Any]], config: dict[str, Any], days: float = 14
) -> set[str]:
    change = {"kind": "mode", "prior": "off", "next": "shadow", "ts": NOW_MS - int(days * DAY_MS)}
    return {each.name for each in thresholds_of(rows, words, NOW_MS, config, [change]) if not each.met}


WORDS = [word(str(index)) for index in range(20)]


def test_with_everything_seen_enforce_asks_for_nothing_more() -> None:
    assert unmet(enough(), WORDS, CONFIG) == set()


@pytest.mark.parametrize(
    ("rows", "words", "days", "name"),
    [
        (enough()[:49], WORDS, 14, "evaluations"),
        ([*enough()[:49], row("x", short_circuit="no-signal")], WORDS, 14, "evaluations"),
        ([*enough()[:49], row("x", decision=None, invalid_kind="rateLimit")], WORDS, 14, "evaluations"),
        (enough(), WORDS[:19], 14, "evaluations reviewed"),
        (enough(), [*WORDS[:19], word("19", dwell_ms=DWELL_MS - 1)], 14, "evaluations reviewed"),
        (enough(), [*WORDS[:19], word("18", operator="you")], 14, "evaluations reviewed"),
        (enough(), [word(str(index)) for index in range(1, 21)], 14, "of them continue"),
        ([row(str(n), decision="continue" if n > 3 else "allow") for n in range(50)], WORDS, 14, "of them allow"),
        (enough(), WORDS, 13.99, "days since shadow began"),
        ([*enough()[:49], row("x", decision=None, invalid_kind="invalidRule")], WORDS, 14,
         "invalid verdicts in the last 50"),
        ([*enough()[:49], row("x", decision=None, invalid_kind="invalidEvidence")], WORDS, 14,
         "invalid verdicts in the last 50"),
        (enough(latency_ms=1000), WORDS, 14, "authority's p99 in ms"),
    ],
)  # fmt: skip
def test_each_threshold_is_asked_for(
    rows: list[dict[str, Any]], words: list[dict[str, Any]], days: float, name: str
) -> None:
    assert unmet(rows, words, CONFIG, days) == {name}


def test_an_invalid_verdict_is_forgiven_after_fifty_good_ones() -> None:
    assert unmet([*enough(), row("x", decision=None, invalid_kind="invalidRule")], WORDS, CONFIG) == set()


@pytest.mark.parametrize(
    ("authority", "is_met"),
    [({}, False), ({"provider": "rules"}, False), ({"provider": "rules", "rulesMayEnforce": True}, True),
     ({"provider": "rules", "rulesMayEnforce": "yes"}, False), ({"provider": "claude-cli"}, True), ("rules", False)],
)  # fmt: skip
def test_rules_are_named_before_they_hold_anybody(authority: object, is_met: bool) -> None:  # noqa: FBT001
    assert ("authority" not in unmet(enough(), WORDS, {"unjustifiedStopGate": {"authority": authority}})) is is_met


def change(next_: str, ts: int, prior: str = "x") -> dict[str, Any]:
    return {"kind": "mode", "prior": prior, "next": next_, "ts": NOW_MS - ts * DAY_MS}


@pytest.mark.parametrize(
    ("audits", "days"),
    [
        ([], 7),
        ([change("shadow", 20)], 20),
        ([change("shadow", 20), change("off", 10), change("shadow", 3)], 3),
        ([change("shadow", 20), change("shadow", 3, "shadow")], 20),
        ([change("shadow", 20), change("enforce", 3)], 20),
        ([change("shadow", 20), change("off", 10)], 7),
        ([change("off", 5)], 2),
        ([change("off", 1)], 0),
        ([{"kind": "kill-switch", "prior": "false", "next": "true", "ts": NOW_MS}], 7),
        ([change("shadow", -3)], 0),
    ],
)
def test_the_days_in_shadow_begin_when_it_was_set_last(audits: list[dict[str, Any]], days: float) -> None:
    rows = [row(str(ago), ts=NOW_MS - ago * DAY_MS) for ago in (2, 7)] + [row("e", ts=0, mode="enforce")]

    assert shadow_days(rows, audits, NOW_MS) == days


def test_without_anything_seen_nothing_is_met_but_that_nothing_was_wrong() -> None:
    found = thresholds_of([], [], NOW_MS, {}, [])

    assert {each.name for each in found if each.met} == {"invalid verdicts in the last 50"}


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [([], 99, None), ([7], 50, 7), ([3, 1, 2], 50, 2), (list(range(1, 101)), 99, 99), (list(range(1, 102)), 99, 100)],
)
def test_a_percentile_is_one_of_the_values(values: list[float], percent: float, found: float | None) -> None:
    assert percentile(values, percent) == found


def test_a_summary_tells_what_came_of_the_stops() -> None:
    rows = [
        row("a", decision="continue", rule="U2", provider="rules", signals_json='["x"]', latency_ms=9),
        row("b", decision=None, invalid_kind="invalidEvidence", session_id="t"),
        row("c", decision="force_allow", short_circuit=CEILING, mode="enforce"),
        row("d", decision="allow", rule="U_LEGIT_ERROR", provider="rules", signals_json='["x"]'),
        row("e", decision=None, invalid_kind="shed"),
    ]
    words = [word("a", verdict="incorrect"), word("a", verdict="unclear"), word("d"), word("d", operator="you")]
    found = summary(rows, [*words, word("b", dwell_ms=1)])

    assert found == {
        "events": 5, "evaluations": 3, "sessions": 2, "byMode": {"shadow": 4, "enforce": 1},
        "byDecision": {"continue": 1, "force_allow": 1, "allow": 1}, "byRule": {"U2": 1, "U_LEGIT_ERROR": 1},
        "byFailure": {"invalidEvidence": 1, "shed": 1}, "byProvider": {"rules": 2},
        "rates": {"continue": 0.3333, "failure": 0.4, "invalidEvidenceOnContinue": 0.5},
        "latencyMs": {"p50": 5, "p95": 9, "p99": 9}, "signalPatterns": 1,
        "annotations": {"reviewed": 2, "correct": 2, "incorrect": 0, "unclear": 1},
    }  # fmt: skip


def test_a_report_is_of_what_was_since_a_time(tmp_path: Path) -> None:
    with closing(Store.open(tmp_path / "db", clock=lambda: NOW_MS / 1000)) as store:
        for name, ts in (("old", NOW_MS - 3 * DAY_MS), ("new", NOW_MS), ("ahead of the clock", NOW_MS + DAY_MS)):
            store.record(Event(name, name, ts, "enforce", "continue"), 0)
            store.record(Event(f"{name}2", name, ts, "shadow", "allow"))
            store.annotate(f"{name}2", "me", "correct", "", DWELL_MS)
        found = report(store, NOW_MS - DAY_MS, NOW_MS)

        assert (found["since"], found["until"], found["events"]) == (NOW_MS - DAY_MS, NOW_MS, 4)
        assert found["counters"] == {CEILING: 2}
        assert [each["session_id"] for each in found["stuck"]] == ["ahead of the clock", "new"]
        assert found["annotations"]["reviewed"] == 2
        assert {each.name: each.have for each in thresholds(store, NOW_MS, {}, [])}["evaluations reviewed"] == 3
