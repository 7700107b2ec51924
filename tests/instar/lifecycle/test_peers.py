"""A peer is what its profile says; a profile that cannot be used is told, and stops nobody else."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from instar.errors import InstarError
from instar.lifecycle.peers import FOLDER, LOCK, Broken, Peer, Peers
from instar.lifecycle.profile import BYTES_AT_MOST
from instar.names import RUNTIMES, checked_name, identities, name_in
from instar.sessions.registry import FOLDER as RECORDS

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "project/inside").mkdir(parents=True)
    return tmp_path / "project"


@pytest.fixture
def peers(root: Path) -> Peers:
    return Peers(root)


def place_of(root: Path, name: str) -> Path:
    return root / FOLDER / f"{name}.json"


def write(root: Path, name: str, profile: object) -> Path:
    place = place_of(root, name)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(profile if isinstance(profile, bytes) else json.dumps(profile).encode())
    return place


def why(peers: Peers, name: str) -> str:
    """Return why a profile cannot be used, which is one line, and the same in a list and by itself."""
    (found,) = [each for each in peers.all() if each.name == name]
    assert isinstance(found, Broken)
    with pytest.raises(InstarError) as raised:
        peers.get(name)
    assert str(raised.value) == found.why
    assert found.why.isprintable()
    return found.why


# What a profile says


def test_a_peer_that_was_added_is_read_as_it_was_meant(root: Path, peers: Peers) -> None:
    bob = Peer(
        "bob", "codex-cli", root / "inside", trusts_folder=True, bypasses_permissions=True, is_human=True,
        initial_prompt='You are "bob".\n\x1b[31m', args=("--model", "a b"), env={"A_1": "x=y\n"}, runtimes=RUNTIMES,
    )  # fmt: skip

    assert peers.add(bob) == peers.get("bob") == bob
    assert peers.all() == [bob]
    assert peers.get("bob").path == place_of(root, "bob")
    assert peers.get("bob").folder() == root / "inside"


def test_a_new_profile_says_all_that_may_be_changed_and_is_nobody_elses(root: Path, peers: Peers) -> None:
    peers.add(Peer("bob", "claude-code", root))

    place = place_of(root, "bob")
    assert list(json.loads(place.read_bytes()).items()) == [
        ("name", "bob"),
        ("runtime", "claude-code"),
        ("runtimes", ["claude-code"]),
        ("cwd", "."),
        ("interfaces", None),
        ("wake_policy", None),
        ("initial_prompt", None),
        ("trustFolder", False),
        ("bypassPermissions", False),
        ("launch", {"args": [], "env": {}}),
    ]
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_folders_of_the_project_are_told_from_the_project_and_others_as_they_are(root: Path, peers: Peers) -> None:
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    peers.add(Peer("inside", "claude-code", root / "inside"))
    peers.add(Peer("outside", "claude-code", elsewhere))
    moved = root.rename(root.parent / "moved")

    assert Peers(moved).get("inside").folder() == moved / "inside"
    assert Peers(moved).get("outside").folder() == elsewhere


LITTLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a runtime": ({"runtime": "codex-cli"}, {}),
    "runtimes alone: the first one": ({"runtimes": ["codex-cli", "claude-code"]}, {"runtimes": RUNTIMES[::-1]}),
    "one of several": ({"runtime": "codex-cli", "runtimes": [*RUNTIMES]}, {"runtimes": RUNTIMES}),
    "a folder": ({"runtime": "codex-cli", "cwd": "inside/../inside"}, {"cwd": "inside"}),
    "an interface": ({"runtime": "codex-cli", "interfaces": {"telegram": {"id": 1}}}, {"is_human": True}),
    "an interface that is none": ({"runtime": "codex-cli", "interfaces": {"telegram": None}}, {}),
    "no prompt": ({"runtime": "codex-cli", "initial_prompt": None}, {}),
}


@pytest.mark.parametrize(("said", "meant"), LITTLE.values(), ids=LITTLE)
def test_a_profile_by_hand_may_say_little(
    root: Path, peers: Peers, said: dict[str, Any], meant: dict[str, Any]
) -> None:
    write(root, "bob", {"name": "bob", **said})

    assert peers.get("bob") == Peer("bob", "codex-cli", **{**meant, "cwd": root / meant.get("cwd", "")})


def test_a_peer_trusts_and_bypasses_nothing_unless_it_is_said(root: Path, peers: Peers) -> None:
    write(root, "bob", {"name": "bob", "runtime": "claude-code"})

    assert not peers.get("bob").trusts_folder
    assert not peers.get("bob").bypasses_permissions


def test_a_peer_is_found_in_each_client_it_declares_and_in_no_other(root: Path) -> None:
    both = Peer("bob", "claude-code", root, runtimes=RUNTIMES)
    one = Peer("bob", "claude-code", root)

    assert [both.on(each).identity for each in RUNTIMES] == ["claude-code-bob", "codex-cli-bob"]
    with pytest.raises(InstarError, match="bob does not run in 'codex-cli', only in claude-code"):
        one.on("codex-cli")


def test_what_we_do_not_know_in_a_profile_stays(root: Path, peers: Peers) -> None:
    place = write(root, "bob", {
        "note": ["mine"], "name": "bob", "runtime": "claude-code", "interfaces": {"telegram": {"id": 1}},
        "wake_policy": "normal", "launch": {"nice": 5, "args": ["old"], "env": {"OLD": "1", "KEPT": "1"}},
    })  # fmt: skip
    place.chmod(0o640)

    after = peers.change(replace(peers.get("bob"), args=("new",), env={"KEPT": "2"}, trusts_folder=True))

    assert after == peers.get("bob")
    assert json.loads(place.read_bytes()) == {
        "note": ["mine"], "name": "bob", "runtime": "claude-code", "interfaces": {"telegram": {"id": 1}},
        "wake_policy": "normal", "launch": {"nice": 5, "args": ["new"], "env": {"KEPT": "2"}},
        "runtimes": ["claude-code"], "cwd": ".", "initial_prompt": None, "trustFolder": True,
        "bypassPermissions": False,
    }  # fmt: skip
    assert place.stat().st_mode & 0o777 == 0o600


def test_whether_a_person_talks_to_it_can_be_changed(root: Path, peers: Peers) -> None:
    bob = peers.add(Peer("bob", "claude-code", root))

    assert peers.change(replace(bob, is_human=True)).is_human
    assert not peers.change(replace(bob, is_human=False)).is_human


# What cannot be used


NAMES = [
    "", "-bob", "Bob", "bob.", "b_b", "../bob", "/etc/passwd", "a/b", ".", "..", "bob\n", "bob\0", "b ob", "\u0431ob",
    "b" * 33, "bob;id", "$(id)", "bob'", "\x1b[2J", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_none_of_a_peer_is_refused_everywhere(root: Path, peers: Peers, name: str) -> None:
    tries: list[Callable[[], object]] = [
        lambda: checked_name(name),
        lambda: peers.get(name),
        lambda: peers.add(Peer(name, "claude-code", root)),
        lambda: peers.change(Peer(name, "claude-code", root)),
        lambda: peers.remove(name, force=True),
    ]
    for each in tries:
        with pytest.raises(InstarError, match="is no name of a peer: take small letters") as raised:
            each()
        assert str(raised.value).isprintable()
    assert [place for place in root.rglob("*") if place.is_file() and place.name != ".lock"] == []


@given(st.text(max_size=40))
def test_names_are_letters_digits_and_hyphens_whatever_is_asked(name: str) -> None:
    try:
        checked_name(name)
    except InstarError as error:
        assert str(error).isprintable()  # noqa: PT017 - of all that is refused
    else:
        assert name.replace("-", "a").isalnum()
        assert name.isascii()
        assert name == name.lower()
        assert 0 < len(name) <= 32


CORRUPT: dict[str, tuple[object, str]] = {
    "nothing": (b"", "it holds no JSON, Expecting value"),
    "torn": (b'{"name": "bob"', "it holds no JSON, Expecting"),
    "no text": (b"\xff\xfe", "it holds no JSON, 'utf-8' codec"),
    "deep": (b"[" * 100_000, "it holds no JSON"),
    "no number": (b'{"name": "bob", "x": NaN}', "NaN is no number"),
    "a list": ([], "[] is not of type 'object'"),
    "no name": ({"runtime": "codex-cli"}, "'name' is a required property"),
    "no runtime": ({"name": "bob"}, 'it names no "runtime", which is claude-code or codex-cli'),
    "another's": ({"name": "eve", "runtime": "codex-cli"}, "it is of a peer named 'eve'"),
    "another's, to a terminal": ({"name": "\x1b[2J\n", "runtime": "codex-cli"}, r"'\\x1b[2J\\n'"),
    "another client": ({"name": "bob", "runtime": "bash"}, "key \"runtime\": 'bash' is not one of"),
    "not declared": (
        {"name": "bob", "runtime": "codex-cli", "runtimes": ["claude-code"]},
        'its "runtime" is none of its "runtimes"',
    ),
    "none declared": ({"name": "bob", "runtimes": []}, 'key "runtimes": []'),
    "declared twice": ({"name": "bob", "runtimes": ["codex-cli", "codex-cli"]}, 'key "runtimes": '),
    "no folder": ({"name": "bob", "runtime": "codex-cli", "cwd": ""}, 'key "cwd": '),
    "a folder that can be none": ({"name": "bob", "runtime": "codex-cli", "cwd": "a\0"}, 'key "cwd": '),
    "trust by a word": ({"name": "bob", "runtime": "codex-cli", "trustFolder": "yes"}, 'key "trustFolder": '),
    "bypass by a number": ({"name": "bob", "runtime": "codex-cli", "bypassPermissions": 1}, 'key "bypassPermissions"'),
    "arguments in one": ({"name": "bob", "runtime": "codex-cli", "launch": {"args": "-x"}}, 'key "launch.args": '),
    "an argument": ({"name": "bob", "runtime": "codex-cli", "launch": {"args": ["", 5]}}, 'key "launch.args.1": 5'),
    "an argument with NUL": ({"name": "bob", "runtime": "codex-cli", "launch": {"args": ["\0"]}}, "launch.args.0"),
    "a variable's name": ({"name": "bob", "runtime": "codex-cli", "launch": {"env": {"A=B": ""}}}, "'A=B' does not"),
    "a variable's name, on two lines": (
        {"name": "bob", "runtime": "codex-cli", "launch": {"env": {"A\n": ""}}},
        "'A\\n' does not match",
    ),
    "a variable": ({"name": "bob", "runtime": "codex-cli", "launch": {"env": {"A\x1b": 5}}}, 'key "launch.env'),
    "a prompt": ({"name": "bob", "runtime": "codex-cli", "initial_prompt": ["x"]}, 'key "initial_prompt": '),
    "ephemeral": (
        {"name": "bob", "runtime": "codex-cli", "wake_policy": "ephemeral"},
        'its "wake_policy" is "ephemeral", and there are no such peers',
    ),
    "long": (b'{"name": "bob", "runtime": "codex-cli"}' + b" " * BYTES_AT_MOST, "it is longer than 1048576 bytes"),
}


@pytest.mark.parametrize(("profile", "because"), CORRUPT.values(), ids=CORRUPT)
def test_a_profile_that_cannot_be_used_is_told_and_left_and_stops_no_other(
    root: Path, peers: Peers, profile: object, because: str
) -> None:
    others = [peers.add(Peer(name, "claude-code", root)) for name in ("alice", "carol")]
    place = write(root, "bob", profile)
    before = place.read_bytes()

    assert because in why(peers, "bob")
    assert why(peers, "bob").startswith(f"{place} cannot be used: ")
    assert why(peers, "bob").endswith(": mend it, or remove it")
    assert [each for each in peers.all() if isinstance(each, Peer)] == others
    with pytest.raises(InstarError, match="cannot be used"):
        peers.change(Peer("bob", "claude-code", root))
    assert place.read_bytes() == before


SOUND = {"name": "bob", "runtime": "claude-code"}


def a_link(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"))


def a_loose_link(place: Path) -> None:
    place.unlink()
    place.symlink_to("nowhere")


def a_pipe(place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def a_folder(place: Path) -> None:
    place.unlink()
    place.mkdir()


def open_to_all(place: Path) -> None:
    place.chmod(0o666)


def anothers(place: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    os.chown(place, 12345, -1)


WHERE = [
    (a_link, "it is a symbolic link"), (a_loose_link, "it is a symbolic link"), (a_pipe, "it is no file"),
    (a_folder, "Is a directory"), (open_to_all, "somebody else can write it"), (anothers, "somebody else can write it"),
]  # fmt: skip


@pytest.mark.parametrize(("lies", "because"), WHERE, ids=lambda each: getattr(each, "__name__", ""))
def test_a_profile_that_does_not_lie_by_itself_or_is_others_to_write_is_refused(
    root: Path, peers: Peers, lies: Callable[[Path], None], because: str
) -> None:
    place = write(root, "bob", SOUND)
    peers.get("bob")
    lies(place)

    assert because in why(peers, "bob")
    with pytest.raises(InstarError, match="is there already"):
        peers.add(Peer("bob", "claude-code", root))


@pytest.mark.parametrize("name", ["Bob", "x..", "b\n\x1b[2J", "b" * 40, "\udcff"], ids=ascii)
def test_a_profile_whose_name_is_none_is_told_by_a_name_that_can_be_shown(root: Path, peers: Peers, name: str) -> None:
    write(root, name, {**SOUND, "name": "bob"})

    (found,) = peers.all()
    assert isinstance(found, Broken)
    assert found.path == place_of(root, name)
    assert (found.name + found.why).isprintable()
    assert "its name is none of a peer: take small letters" in found.why


def test_what_is_no_profile_is_no_peer(root: Path, peers: Peers) -> None:
    assert peers.all() == []
    peers.add(Peer("bob", "claude-code", root))
    for name in (".bob.json.x1", ".hidden.json", "notes.txt", "bob.json~"):
        (root / FOLDER / name).write_text("{")

    assert [each.name for each in peers.all()] == ["bob"]


def test_peers_that_cannot_be_listed_are_an_error(root: Path, peers: Peers) -> None:
    (root / FOLDER).parent.mkdir()
    (root / FOLDER).symlink_to("agents")  # to itself

    with pytest.raises(InstarError, match=f"{FOLDER} cannot be listed: "):
        peers.all()
    with pytest.raises(InstarError, match=f"{FOLDER} cannot be locked: "):
        peers.add(Peer("bob", "claude-code", root))


# Making, changing and removing one


def test_one_that_is_missing_is_told_with_what_to_do(root: Path, peers: Peers) -> None:
    said = f"{root} has no peer bob: instar-peers list shows all, and instar-peers add bob makes it"
    tries: list[Callable[[], object]] = [
        lambda: peers.get("bob"),
        lambda: peers.change(Peer("bob", "claude-code", root)),
        lambda: peers.remove("bob"),
    ]
    for each in tries:
        with pytest.raises(InstarError) as raised:
            each()
        assert str(raised.value) == said


@pytest.mark.parametrize("folder", ["missing", "file", "x" * 5000, "nul\0"], ids=["missing", "file", "long", "nul"])
def test_a_peer_cannot_be_added_to_what_is_no_folder(root: Path, peers: Peers, folder: str) -> None:
    (root / "file").touch()
    with pytest.raises(InstarError, match="where bob is to work, is no folder: make it, or name another"):
        peers.add(Peer("bob", "claude-code", root / folder))
    assert not place_of(root, "bob").exists()


def test_a_peer_whose_folder_went_is_still_a_peer_but_has_no_folder(root: Path, peers: Peers) -> None:
    bob = peers.add(Peer("bob", "claude-code", root / "inside"))
    (root / "inside").rmdir()

    assert peers.get("bob") == bob
    with pytest.raises(InstarError, match=f"{root}/inside, where bob is to work, is no folder"):
        peers.get("bob").folder()


UNSOUND: list[tuple[dict[str, Any], str]] = [
    ({"runtime": "bash"}, "'bash' is not one of"),
    ({"args": ("a\0",)}, "launch.args.0"),
    ({"env": {"A B": "x"}}, "'A B' does not match"),
    ({"initial_prompt": "\0"}, "initial_prompt"),
    ({"runtimes": ("codex-cli",)}, 'its "runtime" is none of its "runtimes"'),
]


@pytest.mark.parametrize(("wrong", "because"), UNSOUND)
def test_nothing_is_written_that_could_not_be_read(
    root: Path, peers: Peers, wrong: dict[str, Any], because: str
) -> None:
    wanted = replace(Peer("bob", "claude-code", root), **({"runtimes": ()} | wrong))
    with pytest.raises(InstarError) as raised:
        peers.add(wanted)
    assert because in str(raised.value)
    assert not place_of(root, "bob").exists()

    peers.add(Peer("bob", "claude-code", root))
    before = place_of(root, "bob").read_bytes()
    with pytest.raises(InstarError):
        peers.change(wanted)
    assert place_of(root, "bob").read_bytes() == before


def test_of_many_who_add_a_peer_at_once_one_does(root: Path) -> None:
    def add(number: int) -> bool:
        try:
            Peers(root).add(Peer("bob", "claude-code", root, initial_prompt=f"I am {number}"))
        except InstarError as error:
            assert "is there already" in str(error)  # noqa: PT017 - of each that is refused
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(8))) == 1
    assert isinstance(Peers(root).get("bob"), Peer)


def test_who_finds_profiles_being_changed_is_asked_to_try_again(
    root: Path, peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = peers.add(Peer("bob", "claude-code", root))
    monkeypatch.setattr("instar.lifecycle.peers.LOCK_S", 0.01)
    tries: list[Callable[[], object]] = [
        lambda: peers.add(Peer("eve", "claude-code", root)),
        lambda: peers.change(replace(bob, is_human=True)),
        lambda: peers.remove("bob"),
    ]
    with FileLock(root / FOLDER / LOCK):
        for each in tries:
            with pytest.raises(InstarError, match=f"{LOCK} is held by another program: try again"):
                each()
        assert peers.all() == [bob]


def test_a_peer_that_is_removed_is_gone_and_no_other_is(root: Path, peers: Peers) -> None:
    for name in ("bob", "bob2"):
        peers.add(Peer(name, "claude-code", root))
    peers.remove("bob")

    assert [each.name for each in peers.all()] == ["bob2"]


def test_a_profile_that_cannot_be_used_can_be_removed_and_what_it_leads_to_stays(root: Path, peers: Peers) -> None:
    a_link(write(root, "bob", SOUND))
    peers.remove("bob")
    write(root, "eve", b"{torn")
    peers.remove("eve")

    assert peers.all() == []
    assert json.loads((root / FOLDER / "elsewhere").read_bytes()) == SOUND


DEAD = {"pid": 2**22 - 1, "start": "1", "boot": "another"}
LIVING: list[tuple[dict[str, Any], bool]] = [
    ({"identity": "claude-code-bob", "status": "running"}, True),
    ({"identity": "codex-cli-bob", "status": "reaping"}, True),
    ({"identity": "claude-code-bob", "status": "completed"}, False),
    ({"identity": "claude-code-bob", "status": "running", "agent": DEAD}, False),
    ({"identity": "claude-code-bob2", "status": "running"}, False),
    ({"identity": 5, "status": "running"}, False),
    ({"status": "running"}, False),
]


@pytest.mark.parametrize(("record", "holds"), LIVING)
def test_a_peer_that_lives_is_removed_only_by_force(
    root: Path, peers: Peers, record: dict[str, Any], holds: bool  # noqa: FBT001 - a column
) -> None:  # fmt: skip
    peers.add(Peer("bob", "claude-code", root))
    (root / RECORDS).mkdir(parents=True)
    (root / RECORDS / "s1.json").write_text(json.dumps({"id": "s1", **record}))
    if holds:
        with pytest.raises(InstarError, match="bob runs, as session s1: end it first, with instar-peers stop bob"):
            peers.remove("bob")
        assert peers.get("bob")
    peers.remove("bob", force=holds)
    assert peers.all() == []


# What sessions of peers go by


@given(st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,31}\Z"))
def test_each_identity_is_of_one_name(name: str) -> None:
    assert [name_in(each) for each in identities(name)] == [name, name]
    assert set(identities(name)) == {Peer(name, each, Path("/")).identity for each in RUNTIMES}


@pytest.mark.parametrize(
    "identity",
    ["", "bob", "claude-code", "claude-code-", "claude-code-Bob", "codex-cli-0198c5f0-7a3e-7000-8000-000000000000",
     "gemini-bob", "claude-code-a/b", "claude-code-bob\n"],
)  # fmt: skip
def test_what_no_peer_goes_by_has_no_name_in_it(identity: str) -> None:
    assert name_in(identity) is None
