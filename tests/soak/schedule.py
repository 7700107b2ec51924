"""What happens in the house: a deck of events, shuffled by a seed and dealt to four hands, round after round."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import psutil
from filelock import FileLock

from clients.waiting import DeadlineError, wait_until
from hooks.common.phases import TERMINAL
from instar.files import replace_file
from instar.sessions import registry
from soak.house import CALM, CLAUDES, FOREIGN, GONE_S, PEERS, SHORT, SLOTS, House, Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

HANDS = 4
WAVE_S = 20.0  # for which pressure lasts where hardly anybody is idle
INIT = "bs init roof --size {}, stop, bs transition executing, bs step-complete 1 tiles 2 2, stop"
BUILDS = (
    f"bs cancel rain, {INIT}, bs complete", f"bs cancel rain, {INIT}, bs transition verifying, stop, bs cancel rain",
    f"{INIT}, bs ask slate, stop", INIT, "bs complete, bs cancel rain",
)  # fmt: skip
STRANGE: tuple[tuple[int, Row], ...] = (
    (404, {"error": "not found"}), (200, {"decision": "continue", "reminder": "Go on."}),
    (200, {"decision": "continue", "mode": "strict", "reminder": "Go on.", "routeVersion": 99}),
)  # fmt: skip


class Sample(NamedTuple):
    """What the server held at a moment."""

    pid: int
    files: int
    threads: int
    memory: int


@dataclass
class Slot:
    """A pane of a person, in which a client runs, or its shell waits."""

    number: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    pid: int = 0
    session: str = ""
    held: int = 0  # the prompt that it works on until somebody lets it come to an end


class Schedule:
    """The events. Each takes the chance that it has of its own, and returns what came of it."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.chance, self.numbers = house, random.Random(seed), itertools.count(1)
        self.slots = [Slot(number) for number in range(SLOTS)]
        self.done: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self._changing_servers = threading.Lock()

    def play(self, *, is_stormy: bool) -> None:
        """Play a round: all that happens once or more, in any order."""
        deck: dict[Callable[[Random], str], int] = {
            self.chat: 12, self.excuse: 6, self.build: 6, self.work: 3, self.wave: 2, self.send: 9, self.crash: 3,
            self.resume: 4, self.crash_peer: 1, self.halt_peer: 1, self.terminate: 2, self.kill: 1, self.mark: 2,
            self.migrate: 1, self.age: 1, self.look: 2, self.mode: 1,
            self.kill_server: 2 * is_stormy, self.meet_other_server: 1 * is_stormy,
        }  # fmt: skip
        cards = [card for card, times in deck.items() for _ in range(times)]
        self.chance.shuffle(cards)
        with ThreadPoolExecutor(HANDS) as hands:
            played = [hands.submit(self._played, card, random.Random(self.chance.random())) for card in cards]
        for each in played:
            each.result()
        for slot in self.slots:
            self.release(slot)

    def _played(self, card: Callable[[Random], str], chance: Random) -> None:
        came_to = card(chance)
        self.done[f"{card.__name__}: {came_to}"] += 1
        with suppress(psutil.Error, AttributeError):
            process = psutil.Process(self.house.server.pid if self.house.server else -1)
            now = (process.num_fds(), process.num_threads(), process.memory_info().rss)
            self.samples.append(Sample(process.pid, *now))

    # What a person does in a pane.

    def begin(self, slot: Slot, command: str) -> bool:
        """Start a client in a pane, and say whether it came up."""
        pane = self.house.tmux("display-message", "-p", "-t", f"=slot-{slot.number}:", "#{pane_id}")
        started = self.house.journal("start", pane=pane, peer=None)
        refused = self.house.soak / f"refused-{next(self.numbers)}"
        self.type(slot, f"{command} || echo no >{refused}", "C-j")  # also when it is killed later

        def seen() -> list[Row] | bool:
            return self.house.journal("start", pane=pane, peer=None)[len(started) :] or refused.exists()

        found = wait_until(seen, f"{command} starts", timeout_s=GONE_S, seen=lambda: self._screens(pane))
        if isinstance(found, list):
            slot.pid, slot.session, slot.held = found[-1]["pid"], found[-1]["session"], 0
        return isinstance(found, list)

    def type(self, slot: Slot, text: str, key: str) -> None:
        """Type a line into a pane."""
        self.house.tmux("send-keys", "-t", f"=slot-{slot.number}:", "-l", text)
        self.house.tmux("send-keys", "-t", f"=slot-{slot.number}:", key)

    def say(self, chance: Random, words: str, *, waits: bool = True) -> str:
        """Prompt the client of a slot, which is started where none runs, and see the turn end."""
        slot = chance.choice(self.slots)
        with slot.lock:
            self.release(slot)
            if not self.house.is_client(slot.pid):
                self.begin(slot, "claude" if slot.number < CLAUDES else "codex")
            number = next(self.numbers)
            self.type(slot, f"soak {number}: {words}", "Enter")
            slot.held = 0 if waits else number
            return self.follow(number, slot.pid, "turn" if waits else "prompt")

    def follow(self, number: int, pid: int, ev: str) -> str:
        """Wait for an event of a prompt, or the end of its client."""

        def seen() -> str:
            is_there = self.house.is_client(pid)
            if self.house.journal(ev, n=number):
                return "done"
            return "" if is_there else "was told to end" if self.house.journal("term", pid=pid) else "crashed"

        panes = {row["pane"] for row in self.house.journal("start", pid=pid)}
        return wait_until(seen, f"{ev} {number}", timeout_s=GONE_S, seen=lambda: self._screens(*panes))

    def _screens(self, *panes: str) -> str:
        shown = [("capture-pane", "-p", "-t", pane) for pane in panes]
        return "\n".join(self.house.tmux(*each, where=where) for each in shown for where in self.house.sockets)

    def chat(self, chance: Random) -> str:
        return self.say(chance, "stop")

    def excuse(self, chance: Random) -> str:
        return self.say(chance, "excuse")

    def build(self, chance: Random) -> str:
        return self.say(chance, chance.choice(BUILDS).format(chance.choice(("SMALL", "STANDARD"))))

    def work(self, chance: Random) -> str:
        return self.say(chance, "hold", waits=False)

    def release(self, slot: Slot) -> None:
        """Let what a slot works on come to its end."""
        if slot.held:
            (self.house.soak / f"go-{slot.held}").touch()
            self.follow(slot.held, slot.pid, "turn")
            slot.held = 0

    def crash(self, chance: Random) -> str:
        slot = chance.choice(self.slots)
        with slot.lock:
            return self._crashed(slot.pid)

    def _crashed(self, *pids: int) -> str:
        alive = [pid for pid in pids if self.house.is_client(pid)]
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(self.house.is_client, alive)), "they are dead", timeout_s=GONE_S)
        return "done" if alive else "nobody there"

    def resume(self, chance: Random) -> str:
        """Take up a session that has ended."""
        for slot in chance.sample(self.slots, SLOTS):
            if slot.session and not self.house.is_client(slot.pid) and slot.lock.acquire(blocking=False):
                try:
                    return "done" if self.begin(slot, f"instar-sessions resume {slot.session}") else "refused"
                finally:
                    slot.lock.release()
        return "nobody to"

    # What an operator does.

    def terminate(self, chance: Random) -> str:
        return self._ended(chance, "terminate", "--reason", "soak")

    def kill(self, chance: Random) -> str:
        return self._ended(chance, "kill")

    def _ended(self, chance: Random, verb: str, *options: str) -> str:
        session = chance.choice(self.slots).session
        if not session:
            return "nobody there"
        answer = self.house.ask("instar-sessions", verb, session, *options)
        return "done" if answer["terminated"] else f"kept by {answer['skipped']}"

    def wave(self, _chance: Random) -> str:
        """Have the memory be short until some were parked for it, or for some seconds."""

        def reaped() -> int:
            return sum((row["type"], row.get("origin")) == ("reaped", "reaper") for row in self.house.rows("reap-log"))

        before = reaped()
        self.house.press(SHORT)
        try:
            wait_until(lambda: reaped() > before + 1, "some are parked", timeout_s=WAVE_S)
        except DeadlineError:
            return "hardly anybody was idle"
        finally:
            self.house.press(CALM)
        return "done"

    def mark(self, chance: Random) -> str:
        """Write what we do not know into a record and into the build, as other programs may."""
        project, known = self.house.project, registry.sessions(self.house.root)
        if known:
            session = chance.choice(known).id
            registry.change(project.root, session, lambda record: {**record, "soak": FOREIGN}, seconds=GONE_S)
            self.house.marked.add(session)
        with FileLock(project.state_path.with_name(".lock")):
            if project.state_path.exists() and project.state["phase"] not in TERMINAL:
                replace_file(project.state_path, json.dumps({**project.state, "soak": FOREIGN}, indent=2).encode())
                self.house.marked.add(project.state["startedAt"])
        return "done"

    def look(self, chance: Random) -> str:
        self.house.ask("instar-sessions", chance.choice(("list", "tokens")))
        self.house.ask("instar-sessions", "reaper", "status")
        self.house.run("instar-peers", "list", "--json")
        return "done"

    def mode(self, _chance: Random) -> str:
        for mode in ("shadow", "enforce"):
            self.house.run("instar-gate", "mode", mode, "--force", "soak")
        return "done"

    def migrate(self, _chance: Random) -> str:
        self.house.migrate()
        return "done"

    def age(self, chance: Random) -> str:
        """Have earlier hooks meet this server, and then be brought up to date."""
        now = self.house.hooks()
        self.house.age_hooks()
        came_to = [self.excuse(chance), self.build(chance), self.chat(chance)]
        self.house.migrate()
        assert self.house.hooks() == now, "what is installed is not what it was"
        return f"{came_to.count('done')} turns"

    # What a machine does.

    def kill_server(self, _chance: Random) -> str:
        with self._changing_servers:
            self.house.press(SHORT)
            self.house.kill_server()
            self.house.serve()
            self.house.press(CALM)
        return "done"

    def meet_other_server(self, chance: Random) -> str:
        """Have these hooks meet a server of another time: nobody is held by what it says."""
        with self._changing_servers:
            self.house.stop_server()
            with self.house.serving_other(*chance.choice(STRANGE)):
                known = len(self.house.journal())
                came_to = [self.excuse(chance) for _ in range(3)]
                rows = self.house.journal()[known:]
            self.house.serve()
        begun: set[int] = set()
        for row in rows:  # what was asked before may have been answered by our server
            begun |= {row["pid"]} if row["ev"] == "stop" else set()
            assert not (row["pid"] in begun and "stop-gate-router" in row.get("held", ())), row
        return f"{came_to.count('done')} turns"

    # Peers.

    def send(self, chance: Random) -> str:
        name, number = chance.choice(sorted(PEERS)), next(self.numbers)
        words = chance.choice(("stop", "stop", "excuse", "bs status, stop"))
        topic = chance.choice(((), (), ("--topic", "roof"), ("--topic", "gutter")))
        answer = self.house.ask("instar-peers", "send", name, f"soak {number}: {words}", *topic)
        if not answer["taskDelivered"]:
            return f"refused by {answer['cause']}"
        answer["number"] = number
        (prompt,) = wait_until(lambda: self.house.journal("prompt", n=number), f"{name} has it", timeout_s=GONE_S)
        return f"{answer['mode']}, {self.follow(number, prompt['pid'], 'turn')}"

    def crash_peer(self, chance: Random) -> str:
        name = chance.choice(sorted(PEERS))
        return self._crashed(*(row["pid"] for row in self.house.journal("start", peer=name)))

    def halt_peer(self, chance: Random) -> str:
        """Stop a peer, whatever it is at, see that nobody wakes it, and let it be woken again."""
        name = chance.choice(sorted(PEERS))
        stopped = self.house.ask("instar-peers", "stop", name)
        refused = self.house.ask("instar-peers", "send", name, f"soak {next(self.numbers)}: stop")
        assert not refused["taskDelivered"], (stopped, refused)
        self.house.ask("instar-peers", "start", name)
        return "done" if stopped["status"] == "DONE" else f"refused by {stopped['cause']}"
