"""What is remembered of a peer from one of its sessions to the next, a file for each thing that is.

Beside the park markers: `.session` (that it is to be watched), `.stopped`, `.fresh-next`, `.new-eager` (wanted of it, a
moment each), `.untold` (a clean start owes it its first prompt), `.topic` (what its session was about), `.deaths` (when
it crashed), `.ended` (why its last one ended) and `.last-delivered`. Whoever wakes, parks or stops a peer does so under
the lock of its identity (`Markers.lock`); each change here is whole without it.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.lifecycle import deaths
from instar.lifecycle.deaths import Death
from instar.lifecycle.ends import CAUSES
from instar.lifecycle.memory import topics
from instar.lifecycle.memory.folder import Folder
from instar.lifecycle.memory.topics import clean_topic
from instar.sessions.clock import Clock, boot_id, iso
from instar.sessions.machine.process import READER
from instar.sessions.machine.processes import liveness
from instar.sessions.parking.markers import MARKER, Markers
from instar.sessions.reaper.candidacy import Moment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from instar.lifecycle.deaths import Ring
    from instar.lifecycle.ends import Cause
    from instar.sessions.parking.markers import Park

SESSION: Final = ".session"
REAPING: Final = ".session.reaping"
STOPPED: Final = ".stopped"
FRESH_NEXT: Final = ".fresh-next"
NEW_EAGER: Final = ".new-eager"
EAGER_AGAIN_S: Final = 60.0  # until a clean start that failed is tried for the second and last time
UNTOLD: Final = ".untold"
TOPIC: Final = ".topic"
DEATHS: Final = ".deaths"
ENDED: Final = ".ended"
LAST_DELIVERED: Final = ".last-delivered"
TAKEN: Final = f"{MARKER}.inuse"

ABANDONED_S: Final = 60.0
_DIGITS: Final = 16  # of the milliseconds of a moment
_UNUSABLE: Final = (InstarError, ValueError, RecursionError)  # what is read that cannot be used


class Marks:
    """The marks of all peers of a project. What cannot be read or written raises InstarError, and stays as it is."""

    def __init__(self, root: Path, clock: Clock | None = None) -> None:
        self.parks = Markers(root)
        self._clock = clock or Clock()
        self._folder = Folder(root)

    # The session that is watched.

    def identities(self) -> list[str]:
        """Return all identities with a session that is watched, or one whose death somebody is at."""
        return sorted({*self._folder.with_end(SESSION), *self._folder.with_end(REAPING)})

    def session(self, identity: str) -> dict[str, Any] | None:
        """Return what is watched, as it was saved; None where nothing is."""
        return self._object(identity, SESSION)

    def save_session(self, identity: str, session: dict[str, Any]) -> None:
        """Have a session watched: `identity`, `runtime`, `personality`, `cwd`, `wokeAt` (ms since 1970), and more."""
        with self._folder.lock(identity):
            self._folder.write(identity, SESSION, _bytes({**session, "identity": identity}))

    def drop_session(self, identity: str) -> None:
        """Watch it no longer."""
        self._drop(identity, SESSION)

    def session_age_s(self, identity: str) -> float:
        """Return for how long what is watched stands as it does; 0.0 where nothing is, or nobody can tell."""
        with suppress(OSError):
            return self._clock.wall() - self._folder.place(identity, SESSION).lstat().st_mtime
        return 0.0

    def put_session_aside(self, identity: str) -> Path | None:
        """Rename a file of a session that cannot be read; return where it is, None where that failed."""
        return self._folder.set_aside(identity, SESSION, self._clock.wall())

    def claim(self, identity: str) -> bool:
        """Be the one that tells of the death of a session; False where another is, or nothing is watched."""
        with self._folder.lock(identity):
            session = self.session(identity)
            if session is None:
                return False
            claimed = {**_self(), "at": Moment.of(self._clock).as_json()}
            self._folder.write(identity, SESSION, _bytes({**session, "claimed": claimed}))
            return self._folder.move(identity, SESSION, REAPING)

    def drop_claim(self, identity: str) -> None:
        """Be done with the death that was claimed."""
        self._drop(identity, REAPING)

    def reclaim(self, identity: str) -> bool:
        """Have a session watched again whose death a process claimed that died itself, more than a minute ago.

        Return whether that was so. Where a newer session is watched, the claim is dropped.
        """
        with self._folder.lock(identity):
            session = self._object(identity, REAPING)
            if session is None or not self._is_abandoned(session.get("claimed")):
                return False
            if self._folder.has(identity, SESSION):
                self._folder.drop(identity, REAPING)
                return False
            return self._folder.move(identity, REAPING, SESSION)

    def _is_abandoned(self, claimed: object) -> bool:
        if liveness(claimed) != "dead" or not isinstance(claimed, dict):
            return False
        try:
            passed = Moment.of(self._clock).since(Moment.from_json(claimed.get("at")))
        except (ValueError, OverflowError):
            return True
        return passed is None or passed > ABANDONED_S

    # What is wanted of the peer.

    def stopped(self, identity: str) -> bool:
        """Say whether it was stopped, and is to be left alone."""
        return self._folder.has(identity, STOPPED)

    def set_stopped(self, identity: str) -> None:
        """Have it left alone from now on."""
        self._set(identity, STOPPED)

    def clear_stopped(self, identity: str) -> None:
        """Leave it alone no longer."""
        self._drop(identity, STOPPED)

    def fresh_next(self, identity: str) -> bool:
        """Say whether it is to begin anew at its next wake."""
        return self._folder.has(identity, FRESH_NEXT)

    def set_fresh_next(self, identity: str) -> None:
        """Have it begin anew at its next wake."""
        self._set(identity, FRESH_NEXT)

    def clear_fresh_next(self, identity: str) -> None:
        """Let its next wake be as any."""
        self._drop(identity, FRESH_NEXT)

    def new_eager(self, identity: str) -> bool:
        """Say whether it is to be started anew at once: it asked for that, or a first try failed a minute ago."""
        if not self._folder.has(identity, NEW_EAGER):
            return False
        failed = self._eager_failure(identity)
        passed = Moment.of(self._clock).since(failed) if failed else None
        return passed is None or passed >= EAGER_AGAIN_S

    def set_new_eager(self, identity: str, *, has_failed: bool = False) -> None:
        """Have it started anew as soon as it has ended; `has_failed` is whether that was tried in vain just now."""
        self._set(identity, NEW_EAGER, {"failed": Moment.of(self._clock).as_json()} if has_failed else {})

    def is_last_eager(self, identity: str) -> bool:
        """Say whether it was tried in vain to start it anew, so that the next try is the last."""
        return self._eager_failure(identity) is not None

    def clear_new_eager(self, identity: str) -> None:
        """Start it anew no more than any."""
        self._drop(identity, NEW_EAGER)

    def untold(self, identity: str) -> bool:
        """Say whether a clean start of it has not come to telling it its first prompt."""
        return self._folder.has(identity, UNTOLD)

    def set_untold(self, identity: str) -> None:
        """Begin a clean start, which is to tell it its first prompt."""
        self._set(identity, UNTOLD)

    def clear_untold(self, identity: str) -> None:
        """Owe it its first prompt no more."""
        self._drop(identity, UNTOLD)

    # What its session is about.

    def topics(self, identity: str) -> list[str]:
        """Return what its session is about, the newest last; lines that are no topic are passed over."""
        return topics.parsed(self._folder.read(identity, TOPIC) or b"")

    def add_topic(self, identity: str, topic: str) -> None:
        """Add what its session is about, too; "" adds nothing. Raise InstarError for what is no topic, too."""
        if trimmed := clean_topic(topic):
            with self._folder.lock(identity):
                self._folder.write(identity, TOPIC, topics.written([*self.topics(identity), trimmed]))

    def reset_topics(self, identity: str, topic: str = "") -> None:
        """Make this all that its session is about; "" is nothing. Raise InstarError for what is no topic, too."""
        trimmed = clean_topic(topic)
        with self._folder.lock(identity):
            self._folder.write(identity, TOPIC, topics.written([trimmed] if trimmed else []))

    # Its deaths.

    def deaths(self, identity: str) -> Ring:
        """Return its deaths, the newest last. What cannot be read is one death now, and a copy of it is kept."""
        try:
            return deaths.parsed(self._folder.read(identity, DEATHS))
        except _UNUSABLE:
            return self.change_deaths(identity, lambda ring: ring)

    def record_death(self, identity: str, *, is_failed_wake: bool = False, of: str = "") -> Ring:
        """Add a death of this moment, and return them all; `of` names the session, whose death counts once."""
        death = Death.at(Moment.of(self._clock), is_failed_wake=is_failed_wake, of=of)
        return self.change_deaths(identity, lambda ring: deaths.record(ring, death))

    def change_deaths(self, identity: str, edit: Callable[[Ring], Ring]) -> Ring:
        """Make its deaths what `edit` returns, and return that."""
        with self._folder.lock(identity):
            before: Ring | None = None
            try:
                before = deaths.parsed(self._folder.read(identity, DEATHS))
            except _UNUSABLE:
                self._folder.set_aside(identity, DEATHS, self._clock.wall())
            after = edit((Death.at(Moment.of(self._clock)),) if before is None else before)
            if after != before:
                self._folder.write(identity, DEATHS, deaths.written(after))
        return after

    def ended(self, identity: str, of: str) -> Cause | None:
        """Return why the session that `of` names ended, as it was found then; None where nothing says so."""
        said: dict[str, Any] = {}
        with suppress(InstarError):  # what is found of it now tells as well, or nearly so
            said = self._object(identity, ENDED) or {}
        return next((each for each in CAUSES if of and said.get("of") == of and said.get("cause") == each), None)

    def set_ended(self, identity: str, of: str, cause: Cause) -> None:
        """Put down why a session has ended: what is found of it later may tell of what came after."""
        with self._folder.lock(identity):
            self._folder.write(identity, ENDED, _bytes({"identity": identity, "of": of, "cause": cause}))

    # When it was told something last.

    def last_delivered(self, identity: str) -> float | None:
        """Return when a message last reached it, in seconds since 1970, and never after now; None where none did."""
        found = self._folder.read(identity, LAST_DELIVERED)
        if found is None:
            return None
        said = found.strip()
        if not said.isdigit() or len(said) > _DIGITS:
            raise InstarError(f"{self._folder.place(identity, LAST_DELIVERED)} tells no moment")
        return min(int(said) / 1000, self._clock.wall())

    def set_last_delivered(self, identity: str) -> None:
        """Say that a message has reached it now."""
        with self._folder.lock(identity):
            self._folder.write(identity, LAST_DELIVERED, b"%d\n" % int(self._clock.wall() * 1000))

    # What was parked, and is used up in two steps. Only under the lock of the identity.

    def is_parked(self, identity: str) -> bool:
        """Say whether something of it is parked, as lists tell it; a wake that is at it counts, and needs no lock."""
        return self._folder.has(identity, MARKER) or self._folder.has(identity, TAKEN)

    def parked(self, identity: str) -> Park | None:
        """Return what of a peer that has no session is parked; a wake that broke off leaves it as it was."""
        self.give_back_park(identity)
        return self.parks.marker(identity)

    def take_park(self, identity: str) -> Park | None:
        """Use it for a wake, the first step, and return it; None where nothing is parked."""
        park = self.parked(identity)
        if park is not None:
            with self._folder.lock(identity):
                self._folder.move(identity, MARKER, TAKEN)
        return park

    def finish_park(self, identity: str) -> None:
        """Use it up, the second step: the peer lives, and its session is watched."""
        self._drop(identity, TAKEN)

    def give_back_park(self, identity: str) -> None:
        """Have it parked as before: the wake came to nothing. One that was parked since is the one that counts."""
        with self._folder.lock(identity):
            if self._folder.has(identity, MARKER):
                self._folder.drop(identity, TAKEN)
            else:
                self._folder.move(identity, TAKEN, MARKER)

    # All of them.

    def purge(self, identity: str) -> None:
        """Forget a peer. The locks stay: they say nothing, and somebody may be waiting for one."""
        with self._folder.lock(identity):
            self._folder.clear(identity)

    def _eager_failure(self, identity: str) -> Moment | None:
        """Return when it was tried in vain to start it anew; None where it was not, or nobody can tell."""
        try:
            _, _, second = (self._folder.read(identity, NEW_EAGER) or b"").partition(b"\n")
            return Moment.from_json(json.loads(second)["failed"])
        except (InstarError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None

    def _set(self, identity: str, end: str, more: Mapping[str, Any] = MappingProxyType({})) -> None:
        said = f"{iso(self._clock.wall())}\n" + (f"{json.dumps(dict(more))}\n" if more else "")
        with self._folder.lock(identity):
            self._folder.write(identity, end, said.encode("ascii"))

    def _drop(self, identity: str, end: str) -> None:
        with self._folder.lock(identity):
            self._folder.drop(identity, end)

    def _object(self, identity: str, end: str) -> dict[str, Any] | None:
        found = self._folder.read(identity, end)
        if found is None:
            return None
        try:
            values = json.loads(found)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or values.get("identity") != identity:
            raise InstarError(f"{self._folder.place(identity, end)} holds no session of {identity}")
        return values


def _bytes(values: object) -> bytes:
    return json.dumps(values).encode("ascii") + b"\n"


def _self() -> dict[str, Any]:
    """Return the stamp of this process."""
    process = READER.look(os.getpid())
    return {"pid": os.getpid(), "start": process.start if process else "", "boot": boot_id()}
