"""What a build is, in as few words as will do: written from the specification, to be compared with the program.

Every method answers with the code that the program has to answer with; "" is success. Where two refusals apply, either
will do, and both are named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

LIMITS = {"SMALL": 3, "STANDARD": 5, "LARGE": 10}
OVER = ("complete", "failed", "escalated")
PHASES = ("idle", "clarify", "planning", "executing", "verifying", "fixing", "hardening", *OVER)
WAYS = {
    "idle": {"clarify", "planning", "executing"},
    "clarify": {"planning"},
    "planning": {"executing"},
    "executing": {"verifying", "complete"},
    "verifying": {"complete", "fixing", "hardening"},
    "fixing": {"verifying"},
    "hardening": {"complete"},
}
FIXES = 3
COMPLETED_FROM = ("executing", "verifying", "hardening")
Codes = set[str]
DONE: Codes = {""}


@dataclass
class Build:
    """One build."""

    task: str
    size: str
    tmux: str
    session: str
    phase: str = "idle"
    steps: list[tuple[int, int, int]] = field(default_factory=list)  # number, tests, passing
    fixes: int = 0
    verifications: int = 0
    used: int = 0
    question: str = ""
    question_at: str = ""  # the prompt whose stop came first after the question
    waited: set[str] = field(default_factory=set)  # the work in the background that was waited for

    @property
    def is_over(self) -> bool:
        return self.phase in OVER

    @property
    def failing(self) -> list[int]:
        """The steps whose last record has failing tests."""
        last = {number: (tests, passing) for number, tests, passing in self.steps}
        return [number for number, (tests, passing) in last.items() if tests != passing]


@dataclass
class Checkout:
    """A checkout, which has one build at a time, and all that ever happened in it."""

    build: Build | None = None
    events: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)  # the tasks of the builds that are over

    def refusal(self) -> Codes:
        """Return why nothing can be done to the build; nothing where it can."""
        if self.build is None:
            return {"no_build"}
        return {"build_terminal"} if self.build.is_over else set()

    def init(self, task: str, size: str, tmux: str, session: str) -> Codes:
        if self.build and not self.build.is_over:
            return {"active_build"}
        self.build = Build(task, size, tmux, session)
        self.events.append("build.initialized")
        return DONE

    def enter(self, phase: str) -> None:
        """Move to a phase, with all that its end brings where it is one."""
        assert self.build
        self.build.phase, self.build.question = phase, ""
        self.events.append("phase.transition")
        if phase == "escalated":
            self.events.append("build.escalated")
        if phase == "complete":
            self.events.append("build.complete")
        if phase in OVER:
            self.ended.append(self.build.task)

    def transition(self, phase: str) -> Codes:
        if phase not in PHASES:
            return {"invalid_phase"}
        refused = self.refusal()
        build = self.build
        if refused or not build:
            return refused
        if phase not in WAYS[build.phase] | {"failed", "escalated"}:
            return {"illegal_transition"}
        if phase == "complete" and build.failing:
            return {"tests_failing"}
        if phase == "fixing":
            build.fixes += 1
        if (build.phase, phase) == ("fixing", "verifying"):
            build.verifications += 1
        is_too_much = phase == "fixing" and build.fixes > FIXES
        self.enter("escalated" if is_too_much else phase)
        return {"fix_limit"} if is_too_much else DONE

    def step(self, number: int, tests: int, passing: int) -> Codes:
        if min(number, tests, passing) < 0 or passing > tests:
            return {"usage"}
        refused = self.refusal()
        if refused or not self.build:
            return refused
        if self.build.phase != "executing":
            return {"wrong_phase"}
        self.build.steps.append((number, tests, passing))
        self.build.question = ""
        self.events.append("step.completed")
        return DONE

    def complete(self, *, force: bool) -> Codes:
        build = self.build
        if build and build.phase == "complete":
            return DONE  # said again, and nothing happens
        refused = self.refusal()
        if refused or not build:
            return refused
        refused |= {"tests_failing"} if build.failing else set()
        refused |= {"illegal_transition"} if build.phase not in COMPLETED_FROM and not force else set()
        if not refused:
            self.enter("complete")
        return refused or DONE

    def cancel(self) -> Codes:
        refused = self.refusal()
        if not refused:
            self.enter("failed")
            self.events.append("build.cancelled")
        return refused or DONE

    def ask(self, question: str) -> Codes:
        if not question.strip():
            return {"usage"}
        refused = self.refusal()
        if refused or not self.build:
            return refused
        self.build.question, self.build.question_at = question.strip(), ""
        self.events.append("build.asked")
        return DONE

    def adopt(self, session: str) -> Codes:
        if not session:
            return {"no_owner"}
        refused = self.refusal()
        if refused or not self.build:
            return refused
        self.build.tmux, self.build.session, self.build.question = "", session, ""
        self.events.append("owner.adopted")
        return DONE

    def stop(self, tmux: str, session: str, prompt: str, waits: list[str]) -> bool:
        """Say whether the session is held."""
        build = self.build
        if not build or build.is_over or build.used >= LIMITS[build.size]:
            return False
        in_pane = bool(tmux) and tmux == build.tmux
        if not in_pane and not (session and session == build.session):
            return False
        if build.question and prompt in ("", build.question_at):
            return False
        is_first_stop = bool(build.question) and not build.question_at
        is_wait = bool(set(waits) - build.waited)
        if is_first_stop:
            build.question_at = prompt
        elif is_wait:
            build.waited |= set(waits)
        else:
            build.used += 1
        build.question = build.question if is_first_stop else ""
        if session and session != build.session:
            build.session = session
            self.events.append("owner.reconciled")
        if is_first_stop or is_wait:
            return False
        self.events += ["stop.blocked"] + ["stop.exhausted"] * (build.used == LIMITS[build.size])
        return True

    def shown(self) -> dict[str, Any]:
        """Return what the state file has to say of the build."""
        build = self.build
        if build is None:
            return {}
        return {
            "task": build.task,
            "phase": build.phase,
            "size": build.size,
            "reinforcements": LIMITS[build.size],
            "owner": (build.tmux, build.session),
            "steps": build.steps,
            "currentStep": build.steps[-1][0] if build.steps else 0,
            "totalTests": sum(tests for _, tests, _ in build.steps),
            "allPassing": not build.failing,
            "fixIterations": build.fixes,
            "verifyIterations": build.verifications,
            "reinforcementsUsed": build.used,
            "question": build.question,
            "is_over": build.is_over,
        }
