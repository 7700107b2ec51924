"""The book tells the truth: its commands run, and what it names exists."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from book import OTHERS, OURS, PAGES, REPOSITORY, Example, Page
from hooks.common.phases import PHASES, TRANSITIONS
from instar.cli.peer_views import STYLES
from instar.config import SCHEMA, problems
from instar.gate.rules import Pointer, reminder
from instar.lifecycle.decision import ROWS
from instar.lifecycle.profile import SCHEMA as PROFILE
from instar.sessions.classifier import NAMES
from migrator.steps.documents import SECTIONS
from playbook_scripts.build_state import command_line
from support import BIN, Project

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

SESSION = "3f0c1d8e-6f1b-4b57-9a43-5d2f6c0a7b11"
EXCUSE = "I'll stop here to preserve context; the rest can be done in a fresh session."
FOLDER = "services/api"  # that examples name
DEADLINE_S = 30.0

# Examples that are not run, and why; those of ours are parsed all the same.
NOT_RUN = {
    r"make .*": "sets up an environment",
    r"pipx install .*": "installs",
    r"cd .*": "the story is in the project already",
    r"\.venv/bin/python .*": "works on this repository; other tests run it",
    r"instar-migrate --trust-codex": "asks the real Codex",
    r"instar-sessions list --watch": "goes on until q",
    r"instar-sessions reaper selftest": "starts a tmux server; the demonstration runs it",
    r"instar-sessions resume ID": "becomes the client",
    r"instar-peers send .*": "wakes a real client",
    r"instar-gate review": "asks a person",
}
# Examples that are refused in the world of a story, where nothing runs and little was seen: status 1, and these words.
REFUSED = {
    r"instar-gate mode enforce": "enforce asks for more than was seen",
    r"instar-gate mode enforce --check-thresholds": "not met",
    r"instar-sessions (terminate|kill) ID.*": "is kept by liveness-indeterminate",
    r"instar-sessions resume ID --print": "cannot be taken up again",
}
# What was done before a page begins.
BEFORE = {
    "docs/troubleshooting.md": [
        f"build-state init 'a task' --owner-session {SESSION}",
        "instar-peers add bob --runtime claude-code",
        "instar-sessions reaper enable",
    ],
}
# Words in the shape of a configuration's key that are none, and whose they are.
OTHER_KEYS = {"retryAfter": "instar/lifecycle/wake.py", "expiresAt": "instar/sessions/leases.py"}
PRIVATE = tuple(
    f".instar/{name}/"
    for name in ("agents", "backups", "logs", "server-data", "state/build", "state/lifecycle", "state/sessions")
)
# Paths of projects that begin as one of the repository does.
OF_PROJECTS = {"docs/plans", "docs/specs", "docs/plans/roof.md"}
ROOMS = ("hooks", "playbook_scripts", "templates", "migrator", "instar", "tests", "benchmarks", "docs", "upgrades")

PARSED = [pytest.param(page, id=page.path) for page in PAGES]
STORIES = [pytest.param(page, id=page.path) for page in PAGES if page.examples]


def fits(example: Example, patterns: dict[str, str]) -> str:
    """Return what is said of the first pattern that an example fits; "" for none."""
    return next((said for pattern, said in patterns.items() if re.fullmatch(pattern, example.text)), "")


class World:
    """A project in which a page's story happens: one session on record, and a plan of yesterday."""

    def __init__(self, project: Project, tmp_path: Path) -> None:
        env = {**project.env, "PATH": f"{BIN}:/usr/bin:/bin", "TMUX_TMPDIR": str(tmp_path), "PAGER": "cat"}
        env |= {f"GIT_{who}_{what}": "a@b.invalid" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.project = replace(project, env=env)
        yesterday = f"{int(time.time()) - 86400} +0000"
        plan = project.root / "docs/plans/roof.md"
        plan.parent.mkdir(parents=True)
        plan.write_text("# The roof\n\n- [x] take the old tiles off\n- [ ] put the new ones on\n", encoding="utf-8")
        (project.root / FOLDER).mkdir(parents=True)
        self.project.run("git", "add", "docs")
        dates = {"GIT_AUTHOR_DATE": yesterday, "GIT_COMMITTER_DATE": yesterday}
        self.project.run("git", "commit", "-q", "-m", "a plan", **dates)
        self.fire("SessionStart", "session-event-hook", source="startup")
        self.fire("UserPromptSubmit", "session-event-hook", prompt="go on with the roof")

    def fire(self, event: str, role: str, **more: str) -> str:
        """Fire a registered command as Claude Code does, and return what it answers."""
        whole = {"session_id": SESSION, "hook_event_name": event, "cwd": str(self.project.root), **more}
        command = ["/bin/sh", "-c", self.project.registered("claude", role, event)]
        env = {**self.project.env, "CLAUDE_PROJECT_DIR": str(self.project.root)}
        return subprocess.run(
            command, input=json.dumps(whole), cwd=self.project.root, env=env, capture_output=True, text=True, check=True
        ).stdout

    def event(self) -> str:
        """Return the id of a stop that the gate saw."""
        self.fire("Stop", "stop-gate-router", last_assistant_message=EXCUSE)
        deadline = time.monotonic() + DEADLINE_S
        while not (seen := json.loads(self.project.run("instar-gate", "log", "--json").stdout)):
            assert time.monotonic() < deadline, "no stop is on record"
            time.sleep(0.1)
        found: dict[str, str] = (seen["events"] if isinstance(seen, dict) else seen)[0]
        return found.get("event_id") or found["eventId"]

    def run(self, example: Example) -> None:
        """Run an example; it has to succeed, or to be refused as is known."""
        fill = {"EVENT": self.event()} if " EVENT" in example.text else {}
        done = subprocess.run(
            example.words(ID=SESSION, **fill), cwd=self.project.root, env=self.project.env, capture_output=True,
            text=True, stdin=subprocess.DEVNULL, timeout=DEADLINE_S, check=False,
        )  # fmt: skip
        refused = fits(example, REFUSED)
        assert done.returncode == bool(refused), (example.text, done)
        assert refused in done.stderr + done.stdout, (example.text, done)
        assert "Traceback" not in done.stderr, (example.text, done)

    def mode(self, path: str) -> int:
        """Return the mode of a file of the project."""
        return (self.project.root / path).stat().st_mode

    def written(self) -> set[str]:
        """Return every file below the project and the home that the page about files has to name."""
        home = Path(self.project.env["HOME"])
        places = [("", self.project.root), ("~/", home)]
        return {
            before + path.relative_to(root).as_posix()
            for before, root in places
            for path in root.rglob("*")
            if not (path.is_dir() and not path.is_symlink()) and ".git" not in path.relative_to(root).parts
        }


@contextmanager
def world(project: Project, tmp_path: Path) -> Iterator[World]:
    """Make a world, and end its server."""
    made = World(project, tmp_path)
    try:
        yield made
    finally:
        made.project.run("instar-server", "stop")


@pytest.mark.parametrize("page", STORIES)
def test_a_page_is_a_story_whose_commands_run(page: Page, project: Project, tmp_path: Path) -> None:
    with world(project, tmp_path) as here:
        for line in BEFORE.get(page.path, []):
            here.run(Example(line))
        for example in page.examples:
            if not fits(example, NOT_RUN):
                here.run(example)
        assert not {path for path in here.written() if not is_on_the_page_about_files(path)}
        assert not {path for path in here.written() if is_private(path) and here.mode(path) & 0o077}


def is_private(path: str) -> bool:
    """Say whether the page about files tells that nobody else may read a file."""
    return path.startswith(PRIVATE) and not path.endswith(".lock")


def is_on_the_page_about_files(path: str) -> bool:
    """Say whether a file is named on that page, belongs to one that is, or is none of ours."""
    name = path.rpartition("/")[2]
    if name.endswith((".lock", "-wal", "-shm")) or (name.startswith(".") and name != ".gitignore"):
        return True
    if path.startswith("docs/plans/"):  # of the story itself
        return True
    page = Page("docs/files.md")
    rows = page.rows("Path")
    logs = page.text.index("## Logs")
    patterns = {
        f".instar/logs/{word}*" if page.text.index(f"`{word}`") > logs else word
        for cells in rows
        for word in re.findall(r"`([^`]+)`", cells[0])
    }
    shaped = {re.sub(r"<\w+>", "*", word) + ("*" if word.endswith("/") else "") for word in patterns}
    return any(fnmatchcase(path, pattern) for pattern in shaped)


def test_what_the_readme_shows_is_what_a_held_session_reads(project: Project) -> None:
    (shown,) = [text for language, text in Page("README.md").fences if language == "text"]
    project.build("init", "Mend the roof", "--size", "SMALL", "--owner-session", SESSION)
    project.build("transition", "executing")

    assert project.stop(SESSION).answer["reason"].startswith(shown)


def test_what_pages_quote_is_what_is_said() -> None:
    quoted = {page: Page(f"docs/{page}.md").fences for page in ("gate", "migrating")}

    said = reminder("U2_PLAN_FILE_NEXT_STEP_EXPLICIT", Pointer("docs/plans/roof.md"))
    assert any(said.startswith(text.strip()) for _, text in quoted["gate"])
    assert ("text", f"{SECTIONS[0].begin}\n{SECTIONS[0].end}\n") in quoted["migrating"]


def test_the_reasons_not_to_run_or_to_be_refused_are_needed() -> None:
    examples = [example for page in PAGES for example in page.examples]
    for pattern in (*NOT_RUN, *REFUSED):
        assert any(re.fullmatch(pattern, example.text) for example in examples), pattern


# Commands that are shown, whether they are run or not.


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command of an installed program that words name, and what of them is left."""
    settings = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    scripts = re.findall(r'^([a-z-]+) = "([\w.]+):(\w+)"$', settings, re.MULTILINE)
    ((module, name),) = [found[1:] for found in scripts if found[0] == words[0]]
    command: click.Command = getattr(importlib.import_module(module), name)
    left = words[1:]
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        assert left[0] in command.commands, words
        command = command.commands[left.pop(0)]
    return command, left


def build_parser(words: list[str]) -> argparse.ArgumentParser:
    """Return the parser of `build-state` that words name."""
    verbs: dict[str, argparse.ArgumentParser] = command_line().commands.choices
    assert len(words) < 2 or words[1].startswith("-") or words[1] in verbs, words
    return verbs[words[1]] if words[1:] and words[1] in verbs else command_line().parser


def help_of(words: list[str]) -> str:
    """Return what `--help` says of the command that words name."""
    if words[0] == "build-state":
        return build_parser(words).format_help()
    command, _ = command_of(words)
    return command.get_help(click.Context(command, info_name=command.name, help_option_names=["-h", "--help"]))


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.fixture(scope="module")
def all_options() -> set[str]:
    """Return every option of every command."""
    found = options_in(command_line().parser.format_help())
    for parser in command_line().commands.choices.values():
        found |= options_in(parser.format_help())
    waiting = [command_of([name])[0] for name in OURS if name != "build-state"]
    for command in waiting:  # grows while it is walked
        found |= {option for each in command.params for option in each.opts} | {"--help"}
        waiting += command.commands.values() if isinstance(command, click.Group) else ()
    return found


@pytest.mark.parametrize("page", PARSED)
def test_each_command_on_a_page_and_each_of_its_options_is_there(page: Page) -> None:
    for example in (*page.examples, *page.spans):
        if example.program in OURS:
            assert example.options <= options_in(help_of(example.words())), example.line


@pytest.mark.parametrize("page", STORIES)
def test_each_example_is_a_whole_command(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    targets = re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for example in page.examples:
        words = example.words(ID=SESSION, EVENT="1")
        if example.program == "build-state":
            command_line().parser.parse_args(words[1:])
        elif example.program in OURS:
            command, left = command_of(words)
            command.make_context(command.name, left)
        elif example.program == "make":
            assert words[1] in targets, example.line
        else:
            assert example.program in OTHERS, example.line


@pytest.mark.parametrize("page", PARSED)
def test_each_option_that_a_page_names_is_one_of_some_command(page: Page, all_options: set[str]) -> None:
    assert page.options <= all_options


# Names.


@pytest.mark.parametrize("page", PARSED)
def test_each_link_leads_somewhere(page: Page) -> None:
    for link in page.links:
        if not link.startswith("https://"):
            assert (REPOSITORY / page.path).parent.joinpath(link.partition("#")[0]).exists(), link


def test_each_page_is_linked_from_the_first() -> None:
    assert {page.path for page in PAGES[1:]} <= set(Page("README.md").links)


@pytest.mark.parametrize("page", PARSED)
def test_each_file_of_the_repository_that_a_page_names_is_there(page: Page) -> None:
    modules = {path.name for room in ROOMS for path in (REPOSITORY / room).rglob("*.*")}
    typed = [word for example in page.examples for word in example.text.split() if "/" in word]
    for word in (*page.words, *typed):
        if word.partition("/")[0] in ROOMS and "/" in word and word not in OF_PROJECTS:
            assert (REPOSITORY / word.partition("::")[0]).exists(), word
        elif page.path == "docs/how-it-works.md" and re.fullmatch(r"[a-z_]+\.(py|db|json)", word):
            assert word in modules, word


def leaves(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Yield the dotted name of every key and block."""
    for key, inner in schema.get("properties", {}).items():
        yield f"{above}{key}"
        yield from leaves(inner, f"{above}{key}.")


@pytest.mark.parametrize("page", PARSED)
def test_each_configuration_key_that_a_page_names_is_in_the_schema(page: Page) -> None:
    dotted = set(leaves(SCHEMA))
    bare = {name.rpartition(".")[2] for name in dotted} | set(PROFILE["properties"]) | set(OTHER_KEYS)
    for word in page.words:
        if word.partition(".")[0] in SCHEMA["properties"] and re.fullmatch(r"[\w.]+(?<!\.log)", word):
            assert word in dotted, word
        elif re.fullmatch(r"[a-z]+([A-Z][A-Za-z]*)+", word):
            assert word in bare, word
    for language, text in page.fences:
        if language == "json" and json.loads(text).keys() <= SCHEMA["properties"].keys():
            assert problems(json.loads(text)) == []
        assert language in ("json", "mermaid", "text")
        assert not re.search(rf"^({'|'.join(OURS)})\b", text, re.MULTILINE), "a command belongs into an indented block"


def test_every_configuration_key_has_its_row() -> None:
    dotted = list(leaves(SCHEMA))
    keys = [name for name in dotted if not any(other.startswith(f"{name}.") for other in dotted)]
    named = [word for cells in Page("docs/configuration.md").rows("Key") for word in re.findall(r"`(.+)`", cells[0])]

    assert sorted(key.rpartition(".")[2] for key in keys) == sorted(word.rpartition(".")[2] for word in named)


def test_other_words_in_the_shape_of_a_key_are_known() -> None:
    for word, path in OTHER_KEYS.items():
        assert word in (REPOSITORY / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PARSED)
def test_each_variable_that_a_page_names_is_read_or_set(page: Page) -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for room in ROOMS[:5] for path in (REPOSITORY / room).rglob("*.py")
    )
    for word in re.findall(r"\bINSTAR_[A-Z_]+", page.text):
        assert word in sources, word


# Words of tables in the code.


def test_the_gates_of_sessions_are_those_of_the_code() -> None:
    named = {word.partition(":")[0] for word in Page("docs/sessions.md").named("Gate")}

    assert named == NAMES


def test_the_causes_and_states_of_peers_are_those_of_the_code() -> None:
    page = Page("docs/lifecycle.md")

    assert page.named("Cause") == {row.cause for row in ROWS}
    assert page.named("`list` says") == set(STYLES)


def test_the_keys_of_a_profile_are_those_of_its_schema() -> None:
    rows = Page("docs/lifecycle.md").rows("Key")

    assert {word for cells in rows for word in re.findall(r"`(\w+)`", cells[0])} == set(PROFILE["properties"])


def test_the_phases_of_builds_are_those_of_the_code() -> None:
    rows = {cells[0]: cells[2] for cells in Page("docs/builds.md").rows("Phase")}
    for phase in PHASES:
        (ways,) = [ways for names, ways in rows.items() if f"`{phase}`" in names]
        assert set(re.findall(r"`(\w+)`", ways)) == set(TRANSITIONS.get(phase, ())), phase


@pytest.mark.parametrize(("first", "room"), [("Cause", "instar/lifecycle"), ("Code", "migrator/doctor")])
def test_words_of_troubleshooting_are_told_by_the_code(first: str, room: str) -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / room).rglob("*.py"))
    for word in Page("docs/troubleshooting.md").named(first):
        assert f'"{word}' in sources, word


@pytest.mark.parametrize("page", PARSED)
def test_lines_of_prose_are_short(page: Page) -> None:
    assert not [line for line in page.text.splitlines() if len(line) > 120 and not line.startswith("|")]
    assert page.path != "README.md" or len(page.text.splitlines()) <= 120
