"""Whether Codex runs our hooks in a project, and what is left to be granted."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instar.errors import InstarError
from migrator import codex_config, codex_trust
from migrator.codex_trust import CodexTrustError, HookTrust, find_codex
from migrator.registration import SETTINGS, commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from migrator.project import Project

GRANT = "instar-migrate --trust-codex"

_MOVED = "another hook was put before ours, or taken from there"
_REDEFINED = "its definition changed"
_FORGOTTEN = "Codex's config.toml does not hold it any more"


@dataclass(frozen=True)
class CodexStatus:
    """What Codex makes of our hooks: each list holds events, and is empty unless `state` is "known"."""

    path: str
    state: Literal["known", "no codex", "folder untrusted", "unknown"] = "known"
    trusted: list[str] = field(default_factory=list)
    untrusted: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)  # switched off by the user
    lost: list[str] = field(default_factory=list)  # those of the untrusted that an earlier migration saw trusted
    reasons: dict[str, str] = field(default_factory=dict)  # why each of them was lost
    problem: str = ""
    positions: dict[str, str] = field(default_factory=dict)  # of the trusted, each with its hash; to be remembered

    @property
    def is_settled(self) -> bool:
        """Whether Codex runs all of our hooks."""
        return bool(self.trusted) and not (self.untrusted or self.disabled)

    def advice(self) -> str:
        """Return what the person should know or do, as one line."""
        if self.state != "known":
            return self._way_to_know()
        if self.lost:
            return f"trusts our hooks no more at {self._losses()}: run {GRANT}"
        if self.untrusted or not self.trusted:
            return f"skips our hooks until it is told to trust them: run {GRANT}"
        if self.disabled:
            return f"you switched our hooks off at {', '.join(self.disabled)}; /hooks in codex switches them on again"
        return "trusts our hooks"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        shown = {**asdict(self), "advice": self.advice()}
        del shown["positions"]
        return shown

    def _way_to_know(self) -> str:
        if self.state == "no codex":
            return f"there is no codex on PATH, and none was used here; once it is there, run {GRANT}"
        if self.state == "folder untrusted":
            return f"start codex once in {Path(self.path).parent.parent}, trust the folder, then run {GRANT}"
        return self.problem

    def _losses(self) -> str:
        reasons = dict.fromkeys(self.reasons[event] for event in self.lost)
        events = {why: [event for event in self.lost if self.reasons[event] == why] for why in reasons}
        return "; ".join(f"{', '.join(events[why])} ({why})" for why in reasons)


def look_up(project: Project, environ: Mapping[str, str]) -> CodexStatus:
    """Return the status. Codex is started for it (a tenth of a second) unless nothing changed since all was trusted.

    Where there is no such program, an editor's Codex may still use the same home: then its config.toml is read.
    """
    path = str(project.root / SETTINGS["codex"])
    codex = find_codex(environ)
    if not codex_config.home(environ).is_dir():  # never used: asking it would create its home
        return CodexStatus(path, "folder untrusted" if codex else "no codex")
    memory = _Memory.of(project)
    if memory.trusted and memory.fingerprint == fingerprint(project, environ):
        return CodexStatus(path, trusted=memory.trusted, positions=memory.positions)
    try:
        hooks = codex_trust.read(project.root, codex, environ) if codex else codex_config.read(project.root, environ)
    except CodexTrustError as error:
        return CodexStatus(path, "unknown", problem=str(error))
    if hooks is None:
        return CodexStatus(path, "folder untrusted")
    return _status(path, [hook for hook in hooks if hook.command in commands("codex")], memory)


def trust(project: Project, environ: Mapping[str, str]) -> None:
    """Have Codex trust our hooks. Raise InstarError where it cannot, or where the folder itself is not trusted."""
    codex = find_codex(environ)
    home = codex_config.home(environ)
    try:
        if codex:
            codex_trust.grant(project.root, commands("codex"), codex, environ)
        elif home.is_dir():
            codex_config.grant(project.root, commands("codex"), environ)
        else:
            raise InstarError(f"there is no codex on PATH, and no {home}: install Codex and run {GRANT} again")
    except CodexTrustError as error:
        raise InstarError(str(error)) from error


def learned(project: Project, status: CodexStatus, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what to remember: with all trusted, Codex need not be asked again until something changes.

    What was trusted once stays remembered, so that it is noticed when it is lost.
    """
    memory = _Memory.of(project)
    now = fingerprint(project, environ)
    if status.is_settled and memory.fingerprint == now:
        return {"codex": project.record["codex"]}
    if status.is_settled:
        return {"codex": {"fingerprint": now, "trusted": status.trusted, "positions": status.positions}}
    trusted = list(dict.fromkeys((*memory.trusted, *status.trusted)))
    return {"codex": {"trusted": trusted, "positions": {**memory.positions, **status.positions}} if trusted else None}


def fingerprint(project: Project, environ: Mapping[str, str]) -> str:
    """Return a word that changes with our registrations and with Codex's own configuration."""
    digest = hashlib.sha256()
    for place in (project.root / SETTINGS["codex"], codex_config.home(environ) / "config.toml"):
        try:
            digest.update(place.read_bytes() if place.is_file() else b"none")  # of a pipe nothing would come
        except OSError:
            digest.update(b"none")
        digest.update(b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class _Memory:
    """What earlier migrations saw trusted; the fingerprint only if that was all, at the last one."""

    fingerprint: str | None
    trusted: list[str]
    positions: dict[str, str]  # position in hooks.json -> hash; the first release did not remember them

    @classmethod
    def of(cls, project: Project) -> _Memory:
        """Read the record, of this release or another, as far as it can be read."""
        entry = project.record.get("codex")
        entry = entry if isinstance(entry, dict) else {}
        trusted, positions = entry.get("trusted"), entry.get("positions")
        return cls(
            entry.get("fingerprint"),
            [event for event in trusted if isinstance(event, str)] if isinstance(trusted, list) else [],
            dict(positions) if isinstance(positions, dict) else {},
        )


def _status(path: str, ours: list[HookTrust], memory: _Memory) -> CodexStatus:
    enabled = [hook for hook in ours if hook.enabled]
    trusted = [hook for hook in enabled if hook.status == "trusted"]
    untrusted = [hook for hook in enabled if hook.status != "trusted"]
    reasons = dict(_losses(untrusted, memory))
    return CodexStatus(
        path,
        trusted=[hook.event for hook in trusted],
        untrusted=[hook.event for hook in untrusted],
        disabled=[hook.event for hook in ours if not hook.enabled],
        lost=list(reasons),
        reasons=reasons,
        positions={_position(hook): hook.current_hash for hook in trusted},
    )


def _losses(untrusted: list[HookTrust], memory: _Memory) -> Iterator[tuple[str, str]]:
    """Yield the events that lost their trust, each with the reason."""
    for event in dict.fromkeys(hook.event for hook in untrusted if hook.event in memory.trusted):
        hooks = [hook for hook in untrusted if hook.event == event]
        yield event, _reason(hooks, memory) if memory.positions else _reason_by_status(hooks)


def _reason(hooks: list[HookTrust], memory: _Memory) -> str:
    known = [hook for hook in hooks if hook.current_hash in memory.positions.values()]
    if not known:
        return _REDEFINED
    is_in_place = all(memory.positions.get(_position(hook)) == hook.current_hash for hook in known)
    return _FORGOTTEN if is_in_place else _MOVED


def _reason_by_status(hooks: list[HookTrust]) -> str:
    # At a new position there is no trust yet, or that of another of ours; but not for the last of them.
    return _REDEFINED if all(hook.status == "modified" for hook in hooks) else _MOVED


def _position(hook: HookTrust) -> str:
    """Return the part of the key behind the file: event, group and place in it."""
    return ":".join(hook.key.split(":")[-3:])
