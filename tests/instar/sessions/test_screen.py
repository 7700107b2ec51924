"""What a screen says is read off its bottom alone, and is idle only where everything there is known to be."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instar.sessions.screens import screen

FRAMES = Path(__file__).parent / "frames"
CLIENTS = {"claude": "claude-code", "codex": "codex-cli"}

# The frames that the real clients drew, by what they are: the text of a pane, with escapes (.ansi) or without (.txt).
RECORDED = {
    ("claude-2.1.197", "idle"): """
        after-help.ansi after-tool.ansi after-turn.ansi bypass-fresh.ansi cleared-conversation.ansi fresh-200x50.ansi
        fresh-40x20.ansi fresh-80x24.ansi fresh.ansi idle-after-interrupt.txt idle-after-permission-rejected.txt
        idle-after-stop-hook-block.txt idle-after-turn.txt idle-fresh.txt interrupted-200x50.ansi
        interrupted-40x20.ansi interrupted-80x24.ansi interrupted-cleared.ansi mode-0.ansi mode-2.ansi mode-3.ansi
        open-task.ansi own-shell-over.ansi permission-rejected.ansi question-answered.ansi quoted.ansi renamed.ansi
        status-line-after-turn.ansi status-line-fresh.ansi tasks-toggled.ansi vim-fresh.ansi vim-normal.ansi
    """,
    ("claude-2.1.197", "live"): """
        agent-interrupted.ansi background-agent.ansi compacting.ansi cron.ansi foreground-agent.ansi
        own-shell-running.ansi queued-while-working.txt queued.ansi status-line-streaming.ansi stop-hook-running.txt
        streaming-200x50.ansi streaming-40x20.ansi streaming-80x24.ansi streaming-with-tasks.ansi streaming.ansi
        tool-40x20.ansi tool-80x24.ansi tool.ansi typed-while-streaming.ansi typed-while-working.txt
        waiting-model.ansi wakeup.ansi working-long-tool.txt working-streaming-2.txt working-streaming.txt
    """,
    ("claude-2.1.197", "background"): """
        agent-over.ansi background-200x50.ansi background-40x20.ansi background-80x24.ansi background-quoted.ansi
        background-resized.ansi background-selected.ansi background.ansi compacted.ansi idle-with-background-task.txt
        status-line-background.ansi
    """,
    ("claude-2.1.197", "modal"): """
        agents-view.ansi background-dialog.ansi btw.ansi config.ansi help.ansi model-picker.ansi permission-dialog.txt
        permission.ansi question.ansi resume-picker.ansi shortcuts.ansi transcript-viewer-working.ansi
        transcript-viewer.ansi trust-dialog.txt
    """,
    ("claude-2.1.197", "draft"): """
        at-menu.ansi bash-mode-typed.ansi bash-mode.ansi history-search.ansi multiline.ansi pasted.ansi
        slash-menu.ansi slash-typed.ansi stashed.ansi status-line-typed.ansi typed-200x50.ansi typed-40x20.ansi
        typed-not-sent.txt typed-placeholder.ansi typed.ansi vim-one-character.ansi working-after-ctrl-c.ansi
    """,
    ("claude-2.1.197", "unrecognised"): "after-ctrl-c.ansi",
    ("codex-0.169.0", "idle"): """
        after-bash-mode.ansi after-tool.ansi after-turn-40x20.ansi after-turn.ansi compacted.ansi fresh-200x50.ansi
        fresh-40x20.ansi fresh-80x24.ansi fresh.ansi idle-after-interrupt.txt idle-after-permission-rejected.txt
        idle-after-stop-hook-block.txt idle-after-turn.txt idle-fresh.txt interrupted.ansi new.ansi
        own-shell-over.ansi permission-rejected.ansi quoted.ansi resized.ansi resumed.ansi status-line-after-turn.ansi
        status-line.ansi status.ansi sub-folder.ansi transcript-viewer.ansi
    """,
    ("codex-0.169.0", "live"): """
        queued-while-working.txt queued.ansi stop-hook-running.txt streaming.ansi tool-40x20.ansi tool-80x24.ansi
        tool.ansi typed-while-streaming.ansi typed-while-working.txt waiting-model.ansi working-long-tool.txt
        working-streaming.txt working-waiting-model.txt
    """,
    ("codex-0.169.0", "background"): """
        after-tool-200x50.ansi after-tool-40x20.ansi after-tool-80x24.ansi background.ansi backtab.ansi
    """,
    ("codex-0.169.0", "modal"): """
        f2.ansi hooks-review-dialog.txt left.ansi model-picker.ansi permission-dialog.txt permission.ansi
        shortcuts-40x20.ansi shortcuts.ansi trust-dialog.txt
    """,
    ("codex-0.169.0", "draft"): """
        at-menu.ansi bash-mode.ansi history-search.ansi interrupted-queued.ansi multiline.ansi pasted.ansi
        slash-menu.ansi typed-200x50.ansi typed-40x20.ansi typed-80x24.ansi typed-not-sent.txt typed-placeholder.ansi
        typed.ansi
    """,
    ("codex-0.169.0", "unrecognised"): "streaming-no-animations.ansi",
}
READINGS = {f"{client}-{name}": said for (client, said), names in RECORDED.items() for name in names.split()}
IDLE = sorted(name for name, said in READINGS.items() if said == "idle")
NOT_IDLE = sorted(set(READINGS) - set(IDLE))
TITLES: dict[str, dict[str, str]] = json.loads((FRAMES / "titles.json").read_text())

RULE = "─" * 80
BOX = f"{RULE}\n❯\xa0\n{RULE}\n  ? for shortcuts · ← for agents"  # noqa: RUF001 - it is what Claude draws
DONE = "● Done.\n\n✻ Baked for 8s\n"
CODEX = "› Ask Codex to do anything\n\n  gpt-5 default · ~/demo\n  ← for agents · ? for shortcuts"  # noqa: RUF001
WORKED = "• Done.\n\n  Worked for 8s • 12:54\n\n"


class Seen(NamedTuple):
    """A recorded frame, and what tmux and the record know beside it."""

    client: str
    text: str
    title: str
    folder: str


@cache
def recorded(name: str) -> Seen:
    told = TITLES[name]
    return Seen(CLIENTS[name.split("-", 1)[0]], (FRAMES / name).read_text(), told["title"], told["folder"])


def reading(client: str, frame: str, title: str = "demo", folder: str = "/home/developer01/demo") -> str:
    return screen.read(client, frame, title, folder).reading


def claude(frame: str, title: str = "✳ Claude Code") -> str:
    return reading("claude-code", frame, title)


def codex(frame: str, title: str = "demo") -> str:
    return reading("codex-cli", frame, title)


def content(client: str, frame: str) -> str:
    return screen.read(client, frame, "demo", "/home/developer01/demo").content


def test_every_frame_has_a_row_here_and_a_title() -> None:
    there = {path.name for path in FRAMES.iterdir() if path.suffix in {".ansi", ".txt"}}

    assert there == set(READINGS) == set(TITLES)


@pytest.mark.parametrize("name", sorted(READINGS))
def test_a_recorded_frame_reads_as_what_it_is(name: str) -> None:
    assert reading(*recorded(name)) == READINGS[name]


@pytest.mark.parametrize("name", [name for name in NOT_IDLE if name.startswith("claude")])
def test_claude_at_work_is_not_idle_even_without_its_title(name: str) -> None:
    assert claude(recorded(name).text, "host") != "idle"


@pytest.mark.parametrize("name", [name for name in NOT_IDLE if name.startswith("codex") and name.endswith(".ansi")])
def test_codex_at_work_is_not_idle_even_when_its_title_is_that_of_an_idle_one(name: str) -> None:
    assert codex(recorded(name).text) != "idle"


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("● Bash(make test)\n  ⎿  ok\n\n" + DONE + "\n" + BOX, "idle"),
        ("● See /home/claude/claude.md\n\n" + DONE + "\n" + BOX, "idle"),
        ("● So.\n\n✻ Baking… (12s · ↑ 1.1k tokens)\n\n" + BOX, "live"),
        ("● So.\n\n✻ Baking…\n\n" + BOX, "live"),
        ("● So.\n\n⠹ Baking (12s)\n\n" + BOX, "live"),
        ("● So.\n\n✻ Waiting for 1 background agent to finish\n\n" + BOX, "background"),
        ("● So.\n\n✢ Waiting for word\n\n" + BOX, "live"),
        (DONE + "\n" + BOX.replace("❯\xa0", "❯\xa0mend the"), "draft"),  # noqa: RUF001
        (DONE + "\n" + BOX.replace("❯\xa0", "❯\xa0[Image #1]"), "draft"),  # noqa: RUF001
        (DONE + "\n" + BOX.replace("❯\xa0", "❯\xa0[Pasted text #1 +29 lines]"), "draft"),  # noqa: RUF001
        (DONE + "\n" + BOX.replace("❯\xa0", "❯\xa0\n\n  third line"), "draft"),  # noqa: RUF001
        (DONE + "\n" + BOX.replace("❯\xa0", "❯\xa0Press up to edit queued messages"), "queued"),  # noqa: RUF001
        (DONE + "\n" + BOX.replace("? for shortcuts", "2 shells"), "background"),
        (DONE + "\n" + BOX.replace("? for shortcuts", "⏵⏵ accept edits on · 1 agent"), "background"),
        (DONE + "\n" + BOX.replace("? for shortcuts", "⏵⏵ accept edits on · esc to interrupt"), "live"),
        (DONE + "\n" + BOX.replace("? for shortcuts", "what is this"), "unrecognised"),
        (DONE + "\n" + BOX + "\n  never seen", "unrecognised"),
        (DONE + "\n" + BOX + "\n\n$ ls", "unrecognised"),
        (DONE + "\n" + BOX.rsplit("\n", 1)[0], "unrecognised"),
        ("✻ Baked for 8s · 1 shell still running\n\n" + BOX, "background"),
        (f"{DONE}\n{RULE}\n Do you want to proceed?\n ❯ 1. Yes\n   2. No\n\n Esc to cancel", "modal"),  # noqa: RUF001
        ("● Press ? for shortcuts\n\n$ ", "unrecognised"),
        ("  ? for shortcuts · ← for agents", "unrecognised"),
        (">", "unrecognised"),
        (f"{RULE}\n{RULE}", "unrecognised"),
        (f"{DONE}\n{RULE}\n\n{RULE}\n  ? for shortcuts", "unrecognised"),
        (f"{DONE}\n{RULE}\n chosen\n{RULE}\n  ? for shortcuts", "unrecognised"),
        (DONE + "\n" + BOX.replace("  ?", "  a status\n  line\n  ?"), "idle"),
        (DONE + "\n" + BOX.replace("  ?", "  a status line\n" * 7 + "  ?"), "unrecognised"),
        (DONE + "\n" + BOX.replace("? for", "\x1b]8;;https://example.org\x1b\\? for\x1b]8;;\x1b\\"), "idle"),
        ("", "unrecognised"),
    ],
)
def test_claude_is_idle_only_with_an_empty_prompt_and_nothing_live_around_it(frame: str, expected: str) -> None:
    assert claude(frame) == expected


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (WORKED + CODEX, "idle"),
        (WORKED + CODEX.replace("Ask Codex to do anything", "Find and fix a bug in @filename"), "idle"),
        (WORKED + CODEX.replace("Ask Codex to do anything", "find the bug"), "draft"),
        (WORKED + CODEX.replace("Ask Codex to do anything", ""), "idle"),
        (WORKED + "• Ran make\n\n  Worked for 3s • 12:54\n\n" + CODEX, "idle"),
        ("• So.\n\n◦ Working (1m 05s • esc to interrupt)\n\n▌\n\n" + CODEX, "live"),
        ("• So.\n\n• Working (1m 05s)\n\n" + CODEX, "live"),
        ("• Done.\n\n" + CODEX, "unrecognised"),
        ("› mend it\n\n" + CODEX, "unrecognised"),  # noqa: RUF001
        (WORKED + "• Queued follow-up inputs\n  ↳ and then\n\n" + CODEX, "queued"),
        (WORKED + "  2 background terminals running · /ps to view\n\n" + CODEX, "background"),
        (WORKED + CODEX.replace("? for shortcuts", "what is this"), "unrecognised"),
        (WORKED + CODEX + "\n\n  third row", "unrecognised"),
        ("▌ send your message", "unrecognised"),
        ("", "unrecognised"),
    ],
)
def test_codex_is_idle_only_when_what_it_said_last_is_that_it_is_done(frame: str, expected: str) -> None:
    assert codex(frame) == expected


@pytest.mark.parametrize(
    ("client", "title", "folder", "expected"),
    [
        ("codex-cli", "demo", "/a/demo", "idle"),
        ("codex-cli", "demo", "/a/demo/", "idle"),
        ("codex-cli", "demo", "/a/demo/src", "idle"),  # the repository's name
        ("codex-cli", "⠋ demo", "/a/demo", "live"),
        ("codex-cli", "[ ! ] Action Required | demo", "/a/demo", "modal"),
        ("codex-cli", "other", "/a/demo", "unrecognised"),
        ("codex-cli", "", "/a/demo", "unrecognised"),
        ("codex-cli", "", "", "unrecognised"),
        ("codex-cli", "host", "", "unrecognised"),
        ("claude-code", "✳ Claude Code", "", "idle"),
        ("claude-code", "✳ mend the roof", "", "idle"),
        ("claude-code", "host", "", "idle"),
        ("claude-code", "", "", "idle"),
        ("claude-code", "⠂ Claude Code", "", "live"),
        ("claude-code", "2 awaiting input · claude agents", "", "modal"),
        ("gemini", "demo", "/a/demo", "unrecognised"),
        ("../claude-code", "demo", "/a/demo", "unrecognised"),
        ("", "demo", "/a/demo", "unrecognised"),
    ],
)
def test_the_title_speaks_as_far_as_it_does(client: str, title: str, folder: str, expected: str) -> None:
    frame = f"{WORKED}{CODEX}" if client == "codex-cli" else f"{DONE}\n{BOX}"

    assert reading(client, frame, title, folder) == expected


@pytest.mark.parametrize(
    ("composer", "expected"),
    [
        ("\x1b[2mTry something\x1b[0m", "idle"),
        ("\x1b[7mT\x1b[0;2mry something\x1b[0m", "idle"),
        ("\x1b[0;2m\x1b[38;5;2mTry\x1b[39m it\x1b[22m", "idle"),
        ("\x1b[38;2;2;2;2mTry it\x1b[39m", "draft"),
        ("\x1b[48;5;2mTry it\x1b[49m", "draft"),
        ("\x1b[2mTry\x1b[22m it", "draft"),
        ("/he\x1b[2mlp\x1b[0m", "draft"),
        ("\x1b[7mx\x1b[0m", "draft"),
        ("\x1b[7mxy\x1b[0;2mz", "draft"),
        ("\x1b[7mx\x1b[0my\x1b[2mz", "draft"),
        ("\x1b[7m \x1b[0mx\x1b[2mrest", "draft"),
        ("Press up to edit queued messages", "draft"),
        ("Ask Codex to do anything", "draft"),
        ("\x1b]8;;https://example.org\x1b\\Try it\x1b]8;;\x1b\\", "draft"),
    ],
)
@pytest.mark.parametrize("client", CLIENTS.values())
def test_where_escapes_tell_only_dim_text_is_a_placeholder(client: str, composer: str, expected: str) -> None:
    drawn = "\x1b[39m"
    if client == "codex-cli":
        frame = drawn + WORKED + CODEX.replace("Ask Codex to do anything", composer + "\x1b[0m")
    else:
        frame = drawn + DONE + "\n" + BOX.replace("❯\xa0", f"❯\xa0{composer}\x1b[0m")  # noqa: RUF001

    assert reading(client, frame) == expected


@pytest.mark.parametrize(
    ("before", "prompt", "expected"),
    [
        ("\x1b[2m", "❯\xa0a\n  b\x1b[0m", "idle"),  # noqa: RUF001
        ("\x1b[0;2m", "❯\xa0a\n  b\x1b[0m", "idle"),  # noqa: RUF001
        ("\x1b[2;7m\x1b[0m", "❯\xa0a\x1b[2mb\x1b[0m", "draft"),  # noqa: RUF001
        ("\x1b[2m", "\x1b[22m❯\xa0a\n  \x1b[2mb\x1b[0m", "draft"),  # noqa: RUF001
        ("", "❯\xa0\x1b[2ma\n  b\x1b[0m", "idle"),  # noqa: RUF001
        ("", "!\xa0\x1b[2ma hint\x1b[0m", "draft"),
        ("", "!\xa0\x1b[7m \x1b[0m", "draft"),
    ],
)
def test_what_is_dim_may_have_become_so_on_a_row_before(before: str, prompt: str, expected: str) -> None:
    assert claude(f"{DONE}\n\x1b[1mx\x1b[22m\n{before}{RULE}\n{prompt}\n{RULE}\n  ? for shortcuts") == expected


@pytest.mark.parametrize("client", CLIENTS.values())
def test_every_client_says_which_versions_it_was_recorded_on(client: str) -> None:
    (version,) = screen.measured(client)
    short = client.split("-", maxsplit=1)[0]

    assert all(name.startswith(f"{short}-{version}-") for name in READINGS if name.startswith(short))
    assert screen.read(client, "", "", "").version
    assert screen.measured("gemini") == ()
    assert screen.read("gemini", "", "", "").version == ""


SCROLLED = st.lists(
    st.one_of(
        st.text("ab❯›●•✻⠹─│ …()12s", max_size=30),  # noqa: RUF001
        st.sampled_from(
            ["✻ Baking… (12s)", "• Working (3s • esc to interrupt)", "Esc to cancel", "⏺ Bash(ls)", "  1 shell", RULE]
        ),
    ),
    max_size=12,
).map("\n".join)  # fmt: skip


@given(st.sampled_from(sorted(READINGS)), SCROLLED)
def test_what_scrolled_off_changes_no_reading(name: str, before: str) -> None:
    seen = recorded(name)

    assert reading(seen.client, f"{before}\n{seen.text}", seen.title, seen.folder) == READINGS[name]


GARBAGE = st.text("abc ❯›●•✻⠹─│…()12?:·\n\x1b[m", max_size=60)  # noqa: RUF001


@given(st.sampled_from(NOT_IDLE), GARBAGE, GARBAGE)
def test_nothing_around_it_makes_a_frame_idle(name: str, before: str, after: str) -> None:
    seen = recorded(name)

    assert reading(seen.client, before + seen.text.rstrip("\n") + after, seen.title, seen.folder) != "idle"


@given(st.text(), st.text(), st.text(), st.sampled_from(["claude-code", "codex-cli", "gemini"]))
def test_any_text_is_read_without_an_error_and_is_not_idle(frame: str, title: str, folder: str, client: str) -> None:
    assert reading(client, frame, title, folder) != "idle"


@given(
    st.sampled_from(IDLE),
    st.sampled_from("·✢✳✶✻✽*⠋⠹"),
    st.sampled_from(["Baking… (12s · ↑ 1.1k tokens)", "Baking…", "Baking (3s)", "Compacting conversation… 3%"]),
    st.integers(0, 3),
)
def test_a_live_row_above_the_prompt_is_never_idle(name: str, glyph: str, words: str, blanks: int) -> None:
    seen = recorded(name)
    is_claude = seen.client == "claude-code"
    row = f"{glyph} {words}" if is_claude else "◦ Working (1m 05s • esc to interrupt)"
    rows = seen.text.rstrip().split("\n")
    starts = "─{3,}" if is_claude else "›"  # noqa: RUF001
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", each) for each in rows]
    marks = [number for number, each in enumerate(plain) if re.match(starts, each)]
    at = marks[-2] if is_claude else marks[-1]
    frame = "\n".join([*rows[:at], row, *[""] * blanks, *rows[at:]])

    assert reading(seen.client, frame, seen.title, seen.folder) == "live"


@given(st.sampled_from(sorted(READINGS)), st.integers(0, 5), st.integers(0, 30))
def test_blanks_at_the_ends_of_rows_and_of_the_screen_change_no_content(name: str, rows: int, blanks: int) -> None:
    seen = recorded(name)
    noisy = "\n".join(row + " " * blanks for row in seen.text.split("\n")) + "\n" * rows
    before, after = (screen.read(seen.client, text, seen.title, seen.folder) for text in (seen.text, noisy))

    assert (before.content, before.reading) == (after.content, after.reading)
    assert (before.raw == after.raw) == (seen.text == noisy)


@pytest.mark.parametrize(
    ("client", "before", "after"),
    [
        ("claude-code", f"{DONE}\n{BOX}", f"{DONE}\n{BOX}             ● high · /effort"),
        ("claude-code", f"{DONE}\n{BOX}", f"{DONE}\n{BOX}             8% until auto-compact"),
        ("claude-code", f"{DONE}\n{BOX}", f"{DONE}\n{BOX}\n            a notice on the right"),
        ("claude-code", f"{DONE}\n{BOX}", f"{DONE}\n{BOX}\n  tmux focus-events off · add it"),
        ("claude-code", f"{DONE}\n{BOX}", f"{DONE}\n\n\n{BOX}".replace(RULE, "─" * 120)),
        *[
            ("claude-code", f"{DONE}\n{BOX}".replace("  ? for shortcuts ·", f"  {one}\n "), f"{DONE}\n{BOX}".replace(
                "  ? for shortcuts ·", f"  {two}\n "
            ))
            for one, two in (("ctx 42% | $0.31", "ctx 43% | $0.315"), ("12:59", "13:00"), ("9k tokens", "12.5k tokens"))
        ],
        ("codex-cli", WORKED + CODEX, WORKED + CODEX + "            ⚠ 2 warnings · f2 to view"),
        ("codex-cli", WORKED + CODEX.replace("~/demo", "99% left"), WORKED + CODEX.replace("~/demo", "100% left")),
    ],
)  # fmt: skip
def test_what_ticks_and_comes_and_goes_below_the_prompt_is_no_content(client: str, before: str, after: str) -> None:
    assert reading(client, before) == reading(client, after) == "idle"
    assert content(client, before) == content(client, after)
    assert screen.read(client, before, "", "").raw != screen.read(client, after, "", "").raw


@pytest.mark.parametrize(
    "after",
    [
        f"{DONE}\n{BOX}".replace("8s", "9s"),
        f"{DONE}\n{BOX}".replace("Done", "Gone"),
        f"{DONE}\n{BOX}".replace("? for shortcuts", "⏸ plan mode on"),
        f"{DONE}\n{BOX}".replace("❯\xa0", "❯\xa0a"),  # noqa: RUF001
        f"● More.\n\n{DONE}\n{BOX}",
    ],
)
def test_all_else_is_content(after: str) -> None:
    assert content("claude-code", after) != content("claude-code", f"{DONE}\n{BOX}")


@pytest.mark.parametrize("name", sorted(READINGS))
def test_the_reason_tells_nothing_of_what_is_on_the_screen(name: str) -> None:
    """It comes from the code or the patterns: the same for a frame with other words."""
    seen = recorded(name)
    why = screen.read(*seen).why

    assert why
    assert not re.search(r"[/~]|demo|developer|item|sleep|touch", why)


@pytest.mark.parametrize(
    "row",
    ["  " + "? for shortcuts · " * 3000 + "x", " " * 50_000, "· " * 20_000, "⏵⏵ " + "a " * 20_000, "│" * 50_000],
)
def test_a_long_row_is_read_like_any_other(row: str) -> None:
    rows = [DONE, row, BOX.rsplit("\n", 1)[0], row]

    assert claude("\n".join(rows)) != "idle"
    assert codex(f"{WORKED}\n{row}\n{CODEX}\n{row}\nx") != "idle"
