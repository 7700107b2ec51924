"""Write once, ship whole, prove equal: source, template, inlined copy and installed file are the same bytes."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from migrator import render
from migrator.inlined import SHA256, TEMPLATES
from migrator.manifest import INSTALLED, SKILL, sha256

if TYPE_CHECKING:
    from support import Project

REPOSITORY = Path(__file__).parent.parent
FOLDER = REPOSITORY / "templates"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*") if path.is_file())
HOOKS = sorted(name for name in FILES if name.startswith("hooks/") and name.endswith(".py"))
MODULES = sorted(path for room in ("hooks", "playbook_scripts") for path in (REPOSITORY / room).rglob("*.py"))
AT_EVERY_STOP = {"fcntl", "json", "os", "sys", "time"}


def test_rendering_again_changes_nothing() -> None:
    assert render.main(["--check"]) == 0


def test_rendering_says_what_has_drifted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drifted = {FOLDER / "manifest.json": "{}", FOLDER / "hooks/run": (FOLDER / "hooks/run").read_text()}
    monkeypatch.setattr(render, "outputs", lambda **_: drifted)

    assert render.main(["--check"]) == 1
    assert capsys.readouterr().out == "differs: templates/manifest.json\n"


def test_the_wheel_carries_every_template() -> None:
    assert sorted(TEMPLATES) == FILES
    for name in FILES:
        assert (FOLDER / name).read_bytes() == TEMPLATES[name].encode()
        assert SHA256[name] == sha256(TEMPLATES[name].encode())


def test_the_manifest_tells_the_hash_of_every_installed_file() -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text())

    for item in (*INSTALLED, SKILL):
        entry = manifest[item.template]
        assert entry["installedPath"] == item.path
        assert entry["mode"] == f"{item.mode:04o}"
    assert {name: entry["contentHash"] for name, entry in manifest.items()} == {
        name: SHA256[name] for name in FILES if name != "manifest.json"
    }


def test_what_is_installed_is_the_template(project: Project) -> None:
    for item in (*INSTALLED, SKILL):
        place = project.root / item.path
        assert place.read_bytes() == (FOLDER / item.template).read_bytes()
        assert place.stat().st_mode & 0o777 == item.mode


def test_what_several_templates_share_is_the_same_in_each() -> None:
    shared: dict[str, set[str]] = {}
    for name in HOOKS:
        source = (FOLDER / name).read_text()
        for node in ast.parse(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name != "main":
                shared.setdefault(node.name, set()).add(ast.get_source_segment(source, node) or "")

    assert [name for name, texts in shared.items() if len(texts) > 1] == []
    assert sum(name in shared for name in ("claim", "Build", "Lock", "Self", "replace_file")) == 5


@pytest.mark.parametrize("path", [*MODULES, *(FOLDER / name for name in HOOKS)], ids=lambda path: path.name)
def test_hooks_are_written_in_the_grammar_of_python_3_9(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 9))


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_use_the_library_of_python_3_9(name: str) -> None:
    vermin = [str(Path(sys.executable).with_name("vermin")), "--no-tips", "--violations", "-t=3.9-"]

    done = subprocess.run([*vermin, str(FOLDER / name)], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_import_the_standard_library_alone(name: str) -> None:
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module or ""
        for node in ast.walk(ast.parse((FOLDER / name).read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }

    assert {module.split(".")[0] for module in imported} <= set(sys.stdlib_module_names)


def test_a_stop_imports_little() -> None:
    tree = ast.parse((FOLDER / "hooks/build-stop-hook.py").read_text())
    at_the_top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}

    assert at_the_top <= AT_EVERY_STOP


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_run_isolated_and_without_site_packages(project: Project, name: str) -> None:
    script = project.root / ".instar" / "hooks" / "instar" / Path(name).name

    word = "worktree-merge" if script.stem == "build-worktree" else "status"  # which is refused, without a build
    command = [sys.executable, "-I", "-S", str(script), word]
    done = subprocess.run(command, input=b"{}", capture_output=True, check=False, env=project.env)

    assert script.stem == "session-event-hook" or isinstance(json.loads(done.stdout), dict)
    assert done.stderr == b""


def test_the_launcher_is_plain_shell() -> None:
    for shell in ("sh", "dash", "bash"):
        subprocess.run([shell, "-n", str(FOLDER / "hooks/run")], check=True)


IMPOSSIBLE = {
    "defined in two of the modules": "from hooks.a import y\n\n\ndef x():\n    return y()\n",
    "under another name": "from hooks.a import x as z\n\nz()\n",
}


@pytest.mark.parametrize(("message", "main"), IMPOSSIBLE.items())
def test_what_one_file_cannot_say_is_not_rendered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, message: str, main: str
) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "a.py").write_text("def x():\n    return 1\n\n\ndef y():\n    return x()\n")
    (tmp_path / "hooks" / "b.py").write_text(main)
    monkeypatch.setattr(render, "REPOSITORY", tmp_path)

    with pytest.raises(ValueError, match=message):
        render.render("hooks.b")
