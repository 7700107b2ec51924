"""The arrows of the house run down: who may import whom."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from instar import __version__

REPOSITORY = Path(__file__).parent.parent
ROOMS = ("hooks", "playbook_scripts", "migrator", "instar")
PRODUCT = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
SHARED = {"instar", "instar.errors", "instar.config", "instar.project", "instar.projects", "instar.tracked",
          "instar.__version__"}  # fmt: skip
GENERATED = REPOSITORY / "migrator" / "inlined.py"


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, also those only for types."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} & set(ROOMS)


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_arrows_run_down(path: Path) -> None:
    room = path.relative_to(REPOSITORY).parts[0]
    below = {"hooks": {"hooks"}, "playbook_scripts": {"playbook_scripts", "hooks"}, "migrator": {"migrator", "instar"},
             "instar": {"instar"}}[room]  # fmt: skip
    assert rooms_of(path) <= below
    outside = {name for name in imported(path) if name.split(".")[0] in ROOMS}
    if room == "migrator":
        shared = {name for name in outside if not name.startswith("migrator")}
        assert {".".join(name.split(".")[:2]) for name in shared} <= SHARED
    if room in ("hooks", "playbook_scripts"):
        third_party = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - set(ROOMS)
        assert third_party == set()
        assert not any(name.startswith("hooks.") and not name.startswith("hooks.common") for name in outside)


ABOVE = ("instar.server", "instar.cli")


@pytest.mark.parametrize(
    ("room", "above"),
    [
        ("gate", (*ABOVE, "instar.lifecycle")),
        ("sessions", (*ABOVE, "instar.lifecycle", "instar.gate")),
        ("lifecycle", (*ABOVE, "instar.gate")),
    ],
)
def test_what_is_served_does_not_know_what_serves_it(room: str, above: tuple[str, ...]) -> None:
    for path in (REPOSITORY / "instar" / room).rglob("*.py"):
        assert not {name for name in imported(path) if name.startswith(above)}


@pytest.mark.parametrize("module", ["click"])
def test_the_command_line_library_stays_at_the_edge(module: str) -> None:
    users = {path.relative_to(REPOSITORY).as_posix() for path in PRODUCT if module in imported(path)}

    edges = {"migrator/cli.py", "migrator/report.py", "migrator/doctor/report.py"}
    assert {path for path in users if not path.startswith("instar/cli/")} <= edges


def test_modules_fit_a_sitting() -> None:
    long = {path.name: lines for path in PRODUCT if (lines := len(path.read_text().splitlines())) > 500}

    assert set(long) <= {GENERATED.name}


def test_the_version_is_the_newest_of_the_changelog() -> None:
    released = re.findall(r"^## \[?([0-9.]+|Unreleased)\]?", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert released[0] in ("Unreleased", __version__)
