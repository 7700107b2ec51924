"""Which last words of an agent make its stop worth a look, and which only look like it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks.common.signals import DETECTORS, detect

FIRES = {
    "I'll stop here to preserve context for later work.": {"mentionsContext", "mentionsNaturalPause"},
    "Running low on context: 12% left, so I am wrapping up.": {"mentionsContext"},
    "To save tokens I will hand off now, with all of this done.": {"mentionsContext"},
    "My context window is almost full at this point of the work.": {"mentionsContext"},
    "Before the conversation gets compacted I want to leave it clean.": {"mentionsCompaction"},
    "Auto-compaction may hit soon, so this is where I leave it.": {"mentionsCompaction"},
    "Let's continue with slice three in a fresh session.": {"mentionsFreshSession"},
    "I suggest that we start a new chat for the remaining slices.": {"mentionsFreshSession"},
    "The rest can be done in a later session, it is all in the plan.": {"mentionsLaterSession"},
    "We can pick this up tomorrow where the plan leaves off.": {"mentionsLaterSession"},
    "This is a good stopping point for the work on the parser.": {"mentionsBreakPoint"},
    "That makes for a clean checkpoint after the second slice.": {"mentionsBreakPoint"},
    "This is a natural pause in the work on the parser.": {"mentionsNaturalPause"},
    "Pausing here so that you can have a look at the changes.": {"mentionsNaturalPause"},
    "I will pause for clarity before I go on with slice three.": {"mentionsClarityPause"},
    "I stop before losing the thread of the whole plan.": {"mentionsClarityPause"},
    "done": {"suspiciouslyQuiet"},
    "  ": {"suspiciouslyQuiet"},
}
SILENT = [
    "All slices are done, the tests pass, and the change is committed.",
    "The auth token limit is five; the request stops at the sixth.",
    "I used a context manager to stop the thread pool when it is full.",
    "The service creates a new session token for every login of a user.",
    "Please restart the server, then the settings take effect at once.",
    "See `context.stop()` and `fresh session` in the code of the client.",
    "> let us continue in a fresh session\nThat is what the old log says, and it is wrong.",
    "The file docs/fresh session/context-stop.md was moved to docs/stop/context.md as asked.",
    "```\nstop here, context is full\n```\nThat is the fixture which the parser reads now.",
    "The context of the bug is clear. The server will stop at the first error.",
    "The binary search has the compact representation that you asked me for.",
    "Which of the two databases do you want me to use for the service?",
]


@pytest.mark.parametrize(("text", "signals"), FIRES.items())
def test_an_excuse_fires(text: str, signals: set[str]) -> None:
    assert signals <= set(detect(text))


@pytest.mark.parametrize("text", SILENT)
def test_what_only_looks_like_an_excuse_stays_silent(text: str) -> None:
    assert detect(text) == []


def test_every_detector_is_tried() -> None:
    assert {name for names in FIRES.values() for name in names} == {*DETECTORS, "suspiciouslyQuiet"}


@given(st.text(max_size=300))
def test_any_text_can_be_looked_at(text: str) -> None:
    assert set(detect(text)) <= {*DETECTORS, "suspiciouslyQuiet"}
