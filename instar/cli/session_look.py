"""How `instar-sessions` looks at sessions, and finds the one that is meant."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.cli.options import warn
from instar.cli.patience import patience
from instar.errors import InstarError
from instar.sessions import classifier, registry
from instar.sessions.assembly import BETWEEN_LOOKS_S, Assembly
from instar.sessions.evidence import Sight
from instar.sessions.look import memory
from instar.sessions.parking import resumption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from instar.sessions.registry import Session
    from instar.sessions.verdict import Verdict

_SEEN: Final = re.compile("(claude|codex)-[0-9]+")  # how a session that is not on record is called
NOT_ON_RECORD: Final = "it began before the hooks were set up, or without them"


@dataclass(frozen=True)
class Looked:
    """A session with what a look shows of it; `sight` is None for one that is over, or could not be looked at."""

    session: Session
    sight: Sight | None = None
    verdict: Verdict | None = None

    @property
    def is_parked(self) -> bool:
        """Whether it was ended by us, and can be taken up again."""
        return self.session.is_over and isinstance(self.session.record.get("parked"), dict)

    @property
    def doing(self) -> str:
        """What it does, in a word."""
        if self.is_parked:
            return "parked"
        if self.sight is None or self.session.state in ("reaping", "unreadable"):
            return self.session.state
        return _doing(self.sight)

    @property
    def idle_since(self) -> float | None:
        """When the newest entry of its transcript was written, in seconds since 1970; None where none tells."""
        return self.sight.turn.at if self.sight else None

    @property
    def resume(self) -> str | None:
        """The client's own command that takes it up again, as a person types it; None where the record tells none."""
        try:
            return resumption.command({**self.session.record, "id": self.session.id}).text
        except resumption.Unresumable:
            return None

    def as_json(self) -> dict[str, Any]:
        """Return the record, and what was seen, for a program; None stands for what was not, or cannot be told."""
        said = self.verdict.as_json() if self.verdict else dict.fromkeys(("verdict", "keptBy", "confidence", "why"))
        since, now = self.idle_since, self.sight.host.wall if self.sight else None
        seen = {
            "doing": self.doing,
            **said,
            "idleS": None if since is None or now is None else round(max(0.0, now - since)),
            "memory": memory(self.sight) if self.sight else None,
            "resume": self.resume if self.is_parked else None,
        }
        return {**self.session.as_json(), **seen}


class Looks:
    """Looks at the sessions of projects; each look is compared with the one before, or with the reaper's last."""

    def __init__(self, roots: Iterable[Path], sleep: Callable[[float], None] = time.sleep) -> None:
        self._assemblies = [Assembly(root) for root in roots]
        self._sleep = sleep
        self._marks: dict[str, dict[str, Any]] = {}

    def once(self) -> list[Looked]:
        """Look at all sessions; return them and those that are over, by project, those of the newest event first."""
        return [looked for assembly in self._assemblies for looked in self._of(assembly)]

    def settled(self) -> list[Looked]:
        """Look at all sessions; twice, a moment apart, where only a second look can tell."""
        with patience("looking at the sessions"):
            looked = self.once()
            if any(_needs_another(each.sight) for each in looked):
                self._sleep(BETWEEN_LOOKS_S)
                looked = self.once()
        return looked

    def at(self, session: Session) -> Sight:
        """Look at one session, as `settled` does. Raise InstarError."""
        (assembly,) = self._assemblies
        with patience("looking at the session"):
            (sight,) = self._compared(assembly.sights([session]))
            if _needs_another(sight):
                self._sleep(BETWEEN_LOOKS_S)
                (sight,) = self._compared(assembly.sights([session]))
        return sight

    def _of(self, assembly: Assembly) -> list[Looked]:
        recorded = registry.sessions(assembly.root)
        try:
            sights = self._compared(assembly.sights())
        except InstarError as error:
            warn(f"{error}: this is from the records alone")
            return [Looked(each) for each in recorded]
        seen = [Looked(each.session, each, classifier.judge(each)) for each in sights]
        known = {each.session.id for each in seen}
        over = [Looked(each) for each in recorded if each.id not in known]
        return sorted([*seen, *over], key=lambda each: each.session.text("lastEvent", "at"), reverse=True)

    def _compared(self, sights: list[Sight]) -> list[Sight]:
        """Return the sights with something to compare them with, where there is: the reaper's last look, or our own."""
        compared = [
            each if each.before else Sight(each.session, each.host, self._marks.get(each.session.id, {}))
            for each in sights
        ]
        self._marks = {**self._marks, **{each.session.id: each.marks() for each in compared}}
        return compared


def _doing(sight: Sight) -> str:
    """Return what a session does: what the first gate that is sure of it shows, else what its transcript tells."""
    for gate in classifier.GATES:
        kept = classifier.ask(gate, sight) if gate.shows else None
        is_unseen = gate.shows == "unknown" and sight.screen is None
        if kept and kept.confidence == "high" and not is_unseen:
            return gate.shows
    return "idle" if sight.turn.state == "closed" else "unknown"


def _needs_another(sight: Sight | None) -> bool:
    """Say whether nothing speaks for keeping a session but that this is the first look at it."""
    if sight is None or sight.agent is None or sight.before:
        return False
    return classifier.judge(sight).confidence == "low"


def is_unrecorded(session: Session) -> bool:
    """Say whether a session is only seen, and not on record."""
    return session.state == "unrecorded"


def known(root: Path, name: str) -> Session:
    """Return the session with this id, or the only one whose id begins so, on record or not. Raise InstarError."""
    try:
        return registry.find(root, name)
    except InstarError:
        seen = [each.session for each in Assembly(root).sights()] if _SEEN.fullmatch(name) else []
        for session in seen:
            if is_unrecorded(session) and session.id == name:
                return session
        raise


def recorded(root: Path, name: str) -> Session:
    """Return the session on record with this id, as `known` does. Raise InstarError."""
    session = known(root, name)
    if is_unrecorded(session):
        raise InstarError(f"{session.id} is not on record: {NOT_ON_RECORD}; nothing can be done to it from here")
    return session
