"""An answer is a verdict only when it is one bare object, by a rule, about what was found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.gate.answer import ANSWER_CHARACTERS, validated
from instar.gate.evidence import Artifact
from instar.gate.rules import RULES, Pointer
from instar.gate.verdict import Unusable, Verdict

from .repositories import PLAN, PROGRESS, PROVEN, A, B, C, evidence_of

OTHER = Artifact("docs/plans/other.md", C, C)
UNTRACKED = Artifact("PLAN.md", tracked=False)
EVIDENCE = evidence_of(PROVEN, OTHER, UNTRACKED, commits=(PROGRESS,))
U1, U2, U3 = (rule.id for rule in RULES.values() if rule.decision == "continue")
POINTER = {"plan_file": PLAN, "plan_commit_sha": A, "incremental_commit_sha": B}


def answer(decision: Any = "continue", rule: Any = U1, pointer: Any = POINTER, **more: Any) -> str:
    return json.dumps({"decision": decision, "rule": rule, "evidence_pointer": pointer, **more})


def kind(text: str) -> str:
    with pytest.raises(Unusable) as caught:
        validated(text, EVIDENCE)
    return caught.value.kind


def changed(**pointer: Any) -> str:
    return answer(pointer={**POINTER, **pointer})


def test_a_verdict_that_fits_the_evidence_is_valid() -> None:
    assert validated(answer(rationale="so"), EVIDENCE) == Verdict("continue", U1, Pointer(PLAN, A, B), "so")
    assert validated(answer(rule=U2, pointer={"plan_file": "PLAN.md"}), EVIDENCE).pointer == Pointer("PLAN.md")
    assert validated(answer("allow", "U_LEGIT_ERROR", pointer=None), EVIDENCE) == Verdict("allow", "U_LEGIT_ERROR")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: f" \n{text}\n",
        lambda text: f"```json\n{text}\n```",
        lambda text: f"```\n{text}```",
        lambda text: json.dumps({"type": "result", "is_error": False, "result": text}),
        lambda text: json.dumps({"type": "result", "result": f"```json\n{text}\n```\n"}),
    ],
)
def test_one_fence_and_the_envelope_of_a_client_are_taken_off(wrap: Any) -> None:
    assert validated(wrap(answer()), EVIDENCE).rule == U1


@pytest.mark.parametrize(
    "text",
    ["", "no", "[]", "null", "3", "[1]", '"x"', f"Sure! {answer()}", f"{answer()} I hope this helps.", answer() * 2,
     f"```json\n{answer()}\n```\nand", "{" * 50_000, "[" * 50_000, "9" * 60_000, '{"decision": NaN}',
     '{"decision":"allow","decision":"continue","rule":"U_LEGIT_ERROR"}',
     answer(decision="block"), answer(decision=None), answer(decision=["continue"]), answer("force_allow"),
     answer("allow"), answer("continue", "U_LEGIT_ERROR"), answer("escalate", U2), " " * (ANSWER_CHARACTERS + 1),
     json.dumps({"type": "result", "result": "x" * 10})],
)  # fmt: skip
def test_anything_else_is_malformed(text: str) -> None:
    assert kind(text) == "malformed"


@pytest.mark.parametrize("rule", ["U9", "", None, 1, [U1], {"id": U1}, U1.lower(), f"{U1} "])
def test_a_rule_that_there_is_not_is_an_invalid_rule(rule: Any) -> None:
    assert kind(answer(rule=rule)) == "invalidRule"


@pytest.mark.parametrize(
    "text",
    [answer(pointer=None), answer(pointer=PLAN), answer(pointer=[]), changed(plan_file=""), changed(plan_file=3),
     changed(plan_commit_sha=""), changed(plan_commit_sha=None), changed(incremental_commit_sha=[B])],
)  # fmt: skip
def test_a_continue_without_its_pointers_misses_them(text: str) -> None:
    assert kind(text) == "missingPointer"


@pytest.mark.parametrize(
    "text",
    [changed(plan_file="docs/plans/invented.md"), changed(plan_file=f"./{PLAN}"), changed(plan_file=f"{PLAN} "),
     changed(plan_commit_sha=A[:12]), changed(plan_commit_sha=A.upper()), changed(plan_commit_sha=B),
     changed(plan_commit_sha="HEAD"), changed(plan_commit_sha=C), changed(plan_file="docs/plans/other.md"),
     changed(incremental_commit_sha=A), changed(incremental_commit_sha="d" * 40), changed(incremental_commit_sha=C),
     answer(rule=U2, pointer={"plan_file": "PLAN.md", "plan_commit_sha": A}),
     answer(rule=U3, pointer={**POINTER, "plan_file": "PLAN.md"})],
)  # fmt: skip
def test_pointers_that_are_invented_or_mixed_up_are_invalid_evidence(text: str) -> None:
    assert kind(text) == "invalidEvidence"


def test_the_first_thing_wrong_is_told() -> None:
    assert kind(answer(decision="x", rule="y", pointer=None)) == "malformed"
    assert kind(answer(decision="allow", rule="y")) == "invalidRule"
    assert kind(changed(plan_file="invented", plan_commit_sha="")) == "invalidEvidence"


def test_an_error_of_the_client_is_no_answer() -> None:
    envelope = {"type": "result", "is_error": True, "result": answer()}
    assert kind(json.dumps(envelope)) == "llmUnavailable"
    assert kind(json.dumps({"type": "result", "subtype": "error_max_turns"})) == "llmUnavailable"
    assert kind(json.dumps({"type": "result", "result": None})) == "llmUnavailable"


def test_the_reasons_are_one_short_line_without_secrets_that_can_be_written() -> None:
    reasons = "a\nb\x1b\ud800 password=hunter2 " + "x" * 500
    said = validated(answer("allow", "U_LEGIT_ERROR", rationale=reasons), EVIDENCE).rationale

    assert said.startswith("a b   password=[redacted:value] x")
    assert len(said) == 300
    said.encode()
    assert validated(answer("allow", "U_LEGIT_ERROR", rationale=[1]), EVIDENCE).rationale == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SHAPED = st.fixed_dictionaries(
    {
        "decision": st.sampled_from(["continue", "allow", "escalate"]) | JSON,
        "rule": st.sampled_from(sorted(RULES)) | JSON,
        "evidence_pointer": JSON
        | st.fixed_dictionaries(
            {}, optional={key: st.sampled_from([PLAN, "PLAN.md", A, B, C, ""]) | JSON for key in POINTER}
        ),
        "rationale": JSON,
    }
)


@given(text=st.text() | JSON.map(json.dumps) | SHAPED.map(json.dumps))
def test_whatever_was_answered_it_is_valid_or_of_no_use(text: str) -> None:
    for told in (text, f"```json\n{text}\n```", json.dumps({"type": "result", "result": text})):
        try:
            verdict = validated(told, EVIDENCE)
        except Unusable:
            continue
        assert RULES[verdict.rule].decision == verdict.decision
        if verdict.decision == "continue":
            found = EVIDENCE.artifact(verdict.pointer.plan_file)
            assert found
            assert verdict.pointer.plan_commit_sha in ("", found.introducing)
            assert verdict.pointer.incremental_commit_sha in ("", found.latest, B)
        else:
            assert verdict.pointer == Pointer()
