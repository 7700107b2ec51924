"""The gate's mode: kill switch before mode file before configuration, and nothing unreadable holds anybody."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from instar.files import replace_file
from instar.gate.mode import DATABASE, EXPIRY_MS, FOLDER, GATE_ON, KILL_FILE, MODE_FILE, Switch

if TYPE_CHECKING:
    from pathlib import Path

NOW_S = 1_790_000_000.0
HOUR_MS = 3_600_000


class Gate:
    """The files of a project's gate, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / FOLDER
        self.now = NOW_S
        self.troubles: list[str] = []

    def switch(self, mode: object = None) -> Switch:
        config = {} if mode is None else {"unjustifiedStopGate": {"mode": mode}}
        return Switch(self.root, config, lambda feature, _: self.troubles.append(feature), lambda: self.now)

    def write(self, name: str, content: object) -> Path:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        replace_file(self.folder / name, data)
        return self.folder / name

    def read(self, name: str) -> dict[str, Any]:
        values = json.loads((self.folder / name).read_bytes())
        assert isinstance(values, dict)
        return values

    @property
    def gate_on(self) -> str | None:
        path = self.folder / GATE_ON
        if not path.exists():
            return None
        mode, budget_ms = path.read_text().split()
        assert budget_ms == "2000"
        return mode


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


@pytest.mark.parametrize(
    ("killed", "file", "config", "mode", "source"),
    [
        (False, None, None, "shadow", "default"),
        (False, None, "off", "off", "configuration"),
        (False, None, "enforce", "enforce", "configuration"),
        (False, "off", "enforce", "off", "mode file"),
        (False, "enforce", "off", "enforce", "mode file"),
        (True, "enforce", "enforce", "off", "kill switch"),
        (True, None, None, "off", "kill switch"),
    ],
)
def test_what_is_nearer_to_the_operator_wins(
    gate: Gate, killed: bool, file: str | None, config: str | None, mode: str, source: str  # noqa: FBT001
) -> None:  # fmt: skip
    if file:
        gate.write(MODE_FILE, {"mode": file})
    gate.write(KILL_FILE, {"value": killed, "version": 1})
    switch = gate.switch(config)

    assert (switch.effective(), switch.source()) == (mode, source)
    assert gate.troubles == []
    assert not (gate.folder / MODE_FILE).exists() or file


@pytest.mark.parametrize("wrong", [7, "ENFORCE", ["enforce"], {}, True, "enforce "])
def test_a_mode_that_is_none_is_not_taken_from_the_configuration(gate: Gate, wrong: object) -> None:
    assert gate.switch(wrong).effective() == "shadow"
    assert gate.troubles == ["unjustifiedStopGate.config"]


BAD_MODES = [
    b"", b"{", b"[]", b'"enforce"', b"null", b'{"mode": 1}', b'{"mode": "ENFORCE"}', b'{"mode": ["enforce"]}', b"\xff",
    b"[" * 100_000, b'{"mode": "enforce"' + b" " * 70_000 + b"}", b'{"Mode": "enforce"}', b'{"mode": "enforce"} x',
]  # fmt: skip


@pytest.mark.parametrize("config", [None, "off", "enforce"])
@pytest.mark.parametrize("bad", BAD_MODES)
def test_a_mode_file_that_cannot_be_used_never_turns_enforce_on(gate: Gate, bad: bytes, config: str | None) -> None:
    gate.write(MODE_FILE, bad)
    expected = "off" if config == "off" else "shadow"

    switch = gate.switch(config)
    assert [switch.effective() for _ in range(3)] == [expected] * 3
    assert gate.switch(config).effective() == expected, "a later process knows no more"
    (kept,) = gate.folder.glob(f"{MODE_FILE}.corrupt-*")
    assert kept.read_bytes() == bad
    assert gate.troubles == ["unjustifiedStopGate.modeFile"]


def test_a_corrupt_mode_file_turns_enforce_off_in_a_running_process(gate: Gate) -> None:
    gate.write(MODE_FILE, {"mode": "enforce"})
    switch = gate.switch("enforce")
    assert switch.effective() == "enforce"
    gate.write(MODE_FILE, b"{")

    assert switch.effective() == "shadow"
    switch.set_mode("enforce")
    assert switch.effective() == "enforce"


def test_what_is_no_file_is_not_waited_for(gate: Gate) -> None:
    gate.folder.mkdir(parents=True)
    os.mkfifo(gate.folder / MODE_FILE)
    os.mkfifo(gate.folder / KILL_FILE)

    assert gate.switch("enforce").mode() == "shadow"
    assert gate.switch().effective() == "off"


def test_a_change_of_another_program_holds_at_once(gate: Gate) -> None:
    switch, other = gate.switch(), gate.switch()
    assert switch.effective() == "shadow"
    other.set_mode("enforce")
    assert switch.effective() == "enforce"
    other.set_kill(value=True)
    assert switch.effective() == "off"
    other.set_kill(value=False)
    assert switch.effective() == "enforce"
    (gate.folder / MODE_FILE).unlink()
    assert switch.effective() == "shadow"


def test_a_file_of_the_same_size_and_time_is_read_again(gate: Gate) -> None:
    path = gate.write(MODE_FILE, b'{"mode": "shadow" }')
    os.utime(path, (1, 1))
    switch = gate.switch()
    assert switch.effective() == "shadow"
    os.utime(gate.write(MODE_FILE, b'{"mode": "enforce"}'), (1, 1))

    assert switch.effective() == "enforce"


def test_what_else_the_mode_file_holds_stays(gate: Gate) -> None:
    gate.write(MODE_FILE, {"mode": "shadow", "theirs": [1]})
    assert gate.switch().set_mode("off")

    assert gate.read(MODE_FILE) == {"mode": "off", "theirs": [1], "updatedAt": "2026-09-21T14:13:20.000Z"}
    assert (gate.folder / MODE_FILE).stat().st_mode & 0o777 == 0o600
    assert gate.folder.stat().st_mode & 0o777 == 0o700


def test_no_other_word_is_set(gate: Gate) -> None:
    with pytest.raises(ValueError, match="mode must be"):
        gate.switch().set_mode("on")  # type: ignore[arg-type]
    assert not gate.folder.exists()


def test_what_cannot_be_written_holds_in_the_process_until_the_file_is_another(gate: Gate) -> None:
    gate.folder.parent.mkdir()
    gate.folder.touch()  # where a folder should be
    switch = gate.switch()

    assert not switch.set_mode("enforce")
    assert switch.effective() == "enforce"
    assert not switch.set_kill(value=True)
    assert switch.effective() == "off"
    assert gate.troubles == ["unjustifiedStopGate.modeFile", "unjustifiedStopGate.killSwitchFile"]
    gate.folder.unlink()
    assert switch.effective() == "off"
    gate.switch().set_mode("off")
    gate.switch().set_kill(value=False)
    assert (switch.mode(), switch.source()) == ("off", "mode file")


def test_a_word_for_the_router_that_cannot_be_written_is_told(gate: Gate) -> None:
    gate.folder.parent.mkdir()
    gate.folder.touch()
    gate.switch().keep_gate_on()

    assert gate.troubles == ["unjustifiedStopGate.gateOn"]


@pytest.mark.parametrize(
    "bad", [b"", b"{", b"[]", b"false", b"{}", b'{"value": "false"}', b'{"value": false, "expiresAt": "x"}',
            b'{"value": 0}', b'{"value": true, "setAt": true}']
)  # fmt: skip
def test_a_kill_switch_that_cannot_be_read_is_set_until_it_is_cleared(gate: Gate, bad: bytes) -> None:
    gate.write(KILL_FILE, bad)
    gate.write(MODE_FILE, {"mode": "enforce"})
    switch = gate.switch()

    assert switch.effective() == "off"
    assert "cannot be read" in switch.kill()["reason"]
    assert set(gate.troubles) == {"unjustifiedStopGate.killSwitchFile"}
    assert switch.set_kill(value=False)
    assert switch.effective() == "enforce"


def test_the_record_of_a_kill_switch_says_who_set_it_and_until_when(gate: Gate) -> None:
    gate.switch().set_kill(True, HOUR_MS, "me", "too loud")  # noqa: FBT003

    record = {"value": True, "setAt": int(NOW_S * 1000), "expiresAt": int(NOW_S * 1000) + HOUR_MS, "operator": "me",
              "reason": "too loud"}  # fmt: skip
    assert gate.read(KILL_FILE) == {**record, "version": 1}
    assert gate.switch().kill() == record


def test_a_kill_switch_expires_for_good(gate: Gate) -> None:
    switch = gate.switch()
    switch.set_kill(value=True, expires_in_ms=HOUR_MS)
    gate.now += 3599
    assert switch.effective() == "off"
    gate.now += 1
    assert switch.kill() == {"value": False}
    switch.keep_gate_on()
    gate.now = NOW_S
    assert switch.effective() == "shadow", "a clock that is put back sets nothing again"


def test_a_kill_switch_stays_set_when_the_clock_is_put_back(gate: Gate) -> None:
    switch = gate.switch()
    switch.set_kill(value=True, expires_in_ms=1000)
    for back in (1, 400, 10**8):
        gate.now = NOW_S - back
        switch.keep_gate_on()
        assert switch.effective() == "off"


def test_setting_it_again_without_a_time_removes_the_time(gate: Gate) -> None:
    switch = gate.switch()
    switch.set_kill(value=True, expires_in_ms=1000)
    switch.set_kill(value=True)
    gate.now += 10**9

    assert switch.effective() == "off"


@pytest.mark.parametrize("expires", [0, -1, EXPIRY_MS[0] - 1, EXPIRY_MS[1] + 1])
def test_a_time_that_is_too_short_or_long_is_refused(gate: Gate, expires: int) -> None:
    with pytest.raises(ValueError, match="1 second to 30 days"):
        gate.switch().set_kill(value=True, expires_in_ms=expires)
    assert not gate.folder.exists()


def test_the_word_for_the_router_is_there_exactly_while_the_gate_is_not_off(gate: Gate) -> None:
    switch = gate.switch()
    said = []
    for step in (
        lambda: None, lambda: switch.set_mode("enforce"), lambda: switch.set_kill(value=True),
        lambda: switch.set_kill(value=False), lambda: switch.set_mode("off"), lambda: switch.set_mode("shadow"),
        lambda: (gate.folder / GATE_ON).write_text("junk"), (gate.folder / GATE_ON).unlink,
    ):  # fmt: skip
        step()
        switch.keep_gate_on()
        said.append(gate.gate_on)

    assert said == ["shadow", "enforce", None, "enforce", None, "shadow", "shadow", "shadow"]
    assert gate.troubles == []
    assert (gate.folder / GATE_ON).stat().st_mode & 0o777 == 0o600


def test_the_router_is_told_for_how_long_the_server_may_think(gate: Gate) -> None:
    config = {"unjustifiedStopGate": {"mode": "enforce", "authority": {"provider": "command", "budgetMs": 4000}}}
    Switch(gate.root, config, lambda *_: None).keep_gate_on()

    assert (gate.folder / GATE_ON).read_text() == "enforce 4000"


def test_a_word_that_is_right_is_not_written_again(gate: Gate) -> None:
    switch = gate.switch()
    switch.keep_gate_on()
    before = (gate.folder / GATE_ON).stat()
    switch.keep_gate_on()

    after = (gate.folder / GATE_ON).stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_without_a_server_the_word_is_removed_and_never_made(gate: Gate) -> None:
    switch = gate.switch()
    switch.keep_gate_on(is_serving=False)
    assert gate.gate_on is None
    switch.keep_gate_on()
    switch.keep_gate_on(is_serving=False)
    assert gate.gate_on == "shadow"
    switch.set_mode("off")
    switch.keep_gate_on(is_serving=False)
    assert gate.gate_on is None


def test_many_threads_and_a_writer_see_only_modes_that_were_set(gate: Gate) -> None:
    switch, writer = gate.switch("enforce"), gate.switch()
    writer.set_mode("off")
    seen: set[str] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add(switch.effective())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for index in range(40):
        writer.set_mode("shadow" if index % 2 else "off")
    done.set()
    for thread in threads:
        thread.join()

    assert seen <= {"off", "shadow"}
    assert gate.troubles == []
    assert not list(gate.folder.glob(f".{MODE_FILE}*"))


def test_a_file_that_cannot_be_replaced_leaves_no_other_behind(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "there", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_the_files_lie_where_all_parts_look_for_them() -> None:
    assert (FOLDER, DATABASE) == (".instar/server-data", "stop-gate.db")
