"""What a process runs, by name, and whether that is a helper: a program that lives as long as its client, and waits.

A name is read off the places where a program's name stands, never off a whole command line, which may well tell of an
MCP server that it only tests. Where it does not stand in a known place, there is none.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "fish", "ash", "csh", "tcsh", "busybox"})
CLIENTS: Final = frozenset({"claude", "codex"})

# Servers of the Model Context Protocol as their packages are called, and what keeps a Mac awake.
HELPERS: Final = (
    "mcp", "*-mcp", "*_mcp", "@*/mcp", "@*/mcp-*", "mcp-server", "mcp_server", "mcp-server-*", "mcp_server_*",
    "*-mcp-server", "*_mcp_server", "*-mcp-server-*", "server-mcp", "@modelcontextprotocol/server-*",
    "mcp-stdio-entry*", "caffeinate",
)  # fmt: skip

_PYTHON: Final = re.compile(r"python[0-9.]*|pypy[0-9.]*")
_SCRIPTED: Final = frozenset({"node", "bun", "deno", "ruby", "perl"})
# Those that start a package by its name: the words that come before it.
_STARTERS: Final[dict[str, tuple[tuple[str, ...], ...]]] = {
    "npx": ((),),
    "bunx": ((),),
    "uvx": ((),),
    "npm": (("exec",), ("x",)),
    "pnpm": (("dlx",), ("exec",)),
    "yarn": (("dlx",), ("exec",)),
    "uv": (("tool", "run"), ("run",)),
    "pipx": (("run",),),
}
_STANDS_ALONE: Final = frozenset(
    {"-u", "-I", "-s", "-S", "-E", "-B", "-O", "-OO", "-P", "-q", "-y", "--yes", "--quiet", "--"}
)
_SCRIPT_ENDS: Final = (".py", ".js", ".mjs", ".cjs", ".ts", ".rb", ".pl")
_PACKAGE: Final = re.compile(r".*/node_modules/((?:@[^/]+/)?[^/@.][^/]*)(?:/|$)", re.DOTALL)


def program(argv: Sequence[str]) -> str:
    """Return the base name of what was started, a login shell's without its dash; "" where nothing tells it."""
    return PurePosixPath(argv[0]).name.removeprefix("-") if argv else ""


def names(argv: Sequence[str]) -> frozenset[str]:
    """Return what a process runs may be called: the program, and what an interpreter or a starter runs.

    The latter is the module of `python -m X`, the script, and its package if it lies in `node_modules`, or the package
    that `npx`, `npm exec`, `uvx` and the like start, without its version.
    """
    words = _words(argv)
    name = program(words)
    if not name:
        return frozenset()
    return frozenset({name, *_run(name, words[1:])} - {""})


def is_helper(argv: Sequence[str], patterns: Iterable[str] = ()) -> bool:
    """Say whether a process is a helper by its name; `patterns` are further ones, with wildcards, case ignored."""
    found = {name.casefold() for name in names(argv)}
    # A program called a test is one, whatever it tests.
    known = {name for name in found if "test" not in name}
    return any(fnmatchcase(name, pattern) for name in known for pattern in HELPERS) or any(
        fnmatchcase(name, pattern.casefold()) for name in found for pattern in patterns
    )


def _words(argv: Sequence[str]) -> Sequence[str]:
    """Return the words of a command; npm, as a title, makes one of them all."""
    if len(argv) == 1 and program(argv[0].split(" ")[:1]) in _STARTERS:
        return argv[0].split()
    return argv


def _run(name: str, arguments: Sequence[str]) -> set[str]:
    """Return what an interpreter or a starter was told to run."""
    if _PYTHON.fullmatch(name):
        rest = _without_options(arguments)
        if rest[:1] == ["-m"]:
            return set(rest[1:2])
        return _script(rest)
    if name in _SCRIPTED:
        rest = _without_options(arguments)
        return _script(rest[1:] if name in ("deno", "bun") and rest[:1] == ["run"] else rest)
    for before in _STARTERS.get(name, ()):
        rest = _without_options(arguments)
        if tuple(rest[: len(before)]) == before:
            return _package(_without_options(rest[len(before) :]))
    return set()


def _without_options(words: Sequence[str]) -> list[str]:
    """Return what follows the options that are known to stand alone: what follows another may be its value."""
    at = 0
    while at < len(words) and (words[at] in _STANDS_ALONE or words[at].startswith("--no-") or _has_value(words[at])):
        at += 1
    return list(words[at:])


def _has_value(word: str) -> bool:
    return word.startswith("--") and "=" in word


def _script(words: Sequence[str]) -> set[str]:
    if not words or words[0].startswith("-"):
        return set()
    path = words[0]
    name = PurePosixPath(path).name
    package = _PACKAGE.match(path)
    bare = next((name.removesuffix(end) for end in _SCRIPT_ENDS if name.endswith(end)), name)
    return {name, bare, package[1] if package else ""}


def _package(words: Sequence[str]) -> set[str]:
    if not words or words[0].startswith("-"):
        return set()
    scope, mark, rest = words[0].rpartition("/") if words[0].startswith("@") else ("", "", words[0])
    return {f"{scope}{mark}{rest.partition('@')[0]}"}
