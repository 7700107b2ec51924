"""JSON as nobody would write it: numbers beyond all bounds, halves of characters, keys twice, in any nesting."""

from __future__ import annotations

import json

from hypothesis import strategies as st

ODD = (
    "null", "true", "false", "0", "-0", "1.5", "1e999", "-1e-999", "NaN", "-Infinity", "9" * 400, "-1", "3", "1e3",
    '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '""', '" "', '"s"', '"executing"', '"failed"', "[]", "{}", "[[]]",
)  # fmt: skip
SCALARS = (
    st.sampled_from(ODD)
    | st.text(max_size=5).map(json.dumps)
    | st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False))
    | st.integers().map(str)
    | st.floats().map(json.dumps)
)
KEYS = (
    "task", "phase", "size", "protection", "reinforcements", "label", "startedAt", "completedAt", "owner", "tmux",
    "session", "agent", "pid", "start", "boot", "pane", "tmuxServer", "currentStep", "totalSteps", "steps", "step",
    "tests", "passing", "totalTests", "allPassing", "fixIterations", "maxFixIterations", "verifyIterations",
    "reinforcementsUsed", "worktree", "path", "branch", "asked", "question", "prompt", "waitedFor", "archivedTo",
    "session_id", "prompt_id", "turn_id", "background_tasks", "session_crons", "id", "théirs",
)  # fmt: skip


def members(
    values: st.SearchStrategy[str], keys: tuple[str, ...] = KEYS, most: int = 6
) -> st.SearchStrategy[list[tuple[str, str]]]:
    """Draw the members of an object; a key may stand there twice."""
    names = st.sampled_from(keys).map(json.dumps) | st.sampled_from(['""', '"\\ud800"', '"x"'])
    return st.lists(st.tuples(names, values), max_size=most)


def as_object(pairs: list[tuple[str, str]]) -> str:
    """Return the text of an object."""
    return "{" + ", ".join(f"{name}: {value}" for name, value in pairs) + "}"


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(inner, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
    return arrays | members(inner).map(as_object)


VALUES = st.recursive(SCALARS, nested, max_leaves=8)
DEEP = st.integers(1, 900).map(lambda depth: "[" * depth + "]" * depth)
ANYTHING = VALUES | DEEP | st.text(max_size=20)

# Objects that mostly look like what they should be, so that what is odd in them is reached.
OWNERS = st.sampled_from(['{"tmux": "", "session": "s"}', '{"tmux": "A", "session": "t"}', '{"session": " s "}'])
AGENTS = members(VALUES, ("pid", "start", "boot")).map(as_object)
STAMPED = AGENTS.map(lambda agent: f'{{"tmux": "", "session": "s", "agent": {agent}}}')
BUDGETS = st.sampled_from(['{"reinforcements": 5, "label": "medium"}', '{"reinforcements": 60}', "{}"])
STEPS = st.lists(members(VALUES, ("step", "tests", "passing", "description")).map(as_object), max_size=3).map(
    lambda steps: "[" + ",".join(steps) + "]"
)
QUESTIONS = members(SCALARS, ("question", "prompt", "at")).map(as_object)
PHASES = st.sampled_from(
    ["idle", "planning", "executing", "executing", "verifying", "fixing", "hardening", "complete", "failed"]
)
LIKELY = {
    "protection": BUDGETS,
    "reinforcementsUsed": st.integers(0, 6).map(str),
    "phase": PHASES.map(json.dumps),
    "steps": STEPS | st.just("[]"),
    "asked": QUESTIONS | st.just('{"question": "?", "prompt": "s"}'),
}
LIKELY_MEMBERS = st.fixed_dictionaries({"owner": OWNERS | STAMPED}, optional=LIKELY).map(
    lambda chosen: [(json.dumps(key), value) for key, value in chosen.items()]
)
ADDED = members(VALUES, most=2) | DEEP.map(lambda deep: [('"x"', deep)])
LIKELY_STATES = st.tuples(LIKELY_MEMBERS, ADDED).map(lambda both: as_object([*both[0], *both[1]]))
STATES = LIKELY_STATES | LIKELY_STATES | LIKELY_STATES | ANYTHING
TASKS = st.lists(members(SCALARS, ("id", "type")).map(as_object) | VALUES, max_size=3).map(
    lambda tasks: "[" + ",".join(tasks) + "]"
)
EVENT_MEMBERS = st.fixed_dictionaries(
    {"session_id": st.sampled_from(['"s"', '"s"', '"t"', '"\\ud800"'])},
    optional={"background_tasks": TASKS, "session_crons": TASKS, "prompt_id": SCALARS, "turn_id": SCALARS},
).map(lambda chosen: [(json.dumps(key), value) for key, value in chosen.items()])
LIKELY_EVENTS = st.tuples(EVENT_MEMBERS, members(VALUES, most=2)).map(lambda both: as_object([*both[0], *both[1]]))
EVENTS = LIKELY_EVENTS | LIKELY_EVENTS | LIKELY_EVENTS | ANYTHING


def encoded(text: str) -> bytes:
    """Return the bytes of a text that may hold halves of characters."""
    return text.encode("utf-8", "surrogatepass")
