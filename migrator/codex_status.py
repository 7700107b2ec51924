"""Whether Codex runs our hooks in a project, and what is left to be granted."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instar.errors import InstarError
from migrator.codex_trust import CodexTrustError, find_codex, grant, read
from migrator.registration import SETTINGS, commands

if TYPE_CHECKING:
    from collections.abc import Mapping

    from migrator.project import Project

GRANT = "instar-migrate --trust-codex"


@dataclass(frozen=True)
class CodexStatus:
    """What Codex makes of our hooks: each list holds events, and is empty unless `state` is "known"."""

    path: str
    state: Literal["known", "no codex", "folder untrusted", "unknown"] = "known"
    trusted: list[str] = field(default_factory=list)
    untrusted: list[str] = field(default_factory=list)
    disabled: list[str] = field(default_factory=list)  # switched off by the user
    problem: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether Codex runs all of our hooks."""
        return bool(self.trusted) and not (self.untrusted or self.disabled)

    def advice(self) -> str:
        """Return what the person should know or do, as one line."""
        if self.state == "no codex":
            return f"there is no codex on PATH; once it is there, run {GRANT}"
        if self.state == "folder untrusted":
            return f"start codex once in {Path(self.path).parent.parent}, trust the folder, then run {GRANT}"
        if self.state == "unknown":
            return self.problem
        if self.untrusted or not self.trusted:
            return f"skips our hooks until it is told to trust them: run {GRANT}"
        if self.disabled:
            return f"you switched our hooks off at {', '.join(self.disabled)}; /hooks in codex switches them on again"
        return "trusts our hooks"

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {**asdict(self), "advice": self.advice()}


def look_up(project: Project, environ: Mapping[str, str]) -> CodexStatus:
    """Return the status. Codex is started for it (a tenth of a second) unless nothing changed since all was trusted."""
    path = str(project.root / SETTINGS["codex"])
    codex = find_codex(environ)
    if codex is None:
        return CodexStatus(path, "no codex")
    if not _home(environ).is_dir():  # never used: asking it would create its home
        return CodexStatus(path, "folder untrusted")
    remembered = project.record.get("codex")
    if isinstance(remembered, dict) and remembered.get("fingerprint") == fingerprint(project, environ):
        return CodexStatus(path, trusted=list(remembered.get("trusted", [])))
    try:
        hooks = read(project.root, codex, environ)
    except CodexTrustError as error:
        return CodexStatus(path, "unknown", problem=str(error))
    if hooks is None:
        return CodexStatus(path, "folder untrusted")
    ours = [hook for hook in hooks if hook.command in commands("codex")]
    return CodexStatus(
        path,
        trusted=[hook.event for hook in ours if hook.enabled and hook.status == "trusted"],
        untrusted=[hook.event for hook in ours if hook.enabled and hook.status != "trusted"],
        disabled=[hook.event for hook in ours if not hook.enabled],
    )


def trust(project: Project, environ: Mapping[str, str]) -> None:
    """Have Codex trust our hooks. Raise InstarError where it cannot, or where the folder itself is not trusted."""
    codex = find_codex(environ)
    if codex is None:
        raise InstarError(f"there is no codex on PATH to grant trust in: install it and run {GRANT} again")
    try:
        grant(project.root, commands("codex"), codex, environ)
    except CodexTrustError as error:
        raise InstarError(str(error)) from error


def learned(project: Project, status: CodexStatus, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return what to remember: with all trusted, Codex need not be asked again until something changes."""
    if not status.is_settled:
        return {"codex": None}
    return {"codex": {"fingerprint": fingerprint(project, environ), "trusted": status.trusted}}


def fingerprint(project: Project, environ: Mapping[str, str]) -> str:
    """Return a word that changes with our registrations and with Codex's own configuration."""
    digest = hashlib.sha256()
    for place in (project.root / SETTINGS["codex"], _home(environ) / "config.toml"):
        try:
            digest.update(place.read_bytes())
        except OSError:
            digest.update(b"none")
        digest.update(b"\0")
    return digest.hexdigest()


def _home(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("CODEX_HOME") or Path.home() / ".codex")
