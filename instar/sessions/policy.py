"""What the operator wants of the reaper: the configuration in the units that code counts in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from instar.config import effective, problems

if TYPE_CHECKING:
    from collections.abc import Mapping

Mode = Literal["off", "dry-run", "live"]
MODES: Final = get_args(Mode)

_BLOCKS: Final = ("monitoring", "sessions")


@dataclass(frozen=True)
class PressureLimits:
    """From where on memory or load is short. Percents are of the memory that is available; 0 is never."""

    moderate_percent: float
    critical_percent: float
    moderate_load: float
    critical_load: float
    uses_stalls: bool
    uses_denials: bool


@dataclass(frozen=True)
class Policy:
    """How sessions are judged, and when which of them are parked. Times in seconds.

    `idle_kill_s` and `max_age_s` are None where the rule is off. `faults` are the sentences for what breaks a rule of
    the configuration: as long as there are any, nobody is parked.
    """

    mode: Mode
    faults: tuple[str, ...]
    protected: tuple[str, ...]
    tick_s: float
    min_age_s: float
    confirm_observations: int
    confirm_window_s: float
    recent_user_s: float
    stale_build_s: float
    idle_moderate_s: float
    idle_critical_s: float
    reaps_in_normal: bool
    reaps_per_tick: int
    reaps_per_hour: int
    cooldown_s: float
    grace_s: float
    jitter_s: float
    capture_lines: int
    attached_keeps: Literal["session", "window"]
    reaps_unmanaged: bool
    helpers: tuple[str, ...]
    cpu_rate: float
    probe_s: float
    tick_limit_s: float
    idle_kill_s: float | None
    max_age_s: float | None
    pressure: PressureLimits

    @property
    def may_park(self) -> bool:
        """Whether a session may be ended at all."""
        return self.mode == "live" and not self.faults


def policy(config: Mapping[str, Any]) -> Policy:
    """Return what holds by a project's configuration as it stands in its file; the switch is above it."""
    whole = effective(dict(config))
    reaper: dict[str, Any] = whole["monitoring"]["sessionReaper"]
    sessions, pressure = whole["sessions"], reaper["pressure"]
    configured: Mode = "off" if not reaper["enabled"] else "dry-run" if reaper["dryRun"] else "live"
    minute = 60.0
    window = reaper["confirmWindowMinutes"] * minute
    return Policy(
        mode=configured,
        faults=tuple(each for each in problems(config) if each.startswith(tuple(f'key "{block}' for block in _BLOCKS))),
        protected=tuple(sessions["protected"]),
        tick_s=reaper["tickIntervalSec"],
        min_age_s=reaper["minAgeMinutes"] * minute,
        confirm_observations=reaper["confirmObservations"],
        confirm_window_s=window,
        recent_user_s=reaper["recentUserWindowMinutes"] * minute,
        stale_build_s=reaper["staleBuildMinutes"] * minute,
        idle_moderate_s=max(window, reaper["idleThresholdModerateMinutes"] * minute),
        idle_critical_s=max(window, reaper["idleThresholdCriticalMinutes"] * minute),
        reaps_in_normal=reaper["normalTierReaps"],
        reaps_per_tick=reaper["maxReapsPerTick"],
        reaps_per_hour=reaper["maxReapsPerHour"],
        cooldown_s=reaper["cooldownSec"],
        grace_s=reaper["finalGraceSec"],
        jitter_s=pressure["crossProcessJitterMs"] / 1000,
        capture_lines=reaper["paneCaptureLines"],
        attached_keeps=reaper["attachedKeeps"],
        reaps_unmanaged=reaper["reapUnmanaged"],
        helpers=tuple(reaper["helpers"]),
        cpu_rate=reaper["cpuActiveMinRatePerSec"],
        probe_s=reaper["maxProbeSec"],
        tick_limit_s=reaper["maxTickSec"],
        idle_kill_s=sessions["idleKillMinutes"] * minute or None,
        max_age_s=sessions["maxAgeMinutes"] * minute or None,
        pressure=PressureLimits(
            moderate_percent=pressure["moderateAvailablePercent"],
            critical_percent=pressure["criticalAvailablePercent"],
            moderate_load=pressure["moderateLoadPerCore"],
            critical_load=pressure["criticalLoadPerCore"],
            uses_stalls=pressure["useStalls"],
            uses_denials=pressure["useSpawnDenials"],
        ),
    )
