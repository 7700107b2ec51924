"""How a peer is woken: one row of the table after the other, and what holds for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.lifecycle.decision import ROWS, Resumable, Situation, decide
from instar.lifecycle.policy import policy

POLICY = policy({})
DEAR = replace(POLICY, resume_idle_s=3600.0, resume_tokens=1000)
TOPICLESS_FRESH = replace(POLICY, topicless="fresh")

PAST = Resumable(60.0, 500)
OLD = Resumable(3601.0, 500)
LARGE = Resumable(60.0, 1001)
UNKNOWN = Resumable()

PARKED = Situation(is_parked=True, resumable=PAST, topics=("a", "b"))
LOST = replace(PARKED, resumable=None)
HUMAN = replace(PARKED, is_human=True)
DEAD = Situation(resumable=PAST)

BOTH = {"park", "fresh-next"}
PARK = {"park"}
KEEPS: set[str] = set()

TABLE = {
    "1": (PARKED, {"want": "fresh"}, POLICY, "fresh", "folder-launch", BOTH),
    "1 before all": (PARKED, {"want": "fresh", "is_renewed": True}, POLICY, "fresh", "folder-launch", BOTH),
    "2a": (DEAD, {"want": "resume"}, POLICY, "resume", "attach", PARK),
    "2a before the soft reload": (PARKED, {"want": "resume", "is_renewed": True}, POLICY, "resume", "attach", PARK),
    "2a whatever it costs": (PARKED, {"want": "resume", "resumable": OLD}, DEAR, "resume", "attach", PARK),
    "2b": (LOST, {"want": "resume"}, POLICY, "fail", "attach-nothing-to-resume", KEEPS),
    "3": (PARKED, {"is_renewed": True}, POLICY, "fresh", "soft-reload", BOTH),
    "3 before a crash": (DEAD, {"is_renewed": True}, POLICY, "fresh", "soft-reload", BOTH),
    "reboot": (DEAD, {"end": "host-reboot"}, POLICY, "fresh", "host-reboot", KEEPS),
    "reboot, parked": (PARKED, {"end": "host-reboot", "topic": "a"}, POLICY, "resume", "idle-reaped-resume", PARK),
    "server": (DEAD, {"end": "server-dead"}, POLICY, "fresh", "server-dead", KEEPS),
    "server, parked": (HUMAN, {"end": "server-dead"}, POLICY, "resume", "idle-reaped-human", PARK),
    "5a": (Situation(), {}, POLICY, "fresh", "first-wake", KEEPS),
    "5b": (DEAD, {}, POLICY, "fresh", "crash-or-self-close", KEEPS),
    "5b, people": (DEAD, {"is_human": True}, POLICY, "fresh", "crash-or-self-close", KEEPS),
    "5b, its topic": (DEAD, {"topic": "a", "topics": ("a",)}, POLICY, "fresh", "crash-or-self-close", KEEPS),
    "6": (HUMAN, {}, POLICY, "resume", "idle-reaped-human", PARK),
    "6, a new topic": (HUMAN, {"topic": "z"}, POLICY, "resume", "idle-reaped-human", PARK),
    "6, topicless fresh": (HUMAN, {}, TOPICLESS_FRESH, "resume", "idle-reaped-human", PARK),
    "6, lost": (LOST, {"is_human": True}, POLICY, "fresh", "idle-reaped-human-no-resume", PARK),
    "7": (PARKED, {}, POLICY, "resume", "idle-reaped-resume", PARK),
    "7, lost": (LOST, {}, POLICY, "fresh", "idle-reaped-no-resume", PARK),
    "7, topicless fresh": (PARKED, {}, TOPICLESS_FRESH, "fresh", "idle-reaped-no-topic", PARK),
    "8": (PARKED, {"topic": "z"}, POLICY, "fresh", "idle-reaped-new-topic", PARK),
    "8, compared exactly": (PARKED, {"topic": "A"}, POLICY, "fresh", "idle-reaped-new-topic", PARK),
    "8, none stored": (PARKED, {"topic": "a", "topics": ()}, POLICY, "fresh", "idle-reaped-new-topic", PARK),
    "8, lost": (LOST, {"topic": "z"}, POLICY, "fresh", "idle-reaped-new-topic", PARK),
    "9": (PARKED, {"topic": "b"}, POLICY, "resume", "idle-reaped-resume", PARK),
    "9, an older topic": (PARKED, {"topic": "a"}, TOPICLESS_FRESH, "resume", "idle-reaped-resume", PARK),
    "9, lost": (LOST, {"topic": "a"}, POLICY, "fresh", "idle-reaped-no-resume", PARK),
    "cost, too old": (PARKED, {"resumable": OLD}, DEAR, "fresh", "resume-too-costly", PARK),
    "cost, too large": (PARKED, {"resumable": LARGE, "topic": "a"}, DEAR, "fresh", "resume-too-costly", PARK),
    "cost, people": (HUMAN, {"resumable": LARGE}, DEAR, "fresh", "resume-too-costly", PARK),
    "cost, after the topic": (PARKED, {"resumable": OLD, "topic": "z"}, DEAR, "fresh", "idle-reaped-new-topic", PARK),
    "cost, at the limit": (
        PARKED, {"resumable": Resumable(3600.0, 1000)}, DEAR, "resume", "idle-reaped-resume", PARK
    ),
    "cost, not known": (PARKED, {"resumable": UNKNOWN}, DEAR, "resume", "idle-reaped-resume", PARK),
    "cost, off": (PARKED, {"resumable": Resumable(1e9, 10**9)}, POLICY, "resume", "idle-reaped-resume", PARK),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_first_row_that_fits_holds(row: tuple[Situation, dict[str, Any], Any, str, str, set[str]]) -> None:
    situation, changes, rules, mode, cause, consumes = row

    decision = decide(replace(situation, **changes), rules)

    assert (decision.mode, decision.cause, decision.consumes) == (mode, cause, consumes)
    assert decision.why


def test_each_row_has_a_cause_of_its_own_and_is_come_to() -> None:
    assert len({row.cause for row in ROWS}) == len(ROWS)
    assert {row[4] for row in TABLE.values()} == {row.cause for row in ROWS}


def test_what_could_be_taken_up_is_told_where_it_is_not() -> None:
    crashed = decide(replace(DEAD, resumable=Resumable(125.0, 42)), POLICY)
    first = decide(Situation(), POLICY)

    assert crashed.mode == "fresh"
    assert crashed.resumable is not None
    assert crashed.resumable.as_json() == {"idleMinutes": 2, "tokens": 42}
    assert first.resumable is None
    assert Resumable().as_json() == {"idleMinutes": None, "tokens": None}


SITUATIONS = st.builds(
    Situation,
    want=st.sampled_from(["", "fresh", "resume"]),
    is_parked=st.booleans(),
    resumable=st.sampled_from([None, PAST, OLD, LARGE, UNKNOWN]),
    is_renewed=st.booleans(),
    end=st.sampled_from(["", "server-dead", "host-reboot"]),
    is_human=st.booleans(),
    topic=st.sampled_from(["", "a", "z"]),
    topics=st.sampled_from([(), ("a",), ("b", "a")]),
)


@given(SITUATIONS, st.sampled_from([POLICY, DEAR, TOPICLESS_FRESH]))
def test_only_what_is_there_is_taken_up_and_by_a_message_only_what_was_parked(situation: Situation, rules: Any) -> None:
    decision = decide(situation, rules)

    if decision.mode == "resume":
        assert situation.resumable is not None
        assert situation.is_parked or situation.want == "resume"
    if situation.want == "resume":
        assert decision.mode != "fresh"
    else:
        assert decision.mode != "fail"
    assert decision.resumable == situation.resumable
    if "fresh-next" not in decision.consumes and situation.is_renewed:
        assert situation.want == "resume"
