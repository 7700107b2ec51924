"""Which peers are run by systemd or launchd: those are theirs, and only looked at here.

A peer is managed when a file of its service is there, whether the service runs or not: `instar-peer@<name>.service`
in a folder of units, or among what one of its targets wants, or `com.iapeer.<name>.plist`. One whose folders cannot be
read may be managed, and counts as such.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from instar.names import checked_name, name_in

if TYPE_CHECKING:
    from collections.abc import Mapping

Manager = Literal["systemd", "launchd"]

_SYSTEM_UNITS: Final = ("/etc/systemd/user", "/etc/systemd/system", "/run/systemd/system")
_SYSTEM_AGENTS: Final = ("/Library/LaunchAgents", "/Library/LaunchDaemons")
_ENABLED: Final = (".wants", ".requires")  # where systemctl enable puts the link to a unit


@dataclass(frozen=True)
class Managed:
    """Who runs a peer, and by which file; where nobody can tell, who may: not `is_sure`. `why` is for people."""

    by: Manager
    path: Path
    why: str
    is_sure: bool = True


@dataclass(frozen=True)
class Services:
    """Where the files of services lie: the folders of units, and those of agents and daemons."""

    systemd: tuple[Path, ...] = ()
    launchd: tuple[Path, ...] = ()

    @classmethod
    def of_machine(cls, environ: Mapping[str, str]) -> Services:
        """Return where they lie on this machine for its user, by `$HOME` and `$XDG_CONFIG_HOME`."""
        home = Path(environ.get("HOME") or Path.home())
        configured = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
        return cls(
            systemd=(configured / "systemd/user", *map(Path, _SYSTEM_UNITS)),
            launchd=(home / "Library/LaunchAgents", *map(Path, _SYSTEM_AGENTS)),
        )

    def managed(self, name: str) -> Managed | None:
        """Return who runs the peer of this name, None for nobody. Raise InstarError for what is no name of a peer."""
        unit, plist = f"instar-peer@{checked_name(name)}.service", f"com.iapeer.{name}.plist"
        found = (
            *(_found("systemd", folder, unit) for folder in self.systemd),
            *(_found("launchd", folder, plist) for folder in self.launchd),
        )
        return next((each for each in found if each is not None), None)

    def managed_identity(self, identity: str) -> Managed | None:
        """Return who runs the peer that goes by this identity; None for nobody, and for a session that is no peer's."""
        name = name_in(identity)
        return None if name is None else self.managed(name)


def _found(by: Manager, folder: Path, file: str) -> Managed | None:
    try:
        targets = [name for name in _names(folder) if name.endswith(_ENABLED)] if by == "systemd" else []
        place = next((each for each in (folder, *(folder / name for name in targets)) if file in _names(each)), None)
    except OSError as error:
        why = f"{by} may run it, for {folder} cannot be read: {error.strerror}"
        return Managed(by, folder, why, is_sure=False)
    return None if place is None else Managed(by, place / file, f"{by} runs it, by {place / file}")


def _names(folder: Path) -> list[str]:
    """Return the names of what is in a folder, links that lead nowhere among them; [] where it is none."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are asked for
    except (FileNotFoundError, NotADirectoryError):
        return []
