"""The way of one stop through the gate: reasons not to look, the evidence, the judge, the proof, the row.

Only a verdict that the verifier confirms, in enforce, below the ceiling and written down, holds a session. Everything
else lets it go, and says why in the reply and in a row or a counter.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from instar.gate.evidence import collect
from instar.gate.exemption import is_own_work
from instar.gate.limits import Limited
from instar.gate.plans import GLOBS
from instar.gate.question import Question, checkout_of
from instar.gate.redaction import redacted
from instar.gate.repository import EvidenceError
from instar.gate.rules import Pointer, reminder
from instar.gate.settings import FEATURE
from instar.gate.store import CEILING, Event, StoreError
from instar.gate.verdict import Unusable
from instar.gate.verifier import SECONDS as VERIFY_S
from instar.gate.verifier import refutation
from instar.sessions import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from instar.gate.authority import Authority
    from instar.gate.breaker import Breaker
    from instar.gate.degradations import Degradations
    from instar.gate.evidence import Evidence
    from instar.gate.limits import Limits
    from instar.gate.mode import Mode, Switch
    from instar.gate.store import Store

COMPACTION_S: Final = 300
QUIET_S: Final = 600
FUTURE_S: Final = 300  # by which a session may have begun after now, by another clock
PREVIEW_CHARACTERS: Final = 200
RATIONALE_CHARACTERS: Final = 300


@dataclass(frozen=True)
class Outcome:
    """What came of a stop; `fail_open` and `short_circuit` say why there is no verdict."""

    decision: str = "allow"
    rule: str | None = None
    pointer: Pointer = field(default_factory=Pointer)
    rationale: str = ""
    short_circuit: str = ""
    fail_open: str = ""
    detail: str = ""
    latency_ms: int = 0
    plans: Mapping[str, int] = field(default_factory=dict)  # how many were found of which kind
    is_row: bool = True  # else it is only counted

    @classmethod
    def passed(cls, why: str, *, is_row: bool = False, **more: Any) -> Outcome:  # noqa: ANN401 - fields of its own
        """Return the outcome of a stop that is not judged."""
        return cls(short_circuit=why, is_row=is_row, **more)


@dataclass(frozen=True)
class Evaluator:
    """Everything that a stop is judged with; `clock` tells seconds since 1970."""

    root: Path
    settings: dict[str, Any]
    switch: Switch
    store: Store
    authority: Authority
    breaker: Breaker
    limits: Limits
    degradations: Degradations
    agent: str = "unknown"
    clock: Callable[[], float] = time.time

    def evaluate(self, question: Question, budget_ms: int) -> dict[str, Any]:
        """Return the reply to a question."""
        mode = self.mode()
        outcome = self._not_to_be_judged(question, mode)
        if outcome is None:
            try:
                with self.limits.slot(question.session):
                    outcome = self._judged(question, budget_ms)
            except Limited as limited:
                outcome = Outcome(fail_open=limited.kind)
        return self._settled(question, mode, outcome)

    def mode(self) -> Mode:
        """Return the mode that stops are judged in: rules alone enforce nothing until they are told to."""
        mode = self.switch.effective()
        may_hold = not self.authority.is_offline or self.settings["authority"]["rulesMayEnforce"]
        return "shadow" if mode == "enforce" and not may_hold else mode

    def _not_to_be_judged(self, question: Question, mode: Mode) -> Outcome | None:
        """Return why a stop is let go at once; None when it has to be looked at."""
        if mode == "off":
            return Outcome.passed("kill-switch" if self.switch.kill().get("value") else "mode-off")
        if self.is_compacting(self.record(question.session)):
            return Outcome.passed("compaction")
        if not question.signals:
            return Outcome.passed("no-signal")
        return self._at_ceiling(question.session) if mode == "enforce" else None

    def _at_ceiling(self, session: str) -> Outcome | None:
        """Return the end of the patience with a session; whoever passes here at the same time meets it at the row."""
        try:
            is_over = self.store.continues(session) >= self.settings["continueCeiling"]
        except StoreError as error:
            return Outcome(fail_open="dbUnavailable", detail=str(error))
        return Outcome.passed(CEILING, decision="force_allow", is_row=True) if is_over else None

    def record(self, session: str) -> dict[str, Any]:
        """Return what is written of a session; {} for nothing."""
        return registry.record(self.root, session)

    def is_compacting(self, session: dict[str, Any]) -> bool:
        """Say whether the context of a session is being compacted just now: to hold it then would overflow it."""
        if registry.text(session, "lastEvent", "name") != "PreCompact":
            return False
        began = _seconds(registry.text(session, "lastEvent", "at"))
        return began is not None and abs(self.clock() - began) < COMPACTION_S

    def session_start(self, session: dict[str, Any]) -> float | None:
        """Return when a session began, as its record says; None where that is not known."""
        began = _seconds(registry.text(session, "startedAt"))
        return began if began is not None and began < self.clock() + FUTURE_S else None

    def _judged(self, question: Question, budget_ms: int) -> Outcome:
        began = self.session_start(self.record(question.session))
        if began is None and self.settings["requireSessionStart"]:
            return Outcome.passed("no-session-start")
        checkout = checkout_of(self.root, question.cwd)
        globs = (*GLOBS, *self.settings.get("planGlobs", ()))
        try:
            evidence = collect(checkout, began, globs, question.stop_reason)
        except EvidenceError as error:
            return Outcome(fail_open="evidenceUnavailable", detail=str(error))
        return replace(self._weighed(question, evidence, budget_ms), plans=evidence.counts)

    def _weighed(self, question: Question, evidence: Evidence, budget_ms: int) -> Outcome:
        if is_own_work(evidence):
            return Outcome.passed("self-reference", is_row=True, rule="U_META_SELF_REFERENCE")
        if not evidence.older:
            return Outcome.passed("no-pre-session-artifact")
        if question.is_quiet_only and not self._has_just_committed(evidence):
            return Outcome.passed("no-signal")
        return self._verdict(question, evidence, budget_ms)

    def _has_just_committed(self, evidence: Evidence) -> bool:
        newest = evidence.session_commits[:1]
        return any(0 <= self.clock() - commit.time <= QUIET_S for commit in newest)

    def _verdict(self, question: Question, evidence: Evidence, budget_ms: int) -> Outcome:
        """Ask the authority, and have a continue proven."""
        if not self.breaker.admit():
            return Outcome(fail_open="breakerOpen")
        began = time.monotonic()
        try:
            seconds = max(0.1, budget_ms / 1000 - VERIFY_S)
            verdict = self.authority.judge(evidence, question.stop_reason, question.signals, seconds)
        except Unusable as unusable:
            self.breaker.settle(is_usable=False)
            return Outcome(fail_open=unusable.kind, detail=str(unusable), latency_ms=_since(began))
        except BaseException:
            self.breaker.settle(is_usable=False)
            raise
        self.breaker.settle(is_usable=True)
        outcome = Outcome(verdict.decision, verdict.rule, verdict.pointer, verdict.rationale, latency_ms=_since(began))
        problem = refutation(verdict, evidence)
        if problem:
            failed = replace(outcome, decision="allow", rule=None, fail_open="invalidEvidence", detail=problem)
            return replace(failed, pointer=Pointer())
        return outcome

    def _settled(self, question: Question, mode: Mode, outcome: Outcome) -> dict[str, Any]:
        """Write down what came of a stop, and return the reply; what cannot be written down in enforce holds nobody."""
        event_id = str(uuid.uuid4())
        if outcome.fail_open:
            self.degradations.report(f"{FEATURE}.{outcome.fail_open}", outcome.detail or outcome.fail_open)
        try:
            if not self._is_recorded(event_id, question, mode, outcome):
                outcome = Outcome.passed(CEILING, decision="force_allow", latency_ms=outcome.latency_ms)
        except StoreError as error:
            self.degradations.report(f"{FEATURE}.db", str(error))
            if mode == "enforce":
                outcome = Outcome(fail_open="dbUnavailable", detail=str(error), latency_ms=outcome.latency_ms)
        return _reply(event_id, mode, outcome)

    def _is_recorded(self, event_id: str, question: Question, mode: Mode, outcome: Outcome) -> bool:
        """Write the row or count the stop; False when the ceiling was reached meanwhile."""
        if not outcome.is_row:
            self.store.count(outcome.short_circuit)
            return True
        event = _event(event_id, question, mode, outcome, self)
        return self.store.record(event, self.settings["continueCeiling"] if mode == "enforce" else None)


def _reply(event_id: str, mode: Mode, outcome: Outcome) -> dict[str, Any]:
    """Return what the router is told; no text of the authority or the session is in it."""
    reply: dict[str, Any] = {
        "eventId": event_id,
        "decision": outcome.decision,
        "rule": outcome.rule,
        "reminder": reminder(outcome.rule, outcome.pointer) if outcome.decision == "continue" and outcome.rule else "",
        "mode": mode,
        "latencyMs": outcome.latency_ms,
    }
    told = {"failOpen": outcome.fail_open, "shortCircuit": outcome.short_circuit}
    if outcome.fail_open == "invalidEvidence":
        told["postVerifyFailure"] = outcome.detail
    return {**reply, **{key: value for key, value in told.items() if value}}


def _event(event_id: str, question: Question, mode: Mode, outcome: Outcome, evaluator: Evaluator) -> Event:
    """Return the row of an outcome: no text in it that could hold a secret."""
    pointer = {key: value for key, value in asdict(outcome.pointer).items() if value}
    return Event(
        event_id=event_id,
        session_id=question.session,
        ts=int(evaluator.clock() * 1000),
        mode=mode,
        decision=None if outcome.fail_open else outcome.decision,
        rule=outcome.rule,
        invalid_kind=outcome.fail_open or None,
        evidence_pointer_json=json.dumps(pointer) if pointer else None,
        latency_ms=outcome.latency_ms,
        reason_preview=question.stop_reason[:PREVIEW_CHARACTERS],
        agent_id=evaluator.agent,
        signals_json=json.dumps(question.signals),
        artifacts_summary_json=json.dumps(outcome.plans) if outcome.plans else None,
        rationale=redacted(outcome.rationale or outcome.detail)[:RATIONALE_CHARACTERS] or None,
        short_circuit=outcome.short_circuit or None,
        provider=evaluator.authority.name,
    )


def _seconds(moment: str) -> float | None:
    """Return an ISO 8601 time as seconds since 1970; None for what is none, or tells no zone."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return then.timestamp() if then.tzinfo else None


def _since(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
