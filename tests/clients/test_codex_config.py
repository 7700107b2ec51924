"""Both ways to Codex's trust, its own app-server and its config.toml, say the same and grant the same."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from migrator import codex_config, codex_trust
from migrator.codex_trust import CodexTrustError, Granted, HookTrust
from migrator.registration import EVENTS, commands, handlers

if TYPE_CHECKING:
    from collections.abc import Callable

    from .installation import InstalledClients

OURS = commands("codex")
TRUSTED = '[projects."@P"]\ntrust_level = "trusted"\n'
KEY = "@P/.codex/hooks.json:stop:1:0"


def group(*hooks: object, **properties: object) -> dict[str, Any]:
    return {"hooks": list(hooks), **properties}


def command(text: str = "c", **properties: object) -> dict[str, Any]:
    return {"type": "command", "command": text, **properties}


def among(foreign: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return ours, with what others registered before them."""
    ours = {event: [group(*handlers("codex", event).values())] for event in EVENTS}
    return {"hooks": {event: foreign.get(event, []) + ours.get(event, []) for event in {**foreign, **ours}}}


FOREIGN = {
    "Stop": [
        group(
            command("größe 漢字 😀", timeout=0),
            command('a\\b"c\tnew\nline\\', statusMessage="é"),
            {"type": "prompt", "prompt": "p"},
            command("\x00\x08\x1f\x7f\u2028/<>&'", **{"async": True}),
            command(" "),
            matcher="(",
        )
    ],
    "SessionStart": [group(command(), matcher=""), group(command(), matcher="startup|resume")],
    "PreToolUse": [group(command(), matcher=".*"), group(), {}],
    "SessionEnd": [group(command(), command(timeout=5, unknown=[1]))],
    "Interrupt": [group(command(timeout=9))],
    "UnknownEvent": [5],
}


@dataclass(frozen=True)
class Both:
    """A project of a user, whose Codex can be asked or read."""

    codex: str
    project: Path
    environ: dict[str, str]

    @property
    def config(self) -> Path:
        return Path(self.environ["CODEX_HOME"]) / "config.toml"

    def write(self, config: str, hooks: object = None) -> None:
        self.config.write_text(config.replace("@P", str(self.project).replace("\\", "\\\\")), encoding="utf-8")
        text = hooks if isinstance(hooks, str) else json.dumps(hooks or among(FOREIGN))
        (self.project / ".codex/hooks.json").write_text(text, encoding="utf-8")

    def asked(self) -> list[HookTrust] | None:
        return codex_trust.read(self.project, self.codex, self.environ)

    def read(self) -> list[HookTrust] | None:
        return codex_config.read(self.project, self.environ)

    def have_granted(self) -> Granted:
        return codex_trust.grant(self.project, OURS, self.codex, self.environ)

    def grant(self) -> Granted:
        return codex_config.grant(self.project, OURS, self.environ)


@pytest.fixture
def both(installed_clients: InstalledClients, tmp_path: Path) -> Both:
    project, home = tmp_path / "it's \\ é", tmp_path / "home"
    (project / ".codex").mkdir(parents=True)
    home.mkdir()
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "CODEX_HOME": str(home), "LANG": "C.UTF-8"}
    return Both(str(installed_clients.codex), project.resolve(), environ)


CONFIGS = {
    "plain": TRUSTED,
    "nothing": "",
    "untrusted": TRUSTED.replace('"trusted"', '"untrusted"'),
    "no level": '[projects."@P"]\n',
    "inline": 'projects = {"@P" = {trust_level = "trusted"}}\n',
    "dotted": 'projects."@P".trust_level = "trusted"\n',
    "final slash": TRUSTED.replace("@P", "@P/"),
    "parent without git": TRUSTED.replace("@P", "@P/.."),
    "byte order mark": f"\ufeff{TRUSTED}",
    "stale hash": f'{TRUSTED}[hooks.state."{KEY}"]\ntrusted_hash = "sha256:0"\n',
    "switched off": f'{TRUSTED}[hooks.state."{KEY}"]\nenabled = false\n',
    "switched on": f'{TRUSTED}[hooks.state."{KEY}"]\nenabled = true\nmore = 1\n',
    "inline state": f'hooks = {{state = {{"{KEY}" = {{enabled = false}}}}}}\n{TRUSTED}',
    "dotted state": f'hooks.state."{KEY}".enabled = false\n{TRUSTED}',
    "state in pieces": (
        f'[hooks.state.a]\nenabled = true\n{TRUSTED}[hooks.state."{KEY}"]\nenabled = false\n[[hooks.Stop]]\n'
    ),
    "hooks off": f"{TRUSTED}[features]\nhooks = false\n",
    "hooks off by the old name": f"{TRUSTED}[features]\ncodex_hooks = false\n",
    "hooks on, but for the old name": f"{TRUSTED}[features]\nhooks = true\ncodex_hooks = false\n",
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_both_ways_read_the_same(both: Both, config: str) -> None:
    both.write(config)

    assert both.read() == both.asked()


@pytest.mark.parametrize("way", [Both.grant, Both.have_granted])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_what_one_way_granted_the_other_calls_trusted(both: Both, config: str, way: Callable[[Both], Granted]) -> None:
    both.write(config)
    if not both.read():
        with pytest.raises(CodexTrustError, match=r"does not trust the folder .* so its|loads no hook of ours from"):
            way(both)
        return

    newly = way(both).newly_trusted

    assert both.read() == both.asked()
    ours = [hook for hook in both.read() or [] if hook.command in OURS and hook.enabled]
    assert {hook.status for hook in ours} == {"trusted"}
    assert newly == ours


def test_both_ways_grant_in_the_same_words(both: Both) -> None:
    both.write(TRUSTED)
    first = both.have_granted(), both.config.read_text()
    both.write(TRUSTED)

    assert (both.grant(), both.config.read_text().split()) == (first[0], first[1].split())


BROKEN: dict[str, tuple[str, object]] = {
    "config that does not parse": ("a = [\n", None),
    "trust in the folder of another kind": ('[projects."@P"]\ntrust_level = "Trusted"\n', None),
    "projects of another kind": ("projects = 5\n", None),
    "hooks of another kind": (f"hooks = 5\n{TRUSTED}", None),
    "state of another kind": (f"{TRUSTED}[hooks]\nstate = 5\n", None),
    "entry of another kind": (f"{TRUSTED}[hooks.state]\na = 5\n", None),
    "hash of another kind": (f"{TRUSTED}[hooks.state.a]\ntrusted_hash = 5\n", None),
    "switch of another kind": (f'{TRUSTED}[hooks.state.a]\nenabled = "no"\n', None),
    "feature of another kind": (f'{TRUSTED}[features]\nhooks = "no"\n', None),
    "hooks.json that is none": (TRUSTED, "{,}"),
    "hooks.json with a mark": (TRUSTED, '\ufeff{"hooks": {}}'),
    "hooks.json with half a character": (
        TRUSTED,
        '{"hooks":{"Stop":[{"hooks":[{"type":"command","command":"\\ud83d"}]}]}}',
    ),
    "unknown field": (TRUSTED, {"$schema": "x", "hooks": {}}),
    "null for hooks": (TRUSTED, {"hooks": None}),
    "null for an event": (TRUSTED, {"hooks": {"Stop": None}}),
    "number for a group": (TRUSTED, {"hooks": {"Stop": [5]}}),
    "number for a hook": (TRUSTED, {"hooks": {"Stop": [group(5)]}}),
    "number for a matcher": (TRUSTED, {"hooks": {"Stop": [group(matcher=5)]}}),
    "no type": (TRUSTED, {"hooks": {"Stop": [group({"command": "c"})]}}),
    "unknown type": (TRUSTED, {"hooks": {"Stop": [group({"type": "x"})]}}),
    "no command": (TRUSTED, {"hooks": {"Stop": [group({"type": "command"})]}}),
    "null for async": (TRUSTED, {"hooks": {"Stop": [group(command(**{"async": None}))]}}),
    **{
        f"timeout {timeout!r}": (TRUSTED, {"hooks": {"Stop": [group(command(timeout=timeout))]}})
        for timeout in (-1, 1.5, 5.0, "5", True, 2**63)
    },
}


@pytest.mark.parametrize(("config", "hooks"), BROKEN.values(), ids=BROKEN)
def test_what_one_way_rejects_the_other_does_too(both: Both, config: str, hooks: object) -> None:
    both.write(config, hooks)

    for read in (both.read, both.asked):
        with pytest.raises(CodexTrustError):
            read()


def into_a_repository(both: Both) -> None:
    subprocess.run(["git", "init", "-q", str(both.project.parent)], check=True)


def behind_links(both: Both) -> None:
    elsewhere = both.project.parent / "elsewhere"
    (both.project / ".codex").rename(elsewhere)
    (elsewhere / "hooks.json").rename(elsewhere / "x.json")
    (elsewhere / "hooks.json").symlink_to("x.json")
    (both.project / ".codex").symlink_to(elsewhere)


def switched_off_in_the_project(both: Both) -> None:
    (both.project / ".codex/config.toml").write_text("[features]\nhooks = false\n")


def without_hooks(both: Both) -> None:
    (both.project / ".codex/hooks.json").unlink()


@pytest.mark.parametrize("change", [into_a_repository, behind_links, switched_off_in_the_project, without_hooks])
@pytest.mark.parametrize("trusted", ["@P", "parent"])
def test_both_ways_look_at_the_same_places(both: Both, change: Callable[[Both], None], trusted: str) -> None:
    both.write(TRUSTED.replace("@P", str(both.project.parent) if trusted == "parent" else "@P"))
    change(both)

    assert both.read() == both.asked()
