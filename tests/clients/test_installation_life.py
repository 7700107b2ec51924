"""From the installation over an upgrade and a user's edits to the end, the real clients run exactly what is registered.

The user has hooks of their own at every event of ours, in files that no program has formatted.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

import pytest

from migrator.codex_trust import grant
from migrator.registration import EVENTS, SETTINGS, handlers
from support import Project, executable

from . import claude as claude_module
from .builds import migrate
from .fake_model import Run, Say
from .waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from migrator.registration import Client

    from .claude import Claude
    from .codex import Codex
    from .conftest import ClaudeFactory, CodexFactory, ModelFactory
    from .fake_model import Request
    from .tui import Tmux

    Ran = Counter[tuple[str, str]]

HOOKS = ".instar/hooks/instar"
RECORD = ".instar/state/py-migrated-version.json"
FILES = {
    SETTINGS["claude"]: """\
{ "env" : {"OF_THE_USER":"k\\u00e9pt"},

\t"hooks":{"Stop" :[ { "matcher":"*",
\t\t"hooks":[ @Stop ]}],  "SessionStart":[{"hooks":[@SessionStart ] } ],"SessionEnd":
   [{"hooks":[@SessionEnd]}], "UserPromptSubmit":[ {"hooks" : [@UserPromptSubmit]} ],
 "PreCompact":[{"hooks":[@PreCompact]}]
 },"includeCoAuthoredBy" : false   }""",
    SETTINGS["codex"]: """\
{"hooks":{"SessionEnd":[{"hooks":[ @SessionEnd]}],
    "SessionStart" : [{"hooks":[@SessionStart]}] ,\t"Stop":[{"hooks":[
@Stop   ]} ],
"UserPromptSubmit":[{"hooks":[@UserPromptSubmit]}],"PreCompact":[{"hooks":[@PreCompact]}]},
      "description":"of the user, \\u00e9"}

""",
    ".claude/settings.local.json": '{"permissions":{"allow":["Bash(ls:*)"]} ,  "env":{"MORE":"too"}}',
    "CLAUDE.md": "# Rules\n\nMeasure twice.",
    "AGENTS.md": "Cut once.\n\n\n",
}
# How often each event comes in the session that is lived through with a client
FIRED: dict[Client, dict[str, int]] = {
    "claude": {"SessionStart": 2, "UserPromptSubmit": 1, "Stop": 1, "PreCompact": 1, "SessionEnd": 1},
    "codex": {"SessionStart": 1, "UserPromptSubmit": 1, "Stop": 1, "SessionEnd": 1},
}
COMPLAINT = re.compile(
    r".*(?:\bwarn|\berror|invalid|unknown field|failed|need review|settings|hooks\.json).*", re.IGNORECASE
)
# What Codex says of its home in a folder of temporary files, of the fake model, and how often in all to a person
OF_THE_TEST = ("could not create PATH aliases", "Model metadata for", "f2 to view")


@dataclass(frozen=True)
class World:
    """A project of a user who works with both clients; ``log`` gets a line from each hook that runs."""

    project: Project
    claude: Claude
    codex: Codex
    log: Path

    def command(self, event: str, who: str = "theirs") -> str:
        """Return the command of a hook of the user's."""
        return f"printf '%s\\n' {shlex.quote(f'{event} {who}')} >>{shlex.quote(os.fspath(self.log))}"

    def hook(self, event: str, who: str = "theirs") -> dict[str, Any]:
        return {"type": "command", "command": self.command(event, who)}

    def place(self, path: str) -> Path:
        return self.project.root / path

    def users_files(self) -> dict[str, bytes]:
        """Return what a user's files hold, wherever they are."""
        return {path: self.place(path).read_bytes() for path in FILES}

    def edit(self, client: Client, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the hooks of a client as some program would, which leaves another formatting."""
        settings = json.loads(self.place(SETTINGS[client]).read_text())
        change(settings["hooks"])
        self.place(SETTINGS[client]).write_text(json.dumps(settings, indent=7, separators=(" ,", " : ")))

    def migrate(self, *options: str) -> str:
        """Run instar-migrate, which must succeed, and return what it said."""
        done = migrate(self.codex, *options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def trust_theirs(self, *whose: str) -> None:
        """Have Codex trust the user's hooks, as they would in its own dialog."""
        commands = {self.command(event, who) for event in EVENTS for who in whose or ("theirs",)}
        grant(self.project.root, commands, str(self.codex.executable), self.codex.launch().env)

    def watch(self) -> None:
        """Have the interpreter of our hooks tell the log what it runs, and give the build hook something to do."""
        self.project.build("init", "of somebody else", "--owner-session", "else")
        router = self.place(f"{HOOKS}/stop-gate-router.py")
        if not router.exists():  # what is registered runs as soon as it is there
            router.touch()
        python = self.place(".instar/state/python")
        name = r"""sed -n 's/.*"hook_event_name":"\([A-Za-z]*\)".*/\1/p'"""
        spy = f"""\
#!/bin/sh
event=$(cat)
role=${{3##*/}}
printf '%s %s\\n' "$(printf %s "$event" | {name})" "${{role%.py}}" >>{shlex.quote(os.fspath(self.log))}
printf %s "$event" | {shlex.quote(os.fspath(python.resolve()))} "$@"
"""
        script = executable(self.log.with_name("python"), spy)
        python.unlink()
        python.symlink_to(script)

    def live_with(self, client: Client) -> Ran:
        """Live through a session, in which the client complains of nothing; return which hooks ran, at which event."""
        self.log.write_text("")
        reported = self._live_with_claude() if client == "claude" else self._live_with_codex()
        found = self.logged()
        assert {event: sum(found[each] for each in found if each[0] == event) for event in reported} == reported
        return found

    def logged(self) -> Ran:
        """Return which hooks ran, at which event."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return Counter((event, who) for event, who in lines)

    def _live_with_claude(self) -> dict[str, int]:
        with self.claude.converse() as conversation:
            turns = [conversation.prompt("hello"), conversation.prompt("/compact")]
        assert (conversation.returncode, conversation.stderr) == (0, "")
        hooks = [run for turn in turns for run in turn.hooks]
        assert {(run.exit_code, run.outcome, run.stderr) for run in hooks} <= {(0, "success", "")}
        return Counter(run.event for run in hooks)

    def _live_with_codex(self) -> dict[str, int]:
        turn = self.codex.prompt("hello")
        assert (turn.returncode, complaints(turn.stderr)) == (0, [])
        assert {outcome for _, outcome in turn.hook_outcomes} <= {"Completed"}
        return Counter(event for event, _ in turn.hook_outcomes)

    def variables(self) -> list[str]:
        """Return what Claude's shell knew, in the session before, of the block cap and of the user's variables."""
        return self.claude.model.requests[-2].tool_results[0].split()

    def talk_without_complaint(self, tmux: Tmux) -> None:
        """Have a person talk with both clients, which have nothing else to say to them."""
        for client, options in ((self.claude, claude_module.NO_QUESTIONS), (self.codex, ())):
            tui = tmux.start(client, *options)
            tui.prompt("hello", until="done.")
            assert complaints(tui.scrollback()) == []


def complaints(text: str) -> list[str]:
    """Return the lines in which a client complains."""
    return [line for line in COMPLAINT.findall(text) if not any(known in line for known in OF_THE_TEST)]


def ran(client: Client, *whose: str, ours: bool = True) -> Ran:
    """Return what runs in a session: the hooks of the user, and each role of ours at each of its events."""
    expected: Ran = Counter()
    for event, times in FIRED[client].items():
        roles = handlers(client, event) if ours else []
        for who in (*(whose or ("theirs",)), *roles):
            expected[event, who] = times
    return expected


@pytest.fixture
def world(
    claude: ClaudeFactory, codex: CodexFactory, fake_model: ModelFactory, scratch: Path, client_home: Path
) -> World:
    """Return a project in which nothing of ours is installed, and both clients run the user's hooks; the gate is on."""
    tell = Run('printf %s "${CLAUDE_CODE_STOP_HOOK_BLOCK_CAP:-none} $OF_THE_USER $MORE"')

    def answer(request: Request) -> Run | Say:
        return Say("done.") if request.tool_results else tell

    project = Project(scratch, {"PATH": os.environ["PATH"], "HOME": str(client_home), "LANG": "C.UTF-8"})
    project.run("git", "init", "-q", ".")
    world = World(project, claude(fake_model(answer)), codex(fake_model()), client_home / "log")
    for path, text in FILES.items():
        world.place(path).parent.mkdir(exist_ok=True)
        for event in EVENTS:
            text = text.replace(f"@{event}", json.dumps(world.hook(event)))  # noqa: PLW2901 - grows by each event
        world.place(path).write_text(text)
    gate = world.place(".instar/server-data/gate-on")
    gate.parent.mkdir(parents=True)
    gate.touch()
    world.trust_theirs()
    return world


@pytest.fixture
def equipped(world: World) -> World:
    """Return the project with ours installed, and trusted by Codex."""
    world.migrate("--trust-codex")
    world.watch()
    return world


class TestBefore:
    def test_the_users_hooks_run(self, world: World) -> None:
        assert world.live_with("claude") == ran("claude", ours=False)
        assert world.live_with("codex") == ran("codex", ours=False)
        assert world.variables() == ["none", "képt", "too"]

    def test_a_complaint_of_codex_would_be_seen(self, world: World) -> None:
        world.place(SETTINGS["codex"]).write_text('{"hooks": {}, "unknown": 1}')

        with pytest.raises(AssertionError, match=r"hooks\.json"):
            world.live_with("codex")

    def test_settings_that_claude_rejects_would_be_seen(self, world: World) -> None:
        world.edit("claude", lambda hooks: hooks["Stop"][0]["hooks"].append({"type": "command"}))

        assert world.live_with("claude") == Counter()


class TestInstalled:
    def test_each_command_runs_once_at_each_event(self, equipped: World, tmux: Tmux) -> None:
        assert equipped.live_with("claude") == ran("claude")
        assert equipped.live_with("codex") == ran("codex")
        assert equipped.variables() == ["11", "képt", "too"]
        equipped.talk_without_complaint(tmux)

    def test_each_command_runs_once_at_each_event_of_codex_in_a_pane(self, equipped: World, tmux: Tmux) -> None:
        equipped.log.write_text("")
        tui = tmux.start(equipped.codex)
        tui.prompt("hello", until="done.")
        tui.prompt("/compact", until="Context compacted")
        tui.send("/quit")
        wait_until(lambda: tui.screen().has_ended, "Codex has ended")

        assert equipped.logged() == Counter(
            (event, who) for event, roles in EVENTS.items() for who in ("theirs", *(role for role, _ in roles))
        )

    def test_before_codex_trusts_ours_the_users_run(self, world: World) -> None:
        world.migrate()
        world.watch()

        assert world.live_with("codex") == ran("codex", ours=False)


def to_older_files(world: World) -> None:
    """Put other hook files in the place of the installed ones: shorter ones, and one that was not there yet."""
    for hook in world.place(HOOKS).glob("*.py"):
        hook.write_text("# of an older release\n")
    world.place(f"{HOOKS}/session-event-hook.py").unlink()
    record = json.loads(world.place(RECORD).read_text())
    world.place(RECORD).write_text(json.dumps({**record, "version": "0.1.0"}))


def to_older_definitions(world: World, client: Client) -> set[str]:
    """Have the settings say what another release might have said; return those commands."""
    walk = re.compile(r"d=[^\"]*?; while :; .*? ([a-z-]+); break; fi; .*?exit 0", re.DOTALL)
    hooks = json.loads(world.place(SETTINGS[client]).read_text())["hooks"]
    text = world.place(SETTINGS[client]).read_text()
    older = set()
    for handler in (each for groups in hooks.values() for group in groups for each in group["hooks"]):
        if HOOKS not in handler["command"]:
            continue
        command = walk.sub(lambda found: f"[ -x {HOOKS}/run ] && {HOOKS}/run {found[1]}; exit 0", handler["command"])
        assert command != handler["command"]
        text = text.replace(json.dumps(handler["command"]), json.dumps(command))
        older.add(command)
    text, count = re.subn(r'("timeout": ?)(10|5|3)\b', r"\g<1>5000", text)
    assert count == sum(len(handlers(client, event)) for event in EVENTS)
    world.place(SETTINGS[client]).write_text(text)
    return older


class TestAfterAnUpgrade:
    def test_each_command_runs_once_at_each_event(self, equipped: World, tmux: Tmux) -> None:
        files, trust = equipped.users_files(), equipped.codex.config.read_bytes()
        to_older_files(equipped)

        assert "trusts our hooks" in equipped.migrate()

        assert (equipped.users_files(), equipped.codex.config.read_bytes()) == (files, trust)
        assert equipped.live_with("claude") == ran("claude")
        assert equipped.live_with("codex") == ran("codex")
        equipped.talk_without_complaint(tmux)

    def test_an_older_definition_runs_in_claude_before_and_after(self, equipped: World) -> None:
        files = equipped.users_files()
        to_older_definitions(equipped, "claude")
        assert equipped.live_with("claude") == ran("claude")

        equipped.migrate()

        assert equipped.users_files() == files
        assert equipped.live_with("claude") == ran("claude")

    def test_an_older_definition_that_codex_trusted_needs_its_trust_anew(self, world: World, tmux: Tmux) -> None:
        world.migrate()
        files = world.users_files()
        older = to_older_definitions(world, "codex")
        grant(world.project.root, older, str(world.codex.executable), world.codex.launch().env)
        world.watch()

        said = world.migrate()

        assert world.users_files() == files
        assert "run instar-migrate --trust-codex" in said
        assert world.live_with("codex") == ran("codex", ours=False)
        assert "trusts our hooks" in world.migrate("--trust-codex")
        assert world.live_with("codex") == ran("codex")
        world.talk_without_complaint(tmux)


AROUND = ("theirs", "before", "inside", "after")


def put_around(world: World, client: Client) -> None:
    """Put hooks of the user's before our group, into it, and behind it."""

    def change(hooks: dict[str, Any]) -> None:
        for event in EVENTS:
            before, inside, after = (world.hook(event, who) for who in AROUND[1:])
            theirs, *ours = hooks[event]
            around = [inside, *(hook for group in ours for hook in group["hooks"])]
            hooks[event] = [theirs, {"hooks": [before]}, {"hooks": around}, {"hooks": [after]}]

    world.edit(client, change)


class TestWithHooksOfTheUserAroundOurs:
    def test_claude_runs_all_of_them_once(self, equipped: World, tmux: Tmux) -> None:
        put_around(equipped, "claude")
        files = equipped.users_files()

        assert "nothing to do" in equipped.migrate()

        assert equipped.users_files() == files
        assert equipped.live_with("claude") == ran("claude", *AROUND)
        assert equipped.variables() == ["11", "képt", "too"]
        equipped.talk_without_complaint(tmux)

    def test_codex_runs_ours_once_they_are_trusted_anew(self, equipped: World, tmux: Tmux) -> None:
        put_around(equipped, "codex")
        files = equipped.users_files()
        assert equipped.live_with("codex") == ran("codex", ours=False)

        assert "(another hook was put before ours" in equipped.migrate()
        assert "trusts our hooks" in equipped.migrate("--trust-codex")

        assert equipped.users_files() == files
        assert equipped.live_with("codex") == ran("codex")  # what is new of the user's is the user's to trust
        equipped.trust_theirs(*AROUND)
        assert equipped.live_with("codex") == ran("codex", *AROUND)
        equipped.talk_without_complaint(tmux)


class TestUninstalled:
    def test_the_users_files_are_as_before_and_only_the_users_hooks_run(self, world: World, tmux: Tmux) -> None:
        files = world.users_files()
        world.migrate("--trust-codex")
        world.watch()
        assert world.users_files() != files

        world.migrate("--uninstall")

        assert world.users_files() == files
        assert world.live_with("claude") == ran("claude", ours=False)
        assert world.live_with("codex") == ran("codex", ours=False)
        assert world.variables() == ["none", "képt", "too"]
        world.talk_without_complaint(tmux)

    def test_what_the_user_put_around_ours_stays_and_runs(self, equipped: World, tmux: Tmux) -> None:
        expected: dict[Client, Any] = {}
        for client in SETTINGS:
            put_around(equipped, client)
            expected[client] = without_ours(json.loads(equipped.place(SETTINGS[client]).read_text()))
        equipped.migrate("--trust-codex")
        equipped.trust_theirs(*AROUND)

        equipped.migrate("--uninstall")

        for client, path in SETTINGS.items():
            assert json.loads(equipped.place(path).read_text()) == expected[client]
            assert equipped.live_with(client) == ran(client, *AROUND, ours=False)
        equipped.talk_without_complaint(tmux)

    def test_installed_again_each_command_runs_once_at_each_event(self, equipped: World) -> None:
        files, trust = equipped.users_files(), equipped.codex.config.read_bytes()
        equipped.migrate("--uninstall")

        equipped.migrate()

        assert (equipped.users_files(), equipped.codex.config.read_bytes()) == (files, trust)
        equipped.watch()
        assert equipped.live_with("claude") == ran("claude")
        assert equipped.live_with("codex") == ran("codex")


def without_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings without our registrations."""
    for groups in settings["hooks"].values():
        for group in groups:
            group["hooks"] = [hook for hook in group["hooks"] if HOOKS not in hook["command"]]
    return settings
