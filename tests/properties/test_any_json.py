"""Any JSON as the state or as the event: a valid answer, nobody held without proof, and every byte that is not ours."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks.common.statefile import Build
from playbook_scripts.build_state import main
from support import Project
from tests.properties.any_json import EVENTS, STATES, encoded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

LAW = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
OF_A_STOP = {"reinforcementsUsed", "asked", "waitedFor", "owner", "lastHeldAt"}
COMMANDS = {
    "status": ["status"],
    "resume": ["resume"],
    "report": ["report", "--json"],
    "transition": ["transition", "verifying"],
    "to the end": ["transition", "complete"],
    "to fixing": ["transition", "fixing"],
    "step-complete": ["step-complete", "1", "d", "2", "2"],
    "complete": ["complete", "--force"],
    "cancel": ["cancel", "why"],
    "ask": ["ask", "which?"],
    "adopt": ["adopt", "--owner-session", "s"],
    "init": ["init", "next"],
}
ASKING = ("status", "resume", "report")


class Scratch:
    """A project with the installed hook in it, run in this process."""

    def __init__(self, installed: Project) -> None:
        self.project = Project(Path(mkdtemp(prefix="instar-properties-")) / "project", installed.env)
        shutil.copytree(installed.root, self.project.root, symlinks=True)
        self.project.state_path.parent.mkdir(parents=True)
        self.hook = load(self.project.root / ".instar/hooks/instar/build-stop-hook.py")

    def end(self) -> None:
        shutil.rmtree(self.project.root.parent)

    def write(self, state: bytes) -> None:
        self.project.state_path.write_bytes(state)
        for told in (self.project.root / ".instar/logs").glob(".told-*"):
            told.unlink()

    def read(self) -> bytes:
        return self.project.state_path.read_bytes()

    def check_readable(self) -> None:
        """Assert that what was written can be read again."""
        assert Build(str(self.project.root)).load() is not None

    def stop(self, event: bytes) -> dict[str, Any]:
        """Have the hook answer an event, and return what it would print, which has to be ASCII."""
        said: list[dict[str, Any]] = []
        self.hook.read_event = lambda: self.hook.parse_event(event)  # type: ignore[attr-defined]
        self.hook.answer = said.append  # type: ignore[attr-defined]
        assert self.hook.main() == 0
        (answer,) = said
        assert isinstance(json.loads(json.dumps(answer).encode("ascii")), dict)
        return answer

    def command(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(io.StringIO()):
            status = main(["--project", str(self.project.root), *arguments])
        assert said.getvalue().isascii()
        return status, json.loads(said.getvalue())


def load(place: Path) -> ModuleType:
    """Import an installed script, which knows by its place what project it is about."""
    loader = SourceFileLoader(place.stem.replace("-", "_"), str(place))
    spec = spec_from_loader(loader.name, loader)
    assert spec
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scratch(installed: Project) -> Iterator[Scratch]:
    made = Scratch(installed)
    yield made
    made.end()


def parsed(data: bytes) -> dict[str, Any] | None:
    """Return the object in these bytes; None where there is none that can be used."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def same(one: object, other: object) -> bool:
    return json.dumps(one) == json.dumps(other)  # tells 1 from True, and lets NaN be NaN


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    return {
        key for key in before.keys() | after.keys() if not same([before.get(key, ...) is ..., before.get(key)],
                                                               [after.get(key, ...) is ..., after.get(key)])
    }  # fmt: skip


def check_answer(answer: dict[str, Any]) -> bool:
    """Assert that both clients accept the answer, and say whether it holds."""
    assert set(answer) <= {"decision", "reason", "systemMessage"}
    assert "(unexpected)" not in answer.get("systemMessage", ""), answer
    assert answer.get("decision", "block") == "block"
    assert ("decision" in answer) == bool(answer.get("reason", "").strip())
    assert len(answer.get("reason", "")) < 8000
    return "decision" in answer


def check_stop(before: bytes, event: bytes, after: bytes, *, held: bool) -> None:
    """Assert that only the owner's stop changed the state, and only what is a stop's to change."""
    old, new, said = parsed(before), parsed(after), parsed(event)
    if after == before:
        assert not held
        return
    assert old is not None
    assert new is not None
    assert said is not None
    owner = old["owner"]["session"].strip()
    assert owner == said["session_id"]
    assert changed(old, new) <= OF_A_STOP
    counted = new.get("reinforcementsUsed", 0) - old.get("reinforcementsUsed", 0)
    assert counted == int(held)
    assert held or changed(old, new) & {"asked", "waitedFor"}
    assert old.get("phase") not in ("complete", "failed", "escalated")


@LAW
@given(state=STATES.map(encoded), event=EVENTS.map(encoded))
def test_a_stop_answers_any_event_in_any_state(scratch: Scratch, state: bytes, event: bytes) -> None:
    scratch.write(state)
    held = check_answer(scratch.stop(event))

    check_stop(state, event, scratch.read(), held=held)
    if held:
        scratch.check_readable()


@LAW
@given(state=STATES.map(encoded), event=st.binary(max_size=40))
def test_a_stop_answers_any_bytes(scratch: Scratch, state: bytes, event: bytes) -> None:
    scratch.write(state)

    assert not check_answer(scratch.stop(event))
    assert scratch.read() == state


@settings(LAW, max_examples=120)
@pytest.mark.parametrize("name", COMMANDS)
@given(state=STATES.map(encoded))
def test_a_command_answers_in_any_state_and_keeps_what_it_does_not_know(
    scratch: Scratch, name: str, state: bytes
) -> None:
    scratch.write(state)
    status, answer = scratch.command(*COMMANDS[name])
    old, new = parsed(state), parsed(scratch.read())

    assert (status != 0) is ("error" in answer)
    assert status in (0, 1)
    if name in ASKING or (status and answer.get("code") != "fix_limit"):
        assert scratch.read() == state
    else:
        scratch.check_readable()
    if status == 0 and name not in (*ASKING, "init"):
        assert old is not None
        assert new is not None
        kept = [key for key in ("théirs", "x", "", "\ud800", "task", "size", "protection", "worktree") if key in old]
        assert all(same(old[key], new[key]) for key in kept)


@settings(LAW, max_examples=25)
@given(state=STATES.map(encoded), event=EVENTS.map(encoded))
def test_the_registered_hook_answers_any_event_in_any_state(scratch: Scratch, state: bytes, event: bytes) -> None:
    scratch.write(state)
    said = scratch.project.stop(stdin=event)

    assert said.stderr == b""
    check_stop(state, event, scratch.read(), held=check_answer(said.answer))
