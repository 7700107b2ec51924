"""The commands that only look: where the build stands, what happened, what was built before."""

from __future__ import annotations

import json
import os

from hooks.common.phases import NEXT, TERMINAL
from hooks.common.values import text_of
from playbook_scripts.answers import Refusal
from playbook_scripts.history import audit_entries, minutes_between
from playbook_scripts.steps import latest, steps_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from hooks.common.statefile import Build
    from playbook_scripts.answers import Answer

    State = dict[str, Any]


def status(build: Build, _: argparse.Namespace) -> Answer:
    """Return where the build stands."""
    state = build.load()
    if state is None:
        return {"status": "no_active_build"}
    asked = state.get("asked")
    fixes = ("fixIterations", "maxFixIterations", "verifyIterations")
    return {
        **{key: state.get(key) for key in ("task", "phase", "size")},
        **holds(state),
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in ("currentStep", "totalSteps", "totalTests", "allPassing", *fixes)},
        "elapsedMinutes": minutes_between(state.get("startedAt"), state.get("completedAt")),
        "owner": state.get("owner"),
        **({"worktree": state["worktree"]} if state.get("worktree") else {}),
        **({"asked": asked.get("question")} if isinstance(asked, dict) else {}),
        "next": NEXT.get(text_of(state, "phase"), ""),
        "steps": brief(state),
    }


def holds(state: State) -> Answer:
    """Return the budget of a build and what is used of it."""
    protection = state.get("protection")
    known = protection if isinstance(protection, dict) else {}
    return {
        "protection": known.get("label", "unknown"),
        "reinforcements": known.get("reinforcements"),
        "reinforcementsUsed": state.get("reinforcementsUsed"),
    }


def brief(state: State) -> list[Answer]:
    """Return the last record of each step, without its time."""
    keys = ("step", "description", "tests", "passing")
    return [{key: step.get(key) for key in keys} for step in latest(steps_of(state))]


def resume(build: Build, _: argparse.Namespace) -> Answer:
    """Return whether there is a build to go on with, and where."""
    state = build.load()
    if state is None:
        return {"canResume": False, "reason": "there is no build"}
    if state.get("phase") in TERMINAL:
        return {"canResume": False, "reason": f"the build is {state['phase']}"}
    return {
        "canResume": True,
        **{key: state.get(key) for key in ("task", "phase", "size", "currentStep")},
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in ("totalTests", "allPassing")},
        "planExists": os.path.exists(os.path.join(build.folder, "plan.md")),
        **({"worktree": state["worktree"]} if state.get("worktree") else {}),
        "next": NEXT.get(text_of(state, "phase"), ""),
    }


def report(build: Build, _: argparse.Namespace) -> Answer:
    """Return the whole build in short, with what happened in it."""
    state = build.load()
    if state is None:
        return {"status": "no_active_build"}
    since = text_of(state, "startedAt")
    happened = [text_of(entry, "event") for entry in audit_entries(build) if text_of(entry, "timestamp") >= since]
    shown = ("totalTests", "allPassing", "fixIterations", "maxFixIterations", "worktree", "archivedTo")
    return {
        **{key: state.get(key) for key in ("task", "phase", "size")},
        **holds(state),
        "elapsedMinutes": minutes_between(state.get("startedAt"), state.get("completedAt")),
        "totalSteps": state.get("totalSteps"),
        "stepsCompleted": len(latest(steps_of(state))),
        **{key: state.get(key) for key in shown},
        "steps": brief(state),
        "events": {name: happened.count(name) for name in sorted(set(happened) - {""})},
    }


def query(build: Build, options: argparse.Namespace) -> Answer:
    """Return the last entries of the audit log."""
    if options.limit < 0:
        raise Refusal("usage", f"--limit is {options.limit}, expected 0 or more")
    entries = [
        entry
        for entry in audit_entries(build)
        if options.event in (None, entry.get("event"))
        and (options.phase is None or options.phase in (entry.get("from"), entry.get("to")))
    ]
    entries = entries[len(entries) - min(options.limit, len(entries)) :]
    return {"count": len(entries), "entries": entries}


def history(build: Build, _: argparse.Namespace) -> Answer:
    """Return the finished builds, oldest first; an archive that cannot be read is passed over."""
    folder = os.path.join(build.folder, "history")
    builds = []
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                state = json.load(file)
            kept = {key: state.get(key) for key in ("task", "phase", "startedAt", "completedAt")}
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        builds.append({"file": os.path.relpath(os.path.join(folder, name), build.root), **kept})
    builds.sort(key=lambda each: str(each["startedAt"]))
    return {"count": len(builds), "builds": builds}
