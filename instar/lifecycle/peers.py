"""The peers of a project, each by its profile `.instar/agents/<name>.json`, which nothing else writes.

A peer is a named agent: a client and the folder it works in. `instar-peers add` makes its profile, and a person may
edit it; what we do not know in it stays.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from instar.config import over
from instar.errors import InstarError
from instar.lifecycle import profile
from instar.lifecycle.profile import UnusableError, shown
from instar.locks import alone
from instar.names import NAMES, Runtime, checked_name, identities, is_name
from instar.sessions.registry import sessions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER: Final = ".instar/agents"
LOCK: Final = ".lock"
LOCK_S: Final = 2.0
_END: Final = ".json"
_FIRST: Final = ("name", "runtime", "runtimes", "cwd", "interfaces", "wake_policy")  # in a new profile


@dataclass(frozen=True)
class Peer:
    """A named agent as its profile tells of it.

    `runtime` is the client that it is woken in, one of `runtimes`, all that it may be woken in. `cwd` is absolute, and
    was a folder when the peer was added. `trusts_folder` is whether the client's question about trusting that folder
    may be answered with yes, `bypasses_permissions` whether the client asks for none. `initial_prompt` is what a fresh
    session is told first, "" for nothing. `is_human` is whether a person talks to it, through some interface. `args`
    and `env` are the client's, besides what we give it.
    """

    name: str
    runtime: Runtime
    cwd: Path
    trusts_folder: bool = False
    bypasses_permissions: bool = False
    initial_prompt: str = ""
    is_human: bool = False
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    runtimes: tuple[Runtime, ...] = ()
    path: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if not self.runtimes:
            object.__setattr__(self, "runtimes", (self.runtime,))

    @property
    def identity(self) -> str:
        """What its sessions, and the files of their lifecycle, go by."""
        return f"{self.runtime}-{self.name}"

    def on(self, runtime: str) -> Peer:
        """Return the peer as it is in another of its clients. Raise InstarError for one that it does not declare."""
        for each in self.runtimes:
            if each == runtime:
                return replace(self, runtime=each)
        raise InstarError(f"{self.name} does not run in {shown(runtime)!r}, only in {', '.join(self.runtimes)}")

    def folder(self) -> Path:
        """Return the folder that it works in. Raise InstarError where there is none."""
        if not os.path.isdir(self.cwd):  # noqa: PTH112 - a name that can be none is no error
            raise InstarError(f"{self.cwd}, where {self.name} is to work, is no folder: make it, or name another")
        return self.cwd


@dataclass(frozen=True)
class Broken:
    """A profile that cannot be used. `name` is fit to be shown, `why` is a whole sentence for people."""

    name: str
    path: Path
    why: str


class BrokenError(InstarError):
    """The profile of a peer cannot be used."""


class Peers:
    """The peers of a project, for any number of processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = root / FOLDER

    def all(self) -> list[Peer | Broken]:
        """Return all peers by their names, and what cannot be used. Raise InstarError where they cannot be listed."""
        try:
            places = sorted(self.path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InstarError(f"{self.path} cannot be listed: {error.strerror}") from error
        profiles = [each for each in places if each.name.endswith(_END) and not each.name.startswith(".")]
        return [found for each in profiles if (found := self._read(each)) is not None]

    def get(self, name: str) -> Peer:
        """Return a peer. Raise InstarError where there is none, and BrokenError where its profile cannot be used."""
        found = self._read(self._place(name))
        if found is None:
            raise InstarError(_missing(self._root, name))
        if isinstance(found, Broken):
            raise BrokenError(found.why)
        return found

    def add(self, peer: Peer) -> Peer:
        """Make a profile, and return the peer as it is read from there. Raise InstarError, also where one is there."""
        place = self._place(peer.name)
        with self._locked():
            if os.path.lexists(place):
                raise InstarError(f"{place} is there already: edit it, or remove it with instar-peers remove")
            return self._write(peer, is_new=True)

    def change(self, peer: Peer) -> Peer:
        """Make a profile say this, and return the peer; what else stands in it stays. Raise InstarError."""
        with self._locked():
            self.get(peer.name)
            return self._write(peer, is_new=False)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a profile, whatever is in it. Raise InstarError, also where a session of the peer lives, unforced."""
        place = self._place(name)
        with self._locked():
            live = [] if force else self._live(name)
            if live:
                raise InstarError(f"{name} runs, as session {live[0]}: end it first, with instar-peers stop {name}")
            try:
                place.unlink()
            except FileNotFoundError as error:
                raise InstarError(_missing(self._root, name)) from error
            except OSError as error:
                raise InstarError(f"{place} cannot be removed: {error.strerror}") from error

    def _place(self, name: str) -> Path:
        return self.path / f"{checked_name(name)}{_END}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with alone(self.path / LOCK, LOCK_S, f"{self.path / LOCK} is held by another program: try again"):
            yield

    def _live(self, name: str) -> list[str]:
        named = identities(name)
        return [each.id for each in sessions(self._root) if each.text("identity") in named and not each.is_over]

    def _read(self, place: Path) -> Peer | Broken | None:
        name = place.name[: -len(_END)]
        try:
            if not is_name(name):
                raise UnusableError(f"its name is none of a peer: {NAMES}")  # noqa: TRY301 - it is told as the others
            return _peer(self._root, place, profile.read(place, name))
        except FileNotFoundError:
            return None
        except UnusableError as error:
            why = f"{place.parent / shown(place.name)} cannot be used: {error}: mend it, or remove it"
            return Broken(shown(name), place, why)

    def _write(self, peer: Peer, *, is_new: bool) -> Peer:
        """Write a profile, under the lock, and read it again."""
        place = self._place(peer.name)
        peer.folder()
        try:
            before = dict.fromkeys(_FIRST) if is_new else profile.read(place, peer.name)
            profile.write(place, peer.name, _said(self._root, peer, before))
        except UnusableError as error:
            raise InstarError(f"{place} cannot be written: {error}") from error
        except OSError as error:
            raise InstarError(f"{place} cannot be written: {error.strerror}") from error
        return self.get(peer.name)


def _missing(root: Path, name: str) -> str:
    return f"{root} has no peer {name}: instar-peers list shows all, and instar-peers add {name} makes it"


def _peer(root: Path, place: Path, values: dict[str, Any]) -> Peer:
    """Return the peer that a sound profile tells of. A folder is relative to the project."""
    runtimes = tuple(values.get("runtimes") or [values["runtime"]])
    launch = values.get("launch", {})
    return Peer(
        values["name"],
        values.get("runtime", runtimes[0]),
        Path(os.path.abspath(root / values.get("cwd", "."))),  # noqa: PTH100 - links stay as they are named
        trusts_folder=values.get("trustFolder", False),
        bypasses_permissions=values.get("bypassPermissions", False),
        initial_prompt=values.get("initial_prompt") or "",
        is_human=_has_interface(values),
        args=tuple(launch.get("args", ())),
        env=launch.get("env", {}),
        runtimes=runtimes,
        path=place,
    )


def _said(root: Path, peer: Peer, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a profile is to say. The project's own folders are told from the project, which may be moved."""
    cwd = peer.cwd.relative_to(root) if peer.cwd.is_relative_to(root) else peer.cwd
    ours: dict[str, Any] = {
        "name": peer.name,
        "runtime": peer.runtime,
        "runtimes": list(peer.runtimes),
        "cwd": str(cwd),
        "initial_prompt": peer.initial_prompt or None,
        "trustFolder": peer.trusts_folder,
        "bypassPermissions": peer.bypasses_permissions,
        "launch": {"args": list(peer.args)},
    }
    if peer.is_human != _has_interface(before):
        ours["interfaces"] = {"chat": {}} if peer.is_human else None
    said = over(dict(before), ours)
    said["launch"]["env"] = dict(peer.env)  # a variable that it lacks is one that was taken out
    return said


def _has_interface(values: Mapping[str, Any]) -> bool:
    return any(each is not None for each in (values.get("interfaces") or {}).values())
