"""The stop gate of one project: what its server's routes ask of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from instar.config import PATH, effective
from instar.gate.authority import authority as chosen_authority
from instar.gate.breaker import Breaker
from instar.gate.budget import budget_ms as budget_of
from instar.gate.degradations import Degradations
from instar.gate.evaluate import Evaluator
from instar.gate.limits import Limits
from instar.gate.mode import DATABASE, FOLDER, MODES, Switch
from instar.gate.question import BadQuestionError, question_of
from instar.gate.report import as_json, report, thresholds
from instar.gate.settings import FEATURE
from instar.gate.store import Store, StoreError
from instar.tracked import is_tracked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from instar.gate.authority import Authority

Answer = tuple[int, dict[str, Any]]

ROUTE_VERSION: Final = 1
DAY_MS: Final = 86_400_000
VERDICTS: Final = ("correct", "incorrect", "unclear")


class Gate:
    """The gate with its files open. Methods answer with an HTTP status and a JSON object, and may block.

    `config` is the project's configuration as it stands in its file; `clock` tells seconds since 1970.
    """

    def __init__(
        self, root: Path, config: dict[str, Any], *, authority: Authority | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        whole = effective(config)
        self.config = whole
        self.settings: dict[str, Any] = whole[FEATURE]
        self.clock = clock
        self.degradations = Degradations(root, clock)
        self.switch = Switch(root, whole, self.degradations.report, clock)
        self.store = Store.open(root / FOLDER / DATABASE, clock=clock)
        judge = authority or chosen_authority(whole, is_ours=not is_tracked(root, PATH))
        self.budget_ms = budget_of(whole)
        self.breaker = Breaker(self.settings["breaker"]["threshold"], self.settings["breaker"]["cooldownMs"] / 1000)
        rates, at_once = self.settings["rateLimits"], self.settings["concurrency"]
        self.evaluator = Evaluator(
            root=root,
            settings=self.settings,
            switch=self.switch,
            store=self.store,
            authority=judge,
            breaker=self.breaker,
            limits=Limits(rates["perSessionHour"], rates["perAgentDay"], at_once["machine"], at_once["session"]),
            degradations=self.degradations,
            agent=whole.get("projectName", "unknown"),
            clock=clock,
        )
        self._pruned_at = 0.0
        self._is_open = False
        self._tell_troubles()

    def open(self) -> None:
        """Have routers ask from now on: who answers them can be found."""
        self._is_open = True
        self._keep_gate_on()

    def retire(self) -> None:
        """Have no router ask any more; those that did are still answered."""
        self._is_open = False
        self.switch.withdraw()

    def _keep_gate_on(self) -> None:
        if self._is_open:
            self.switch.keep_gate_on(self.evaluator.mode())

    def evaluate(self, body: dict[str, Any], budget_ms: int | None = None) -> Answer:
        """Judge a stop; `budget_ms` is how long the asker waits, if it says so."""
        try:
            question = question_of(body)
        except BadQuestionError as error:
            return 400, {"error": str(error)}
        reply = self.evaluator.evaluate(question, min(budget_ms or self.budget_ms, self.budget_ms))
        if reply.get("failOpen") == "shed":
            return 503, {"error": "queue_shed_overload"}
        return 200, reply

    def hot_path(self, session: str) -> dict[str, Any]:
        """Return what a router may want to know of a session before it asks; from memory and small files alone."""
        record = self.evaluator.record(session)
        began = self.evaluator.session_start(record)
        return {
            "mode": self.evaluator.mode(),
            "killSwitch": bool(self.switch.kill().get("value")),
            "autonomousActive": False,
            "compactionInFlight": self.evaluator.is_compacting(record),
            "sessionStartTs": int(began * 1000) if began is not None else None,
            "sessionStartSource": "none" if began is None else "server",
            "routeVersion": ROUTE_VERSION,
            "breaker": self.breaker.state(),
            "evaluateBudgetMs": self.budget_ms,
            "capabilities": ["serverEvidence", "budgetHeader"],
        }

    def kill_switch(self) -> dict[str, Any]:
        """Return whether the gate is switched off at once, whatever its mode."""
        known = self.switch.kill()
        return {"killSwitch": bool(known.get("value")), "expiresAt": known.get("expiresAt")}

    def set_kill_switch(self, body: dict[str, Any]) -> Answer:
        """Set or clear the kill switch."""
        value, expires = body.get("value"), body.get("expiresInMs")
        if not isinstance(value, bool):
            return 400, {"error": "value must be boolean"}
        if expires is not None and (not isinstance(expires, int) or isinstance(expires, bool)):
            return 400, {"error": "expiresInMs must be a whole number of milliseconds"}
        prior = bool(self.switch.kill().get("value"))
        try:
            persisted = self.switch.set_kill(value, expires, _text(body, "operator"), _text(body, "reason"))
        except ValueError as error:
            return 400, {"error": str(error)}
        self._changed("kill-switch", str(prior).lower(), str(value).lower(), body)
        told = {"prior": prior, "changed": prior != value, "persisted": persisted}
        return 200, {**self.kill_switch(), **told}

    def set_mode(self, body: dict[str, Any]) -> Answer:
        """Set the mode. Whether enforce is wise was asked by who calls: the route takes what it is told, and audits."""
        mode = body.get("mode")
        if mode not in MODES:
            return 400, {"error": "mode must be off | shadow | enforce"}
        prior = self.switch.mode()
        persisted = self.switch.set_mode(mode)
        self._changed("mode", prior, mode, body)
        return 200, {"mode": mode, "prior": prior, "changed": prior != mode, "persisted": persisted}

    def _changed(self, kind: str, prior: str, new: str, body: dict[str, Any]) -> None:
        """Have the router see a change at once, and write down who made it."""
        self._keep_gate_on()
        try:
            self.store.audit(kind, prior, new, _text(body, "operator"), _text(body, "reason"))
        except StoreError as error:
            self.degradations.report(f"{FEATURE}.db", str(error))

    def log(self, query: dict[str, str]) -> Answer:
        """Return the newest evaluations."""
        tail = min(max(_leading_number(query.get("tail", "")) or 100, 1), 1000)
        since = query.get("since")
        if since is not None and not since.isdecimal():
            return 400, {"error": "since must be milliseconds since 1970"}
        wanted = {name: query.get(name) for name in ("mode", "outcome", "session", "rule")}
        try:
            return 200, {"events": self.store.events(tail, since=int(since) if since else None, **wanted)}
        except StoreError as error:
            return _unusable(error)

    def annotate(self, body: dict[str, Any]) -> Answer:
        """Keep what a person thinks of an evaluation."""
        event_id, operator, verdict = (_text(body, name) for name in ("eventId", "operator", "verdict"))
        if not (event_id and operator and verdict):
            return 400, {"error": "eventId, operator, verdict required"}
        rationale, dwell = _text(body, "rationale"), body.get("dwellMs")
        if verdict not in VERDICTS:
            return 400, {"error": "verdict must be correct|incorrect|unclear"}
        if verdict == "incorrect" and not rationale:
            return 400, {"error": "incorrect needs a rationale"}
        try:
            counted = self.store.annotate(
                event_id, operator, verdict, rationale, dwell if isinstance(dwell, int) else 0
            )
        except LookupError:
            return 404, {"error": "unknown eventId"}
        except StoreError as error:
            return _unusable(error)
        return 200, {"ok": True, "counted": counted}

    def annotations(self, event_id: str) -> dict[str, Any]:
        """Return what people think of an evaluation."""
        try:
            return {"annotations": self.store.annotations(event_id)}
        except StoreError:
            return {"annotations": []}

    def reset_breaker(self) -> Answer:
        """Let the authority be asked again."""
        self.breaker.reset()
        self._changed("breaker", "", "reset", {})
        return 200, {"reset": True, "breaker": self.breaker.state()}

    def report(self, query: dict[str, str]) -> Answer:
        """Return the figures, and what enforce still asks for."""
        now = int(self.clock() * 1000)
        since = query.get("since", "")
        try:
            told = report(self.store, int(since) if since.isdecimal() else now - 7 * DAY_MS, now)
            asked = thresholds(self.store, now, self.config, self.store.audits())
        except StoreError as error:
            return _unusable(error)
        return 200, {**told, "thresholds": as_json(asked)}

    def health(self) -> dict[str, Any]:
        """Return how the gate is: counts alone, for anyone may ask."""
        recent = self.degradations.recent()
        return {
            "status": "degraded" if recent else "ok",
            "degradations": len(recent),
            "gateRouteVersion": ROUTE_VERSION,
            "gateRouteMinimumVersion": ROUTE_VERSION,
            "mode": self.evaluator.mode(),
        }

    def hook_event(self, body: dict[str, Any]) -> Answer:
        """Take note of an event of a client; the sessions' own records say more, also while no server runs."""
        name = next(
            (body[key] for key in ("event", "hook_event", "hook_event_name") if isinstance(body.get(key), str)), ""
        )
        if not name:
            return 400, {"error": "Missing event field in payload"}
        session = _text(body, "session_id") or _text(body, "sessionId")
        if name == "SessionStart" and session:
            try:
                self.store.session_started(session, int(self.clock() * 1000))
            except StoreError as error:
                self.degradations.report(f"{FEATURE}.db", str(error))
        return 200, {"ok": True, "event": name}

    def tick(self) -> None:
        """Keep what the router reads true, tell troubles, and forget what is old: to be called every second or so."""
        self._keep_gate_on()
        self._tell_troubles()
        now = self.clock()
        if abs(now - self._pruned_at) > DAY_MS / 1000:
            self._pruned_at = now
            try:
                self.store.prune(int(now * 1000) - self.settings["retentionDays"] * DAY_MS)
            except StoreError as error:
                self.degradations.report(f"{FEATURE}.db", str(error))

    def close(self) -> None:
        """Have no router ask any more, and let go of the files."""
        self.retire()
        self.store.close()
        self.degradations.flush()

    def _tell_troubles(self) -> None:
        while self.store.troubles:
            self.degradations.report(f"{FEATURE}.db", self.store.troubles.pop(0))


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    return value if isinstance(value, str) else ""


def _leading_number(text: str) -> int:
    digits = len(text) - len(text.lstrip("0123456789"))
    return int(text[:digits][:6]) if digits else 0


def _unusable(error: StoreError) -> Answer:
    return 503, {"error": f"the gate's database cannot be used: {error}"}
