"""The reaper of a project: under pressure it ends sessions that are idle for certain, and never one that may work.

One process at a time ticks. Which one makes no difference: all it knows is on disk, and time is counted by the clock
that all processes share.
"""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal

from filelock import FileLock, Timeout

from instar.errors import InstarError
from instar.files import private_folder, set_aside
from instar.sessions.policy import policy as policy_of
from instar.sessions.reaper import report as reports
from instar.sessions.reaper import state as states
from instar.sessions.reaper.audit import Audit, name_of
from instar.sessions.reaper.budget import Budget, Limits
from instar.sessions.reaper.candidacy import Moment, grace_left_s, step
from instar.sessions.reaper.scene import Scene
from instar.sessions.reaper.snapshot import Around, row, snapshot
from instar.sessions.reaper.state import Watched, load, save
from instar.sessions.reaper.switch import Switch
from instar.sessions.reaper.tick import Tick

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from instar.sessions.policy import Policy
    from instar.sessions.reaper.seen import Deps, Seen
    from instar.sessions.reaper.state import State
    from instar.sessions.reaper.switch import Switched

LOCK: Final = ".instar/state/session-reaper.lock"
FRESH_AT_MOST: Final = 50
LEAST_WAIT_S: Final = 0.05
FAILED_WAIT_S: Final = 60.0

# "done"; nothing was done for it is "off"; another process is at it: "standby"; this one is: "busy"; "failed".
Outcome = Literal["done", "off", "standby", "busy", "failed"]

_log: Final = logging.getLogger(__name__)


class SessionReaper:
    """The reaper of the project at `root`, by these edges. All of it may be called from any thread."""

    def __init__(self, root: Path, *, deps: Deps) -> None:
        self._root = root
        self._deps = deps
        self._audit = Audit(root, deps.clock.wall)
        self._switch = Switch(root)
        self._ticking = threading.Lock()
        self._last: Outcome | None = None
        self._disabled = ""  # where that could not be written
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tick(self) -> Outcome:
        """Look at all sessions once, and end those whose time has come. Nothing is raised."""
        if not self._ticking.acquire(blocking=False):
            return "busy"
        try:
            self._last = self._tick()
        except Exception:  # noqa: BLE001 - whatever it is, the next tick may do better
            if self._last != "failed":
                _log.exception("a tick of the session reaper failed")
            self._last = "failed"
        finally:
            self._ticking.release()
        return self._last

    def evaluate(self, session_id: str) -> dict[str, Any]:
        """Return what a look at a session comes to now, and change nothing. Raise InstarError for one not on record."""
        policy, now = self._policy()[0], Moment.of(self._deps.clock)
        rows = self._fresh(self._state(now)[0], [session_id], policy, now)
        if not rows:
            raise InstarError(f"no session is recorded as {session_id!r}")
        return rows[0]

    def snapshot(self, *, fresh: bool = False) -> dict[str, Any]:
        """Return what the last tick found, with its age; `fresh` looks again, at the first few, and changes nothing."""
        now = Moment.of(self._deps.clock)
        state, why = self._state(now)
        troubles = [f"{states.PATH} cannot be used: {why}"] if why else []
        try:
            policy, switched = self._policy()
        except InstarError as error:
            policy, switched = replace(policy_of({}), mode="off"), self._switch.read()
            troubles.append(str(error))
        budget = self._budget().look(Limits(policy.reaps_per_hour, policy.cooldown_s), now)
        told = snapshot(state, Around(policy, switched, budget, now, standby=self._last == "standby"))
        told["troubles"] += troubles
        if fresh:
            rows = self._fresh(state, [each["sessionId"] for each in told["sessions"][:FRESH_AT_MOST]], policy, now)
            told["sessions"] = rows + told["sessions"][FRESH_AT_MOST:]
        return told

    def audit(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Return the newest rows of what was done and decided, oldest first."""
        return self._audit.recent(limit)

    def report(self) -> dict[str, Any]:
        """Return how well the reaper judges, by what is on record: see `report.report`."""
        state = self._state(Moment.of(self._deps.clock))[0]
        return reports.report(state.sums.days, state.ends, self._audit.events())

    def next_due(self) -> float:
        """Return the seconds until the next thing to do: a tick, the end of a grace, or of the machine's cooldown."""
        now = Moment.of(self._deps.clock)
        try:
            policy = self._policy()[0]
        except InstarError:
            return FAILED_WAIT_S
        state = self._state(now)[0]
        passed = now.since(state.at) if state.at else None
        if policy.mode == "off" or self._last == "standby" or passed is None:
            return policy.tick_s if self._last else 0.0
        waits = [max(0.0, policy.tick_s - passed)]
        blocked = self._budget().look(Limits(policy.reaps_per_hour, policy.cooldown_s), now).wait_s or 0.0
        lefts = [grace_left_s(each.candidacy, now, policy) for each in state.watched.values()]
        if not state.troubles:  # else the same would fail again at once
            waits += [max(left, blocked) for left in lefts if left is not None]
        return min(waits)

    def start(self) -> None:
        """Have a thread tick, until `stop`."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="session-reaper", daemon=True)
            self._thread.start()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """End the thread after what it is at; say whether it has ended within so many seconds."""
        self._stopping.set()
        thread = self._thread
        if thread is None:
            return True
        thread.join(timeout_s)
        if not thread.is_alive():
            self._thread = None
        return self._thread is None

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            is_done = self.tick() != "failed"
            try:
                wait = max(LEAST_WAIT_S, self.next_due()) if is_done else FAILED_WAIT_S
            except Exception:  # noqa: BLE001 - as above
                wait = FAILED_WAIT_S

    def _tick(self) -> Outcome:
        policy, switched = self._policy()
        if policy.mode == "off":
            return "off"
        with self._alone() as is_alone:
            if not is_alone:
                return "standby"
            if self._disabled and not switched.is_auto_disabled:
                self._switch.auto_disable(self._disabled, now=self._deps.clock.wall())
                self._disabled = ""
            state = self._begin(policy)
            tick = Tick(self._scene(state, policy))
            try:
                tick.run()
            finally:
                if tick.disabled and not self._switch.read().is_auto_disabled:
                    self._disabled = tick.disabled
                save(self._root, state)
        return "done"

    def _begin(self, policy: Policy) -> State:
        """Return what is known; what cannot be used is put aside first."""
        now = Moment.of(self._deps.clock)
        state, why = self._state(now)
        if why:
            set_aside(self._root / states.PATH, int(now.wall))
            self._audit.event("state-discarded", why=why, settlingS=policy.min_age_s)
        return state

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Keep every other process from ticking; yield whether that is so. Who dies lets go."""
        path = self._root / LOCK
        private_folder(path.parent)
        lock = FileLock(path, timeout=0, mode=0o600)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _policy(self) -> tuple[Policy, Switched]:
        """Return what holds, and the switch that made it so. Raise InstarError where the configuration is none."""
        switched = self._switch.read()
        policy = switched.over(self._deps.policy())
        if self._disabled and policy.mode == "live":
            policy = replace(policy, mode="dry-run")
        return policy, switched

    def _state(self, now: Moment) -> tuple[State, str]:
        return load(self._root, self._deps.host, now)

    def _budget(self) -> Budget:
        return Budget(self._deps.shared, sleep=self._deps.sleep, chance=self._deps.chance)

    def _scene(self, state: State, policy: Policy) -> Scene:
        return Scene(self._root, self._deps, state, self._audit, self._switch, policy)

    def _fresh(self, state: State, session_ids: list[str], policy: Policy, now: Moment) -> list[dict[str, Any]]:
        """Return the rows of those that are on record, as they are seen now."""
        scene = self._scene(state, policy)
        by_id = {each.id: each for each in self._deps.sessions(self._root)}
        wanted = [by_id[each] for each in session_ids if each in by_id]
        found = scene.look(wanted, now.monotonic + policy.tick_limit_s)
        return [self._row(scene, found[each.id], now) for each in wanted]

    def _row(self, scene: Scene, seen: Seen, now: Moment) -> dict[str, Any]:
        known = scene.watched(seen.session)
        before = known.candidacy if known else None
        after = step(before, seen.verdict, is_still=seen.is_still, now=now, policy=scene.policy)
        watched = Watched(name_of(seen.session), None, after, {}, seen.verdict.as_json(), memory=seen.memory)
        return row(seen.session.id, watched, now, scene.policy)
