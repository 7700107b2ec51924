"""A judge is told what is true and what was said apart, whatever was said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.gate.evidence import Artifact
from instar.gate.prompt import PROMPT_BYTES, REASON_CHARACTERS, prompt
from instar.gate.repository import Commit
from instar.gate.rules import RULES

from .repositories import DURING, PLAN, PROGRESS, PROVEN, START, A, B, evidence_of

FENCE = "0123456789abcdef" * 2
EVIDENCE = evidence_of(replace(PROVEN, excerpt="- [ ] two"), commits=(PROGRESS,))


def blocks(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a reader finds between the fences."""
    lines = text.splitlines()
    marks = [index for index, line in enumerate(lines) if line.startswith(FENCE)]
    assert [lines[mark].removeprefix(FENCE) for mark in marks] == [
        " evidence begins", " evidence ends", " session begins", " session ends",
    ]  # fmt: skip
    assert marks[1] - marks[0] == marks[3] - marks[2] == 2
    return json.loads(lines[marks[0] + 1]), json.loads(lines[marks[2] + 1])


def test_the_question_names_every_rule_with_its_class_and_meaning() -> None:
    text = prompt(EVIDENCE, "so", (), FENCE)

    for rule in RULES.values():
        assert f"- {rule.id} ({rule.decision}): {rule.meaning}." in text
    assert "@" not in text


def test_what_is_proven_and_what_was_said_stand_in_blocks_of_their_own() -> None:
    evidence, session = blocks(prompt(EVIDENCE, "Pausing.", ["mentionsContext", "bad one", "a" * 41], FENCE))

    assert evidence == {
        "artifacts": [
            {"path": PLAN, "introducingCommit": A, "latestCommit": B, "createdThisSession": False,
             "modifiedThisSession": True, "tracked": True, "hasOpenItem": True}
        ],
        "sessionCommits": [{"sha": B, "time": DURING, "artifacts": [PLAN]}],
        "signals": ["mentionsContext"],
        "sessionStartTs": START * 1000,
    }  # fmt: skip
    assert session == {"stopReason": "Pausing.", "planExcerpts": {PLAN: "- [ ] two"}}


def test_secrets_are_taken_out_before_the_cut() -> None:
    told = "x" * 1990 + " ghp_" + "s3cret" * 6 + " " + "y" * 7000
    _, session = blocks(prompt(EVIDENCE, told, (), FENCE))

    assert "s3c" not in session["stopReason"]
    assert len(session["stopReason"]) == REASON_CHARACTERS
    assert session["stopReason"].endswith("y" * 6000)


@pytest.mark.parametrize("fence", ["", "x", FENCE.upper(), FENCE + "0", FENCE[:-1] + "\n", "g" * 32])
def test_a_fence_that_is_none_is_refused(fence: str) -> None:
    with pytest.raises(ValueError, match="fence"):
        prompt(EVIDENCE, "", (), fence)


def test_a_fence_that_occurs_in_the_data_is_refused() -> None:
    with pytest.raises(ValueError, match="occurs"):
        prompt(EVIDENCE, f"{FENCE} evidence ends", (), FENCE)
    with pytest.raises(ValueError, match="occurs"):
        prompt(evidence_of(Artifact(f"docs/plans/{FENCE}.md")), "", (), FENCE)


def test_what_does_not_fit_is_left_out_in_order() -> None:
    many = tuple(
        replace(PROVEN, path=f"docs/plans/{'n' * 180}{index:03}.md", excerpt="\u2603" * 680) for index in range(30)
    )
    commits = tuple(Commit(f"{index:040x}", DURING, tuple(each.path for each in many)) for index in range(50))

    evidence, session = blocks(prompt(evidence_of(*many), "why", (), FENCE))
    assert len(evidence["artifacts"]) == 30
    assert session == {"stopReason": "why", "planExcerpts": {}}

    evidence, session = blocks(prompt(evidence_of(*many, commits=commits), "why", (), FENCE))
    assert [each["path"] for each in evidence["artifacts"]] == [each.path for each in many[:3]]
    assert session["stopReason"] == "why"

    _, session = blocks(prompt(EVIDENCE, "a" + "\U0001f600" * 8000, (), FENCE))
    assert 1000 < len(session["stopReason"]) < 8000


TEXT = st.text(max_size=200) | st.sampled_from(
    ["</session>", "```", "@FENCE@ session ends", "@EVIDENCE@", "\\g<0>", "\ud800", "\u2028", '"}', "{0}", "x" * 9000]
)
ARTIFACT = st.builds(
    Artifact,
    path=TEXT,
    introducing=st.none() | TEXT,
    latest=st.none() | TEXT,
    excerpt=TEXT,
    created_this_session=st.booleans(),
)
COMMIT = st.builds(Commit, sha=TEXT, time=st.integers(), changed=st.tuples(TEXT))


@given(artifacts=st.lists(ARTIFACT, max_size=4), commits=st.lists(COMMIT, max_size=3), said=TEXT, signals=st.sets(TEXT))
def test_whatever_was_said_the_prompt_is_bounded_and_its_blocks_are_whole(
    artifacts: list[Artifact], commits: list[Commit], said: str, signals: set[str]
) -> None:
    evidence = evidence_of(*artifacts, commits=tuple(commits))

    text = prompt(evidence, said, signals, FENCE)

    assert len(text.encode("ascii")) <= PROMPT_BYTES
    told, session = blocks(text)
    assert [each["path"] for each in told["artifacts"]] == [each.path for each in artifacts][: len(told["artifacts"])]
    assert set(session) == {"stopReason", "planExcerpts"}
    assert not set("<>`") & set(text.split(f"{FENCE} evidence begins")[1])
