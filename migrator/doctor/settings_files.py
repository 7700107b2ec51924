"""The files from which the clients of a project read hooks: the project's and the person's own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tomlkit
from tomlkit.exceptions import TOMLKitError

from instar.errors import InstarError
from migrator import codex_config
from migrator.files import look
from migrator.json_spans import parse
from migrator.registration import SETTINGS, Client, role_of
from migrator.steps.block_cap import LOCAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrator.project import Project


class Handler(NamedTuple):
    """One hook in a settings file."""

    event: str
    where: str  # as a path of keys
    entry: Any
    role: str | None  # of ours

    @property
    def command(self) -> str:
        """The command that the client runs; "" where there is none."""
        command = self.entry.get("command") if isinstance(self.entry, dict) else None
        return command if isinstance(command, str) else ""


@dataclass(frozen=True)
class SettingsFile:
    """A settings file of a client, as far as it can be read."""

    client: Client
    name: str  # as a person knows it
    place: Path
    is_ours: bool = False  # the one that we register in
    is_projects: bool = True
    value: Any = None  # None where there is no file, or none that can be read
    problem: str = ""  # why it cannot be read

    def get(self, *keys: str) -> Any:  # noqa: ANN401 - settings may hold anything
        """Return the value at a path of keys, None where there is none."""
        value = self.value
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def handlers(self) -> Iterator[Handler]:
        """Yield all hooks in the file, in their order; what is none, by its form, is passed over."""
        for event, groups in (self.get("hooks") or {}).items() if isinstance(self.get("hooks"), dict) else ():
            for number, group in enumerate(groups if isinstance(groups, list) else ()):
                entries = group.get("hooks") if isinstance(group, dict) else None
                for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                    yield Handler(event, f"hooks.{event}[{number}].hooks[{index}]", entry, role_of(entry))


def read_settings(project: Project, environ: Mapping[str, str]) -> Iterator[SettingsFile]:
    """Yield the files of the chosen clients, those that are not there included."""
    known: set[str] = set()
    for client in project.clients:
        for folder, path in _places(project.root, client, environ):
            place = folder / path
            if os.path.realpath(place) not in known:  # a person may keep a client's home in the project
                known.add(os.path.realpath(place))
                is_ours = folder == project.root and path == SETTINGS[client]
                yield _read(client, project.root, place, is_ours=is_ours, is_projects=folder == project.root)


def _places(root: Path, client: Client, environ: Mapping[str, str]) -> list[tuple[Path, str]]:
    if client == "claude":
        home = Path(environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
        return [(root, SETTINGS["claude"]), (root, LOCAL), (home, "settings.json")]
    home = codex_config.home(environ)
    return [(root, SETTINGS["codex"]), (root, ".codex/config.toml"), (home, "hooks.json"), (home, "config.toml")]


def _read(client: Client, root: Path, place: Path, *, is_ours: bool, is_projects: bool) -> SettingsFile:
    name = str(place.relative_to(root)) if is_projects else str(place)
    value, problem = None, ""
    try:
        found = look(place.parent, place.name)
        if found is not None:
            text = found.data.decode()
            value = tomlkit.parse(text.removeprefix("\ufeff")).unwrap() if place.suffix == ".toml" else parse(text)
    except UnicodeDecodeError as error:
        problem = f"byte {error.start} is not UTF-8"
    except (InstarError, TOMLKitError, ValueError, RecursionError) as error:
        problem = str(error)
    return SettingsFile(client, name, place, is_ours, is_projects, value, problem)
