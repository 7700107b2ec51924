"""Whatever is broken of what we installed: a real client calls its model once, and says nothing of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Union

import pytest

from support import executable

from .builds import holds, trusted
from .claude import Claude, ClaudeTurn

if TYPE_CHECKING:
    from support import Project

    from .codex import Codex, CodexTurn
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory

    Client = Union[Claude, Codex]

HOOK = ".instar/hooks/instar/build-stop-hook.py"
RUN = ".instar/hooks/instar/run"
PYTHON = ".instar/state/python"

Fault = Callable[[Path], object]


def changed(change: Callable[[str], str]) -> Fault:
    """Return what rewrites a file; its mode stays."""
    return lambda path: path.write_bytes(change(path.read_text()).encode())


def with_conflict(text: str) -> str:
    """Return the text as a merge leaves it that is not settled."""
    middle = len(text) // 2
    return f"{text[:middle]}\n<<<<<<< HEAD\nours\n=======\ntheirs\n>>>>>>> other\n{text[middle:]}"


def leads_to_no_program(path: Path) -> None:
    path.unlink()
    path.symlink_to(executable(path.with_name("none"), "no program"))


emptied = changed(lambda _: "")
FAULTS: dict[str, tuple[str, Fault]] = {
    "hook missing": (HOOK, Path.unlink),
    "hook empty": (HOOK, emptied),
    "hook truncated": (HOOK, changed(lambda text: text[: len(text) // 2])),
    "hook with conflict markers": (HOOK, changed(with_conflict)),
    "hook that ends with 2": (HOOK, changed(lambda _: "import sys; sys.stderr.write('wrong usage'); sys.exit(2)")),
    "hook that is a folder": (HOOK, lambda path: (path.unlink(), path.mkdir())),
    "run missing": (RUN, Path.unlink),
    "run empty": (RUN, emptied),
    "run truncated": (RUN, changed(lambda text: text[: text.index('[ -e "$instar/server')])),
    "run with CRLF": (RUN, changed(lambda text: text.replace("\n", "\r\n"))),
    "run with conflict markers": (RUN, changed(with_conflict)),
    "run not executable": (RUN, lambda path: path.chmod(0o644)),
    "interpreter that is none": (PYTHON, leads_to_no_program),
    "all of .instar gone": (".instar", shutil.rmtree),
}


@pytest.fixture(params=["claude", "codex"])
def client(request: pytest.FixtureRequest, fake_model: ModelFactory, project: Project) -> Client:
    """Return either client in the project, able to run its hooks."""
    factory: ClaudeFactory | CodexFactory = request.getfixturevalue(request.param)
    driven = factory(fake_model(ceiling=20), project=project.root)
    return driven if isinstance(driven, Claude) else trusted(driven)


@pytest.fixture
def owned(client: Client, project: Project) -> str:
    """Return the session that owns a large build, and can be resumed."""
    session = client.prompt("hello").session_id
    project.build("init", "a task", "--size", "LARGE", "--owner-session", session)
    return session


def assert_called_once_more(client: Client, turn: ClaudeTurn | CodexTurn) -> None:
    """Check that the second prompt called the model once, and no hook failed or said a thing."""
    assert [request.user_texts for request in client.model.requests] == [("hello",), ("go on",)]
    if isinstance(turn, ClaudeTurn):
        assert {(run.exit_code, run.outcome, run.stdout) for run in turn.hooks} == {(0, "success", "")}
    else:
        assert {outcome for _, outcome in turn.hook_outcomes} == {"Completed"}


@pytest.fixture
def bin_without_python(tmp_path: Path) -> Path:
    """Return a folder with the programs a client needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "bash", "env", "git", "node", "ps"):
        found = shutil.which(name)
        assert found
        (folder / name).symlink_to(found)
    return folder


@pytest.mark.parametrize(("place", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_the_model_is_called_once(client: Client, owned: str, project: Project, place: str, fault: Fault) -> None:
    fault(project.root / place)

    turn = client.resume(owned, "go on")

    assert_called_once_more(client, turn)


def test_the_model_is_called_once_without_an_interpreter(
    client: Client, owned: str, project: Project, bin_without_python: Path
) -> None:
    (project.root / PYTHON).unlink()

    turn = client.resume(owned, "go on", env={"PATH": os.fspath(bin_without_python)})

    assert_called_once_more(client, turn)
    assert project.used == 0


@pytest.mark.parametrize("has_interpreter", [True, False], ids=["its own", "of PATH"])
def test_with_an_interpreter_the_same_session_is_held(
    client: Client, owned: str, project: Project, *, has_interpreter: bool
) -> None:
    if not has_interpreter:
        (project.root / PYTHON).unlink()

    client.resume(owned, "go on")

    assert holds(project, client.model) == 10
