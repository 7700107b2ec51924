"""Whether a session may be parked: an ordered list of gates, each with one reason to keep it.

The first gate that keeps a session names why. A gate that cannot tell keeps it, too, and so does one that fails.
Nothing here reads a clock, a file or a process: a gate asks the sight of the session, which looks when it is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Optional

from instar.sessions import builds
from instar.sessions.clock import epoch
from instar.sessions.parking import resumption
from instar.sessions.protection import GATE, protection
from instar.sessions.transcripts import probe as transcripts
from instar.sessions.verdict import ALL_CLEAR, Kept, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from instar.sessions.evidence import Sight

Answer = Optional[Kept]
Group = Literal["will", "place", "work", "screen", "proof"]

CLIENTS: Final = frozenset(("claude-code", "codex-cli"))
FRESH_CHILD_S: Final = 60.0
THRASH_S: Final = 2 * 3600.0
THRASH_PARKS: Final = 2
# What hides the client's surroundings from the process table of this machine, or stands between it and its pane.
OPAQUE: Final = frozenset((
    "ssh", "mosh-client", "docker", "podman", "nerdctl", "kubectl", "lxc", "machinectl", "tmux", "screen", "zellij",
    "script",
))  # fmt: skip


@dataclass(frozen=True)
class Gate:
    """A reason to keep a session. `keeps` returns its word, or None.

    `group` tells what it is about: somebody's "will", the "place" the session is in, signs of "work", what the
    "screen" shows, or the "proof" that it is idle and can be resumed. `shows` is what a session that it keeps is
    doing, as far as that can be told.
    """

    name: str
    group: Group
    keeps: Callable[[Sight], Answer]
    shows: str = ""


def judge(sight: Sight, lifted: Collection[str] = ()) -> Verdict:
    """Return the word of the first gate that keeps the session, or that all is clear; `lifted` gates are not asked."""
    for gate in GATES:
        if gate.name not in lifted:
            kept = ask(gate, sight)
            if kept:
                return Verdict(kept.by, kept.why, kept.confidence)
    return Verdict(ALL_CLEAR, "idle: its turn is over, its screen waits for a prompt, and nothing works for it")


def explain(sight: Sight) -> list[tuple[Gate, Answer]]:
    """Return the answer of every gate, in their order."""
    return [(gate, ask(gate, sight)) for gate in GATES]


def needs_screen(sight: Sight, lifted: Collection[str] = ()) -> bool:
    """Say whether the screen can matter: nobody's will, as far as it is not lifted, keeps the session already."""
    return not any(ask(gate, sight) for gate in GATES if gate.group == "will" and gate.name not in lifted)


def ask(gate: Gate, sight: Sight) -> Answer:
    """Return a gate's answer; one that fails keeps the session."""
    try:
        return gate.keeps(sight)
    except Exception as error:  # noqa: BLE001 - whatever it is, the session is kept and the others are looked at
        return Kept("eval-error", f"{gate.name} could not be told: {type(error).__name__}", "low")


def protected(sight: Sight) -> Answer:
    """Keep what the operator named, and what systemd or launchd runs."""
    return protection(sight.session, sight.policy.protected, sight.host.managed)


def itself(sight: Sight) -> Answer:
    """Keep the session that this very look is part of."""
    agent = sight.session.record.get("agent")
    is_own = isinstance(agent, dict) and agent.get("pid") in sight.host.own
    return Kept("self", "this look is made from within it") if is_own else None


def unmanaged(sight: Sight) -> Answer:
    """Keep what is not on record, and what no named agent owns where the operator says so."""
    if sight.session.state == "unrecorded":
        return Kept("unmanaged", "it is not on record: it began before the hooks were set up, or without them")
    if not sight.policy.reaps_unmanaged and not sight.session.text("identity"):
        return Kept("unmanaged", "no named agent owns it, and reapUnmanaged is off")
    return None


def unreachable(sight: Sight) -> Answer:
    """Keep what cannot be told to live."""
    name = "liveness-indeterminate"
    if sight.host.table is None:
        return Kept(name, "the processes of this machine cannot be read", "low")
    if not isinstance(sight.session.record.get("agent"), dict):
        return Kept(name, "its process is not known, as below Codex's background process", "low")
    if sight.agent is None:
        return Kept(name, "its process is gone, or is not the recorded one", "low")
    if sight.view and sight.view.state == "indeterminate":
        return Kept(name, f"tmux does not answer: {sight.view.why}", "low")
    return None


def mistaken(sight: Sight) -> Answer:
    """Keep what is not what the record says: another server, another pane, another conversation."""
    why = _other_conversation(sight) or _other_server(sight) or _other_pane(sight)
    return Kept("identity-mismatch", why, "low") if why else None


def _other_conversation(sight: Sight) -> str:
    is_other = sight.said and sight.said.session_id not in {"", sight.session.id}
    return "its process says that it is in another conversation by now" if is_other else ""


def _other_server(sight: Sight) -> str:
    if not sight.tmux or sight.view is None or sight.host.table is None:
        return ""
    if sight.view.state == "gone":
        return "the tmux server of its pane is gone"
    server = sight.host.table.get(sight.view.server_pid) if sight.view.server_pid else None
    if server is None or server.pid != sight.tmux.get("server"):
        return "another tmux server answers in the place of its own"
    return "" if sight.tmux.get("serverStart") in {None, server.start} else "its tmux server was started anew"


def _other_pane(sight: Sight) -> str:
    if not sight.tmux or sight.view is None or sight.host.table is None or sight.agent is None:
        return ""
    pane = sight.pane
    if pane is None or pane.is_dead:
        return "its pane is gone" if pane is None else "its pane is dead"
    line = {sight.agent.pid, *(each.pid for each in sight.host.table.above(sight.agent.pid))}
    return "" if pane.pid in line else "its process does not run in its pane"


def opaque(sight: Sight) -> Answer:
    """Keep what runs behind something that cannot be looked through."""
    if sight.pane is None or sight.agent is None or sight.host.table is None:
        return None
    names = {sight.pane.command}
    for each in sight.host.table.above(sight.agent.pid):
        if each.pid == sight.view.server_pid if sight.view else False:
            break
        names.add(each.name)
    found = sorted(names & OPAQUE)
    return Kept("opaque-pane", f"{found[0]} is between it and its pane", "low") if found else None


def young(sight: Sight) -> Answer:
    """Keep what has just begun."""
    age = sight.host.wall - sight.agent.created if sight.agent else 0.0
    if 0 <= age >= sight.policy.min_age_s:
        return None
    return Kept("spawn-grace", f"its process is {_span(age)} old, and left alone for {_span(sight.policy.min_age_s)}")


def leased(sight: Sight) -> Answer:
    """Keep what somebody else asked to keep."""
    for lease in sight.leases:
        note = f": {lease.note[:80]}" if lease.note else ""
        return Kept(f"lease:{lease.kind}", f"a lease holds{note}", "high" if lease.is_sure else "low")
    return None


def attended(sight: Sight) -> Answer:
    """Keep what somebody looks at."""
    if sight.pane is None:
        return None
    if sight.pane.is_in_mode:
        return Kept("client-attached", "somebody reads in its pane: it is in copy mode")
    is_window = sight.policy.attached_keeps == "window"
    if sight.pane.watching if is_window else sight.pane.attached:
        return Kept("client-attached", f"a terminal shows its {'window' if is_window else 'tmux session'}")
    return None


def addressed(sight: Sight) -> Answer:
    """Keep what its user spoke to not long ago."""
    prompt = sight.session.record.get("lastPrompt")
    if not isinstance(prompt, dict):
        return None
    at = epoch(prompt.get("at"))
    if at is None:
        return Kept("recent-user-message", "when it was last spoken to cannot be read", "low")
    since = sight.host.wall - at
    if 0 <= since >= sight.policy.recent_user_s:
        return None
    return Kept("recent-user-message", f"it was spoken to {_span(since)} ago")


def delegating(sight: Sight) -> Answer:
    """Keep what has agents of its own at work."""
    newest = transcripts.children_at(sight.transcript) if sight.transcript else None
    if newest is None or sight.host.wall - newest > FRESH_CHILD_S:
        return None
    return Kept("active-subagent", f"an agent of its own wrote {_span(sight.host.wall - newest)} ago")


def building(sight: Sight) -> Answer:
    """Keep what has a build to finish."""
    return builds.under_way(sight.session, sight.host.wall, sight.policy.stale_build_s)


def scheduled(sight: Sight) -> Answer:
    """Keep what is idle on purpose, until a time of its own."""
    if sight.agent is None or sight.client not in CLIENTS or not sight.has_transcript:
        return None  # other gates keep such a one
    try:
        why = transcripts.scheduled(sight.client, sight.transcript, sight.agent.created, sight.host.wall)
    except transcripts.Unresolved as error:
        return Kept("scheduled-wake", str(error), "low")
    return Kept("scheduled-wake", why) if why else None


def uninspectable(sight: Sight) -> Answer:
    """Keep what nobody may look into."""
    try:
        sight.working  # noqa: B018 - whether it can be told is the question
    except Exception as error:  # noqa: BLE001 - whatever it is
        return Kept("process-uninspectable", f"its processes cannot be read: {type(error).__name__}", "low")
    return None


def active(sight: Sight) -> Answer:
    """Keep what has a process at work."""
    found = sight.working
    if not found:
        return None
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return Kept("active-process", f"{found[0].process.name} (pid {found[0].process.pid}): {found[0].why}{more}")


def busy(sight: Sight) -> Answer:
    """Keep what computes itself."""
    if sight.is_busy is None:
        return Kept("main-process-active", "a second look has to tell whether it computes", "low")
    return Kept("main-process-active", "its own process computes") if sight.is_busy else None


def unread(sight: Sight) -> Answer:
    """Keep what cannot be seen."""
    if sight.screen is not None:
        return None
    why = "its pane could not be read" if sight.tmux else "it runs in no tmux pane that is known"
    return Kept("frame-unreadable", why, "low")


def unknown_client(sight: Sight) -> Answer:
    """Keep a client whose screens nobody has seen, idle and at work."""
    if sight.host.is_calibrated(sight.client, sight.version):
        return None
    which = f"{sight.client or 'its client'} {sight.version or 'of an unknown version'}"
    return Kept("unsupported-client", f"{which} was not yet seen here, both idle and at work", "low")


def asking(sight: Sight) -> Answer:
    """Keep what waits for a person's choice."""
    if sight.said and sight.said.status == "waiting":
        return Kept("modal-open", f"it says that it waits: {sight.said.waiting_for or 'for its user'}")
    return _shown(sight, "modal-open", "modal")


def composing(sight: Sight) -> Answer:
    """Keep what holds text that was not sent."""
    return _shown(sight, "composer-not-empty", "draft", "queued")


def backgrounded(sight: Sight) -> Answer:
    """Keep what has tasks in the background."""
    if sight.said and sight.said.status == "shell":
        return Kept("background-task", "it says that a shell of its own runs")
    return _shown(sight, "background-task", "background")


def _shown(sight: Sight, name: str, *readings: str) -> Answer:
    shown = sight.screen
    return Kept(name, shown.why) if shown and shown.reading in readings else None


def unresolved(sight: Sight) -> Answer:
    """Keep what cannot be compared with what it was."""
    name = "transcript-unresolved"
    try:
        how, why = sight.change
        is_own = transcripts.belongs(sight.client, sight.transcript, sight.session.id)
    except transcripts.Unresolved as error:
        return Kept(name, str(error), "low")
    if not is_own:
        return Kept(name, "its transcript is not known to be its own", "low")
    return Kept(name, why, "low") if how == "unknown" else None


def grew(sight: Sight) -> Answer:
    """Keep what wrote."""
    how, why = sight.change
    return Kept("transcript-grew", why) if how == "grew" else None


def untold_turn(sight: Sight) -> Answer:
    """Keep what does not tell whether its turn is over."""
    return Kept("turn-unknown", sight.turn.why, "low") if sight.turn.state == "unknown" else None


def open_turn(sight: Sight) -> Answer:
    """Keep what is in a turn."""
    if sight.said and sight.said.status == "busy":
        return Kept("turn-open", "it says that it works")
    return Kept("turn-open", sight.turn.why) if sight.turn.state == "open" else None


def spending(sight: Sight) -> Answer:
    """Keep what used tokens; that none are known of says nothing."""
    since = sight.before.get("wall")
    used = sight.host.tokens_since(sight.session.id, since) if isinstance(since, (int, float)) else None
    return Kept("token-activity", f"it used {used} tokens since the last look") if used else None


def unproven(sight: Sight) -> Answer:
    """Keep what does not show that it waits for a prompt."""
    if sight.screen and sight.screen.reading == "idle":
        return None
    return Kept("no-positive-idle", sight.screen.why if sight.screen else "its screen was not read")


def unresumable(sight: Sight) -> Answer:
    """Keep what could not come back."""
    try:
        resumption.proven(sight.session.record)
    except resumption.Unresumable as error:
        return Kept("not-resumable", str(error))
    return None


def thrashing(sight: Sight) -> Answer:
    """Keep what was parked and came back more than once of late."""
    parks = sight.session.record.get("parks")
    times = [at for each in parks if (at := epoch(each)) is not None] if isinstance(parks, list) else []
    late = [at for at in times if abs(sight.host.wall - at) < THRASH_S]
    if len(late) < THRASH_PARKS:
        return None
    return Kept("park-thrash", f"it was parked {len(late)} times in {_span(THRASH_S)} and came back each time")


def _span(seconds: float) -> str:
    """Return a time in words: its largest unit that is more than one."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if abs(seconds) >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


GATES: Final = (
    Gate(GATE, "will", protected),
    Gate("self", "will", itself, "working"),
    Gate("unmanaged", "will", unmanaged),
    Gate("liveness-indeterminate", "place", unreachable, "unknown"),
    Gate("identity-mismatch", "place", mistaken, "unknown"),
    Gate("opaque-pane", "place", opaque, "unknown"),
    Gate("spawn-grace", "will", young),
    Gate("lease", "will", leased),
    Gate("client-attached", "place", attended),
    Gate("recent-user-message", "will", addressed),
    Gate("active-subagent", "work", delegating, "working"),
    Gate("structural-long-work", "work", building),
    Gate("scheduled-wake", "work", scheduled, "waiting for its time"),
    Gate("process-uninspectable", "work", uninspectable, "unknown"),
    Gate("active-process", "work", active, "working"),
    Gate("main-process-active", "work", busy, "working"),
    Gate("frame-unreadable", "screen", unread, "unknown"),
    Gate("unsupported-client", "screen", unknown_client),
    Gate("modal-open", "screen", asking, "asking"),
    Gate("composer-not-empty", "screen", composing, "draft"),
    Gate("background-task", "screen", backgrounded, "background"),
    Gate("transcript-unresolved", "proof", unresolved),
    Gate("transcript-grew", "proof", grew, "working"),
    Gate("turn-unknown", "proof", untold_turn, "unknown"),
    Gate("turn-open", "proof", open_turn, "working"),
    Gate("token-activity", "proof", spending, "working"),
    Gate("no-positive-idle", "proof", unproven, "unknown"),
    Gate("not-resumable", "proof", unresumable),
    Gate("park-thrash", "proof", thrashing),
)

NAMES: Final = frozenset(gate.name for gate in GATES)
AT_WORK: Final = frozenset(gate.name for gate in GATES if gate.shows == "working")
