"""Defaults are added to a configuration that is there, and change nothing that the operator wrote."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.config import DEFAULTS, load, over, problems
from instar.errors import InstarError
from migrator.config_defaults import apply_defaults, get_init_defaults, get_migration_defaults
from tests.migrator.scratch import CONFIG, Scratch

if TYPE_CHECKING:
    from pathlib import Path

Row = tuple[dict[str, Any], dict[str, Any], dict[str, Any], list[str], list[str]]
ROWS: dict[str, Row] = {
    # config, defaults -> config afterwards, changes, skipped
    "a key is added": ({}, {"a": 1}, {"a": 1}, ["a (added)"], []),
    "a missing branch is one change": (
        {},
        {"a": {"b": 1, "c": {"d": 2}}},
        {"a": {"b": 1, "c": {"d": 2}}},
        ["a (added)"],
        [],
    ),
    "an object is filled up": ({"a": {"b": 7}}, {"a": {"b": 1, "c": 2}}, {"a": {"b": 7, "c": 2}}, ["a.c (added)"], []),
    "a scalar stays": ({"a": 0}, {"a": 1}, {"a": 0}, [], []),
    "null stays": ({"a": None}, {"a": {"b": 1}}, {"a": None}, [], []),
    "a list stays": ({"a": []}, {"a": [1]}, {"a": []}, [], []),
    "another type stays": ({"a": "x"}, {"a": {"b": 1}}, {"a": "x"}, [], []),
    "an object where a scalar is meant stays": ({"a": {}}, {"a": 1}, {"a": {}}, [], []),
    "a dotted path opts out": (
        {"_instar_noMigrate": ["a.b"]},
        {"a": {"b": 1, "c": 2}},
        {"_instar_noMigrate": ["a.b"], "a": {"c": 2}},
        ["a.c (added)"],
        ["a.b (opted out)"],
    ),
    "a bare name opts out of nothing deeper": (
        {"_instar_noMigrate": ["b"]},
        {"a": {"b": 1}},
        {"_instar_noMigrate": ["b"], "a": {"b": 1}},
        ["a (added)"],
        [],
    ),
    "a branch opts out": (
        {"_instar_noMigrate": ["a"]},
        {"a": {"b": 1}},
        {"_instar_noMigrate": ["a"]},
        [],
        ["a (opted out)"],
    ),
    "an opt-out that is no list is none": (
        {"_instar_noMigrate": "a"},
        {"a": 1},
        {"_instar_noMigrate": "a", "a": 1},
        ["a (added)"],
        [],
    ),
}


@pytest.mark.parametrize(("config", "defaults", "after", "changes", "skipped"), ROWS.values(), ids=ROWS)
def test_what_defaults_do_to_a_configuration(
    config: dict[str, Any], defaults: dict[str, Any], after: dict[str, Any], changes: list[str], skipped: list[str]
) -> None:
    config = copy.deepcopy(config)
    result = apply_defaults(config, defaults)

    assert config == after
    assert result == {"patched": bool(changes), "changes": changes, "skipped": skipped}
    assert apply_defaults(config, defaults)["patched"] is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "c", "_instar_noMigrate"]), JSON, max_size=4)


@given(config=OBJECTS, defaults=st.dictionaries(st.sampled_from("abc"), JSON, max_size=3))
def test_what_the_operator_wrote_is_still_there_and_twice_is_once(
    config: dict[str, Any], defaults: dict[str, Any]
) -> None:
    before = copy.deepcopy(config)
    apply_defaults(config, defaults)
    once = copy.deepcopy(config)
    apply_defaults(config, defaults)

    assert config == once
    assert is_within(before, config)


def is_within(before: Any, after: Any) -> bool:
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and is_within(value, after[key]) for key, value in before.items())
    return bool(before == after)


@pytest.mark.parametrize("agent_type", ["managed-project", "standalone", "another"])
def test_defaults_are_copies_for_every_kind_of_agent(agent_type: str) -> None:
    for get in (get_init_defaults, get_migration_defaults):
        get(agent_type)["sessions"]["keepEndedDays"] = -1
        assert get(agent_type) == DEFAULTS


def test_the_defaults_break_no_rule() -> None:
    assert problems(DEFAULTS) == []


def test_no_configuration_is_made_where_there_is_none(installed: Scratch) -> None:
    assert not installed.has(CONFIG)


def test_a_configuration_gains_what_it_lacks_and_keeps_every_byte_and_its_mode(scratch: Scratch) -> None:
    never = '"_instar_noMigrate": ["unjustifiedStopGate", "monitoring", "lifecycle"]'
    text = f'{{\n\t"authToken" : "s3cret", {never},\n\t"sessions": {{ "maxSessions": 3 }}\n}}'
    scratch.write(CONFIG, text, 0o600)
    said = scratch.migrate()

    added = ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in DEFAULTS["sessions"].items())
    assert scratch.read(CONFIG).decode() == text.replace('"maxSessions": 3 ', f'"maxSessions": 3, {added} ')
    assert scratch.place(CONFIG).stat().st_mode & 0o777 == 0o600
    assert "s3cret" not in said + scratch.migrate("--json")
    assert "nothing to do" in scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.read(CONFIG).decode() == text


def test_a_configuration_that_was_edited_loses_only_what_is_as_we_added_it(scratch: Scratch) -> None:
    scratch.write(CONFIG, "{}\n")
    scratch.migrate()
    scratch.write_json(CONFIG, {**scratch.json(CONFIG), "projectName": "mine"})
    scratch.migrate("--uninstall")
    assert scratch.json(CONFIG) == {"projectName": "mine"}


def test_a_value_of_the_operators_survives_the_uninstallation(scratch: Scratch) -> None:
    scratch.write(CONFIG, "{}\n")
    scratch.migrate()
    scratch.write_json(CONFIG, {"sessions": {"keepEndedDays": 7}})
    scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.json(CONFIG) == {"sessions": {"keepEndedDays": 7}}


WRONG = {
    '{"sessions": {"keepEndedDays": 0}}': 'key "sessions.keepEndedDays": 0 is less than the minimum of 1',
    '{"sessions": {"keepEndedDays": "30"}}': "key \"sessions.keepEndedDays\": '30' is not of type 'integer'",
    '{"projectName": ""}': "key \"projectName\": ''",
    '{"_instar_noMigrate": [1]}': "key \"_instar_noMigrate[0]\": 1 is not of type 'string'",
}


@pytest.mark.parametrize(("text", "problem"), WRONG.items())
def test_a_value_that_breaks_a_rule_is_named_with_its_key_and_the_rule(
    scratch: Scratch, text: str, problem: str
) -> None:
    scratch.write(CONFIG, text)
    (warning,) = scratch.report()["warnings"]
    assert warning.startswith(f"{CONFIG}: {problem}")
    after = scratch.json(CONFIG)
    assert over(after, json.loads(text)) == after


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_refused(tmp_path: Path, word: str) -> None:
    place = tmp_path / CONFIG
    place.parent.mkdir()
    place.write_text(f'{{"sessions": {{"maxAgeMinutes": {word}}}}}')

    with pytest.raises(InstarError, match=f"{word} is no number"):
        load(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{torn", '{"sessions": {}, "sessions": {}}'])
def test_a_configuration_that_cannot_be_edited_is_left_and_named(scratch: Scratch, text: str) -> None:
    scratch.write(CONFIG, text)
    (error,) = scratch.errors()
    assert error.startswith(f"cannot edit {CONFIG}: ")
    assert scratch.read(CONFIG).decode() == text
