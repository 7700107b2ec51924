"""The configuration of the lifecycle in seconds; what breaks a rule is told, and its default holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from instar.config import DEFAULTS
from instar.lifecycle.policy import Policy, policy

USUAL = Policy(
    is_enabled=False, faults=(), boot_deadline_s=240, ready_gate_s=120, idle_s=3600, interval_s=60, crash_max=3,
    crash_window_s=300, wakes_per_hour=20, sends_per_hour=20, topicless="resume", resume_idle_s=None,
    resume_tokens=None, log_bytes=5 * 1024 * 1024, log_keep=5,
)  # fmt: skip


@pytest.mark.parametrize("config", [{}, DEFAULTS, {"lifecycle": {}}, {"lifecycle": {"mine": 1}}])
def test_what_holds_where_nothing_is_said(config: dict[str, Any]) -> None:
    assert policy(config) == USUAL


SAID: list[tuple[str, Any, dict[str, Any]]] = [
    ("enabled", True, {"is_enabled": True}),
    ("bootDeadlineSec", 0.5, {"boot_deadline_s": 0.5}),
    ("readyGateSec", 7, {"ready_gate_s": 7}),
    ("idleMinutes", 1.5, {"idle_s": 90}),
    ("idleMinutes", 0, {"idle_s": None}),
    ("superviseIntervalSec", 5, {"interval_s": 5}),
    ("crashLoopMax", 5, {"crash_max": 5}),
    ("crashLoopWindowSec", 60, {"crash_window_s": 60}),
    ("maxWakesPerHour", 1, {"wakes_per_hour": 1}),
    ("maxSendsPerHour", 2, {"sends_per_hour": 2}),
    ("topiclessWake", "fresh", {"topicless": "fresh"}),
    ("resumeMaxIdleMinutes", 60, {"resume_idle_s": 3600}),
    ("resumeMaxTokens", 150_000, {"resume_tokens": 150_000}),
    ("logMaxBytes", 4096, {"log_bytes": 4096}),
    ("logKeep", 1, {"log_keep": 1}),
]


@pytest.mark.parametrize(("key", "value", "meant"), SAID)
def test_what_is_said_holds_in_seconds(key: str, value: Any, meant: dict[str, Any]) -> None:
    assert policy({"lifecycle": {key: value}}) == replace(USUAL, **meant)


WRONG: list[tuple[str, Any]] = [
    ("enabled", 1), ("bootDeadlineSec", 0), ("readyGateSec", "120"), ("idleMinutes", -1), ("superviseIntervalSec", 0),
    ("crashLoopMax", 0), ("crashLoopMax", 17), ("crashLoopWindowSec", "10m"), ("maxWakesPerHour", 0),
    ("maxSendsPerHour", 1.5), ("topiclessWake", "attach"), ("resumeMaxIdleMinutes", None), ("resumeMaxTokens", -1),
    ("logMaxBytes", 10), ("logKeep", 0),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_breaks_a_rule_is_told_and_its_default_holds(key: str, value: Any) -> None:
    found = policy({"lifecycle": {key: value}, "sessions": {"keepEndedDays": 0}})

    (fault,) = found.faults
    assert fault.startswith(f'key "lifecycle.{key}": ')
    assert replace(found, faults=()) == USUAL


def test_a_block_that_is_none_is_told() -> None:
    found = policy({"lifecycle": 5})

    assert found.faults == ("key \"lifecycle\": 5 is not of type 'object'",)
    assert replace(found, faults=()) == USUAL
