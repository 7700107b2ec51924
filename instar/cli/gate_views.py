"""What `instar-gate` tells people of its rows: in words, one thing a line."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from instar.cli.listing import print_rows, printable
from instar.cli.moments import told
from instar.gate.rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MODES: Final = {
    "off": "no stop is looked at",
    "shadow": "stops are judged and recorded, and none is held",
    "enforce": "a stop without good reason is held",
}
FAILURES: Final = {
    "timeout": "the authority was not done in time",
    "malformed": "the authority's answer was no verdict",
    "invalidRule": "the authority named a rule that does not exist",
    "missingPointer": "the authority did not say which plan or commit it means",
    "invalidEvidence": "what the authority pointed to does not prove that going on is safe",
    "llmUnavailable": "the authority could not be asked",
    "breakerOpen": "the authority failed several times in a row, and is left alone for a while",
    "rateLimit": "the session or the project had as many evaluations as it may have",
    "shed": "too many stops were being judged at once",
    "dbUnavailable": "the database could not be used, and nobody is held off the record",
    "evidenceUnavailable": "the plans and commits of the checkout could not be read",
}
SHORT_CIRCUITS: Final = {
    "kill-switch": "the kill switch was set",
    "mode-off": "the gate was off",
    "compaction": "the session was compacting its context",
    "no-signal": "nothing in its last words spoke for a look",
    "continue-ceiling": "the session had been sent on as often as it may be",
    "no-session-start": "it is not on record when the session began",
    "no-pre-session-artifact": "no plan is older than the session",
    "self-reference": "the session works on the gate itself",
}
STYLES: Final = {
    "continue": "yellow", "allow": "green", "escalate": "cyan", "force_allow": "magenta", "met": "green",
    "not met": "red", "enforce": "yellow",
}  # fmt: skip
SECTIONS: Final = {
    "byMode": "mode", "byDecision": "decision", "byRule": "rule", "byFailure": "failure", "byProvider": "judged by",
    "rates": "rate of", "latencyMs": "latency in ms,", "annotations": "reviews,", "counters": "not judged for",
}  # fmt: skip
LOG_COLUMNS: Final = ("outcome", "time", "mode", "rule", "ms", "session", "event", "reason")
PREVIEW: Final = 120
SHORT: Final = 8


def outcome(event: Mapping[str, Any]) -> str:
    """Return what came of a stop, in a word: the decision, or the failure that let it go."""
    kind = event.get("invalid_kind")
    return f"FAIL:{kind}" if kind else str(event.get("decision") or "-")


def print_log(events: Iterable[Mapping[str, Any]]) -> None:
    """Print a line for each event."""
    rows = [
        [
            outcome(event), told(event.get("ts")), _word(event, "mode"), _word(event, "rule"),
            _word(event, "latency_ms"), _word(event, "session_id")[:SHORT], _word(event, "event_id")[:SHORT],
            (_word(event, "short_circuit") + ": " if event.get("short_circuit") else "")
            + printable(str(event.get("reason_preview") or ""))[:PREVIEW],
        ]
        for event in events
    ]  # fmt: skip
    print_rows(LOG_COLUMNS, rows, STYLES)


def print_thresholds(met: Iterable[Mapping[str, Any]]) -> None:
    """Print what enforce asks for."""
    rows = [
        ["met" if each["met"] else "not met", str(each["name"]), _number(each["have"]), str(each["need"])]
        for each in met
    ]
    print_rows(("threshold", "of", "have", "need"), rows, STYLES)


def print_status(status: Mapping[str, Any]) -> None:
    """Print how a gate stands."""
    kill, server, mode = status["killSwitch"], status["server"], status["effective"]
    rows = [["mode", f"{mode}: {MODES.get(mode, 'unknown')}"], ["because of", str(status["source"])]]
    if status["mode"] != mode and not kill["value"]:
        rows.append(["set to", f"{status['mode']}; the rules hold nobody unless authority.rulesMayEnforce is true"])
    if kill["value"]:
        rows.append(["set to", f"{status['mode']}, when the kill switch is cleared"])
        rows.append(["kill switch", _kill(kill)])
    rows.append(["authority", str(status["authority"])])
    if status.get("breaker"):
        rows.append(["breaker", _breaker(status["breaker"])])
    rows.append(["server", f"port {server['port']}" if server["running"] else "none that answers: nothing is judged"])
    rows += [["stuck", f"{each['session_id']} since {told(each['last_ceiling_hit_at'])}"] for each in status["stuck"]]
    print_rows(("gate", ""), rows)


def print_report(values: Mapping[str, Any]) -> None:
    """Print a report, and what is missing for enforce."""
    rows = [["since", told(values.get("since"))]]
    for name, value in values.items():
        if name in ("since", "until", "thresholds", "stuck"):
            continue
        if isinstance(value, dict):
            tell = _percent if name == "rates" else _number
            rows += [[f"{SECTIONS.get(name, name)} {_apart(inner)}", tell(each)] for inner, each in value.items()]
        else:
            rows.append([_apart(name), _number(value)])
    rows += [["stuck session", str(each.get("session_id"))] for each in values.get("stuck") or ()]
    print_rows(("what", "how many"), rows)
    print_thresholds(values.get("thresholds") or ())


def print_explained(event: Mapping[str, Any], words: Sequence[Mapping[str, Any]]) -> None:
    """Print everything that is known of an event."""
    rows = [
        ["event", _word(event, "event_id")],
        ["session", _word(event, "session_id")],
        ["time", told(event.get("ts"))],
        ["outcome", why(event)],
        ["mode", _word(event, "mode")],
        ["rule", _word(event, "rule")],
        ["points to", _listed(event.get("evidence_pointer_json"))],
        ["signals", _listed(event.get("signals_json"))],
        ["plans", _listed(event.get("artifacts_summary_json"))],
        ["judged by", f"{_word(event, 'provider')} in {_word(event, 'latency_ms')} ms"],
        ["its reason", _word(event, "rationale")],
        ["last words", _word(event, "reason_preview")],
    ]
    rows += [
        ["review", f"{each['verdict']} by {each['operator']} {told(each['created_at'])} {each['rationale']}"]
        for each in words
    ]
    print_rows(("what", ""), [row for row in rows if row[1] not in ("", "-")])


def why(event: Mapping[str, Any]) -> str:
    """Return in a sentence what came of a stop, and why."""
    kind, circuit, rule = event.get("invalid_kind"), event.get("short_circuit"), event.get("rule")
    if kind:
        return f"let go: {FAILURES.get(kind, kind)} ({kind})"
    if circuit:
        return f"let go: {SHORT_CIRCUITS.get(circuit, circuit)} ({circuit})"
    meaning = RULES[rule].meaning if rule in RULES else "no rule is on record"
    verb = {
        "continue": "held" if event.get("mode") == "enforce" else "would have been held",
        "escalate": "let go, for you to look at",
    }.get(str(event.get("decision")), "let go")
    return f"{verb}: {meaning}"


def _kill(kill: Mapping[str, Any]) -> str:
    until = f"until {told(kill['expiresAt'])}" if kill.get("expiresAt") else "until it is cleared"
    by = f" by {kill['operator']}" if kill.get("operator") else ""
    return f"SET {until}{by}" + (f": {kill['reason']}" if kill.get("reason") else "")


def _breaker(breaker: Mapping[str, Any]) -> str:
    state = ", ".join(f"{name} {value}" for name, value in breaker.items() if value not in (None, False))
    is_open = breaker.get("open") or breaker.get("state") in ("open", "half-open")
    return f"{'OPEN' if is_open else 'closed'}" + (
        f" ({state}); instar-gate reset-breaker closes it" if is_open else ""
    )


def _listed(text: object) -> str:
    """Return what a JSON text holds, in words; the text itself where it is none."""
    if not isinstance(text, str):
        return ""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if isinstance(values, dict):
        return ", ".join(name if value is True else f"{name} {value}" for name, value in values.items() if value)
    if isinstance(values, list):
        return ", ".join(each if isinstance(each, str) else json.dumps(each) for each in values)
    return text


def _word(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return "-" if value is None else str(value)


def _apart(name: str) -> str:
    """Return a key in words; the name of a rule stays one."""
    return re.sub("(?<=[a-z])[A-Z]", lambda found: " " + found[0].lower(), name)


def _percent(rate: object) -> str:
    return f"{rate:.1%}" if isinstance(rate, (int, float)) else "-"


def _number(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
