"""The phases of a build: their order, the ways between them, and what each asks for next."""

from __future__ import annotations

PHASES = (
    "idle",
    "clarify",
    "planning",
    "executing",
    "verifying",
    "fixing",
    "hardening",
    "complete",
    "failed",
    "escalated",
)

TERMINAL = ("complete", "failed", "escalated")

# `failed` and `escalated` can be reached from every phase that is not terminal.
TRANSITIONS = {
    "idle": ("clarify", "planning", "executing"),
    "clarify": ("planning",),
    "planning": ("executing",),
    "executing": ("verifying", "complete"),
    "verifying": ("complete", "fixing", "hardening"),
    "fixing": ("verifying",),
    "hardening": ("complete",),
}

NEXT = {
    "idle": "Begin: settle what is unclear about the task, or write the plan.",
    "clarify": "Settle the open questions about the task, then write the plan.",
    "planning": "Finish the plan with its test strategy, then carry it out.",
    "executing": "Finish the current step: its code, its tests, the whole suite; then record it.",
    "verifying": "Check the work independently of how it was written, and use it for real.",
    "fixing": "Mend what the checks found, then verify again.",
    "hardening": "Finish the hardening list: errors surface, logs tell, health can be seen.",
}


def legal_targets(phase: str) -> list[str]:
    """Return the phases that may follow `phase`, in canonical order; none after a terminal one."""
    if phase in TERMINAL:
        return []
    return [each for each in PHASES if each in TRANSITIONS.get(phase, ()) or each in ("failed", "escalated")]
