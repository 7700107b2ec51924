"""The commands of a build. Each gets the build and its options and returns its answer, or raises `Refusal`."""

from __future__ import annotations

import os

from hooks.common.clock import now_iso
from hooks.common.phases import NEXT, PHASES, TERMINAL, legal_targets
from hooks.common.project import build_command
from hooks.common.trouble import Trouble
from hooks.common.values import expect, text_of, whole_number
from playbook_scripts.answers import Refusal
from playbook_scripts.builds import LOCK_SECONDS, check_running, existing, running
from playbook_scripts.heartbeat import beat
from playbook_scripts.history import archive, free_name, utc_stamp
from playbook_scripts.owner import is_alive, owner_stamp, warnings_of
from playbook_scripts.steps import is_failing, latest, steps_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from hooks.common.statefile import Build
    from playbook_scripts.answers import Answer

    State = dict[str, Any]

SIZES = {
    "SMALL": {"reinforcements": 3, "label": "light"},
    "STANDARD": {"reinforcements": 5, "label": "medium"},
    "LARGE": {"reinforcements": 10, "label": "heavy"},
}
COMPLETE_FROM = ("executing", "verifying", "hardening")


def init(build: Build, options: argparse.Namespace) -> Answer:
    """Start a build that the calling session owns."""
    task = options.task.strip()
    if not task:
        raise Refusal("usage", "the task is blank", 'name it: build-state init "what is to be built"')
    stamp = owner_stamp(options)
    with build.lock(LOCK_SECONDS):
        before, left = clear_the_way(build)
        build.save(new_state(task, options.size, options.total_steps, stamp))
        build.audit(
            "build.initialized",
            task=task,
            size=options.size,
            ownerTmux=stamp["tmux"],
            ownerSession=stamp["session"],
        )
    protection = SIZES[options.size]
    return {
        "status": "initialized",
        "task": task,
        "size": options.size,
        "protection": protection["label"],
        "reinforcements": protection["reinforcements"],
        "owner": {key: stamp[key] for key in ("session", "tmux")},
        "command": build_command(build.root),
        "next": NEXT["idle"],
        **before,
        **left,
        **warnings_of(build.root, stamp),
    }


def new_state(task: str, size: str, total_steps: int, stamp: dict[str, Any]) -> State:
    """Return the state of a build that begins now."""
    return {
        "task": task,
        "phase": "idle",
        "size": size,
        "protection": SIZES[size],
        "startedAt": now_iso(),
        "completedAt": None,
        "owner": stamp,
        "currentStep": 0,
        "totalSteps": total_steps,
        "steps": [],
        "totalTests": 0,
        "allPassing": True,
        "fixIterations": 0,
        "maxFixIterations": 3,
        "verifyIterations": 0,
        "maxVerifyIterations": 3,
        "reinforcementsUsed": 0,
        "worktree": None,
    }


def clear_the_way(build: Build) -> tuple[Answer, Answer]:
    """Keep what is left of the build before this one: archive a finished one, set a corrupt file aside.

    Raise `Refusal` when it is not finished.
    """
    try:
        state = build.load()
    except Trouble as trouble:
        if not os.path.lexists(build.state_path):
            raise
        aside = free_name(f"{build.state_path}.corrupt-{utc_stamp()}", "")
        os.rename(build.state_path, aside)
        build.audit("state.corrupt", path=os.path.relpath(aside, build.root), error=str(trouble))
        return {"recovered": os.path.relpath(aside, build.root)}, {}
    if state is None:
        return {}, {}
    phase = state.get("phase")
    if phase not in TERMINAL:
        raise Refusal(
            "active_build",
            f"a build is active in {build.root}: {state.get('task')} (phase {phase}); a checkout has one at a time",
            "finish it with `complete`, end it with `cancel`, or start yours in another clone",
            phase=phase,
            task=state.get("task"),
        )
    answer = {} if "archivedTo" in state else {"archivedPrevious": archive(build, state)}
    worktree = state.get("worktree")
    if isinstance(worktree, dict):
        return answer, {"orphanWorktree": {key: worktree.get(key) for key in ("path", "branch")}}
    return answer, {}


def transition(build: Build, options: argparse.Namespace) -> Answer:
    """Move the build to another phase."""
    target = options.phase
    if target not in PHASES:
        raise Refusal("invalid_phase", f"{target} is no phase", f"one of: {', '.join(PHASES)}", valid=list(PHASES))
    with build.lock(LOCK_SECONDS):
        state = running(build)
        current = text_of(state, "phase")
        if target not in legal_targets(current):
            legal = legal_targets(current)
            raise Refusal(
                "illegal_transition",
                f"a build cannot go from {current} to {target}",
                f"from {current} it can go to: {', '.join(legal)}",
                legal_targets=legal,
            )
        if target == "complete":
            check_tests(state)
        if target == "fixing":
            enter_fixing(build, state, options.evidence)
        if (current, target) == ("fixing", "verifying"):
            state["verifyIterations"] = whole_number(state, "verifyIterations", 0) + 1
        move(build, state, target, options.evidence)
    beat(build, state)
    return {
        "status": "transitioned",
        "from": current,
        "to": target,
        **({"archivedTo": state["archivedTo"]} if target in TERMINAL else {"next": NEXT[target]}),
    }


def enter_fixing(build: Build, state: State, evidence: str | None) -> None:
    """Count the fix cycle. Raise `Refusal`, with the build escalated, when there were too many."""
    state["fixIterations"] = whole_number(state, "fixIterations", 0) + 1
    limit = whole_number(state, "maxFixIterations", 3)
    if state["fixIterations"] <= limit:
        return
    move(build, state, "escalated", evidence, "max_fix_iterations")
    raise Refusal(
        "fix_limit",
        f"{limit} fix cycles did not mend the build: it is escalated now",
        "tell the person what keeps failing; a new build starts with init",
        action="escalated",
    )


def move(build: Build, state: State, target: str, evidence: str | None, reason: str | None = None) -> None:
    """Write the new phase, and with a terminal one the end of the build. Only under the lock."""
    before, state["phase"] = state.get("phase"), target
    if target in TERMINAL:
        state["completedAt"] = now_iso()
        state["archivedTo"] = archive(build, state)
    build.save(state)
    build.audit("phase.transition", **{"from": before, "to": target, "evidence": evidence or None})
    if target == "escalated":
        build.audit("build.escalated", reason=reason or evidence, iterations=state.get("fixIterations"))
    if target == "complete":
        build.audit("build.complete", **summary(state), fixIterations=state.get("fixIterations"))


def step_complete(build: Build, options: argparse.Namespace) -> Answer:
    """Record a finished step with its tests."""
    if min(options.number, options.tests, options.passing) < 0 or options.passing > options.tests:
        raise Refusal("usage", "numbers are 0 or more, and no more tests pass than there are")
    with build.lock(LOCK_SECONDS):
        state = running(build)
        phase = text_of(state, "phase")
        if phase != "executing":
            legal = legal_targets(phase)
            raise Refusal(
                "wrong_phase",
                f"steps are recorded in phase executing, and the build is in {phase}",
                f"from {phase} it can go to: {', '.join(legal)}",
                phase=phase,
            )
        steps = expect(state, "steps", list, [])
        is_repeat = any(isinstance(step, dict) and step.get("step") == options.number for step in steps)
        record = {
            "step": options.number,
            "description": options.description,
            "tests": options.tests,
            "passing": options.passing,
            "timestamp": now_iso(),
        }
        state["steps"] = [*steps, record]
        state["currentStep"] = options.number
        state["totalTests"] = sum(whole_number(step, "tests", 0) for step in state["steps"] if isinstance(step, dict))
        state["allPassing"] = not any(is_failing(step) for step in latest(state["steps"]))
        build.save(state)
        counted = {"tests": options.tests, "passing": options.passing, "totalTests": state["totalTests"]}
        build.audit("step.completed", step=options.number, description=options.description, **counted)
    return {
        "status": "step_completed",
        "step": options.number,
        **counted,
        "allPassing": state["allPassing"],
        **({"repeat": True} if is_repeat else {}),
    }


def complete(build: Build, options: argparse.Namespace) -> Answer:
    """Finish the build."""
    with build.lock(LOCK_SECONDS):
        state = existing(build)
        phase = text_of(state, "phase")
        is_repeat = phase == "complete" and "archivedTo" in state
        if phase != "complete":
            check_running(state)
            check_tests(state)
            if phase not in COMPLETE_FROM and not options.force:
                raise Refusal(
                    "illegal_transition",
                    f"a build cannot be completed from {phase}",
                    f"it can from {', '.join(COMPLETE_FROM)}; --force completes it all the same",
                    legal_targets=legal_targets(phase),
                )
        if not is_repeat:
            move(build, state, "complete", "--force" if options.force else None)
    if not is_repeat:
        beat(build, state)
    return {"status": "complete", **summary(state), "archivedTo": state["archivedTo"]}


def cancel(build: Build, options: argparse.Namespace) -> Answer:
    """End the build unfinished."""
    with build.lock(LOCK_SECONDS):
        state = running(build)
        state["cancelled"] = options.why
        move(build, state, "failed", options.why)
        build.audit("build.cancelled", task=state.get("task"), reason=options.why)
    return {
        "status": "cancelled",
        "task": state.get("task"),
        "reason": options.why,
        "archivedTo": state["archivedTo"],
    }


def ask(build: Build, options: argparse.Namespace) -> Answer:
    """Let the owner stop until its question is answered: until the next prompt or build command."""
    question = options.question.strip()
    if not question:
        raise Refusal("usage", "the question is blank", 'ask it: build-state ask "which of the two is meant?"')
    with build.lock(LOCK_SECONDS):
        state = running(build)
        state["asked"] = {"question": question, "at": now_iso()}
        build.save(state)
        build.audit("build.asked", question=question)
    return {"status": "asked", "question": question, "next": "End the turn with the question to the person."}


def adopt(build: Build, options: argparse.Namespace) -> Answer:
    """Make the calling session the owner."""
    stamp = owner_stamp(options)
    if not (stamp["session"] or stamp["tmux"]):
        hint = "run it in the agent's own shell, or name the session with --owner-session"
        raise Refusal("no_owner", "who adopts the build is not certain", hint)
    with build.lock(LOCK_SECONDS):
        state = running(build)
        before = expect(state, "owner", dict, {})
        if is_alive(before, stamp) and not options.force:
            hint = "let it go on, or take the build from it with --force"
            raise Refusal("owner_alive", "the session that owns the build is alive", hint, owner=before)
        state["owner"] = stamp
        build.save(state)
        old, new = ({key: each.get(key, "") for key in ("tmux", "session")} for each in (before, stamp))
        build.audit("owner.adopted", old=old, new=new, forced=options.force)
    return {"status": "adopted", "task": state.get("task"), "owner": new, **warnings_of(build.root, stamp)}


def check_tests(state: State) -> None:
    """Raise `Refusal` when a step is recorded with failing tests."""
    failing = [step.get("step") for step in latest(steps_of(state)) if is_failing(step)]
    if failing or state.get("allPassing") is False:
        listed = ", ".join(map(str, failing)) or "?"
        hint = "mend them and record the step again with step-complete"
        raise Refusal("tests_failing", f"tests fail in step {listed}", hint, failing=failing)


def summary(state: State) -> Answer:
    """Return what the end of a build is told with."""
    return {
        "task": state.get("task"),
        "totalTests": state.get("totalTests"),
        "stepsCompleted": len(latest(steps_of(state))),
    }
