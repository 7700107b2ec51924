"""How an answer looks to a person."""

from __future__ import annotations

from hooks.common.phases import PHASES, TERMINAL
from hooks.common.values import is_count
from playbook_scripts.steps import is_failing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from playbook_scripts.answers import Answer

BAR_AT_MOST = 50


def as_lines(answer: Answer) -> list[str]:
    """Return any answer, a line a value."""
    return indented(answer, "")


def indented(answer: Answer, indent: str) -> list[str]:
    """Return the lines of an answer that stands inside another."""
    lines = []
    for key, value in answer.items():
        label = indent + "".join(f" {each.lower()}" if each.isupper() else each for each in key)
        if isinstance(value, dict):
            lines += [f"{label}:", *indented(value, indent + "  ")]
        elif isinstance(value, list):
            lines += [f"{label}:", *(indent + "  " + as_line(item) for item in value)]
        elif value not in (None, ""):
            lines.append(f"{label}: {value}")
    return lines


def as_line(item: object) -> str:
    """Return one item of a list as a line."""
    if not isinstance(item, dict):
        return str(item)
    bare = ("event", "timestamp", "file")
    return "  ".join(str(value) if key in bare else f"{key}={value}" for key, value in item.items())


def as_picture(answer: Answer) -> list[str]:
    """Return where a build stands: phases as a line, budget, steps with their tests, time."""
    if "task" not in answer:
        return ["no build"]
    lines = [
        f"{answer['task']}",
        f"  {answer.get('size')} build, {minutes(answer.get('elapsedMinutes'))}{owner(answer.get('owner'))}",
        "",
        f"  {phase_line(answer.get('phase'))}",
        f"  holds  {hold_bar(answer.get('reinforcementsUsed'), answer.get('reinforcements'))}",
        f"  fixes  {answer.get('fixIterations')} of {answer.get('maxFixIterations')} rounds",
        f"  steps  {step_count(answer)}",
        *(step_line(step) for step in answer.get("steps", [])),
    ]
    worktree = answer.get("worktree")
    if isinstance(worktree, dict):
        lines.append(f"  in     {worktree.get('path')}, branch {worktree.get('branch')}")
    if answer.get("asked"):
        lines.append(f"  asked  {answer['asked']}")
    if answer.get("next"):
        lines += ["", f"  next   {answer['next']}"]
    events = answer.get("events")
    if isinstance(events, dict) and events:
        lines += ["", *(f"  {count:5}  {name}" for name, count in events.items())]
    return lines


def phase_line(phase: object) -> str:
    """Return the way through the phases, with the current one marked."""
    way = [each for each in PHASES if each not in TERMINAL and each != "fixing"]
    way += [phase] if phase in TERMINAL else ["complete"]
    if phase == "fixing":
        way.insert(way.index("verifying") + 1, "fixing")
    marked = [f"[{each.upper()}]" if each == phase else each for each in way]
    return " > ".join(marked) if phase in way else f"[{phase}]"


def hold_bar(used: object, budget: object) -> str:
    """Return the budget as a bar."""
    if not (is_count(used) and is_count(budget)):
        return f"{used} of {budget} used"
    done, size = min(int(str(used)), BAR_AT_MOST), min(int(str(budget)), BAR_AT_MOST)
    return f"{'#' * done}{'.' * (size - done)}  {used} of {budget} used"


def step_count(answer: Answer) -> str:
    """Return how many steps and tests there are."""
    of_all = f" of {answer['totalSteps']}" if answer.get("totalSteps") else ""
    return f"{answer.get('stepsCompleted')}{of_all}, {answer.get('totalTests')} tests"


def step_line(step: dict[str, Any]) -> str:
    """Return a step with its tests."""
    tests = f"{step.get('passing')}/{step.get('tests')}"
    return (
        f"    {step.get('step')!s:>3}  {'FAIL' if is_failing(step) else 'PASS'}  {tests:>7}  {step.get('description')}"
    )


def minutes(value: object) -> str:
    """Return a duration."""
    return "of unknown age" if value is None else f"{value} min"


def owner(stamp: object) -> str:
    """Return who owns the build."""
    if not isinstance(stamp, dict):
        return ""
    known = [f"{name} {stamp[key]}" for key, name in (("session", "session"), ("tmux", "tmux")) if stamp.get(key)]
    return f", owned by {' in '.join(known)}" if known else ", owned by nobody"
