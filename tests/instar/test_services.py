"""A peer that has a service is left to it; so is one where nobody can tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from instar.errors import InstarError
from instar.services import Managed, Manager, Services

if TYPE_CHECKING:
    from pathlib import Path

UNIT, PLIST = "instar-peer@bob.service", "com.iapeer.bob.plist"


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """Return two folders each of units and agents, all of them empty."""
    services = Services(
        systemd=(tmp_path / "user", tmp_path / "system"), launchd=(tmp_path / "agents", tmp_path / "daemons")
    )
    for folder in (*services.systemd, *services.launchd):
        folder.mkdir()
    return services


def test_a_peer_without_a_service_is_ours(services: Services) -> None:
    assert services.managed("bob") is None


def test_folders_that_are_not_there_hold_no_service(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    nowhere = (tmp_path / "missing", tmp_path / "file", tmp_path / "file" / "below")

    assert Services(nowhere, nowhere).managed("bob") is None
    assert Services().managed("bob") is None


OF_SERVICES = [
    f"user/{UNIT}", f"system/{UNIT}", f"user/default.target.wants/{UNIT}", f"system/multi-user.target.requires/{UNIT}",
    f"agents/{PLIST}", f"daemons/{PLIST}",
]  # fmt: skip


@pytest.mark.parametrize("is_link", [False, True], ids=["file", "loose link"])
@pytest.mark.parametrize("place", OF_SERVICES)
def test_a_peer_with_a_file_of_a_service_is_managed(
    services: Services, tmp_path: Path, place: str, is_link: bool  # noqa: FBT001 - a column
) -> None:  # fmt: skip
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    if is_link:
        file.symlink_to("nowhere")
    else:
        file.touch()
    by: Manager = "launchd" if place.endswith("plist") else "systemd"

    assert services.managed("bob") == Managed(by, file, f"{by} runs it, by {file}")
    assert services.managed("bo") is services.managed("bob2") is None


OF_NONE = [
    "user/instar-peer@.service", "user/instar-peer@bob.service.d", "user/instar-peer@bob.timer", f"user/other/{UNIT}",
    f"user/{PLIST}", f"agents/{UNIT}", f"agents/x.wants/{PLIST}", "agents/com.iapeer.bob.plist.bak",
    "agents/com.iapeer.bob2.plist",
]  # fmt: skip


@pytest.mark.parametrize("place", OF_NONE)
def test_what_looks_like_a_service_is_none(services: Services, tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()

    assert services.managed("bob") is None


@pytest.mark.parametrize("folder", ["user", "system", "agents", "daemons", "user/default.target.wants"])
def test_where_a_folder_cannot_be_read_a_peer_counts_as_managed(
    services: Services, tmp_path: Path, folder: str
) -> None:
    place = tmp_path / folder
    if place.exists():
        place.rmdir()
    place.symlink_to(place)  # to itself: nobody can read it, whoever runs this
    found = services.managed("bob")

    assert found is not None
    assert found.path == tmp_path / folder.partition("/")[0]
    assert f"may run it, for {found.path} cannot be read: " in found.why
    assert not found.is_sure


@pytest.mark.parametrize("name", ["", "../bob", "Bob", "bob\n", "*"])
def test_what_is_no_name_of_a_peer_is_asked_nothing_about(services: Services, name: str) -> None:
    with pytest.raises(InstarError, match="is no name of a peer"):
        services.managed(name)


def test_a_session_is_managed_by_the_peer_it_is_of(services: Services, tmp_path: Path) -> None:
    (tmp_path / "user" / UNIT).touch()

    assert services.managed_identity("claude-code-bob") == services.managed_identity("codex-cli-bob")
    assert services.managed_identity("claude-code-bob") == services.managed("bob")
    assert services.managed_identity("claude-code-bob2") is None
    assert services.managed_identity("claude-code-0198c5f0-7a3e-7000-8000-000000000000") is None
    assert services.managed_identity("../bob") is None


def test_the_folders_of_this_machine_begin_with_the_users(tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    for folder, file in ((home / ".config/systemd/user", UNIT), (home / "Library/LaunchAgents", PLIST)):
        folder.mkdir(parents=True)
        (folder / file).touch()
        found = Services.of_machine({"HOME": str(home)}).managed("bob")
        assert found is not None
        assert found.path == folder / file
        (folder / file).unlink()

    (other / "systemd/user").mkdir(parents=True)
    (other / "systemd/user" / UNIT).touch()
    services = Services.of_machine({"HOME": str(home), "XDG_CONFIG_HOME": str(other)})
    assert services.systemd[0] == other / "systemd/user"
    assert services.managed("bob") is not None
    assert {str(each) for each in (*services.systemd, *services.launchd)} >= {
        "/etc/systemd/user", "/etc/systemd/system", "/Library/LaunchAgents", "/Library/LaunchDaemons",
    }  # fmt: skip
