"""Intents and markers say what was ended and how it comes back; what of a parking broke off is told from them alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from instar.errors import InstarError
from instar.locks import BusyError
from instar.sessions.machine.processes import liveness
from instar.sessions.machine.tmux import Tmux
from instar.sessions.parking.markers import Markers, Park, identity_of
from instar.sessions.parking.park import SessionManager
from instar.sessions.parking.recovery import Found, action
from instar.sessions.parking.resumption import Unresumable, command, proven
from instar.sessions.policy import policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from stand_ins import Client
    from support import Project

PARK = Park(
    id="p", session_id="s", at="2026-01-01T00:00:00.000Z", by="reaper", reason="reaped-idle", status="completed",
    agent={"pid": 1, "start": "1", "boot": "b"}, resume={"argv": ["claude"], "cwd": "/", "text": "claude"}, freed=5,
)  # fmt: skip
IDENTITY = "claude-code-s"


def test_an_intent_is_read_as_it_was_written_and_becomes_the_marker(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    markers.write_intent(IDENTITY, PARK)
    assert (markers.intent(IDENTITY), markers.marker(IDENTITY)) == (PARK, None)
    markers.promote(IDENTITY)

    assert (markers.intent(IDENTITY), markers.marker(IDENTITY)) == (None, PARK)
    assert markers.identities() == [IDENTITY]
    assert (markers.folder / f"{IDENTITY}.idle-reaped").read_text().splitlines()[0] == PARK.at
    for _ in range(2):
        markers.drop_marker(IDENTITY)
        markers.drop_intent(IDENTITY)
    assert markers.identities() == []


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    markers.write_intent("claude-code-s", PARK)
    left = markers.folder / ".claude-code-s.idle-reaped.pending.x1"
    mine = markers.folder / ".claude-code-s2.idle-reaped.pending.x1"
    for path in (left, mine):
        path.touch()
    markers.write_intent("claude-code-s", PARK)

    assert (left.exists(), mine.exists()) == (False, True)


def test_a_marker_of_another_writer_says_only_when(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    markers.folder.mkdir(parents=True)
    (markers.folder / f"{IDENTITY}.idle-reaped").write_text("2026-01-01T00:00:00Z\n")

    marker = markers.marker(IDENTITY)
    assert marker is not None
    assert (marker.at, marker.session_id) == ("2026-01-01T00:00:00Z", "")


@pytest.mark.parametrize("text", ["\n{", "\n[]", "\n7", "\nnull", "\xff\n{}", "a\n" + "[" * 60_000])
def test_a_marker_that_cannot_be_read_is_told_and_stays(tmp_path: Path, text: str) -> None:
    markers = Markers(tmp_path)
    markers.folder.mkdir(parents=True)
    place = markers.folder / f"{IDENTITY}.idle-reaped"
    place.write_text(text, encoding="latin-1")

    with pytest.raises(InstarError, match="cannot be read"):
        markers.marker(IDENTITY)
    assert place.read_text(encoding="latin-1") == text


def test_a_link_or_a_pipe_is_no_marker(tmp_path: Path) -> None:
    markers = Markers(tmp_path)
    markers.folder.mkdir(parents=True)
    place = markers.folder / f"{IDENTITY}.idle-reaped"
    place.symlink_to(tmp_path)
    with pytest.raises(InstarError):
        markers.marker(IDENTITY)
    place.unlink()
    os.mkfifo(place)
    assert markers.marker(IDENTITY) == Park("", "", "", "", "", "", {})


def test_one_lock_is_for_one_at_a_time(tmp_path: Path) -> None:
    with (
        Markers(tmp_path).lock("a"),
        Markers(tmp_path).lock("b"),
        pytest.raises(BusyError),
        Markers(tmp_path).lock("a"),
    ):
        pass
    with Markers(tmp_path).lock("a"):
        pass


@pytest.mark.parametrize(
    ("record", "identity"),
    [({"id": "s", "client": "codex-cli"}, "codex-cli-s"), ({"id": "s"}, "unknown-s"),
     ({"id": "s", "identity": "claude-bob"}, "claude-bob"), ({"id": "s", "client": "c", "identity": ""}, "c-s")],
)  # fmt: skip
def test_a_session_has_an_identity(record: dict[str, Any], identity: str) -> None:
    assert identity_of(record) == identity


@pytest.mark.parametrize("identity", ["../x", "a/b", ".a", "a\nb", "x" * 300, "\0"])
def test_an_identity_that_can_name_no_file_is_refused(identity: str) -> None:
    with pytest.raises(InstarError, match="can name no file"):
        identity_of({"id": "s", "identity": identity})


INTENT = Found(has_intent=True, has_marker=False, status="reaping", is_judged=True)
MARKER = replace(INTENT, has_intent=False, has_marker=True)
NOTHING = Found(has_intent=False, has_marker=False, status="running")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (replace(INTENT, process="alive"), "roll-back"),
        (replace(INTENT, process="alive", status="running"), "roll-back"),
        (replace(INTENT, process="dead"), "roll-forward"),
        (replace(INTENT, process="dead", status="completed"), "roll-forward"),
        (replace(INTENT, process="unknown"), "none"),
        (replace(INTENT, process="dead", is_judged=False), "drop-intent"),
        (replace(INTENT, process="alive", status="unreadable", is_judged=False), "none"),
        (replace(INTENT, status="", is_judged=False), "drop-intent"),
        (replace(MARKER, process="dead"), "finish"),
        (replace(MARKER, process="dead", status="completed"), "finish"),
        (replace(MARKER, process="dead", status="completed", is_parked=True), "none"),
        (replace(MARKER, process="alive", status="running"), "drop-marker"),
        (replace(MARKER, process="dead", status="running", is_judged=False), "drop-marker"),
        (replace(MARKER, process="unknown"), "none"),
        (replace(MARKER, status="", is_judged=False), "none"),
        (replace(MARKER, process="alive", names_session=False), "none"),
        (replace(NOTHING, status="reaping"), "revert"),
        (NOTHING, "none"),
        (replace(NOTHING, status="completed"), "none"),
        (replace(NOTHING, status=""), "none"),
    ],
)
def test_what_broke_off_is_undone_completed_or_left_alone(found: Found, expected: str) -> None:
    assert action(found) == expected


class Scene:
    """A recorded client, and the remains of a parking."""

    def __init__(self, project: Project, client: Client) -> None:
        self.project, self.client = project, client
        client.tell("SessionStart", "s", source="startup")
        self.rows: list[dict[str, Any]] = []
        self.manager = SessionManager(project.root, policy({}), tmux=Tmux(), tell=self.rows.append)
        self.markers = self.manager.markers
        self.park = replace(PARK, agent=project.record("s")["agent"])

    def change(self, **fields: Any) -> None:
        place = self.project.root / ".instar/state/sessions/s.json"
        place.write_text(json.dumps({**self.project.record("s"), **fields}))

    def recover(self) -> list[str]:
        return [row["action"] for row in self.manager.recover()]


@pytest.fixture
def scene(project: Project, start_client: Callable[..., Client]) -> Scene:
    return Scene(project, start_client("claude"))


def test_a_living_agent_is_given_back(scene: Scene) -> None:
    scene.change(status="reaping", reaping={"pid": 1}, mine=1)
    scene.markers.write_intent(IDENTITY, scene.park)

    assert scene.recover() == ["roll-back"]
    record = scene.project.record("s")
    assert (record["status"], record["mine"], scene.markers.identities()) == ("running", 1, [])
    assert "reaping" not in record
    assert scene.recover() == []


def test_an_agent_that_is_gone_was_parked(scene: Scene) -> None:
    scene.change(status="reaping", reaping={"pid": 1})
    scene.markers.write_intent(IDENTITY, scene.park)
    scene.client.end()

    assert scene.recover() == ["roll-forward"]
    record = scene.project.record("s")
    assert (record["status"], record["endedReason"], record["parked"]["by"]) == ("completed", "reaped-idle", "reaper")
    assert scene.markers.marker(IDENTITY) == scene.park
    assert [row["type"] for row in scene.rows] == ["reaped", "recovered"]
    assert scene.recover() == []


def test_an_agent_that_was_told_to_end_is_given_the_time(scene: Scene) -> None:
    scene.change(status="reaping", reaping={"told": True})
    scene.markers.write_intent(IDENTITY, scene.park)
    scene.client.process.terminate()

    assert scene.recover() == ["roll-forward"]


def test_a_record_that_was_not_written_any_more_is_completed_without_a_second_row(scene: Scene) -> None:
    scene.change(status="completed", endedReason="other", endedAt="2026-01-01T00:00:01.000Z")
    scene.markers.write_intent(IDENTITY, scene.park)
    scene.markers.promote(IDENTITY)
    scene.client.end()

    assert scene.recover() == ["finish"]
    record = scene.project.record("s")
    assert (record["endedReason"], record["endedAt"]) == ("reaped-idle", "2026-01-01T00:00:01.000Z")
    assert [row["type"] for row in scene.rows] == ["recovered"]


def test_a_session_that_runs_again_has_no_marker(scene: Scene, start_client: Callable[..., Client]) -> None:
    scene.markers.write_intent(IDENTITY, scene.park)
    scene.markers.promote(IDENTITY)
    scene.client.end()
    start_client("claude").tell("SessionStart", "s", source="resume")

    assert scene.recover() == ["drop-marker"]
    assert scene.markers.identities() == []
    assert scene.project.record("s")["status"] == "running"


def test_an_intent_for_another_process_is_dropped(scene: Scene) -> None:
    scene.markers.write_intent(IDENTITY, replace(scene.park, agent={**scene.park.agent, "start": "7"}))

    assert scene.recover() == ["drop-intent"]
    assert scene.project.record("s")["status"] == "running"


def test_a_claim_without_an_intent_is_given_back(scene: Scene) -> None:
    scene.change(status="reaping", reaping={"pid": 1})

    assert scene.recover() == ["revert"]
    assert scene.project.record("s")["status"] == "running"
    assert liveness(scene.park.agent) == "alive"


def test_one_that_cannot_be_mended_keeps_no_other_from_it(scene: Scene) -> None:
    scene.change(status="reaping")
    scene.markers.folder.mkdir(parents=True)
    (scene.markers.folder / "a.idle-reaped.pending").write_text("torn\n{")

    assert scene.recover() == ["failed", "revert"]


@pytest.mark.parametrize(
    ("client", "argv"), [("claude-code", ("claude", "--resume", "s")), ("codex-cli", ("codex", "resume", "s"))]
)
def test_the_command_is_the_clients_own(client: str, argv: tuple[str, ...]) -> None:
    found = command({"id": "s", "client": client, "cwd": "/a b"})

    assert (found.argv, found.cwd) == (argv, "/a b")
    assert found.text == f"cd '/a b' && {' '.join(argv)}"


def test_claude_is_resumed_where_it_was_started(tmp_path: Path) -> None:
    record = {"id": "s", "client": "claude-code", "cwd": "/a_b/c/d", "transcriptPath": "/h/projects/-a-b/s.jsonl"}

    assert command(record).cwd == "/a_b"
    with pytest.raises(Unresumable, match="cannot be told"):
        command({**record, "cwd": "/other"})
    assert command({**record, "client": "codex-cli"}).cwd == "/a_b/c/d"
    with pytest.raises(Unresumable, match="is gone"):
        proven({**record, "cwd": str(tmp_path / "gone"), "client": "codex-cli"})


@pytest.mark.parametrize("record", [{}, {"client": "claude-code"}, {"client": "claude-code", "id": "s", "cwd": "a"}])
def test_what_says_not_enough_cannot_be_resumed(record: dict[str, Any]) -> None:
    with pytest.raises(Unresumable):
        command(record)


def test_a_transcript_without_a_word_cannot_be_resumed(tmp_path: Path) -> None:
    place = tmp_path / "s.jsonl"
    place.touch()
    record = {"id": "s", "client": "claude-code", "cwd": str(tmp_path), "transcriptPath": str(place)}

    with pytest.raises(Unresumable, match="empty"):
        proven(record)

    place.write_text('{"type":"mode","mode":"normal","sessionId":"s"}\n{"type":"last-prompt","sessionId":"s"}\n')
    with pytest.raises(Unresumable, match="no conversation"):
        proven(record)
    with place.open("a") as file:
        file.write('{"type":"system","uuid":"1","sessionId":"s"}\n{"type":"mode","sessionId":"s"}\n')
    assert proven(record).argv == ("claude", "--resume", "s")
