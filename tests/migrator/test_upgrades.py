"""What a release changed is told once, to those who had an older one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from instar import __version__
from migrator.inlined import GUIDES
from migrator.upgrades import since
from tests.migrator.scratch import RECORD, Scratch

FOLDER = Path(__file__).parents[2] / "upgrades"
SECTIONS = ["What changed", "What to do"]


def had(scratch: Scratch, version: object) -> None:
    scratch.write_json(RECORD, {**scratch.json(RECORD), "version": version})


@pytest.mark.parametrize("version", sorted(GUIDES))
def test_a_guide_has_its_sections_and_something_to_say(version: str) -> None:
    text = (FOLDER / f"{version}.md").read_text()
    assert GUIDES[version] == text
    assert text.startswith(f"# {version}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    for section in text.split("\n## ")[1:]:
        assert len(section.partition("\n")[2].strip()) > 40


def test_this_release_has_a_guide() -> None:
    assert __version__ in GUIDES
    assert {path.stem for path in FOLDER.glob("*.md")} == GUIDES.keys()


@pytest.mark.parametrize("version", [None, "", "x", "1.x", 7, __version__, "99.0"])
def test_there_is_nothing_to_tell_without_an_older_version(version: object) -> None:
    assert since(version) == []


def test_guides_come_in_the_order_of_their_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrator.upgrades.GUIDES", {name: name for name in ("0.10.0", "0.9.0", "0.2.0", "1.0.0")})
    monkeypatch.setattr("migrator.upgrades.__version__", "0.10.0")
    assert [guide.version for guide in since("0.2.0")] == ["0.9.0", "0.10.0"]


def test_an_upgrade_tells_its_guide_once(installed: Scratch) -> None:
    had(installed, "0.1.0")
    assert f"# {__version__}\n" in installed.migrate("--dry-run")
    assert f"# {__version__}\n" in installed.migrate()
    assert "What changed" not in installed.migrate()


def test_a_program_gets_the_guide_in_one_object(installed: Scratch) -> None:
    had(installed, "0.1.0")
    guide = installed.report()["upgradeGuide"]
    assert __version__ in guide["versions"]
    assert GUIDES[__version__] in guide["content"]
    assert json.loads(installed.migrate("--json"))["upgradeGuide"] is None


def test_a_first_installation_is_told_nothing_old(scratch: Scratch) -> None:
    assert "What changed" not in scratch.migrate()
