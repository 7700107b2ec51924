"""The session event hook, broken at every edge call: it says nothing, tears nothing, and the next event mends it."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.faults import laws
from tests.faults.harness import Log, Rewind, check_all, faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stand_ins import Client
    from support import Project
    from tests.faults.harness import Call

SESSIONS = ".instar/state/sessions"
NOW = "wall=2000000000"  # so that an event that is told again writes the same
KINDS = ("kill", "disk", "ENOLCK", "short")
USERS_ENVIRONMENT = "export OTHER=1\n"
START, PROMPT, END = "SessionStart", "UserPromptSubmit", "SessionEnd"


@dataclass
class Session:
    """A client in a project, and the file from which its tool shells are told their environment."""

    project: Project
    client: Client
    folder: Path

    @property
    def environment(self) -> Path:
        return self.folder / "environment.sh"

    def tell(self, fault: str, name: str, session: str = "s", **fields: object) -> tuple[str, str]:
        """Fire an event as the client would, broken by `fault`; return the exit status and what reaches the model."""
        event, command = self.folder / "event", self.folder / "command"
        event.write_text(json.dumps({"session_id": session, "hook_event_name": name, **fields}), encoding="utf-8")
        command.write_text(self.project.registered("claude", "session-event-hook", name), encoding="utf-8")
        words = f"CLAUDE_ENV_FILE={self.environment} FAULT={shlex.quote(f'{fault} {NOW}')}"
        *said, status = self.client.run(f"{words} sh {command} <{event}; echo; echo $?").split()
        return status, " ".join(said)

    def record(self, session: str, **fields: object) -> None:
        """Write a record as an event before would have left it."""
        place = self.project.root / SESSIONS / f"{session}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({"id": session, "status": "running", "version": 3, **fields}), encoding="utf-8")

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return the records, and what lies beside them, but for the lock."""
        found = laws.files(self.project.root / SESSIONS)
        return {path: seen for path, seen in found.items() if path != ".lock"}

    def records(self) -> dict[str, Any]:
        """Return what the records say, but for how often they were written."""
        said = {path: json.loads(seen[1]) for path, seen in self.files().items() if path.endswith(".json")}
        return {path: {key: value for key, value in each.items() if key != "version"} for path, each in said.items()}


def fresh(_session: Session) -> None:
    """Have nothing recorded."""


def started(session: Session) -> None:
    session.tell("none", START, source="startup", model="m")


def surrounded(session: Session) -> None:
    """Have one session in the same process, one whose process is gone, and one that is long forgotten."""
    session.tell("none", START, "earlier", source="startup")
    agent = session.project.record("earlier")["agent"]
    session.record("gone", agent={**agent, "start": "0"})
    session.record("forgotten", status="completed", endedAt="2001-01-01T00:00:00Z")
    session.record("other", parked={"by": "me"})


def forked(session: Session) -> None:
    """Have a session that was resumed, whose prompts come under another id: that is a fork."""
    session.tell("none", START, "origin", source="resume")


def asked(session: Session) -> None:
    started(session)
    session.client.init("--owner-session", "s")
    session.project.build("ask", "which?")


def torn(session: Session) -> None:
    session.record("s")
    (session.project.root / SESSIONS / "s.json").write_bytes(b'{"id": "s", "sta')


class Case(NamedTuple):
    """An event, and what was there before it."""

    prepare: Callable[[Session], object]
    name: str
    fields: dict[str, object]


CASES = {
    "the first start": Case(fresh, START, {"source": "startup"}),
    "a start among others": Case(surrounded, START, {"source": "clear"}),
    "a prompt": Case(started, PROMPT, {"prompt": "go on", "prompt_id": "p"}),
    "the first prompt of a fork": Case(forked, PROMPT, {"prompt": "go on"}),
    "an answer": Case(asked, PROMPT, {"prompt": "that one"}),
    "an end": Case(started, END, {"reason": "other"}),
    "a record that cannot be read": Case(torn, PROMPT, {}),
}


@pytest.fixture
def session(breakable: Project, start_client: Callable[..., Client], tmp_path: Path) -> Session:
    """Return a client in a project whose programs can be broken."""
    (tmp_path / "client").mkdir()
    made = Session(breakable, start_client("claude"), tmp_path / "client")
    made.environment.write_text(USERS_ENVIRONMENT, encoding="utf-8")
    return made


class Trial:
    """One event that is broken again and again, with the same before it."""

    def __init__(self, session: Session, case: Case, log: Log, copies: Path) -> None:
        self.session, self.case, self.project = session, case, session.project
        case.prepare(session)
        self.rewind = Rewind([self.project.root / ".instar", session.folder], copies)
        self.before, self.seen = session.files(), laws.Seen.of(self.project)
        self.environments = [session.environment.read_bytes()]
        assert self.fire(log.fault) == ("0", "")
        self.calls = log.read()
        self.after, self.settled = session.files(), session.records()
        self.environments.append(session.environment.read_bytes())
        self.state = laws.read(self.project.state_path)
        assert self.environments[1].startswith(self.environments[0])
        assert self.after != self.before

    def fire(self, fault: str) -> tuple[str, str]:
        return self.session.tell(fault, self.case.name, **self.case.fields)

    def check(self, fault: str, call: Call) -> None:
        """Break the event once, and assert all that holds then, and after it is told once more."""
        self.rewind()
        assert self.fire(fault) == ("0", "")
        self.check_records(fault)
        laws.the_state_is_whole(self.project, self.seen)
        laws.a_stop_changes_only_its_own_keys(self.project, self.seen)
        laws.the_users_bytes_are_intact(self.project, self.seen)
        assert self.session.environment.read_bytes() in self.environments
        if "kill" not in fault and self.is_incomplete():
            assert laws.Seen.of(self.project).logs != self.seen.logs or "log" in call.about, "no trace is left"
        self.check_next()

    def check_records(self, fault: str) -> None:
        """Assert that each record is the old one or the new one, and whole; or set aside, where it cannot be read."""
        now = self.session.files()
        paths = {path for path in now.keys() | self.before.keys() | self.after.keys() if not laws.is_temporary(path)}
        known = {path: (self.before.get(path), self.after.get(path)) for path in paths}
        set_aside = {path for path in paths - now.keys() if known[path][0] in now.values()}
        wrong = {path: now.get(path) for path in paths - set_aside if now.get(path) not in known[path]}
        assert not wrong, f"neither as before nor as after: {wrong}"
        assert "kill" in fault or not [path for path in now if laws.is_temporary(path)]

    def is_incomplete(self) -> bool:
        """Say whether something that an undisturbed event writes was not written."""
        now = (self.session.files(), self.session.environment.read_bytes(), laws.read(self.project.state_path))
        return now != (self.after, self.environments[1], self.state)

    def check_next(self) -> None:
        """Assert that the same event once more ends where an undisturbed one does."""
        assert self.fire("none") == ("0", "")
        assert self.session.records() == self.settled
        assert self.session.environment.read_bytes() == self.environments[1]
        if self.state is not None:
            assert json.loads(laws.read(self.project.state_path) or b"") == json.loads(self.state)
            laws.the_audit_can_be_read(self.project)
        laws.no_temporary_file_is_left(self.project)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_a_broken_event_says_and_tears_nothing_and_the_next_one_mends_it(
    session: Session, log: Log, tmp_path: Path, name: str, kind: str
) -> None:
    trial = Trial(session, CASES[name], log, tmp_path / "before")
    points = faults(kind, trial.calls)
    assert points

    check_all(points, lambda fault: trial.check(fault, points[fault]))
