"""What has become of a peer before a command is run: each makes it so, by the files and processes of a world."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clients.waiting import wait_until
from instar.lifecycle.memory.allowance import Allowance
from instar.sessions.clock import boot_id
from tests.instar.cli.peer_world import NOBODY, World, gone

if TYPE_CHECKING:
    from collections.abc import Callable

    Past = Callable[[World, str], None]


def nothing(_world: World, _name: str) -> None:
    """Leave it as it is."""


def parked(world: World, name: str) -> None:
    world.parked(name)
    world.marks.add_topic(world.identity(name), "build")


def parked_long_ago(world: World, name: str) -> None:
    world.parked(name, minutes=90)


def parked_and_lost(world: World, name: str) -> None:
    parked(world, name)
    world.record(name, transcriptPath="/nowhere.jsonl")


def renewed(world: World, name: str) -> None:
    parked(world, name)
    world.marks.set_fresh_next(world.identity(name))


def crashed(world: World, name: str) -> None:
    world.talked(name)
    world.ended(name)


def rebooted(world: World, name: str) -> None:
    world.talked(name)
    world.ended(name, boot="another")


def managed(world: World, name: str) -> None:
    place = world.home / f".config/systemd/user/instar-peer@{name}.service"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()


def stopped(world: World, name: str) -> None:
    world.marks.set_stopped(world.identity(name))


def in_a_loop(world: World, name: str) -> None:
    for _ in range(3):
        world.marks.record_death(world.identity(name))


def after_failures(world: World, name: str) -> None:
    for _ in range(2):
        world.marks.record_death(world.identity(name), is_failed_wake=True)


def with_torn_deaths(world: World, name: str) -> None:
    world.file(name, ".deaths").write_text("{")


def spent(kind: Any) -> Past:
    def arrange(world: World, name: str) -> None:
        allowance = Allowance(world.root)
        while allowance.spend(world.identity(name), kind, 2) is None:
            pass

    return arrange


def homeless(world: World, name: str) -> None:
    profile(world, name, cwd="nowhere")


def torn(world: World, name: str) -> None:
    world.parked(name)
    (world.root / f".instar/agents/{name}.json").write_text("{")


def removed(world: World, name: str) -> None:
    (world.root / f".instar/agents/{name}.json").unlink()


def profile(world: World, name: str, **values: Any) -> None:
    place = world.root / f".instar/agents/{name}.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), **values}))


def killed(world: World, name: str) -> None:
    world.kill(name)


def quitted(world: World, name: str) -> None:
    world.quit(name)


def idle(world: World, name: str) -> None:
    world.talked(name, minutes=90)
    state = world.marks.session(world.identity(name))
    assert state
    world.marks.save_session(world.identity(name), {**state, "wokeAt": state["wokeAt"] - 90 * 60_000})
    world.file(name, ".last-delivered").unlink()


def eager(world: World, name: str) -> None:
    world.marks.set_new_eager(world.identity(name))


def half_parked(world: World, name: str) -> None:
    world.park(name)
    world.record(name, status="reaping", reaping={"pid": NOBODY, "by": "reaper"})


def half_judged(world: World, name: str) -> None:
    world.record(name, status="reaping", reaping={"pid": NOBODY, "by": "reaper"})


def marked(world: World, name: str) -> None:
    world.park(name)
    world.marks.parks.promote(world.identity(name))


def dead(*more: Past) -> Past:
    """Return what has a session be watched that is dead, and may be taken up, and then does more."""

    def arrange(world: World, name: str) -> None:
        for each in (crashed, *more):
            each(world, name)

    return arrange


def watched_and_parked(world: World, name: str) -> None:
    crashed(world, name)
    parked(world, name)


def other_intended(world: World, name: str) -> None:
    world.park(name, agent={**gone(name), "start": "6"})


def untold(world: World, name: str) -> None:
    agent = {"pid": gone(name)["pid"]}
    world.record(name, agent=agent)
    world.park(name)
    world.marks.save_session(world.identity(name), {"agent": agent, "sessionId": world.id(name)})


def torn_session(world: World, name: str) -> None:
    world.file(name, ".session").write_text("{")


def torn_long_ago(world: World, name: str) -> None:
    torn_session(world, name)
    os.utime(world.file(name, ".session"), (1e9, 1e9))


def half_woken(world: World, name: str) -> None:
    """Have a wake be killed once it has begun to start the peer, and then the peer."""
    parked(world, name)
    profile(world, name, launch={"args": ["--mute"], "env": {"STAND_IN": f"{world.folder}/stand-ins-{name}"}})
    waking = world.start("wake", name)
    wait_until((world.folder / f"stand-ins-{name}/started.json").exists, "it is started")
    waking.kill()
    world.done(waking, -signal.SIGKILL)
    assert world.file(name, ".idle-reaped.inuse").exists()
    world.tmux("kill-session", "-t", f"={world.identity(name)}")


def claimed(pid: int) -> Past:
    """Return what has a process be at the death of a peer since the machine was started."""

    def arrange(world: World, name: str) -> None:
        stat = Path(f"/proc/{pid}/stat")
        start = stat.read_text().rpartition(")")[2].split()[19] if stat.exists() else "5"
        at = {"monotonic": 0.0, "wall": 1.0, "boot": boot_id()}
        claim = {"pid": pid, "start": start, "boot": boot_id(), "at": at}
        said = {"identity": world.identity(name), "agent": gone(name), "claimed": claim}
        world.file(name, ".session.reaping").write_text(json.dumps(said))

    return arrange
