"""The rules that a verdict names: data, with the reminder that a continued session reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Decision = Literal["continue", "allow", "escalate"]


@dataclass(frozen=True)
class Rule:
    """One rule: what it decides, which parts of the evidence a verdict by it points to, and what it means."""

    id: str
    decision: Decision
    needs: tuple[str, ...]
    meaning: str


_FILE: Final = ("plan_file",)
_ALL: Final = ("plan_file", "plan_commit_sha", "incremental_commit_sha")

RULES: Final[dict[str, Rule]] = {
    rule.id: rule
    for rule in (
        Rule(
            "U1_DURABLE_ARTIFACT_CONTINUATION_SAFE", "continue", _ALL,
            "the plan is older than the session, and a commit of the session shows progress on it",
        ),
        Rule(
            "U2_PLAN_FILE_NEXT_STEP_EXPLICIT", "continue", _FILE,
            "the plan spells out the next step, and nothing in it is for the operator to decide",
        ),
        Rule(
            "U3_RECENT_COMMIT_PROVES_INCREMENTAL", "continue", _ALL,
            "commits of the session go through a plan step by step, and some of it is left",
        ),
        Rule("U_LEGIT_DESIGN_QUESTION", "allow", (), "a decision is needed that only the operator can make"),
        Rule("U_LEGIT_MISSING_INFO", "allow", (), "a credential, a link or a choice from outside is missing"),
        Rule("U_LEGIT_ERROR", "allow", (), "an error blocks the work that the agent cannot clear"),
        Rule("U_LEGIT_COMPLETION", "allow", (), "all of the work that was asked for is done"),
        Rule("U_META_SELF_REFERENCE", "allow", (), "the work is on the gate itself"),
        Rule("U_AMBIGUOUS_INSUFFICIENT_SIGNAL", "escalate", (), "it is not clear; the operator should look"),
    )
}  # fmt: skip

SHORT: Final = 12  # characters of a commit's name that a reminder shows
_ACCEPTED: Final = (
    "If something really keeps you from going on - a decision only the operator can make, missing input, an error - or "
    "the work is finished, say so plainly and end the turn: that will be accepted."
)


@dataclass(frozen=True)
class Pointer:
    """What a verdict points to: a plan of the evidence, and commits."""

    plan_file: str = ""
    plan_commit_sha: str = ""
    incremental_commit_sha: str = ""


def reminder(rule: str, pointer: Pointer) -> str:
    """Return what a session that shall go on is told: from the rule and the verified pointer alone.

    Empty for a rule that does not continue. Under 600 characters for a path of 200.
    """
    if rule not in RULES or RULES[rule].decision != "continue":
        return ""
    plan, commit = f"`{pointer.plan_file}`", pointer.incremental_commit_sha[:SHORT]
    why = {
        "U1": f"{plan} is older than this session, and commit {commit} shows progress: nothing is lost by going on.",
        "U2": f"{plan} names the next step.",
        "U3": f"commit {commit} is one step of {plan}, and some of it is left.",
    }[rule[:2]]
    return f"Go on with the plan: {why} Read it again if you need to, and do its next open step. {_ACCEPTED}"
