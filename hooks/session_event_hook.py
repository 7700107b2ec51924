"""Keeps the record of each session of a project: who it is, where it runs, what happened to it last.

Runs at SessionStart, UserPromptSubmit and SessionEnd of Claude Code and Codex, and at PreCompact of Codex.

stdin   the client's JSON event
stdout  nothing: no word of ours reaches the model
exit    0, always
env     TMUX, TMUX_PANE; INSTAR_PEER; CLAUDE_ENV_FILE; with INSTAR_DOCTOR set nothing is recorded

The record is `.instar/state/sessions/<session id>.json`: `status` running, completed or failed (or, of those who end
sessions, reaping and killed, with `reaping` and `parked`, which the next event of its life drops); `client`, `cwd`,
`transcriptPath`, `source`, `model`; `agent` (pid, start, boot of the client's process) and `tmux` (session, server,
serverStart, socket, pane), each only where it proves something; `firstPromptAt` of that process; `lastPrompt`,
`lastEvent`; `startedAt`, `endedAt`, `endedReason`; `forkedFrom`; of a peer's `identity`. A process has one running
record, and a pane at most one. A prompt also ends the question of a build that its owner asked, and tells Claude's tool
shells the session as `INSTAR_SESSION_ID`.
"""

from __future__ import annotations

import os
import time

from hooks.common.clock import iso, now_iso
from hooks.common.identity import Self, socket_of
from hooks.common.jsontext import loads
from hooks.common.ownership import owned
from hooks.common.project import installed_root
from hooks.common.protocol import prompt_id, read_event, secure_standard_streams
from hooks.common.records import Records, is_session_id
from hooks.common.statefile import Build
from hooks.common.trouble import Trouble, tell
from hooks.common.values import text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

ROLE = "session-event-hook"
LOCK_SECONDS = 1.0
PROMPT_CHARACTERS_KEPT = 200
NOTICE = "<task-notification>"  # with it begins what Claude prompts itself with when a background task has ended
KEPT_DAYS = 30  # how long an ended session is remembered, unless the configuration says otherwise
EXPORT = "export INSTAR_SESSION_ID="
CLIENTS = {"claude": "claude-code", "codex": "codex-cli"}
PEER = "INSTAR_PEER"
ALIVE = ("running", "reaping")
OF_AN_END = ("endedAt", "endedReason", "parked", "reaping")
OF_THE_PEER = ("identity", "launchedBy")
COPIED = {"cwd": "cwd", "transcript_path": "transcriptPath", "model": "model"}


def main() -> int:
    """Follow one event."""
    secure_standard_streams()
    root = installed_root(__file__)
    if root and not os.environ.get("INSTAR_DOCTOR"):
        event = read_event()
        for duty in (keep_record, end_question, export_session):
            try:
                duty(root, event)
            except Trouble as trouble:
                tell(root, ROLE, trouble)
            except Exception as error:  # noqa: BLE001 - one duty that fails keeps no other from being done
                tell(root, ROLE, Trouble("unexpected", f"{type(error).__name__}: {error}"))
    return 0


def keep_record(root: str, event: dict[str, Any]) -> None:
    """Bring the record of the session up to date, and those of the sessions that it takes the place of."""
    session, name = text_of(event, "session_id"), text_of(event, "hook_event_name")
    if not is_session_id(session):
        raise Trouble("no_session", f"an event of the client names no session that can be recorded: {session!r:.80}")
    records, me = Records(root), Self(session, os.environ)
    who = seen(me)
    with records.lock(LOCK_SECONDS):
        record = records.load(session)
        if not record and name == "SessionEnd":
            return
        # Two processes of one session: the first keeps the record. Claude starts a fork under the id of the session it
        # forks, too, which may go on elsewhere; the fork's prompts have the new id.
        is_elsewhere = runs_elsewhere(record, me)
        if is_elsewhere and name != "UserPromptSubmit":
            return
        is_moved = not is_elsewhere and (name == "SessionStart" or record.get("agent") != who.get("agent"))
        after = followed(record, event, who if is_moved else {}, now_iso())
        if is_moved:
            after.update(settle(records, session, after, me))
        records.save(session, after)  # the last: an event that broke off before is settled by the next


def seen(me: Self) -> Record:
    """Return what is known of the process and the pane this event comes from."""
    client = me.client()
    if client is None:
        return {}
    found: Record = {"client": CLIENTS[client.client], "agent": me.agent()}
    if me.processes.nearest_client(client.parent) is None:  # below another client the pane is that one's
        found["tmux"] = pane_of(me)
        found.update(peer_of(found))
    return found


def peer_of(found: Record) -> Record:
    """Return the peer whose session it is, where its name and that of its tmux session agree.

    Its name alone proves nothing: all that a peer starts has it in its environment.
    """
    identity = f"{found['client']}-{os.environ.get(PEER)}"
    tmux = found["tmux"]
    return {"identity": identity} if tmux and tmux["session"] == identity else {}


def pane_of(me: Self) -> Record | None:
    """Return the own pane, told from one of the same name on another server, or a later one."""
    tmux = me.tmux()
    if "pane" not in tmux:
        return None
    server = me.processes.look(tmux["tmuxServer"])
    return {
        "session": tmux["tmux"],
        "server": tmux["tmuxServer"],
        "serverStart": server.start if server else None,
        "socket": socket_of(me.environ),
        "pane": tmux["pane"],
    }


def runs_elsewhere(record: Record, me: Self) -> bool:
    """Say whether the recorded process is another than mine, and alive."""
    agent = record.get("agent")
    if record.get("status") not in ALIVE or not isinstance(agent, dict):
        return False
    return agent != me.agent() and me.lives(agent)


def followed(record: Record, event: dict[str, Any], who: Record, now: str) -> Record:
    """Return the record after an event."""
    name = text_of(event, "hook_event_name")
    copied = {key: event[said] for said, key in COPIED.items() if text_of(event, said)}
    after = {"id": text_of(event, "session_id"), "status": "running", "startedAt": now, **record, **who, **copied}
    after["lastEvent"] = {"name": name, "at": now}
    if after.get("agent") != record.get("agent"):
        after.pop("firstPromptAt", None)
    if name == "SessionEnd" and record.get("parked"):  # the client was ended; why is known
        return after
    if name == "SessionEnd":
        return {**after, "status": "completed", "endedAt": now, "endedReason": text_of(event, "reason") or "other"}
    if name == "SessionStart":
        after["source"] = text_of(event, "source")
    if name == "UserPromptSubmit" and not is_notice(event):
        text = text_of(event, "prompt")[:PROMPT_CHARACTERS_KEPT]
        after["lastPrompt"] = {"id": prompt_id(event), "at": now, "text": text}
        after.setdefault("firstPromptAt", now)
    after["status"] = "running"
    return {key: value for key, value in after.items() if key not in OF_AN_END and value is not None}


def settle(records: Records, session: str, record: Record, me: Self) -> Record:
    """End or correct the records that this one shows to be outdated, and return what it learns from them."""
    learned: Record = {}
    now, oldest = now_iso(), iso(time.time() - kept_days(records.root) * 86400)
    can_see = me.processes.look(os.getpid()) is not None
    for other, old in list(records.others(session)):
        agent = old.get("agent")
        is_mine = bool(agent) and agent == record.get("agent")
        if is_mine:
            learn(learned, old, now)
        if is_mine and is_fork(record, old):
            learned.update(source="fork", forkedFrom=other)
        if old.get("status") not in ALIVE:
            if "" < text_of(old, "endedAt") < oldest and not old.get("parked"):
                records.remove(other)
        elif is_mine:
            records.save(other, ended(old, "completed", "forked" if is_fork(record, old) else "replaced", now))
        elif isinstance(agent, dict) and can_see and not me.lives(agent):
            if old["status"] == "reaping":  # whoever ends it has not done with it
                continue
            records.save(other, ended(old, "failed", "process gone", now))
        elif old.get("tmux") and is_one_pane(old["tmux"], record.get("tmux")):
            records.save(other, {key: value for key, value in old.items() if key != "tmux"})
    return learned


def learn(learned: Record, old: Record, now: str) -> None:
    """Learn of another session of the same process whose it is, and when the process was first spoken to."""
    learned.update((key, old[key]) for key in OF_THE_PEER if key in old)
    if "" < text_of(old, "firstPromptAt") < (text_of(learned, "firstPromptAt") or now):
        learned["firstPromptAt"] = old["firstPromptAt"]


def is_fork(record: Record, old: Record) -> bool:
    """Say whether a session is a fork of an earlier one of its process: by its source, or by how that one began.

    Claude tells of a fork by resuming the session that is forked, and going on under another id.
    """
    if old.get("status") not in ALIVE:
        return old.get("endedReason") == "forked" and "source" not in record
    return record.get("source") == "fork" or ("source" not in record and old.get("source") == "resume")


def is_notice(event: dict[str, Any]) -> bool:
    """Say whether a prompt is the client's own; measured on Claude Code 2.1.197."""
    return text_of(event, "prompt").startswith(NOTICE)


def ended(record: Record, status: str, reason: str, now: str) -> Record:
    """Return the record of a session that is over."""
    return {**record, "status": status, "endedAt": now, "endedReason": reason}


def is_one_pane(one: object, other: object) -> bool:
    """Say whether two stamps are of the same pane of the same server."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return False
    return all(one.get(key) == other.get(key) for key in ("server", "serverStart", "pane"))


def kept_days(root: str) -> int:
    """Return for how many days an ended session is remembered: `sessions.keepEndedDays` of the configuration."""
    try:
        with open(os.path.join(root, ".instar", "config.json"), encoding="utf-8-sig") as file:
            days = loads(file.read())["sessions"]["keepEndedDays"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return KEPT_DAYS
    return days if isinstance(days, int) and not isinstance(days, bool) and days > 0 else KEPT_DAYS


def end_question(root: str, event: dict[str, Any]) -> None:
    """Take the prompt for the answer to what the owner of the build asked; it also shows where the owner is now.

    A prompt of the client's own is no answer: what it leads to may end as the turn did that asked.
    """
    build = Build(root)
    if text_of(event, "hook_event_name") != "UserPromptSubmit" or not os.path.lexists(build.state_path):
        return
    me = Self(text_of(event, "session_id"), os.environ)
    if owned(build, me) is None:
        return
    with build.lock(LOCK_SECONDS):
        found = owned(build, me)
        if found is None:
            return
        state, stamp = found
        asked, old = state.pop("asked", None), state["owner"]
        if isinstance(asked, dict) and is_notice(event):
            state["asked"] = {**asked, "prompt": prompt_id(event)}
        elif not stamp and asked is None:
            return
        build.save({**state, "owner": {**old, **stamp}})
        if "session" in stamp:
            build.audit("owner.reconciled", old=old.get("session"), new=stamp["session"])
    if build.unaudited:
        raise build.unaudited[0]


def export_session(_root: str, event: dict[str, Any]) -> None:
    """Tell the session to Claude's tool shells, which read the file that `CLAUDE_ENV_FILE` names."""
    path, session = os.environ.get("CLAUDE_ENV_FILE"), text_of(event, "session_id")
    if text_of(event, "hook_event_name") != "SessionStart" or not path or not is_session_id(session):
        return
    # A fork starts under the id of the session it forks; the client's own variable is right in each shell.
    line = f'{EXPORT}"${{CLAUDE_CODE_SESSION_ID:-{session}}}"\n'
    try:
        with open(path, "a+", encoding="utf-8", errors="surrogateescape") as file:
            file.seek(0)
            there = file.read()
            if EXPORT not in there or not there[there.rindex(EXPORT) :].startswith(line):
                file.write(line if not there or there.endswith("\n") else "\n" + line)
    except OSError as error:
        raise Trouble("unwritable", f"{path} cannot be written: {error.strerror}") from error


if __name__ == "__main__":
    os._exit(main())  # nothing is left to flush, and taking the interpreter down costs a tenth of a start
