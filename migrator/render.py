"""Render the modules of `hooks/` and `playbook_scripts/` into the self-contained files that land in a project.

`python -m migrator.render` writes `templates/hooks/*.py`, `templates/manifest.json`, `migrator/inlined.py`, the copy of
all templates that the wheel carries, and `docs/configuration.md`; `--check` writes nothing and exits 1 when one of them
would change.

A rendered file is its module with the shared modules it imports put in front, in the order of their imports: only
the definitions it really uses, without their docstrings, since a hook is compiled at every start.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from migrator import reference
from migrator.manifest import INSTALLED, MANIFEST, SECTION_TEMPLATES, SKILL, sha256

REPOSITORY = Path(__file__).resolve().parent.parent
TEMPLATES = REPOSITORY / "templates"
INLINED = REPOSITORY / "migrator" / "inlined.py"
UPGRADES = REPOSITORY / "upgrades"
OURS = ("hooks", "playbook_scripts")

# The module a self-contained template is rendered from.
RENDERED = {
    "hooks/build-stop-hook.py": "hooks.build_stop_hook",
    "hooks/stop-gate-router.py": "hooks.stop_gate_router",
    "hooks/session-event-hook.py": "hooks.session_event_hook",
    "hooks/build-state.py": "playbook_scripts.build_state",
    "hooks/build-worktree.py": "playbook_scripts.build_worktree",
}


@dataclass(frozen=True)
class Statement:
    """One top-level statement of a module: its text with the comments above it, what it defines and what it names."""

    module: str
    node: ast.stmt
    text: str
    defines: frozenset[str]
    names: frozenset[str]


class Module:
    """A source module, cut into its top-level statements."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = REPOSITORY.joinpath(*name.split(".")).with_suffix(".py")
        self.source = self.path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.source)
        self.docstring = ast.get_docstring(self.tree, clean=False) or ""

    def dependencies(self) -> list[str]:
        """Return the modules of ours that it imports names from, in the order it does."""
        ours = [node for node in self.tree.body if isinstance(node, ast.ImportFrom) and is_ours(node)]
        renamed = [alias.name for node in ours for alias in node.names if alias.asname]
        if renamed:
            listed = ", ".join(renamed)
            raise ValueError(f"{self.name}: imports {listed} under another name, which one file cannot have")
        return [node.module or "" for node in ours]

    def imports(self) -> list[ast.Import]:
        """Return what it imports from the standard library."""
        return [node for node in self.tree.body if isinstance(node, ast.Import)]

    def statements(self) -> list[Statement]:
        """Return the statements that define or do something."""
        lines = without_docstrings(without_annotations(self.source, self.tree), self.tree)
        found, end = [], 0
        for node in self.tree.body:
            start, end = end, node.end_lineno or 0
            if not is_dropped(node):
                text = "\n".join(line for line in lines[start:end] if line is not None).strip("\n")
                found.append(Statement(self.name, node, text, defined(node), mentioned(node)))
        return found


def is_ours(node: ast.ImportFrom) -> bool:
    """Say whether an import is of a module that gets inlined."""
    return (node.module or "").split(".")[0] in OURS


def is_dropped(node: ast.stmt) -> bool:
    """Say whether a statement has no place of its own in a rendered file: imports, the docstring, types."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.Assign):
        return defined(node) == {"TYPE_CHECKING"}
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def without_annotations(source: str, tree: ast.Module) -> str:
    """Return the source of a module without its annotations, which cost a tenth of the time to compile it."""
    starts = [0, *itertools.accumulate(len(line) for line in source.encode().splitlines(keepends=True))]

    def at(line: int | None, column: int | None) -> int:
        return starts[(line or 0) - 1] + (column or 0)

    data, cuts = source.encode(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation:
            cuts.append((at(node.lineno, node.col_offset) + len(node.arg), node.annotation))
        elif isinstance(node, ast.FunctionDef) and node.returns:
            arrow = data.rindex(b" ->", 0, at(node.returns.lineno, node.returns.col_offset))
            cuts.append((arrow, node.returns))
        elif isinstance(node, ast.AnnAssign) and node.value:
            cuts.append((at(node.target.end_lineno, node.target.end_col_offset), node.annotation))
    for start, annotation in sorted(cuts, key=lambda cut: cut[0], reverse=True):
        data = data[:start] + data[at(annotation.end_lineno, annotation.end_col_offset) :]
    return data.decode()


def without_docstrings(source: str, tree: ast.Module) -> list[str | None]:
    """Return the lines of a module, with None for those of the docstrings inside it that nothing needs."""
    lines: list[str | None] = list(source.splitlines())
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and len(node.body) > 1 and ast.get_docstring(node):
            first, after = node.body[0], node.body[1]
            start_after = min([after.lineno, *(each.lineno for each in getattr(after, "decorator_list", []))])
            for number in range(first.lineno, first.end_lineno or 0):
                lines[number] = None
            lines[first.lineno - 1] = None
            blanks = range(first.end_lineno or 0, start_after - 1)
            for number in blanks:
                if not (lines[number] or "").strip():
                    lines[number] = None
    return lines


def defined(node: ast.stmt) -> frozenset[str]:
    """Return the names a top-level statement gives a meaning to."""
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return frozenset({node.name})
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return frozenset(target.id for target in targets if isinstance(target, ast.Name))


def mentioned(node: ast.AST) -> frozenset[str]:
    """Return the names whose values a statement uses; annotations are never evaluated and do not count."""
    names = set()
    for child in ast.iter_child_nodes(node):
        if isinstance(node, ast.AnnAssign) and child is node.annotation:
            continue
        if isinstance(node, ast.arg) or (isinstance(node, ast.FunctionDef) and child is node.returns):
            continue
        if isinstance(child, ast.Name):
            names.add(child.id)
        names |= mentioned(child)
    return frozenset(names)


def in_order(name: str, seen: list[Module]) -> list[Module]:
    """Return the module and all it needs, what is needed first."""
    if any(module.name == name for module in seen):
        return seen
    module = Module(name)
    for dependency in module.dependencies():
        in_order(dependency, seen)
    seen.append(module)
    return seen


def used(statements: list[Statement], main: str) -> list[Statement]:
    """Return the statements of `main` and every other one that they use, directly or not."""
    keep = [each for each in statements if each.module == main]
    for statement in keep:  # grows while it is walked
        keep += [each for each in statements if each.defines & statement.names and each not in keep]
    return [each for each in statements if each in keep]


def render(main: str) -> str:
    """Return the self-contained text of a module. Raise ValueError when two shared names collide."""
    modules = in_order(main, [])
    statements = used([each for module in modules for each in module.statements()], main)
    names = [name for each in statements for name in each.defines]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"{main}: defined in two of the modules it is rendered from: {', '.join(sorted(twice))}")
    mentions = {name for each in statements for name in each.names}
    imports = {alias.name for module in modules for node in module.imports() for alias in node.names}
    head = [
        "#!/usr/bin/env python3",
        f'"""{modules[-1].docstring}"""',
        f"# instar-hooks: rendered from {main.replace('.', '/')}.py and what it imports; overwritten at every upgrade.",
        "",
        *(f"import {name}" for name in sorted(imports & mentions)),
    ]
    return "\n".join(head) + "\n" + "".join(spaced(statements)) + "\n"


def spaced(statements: list[Statement]) -> list[str]:
    """Return the texts with their distances: constants of a module stand together, all else apart."""
    texts = []
    before: Statement | None = None
    for each in statements:
        constants = before is not None and isinstance(before.node, ast.Assign) and isinstance(each.node, ast.Assign)
        close = constants and before is not None and before.module == each.module
        texts.append(("\n" if close else "\n\n" if before is None else "\n\n\n") + each.text)
        before = each
    return texts


def templates() -> dict[str, str]:
    """Return every template by its name: the rendered ones, and the hand-written ones as they are on disk."""
    texts = {
        path.relative_to(TEMPLATES).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(TEMPLATES.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    texts.update({name: render(module) for name, module in RENDERED.items()})
    return dict(sorted(texts.items()))


def manifest(texts: dict[str, str], *, release: bool) -> str:
    """Return `manifest.json`: of each installed file its place, its hash, and the hashes that releases shipped."""
    path = TEMPLATES / MANIFEST
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    entries = {}
    places = {item.template: {"installedPath": item.path, "mode": f"{item.mode:04o}"} for item in (*INSTALLED, SKILL)}
    for template in (*places, *SECTION_TEMPLATES):
        digest = sha256(texts[template].encode())
        shipped = set(before.get(template, {}).get("shippedHashes", []))
        entries[template] = {
            **places.get(template, {}),
            "contentHash": digest,
            "shippedHashes": sorted(shipped | {digest} if release else shipped),
        }
    return json.dumps(entries, indent=2) + "\n"


def guides() -> dict[str, str]:
    """Return the upgrade guides by their versions."""
    return {path.stem: path.read_text(encoding="utf-8") for path in sorted(UPGRADES.glob("*.md"))}


def inlined(texts: dict[str, str]) -> str:
    """Return the module that carries all templates and upgrade guides into the wheel."""
    lines = [
        '"""The templates and upgrade guides, inlined. Written by `python -m migrator.render`; do not edit."""',
        "",
    ]
    lines += [*dictionary("TEMPLATES", texts), "", "SHA256 = {"]
    lines += [f"    {quoted(name)}: {quoted(sha256(text.encode()))}," for name, text in texts.items()]
    return "\n".join([*lines, "}", "", *dictionary("GUIDES", guides()), ""])


def dictionary(name: str, texts: dict[str, str]) -> list[str]:
    """Return the lines of a dictionary of texts."""
    lines = [f"{name} = {{"]
    for key, text in texts.items():
        lines += [
            f"    {quoted(key)}: (",
            *(f"        {quoted(line)}" for line in text.splitlines(keepends=True)),
            "    ),",
        ]
    return [*lines, "}"]


def quoted(text: str) -> str:
    """Return a Python string literal in ASCII."""
    return json.dumps(text)


def outputs(*, release: bool = False) -> dict[Path, str]:
    """Return every file this program writes, with the text it should have."""
    texts = templates()
    shipped = manifest(texts, release=release)
    files = {TEMPLATES / name: texts[name] for name in RENDERED}
    files[TEMPLATES / MANIFEST] = shipped
    files[INLINED] = inlined({**texts, MANIFEST: shipped})
    files[REPOSITORY / reference.PAGE] = reference.page()
    return files


def main(arguments: list[str] | None = None) -> int:
    """Write what differs, or with `--check` only name it."""
    parser = argparse.ArgumentParser(prog="python -m migrator.render", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file would change")
    parser.add_argument("--release", action="store_true", help="remember the hashes as shipped")
    options = parser.parse_args(arguments)
    changed = 0
    for path, text in outputs(release=options.release).items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        changed += 1
        sys.stdout.write(f"{'differs' if options.check else 'wrote'}: {path.relative_to(REPOSITORY)}\n")
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if text.startswith("#!") else 0o644)
    return int(options.check and changed > 0)


if __name__ == "__main__":
    sys.exit(main())
