"""How short memory and load are: what the machine says, and the tier that makes of it.

What cannot be read says nothing: a tier decides when a session is parked, never whether it may be.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import psutil

from instar.sessions.clock import epoch, iso
from instar.sessions.reaper import rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from instar.sessions.clock import Clock
    from instar.sessions.policy import PressureLimits

Tier = Literal["normal", "moderate", "critical"]
TIERS: Final[tuple[Tier, ...]] = get_args(Tier)

DENIALS: Final = "spawn-denials.jsonl"
DENIALS_S: Final = 300.0  # for which a session that could not be started counts
DENIALS_AHEAD_S: Final = 60.0  # that a row may lie ahead of our clock
_DENIALS_BYTES: Final = 2**20

STALL_PERCENT: Final = 10.0  # of the last ten seconds: some wait moderate, all wait critical
SWAPPED_IN_BYTES: Final = 4 * 2**20  # a second
_RATE_S: Final = 1.0  # over less, a rate says nothing
_RISE, _FALL = 2, 3  # readings in a row


@dataclass(frozen=True)
class Readings:
    """What was read; None stands for what could not be. `monotonic` is the moment, `swapped_in` what it counts from.

    `available_percent` is of the machine's memory, or of what our own group may have, where that is less. Stalls are
    the percentages of the last ten seconds. `swap_in_rate` is in bytes a second, `denials` of the last five minutes.
    """

    available_percent: float | None = None
    stall_some: float | None = None
    stall_full: float | None = None
    swap_in_rate: float | None = None
    load_per_core: float | None = None
    denials: int | None = None
    swapped_in: int | None = None
    monotonic: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return them for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> Readings | None:
        """Return readings as they were written; None for what are none."""
        if not isinstance(values, dict):
            return None
        kept = {each.name: values.get(each.name) for each in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if _is_number(value)})


@dataclass(frozen=True)
class Dwell:
    """The tier that holds, and the readings of late: two in a row raise it, three lower it."""

    tier: Tier = "normal"
    last: tuple[Tier, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"tier": self.tier, "last": list(self.last)}

    @classmethod
    def from_json(cls, values: object) -> Dwell:
        """Return it as it was written; "normal" for what is none."""
        held = values.get("tier") if isinstance(values, dict) else None
        last = values.get("last") if isinstance(values, dict) else None
        if held not in TIERS or not isinstance(last, list) or any(each not in TIERS for each in last):
            return cls()
        return cls(held, tuple(last[-_FALL:]))


def dwell(before: Dwell, read: Tier) -> Dwell:
    """Return what holds after one more reading: as far up, or down, as all the readings that it took agree."""
    last = (*before.last, read)[-_FALL:]
    rank = [TIERS.index(each) for each in last]
    held = TIERS.index(before.tier)
    if len(rank) >= _RISE and min(rank[-_RISE:]) > held:
        held = min(rank[-_RISE:])
    elif len(rank) >= _FALL and max(rank) < held:
        held = max(rank)
    return Dwell(TIERS[held], last)


def lower(one: Tier, other: Tier) -> Tier:
    """Return the lower of two tiers."""
    return TIERS[min(TIERS.index(one), TIERS.index(other))]


def tier(readings: Readings | None, limits: PressureLimits) -> tuple[Tier, str]:
    """Return the worst of what the readings say, and what says so, in words for people; "" when nothing does."""
    if readings is None:
        return "normal", ""
    found = [*_of_memory(readings, limits), *_of_load(readings, limits)]
    if limits.uses_stalls:
        found += _of_stalls(readings)
    if limits.uses_denials and readings.denials:
        found.append(("critical", f"{readings.denials} sessions could not be started in the last 5 minutes"))
    worst = max((TIERS.index(each) for each, _ in found), default=0)
    return TIERS[worst], "; ".join(why for each, why in found if TIERS.index(each) == worst)


def deny_spawn(shared: Path, *, by: str, reason: str, now: float) -> None:
    """Tell all reapers of a machine that a session could not be started for want of memory. Raise OSError.

    `by` names the launcher, `now` is in seconds since 1970.
    """
    rows.append(shared / DENIALS, {"ts": iso(now), "by": by, "reason": reason}, _DENIALS_BYTES)


def read(shared: Path, clock: Clock, before: Readings | None = None, root: Path = Path("/")) -> Readings:
    """Return what the machine says now; nothing is raised for what it does not say.

    `shared` is the folder of what concerns all projects, `root` is where the system's own files are. Of what has no
    file, as on macOS, psutil tells where `root` is the machine's own.
    """
    now, swapped = clock.monotonic(), _swapped_in(root)
    stalls = _stalls(root)
    return Readings(
        available_percent=_available_percent(root),
        stall_some=stalls.get("some"),
        stall_full=stalls.get("full"),
        swap_in_rate=_rate(before, swapped, now),
        load_per_core=_load_per_core(root),
        denials=_denials(shared, clock.wall()),
        swapped_in=swapped,
        monotonic=now,
    )


def _of_memory(readings: Readings, limits: PressureLimits) -> Iterator[tuple[Tier, str]]:
    available = readings.available_percent
    if available is None:
        return
    said = f"{available:.1f} % of the memory is available"
    if available < limits.critical_percent:
        yield "critical", said
    elif available < limits.moderate_percent:
        yield "moderate", said


def _of_load(readings: Readings, limits: PressureLimits) -> Iterator[tuple[Tier, str]]:
    load = readings.load_per_core
    if load is None:
        return
    said = f"the load is {load:.2f} a core"
    if limits.critical_load and load >= limits.critical_load:
        yield "critical", said
    elif limits.moderate_load and load >= limits.moderate_load:
        yield "moderate", said


def _of_stalls(readings: Readings) -> Iterator[tuple[Tier, str]]:
    if (readings.stall_full or 0) >= STALL_PERCENT:
        yield "critical", f"all wait for memory {readings.stall_full:.1f} % of the time"
    if (readings.stall_some or 0) >= STALL_PERCENT:
        yield "moderate", f"some wait for memory {readings.stall_some:.1f} % of the time"
    if (readings.swap_in_rate or 0) >= SWAPPED_IN_BYTES:
        yield "moderate", "memory is being swapped in"


def _available_percent(root: Path) -> float | None:
    total, available = _memory(root)
    if not total or available is None:
        return None
    percents = [100 * available / total]
    percents += [100 * max(0, free) / limit for limit, free in _groups(root) if 0 < limit < total]
    return min(percents)


def _memory(root: Path) -> tuple[int | None, int | None]:
    """Return total and available memory in bytes."""
    values = _table(root / "proc/meminfo")
    total, available = values.get("MemTotal:"), values.get("MemAvailable:")
    if total is not None and available is not None:
        return total * 1024, available * 1024
    if not _is_own(root):
        return None, None
    with suppress(psutil.Error, OSError, RuntimeError):
        memory = psutil.virtual_memory()
        return memory.total, memory.available
    return None, None


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and free bytes of our own control group (version 2) and of each above it that has a limit.

    Files that were read and are not in use can be had again at once: they count as free.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    mount = root / "sys/fs/cgroup"
    ours = next((line[3:] for line in _text(root / "proc/self/cgroup").splitlines() if line.startswith("0::/")), None)
    if ours is None or ".." in ours.split("/"):
        return
    place = mount / ours.lstrip("/")
    for group in (place, *place.parents):
        if not group.is_relative_to(mount):
            return
        limits = [
            int(word) for name in ("max", "high") if (word := _text(group / f"memory.{name}").strip()).isdecimal()
        ]
        used = _text(group / "memory.current").strip()
        if limits and used.isdecimal():
            limit = min(limits)
            yield limit, limit - int(used) + _table(group / "memory.stat").get("inactive_file", 0)


def _stalls(root: Path) -> dict[str, float]:
    """Return the `avg10` of the lines "some" and "full".

    https://docs.kernel.org/accounting/psi.html
    """
    found = {}
    for line in _text(root / "proc/pressure/memory").splitlines():
        kind, *words = line.split()
        value = next((word.partition("=")[2] for word in words if word.startswith("avg10=")), "")
        with suppress(ValueError):
            if math.isfinite(number := float(value)):
                found[kind] = number
    return found


def _swapped_in(root: Path) -> int | None:
    pages = _table(root / "proc/vmstat").get("pswpin")
    if pages is not None:
        return pages * os.sysconf("SC_PAGE_SIZE")
    if not _is_own(root) or (root / "proc/vmstat").exists():
        return None
    with suppress(psutil.Error, OSError, RuntimeError):
        return int(psutil.swap_memory().sin)
    return None


def _rate(before: Readings | None, swapped: int | None, now: float) -> float | None:
    if before is None or swapped is None or before.swapped_in is None or before.monotonic is None:
        return None
    passed, bytes_in = now - before.monotonic, swapped - before.swapped_in
    if 0 <= passed < _RATE_S:
        return before.swap_in_rate
    return None if passed < 0 or bytes_in < 0 else bytes_in / passed  # the machine was started anew


def _load_per_core(root: Path) -> float | None:
    cores = os.cpu_count()
    load = None
    with suppress(ValueError, IndexError):
        load = float(_text(root / "proc/loadavg").split()[0])
    if load is None and _is_own(root):
        with suppress(OSError):
            load = os.getloadavg()[0]
    return load / cores if load is not None and math.isfinite(load) and cores else None


def _denials(shared: Path, now: float) -> int | None:
    """Return how many are on record of late. A moment far ahead is a mistake, and no reason to hurry for ever."""
    if not (shared / DENIALS).exists():
        return 0
    if not os.access(shared / DENIALS, os.R_OK):
        return None
    moments = [at for row in rows.tail(shared / DENIALS, 1000) if (at := epoch(row.get("ts"))) is not None]
    return sum(-DENIALS_AHEAD_S <= now - at <= DENIALS_S for at in moments)


def _table(path: Path) -> Mapping[str, int]:
    """Return the numbers of a file with a name and a number a line."""
    pairs = (line.split()[:2] for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}  # noqa: PLR2004 - a name and a number


def _text(path: Path) -> str:
    """Return what a file of the system holds; "" for what cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _is_own(root: Path) -> bool:
    return root == Path("/")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
