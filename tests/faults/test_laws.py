"""Each law catches a program that breaks it: else the silence of the others would say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults import laws
from tests.faults.harness import build, stop

if TYPE_CHECKING:
    from support import Project

HOOK = "build-stop-hook.py"
COMMANDS = "build-state.py"
END = 'if __name__ == "__main__":'


@pytest.fixture
def owned(breakable: Project) -> Project:
    """Return a project with a build that session "s" owns."""
    breakable.build("init", "a task", "--owner-session", "s")
    breakable.build("transition", "executing")
    return breakable


def spoil(project: Project, script: str, code: str) -> laws.Seen:
    """Put code that redefines something before the last lines of an installed script; return what there is now."""
    place = project.root / ".instar/hooks/instar" / script
    head, end, tail = place.read_text(encoding="utf-8").rpartition(END)
    assert end
    place.write_text(f"{head}{code}\n\n\n{end}{tail}", encoding="utf-8")
    return laws.Seen.of(project)


def test_a_state_that_is_written_in_place_is_not_whole(owned: Project) -> None:
    code = "def replace_file(path, data):\n    with open(path, 'wb') as file:\n        file.write(data)"
    before = spoil(owned, COMMANDS, code)
    build(owned, "kill-before@4", "transition", "verifying")

    with pytest.raises(ValueError, match="Expecting value"):
        laws.the_state_is_whole(owned, before)


def test_a_hold_that_is_not_counted_is_beyond_the_budget(owned: Project) -> None:
    before = spoil(
        owned, HOOK, "class Uncounted(Build):\n    def save(self, state):\n        pass\n\n\nBuild = Uncounted"
    )
    held = stop(owned, "none").is_held

    with pytest.raises(AssertionError, match="1 blocks were given and 0 counted"):
        laws.the_budget_is_exact(owned, int(held), all_were_heard=True, since=before.used)


def test_a_count_without_a_hold_is_not_exact(owned: Project) -> None:
    before = spoil(owned, HOOK, "def block(reason):\n    return {}")
    held = stop(owned, "none").is_held

    with pytest.raises(AssertionError, match="1 holds were counted, 0 blocks given"):
        laws.the_budget_is_exact(owned, int(held), all_were_heard=True, since=before.used)


def test_a_hook_that_writes_beside_touches_the_users_files(owned: Project) -> None:
    before = spoil(owned, HOOK, "def read_event():\n    open('mine', 'w').close()\n    return {}")
    stop(owned, "none")

    with pytest.raises(AssertionError, match=r"outside .instar: .'mine'"):
        laws.the_users_bytes_are_intact(owned, before)


def test_a_hook_that_keeps_its_trouble_to_itself_leaves_no_trace(owned: Project) -> None:
    before = spoil(owned, HOOK, "def tell(root, role, trouble):\n    return ''")
    said = stop(owned, "EIO@3")

    with pytest.raises(AssertionError, match="without a trace"):
        laws.a_trace_is_left(owned, before, said)


def test_a_temporary_file_that_stays_is_seen(owned: Project) -> None:
    spoil(owned, COMMANDS, "")
    build(owned, "kill-before@7", "transition", "verifying")

    with pytest.raises(AssertionError, match=r"temporary files are left: .*\.tmp"):
        laws.no_temporary_file_is_left(owned)


@pytest.mark.parametrize("code", ["ALLOW = {'decision': 'approve'}", "ALLOW = {'continue': True}", "ALLOW = 7"])
def test_an_answer_that_a_client_does_not_know_is_not_valid(owned: Project, code: str) -> None:
    spoil(owned, HOOK, code)
    said = stop(owned, "none", "stranger")

    with pytest.raises(AssertionError):
        laws.the_answer_is_valid(said)


def test_a_step_that_is_answered_for_and_not_kept_is_lost(owned: Project) -> None:
    spoil(owned, COMMANDS, "class Lazy(Build):\n    def save(self, state):\n        pass\n\n\nBuild = Lazy")
    done = build(owned, "none", "step-complete", "1", "a step", "1", "1")

    with pytest.raises(AssertionError, match=r"steps \[1\] were acknowledged"):
        laws.no_acknowledged_step_is_lost(owned, [done.answer["step"]])


def test_a_stop_that_writes_other_keys_is_seen(owned: Project) -> None:
    code = "def decide(state, event):\n    return {'reinforcementsUsed': 1, 'phase': 'idle'}"
    before = spoil(owned, HOOK, code)
    stop(owned, "none")

    with pytest.raises(AssertionError, match=r"a stop changed \['phase'\]"):
        laws.a_stop_changes_only_its_own_keys(owned, before)


def test_a_line_that_is_glued_to_a_torn_one_is_seen(owned: Project) -> None:
    with (owned.root / laws.AUDIT).open("ab") as file:
        file.write(b'{"torn')

    with pytest.raises(AssertionError, match="torn lines in the audit log"):
        laws.the_audit_can_be_read(owned)
    assert laws.the_audit_can_be_read(owned, torn=1)


def test_an_end_that_is_archived_twice_is_seen(owned: Project) -> None:
    copy = owned.root / owned.build("cancel")["archivedTo"]
    laws.every_end_is_archived_once(owned)
    copy.with_name("another.json").write_bytes(copy.read_bytes())

    with pytest.raises(AssertionError, match="2 copies of one build"):
        laws.every_end_is_archived_once(owned)
