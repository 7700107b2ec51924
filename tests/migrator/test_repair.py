"""--repair sets up anew what cannot be edited, keeps all of it that can be read, and a copy of all."""

from __future__ import annotations

import pytest

from tests.migrator.scratch import CLIENT_FILES, CODEX, LOCAL, SETTINGS, Scratch

BROKEN = {
    "torn": (b'{"model": "opus", ', {}),
    "no text": (b"\xff\xfe", {}),
    "empty": (b"", {}),
    "a list": (b"[1]", {}),
    "comments": (b'{"a": 1} // mine', {}),
    "hooks is a list": ('{"model": "é", "hooks": []}'.encode(), {"model": "é"}),
    "an event is an object": (b'{"a": 1, "hooks": {"Stop": {}, "Other": [1]}}', {"a": 1}),
    "a key twice": (b'{"a": 1, "hooks": {}, "hooks": {}}', {"a": 1}),
}


@pytest.mark.parametrize("path", CLIENT_FILES)
@pytest.mark.parametrize(("content", "kept"), BROKEN.values(), ids=BROKEN)
def test_broken_settings_are_set_up_anew_and_kept_as_a_copy(
    scratch: Scratch, path: str, content: bytes, kept: dict[str, object]
) -> None:
    scratch.write(path, content, 0o600)
    scratch.migrate("--repair")

    settings = scratch.json(path)
    assert kept.items() <= settings.items()
    assert len(settings["hooks"]["Stop"]) == 1
    if b"Other" in content:
        assert settings["hooks"]["Other"] == [1]
    assert scratch.copies(path) == [content]
    assert scratch.place(path).stat().st_mode & 0o777 == 0o600
    assert "nothing to do" in scratch.migrate("--repair")


def test_local_settings_are_repaired_too(scratch: Scratch) -> None:
    scratch.write(LOCAL, '{"env": 7, "model": "opus"}')
    scratch.migrate("--repair")
    assert scratch.json(LOCAL)["model"] == "opus"
    assert scratch.copies(LOCAL) == [b'{"env": 7, "model": "opus"}']


def test_settings_that_can_be_edited_are_not_repaired(scratch: Scratch) -> None:
    scratch.write(SETTINGS, '{"model" : "opus"}')
    scratch.migrate("--repair")
    assert scratch.read(SETTINGS).startswith(b'{"model" : "opus"')


def test_what_is_no_regular_file_is_left_also_by_a_repair(scratch: Scratch) -> None:
    scratch.place(CODEX).mkdir(parents=True)
    (error,) = scratch.errors("--repair")
    assert "no regular file" in error
    assert scratch.place(CODEX).is_dir()


def test_after_an_uninstallation_the_repaired_file_is_without_us(scratch: Scratch) -> None:
    scratch.write(SETTINGS, '{"model": "opus", "hooks": []}')
    scratch.migrate("--repair")
    scratch.migrate("--uninstall")
    assert scratch.json(SETTINGS)["model"] == "opus"
    assert b"instar" not in scratch.read(SETTINGS)
