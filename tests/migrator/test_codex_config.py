"""Trust in a project's hooks where there is no Codex to ask: read and granted in its config.toml."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrator import codex_config
from migrator.codex_hooks_file import definition_hash
from migrator.codex_trust import CodexTrustError, Granted, HookTrust

OURS = "[ -x run ] && ./run 'stop'; exit 0"
FOREIGN = "exit 0 # somebody else's"


@dataclass(frozen=True)
class User:
    """Somebody with a project, whose Codex is not on PATH."""

    project: Path
    home: Path

    @property
    def config(self) -> Path:
        return self.home / "config.toml"

    def key(self, position: str = "stop:0:0") -> str:
        return f"{self.project}/.codex/hooks.json:{position}"

    def write_hooks(self, *commands: str, event: str = "Stop", **properties: object) -> None:
        groups = [{"hooks": [{"type": "command", "command": command, **properties}]} for command in commands]
        file = self.project / ".codex/hooks.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"hooks": {event: groups}}), encoding="utf-8")

    def trust_folder(self, more_config: str = "") -> None:
        text = f'{more_config}\n[projects."{self.project}"]\ntrust_level = "trusted"\n'
        self.config.write_bytes(text.encode())

    def read(self, project: Path | None = None) -> list[HookTrust] | None:
        return codex_config.read(project or self.project, {"CODEX_HOME": str(self.home)})

    def grant(self, project: Path | None = None) -> Granted:
        return codex_config.grant(project or self.project, {OURS}, {"CODEX_HOME": str(self.home)})

    def statuses(self) -> dict[str, str]:
        return {hook.command: hook.status for hook in self.read() or []}

    def values(self) -> dict[str, Any]:
        return tomlkit.parse(self.config.read_text(encoding="utf-8")).unwrap()


@pytest.fixture
def user(tmp_path: Path) -> User:
    (tmp_path / "project").mkdir()
    (tmp_path / "codex-home").mkdir()
    return User((tmp_path / "project").resolve(), tmp_path / "codex-home")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# The hash


@pytest.mark.parametrize(
    ("event", "hook", "matcher", "expected"),
    [
        ("Stop", {}, None, "5ae6b7c83d3eac02"),
        ("Stop", {"timeout": None}, "x", "5ae6b7c83d3eac02"),
        ("Stop", {"timeout": 600, "async": False, "statusMessage": None, "unknown": 1}, "", "5ae6b7c83d3eac02"),
        ("Stop", {"timeout": 0}, None, "fea73e0e89942e3f"),
        ("Stop", {"timeout": 1}, None, "fea73e0e89942e3f"),
        ("Stop", {"timeout": 1000}, None, "4ecc5274eaee7053"),
        ("Stop", {"statusMessage": "é"}, None, "4e28f78f28a08c4f"),
        ("Stop", {"command": " c ", "async": True, "statusMessage": ""}, None, "5330d599539a3f96"),
        ("Stop", {"command": "größe 漢字 😀"}, None, "2531b0c69af2406f"),
        ("Stop", {"command": 'a\\b"c\tnew\nline\\'}, None, "4f094c3377ea2f77"),
        ("Stop", {"command": "\0\1\b\f\r\x1f\x7f\x85\u2028\ufeff\ufffe/<>&'"}, None, "85de43fe65042d0b"),
        ("SessionStart", {}, None, "7b315bdd0c66f4fe"),
        ("SessionStart", {}, "", "f846310b2ff47516"),
        ("SessionStart", {}, "startup|resume", "9440d0acfbbe57ce"),
        ("UserPromptSubmit", {}, "x", "7c96ebb87f4cd36c"),
        ("SessionEnd", {}, None, "795b45aba205ef76"),
        ("SessionEnd", {"timeout": 5}, "", "9f76b8db61a38390"),
        ("Interrupt", {"timeout": 9}, "x", "8a870d0b0c70f204"),
        ("PreCompact", {}, 'é\\\\"/\u2028', "6c78ee1c27539400"),
        ("SubagentStop", {"timeout": (1 << 63) - 1}, "x", "b37f92caa541ccea"),
    ],
)
def test_hash_is_the_one_that_the_real_codex_said(
    event: str, hook: dict[str, Any], matcher: str | None, expected: str
) -> None:
    assert definition_hash(event, {"command": "c", **hook}, matcher).startswith(f"sha256:{expected}")


# Reading


def test_hook_that_nobody_trusted_is_untrusted(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    before = snapshot(user.home)

    (hook,) = user.read() or []

    assert hook == HookTrust("Stop", OURS, user.key(), hook.current_hash, "untrusted", enabled=True)
    assert snapshot(user.home) == before


@pytest.mark.parametrize(
    "config",
    [
        "",
        '[projects."{project}"]\n',
        '[projects."{project}"]\ntrust_level = "untrusted"\n',
        '[projects."{project}/"]\ntrust_level = "trusted"\n',
        '[projects."{project}/.."]\ntrust_level = "trusted"\n',
    ],
)
def test_hooks_of_an_untrusted_folder_are_not_read_and_not_granted(user: User, config: str) -> None:
    user.write_hooks(OURS)
    user.config.write_text(config.format(project=user.project))
    before = snapshot(user.home)

    assert user.read() is None
    with pytest.raises(CodexTrustError, match=r"does not trust the folder .* start codex there once and accept"):
        user.grant()
    assert snapshot(user.home) == before


@pytest.mark.parametrize(
    ("marker", "config", "is_trusted"),
    [
        (".git", "", True),
        (".hg", "", False),
        (".hg", 'project_root_markers = [".hg"]\n', True),
        (".git", "project_root_markers = []\n", False),
        (".git", '[projects."{project}"]\ntrust_level = "untrusted"\n', False),
    ],
)
def test_folder_of_a_trusted_repository_is_trusted(user: User, marker: str, config: str, is_trusted: bool) -> None:  # noqa: FBT001
    user.write_hooks(OURS)
    (user.project.parent / marker).mkdir()
    trusted = f'[projects."{user.project.parent}"]\ntrust_level = "trusted"\n'
    user.config.write_text(config.format(project=user.project) + trusted)

    assert (user.read() is not None) is is_trusted


@pytest.mark.parametrize(
    ("of_user", "of_project", "count"),
    [
        ("hooks = false", None, 0),
        ("hooks = true", None, 1),
        ("codex_hooks = false", None, 0),
        ("hooks = true\ncodex_hooks = false", None, 1),
        ("hooks = false", "hooks = true", 1),
        ("", "hooks = false", 0),
    ],
)
def test_hooks_that_are_switched_off_are_not_loaded(
    user: User, of_user: str, of_project: str | None, count: int
) -> None:
    user.write_hooks(OURS)
    user.trust_folder(f"[features]\n{of_user}\n")
    if of_project is not None:
        (user.project / ".codex/config.toml").write_text(f"[features]\n{of_project}\n")

    assert len(user.read() or []) == count
    if not count:
        with pytest.raises(CodexTrustError, match=r"loads no hook of ours from .* does not switch hooks off"):
            user.grant()


def test_trusted_folder_without_hooks_reads_as_empty(user: User) -> None:
    user.trust_folder()

    assert user.read() == []


def test_home_that_is_not_there_is_not_made(user: User) -> None:
    user.write_hooks(OURS)
    user.home.rmdir()

    assert user.read() is None
    with pytest.raises(CodexTrustError, match="does not trust the folder"):
        user.grant()
    assert not user.home.exists()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"CODEX_HOME": "/a", "HOME": "/b"}, "/a"),
        ({"CODEX_HOME": "", "HOME": "/b"}, "/b/.codex"),
        ({"HOME": "/b"}, "/b/.codex"),
    ],
)
def test_home_is_where_the_environment_says(environ: dict[str, str], expected: str) -> None:
    assert codex_config.home(environ) == Path(expected)


# Granting


def test_granted_hook_is_trusted(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder()

    granted = user.grant()

    assert [hook.status for hook in granted.newly_trusted] == ["trusted"]
    assert user.read() == granted.newly_trusted


def test_second_grant_writes_nothing(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    first = user.grant()
    before = user.config.stat()

    second = user.grant()

    assert second == Granted(newly_trusted=[], already_trusted=first.newly_trusted, disabled=[], foreign=[])
    assert user.config.stat() == before


@pytest.mark.parametrize("command", [FOREIGN, OURS + " ", OURS.upper(), "sh -c " + OURS])
def test_hook_with_any_other_command_stays_untrusted(user: User, command: str) -> None:
    user.write_hooks(command, OURS)
    user.trust_folder()

    granted = user.grant()

    assert [hook.command for hook in granted.foreign] == [command]
    assert user.statuses() == {command: "untrusted", OURS: "trusted"}
    assert list(user.values()["hooks"]["state"]) == [user.key("stop:1:0")]


def test_hook_that_the_user_switched_off_is_reported_and_stays_off(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder(f'[hooks.state."{user.key()}"]\nenabled = false\n')
    before = snapshot(user.home)

    granted = user.grant()

    assert [hook.enabled for hook in granted.disabled] == [False]
    assert (granted.newly_trusted, granted.already_trusted) == ([], [])
    assert snapshot(user.home) == before


def test_moved_hook_is_untrusted_until_granted_again(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    user.grant()

    user.write_hooks(FOREIGN, OURS)

    assert user.statuses() == {FOREIGN: "modified", OURS: "untrusted"}
    user.grant()
    assert user.statuses() == {FOREIGN: "modified", OURS: "trusted"}


def test_changed_definition_is_modified_until_granted_again(user: User) -> None:
    user.write_hooks(OURS, timeout=5)
    user.trust_folder()
    user.grant()

    user.write_hooks(OURS, timeout=10)

    assert user.statuses() == {OURS: "modified"}
    user.grant()
    assert user.statuses() == {OURS: "trusted"}


def test_grant_where_none_of_our_hooks_is_loaded_says_so(user: User) -> None:
    user.write_hooks(FOREIGN)
    user.trust_folder()

    with pytest.raises(CodexTrustError, match=r"loads no hook of ours from .* install them first"):
        user.grant()


def test_trust_given_through_a_symlink_holds_for_the_real_folder(user: User, tmp_path: Path) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    link = tmp_path / "link"
    link.symlink_to(user.project)

    assert [hook.key for hook in user.grant(link).newly_trusted] == [user.key()]
    assert user.read(link) == user.read()


def test_path_that_is_not_utf8_is_an_error_at_once(user: User) -> None:
    with pytest.raises(CodexTrustError, match="cannot be told about a path that is not UTF-8"):
        user.read(user.project / os.fsdecode(b"\xff"))


# Writing


def test_mode_and_links_of_the_file_stay(user: User, tmp_path: Path) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    user.config.chmod(0o600)
    (tmp_path / "dotfiles").mkdir()
    target = user.config.rename(tmp_path / "dotfiles/codex.toml")
    user.config.symlink_to(target)

    user.grant()

    assert user.config.readlink() == target
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert user.statuses() == {OURS: "trusted"}
    assert [file.name for folder in (user.home, target.parent) for file in folder.iterdir()] == [
        "config.toml",
        "codex.toml",
    ]


def test_grants_at_the_same_time_lose_none(user: User, tmp_path: Path) -> None:
    users = [User(tmp_path / f"project-{number}", user.home) for number in range(8)]
    for each in users:
        each.project.mkdir()
        each.write_hooks(OURS)
    user.config.write_text("".join(f'[projects."{each.project}"]\ntrust_level = "trusted"\n' for each in users))

    with ThreadPoolExecutor(len(users)) as pool:
        list(pool.map(User.grant, users))

    assert [each.statuses() for each in users] == [{OURS: "trusted"}] * len(users)
    assert [file.name for file in user.home.iterdir()] == ["config.toml"]


SHAPES = {
    "no table": "",
    "table that is empty": "[hooks.state]\n# none yet\n",
    "others": "[hooks.state.'/o:stop:0:0'] # theirs\ntrusted_hash = 'sha256:1' # single quotes\nenabled=false\n",
    "pieces": "[hooks.state.a]\nenabled = true\n\n[tui]\n# k\n[[hooks.Stop]] # l\n\n[hooks.state.b]\nenabled=true\n",
    "no final newline": "[hooks.state.a]\nenabled = true\n# last",
    "on one line": "hooks = { state = { a = { enabled = true } } } # c\n",
    "state on one line": "[hooks]\nstate = { } # c\n",
    "dotted": 'hooks.state.a.trusted_hash = "1" # c\nz = 1\n',
    "dotted below hooks": '[hooks]\nstate.a.trusted_hash = "1" # c\n',
    "dotted below state": "[hooks.state]\na.enabled = false # c\n",
    "indented": "  [hooks.state.a]\n    enabled   =   true\n",
    "stale": "[hooks.state.\"@K\"]   # t\ntrusted_hash   =   'old'   # c\nenabled = true\n\n\n",
    "stale in literal quotes": "[hooks.state.'@K']\ntrusted_hash='old'\n",
    "stale on one line": '[hooks.state]\n"@K" = { trusted_hash = "old", enabled = true } # c\n',
    "not a number": "x = nan\n",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_all_but_the_hash_stays_as_it_was_written(user: User, shape: str, newline: str) -> None:
    user.write_hooks(OURS)
    user.trust_folder("# my own words\nmodel   =   'some' # why\n\n" + shape.replace("@K", user.key()))
    user.config.write_bytes(user.config.read_bytes().replace(b"\n", newline.encode()))
    before = user.config.read_bytes().decode()

    (hook,) = user.grant().newly_trusted

    after = user.config.read_bytes().decode()
    if "old" in shape:
        assert after == before.replace("'old'", '"old"').replace('"old"', f'"{hook.current_hash}"')
    else:
        assert_only_added(before, after, user.key())
    assert after.count("\r") == (after.count("\n") if newline == "\r\n" else 0)


def assert_only_added(before: str, after: str, key: str) -> None:
    """All is still there in the same order, and what came to it, in one place, is about the key."""
    before, after = before.replace(" ", ""), after.replace(" ", "")  # a list on one line may get another
    start = next((at for at, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), len(before))
    added = after[start : len(after) - len(before) + start]
    assert after == before[:start] + added + before[start:]
    assert key in added
    assert "\n" not in added.strip() or added.strip().count("\n") == 1


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (b"a = 1\nb = [\n", r"config\.toml: .* at line \d+ col \d+"),
        (b"a = 1\na = 2\n", r'config\.toml: Key "a" already exists\. at line 2'),
        (b"a = 1\n# caf\xe9\n", r"config\.toml: line 2 is not UTF-8"),
        (b"a = " + b"[" * 5000, r"config\.toml: .*(deep|depth)"),
        (b"[hooks]\nstate = 5\n", r"config\.toml: hooks\.state is no table"),
        (b"[hooks.state.a]\nenabled = 'no'\n", r'config\.toml: enabled of hooks\.state\."a" is no boolean'),
    ],
)
def test_config_that_codex_would_reject_is_named_and_left(user: User, config: bytes, why: str) -> None:
    user.write_hooks(OURS)
    user.config.write_bytes(config)
    before = snapshot(user.home)

    for act in (user.read, user.grant):
        with pytest.raises(CodexTrustError, match=f"cannot load .*hooks.json: .*{why}.*; mend that and try again"):
            act()
    assert snapshot(user.home) == before


def test_config_that_is_no_file_is_named(user: User) -> None:
    user.write_hooks(OURS)
    user.config.mkdir()

    with pytest.raises(CodexTrustError, match=r"codex-home: config\.toml is no regular file"):
        user.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_config_in_a_folder_that_cannot_be_written_is_named(user: User) -> None:
    user.write_hooks(OURS)
    user.trust_folder()
    user.home.chmod(0o500)
    try:
        with pytest.raises(CodexTrustError, match=r"cannot write in .*codex-home"):
            user.grant()
    finally:
        user.home.chmod(0o700)


# Whatever the user has there

NAMES = st.sampled_from(["a", "b-1", '"q.r"', "'s t'", "hook", '"é"'])
VALUES = st.sampled_from(
    [
        "1",
        "-0.5",
        "true",
        "'x'",
        '"\\u00e9"',
        '"""\nm\n"""',
        "[1, [2],\n 3, # in\n]",
        "{ i = 1, j.k = [] }",
        "1979-05-27",
    ]
)
COMMENTS = st.sampled_from(["", " # c", "\t# [t]"])
GAPS = st.sampled_from(["", "\n", "# own line\n", "\n\n  # two\n\n"])
HEADERS = st.sampled_from([
    "[tui]", "[ mcp . 'a b' ]", "[features.x]", "[[list]]", "[hooks]", "[hooks.state]", "[hooks.state.'x:stop:0:0']",
    '[hooks.state."y"]', '[hooks.state."@K"]', "[[hooks.Stop]]", "[[hooks.Stop.hooks]]",
])  # fmt: skip


@st.composite
def sections(draw: st.DrawFn) -> str:
    """Write some keys, then tables of some keys each; a table of trust holds only what Codex takes there."""
    lines = [draw(GAPS)]
    headers = draw(st.lists(HEADERS, max_size=6, unique_by=lambda header: header if header[1] != "[" else object()))
    for header in ["", *headers]:
        if header:
            lines.append(f"{header}{draw(COMMENTS)}\n")
        names = draw(st.lists(NAMES, max_size=3, unique=True))
        if header in ("[hooks.state]", "[hooks]", "[[hooks.Stop]]"):
            names = []
        lines += [f"{name} = {draw(VALUES)}{draw(COMMENTS)}\n{draw(GAPS)}" for name in names]
    return "".join(lines)


@given(text=sections())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_other_value_and_comment_of_any_config_stays(user: User, text: str) -> None:
    user.write_hooks(OURS)
    user.trust_folder(text.replace("@K", user.key()))
    before = user.config.read_text(encoding="utf-8")
    try:
        values = user.values()
        assert user.read() is not None
    except (CodexTrustError, tomlkit.exceptions.TOMLKitError):
        return  # no TOML: a table twice, or one below another that is no table

    try:
        (hook,) = user.grant().newly_trusted
    except CodexTrustError:  # an entry to be changed, among tables that tomlkit would move
        assert user.key() in before
        assert user.config.read_text(encoding="utf-8") == before
        return

    values.setdefault("hooks", {}).setdefault("state", {}).setdefault(user.key(), {})["trusted_hash"] = (
        hook.current_hash
    )
    assert user.values() == values
    after = iter(user.config.read_text(encoding="utf-8").splitlines())
    added = [line for old in [*before.splitlines(), None] for line in takewhile(lambda new, old=old: new != old, after)]
    assert all(not line or user.key() in line or line == f'trusted_hash = "{hook.current_hash}"' for line in added)
