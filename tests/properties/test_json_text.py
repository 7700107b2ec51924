"""Hooks read and write JSON without the package json, and exactly as it does."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.common.jsontext import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
PIECES = st.sampled_from(
    [*'{}[]:,"\\ \n\t01-+.eE', "true", "null", "NaN", "-Infinity", '"a"', "\\u12", "é", "\ufeff", "\x00"]
)


@given(VALUES, st.sampled_from([0, 2]))
def test_a_value_is_written_as_json_writes_it_and_read_back(value: object, indent: int) -> None:
    text = dumps(value, indent)

    assert text == json.dumps(value, indent=indent or None)
    assert json.dumps(loads(text)) == json.dumps(json.loads(text))


@given(st.lists(PIECES, max_size=12).map("".join) | VALUES.map(json.dumps).map(lambda text: text[:-1]) | st.text())
def test_a_text_is_read_as_json_reads_it_or_refused_as_json_refuses_it(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            loads(text)
    else:
        assert json.dumps(loads(text)) == json.dumps(expected)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_what_is_too_deep_is_refused(text: str) -> None:
    with pytest.raises(RecursionError):
        loads(text)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {"a": object()}])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        dumps(value)


@pytest.mark.parametrize(("text", "value"), [("NaN", math.nan), ("Infinity", math.inf), ("-Infinity", -math.inf)])
def test_numbers_that_are_not_finite_are_read_and_written(text: str, value: float) -> None:
    assert repr(loads(text)) == repr(value)
    assert dumps(value) == text


def test_a_python_without_the_c_code_has_the_same() -> None:
    script = (
        "import sys; sys.modules['_json'] = None\n"
        "from hooks.common.jsontext import dumps, loads\n"
        'text = \'{"a": [1, 2.5, null, true, "\\\\u00e9"], "b": {}}\'\n'
        "assert dumps(loads(text)) == text, dumps(loads(text))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=__file__.rsplit("/tests/", 1)[0])


@pytest.mark.parametrize("text", ["", "{", "[1,]", '{"a"}', "1 2", '"\n"', "tru", "\ufeff1"])
def test_what_is_wrong_is_told_also_where_the_package_was_not_imported_before(text: str) -> None:
    script = (
        "import sys\nfrom hooks.common.jsontext import loads\n"
        "try:\n loads(sys.argv[1])\nexcept ValueError as error:\n print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script, text], check=True, cwd=__file__.rsplit("/tests/", 1)[0], text=True,
        capture_output=True,
    )  # fmt: skip
    with pytest.raises(ValueError) as told:  # noqa: PT011 - whatever it says
        json.loads(text)
    assert done.stdout.strip() == str(told.value)
