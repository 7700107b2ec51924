"""Edits of JSON text: tables of texts before and after, and laws that hold for any document in any layout."""

from __future__ import annotations

import json
from functools import partial, reduce
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migrator.json_spans import MISSING, JsonTextError, append, delete, get, parse, put
from tests.migrator.json_texts import KEYS, VALUES, documents, same

if TYPE_CHECKING:
    from collections.abc import Callable

    from migrator.json_spans import Json
    from tests.migrator.json_texts import Document, Steps

GATE = {"type": "command", "command": "gate"}

PUTS = {
    "bare file": ("{}", ["a"], 1, '{\n  "a": 1\n}'),
    "bare file with final newline": ("{}\n", ["a"], 1, '{\n  "a": 1\n}\n'),
    "bare file with white space inside": ("{ }\n", ["a"], 1, '{\n  "a": 1\n }\n'),
    "bare file with a line inside": ("{\n\n}\n", ["a"], 1, '{\n  "a": 1\n\n}\n'),
    "bare file with bom": ("\ufeff{}\r\n", ["a"], 1, '\ufeff{\r\n  "a": 1\r\n}\r\n'),
    "objects on the way": ("{}", ["a", "b"], [], '{\n  "a": {\n    "b": []\n  }\n}'),
    "last member": ('{\n  "a": 1\n}', ["b"], 2, '{\n  "a": 1,\n  "b": 2\n}'),
    "closing bracket stays where it was": ('{\n  "a": 1  }', ["b"], 2, '{\n  "a": 1,\n  "b": 2  }'),
    "tabs": ('{\n\t"a": 1\n}', ["b"], [1], '{\n\t"a": 1,\n\t"b": [\n\t\t1\n\t]\n}'),
    "four spaces": ('{\n    "a": {}\n}', ["a", "b"], 2, '{\n    "a": {\n        "b": 2\n    }\n}'),
    "three spaces": ('{\n   "a": 1\n}', ["b"], [2], '{\n   "a": 1,\n   "b": [\n      2\n   ]\n}'),
    "no indent": ('{\n"a": 1\n}', ["b"], [2], '{\n"a": 1,\n"b": [\n  2\n]\n}'),
    "no space after the colon": ('{\n  "a":1\n}', ["b"], {"c": 2}, '{\n  "a":1,\n  "b":{\n    "c":2\n  }\n}'),
    "crlf": ('{\r\n  "a": 1\r\n}\r\n', ["b"], [2], '{\r\n  "a": 1,\r\n  "b": [\r\n    2\r\n  ]\r\n}\r\n'),
    "indent of its siblings": ('{\n  "a": {\n   "b": 1}}', ["a", "c"], 2, '{\n  "a": {\n   "b": 1,\n   "c": 2}}'),
    "blank lines are not repeated": (
        '{\n\n  "a": 1, \n\n  "b": 2\n}',
        ["c"],
        3,
        '{\n\n  "a": 1, \n\n  "b": 2,\n  "c": 3\n}',
    ),
    "comma before the line": ('{ "a": 1\n, "b": 2\n}', ["c"], [3], '{ "a": 1\n, "b": 2\n, "c": [\n  3\n]\n}'),
    "siblings that share a line": ('{\n  "a": 1, "b": 2\n}', ["c"], 3, '{\n  "a": 1, "b": 2,\n  "c": 3\n}'),
    "one line": ('{"a": 1}\n', ["b"], {"c": [1, 2]}, '{"a": 1, "b": {"c": [1, 2]}}\n'),
    "one line without spaces": ('{"a":1}', ["b"], {"c": [1, 2]}, '{"a":1,"b":{"c":[1,2]}}'),
    "one line with its own gaps": ('{ "a":1 ,  "b":2 }', ["c"], 3, '{ "a":1 ,  "b":2 ,  "c":3 }'),
    "empty object on one line": ('{"a": {}}', ["a", "b"], 1, '{"a": {"b": 1}}'),
    "empty object with white space on one line": ('{"a": { }}', ["a", "b"], 1, '{"a": { "b": 1 }}'),
    "one-line object in a longer file": (
        '{\n  "a": {"b": 1},\n  "c": 2\n}',
        ["a", "d"],
        {"e": [2]},
        '{\n  "a": {"b": 1, "d": {"e": [2]}},\n  "c": 2\n}',
    ),
    "empty object inside a one-line object": (
        '{\n  "a": {"b": {}}\n}',
        ["a", "b", "c"],
        1,
        '{\n  "a": {"b": {\n    "c": 1\n  }}\n}',
    ),
    "value on its own line": ('{\n  "a":\n    1\n}', ["a"], [2], '{\n  "a":\n    [\n      2\n    ]\n}'),
    "replaced member": ('{\n  "a" :  0.10 ,\n  "b": 1E2}', ["a"], "x", '{\n  "a" :  "x" ,\n  "b": 1E2}'),
    "replaced item": ("[1, [2 ],\t3]", [1], {"a": 2}, '[1, {"a": 2},\t3]'),
    "replaced item of a longer list": ("[\n  1,\n  2\n]", [1], [3], "[\n  1,\n  [\n    3\n  ]\n]"),
    "replaced item of a one-line list in a longer file": (
        '{\n  "a": [1, {"b": 2}]\n}',
        ["a", 1],
        {"b": [3]},
        '{\n  "a": [1, {"b": [3]}]\n}',
    ),
    "replaced whole": (' {"a":1}\n', [], [1, {}], " [1,{}]\n"),
    "replaced whole bare": ("\ufeffnull\n", [], [1], "\ufeff[\n  1\n]\n"),
    "key written with escapes": (r'{"\u0061": 1}', ["a"], 2, r'{"\u0061": 2}'),
    "key twice elsewhere": ('{"a": 1, "a": 2, "b": 3}', ["b"], 4, '{"a": 1, "a": 2, "b": 4}'),
    "key with quotes": ("{}", ['"'], "\u2028é\n", '{\n  "\\"": "\u2028é\\n"\n}'),
    "half a surrogate pair": ('{"a": "\\ud83d"}', ["b"], "\ud83d", '{"a": "\\ud83d", "b": "\\ud83d"}'),
    "marks inside strings": ('{"a:1\\",2": {}}', ['a:1",2', "b"], 1, '{"a:1\\",2": {"b": 1}}'),
}

APPENDS = {
    "bare list": ("[]\n", [], 1, "[\n  1\n]\n"),
    "missing list": ('{\n  "a": 1\n}\n', ["b"], 2, '{\n  "a": 1,\n  "b": [\n    2\n  ]\n}\n'),
    "missing list and objects": ("{}", ["a", "b"], 2, '{\n  "a": {\n    "b": [\n      2\n    ]\n  }\n}'),
    "missing list in an item": ('[{"a": 1}]', [0, "b"], 2, '[{"a": 1, "b": [2]}]'),
    "empty list": ('{\n  "a": []\n}', ["a"], 1, '{\n  "a": [\n    1\n  ]\n}'),
    "empty list with a line": ('{\n  "a": [\n  ]\n}', ["a"], 1, '{\n  "a": [\n    1\n  ]\n}'),
    "one-line list": ('{\n  "a": ["x", "y"]\n}', ["a"], "z", '{\n  "a": ["x", "y", "z"]\n}'),
    "one-line list with one item": ('{\n  "a": [ "x" ]\n}', ["a"], "y", '{\n  "a": [ "x", "y" ]\n}'),
    "one-line list without spaces": ('{"a": [1,2]}', ["a"], 3, '{"a": [1,2,3]}'),
    "list without any mark": ("[[]]", [], 1, "[[], 1]"),
    "longer list": ("[\n\t1,\n\t2\n]", [], {"a": 3}, '[\n\t1,\n\t2,\n\t{\n\t\t"a": 3\n\t}\n]'),
    "packed list": ("[\n  1, 2,\n  3, 4\n]", [], 5, "[\n  1, 2,\n  3, 4,\n  5\n]"),
    "hook of a person's settings": (
        '{\n    "model": "x",\n    "hooks": { "Stop": [\n        {"hooks": [{"type": "command"}]}\n    ]}\n}\n',
        ["hooks", "Stop"],
        {"hooks": [GATE]},
        (
            '{\n    "model": "x",\n    "hooks": { "Stop": [\n        {"hooks": [{"type": "command"}]},\n'
            '        {\n            "hooks": [\n                {\n                    "type": "command",\n'
            '                    "command": "gate"\n                }\n            ]\n        }\n    ]}\n}\n'
        ),
    ),
}

DELETES = {
    "only member": ('{\n  "a": 1\n}\n', ["a"], "{}\n"),
    "only item": ('{"a": [ 1\n\n]}', ["a", 0], '{"a": []}'),
    "first member": ('{\n  "a": 1,\n\n  "b": 2\n}', ["a"], '{\n  "b": 2\n}'),
    "middle member": ('{\n  "a": 1,\n  "b": 2,\n  "c": 3\n}', ["b"], '{\n  "a": 1,\n  "c": 3\n}'),
    "last member": ('{\n  "a": 1,\n  "b": 2\n}', ["b"], '{\n  "a": 1\n}'),
    "comma before the line": ('{ "a": 1\n, "b": 2\n, "c": 3\n}', ["b"], '{ "a": 1\n, "c": 3\n}'),
    "item on one line": ("[1, 2 ,3]", [1], "[1 ,3]"),
    "missing member": ('{"a": 1}', ["b"], '{"a": 1}'),
    "missing object": ('{"a": 1}', ["b", "c"], '{"a": 1}'),
    "bom and crlf": ('\ufeff{\r\n\t"a": 1,\r\n\t"b": 2\r\n}', ["a"], '\ufeff{\r\n\t"b": 2\r\n}'),
}

UNREADABLE = {
    "": "line 1 column 1: expecting value",
    " \n\t": "line 2 column 2: expecting value",
    "\ufeff": "line 1 column 1: expecting value",
    "{} {}": "line 1 column 4: extra data",
    '\ufeff{"a" 1}': "line 1 column 6: expecting ':' delimiter",
    '{\n  "a": 1\n  "b": 2\n}': "line 3 column 3: expecting ',' delimiter",
    '// mine\n{"a": 1}': "line 1 column 1: expecting value",
    '{"a": 1 /* mine */}': "line 1 column 9: expecting ',' delimiter",
    "{'a': 1}": "line 1 column 2: expecting property name enclosed in double quotes",
    '{"a": "b\n"}': "line 1 column 9: invalid control character",
    '["a': "line 1 column 2: unterminated string",
    r'["\x"]': r"line 1 column 3: invalid \escape",
    '["NaN", \n NaN]': "line 2 column 2: unexpected NaN",
    '["\\"", -Infinity]': "line 1 column 8: unexpected -Infinity",
    "[Infinity]": "line 1 column 2: unexpected Infinity",
    "[" * 100_000: "the text is nested too deeply",
    f"[{'9' * 5000}]": "a number in the text has too many digits",
}

WRONG_PATHS = [
    ("[]", ["a"], "the outermost value is a list, expected an object"),
    ("7", ["a"], "the outermost value is a number, expected an object"),
    ("{}", [0], "the outermost value is an object, expected a list"),
    ('{"hooks": []}', ["hooks", "Stop"], 'key "hooks" is a list, expected an object'),
    ('{"hooks": "x"}', ["hooks", "Stop"], 'key "hooks" is a string, expected an object'),
    ('{"hooks": null}', ["hooks", "Stop"], 'key "hooks" is null, expected an object'),
    ('{"hooks": {"Stop": true}}', ["hooks", "Stop", 0], 'key "hooks.Stop" is a boolean, expected a list'),
    ('{"hooks": {"Stop": [false]}}', ["hooks", "Stop", 0, "a"], 'key "hooks.Stop[0]" is a boolean, expected an object'),
    ('{"hooks": {"Stop": -1}}', ["hooks", "Stop", 0], 'key "hooks.Stop" is a number, expected a list'),
    ('{"hooks": {}, "hooks": {}}', ["hooks"], 'key "hooks" stands twice'),
    (r'{"hooks": {}, "\u0068ooks": {}}', ["hooks", "Stop"], 'key "hooks" stands twice'),
    ('{"hooks": {"a": 1, "a": 1}}', ["hooks", "a"], 'key "hooks.a" stands twice'),
]

OUT_OF_RANGE = [
    ("[]", [0], 'key "[0]" is out of range'),
    ('{"a": [1]}', ["a", 1], 'key "a[1]" is out of range'),
    ('{"a": [1]}', ["a", -1], 'key "a[-1]" is out of range'),
    ("{}", ["a", "b", 0], 'key "a.b[0]" is out of range'),
]

EDITS = {"put": partial(put, value=[0]), "append": partial(append, value=0), "delete": delete}


@pytest.mark.parametrize(("before", "path", "value", "after"), PUTS.values(), ids=PUTS)
def test_put_writes_only_its_member(before: str, path: list[str | int], value: object, after: str) -> None:
    assert put(before, path, value) == after


@pytest.mark.parametrize(("before", "path", "value", "after"), APPENDS.values(), ids=APPENDS)
def test_append_writes_only_its_item(before: str, path: list[str | int], value: object, after: str) -> None:
    assert append(before, path, value) == after


@pytest.mark.parametrize(("before", "path", "after"), DELETES.values(), ids=DELETES)
def test_delete_takes_one_comma_and_its_white_space(before: str, path: list[str | int], after: str) -> None:
    assert delete(before, path) == after


@pytest.mark.parametrize(("text", "message"), UNREADABLE.items(), ids=UNREADABLE.values())
def test_text_that_is_not_strict_json_is_refused(text: str, message: str) -> None:
    for read in (parse, partial(get, path=[]), *(partial(edit, path=[]) for edit in EDITS.values())):
        with pytest.raises(JsonTextError) as refusal:
            read(text)
        assert str(refusal.value) == message


@pytest.mark.parametrize("text", ['{"a": 1,}', "[1,]", "[1,\n]"])
def test_trailing_comma_is_refused(text: str) -> None:
    with pytest.raises(JsonTextError, match=r"^line \d column \d: "):  # Python 3.13 changed the words and the place
        parse(text)


@pytest.mark.parametrize("depth", range(100, 1100, 7))
def test_any_depth_is_edited_or_refused(depth: int) -> None:
    text = "[" * depth + "]" * depth
    try:
        outcome = append(text, [0] * (depth - 1), 1)
    except JsonTextError as refusal:
        outcome = str(refusal)
    assert outcome in {text.replace("[]", "[1]"), "the text is nested too deeply"}


@pytest.mark.parametrize("edit", [get, *EDITS.values()], ids=["get", *EDITS])
@pytest.mark.parametrize(("text", "path", "message"), WRONG_PATHS)
def test_path_that_does_not_fit_the_text_is_refused(
    edit: Callable[..., object], text: str, path: list[str | int], message: str
) -> None:
    with pytest.raises(JsonTextError) as refusal:
        edit(text, path)
    assert str(refusal.value) == message


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
@pytest.mark.parametrize(("text", "path", "message"), OUT_OF_RANGE)
def test_index_out_of_range_is_refused(
    edit: Callable[..., object], text: str, path: list[str | int], message: str
) -> None:
    with pytest.raises(JsonTextError) as refusal:
        edit(text, path)
    assert str(refusal.value) == message
    assert get(text, path) is MISSING


def test_append_to_something_else_than_a_list_is_refused() -> None:
    with pytest.raises(JsonTextError, match=r'^key "hooks\.Stop" is an object, expected a list$'):
        append('{"hooks": {"Stop": {}}}', ["hooks", "Stop"], 1)


def test_delete_of_the_outermost_value_is_refused() -> None:
    with pytest.raises(JsonTextError, match=r"^the outermost value cannot be deleted$"):
        delete("{}", [])


def test_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        put("{}", ["a"], float("nan"))


def test_get_tells_null_from_missing() -> None:
    assert get('{"a": null}', ["a"]) is None
    assert get('{"a": null}', ["b"]) is MISSING
    assert get('{"a": null}', ["b", 0, "c"]) is MISSING


LAW = settings(max_examples=70, deadline=None)


@st.composite
def known(draw: st.DrawFn) -> tuple[Document, Steps]:
    document = draw(documents())
    return document, draw(st.sampled_from(list(document.spans)))


@st.composite
def unknown(draw: st.DrawFn, *, most: int = 3, empty: bool = True) -> tuple[Document, Steps]:
    document = draw(documents().filter(lambda document: document.paths(dict, empty=empty)))
    path = draw(st.sampled_from(document.paths(dict, empty=empty)))
    key = draw(KEYS.filter(lambda key: key not in document.at(path)))
    return document, (*path, key, *draw(st.lists(KEYS, max_size=most - 1)))


@st.composite
def lists(draw: st.DrawFn, *, empty: bool = True) -> tuple[Document, Steps]:
    document = draw(documents().filter(lambda document: document.paths(list, empty=empty)))
    return document, draw(st.sampled_from(document.paths(list, empty=empty)))


def changed(value: Json, path: Steps, new: object) -> Json:
    """Return `value` after the same `put`, done on what was parsed."""
    if not path:
        return new
    way = value = json.loads(json.dumps(value))
    for step in path[:-1]:
        way = way.setdefault(step, {}) if isinstance(way, dict) else way[step]
    way[path[-1]] = new
    return value


def without(value: Json, path: Steps) -> Json:
    """Return `value` after the same `delete`, done on what was parsed."""
    value = json.loads(json.dumps(value))
    del reduce(lambda way, step: way[step], path[:-1], value)[path[-1]]
    return value


def has_a_member(place: tuple[Document, Steps]) -> bool:
    return isinstance(place[0].value, dict) and len(place[0].value) > 0


def is_insertion(before: str, after: str) -> bool:
    pairs = enumerate(zip(before, after, strict=False))
    kept = next((i for i, (old, new) in pairs if old != new), len(before))
    return len(before) <= len(after) and after.endswith(before[kept:])


@LAW
@given(known())
def test_any_value_is_found(place: tuple[Document, Steps]) -> None:
    document, path = place
    assert same(parse(document.text), document.value)
    assert same(get(document.text, path), document.at(path))


@LAW
@given(known(), VALUES)
def test_put_replaces_the_span_of_a_value_and_nothing_else(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    start, end = document.spans[path]
    before, after = document.text[:start], document.text[end:]
    text = put(document.text, path, value)
    assert text.startswith(before)
    assert text.endswith(after)
    assert same(json.loads(text[start : len(text) - len(after)]), value)
    assert same(parse(text), changed(document.value, path, value))


@LAW
@given(unknown(), VALUES)
def test_put_of_a_new_member_is_an_insertion(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    text = put(document.text, path, value)
    assert same(parse(text), changed(document.value, path, value))
    assert is_insertion(document.text, text)


@LAW
@given(lists(), VALUES)
def test_append_is_an_insertion(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    text = append(document.text, path, value)
    assert same(parse(text), changed(document.value, path, [*document.at(path), value]))
    assert is_insertion(document.text, text)


@LAW
@given(unknown(), VALUES)
def test_append_to_a_missing_list_is_put_of_a_list(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    assert append(document.text, path, value) == put(document.text, path, [value])


@LAW
@given(known().filter(lambda place: place[1]))
def test_delete_cuts_out_the_span_with_one_comma_and_white_space(place: tuple[Document, Steps]) -> None:
    document, path = place
    text = delete(document.text, path)
    assert same(parse(text), without(document.value, path))

    start, end = document.starts[path], document.spans[path][1]
    cut = len(document.text) - len(text)
    comma = "," if len(document.at(path[:-1])) > 1 else ""
    assert any(
        document.text[:i] + document.text[i + cut :] == text
        and (document.text[i:start] + document.text[end : i + cut]).strip(" \t\r\n") == comma
        for i in range(end - cut, start + 1)
    )


@LAW
@given(unknown(most=1, empty=False), VALUES)
def test_delete_undoes_put_of_a_new_member(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    assert delete(put(document.text, path, value), path) == document.text


@LAW
@given(lists(empty=False), VALUES)
def test_delete_undoes_append(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    last = len(document.at(path))
    assert delete(append(document.text, path, value), (*path, last)) == document.text


@LAW
@given(known() | unknown(), VALUES)
def test_second_put_changes_nothing(place: tuple[Document, Steps], value: object) -> None:
    document, path = place
    once = put(document.text, path, value)
    assert put(once, path, value) == once


def dump(value: object, newline: str, **layout: Json) -> str:
    return json.dumps(value, ensure_ascii=False, **layout).replace("\n", newline)


LAYOUTS = {
    "two spaces": {"indent": 2},
    "three spaces": {"indent": 3},
    "tabs": {"indent": "\t"},
    "one line": {},
    "one line without spaces": {"separators": (",", ":")},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@LAW
@given(known().filter(has_a_member), VALUES, st.sampled_from(["\n", "\r\n"]))
def test_edit_of_a_dumped_value_is_the_dump_of_the_edited_value(
    layout: dict[str, Json], place: tuple[Document, Steps], new: object, newline: str
) -> None:
    (_, value, *_), path = place
    old = place[0].at(path)
    dumps = partial(dump, newline=newline, **layout)
    text = dumps(value)
    assert put(text, path, old) == text
    assert put(text, path, new) == dumps(changed(value, path, new))
    if path:
        assert delete(text, path) == dumps(without(value, path))
    if isinstance(old, list):
        assert append(text, path, new) == dumps(changed(value, path, [*old, new]))
    if isinstance(old, dict):
        assert put(text, (*path, "fresh"), new) == dumps(changed(value, (*path, "fresh"), new))
