"""What the operator wants of the lifecycle of peers: the configuration in the units that code counts in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.config import effective, problems

if TYPE_CHECKING:
    from collections.abc import Mapping

Topicless = Literal["resume", "fresh"]

_BLOCK: Final = 'key "lifecycle'


@dataclass(frozen=True)
class Policy:
    """How peers are woken, watched over and kept from running wild. Times in seconds.

    `is_enabled` is whether the server watches over them; a wake asks nobody. `idle_s`, `resume_idle_s` and
    `resume_tokens` are None where the rule is off. `faults` are the sentences for what breaks a rule of the
    configuration; there its defaults hold.
    """

    is_enabled: bool
    faults: tuple[str, ...]
    boot_deadline_s: float
    ready_gate_s: float
    idle_s: float | None
    interval_s: float
    crash_max: int
    crash_window_s: float
    wakes_per_hour: int
    sends_per_hour: int
    topicless: Topicless
    resume_idle_s: float | None
    resume_tokens: int | None
    log_bytes: int
    log_keep: int

    @property
    def start_s(self) -> float:
        """How long a start may take, and so how long to wait for others that are at a peer."""
        return self.boot_deadline_s + self.ready_gate_s


def policy(config: Mapping[str, Any]) -> Policy:
    """Return what holds by a project's configuration as it stands in its file."""
    said: dict[str, Any] = effective(dict(config))["lifecycle"]
    return Policy(
        is_enabled=said["enabled"],
        faults=tuple(each for each in problems(config) if each.startswith(_BLOCK)),
        boot_deadline_s=said["bootDeadlineSec"],
        ready_gate_s=said["readyGateSec"],
        idle_s=said["idleMinutes"] * 60.0 or None,
        interval_s=said["superviseIntervalSec"],
        crash_max=said["crashLoopMax"],
        crash_window_s=said["crashLoopWindowSec"],
        wakes_per_hour=said["maxWakesPerHour"],
        sends_per_hour=said["maxSendsPerHour"],
        topicless=said["topiclessWake"],
        resume_idle_s=said["resumeMaxIdleMinutes"] * 60.0 or None,
        resume_tokens=said["resumeMaxTokens"] or None,
        log_bytes=said["logMaxBytes"],
        log_keep=said["logKeep"],
    )
