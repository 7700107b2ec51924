"""The commands of a build, run as they are installed: what each does, refuses, writes and answers."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hooks.common.phases import PHASES, TERMINAL, legal_targets
from support import BIN

if TYPE_CHECKING:
    from support import Project

STATE_KEYS = [
    "task", "phase", "size", "protection", "startedAt", "completedAt", "owner", "currentStep", "totalSteps", "steps",
    "totalTests", "allPassing", "fixIterations", "maxFixIterations", "verifyIterations", "maxVerifyIterations",
    "reinforcementsUsed", "worktree",
]  # fmt: skip


@pytest.fixture
def build(project: Project) -> Project:
    """Return a project with a build."""
    project.build("init", "Mend the roof", "--owner-session", "s")
    return project


def in_phase(project: Project, phase: str) -> Project:
    project.change_state(phase=phase)
    return project


@pytest.mark.parametrize(
    ("size", "label", "budget"), [("SMALL", "light", 3), ("STANDARD", "medium", 5), ("LARGE", "heavy", 10)]
)
def test_init_writes_the_state_of_the_peer(project: Project, size: str, label: str, budget: int) -> None:
    answer = project.build("init", "Mend the röof", "--size", size)

    assert answer["status"] == "initialized"
    assert (answer["size"], answer["protection"], answer["reinforcements"]) == (size, label, budget)
    assert list(project.state) == STATE_KEYS
    assert project.state["protection"] == {"reinforcements": budget, "label": label}
    text = project.state_path.read_text(encoding="ascii")
    assert text == json.dumps(project.state, indent=2)
    (entry,) = project.events()
    assert list(entry) == ["event", "timestamp", "task", "size", "ownerTmux", "ownerSession"]


def test_the_answer_names_a_command_that_works_anywhere(build: Project, tmp_path: Path) -> None:
    build.build("cancel")
    command = build.build("init", "another")["command"]

    assert '"task": "another"' in build.run("/bin/sh", "-c", f"{command} status", cwd=tmp_path).stdout


REFUSED: list[tuple[str, list[str], str, int]] = [
    # phase, command -> code, exit
    ("executing", ["init", "again"], "active_build", 1),
    ("idle", ["init", " "], "usage", 2),
    ("idle", ["init", "x", "--size", "small"], "usage", 2),
    ("idle", ["init", "x", "--total-steps", "-1"], "usage", 2),
    ("idle", ["init"], "usage", 2),
    ("idle", ["nonsense"], "usage", 2),
    ("idle", [], "usage", 2),
    ("idle", ["transition", "nowhere"], "invalid_phase", 1),
    ("idle", ["transition", "verifying"], "illegal_transition", 1),
    ("failed", ["transition", "planning"], "build_terminal", 1),
    ("idle", ["step-complete", "1", "d", "1", "1"], "wrong_phase", 1),
    ("executing", ["step-complete", "1", "d", "1", "2"], "usage", 2),
    ("executing", ["step-complete", "-1", "d", "1", "1"], "usage", 2),
    ("executing", ["step-complete", "one", "d", "1", "1"], "usage", 2),
    ("idle", ["complete"], "illegal_transition", 1),
    ("fixing", ["complete"], "illegal_transition", 1),
    ("failed", ["complete", "--force"], "build_terminal", 1),
    ("complete", ["cancel"], "build_terminal", 1),
    ("escalated", ["ask", "q"], "build_terminal", 1),
    ("idle", ["ask", " "], "usage", 2),
    ("idle", ["query", "--limit", "-1"], "usage", 2),
    ("idle", ["status", "--project", "/nonexistent"], "usage", 2),
]


@pytest.mark.parametrize(("phase", "command", "code", "status"), REFUSED)
def test_a_refusal_has_a_code_and_changes_nothing(
    build: Project, phase: str, command: list[str], code: str, status: int
) -> None:
    in_phase(build, phase)
    before = build.state_path.read_bytes(), build.events()

    answer = build.build(*command)

    assert (answer["code"], answer["exit"]) == (code, status)
    assert answer["error"]
    assert (build.state_path.read_bytes(), build.events()) == before


@pytest.mark.parametrize(
    "command",
    [["transition", "planning"], ["step-complete", "1", "d", "1", "1"], ["complete"], ["cancel"], ["ask", "q"]],
)
def test_without_a_build_there_is_nothing_to_change(project: Project, command: list[str]) -> None:
    answer = project.build(*command)

    assert answer["code"] == "no_build"
    assert "init" in answer["hint"]
    assert not project.state_path.exists()


def test_without_a_build_the_questions_are_answered(project: Project) -> None:
    assert project.build("status") == {"status": "no_active_build", "exit": 0}
    assert project.build("resume")["canResume"] is False
    assert project.build("query") == {"count": 0, "entries": [], "exit": 0}


@pytest.mark.parametrize("phase", PHASES)
def test_the_transition_table_holds(build: Project, phase: str) -> None:
    for target in PHASES:
        in_phase(build, phase)
        answer = build.build("transition", target, "--evidence", "seen")

        legal = legal_targets(phase)
        assert (answer["exit"] == 0) is (target in legal), (phase, target, answer)
        if answer["exit"]:
            assert answer["code"] == ("build_terminal" if phase in TERMINAL else "illegal_transition")
            assert answer.get("legal_targets", legal) == legal
        else:
            assert (answer["from"], answer["to"]) == (phase, target)
            last = build.events("phase.transition")[-1]
            assert (last["from"], last["to"], last["evidence"]) == (phase, target, "seen")
        build.change_state(fixIterations=0)


@pytest.mark.parametrize("phase", ["complete", "failed", "escalated"])
def test_every_end_is_dated_and_archived(build: Project, phase: str) -> None:
    in_phase(build, "verifying")

    answer = build.build("transition", phase)

    archived = json.loads((build.root / answer["archivedTo"]).read_bytes())
    assert archived == build.state
    assert archived["phase"] == phase
    assert archived["completedAt"]


def test_three_fix_cycles_are_allowed_and_the_fourth_escalates(build: Project) -> None:
    in_phase(build, "verifying")
    for _ in range(3):
        assert build.build("transition", "fixing")["exit"] == 0
        assert build.build("transition", "verifying")["exit"] == 0

    answer = build.build("transition", "fixing")

    assert (answer["code"], answer["action"], answer["exit"]) == ("fix_limit", "escalated", 1)
    assert build.state["phase"] == "escalated"
    assert build.state["verifyIterations"] == 3
    assert (build.root / build.state["archivedTo"]).exists()
    (escalated,) = build.events("build.escalated")
    assert (escalated["reason"], escalated["iterations"]) == ("max_fix_iterations", 4)


def test_steps_add_up(build: Project) -> None:
    in_phase(build, "executing")
    build.build("step-complete", "1", "beams", "3", "3")
    answer = build.build("step-complete", "2", "slates", "4", "2")

    counted = {"step": 2, "tests": 4, "passing": 2, "totalTests": 7, "allPassing": False}
    assert answer == {"status": "step_completed", **counted, "exit": 0}
    assert build.state["currentStep"] == 2
    assert [list(each) for each in build.state["steps"]] == [
        ["step", "description", "tests", "passing", "timestamp"]
    ] * 2
    refused = build.build("transition", "complete")
    assert (refused["code"], refused["failing"]) == ("tests_failing", [2])
    repeated = build.build("step-complete", "2", "slates", "4", "4")
    assert (repeated["repeat"], repeated["allPassing"]) == (True, True)
    assert build.build("transition", "complete")["exit"] == 0


def test_completing_twice_is_completing_once(build: Project) -> None:
    in_phase(build, "executing")
    first = build.build("complete")
    before = build.state_path.read_bytes(), build.events()

    assert build.build("complete") == first
    assert (build.state_path.read_bytes(), build.events()) == before
    assert [entry["event"] for entry in build.events()[-2:]] == ["phase.transition", "build.complete"]


def test_force_completes_from_any_phase_that_is_not_final_and_says_so(build: Project) -> None:
    assert build.build("complete", "--force")["exit"] == 0
    assert build.events("phase.transition")[-1]["evidence"] == "--force"


def test_cancel_ends_the_build_with_its_reason(build: Project) -> None:
    answer = build.build("cancel", "sold the house")

    assert (answer["status"], answer["reason"]) == ("cancelled", "sold the house")
    assert build.state["phase"] == "failed"
    assert build.events("build.cancelled")[0]["reason"] == "sold the house"


def test_a_new_build_keeps_what_the_peer_left_of_the_last(build: Project) -> None:
    build.change_state(phase="failed", worktree={"path": ".instar/worktrees/x", "branch": "x"})
    before = build.state

    answer = build.build("init", "next")

    archived = json.loads((build.root / answer["archivedPrevious"]).read_bytes())
    assert {**before, "archivedTo": answer["archivedPrevious"]} == archived
    assert answer["orphanWorktree"] == {"path": ".instar/worktrees/x", "branch": "x"}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"phase":', b"\xff"])
def test_a_corrupt_state_is_refused_by_all_and_set_aside_by_init(build: Project, content: bytes) -> None:
    build.state_path.write_bytes(content)

    for command in (["status"], ["resume"], ["transition", "planning"], ["complete"], ["cancel"], ["ask", "q"]):
        assert (build.build(*command)["code"], build.state_path.read_bytes()) == ("state_corrupt", content)
    answer = build.build("init", "next")
    assert (build.root / answer["recovered"]).read_bytes() == content
    assert build.state["task"] == "next"
    assert build.events("state.corrupt")[0]["path"] == answer["recovered"]


@pytest.mark.parametrize("key", STATE_KEYS)
@pytest.mark.parametrize("value", [None, 7, "x", [7], {"a": 1}])
def test_a_mistyped_or_missing_key_crashes_no_reader(build: Project, key: str, value: Any) -> None:
    build.change_state(**{key: value})

    for command in (["status"], ["resume"], ["query"]):
        assert build.build(*command)["exit"] == 0


@pytest.mark.parametrize(
    ("key", "value"), [("steps", {}), ("fixIterations", "x"), ("maxFixIterations", []), ("verifyIterations", {})]
)
def test_what_a_command_counts_on_must_be_right(build: Project, key: str, value: Any) -> None:
    for phase, command in (
        ("executing", ["step-complete", "1", "d", "1", "1"]),
        ("verifying", ["transition", "fixing"]),
        ("fixing", ["transition", "verifying"]),
    ):
        build.change_state(**{"phase": phase, key: value})
        answer = build.build(*command)
        assert answer["exit"] == 0 or (answer["code"] == "state_corrupt" and f'"{key}"' in answer["error"])
        assert build.state[key] == value or answer["exit"] == 0


def test_unknown_keys_survive_every_command(build: Project) -> None:
    build.change_state(theirs={"deep": [1.5, "ü"]})
    for command in (
        ["transition", "executing"], ["step-complete", "1", "d", "1", "1"], ["ask", "q"], ["transition", "verifying"],
        ["complete"],
    ):  # fmt: skip
        assert build.build(*command)["exit"] == 0
        assert build.state["theirs"] == {"deep": [1.5, "ü"]}


def test_the_mode_of_the_state_stays(build: Project) -> None:
    build.state_path.chmod(0o600)
    build.build("transition", "planning")

    assert build.state_path.stat().st_mode & 0o777 == 0o600


def test_query_filters_and_counts_from_the_end(build: Project) -> None:
    for phase in ("planning", "executing", "verifying"):
        build.build("transition", phase)
    audit = build.state_path.parent / "audit.jsonl"
    audit.write_bytes(audit.read_bytes() + b'torn {"event"')

    assert build.build("query", "--event", "phase.transition")["count"] == 3
    assert build.build("query", "--phase", "executing")["count"] == 2
    assert [entry["to"] for entry in build.build("query", "--limit", "1")["entries"]] == ["verifying"]
    assert build.build("query", "--limit", "0")["count"] == 0
    build.build("transition", "hardening")
    assert build.build("query", "--limit", "1")["entries"][0]["to"] == "hardening"


def test_resume_tells_where_to_go_on(build: Project) -> None:
    (build.state_path.parent / "plan.md").touch()
    answer = build.build("resume")

    assert (answer["canResume"], answer["phase"], answer["planExists"]) == (True, "idle", True)
    build.build("cancel")
    assert build.build("resume")["reason"] == "the build is failed"


def test_status_tells_everything(build: Project) -> None:
    answer = build.build("status")

    assert answer["elapsedMinutes"] == 0.0
    assert (answer["task"], answer["protection"], answer["reinforcementsUsed"]) == ("Mend the roof", "medium", 0)
    for broken in ("2026-01-01T00:00:00", "2026-01-01T00:00:00Z"):
        build.change_state(startedAt=broken)
        assert build.build("status")["elapsedMinutes"] > 0
    build.change_state(startedAt="yesterday")
    assert build.build("status")["elapsedMinutes"] is None


def test_a_lock_held_elsewhere_is_named(build: Project) -> None:
    with subprocess.Popen(
        ["flock", str(build.state_path.parent / ".lock"), "sh", "-c", "echo held; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        answer = build.build("transition", "planning")
        holder.communicate(b"\n")

    assert (answer["code"], answer["exit"]) == ("lock_timeout", 1)


# Where the project is


def console(cwd: Path, *arguments: str, **env: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("build-state")), *arguments],
        cwd=cwd, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_console_script_finds_the_project(build: Project, tmp_path: Path) -> None:
    build.run("git", "-c", "user.name=n", "-c", "user.email=e@x", "commit", "--allow-empty", "-qm", "first")
    deep = build.root / "sub" / "deep"
    deep.mkdir(parents=True)
    inner, outer = build.root / ".instar/worktrees/x", tmp_path / "tree"
    for number, tree in enumerate((inner, outer)):
        build.run("git", "worktree", "add", "-q", "-b", f"b{number}", str(tree))

    for folder in (build.root, deep, inner, outer):
        assert console(folder, "status")["task"] == "Mend the roof"
    assert console(tmp_path, "status", "--project", str(build.root))["task"] == "Mend the roof"
    assert console(tmp_path, "--dir", str(deep.parent.parent), "status")["task"] == "Mend the roof"
    assert console(tmp_path, "status", INSTAR_PROJECT_DIR=str(build.root))["task"] == "Mend the roof"
    (tmp_path / ".git").mkdir()
    assert console(tmp_path, "status")["status"] == "no_active_build"


def test_an_empty_git_folder_as_the_sandbox_of_codex_makes_it_is_no_repository(build: Project) -> None:
    inside = build.root / "sub/deep"
    inside.mkdir(parents=True)
    for folder in (inside, inside.parent):
        (folder / ".git").mkdir()

    assert console(inside, "status")["task"] == "Mend the roof"
    assert "nothing to do" in build.run(str(BIN / "instar-migrate"), cwd=inside).stdout


def test_a_repository_inside_is_another_project(build: Project) -> None:
    inner = build.root / "inner"
    inner.mkdir()
    build.run("git", "init", "-q", ".", cwd=inner)

    assert console(inner, "status")["status"] == "no_active_build"


def test_a_first_build_without_an_installation_is_kept_out_of_git_and_says_what_is_missing(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)  # its top ends the search for a project
    answer = console(tmp_path, "init", "a task", "--owner-session", "s")

    assert answer["warnings"] == [f"no Stop hook is registered in {tmp_path}: run instar-migrate there"]
    assert (tmp_path / ".instar/.gitignore").read_text() == "*\n"


# On a terminal


def on_a_terminal(project: Project, *arguments: str) -> str:
    """Run build-state with a terminal as its output and return what a person sees."""
    ours, theirs = pty.openpty()
    subprocess.run(
        [".instar/state/python", ".instar/hooks/instar/build-state.py", *arguments],
        cwd=project.root, env=project.env, stdout=theirs, stderr=theirs, check=False,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            seen += chunk
    except OSError:  # how Linux tells the end of a terminal
        pass
    os.close(ours)
    return seen.decode().replace("\r\n", "\n")


def test_a_person_reads_text(build: Project) -> None:
    assert on_a_terminal(build, "status").startswith("Mend the roof\n  STANDARD build, 0.0 min, owned by session s\n")
    assert "task: Mend the roof\nphase: idle\n" in on_a_terminal(build, "resume")
    assert on_a_terminal(build, "transition", "verifying") == (
        "build-state: a build cannot go from idle to verifying\n"
        "from idle it can go to: clarify, planning, executing, failed, escalated\n"
    )
    entry = build.events()[0]
    assert f"  build.initialized  {entry['timestamp']}  task=Mend the roof  size=STANDARD" in on_a_terminal(
        build, "query"
    )


def test_a_person_may_ask_for_json(build: Project) -> None:
    for arguments in (["status", "--json"], ["--json", "status"]):
        assert json.loads(on_a_terminal(build, *arguments))["task"] == "Mend the roof"


@pytest.mark.parametrize("command", ["", "init", "transition", "step-complete", "status", "query", "complete", "ask"])
def test_every_command_explains_itself(build: Project, command: str) -> None:
    said = on_a_terminal(build, *command.split(), "--help")

    assert said.startswith("usage: build-state")
