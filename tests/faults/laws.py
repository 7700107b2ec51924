"""What holds in a project whatever breaks. Each law takes what was seen before, where it needs it, and asserts."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support import Project, Stop

AUDIT = ".instar/state/build/audit.jsonl"
LOGS = ".instar/logs"
# The keys of the state that a stop may change
OF_THE_HOOK = {"reinforcementsUsed", "asked", "waitedFor", "owner", "lastHeldAt"}


@dataclass(frozen=True)
class Seen:
    """A project at one moment."""

    state: bytes | None
    audit: bytes
    logs: dict[str, tuple[int, bytes]]
    users: dict[str, tuple[int, bytes]]

    @classmethod
    def of(cls, project: Project) -> Seen:
        """Look at a project."""
        return cls(
            read(project.state_path),
            read(project.root / AUDIT) or b"",
            {path: seen for path, seen in files(project.root / LOGS).items() if seen[1]},  # an empty one tells nothing
            users_files(project.root),
        )

    @property
    def used(self) -> int:
        """How often the build had held."""
        return int(json.loads(self.state)["reinforcementsUsed"]) if self.state else 0


def read(place: Path) -> bytes | None:
    """Return the bytes of a file; None when there is none."""
    return place.read_bytes() if place.exists() else None


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return mode and content of all that is in a folder; of a link, where it leads."""
    found = {}
    for place in sorted(folder.rglob("*")):
        mode = place.lstat().st_mode
        content = os.fsencode(place.readlink()) if stat.S_ISLNK(mode) else b""
        found[str(place.relative_to(folder))] = (mode, place.read_bytes() if stat.S_ISREG(mode) else content)
    return found


def users_files(root: Path) -> dict[str, tuple[int, bytes]]:
    """Return all in a project that is not below `.instar`."""
    tops = [place for place in root.iterdir() if place.name != ".instar"]
    found = {place.name: (place.lstat().st_mode, read(place) or b"") for place in tops if not place.is_dir()}
    for top in tops:
        if top.is_dir():
            found.update({f"{top.name}/{path}": seen for path, seen in files(top).items()})
    return found


def the_state_is_whole(project: Project, before: Seen) -> None:
    """The state is an object, or byte for byte what it was; one that was no object may have been set aside."""
    now = read(project.state_path)
    if now is None and before.state is not None and not is_object(before.state):
        assert before.state in [read(place) for place in project.state_path.parent.glob("*.corrupt-*")]
    elif now != before.state:
        assert now is not None, "the state is gone"
        assert isinstance(json.loads(now), dict), f"the state is no object: {now!r:.200}"


def is_object(data: bytes) -> bool:
    """Say whether these bytes are a JSON object."""
    try:
        return isinstance(json.loads(data), dict)
    except ValueError:
        return False


def a_stop_changes_only_its_own_keys(project: Project, before: Seen) -> None:
    """What a stop writes is its count, its waits, the question it answers and who the owner is."""
    if before.state is not None and read(project.state_path) != before.state:
        old, new = json.loads(before.state), project.state
        changed = {key for key in old.keys() | new.keys() if old.get(key, ...) != new.get(key, ...)}
        assert changed <= OF_THE_HOOK, f"a stop changed {sorted(changed - OF_THE_HOOK)}"


def no_acknowledged_step_is_lost(project: Project, acknowledged: Iterable[int]) -> None:
    """A step that was answered for is recorded."""
    recorded = {step["step"] for step in project.state["steps"]} if project.state_path.exists() else set()
    lost = set(acknowledged) - recorded
    assert not lost, f"steps {sorted(lost)} were acknowledged and are not in the state"


def the_budget_is_exact(project: Project, blocks: int, *, all_were_heard: bool, since: int = 0) -> None:
    """No block is given that is not counted, none beyond the budget; and none is counted that was not given.

    The last only where nobody was killed and every answer could be printed: the count is written before it.
    """
    used, budget = project.used - since, project.state["protection"]["reinforcements"]
    assert blocks <= used, f"{blocks} blocks were given and {used} counted"
    assert project.used <= budget, f"{project.used} holds of a budget of {budget}"
    assert blocks == used or not all_were_heard, f"{used} holds were counted, {blocks} blocks given, and nobody died"


def the_users_bytes_are_intact(project: Project, before: Seen) -> None:
    """Nothing outside `.instar` was touched."""
    now = users_files(project.root)
    differs = {path for path in now.keys() | before.users.keys() if now.get(path) != before.users.get(path)}
    assert not differs, f"changed outside .instar: {sorted(differs)}"


def the_answer_is_valid(said: Stop) -> None:
    """The hook ended with status 0 and printed one object that both clients accept, or nothing."""
    assert said.status == 0, f"the hook ended with status {said.status}"
    assert set(said.answer) <= {"decision", "reason", "systemMessage"}
    assert "decision" not in said.answer or said.is_held


def a_trace_is_left(project: Project, before: Seen, said: Stop) -> None:
    """Where an owner was let go by a failure, somebody can find out."""
    now = Seen.of(project)
    traces = (said.answer.get("systemMessage"), said.stderr, now.logs != before.logs, now.audit != before.audit)
    assert said.is_held or any(traces), "the session was let go without a trace"


def no_temporary_file_is_left(project: Project) -> None:
    """Nothing that a writer makes for the time of writing is there any more."""
    left = [path for path in files(project.root) if is_temporary(path)]
    assert not left, f"temporary files are left: {left}"


def is_temporary(path: str) -> bool:
    """Say whether a file of ours is one for the time of writing."""
    name = path.rsplit("/", 1)[-1]
    return (name.startswith(".") and name.endswith(".tmp")) or name.startswith(".instar-")


def the_audit_can_be_read(project: Project, torn: int = 0) -> list[dict[str, Any]]:
    """Every line of the audit log is an entry, but for at most so many that a failure tore; return the entries."""
    entries, broken = [], []
    for line in (read(project.root / AUDIT) or b"").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            broken.append(line)
    assert len(broken) <= torn, f"torn lines in the audit log: {broken}"
    assert all(isinstance(entry, dict) and entry["event"] for entry in entries)
    return entries


def every_end_is_archived_once(project: Project) -> None:
    """A build that is over has one copy in the history, and the state names it."""
    state = project.state
    if state["phase"] not in ("complete", "failed", "escalated"):
        return
    copies = [json.loads(place.read_bytes()) for place in (project.state_path.parent / "history").iterdir()]
    same = ("startedAt", "task")  # two builds start at one moment where the clock stands still
    mine = [copy for copy in copies if all(copy[key] == state[key] for key in same)]
    assert mine == [state], f"{len(mine)} copies of one build in the history"
