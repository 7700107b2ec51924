"""A day of the whole house in a minute: `python tests/soak/soak.py [FOLDER]`, or the test beside it.

Twenty sessions in one project: clients that are stand-ins in real panes, hooks that are the installed ones, a server
that is the real one, three peers among them. What happens is dealt by chance, from the seed that is printed
(`INSTAR_SOAK_SEED`): first with a server that dies now and then, then with one that has to last; each for one round at
least, and for `INSTAR_SOAK_SECONDS` in all. The logs are nearly full when it begins. At the end everything adds up.

The reaper needs no clock of its own here: its configuration counts in fractions of minutes, and memory is as short as
the configuration says. The judge of the stops is a program that says the same each time.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[:1] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from clients.waiting import wait_until
from instar.sessions import registry
from soak import reconcile
from soak.house import CALM, GONE_S, House
from soak.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS, SEED = "INSTAR_SOAK_SECONDS", "INSTAR_SOAK_SEED"


def soak(folder: Path, tell: Callable[[str], None]) -> None:
    """Do all of it below a folder. Raise AssertionError where something does not add up."""
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
    seconds, began = float(os.environ.get(SECONDS) or 0), time.monotonic()
    tell(f"{SEED}={seed}")
    house = House(folder)
    try:
        schedule, rounds = Schedule(house, seed), 0
        house.serve()
        house.run("instar-gate", "mode", "enforce", "--force", "soak")
        for is_stormy, until in ((True, seconds / 2), (False, seconds)):
            before, calm = rounds, len(schedule.samples)
            while rounds == before or time.monotonic() - began < until:
                schedule.play(is_stormy=is_stormy)
                rounds += 1
        settle(house)
        told = {"rounds": rounds, "events": schedule.done.total(), **reconcile.figures(house)}
        tell(json.dumps({**told, **reconcile.trend(schedule.samples[calm:])}, indent=2))
        tell(json.dumps(schedule.done, indent=2, sort_keys=True))
    finally:
        house.close()
    wait_until(lambda: not house.ours(), "nothing runs any more", timeout_s=GONE_S, seen=lambda: str(house.ours()))


def settle(house: House) -> None:
    """Have everything that is under way come to its end, and the server end as it should."""
    house.press(CALM)
    with house.configuring() as config:
        config["lifecycle"]["idleMinutes"] = 0
    markers = house.root / ".instar/state/lifecycle"

    def is_done() -> bool:
        is_ending = any(each.state == "reaping" for each in registry.sessions(house.root))
        return not is_ending and not any(markers.glob("*.pending"))

    wait_until(is_done, "all ends are done", timeout_s=GONE_S)
    house.stop_server()


if __name__ == "__main__":
    with TemporaryDirectory(prefix="soak-") as made:
        kept = Path(sys.argv[1] if sys.argv[1:] else made).resolve()
        kept.mkdir(parents=True, exist_ok=True)
        soak(kept, lambda line: sys.stdout.write(f"{line}\n"))
