"""The operator's switch outranks the configuration, and what cannot be read never parks anybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instar.errors import InstarError
from instar.sessions.policy import MODES, Mode, policy
from instar.sessions.reaper.switch import PATH, Switch, Switched

NOW = 1_790_000_000.0
STAMP = "2026-09-21T14:13:20.000Z"


def configured(mode: Mode) -> Any:
    reaper = {"enabled": mode != "off", "dryRun": mode != "live"}
    return policy({"monitoring": {"sessionReaper": reaper}})


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    return Switch(tmp_path)


@pytest.mark.parametrize("mode", MODES)
def test_where_nothing_was_set_the_configuration_holds(switch: Switch, mode: Mode) -> None:
    assert switch.read() == Switched()
    assert switch.read().over(configured(mode)).mode == mode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("below", MODES)
def test_what_was_set_outranks_the_configuration(switch: Switch, tmp_path: Path, mode: Mode, below: Mode) -> None:
    switched = switch.set(mode, by="me", reason="why not", now=NOW)

    assert switched == Switch(tmp_path).read() == Switched(mode, STAMP, "me", "why not")
    assert switched.over(configured(below)).mode == mode
    assert (tmp_path / PATH).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("is_set", [True, False])
def test_one_that_stopped_itself_parks_nobody_until_that_is_cleared(
    switch: Switch, tmp_path: Path, mode: Mode, is_set: bool  # noqa: FBT001 - a column
) -> None:  # fmt: skip
    below = configured(mode)
    if is_set:
        switch.set(mode, by="me", reason="", now=NOW)
    switch.auto_disable("kill-failed", now=NOW)
    switch.auto_disable("another", now=NOW + 5)

    found = Switch(tmp_path).read()
    assert (found.cause, found.disabled_at, found.is_auto_disabled) == ("kill-failed", STAMP, True)
    assert found.over(below).mode == ("dry-run" if mode == "live" else mode)
    assert not found.over(below).may_park
    assert switch.set("live", by="me", reason="", now=NOW).over(below).mode == "dry-run"
    switch.set(mode, by="me", reason="", now=NOW)
    assert not switch.clear().is_auto_disabled
    assert switch.read().over(below).mode == mode


CORRUPT = [
    b"", b"{", b"[]", b"\xff", b'"live"', b'{"mode": "Live"}', b'{"mode": ["live"]}', b'{"mode": 5}',
    b'{"mode": "live", "autoDisabled": true}', b'{"mode": "live", "autoDisabled": {}}', b"[" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("content", CORRUPT, ids=lambda each: repr(each)[:30])
def test_a_file_that_cannot_be_used_is_off_and_says_so(switch: Switch, tmp_path: Path, content: bytes) -> None:
    place = tmp_path / PATH
    place.parent.mkdir(parents=True)
    place.write_bytes(content)

    found = switch.read()

    assert found.over(configured("live")).mode == "off"
    assert PATH in found.trouble
    assert place.read_bytes() == content
    assert switch.auto_disable("x", now=NOW).mode == "off"


@pytest.mark.parametrize("content", CORRUPT, ids=lambda each: repr(each)[:30])
def test_setting_it_anew_replaces_what_cannot_be_used(switch: Switch, tmp_path: Path, content: bytes) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_bytes(content)

    switch.set("live", by="me", reason="", now=NOW)

    assert switch.read().mode == "live"


def test_what_cannot_be_read_is_off(switch: Switch, tmp_path: Path) -> None:
    (tmp_path / PATH).mkdir(parents=True)

    assert switch.read().mode == "off"
    with pytest.raises(InstarError, match="cannot be written"):
        switch.set("live", by="me", reason="", now=NOW)


def test_what_is_no_mode_is_refused(switch: Switch) -> None:
    with pytest.raises(InstarError, match="off, dry-run, live"):
        switch.set("on", by="me", reason="", now=NOW)  # type: ignore[arg-type]  # the point


def test_what_else_the_file_holds_stays(switch: Switch, tmp_path: Path) -> None:
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text('{"mode": "off", "note": "mine"}')

    switch.auto_disable("", now=NOW)
    switch.set("live", by="me", reason="", now=NOW)

    values = json.loads((tmp_path / PATH).read_bytes())
    assert (values["note"], values["autoDisabled"]["cause"]) == ("mine", "it is not known")


SETTER = """
import sys
from pathlib import Path
from instar.sessions.reaper.switch import Switch

switch = Switch(Path(sys.argv[1]))
sys.stdin.readline()
for number in range(30):
    switch.auto_disable("x", now=5.0) if sys.argv[2] == "0" else switch.set("live", by="me", reason="", now=5.0)
"""


def test_processes_that_set_it_at_once_undo_nothing_of_each_other(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    setters = [
        subprocess.Popen([sys.executable, "-c", SETTER, str(tmp_path), word], stdin=subprocess.PIPE, text=True, env=env)
        for word in "01"
    ]
    for each in setters:
        assert each.stdin
        each.stdin.write("\n")
        each.stdin.flush()
    for each in setters:
        each.communicate(timeout=60)
        assert each.returncode == 0

    found = Switch(tmp_path).read()
    assert (found.mode, found.cause) == ("live", "x")
