"""Where instar itself is installed, each role is run once at an event: by its hook, or after --take-over by ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.migrator.scratch import CLIENT_FILES, CODEX, HOOKS, SETTINGS, Scratch

ROUTER = {
    "type": "command",
    "command": "node ${CLAUDE_PROJECT_DIR}/.instar/hooks/instar/stop-gate-router.js",
    "timeout": 5000,
}
BUILD = {"type": "command", "command": "bash .instar/hooks/instar/build-stop-hook.sh", "timeout": 10000}
REPORTER = {"type": "command", "command": "node .instar/hooks/instar/hook-event-reporter.js"}
NAMES = {"stop-gate-router": "stop-gate-router.js", "build-stop-hook": "build-stop-hook.sh"}


def peer(scratch: Scratch, *files: str, path: str = SETTINGS) -> str:
    """Register the peer's hooks, as it does, and write those of its files."""
    for name in files:
        scratch.write(f"{HOOKS}/{name}", "#!/bin/sh\n", 0o755)
    groups = [{"matcher": "", "hooks": [ROUTER]}, {"matcher": "", "hooks": [REPORTER, BUILD]}]
    scratch.write_json(path, {"hooks": {"Stop": groups}})
    return scratch.read(path).decode()


def commands(scratch: Scratch, path: str = SETTINGS) -> list[str]:
    return [hook["command"] for group in scratch.json(path)["hooks"]["Stop"] for hook in group["hooks"]]


def roles(scratch: Scratch, path: str = SETTINGS) -> list[tuple[str, str]]:
    """Return who runs which role at Stop, in the order they stand."""
    ours = [("ours", role) for command in commands(scratch, path) for role in NAMES if f" {role};" in command]
    theirs = [("peer", role) for command in commands(scratch, path) for role, name in NAMES.items() if name in command]
    return sorted(ours + theirs)


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_a_role_that_the_peer_holds_is_left_to_it(scratch: Scratch, path: str) -> None:
    peer(scratch, *NAMES.values(), path=path)
    report = scratch.report()

    assert roles(scratch, path) == [("peer", "build-stop-hook"), ("peer", "stop-gate-router")]
    assert [note for note in report["skipped"] if "--take-over" in note] == [
        f"left {role} at Stop in {path} to instar's own; --take-over changes that" for role in sorted(NAMES)
    ]
    assert "nothing to do" in scratch.migrate()


def test_other_events_are_ours_also_beside_the_peer(scratch: Scratch) -> None:
    peer(scratch, *NAMES.values())
    scratch.migrate()
    assert {"SessionStart", "UserPromptSubmit", "SessionEnd"} <= scratch.json(SETTINGS)["hooks"].keys()


def test_a_registration_of_the_peer_without_its_file_is_replaced(scratch: Scratch) -> None:
    peer(scratch, "build-stop-hook.sh")
    scratch.migrate()
    assert roles(scratch) == [("ours", "stop-gate-router"), ("peer", "build-stop-hook")]
    assert REPORTER["command"] in commands(scratch)


@pytest.mark.parametrize("path", CLIENT_FILES)
def test_take_over_replaces_the_peers_handlers_and_nothing_else(scratch: Scratch, path: str) -> None:
    before = peer(scratch, *NAMES.values(), path=path)
    scratch.migrate("--take-over")

    assert roles(scratch, path) == [("ours", "build-stop-hook"), ("ours", "stop-gate-router")]
    assert REPORTER["command"] in commands(scratch, path)
    for name in NAMES.values():
        assert scratch.has(f"{HOOKS}/{name}")
    assert "nothing to do" in scratch.migrate()
    scratch.migrate("--uninstall")
    assert scratch.read(path).decode() == before


def test_what_was_taken_over_stays_so_when_the_peer_registers_again(scratch: Scratch) -> None:
    peer(scratch, *NAMES.values())
    scratch.migrate("--take-over")
    settings: dict[str, Any] = scratch.json(SETTINGS)
    settings["hooks"]["Stop"].append({"matcher": "", "hooks": [BUILD]})
    scratch.write_json(SETTINGS, settings)
    scratch.migrate()
    assert roles(scratch) == [("ours", "build-stop-hook"), ("ours", "stop-gate-router")]


def test_a_peer_that_came_later_takes_its_role_and_no_stop_is_judged_twice(installed: Scratch) -> None:
    settings: dict[str, Any] = installed.json(SETTINGS)
    settings["hooks"]["Stop"].insert(0, {"matcher": "", "hooks": [ROUTER]})
    installed.write_json(SETTINGS, settings)
    installed.write(f"{HOOKS}/stop-gate-router.js", "")
    installed.migrate()
    assert roles(installed) == [("ours", "build-stop-hook"), ("peer", "stop-gate-router")]


def test_hooks_in_the_peers_flat_layout_are_named_and_left(scratch: Scratch) -> None:
    scratch.write(".instar/hooks/session-start.sh", "#!/bin/sh\n", 0o755)
    scratch.write(".instar/hooks/build-stop-hook.sh", "#!/bin/sh\n", 0o755)
    flat = {"type": "command", "command": "bash .instar/hooks/build-stop-hook.sh"}
    scratch.write_json(SETTINGS, {"hooks": {"Stop": [{"hooks": [flat]}]}})
    warnings = scratch.report()["warnings"]

    assert [warning.split(" ")[0] for warning in warnings] == [
        ".instar/hooks/session-start.sh", ".instar/hooks/build-stop-hook.sh",
    ]  # fmt: skip
    assert roles(scratch) == [("ours", "stop-gate-router"), ("peer", "build-stop-hook")]
    assert scratch.has(".instar/hooks/session-start.sh")


def test_codex_has_only_the_roles_that_its_own_file_registers(scratch: Scratch) -> None:
    peer(scratch, *NAMES.values())
    scratch.migrate()
    assert roles(scratch, CODEX) == [("ours", "build-stop-hook"), ("ours", "stop-gate-router")]
