"""Stop hook of Claude Code and Codex: holds the session that owns an unfinished build, and no other.

stdin   the client's Stop event; used: `session_id`, `prompt_id` or `turn_id`, `background_tasks`, `session_crons`
stdout  ``{"decision": "block", "reason": ...}`` to hold the session, ``{}`` to let it stop; `systemMessage` beside
        either tells the person what went wrong
exit    0, always
env     TMUX, TMUX_PANE; INSTAR_HOOK_TMUX_SESSION and INSTAR_HOOK_NO_TMUX answer in tmux's stead

The project is the one the script is installed in. A session is held only on proof that it owns the build
(`ownership`), and at most as often as the build's budget says, 50 times at the very most. Each hold is counted on
disk before it is answered. Whatever fails, the session may stop, and the person is told.
"""

from __future__ import annotations

import os

from hooks.common.budget import budget, is_spent
from hooks.common.clock import now_iso
from hooks.common.identity import Self
from hooks.common.ownership import owned
from hooks.common.phases import NEXT, legal_targets
from hooks.common.project import build_command, installed_root
from hooks.common.protocol import ALLOW, answer, block, let_go, prompt_id, read_event, secure_standard_streams
from hooks.common.statefile import Build
from hooks.common.trouble import Trouble, tell
from hooks.common.values import is_count, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    State = dict[str, Any]

ROLE = "build-stop-hook"
LOCK_SECONDS = 1.0
WAITS_REMEMBERED = 400
REASON_CHARACTERS_AT_MOST = 7900  # Codex shows the model no more than some 10,000 bytes of it


def main() -> int:
    """Answer one Stop event."""
    secure_standard_streams()
    root = installed_root(__file__)
    reply = ALLOW
    if root:
        try:
            reply = stop(Build(root), read_event())
        except Trouble as trouble:
            reply = let_go(root, ROLE, trouble)
        except Exception as error:  # noqa: BLE001 - a hook that dies holds nobody and says nothing
            reply = let_go(root, ROLE, Trouble("unexpected", f"{type(error).__name__}: {error}"))
    answer(reply)
    return 0


def stop(build: Build, event: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a Stop event; nothing is written unless the owner of an unfinished build stops."""
    me = Self(text_of(event, "session_id"), os.environ)
    if owned(build, me) is None:  # strangers never wait for the lock
        return ALLOW
    with build.lock(LOCK_SECONDS):
        found = owned(build, me)
        changed = decide(found[0], event) if found else None
        if not found or not changed:
            return ALLOW
        state, stamp = found
        return commit(build, state, changed, stamp)


def decide(state: State, event: dict[str, Any]) -> dict[str, Any] | None:
    """Return the keys of the state that this stop of the owner changes; None allows it and changes nothing.

    The stop is held exactly when `reinforcementsUsed` is among them.
    """
    if is_spent(state):
        return None
    asked = state.get("asked")
    if isinstance(asked, dict) and text_of(asked, "question"):
        prompt = prompt_id(event)
        if not prompt or asked.get("prompt") == prompt:
            return None
        if "prompt" not in asked:  # the first stop after the question: it waits for the answer to this prompt
            return {"asked": {**asked, "prompt": prompt}}
    answered = {"asked": None} if isinstance(asked, dict) else {}  # a new prompt was the answer
    known = state.get("waitedFor")
    waited = known if isinstance(known, list) else []
    new = [each for each in waiting_for(event) if each not in waited]
    if new:
        return {"waitedFor": [*waited, *new][-WAITS_REMEMBERED:], **answered}
    return {"reinforcementsUsed": state.get("reinforcementsUsed", 0) + 1, "lastHeldAt": now_iso(), **answered}


def waiting_for(event: dict[str, Any]) -> list[str]:
    """Return the ids of the background tasks and scheduled wakes that will start the session again by themselves."""
    listed = [event.get(key) for key in ("background_tasks", "session_crons")]
    items = [item for each in listed if isinstance(each, list) for item in each[:100]]
    return sorted(str(item.get("id", "") if isinstance(item, dict) else item)[:100] for item in items)


def commit(build: Build, state: State, changed: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    """Write what the stop changes, and return the answer: first the count, then the block."""
    old = state["owner"]
    state = {**state, **changed, "owner": {**old, **stamp}}
    held = "reinforcementsUsed" in changed
    if "asked" in changed and changed["asked"] is None:
        del state["asked"]
    reply = block(reason(build.root, state)) if held else ALLOW
    build.save(state)
    if "session" in stamp:
        build.audit("owner.reconciled", old=old.get("session"), new=stamp["session"])
    if held:
        audit_hold(build, state)
    message = tell(build.root, ROLE, build.unaudited[0]) if build.unaudited else ""
    return {**reply, "systemMessage": message} if message else reply


def audit_hold(build: Build, state: State) -> None:
    """Write down that the session was held, and that the budget is spent with the last hold."""
    counted = {"phase": state.get("phase"), "used": state["reinforcementsUsed"], "max": budget(state)}
    build.audit("stop.blocked", **counted)
    if is_spent(state):
        build.audit("stop.exhausted", **counted)


def reason(root: str, state: State) -> str:
    """Return what a held session is told. The client shows the same text to the person."""
    phase = text_of(state, "phase") or "idle"
    lines = [
        headline(state, phase),
        f"Task: {shorten(text_of(state, 'task') or '(not named)', 2000)}",
        f"Next: {NEXT.get(phase, 'Carry on with this phase.')}",
        "",
        f"{build_command(root)} COMMAND",
        "where COMMAND is one of",
        "  status",
    ]
    if phase == "executing":
        lines.append(f'  step-complete {next_step(state)} "what was done" TESTS PASSING')
    following = [target for target in legal_targets(phase) if target not in ("failed", "escalated")]
    lines.extend(f'  transition {target} --evidence "what was seen"' for target in following)
    lines += [
        '  ask "your question"   (only the person can decide: lets this session stop until they answer)',
        '  cancel "why"   (the build shall not go on)',
        "",
        "The build is not finished: carry on with it.",
    ]
    if is_spent(state):
        lines.append("This was the last hold of its budget: the next stop is allowed, finished or not.")
    return "\n".join(lines)[:REASON_CHARACTERS_AT_MOST]


def headline(state: State, phase: str) -> str:
    """Return phase, budget, steps and worktree as one line."""
    label = shorten(text_of(state.get("protection", {}), "label") or "no label", 200)
    used = f"{state['reinforcementsUsed']}/{budget(state)} holds used"
    parts = [f"/build active: phase {shorten(phase, 200)} ({label}, {used})"]
    steps = state.get("steps")
    if isinstance(steps, list) and steps:
        of_all = f" of {state['totalSteps']}" if is_count(state.get("totalSteps")) and state["totalSteps"] else ""
        tests = f", {state['totalTests']} tests" if is_count(state.get("totalTests")) else ""
        parts.append(f"{len(steps)}{of_all} steps{tests}")
    worktree = state.get("worktree")
    if isinstance(worktree, dict) and text_of(worktree, "path"):
        parts.append(f"worktree: {shorten(text_of(worktree, 'path'), 1000)}")
    return " | ".join(parts)


def next_step(state: State) -> str:
    """Return the number the next step would have."""
    return str(state.get("currentStep", 0) + 1) if is_count(state.get("currentStep", 0)) else "NUMBER"


def shorten(text: str, length: int) -> str:
    """Return `text`, cut after `length` characters."""
    return text if len(text) <= length else text[:length] + " [cut]"


if __name__ == "__main__":
    os._exit(main())  # nothing is left to flush, and taking the interpreter down costs a tenth of a start
