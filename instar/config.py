"""The configuration of a project, `.instar/config.json`: what may stand in it, and what holds where it is silent.

The file is the operator's. Keys that are not named here are of others, and nobody's business.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jsonschema.exceptions import ValidationError

PATH: Final = ".instar/config.json"

# What holds where the file is silent; a project's file gets what it lacks of it, to be found there and changed.
DEFAULTS: Final[dict[str, Any]] = {
    "sessions": {"keepEndedDays": 30, "protected": [], "idleKillMinutes": 0, "maxAgeMinutes": 0},
    "monitoring": {
        "sessionReaper": {
            "enabled": False,
            "dryRun": True,
            "tickIntervalSec": 120,
            "minAgeMinutes": 30,
            "confirmObservations": 3,
            "confirmWindowMinutes": 10,
            "recentUserWindowMinutes": 30,
            "staleBuildMinutes": 480,
            "idleThresholdModerateMinutes": 45,
            "idleThresholdCriticalMinutes": 15,
            "normalTierReaps": False,
            "maxReapsPerTick": 3,
            "maxReapsPerHour": 12,
            "cooldownSec": 60,
            "finalGraceSec": 60,
            "paneCaptureLines": 200,
            "attachedKeeps": "session",
            "reapUnmanaged": True,
            "helpers": [],
            "cpuActiveMinRatePerSec": 0.02,
            "maxProbeSec": 5,
            "maxTickSec": 60,
            "pressure": {
                "moderateAvailablePercent": 12,
                "criticalAvailablePercent": 5,
                "moderateLoadPerCore": 0,
                "criticalLoadPerCore": 0,
                "useStalls": True,
                "useSpawnDenials": True,
                "crossProcessJitterMs": 5000,
            },
        },
    },
    "lifecycle": {
        "enabled": False,
        "superviseIntervalSec": 60,
        "idleMinutes": 60,
        "bootDeadlineSec": 240,
        "readyGateSec": 120,
        "topiclessWake": "resume",
        "resumeMaxIdleMinutes": 0,
        "resumeMaxTokens": 0,
        "maxWakesPerHour": 20,
        "maxSendsPerHour": 20,
        "crashLoopMax": 3,
        "crashLoopWindowSec": 300,
        "logMaxBytes": 5 * 2**20,
        "logKeep": 5,
    },
    "unjustifiedStopGate": {
        "authority": {"provider": "rules", "rulesMayEnforce": False},
        "continueCeiling": 2,
        "requireSessionStart": True,
        "rateLimits": {"perSessionHour": 10, "perAgentDay": 200},
        "concurrency": {"machine": 8, "session": 2},
        "breaker": {"threshold": 3, "cooldownMs": 300_000},
        "retentionDays": 30,
    },
}


def _whole(minimum: int, maximum: int, description: str) -> dict[str, Any]:
    return {"type": "integer", "minimum": minimum, "maximum": maximum, "description": description}


def _number(minimum: float, maximum: float, description: str) -> dict[str, Any]:
    return {"type": "number", "minimum": minimum, "maximum": maximum, "description": description}


def _switch(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", "minLength": 1}, "description": description}


def _object(description: str, /, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "description": description}


_AUTHORITY: Final = _object(
    "Who judges the stops.",
    provider={
        "enum": ["rules", "claude-cli", "codex-cli", "command"],
        "description": "Who judges a stop: our own rules, a client without tools, or a command.",
    },
    rulesMayEnforce={"type": "boolean", "description": "Let the rules hold sessions in enforce, too."},
    command=_texts("The command that judges: the prompt on its standard input, the verdict on its standard output."),
    path={"type": "string", "minLength": 1, "description": "The client's program, where it is not on PATH."},
    model={"type": "string", "minLength": 1, "description": "The model that a client is asked to use."},
    budgetMs=_whole(200, 8000, "For how many milliseconds it may think; else 2000, and a client 8000."),
)
_GATE: Final = _object(
    "The stop gate.",
    mode={
        "enum": ["off", "shadow", "enforce"],
        "description": "The mode where instar-gate set none; without either, shadow.",
    },
    authority=_AUTHORITY,
    planGlobs=_texts("Where else plans lie, as patterns of paths below the project."),
    continueCeiling=_whole(1, 10, "How often a session is told to go on, ever."),
    requireSessionStart={"type": "boolean", "description": "Judge only sessions whose start is on record."},
    rateLimits=_object(
        "How many stops are judged.",
        perSessionHour=_whole(1, 1000, "How many evaluations a session may have in an hour."),
        perAgentDay=_whole(1, 100_000, "How many evaluations a project may have in a day."),
    ),
    concurrency=_object(
        "How many are judged at once.",
        machine=_whole(1, 64, "How many evaluations run at once."),
        session=_whole(1, 64, "How many evaluations of one session run at once."),
    ),
    breaker=_object(
        "When an authority that fails is spared.",
        threshold=_whole(0, 100, "After how many unusable answers in a row the authority is left in peace; 0: never."),
        cooldownMs=_whole(1000, 86_400_000, "For how many milliseconds."),
    ),
    retentionDays=_whole(1, 3650, "For how many days evaluations are kept."),
)
_SESSIONS: Final = _object(
    "Records of sessions, and what holds for parking any of them.",
    keepEndedDays=_whole(1, 3650, "For how many days the record of an ended session is kept."),
    protected=_texts("Sessions that are never parked: ids, or patterns of the names of their tmux sessions."),
    idleKillMinutes=_number(0, 100_000, "Park what was idle for so long, without any pressure; 0: never."),
    maxAgeMinutes=_number(0, 100_000, "Park what is older, and a fifth more, once it is idle; 0: never."),
)
_PRESSURE: Final = _object(
    "When the machine counts as short of memory.",
    moderateAvailablePercent=_number(0, 100, "Moderate pressure: less of the memory than this is available."),
    criticalAvailablePercent=_number(0, 100, "Critical pressure: less of the memory than this is available."),
    moderateLoadPerCore=_number(0, 1000, "Moderate pressure: such a load average of a minute on each core; 0: never."),
    criticalLoadPerCore=_number(0, 1000, "Critical pressure: such a load average of a minute on each core; 0: never."),
    useStalls=_switch("Whether the system's own account of waiting for memory counts (Linux), and its swapping."),
    useSpawnDenials=_switch("Whether a session that could not be started for want of memory counts."),
    crossProcessJitterMs=_whole(0, 60_000, "For how long, at most, the reapers of a machine wait for each other."),
)
_REAPER: Final = _object(
    "The parking of idle sessions.",
    enabled=_switch("Whether idle sessions are looked for, where instar-sessions reaper set nothing else."),
    dryRun=_switch("Whether what would be parked is only told, where instar-sessions reaper set nothing else."),
    tickIntervalSec=_number(0.1, 86_400, "How often the server looks."),
    minAgeMinutes=_number(0, 100_000, "How old a session is at least."),
    confirmObservations=_whole(2, 1000, "How often in a row a session was seen idle, at least."),
    confirmWindowMinutes=_number(0, 100_000, "Over how long that was seen, at least."),
    recentUserWindowMinutes=_number(0, 100_000, "For how long a prompt keeps its session."),
    staleBuildMinutes=_number(0, 100_000, "For how long an unfinished build that nobody moves keeps its session."),
    idleThresholdModerateMinutes=_number(0, 100_000, "Under moderate pressure: parked after so long idle."),
    idleThresholdCriticalMinutes=_number(0, 100_000, "Under critical pressure: parked after so long idle."),
    normalTierReaps=_switch("Whether without pressure what holds for moderate pressure does."),
    maxReapsPerTick=_whole(0, 1000, "How many are parked at one look."),
    maxReapsPerHour=_whole(0, 1000, "How many are parked in an hour, by this project and by the whole machine."),
    cooldownSec=_number(0, 86_400, "How long the machine has to show what the last one parked freed."),
    finalGraceSec=_number(0, 3600, "How long before its end a session is looked at once more."),
    paneCaptureLines=_whole(200, 10_000, "How many lines above the screen are read."),
    attachedKeeps={
        "enum": ["session", "window"],
        "description": "Whether a person who looks at a tmux session keeps all in it, or what they see of it.",
    },
    reapUnmanaged=_switch("Whether sessions that no named agent owns may be parked."),
    helpers=_texts("Programs that live as long as their client and do no work, as patterns of their names."),
    cpuActiveMinRatePerSec=_number(0, 100, "From how many seconds of processor time a second a process works."),
    maxProbeSec=_number(0.1, 60, "How long tmux may take to answer."),
    maxTickSec=_number(1, 3600, "How long a look may take before it says so."),
    pressure=_PRESSURE,
)
_LIFECYCLE: Final = _object(
    "How peers are woken, watched over and parked.",
    enabled=_switch("Whether the server watches over the peers."),
    superviseIntervalSec=_number(0.1, 86_400, "How often it looks."),
    idleMinutes=_number(0, 100_000, "A peer that was idle for so long is parked; 0: never."),
    bootDeadlineSec=_number(0.1, 3600, "How long a client may take to show where one types."),
    readyGateSec=_number(0.1, 3600, "How long a client may take from then on to begin its first turn."),
    topiclessWake={
        "enum": ["resume", "fresh"],
        "description": "What a message without a topic does to a parked peer that no person talks to.",
    },
    resumeMaxIdleMinutes=_number(0, 10_000_000, "What was idle for longer is woken fresh, not resumed; 0: no limit."),
    resumeMaxTokens=_whole(0, 1_000_000_000, "A context of more tokens is woken fresh, not resumed; 0: no limit."),
    maxWakesPerHour=_whole(1, 100_000, "How often a peer is woken in an hour."),
    maxSendsPerHour=_whole(1, 100_000, "How many messages a peer gets in an hour."),
    crashLoopMax=_whole(1, 16, "After how many crashes in the window a peer is left asleep."),
    crashLoopWindowSec=_number(1, 86_400, "For how many seconds a crash counts."),
    logMaxBytes=_whole(4096, 100 * 2**20, "How long lifecycle.log grows before a new one is begun."),
    logKeep=_whole(1, 100, "How many earlier ones are kept."),
)

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **_object(
        "The configuration of a project.",
        projectName={"type": "string", "minLength": 1, "description": "How the project is called in what people read."},
        port=_whole(0, 65535, "The port of the server; any free one where it is 0 or not set."),
        authToken={"description": "A text is the token of a server that has no file for one; it is only read."},
        _instar_noMigrate={
            "type": "array", "items": {"type": "string"}, "description": "Dotted paths that instar-migrate never adds.",
        },
        sessions=_SESSIONS,
        monitoring=_object("What watches over the project.", sessionReaper=_REAPER),
        lifecycle=_LIFECYCLE,
        unjustifiedStopGate=_GATE,
    ),
}  # fmt: skip


def load(root: Path) -> dict[str, Any]:
    """Return the configuration of a project; ``{}`` without one. Raise InstarError for a file that is none."""
    try:
        config = json.loads((root / PATH).read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise InstarError(f"cannot read {root / PATH}: {error}") from error
    if not isinstance(config, dict):
        raise InstarError(f"{root / PATH} holds no JSON object")
    return config


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number in JSON")


def problems(config: object) -> list[str]:
    """Return a sentence for each value that breaks a rule: its key, the value, and the rule."""
    return [f'key "{_dotted(error.absolute_path)}": {error.message}' for error in _errors(config)]


def effective(config: dict[str, Any]) -> dict[str, Any]:
    """Return what holds: the configuration without what breaks a rule, and the defaults where it is silent."""
    sound = copy.deepcopy(config)
    for error in _errors(config):
        _drop(sound, [step for step in error.absolute_path if isinstance(step, str)])
    return over(DEFAULTS, sound)


def _errors(config: object) -> list[ValidationError]:
    if config == {}:  # as in most projects: it breaks no rule, and a quarter of a start is what checks others
        return []
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - only who checks a configuration waits for it

    return sorted(Draft202012Validator(SCHEMA).iter_errors(config), key=lambda error: error.json_path)


def _drop(config: dict[str, Any], path: list[str]) -> None:
    for key in path[:-1]:
        config = config.get(key, {})
    if path:
        config.pop(path[-1], None)


def over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return one object over another, as a copy: objects in both are merged, any other value above wins."""
    merged = copy.deepcopy(below)
    for key, value in above.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = over(merged[key], value) if both else copy.deepcopy(value)
    return merged


def _dotted(path: Iterable[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
