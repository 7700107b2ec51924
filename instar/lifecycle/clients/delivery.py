"""A message is put into a client that lives: pasted in one piece, sent when it is there, and proven to have arrived.

What clients make of a paste was measured on Claude Code 2.1.197 and the Codex CLI 0.169.0. Both take a long
message as it is, but for blanks at its two ends. A blank that follows it keeps the last word from being completed, and
a backslash from taking the Enter. What they would change, run or take for a command is refused (`messages.unfit`).
"""

from __future__ import annotations

import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from instar.errors import InstarError
from instar.lifecycle.clients.adapters import Surface, adapter
from instar.lifecycle.clients.messages import CHARACTERS_AT_MOST, flat, unfit
from instar.locks import alone
from instar.sessions import registry
from instar.sessions.parking.markers import FOLDER, identity_of
from instar.sessions.transcripts.records import Unresolved, opened, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from instar.sessions.machine.tmux import Tmux

Fate = Literal["landed", "accepted", "held", "refused"]

LOCK: Final = ".delivery.lock"
LOCK_S: Final = 15.0
OPEN_S: Final = 3.0
SEEN_S: Final = 20.0
SENT_S: Final = 10.0
LANDING_S: Final = 10.0
ACCEPTED_S: Final = 1.0  # of a client that works: what it queues it may tell only when its turn is over
ENTER_AGAIN_S: Final = 1.5
POLL_S: Final = 0.1
_PROMPT_KEPT: Final = 200  # characters of a prompt that a record holds

_COLLAPSED: Final = re.compile(r"\[Pasted text #\d+(?: \+\d+ lines)?\]|\[Pasted Content \d+ chars\](?: #\d+)?")
_DEAD: Final = "dead"
_SHOWN_AT_LEAST: Final = 12  # characters of a part that is no paragraph
_MORE: Final = re.compile(r" {2,}[↑↓]$", re.MULTILINE)  # Codex, where a prompt is too long to be in sight
_BLANK_ROW: Final = re.compile(r"\n[^\S\n]*\n")
_BYTES_AT_MOST: Final = 1 << 24  # of what was added to a transcript


@dataclass(frozen=True)
class Delivered:
    """What became of a message.

    "landed": the session's record or transcript says so. "accepted": the client took it, and has not begun with it, or
    tells nobody. "held": nothing was typed; try again. "refused": it cannot be carried, or was not taken, and to try
    again is no use as long as that is so. `session_id` is the session that is proven to have it, "" without proof.
    """

    fate: Fate
    why: str
    session_id: str = ""


@dataclass(frozen=True)
class Target:
    """A client that lives in a pane. `server` is the process of the tmux server, `folder` what it was started in."""

    identity: str
    client: str
    folder: str
    socket: str
    pane: str
    server: int
    transcript: str = ""


def target_of(record: Mapping[str, Any]) -> Target:
    """Return where a recorded session takes messages. Raise InstarError where its record does not say."""
    stamp = record.get("tmux")
    if not isinstance(stamp, dict) or not isinstance(stamp.get("server"), int) or not stamp.get("socket"):
        raise InstarError(f"session {record.get('id')} is in no pane of tmux that is on record")
    place = record.get("transcriptPath")
    return Target(
        identity=identity_of(record),
        client=str(record.get("client")),
        folder=str(record.get("cwd")),
        socket=str(stamp["socket"]),
        pane=str(stamp.get("pane")),
        server=stamp["server"],
        transcript=place if isinstance(place, str) else "",
    )


def deliver(root: Path, target: Target, message: str, *, tmux: Tmux, landing_s: float = LANDING_S) -> Delivered:
    """Put a message into a client, one at a time, and return what became of it. Raise nothing.

    `landing_s` is how long an idle client may take to begin with it. Nothing is ever typed into a draft, a dialog or
    a screen that is not known.
    """
    if target.client not in CHARACTERS_AT_MOST:
        return Delivered("refused", "its client is not known")
    if why := unfit(target.client, message):
        return Delivered("refused", why)
    try:
        with alone(root / FOLDER / f"{target.identity}{LOCK}", LOCK_S, "another message is being delivered to it"):
            return _Delivery(root, target, message, tmux).done(landing_s)
    except InstarError as error:
        return Delivered("held", str(error))


@dataclass(frozen=True)
class _Look:
    """What the pane shows; `fault` says why nothing can be typed into it at all."""

    surface: Surface
    fault: str = ""
    fate: Fate = "refused"


class _Delivery:
    """One message on its way."""

    def __init__(self, root: Path, target: Target, message: str, tmux: Tmux) -> None:
        self._root, self._target, self._tmux = root, target, tmux
        self._message = message
        self._flat = flat(message)
        # A blank row ends what is seen of a prompt of Codex.
        self._parts = {self._flat, *map(flat, _BLANK_ROW.split(message))}
        self._prompts = self._last_prompts()
        self._size = _size(target.transcript)

    def done(self, landing_s: float) -> Delivered:
        before = self._until_open()
        if before.fault or before.surface.moment not in {"ready", "busy"}:
            return Delivered("held", before.fault or before.surface.why)
        if failed := self._paste():
            return failed
        seen = self._until_seen()
        if seen.fault or not self._is_ours(seen.surface):
            return Delivered("refused", seen.fault or _unseen(seen.surface))
        return self._sent(seen, landing_s if before.surface.moment == "ready" else min(landing_s, ACCEPTED_S))

    def _look(self) -> _Look:
        target = self._target
        view = self._tmux.view(target.socket, [target.pane])
        unknown = Surface("starting", "")
        if view.state == "indeterminate":
            return _Look(unknown, f"tmux does not tell about its pane: {view.why}", "held")
        pane = view.panes.get(target.pane)
        if pane is None or view.server_pid != target.server:
            return _Look(unknown, "its pane is gone")
        if pane.is_dead:
            return _Look(unknown, "it has ended")
        if pane.is_in_mode:
            return _Look(unknown, "somebody looks back in its pane", "held")
        if target.pane not in view.frames:
            return _Look(unknown, "its screen cannot be read", "held")
        return _Look(adapter(target.client).surface(view.frames[target.pane], pane.title, target.folder))

    def _paste(self) -> Delivered | None:
        """Paste the message, with a blank after it; return what is to be said where that failed."""
        # To Codex one before it, too, which it drops: no command of its own begins so. Claude would keep that one.
        before = " " if self._target.client == "codex-cli" else ""
        name, socket = f"instar-{secrets.token_hex(8)}", self._target.socket
        loaded = self._tmux.run(socket, "load-buffer", "-b", name, "-", stdin=f"{before}{self._message} ")
        if loaded.state != "done":
            return Delivered("refused", f"tmux did not take it: {loaded.why}")
        pane = self._target.pane
        paste = f"paste-buffer -p -d -b {name} -t {pane}"
        # Asked and done in one go: tmux 3.3 itself, and all that runs in it, dies of a paste into a pane that is dead.
        pasted = self._tmux.run(
            socket, "if-shell", "-F", "-t", pane, "#{pane_dead}", f"display-message -p {_DEAD}", paste
        )
        if pasted.state == "done" and not pasted.text:
            return None
        self._tmux.run(socket, "delete-buffer", "-b", name)
        if pasted.text:
            return Delivered("held", "it has ended")
        return Delivered("refused", f"tmux did not paste it: {pasted.why}")

    def _until_open(self) -> _Look:
        """Look until it takes messages: what was sent last stays for a moment where prompts are typed."""
        deadline = time.monotonic() + OPEN_S
        while True:
            seen = self._look()
            is_open = not seen.fault and seen.surface.moment in {"ready", "busy"}
            if is_open or (seen.fate == "refused" and seen.fault) or time.monotonic() > deadline:
                return seen
            time.sleep(POLL_S)

    def _until_seen(self) -> _Look:
        deadline = time.monotonic() + SEEN_S
        while True:
            seen = self._look()
            if self._is_ours(seen.surface) or time.monotonic() > deadline or (seen.fault and seen.fate == "refused"):
                return seen
            time.sleep(POLL_S)

    def _is_ours(self, surface: Surface) -> bool:
        """Say whether nothing but the message is typed, or a part of it: too long a one is not in sight as a whole."""
        if not surface.typed:
            return False
        shown = flat(_MORE.sub("", surface.typed))
        is_most = len(shown) >= _SHOWN_AT_LEAST and shown in self._flat
        return is_most or shown in self._parts or _COLLAPSED.fullmatch(surface.typed.strip()) is not None

    def _sent(self, seen: _Look, landing_s: float) -> Delivered:
        """Press Enter until the client takes the message, and wait for its proof."""
        start, pressed_at = time.monotonic(), 0.0
        while True:
            is_typed, now = self._is_ours(seen.surface), time.monotonic()
            if is_typed and now - pressed_at > ENTER_AGAIN_S:
                pressed_at = now
                self._tmux.run(self._target.socket, "send-keys", "-t", self._target.pane, "Enter")
            if session_id := self._proof():
                return Delivered("landed", "its session says so", session_id)
            if seen.fault and seen.fate == "refused":
                return Delivered("refused", f"{seen.fault} before it was proven to have the message")
            is_taken = not is_typed and not seen.fault
            if now - start > (landing_s if is_taken else max(landing_s, SENT_S)):
                break
            time.sleep(POLL_S)
            seen = self._look()
        if is_taken:
            return Delivered("accepted", "it was taken, and nothing proves yet that it was begun with")
        return Delivered("refused", seen.fault or "it is typed, and Enter did not send it")

    def _proof(self) -> str:
        """Return the session that has the message on record, or in its transcript; "" where none has."""
        for session_id, prompt in self._last_prompts().items():
            said = str(prompt.get("text", ""))
            text = flat(said)
            is_it = self._flat.startswith(text) if len(said) >= _PROMPT_KEPT else text == self._flat
            if is_it and prompt != self._prompts.get(session_id):
                return session_id
        return self._proof_in_transcript()

    def _proof_in_transcript(self) -> str:
        if self._target.client != "claude-code" or not self._target.transcript:
            return ""
        for record in _added(self._target.transcript, self._size):
            if record.get("type") == "user" and any(flat(each) == self._flat for each in _texts(record)):
                return str(record.get("sessionId", ""))
        return ""

    def _last_prompts(self) -> dict[str, dict[str, Any]]:
        """Return the last prompt of each session that is on record for the pane."""
        target = self._target
        found: dict[str, dict[str, Any]] = {}
        with suppress(InstarError):
            for session in registry.sessions(self._root):
                stamp, prompt = session.record.get("tmux"), session.record.get("lastPrompt")
                if not isinstance(stamp, dict) or not isinstance(prompt, dict):
                    continue
                if (stamp.get("server"), stamp.get("pane")) == (target.server, target.pane):
                    found[session.id] = prompt
        return found


def _unseen(surface: Surface) -> str:
    if surface.moment == "draft":
        return "something else was typed at the same moment; the message was not sent, and is typed with it"
    return f"it was pasted, and is not to be seen ({surface.why}); nothing was sent"


def _size(transcript: str) -> int:
    try:
        return Path(transcript).stat().st_size if transcript else 0
    except OSError:
        return 0


def _added(transcript: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield the whole records that were added to a transcript since it had `start` bytes."""
    with suppress(Unresolved), opened(transcript) as source:
        data = source.read(start, min(source.size, start + _BYTES_AT_MOST))
        for line in data.split(b"\n")[:-1]:
            if record := parsed(line):
                yield record


def _texts(record: dict[str, Any]) -> Iterator[str]:
    message = record.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    for each in content if isinstance(content, list) else [{"text": content}]:
        if isinstance(each, dict) and isinstance(each.get("text"), str):
            yield each["text"]
