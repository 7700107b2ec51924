"""Whether what an authority answered is a verdict: checked against the rules and the evidence, believed in nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from instar.gate.redaction import redacted
from instar.gate.repository import SHA
from instar.gate.rules import RULES, Pointer
from instar.gate.verdict import Unusable, Verdict

if TYPE_CHECKING:
    from instar.gate.evidence import Evidence
    from instar.gate.verdict import FailureKind

ANSWER_CHARACTERS: Final = 64 * 1024
RATIONALE_CHARACTERS: Final = 300

_FENCE: Final = re.compile(r"```[A-Za-z]{0,10}[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


def validated(answer: str, evidence: Evidence) -> Verdict:
    """Return the verdict of an answer. Raise Unusable, of the kind of the first thing that is wrong with it.

    One code fence around it is taken off, and the envelope that `claude --output-format json` puts it in.
    """
    found = _object(_unfenced(_opened(answer)))
    decision, rule = found.get("decision"), found.get("rule")
    if not isinstance(decision, str) or decision not in ("continue", "allow", "escalate"):
        raise _unusable("malformed", "it names no decision")
    if not isinstance(rule, str) or rule not in RULES:
        raise _unusable("invalidRule", "it names none of the rules")
    if RULES[rule].decision != decision:
        raise _unusable("malformed", f"{rule} does not decide {decision}")
    pointer = _pointer(found.get("evidence_pointer"), rule, evidence) if decision == "continue" else Pointer()
    return Verdict(RULES[rule].decision, rule, pointer, _rationale(found.get("rationale")))


def _opened(answer: str) -> str:
    """Return what is in the envelope of a client, or the answer where it is in none."""
    text = _bounded(answer)
    if '"result"' not in text or '"type"' not in text:
        return text
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(envelope, dict) or envelope.get("type") != "result":
        return text
    inner = envelope.get("result")
    if envelope.get("is_error") or not isinstance(inner, str):
        raise _unusable("llmUnavailable", "the client reports an error instead of an answer")
    return _bounded(inner)


def _bounded(text: str) -> str:
    if len(text) > ANSWER_CHARACTERS:
        raise _unusable("malformed", "it is too long")
    return text.strip()


def _unfenced(text: str) -> str:
    fenced = _FENCE.fullmatch(text)
    return fenced[1] if fenced else text


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unusable("malformed", "it is not one bare JSON object") from error
    if not isinstance(found, dict):
        raise _unusable("malformed", "it is JSON, but no object")
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _pointer(found: object, rule: str, evidence: Evidence) -> Pointer:
    """Return what a continue points to: a plan that was found, and commits that belong to that very plan."""
    given = found if isinstance(found, dict) else {}
    plan, of_plan, of_session = (
        value if isinstance(value := given.get(key), str) else ""
        for key in ("plan_file", "plan_commit_sha", "incremental_commit_sha")
    )
    if not plan:
        raise _unusable("missingPointer", "it points to no plan")
    artifact = evidence.artifact(plan)
    if artifact is None:
        raise _unusable("invalidEvidence", "the plan that it points to was not found")
    needs = RULES[rule].needs
    if ("plan_commit_sha" in needs and not of_plan) or ("incremental_commit_sha" in needs and not of_session):
        raise _unusable("missingPointer", "it points to no commit")
    later = {artifact.latest, *(commit.sha for commit in evidence.session_commits)}
    if of_plan and not (SHA.fullmatch(of_plan) and of_plan == artifact.introducing):
        raise _unusable("invalidEvidence", "the commit of the plan is not the one that was found")
    if of_session and not (SHA.fullmatch(of_session) and of_session in later):
        raise _unusable("invalidEvidence", "the commit of the session is none that was found")
    return Pointer(plan, of_plan, of_session)


def _rationale(found: object) -> str:
    """Return the reasons for the log: without secrets, on one line, and in characters that can be written."""
    text = redacted(found) if isinstance(found, str) else ""
    return "".join(each if each.isprintable() else " " for each in text)[:RATIONALE_CHARACTERS]


def _unusable(kind: FailureKind, text: str) -> Unusable:
    return Unusable(kind, f"the answer is of no use: {text}")
