"""What a session of Claude Code has planned: jobs at set times, and wake-ups of a loop, as measured on 2.1.197.

Its tools are CronCreate, CronDelete, CronList and ScheduleWakeup. A job lives on when its session is resumed, and when
the same process goes on with another session after /clear. A job that recurs ends after a week.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from instar.sessions.clock import epoch, iso
from instar.sessions.transcripts.records import BYTES_AT_MOST, Unresolved, opened, parsed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from instar.sessions.transcripts.records import Source

SEARCHED_AT_MOST: Final = 1 << 28
RECURRING_S: Final = 8 * 86_400.0  # a week, and a day more: a job may come late
LATE_S: Final = 120.0
REMEMBERED_AT_MOST: Final = 4096
CLEAR_S: Final = 10.0  # after which a session that was cleared writes no more
_BLOCK: Final = 1 << 23
_TOOLS: Final = ("CronCreate", "CronDelete", "CronList", "ScheduleWakeup")
_PLANNING: Final = (b'"CronCreate"', b'"CronList"', b'"ScheduleWakeup"')
_TELLING: Final = (*_PLANNING, b'"CronDelete"', b'"toolUseResult"', b'"tool_result"', b'"promptSource"')
_CLEAR: Final = "<command-name>/clear</command-name>"


@dataclass(frozen=True)
class _Job:
    prompt: str
    recurs: bool
    at: float


@dataclass
class _Plans:
    """What is planned, as far as the records were taken in; `wake` is a moment in seconds since 1970."""

    jobs: dict[str, _Job] = field(default_factory=dict)
    wake: float = 0.0
    calls: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def take(self, record: dict[str, Any]) -> None:
        """Take one record in, in the order of the file."""
        message = record.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if record.get("promptSource") == "system":
            self._forget_fired(content)
        for block in content if isinstance(content, list) else ():
            if not isinstance(block, dict):
                continue
            if block.get("type") == "tool_use" and block.get("name") in _TOOLS:
                given = block.get("input")
                self.calls[str(block.get("id"))] = block["name"], given if isinstance(given, dict) else {}
            elif block.get("type") == "tool_result" and str(block.get("tool_use_id")) in self.calls:
                name, given = self.calls.pop(str(block["tool_use_id"]))
                if block.get("is_error") is not True:
                    self._done(name, given, record)

    def _forget_fired(self, content: object) -> None:
        for key, job in list(self.jobs.items()):
            if not job.recurs and job.prompt == content:
                del self.jobs[key]
                return

    def _done(self, name: str, given: dict[str, Any], record: dict[str, Any]) -> None:
        told = record.get("toolUseResult")
        told = told if isinstance(told, dict) else {}
        at = epoch(record.get("timestamp")) or 0.0
        if name == "CronCreate":
            self.jobs[str(told.get("id"))] = _job({**given, **told}, at)
        elif name == "CronDelete":
            self.jobs.pop(str(told.get("id", given.get("id"))), None)
        elif name == "CronList" and isinstance(told.get("jobs"), list):
            listed = {str(each.get("id")): each for each in told["jobs"] if isinstance(each, dict)}
            self.jobs = {key: self.jobs.get(key) or _job(each, at) for key, each in listed.items()}
        elif name == "ScheduleWakeup":
            due = told.get("scheduledFor", 0)
            self.wake = due / 1000 if isinstance(due, (int, float)) else at + 3600.0

    def pending(self, now: float) -> str | None:
        """Return what of it is still to come, in words for people."""
        if any(not job.recurs or now < job.at + RECURRING_S for job in self.jobs.values()):
            return "a job that it runs at a set time"
        return f"a wake-up at {iso(self.wake)}" if self.wake + LATE_S > now else None


def _job(told: dict[str, Any], at: float) -> _Job:
    prompt = told.get("prompt")
    return _Job(prompt if isinstance(prompt, str) else "", told.get("recurring") is not False, at)


def pending(path: Path, since: float | None, now: float) -> str | None:
    """Return what a session has planned, in words for people; None where it has nothing. Raise Unresolved.

    `since` is when its process began, in seconds since 1970: what a cleared session of that process planned counts.
    """
    with opened(path) as source:
        searched = source.size
        found = _plans(source).pending(now)
        cleared_at = _cleared_at(source)
    if found is not None or cleared_at is None:
        return found
    for earlier, size in _cleared(path, since, cleared_at):
        searched += size
        _check(searched)
        with opened(earlier) as source:
            if (found := _plans(source).pending(now)) is not None:
                return found
    return None


def _check(size: int) -> None:
    if size > SEARCHED_AT_MOST:
        raise Unresolved(f"more than {SEARCHED_AT_MOST >> 20} MiB would have to be searched for what is planned")


def _plans(source: Source) -> _Plans:
    _check(source.size)
    plans = _Plans()
    status = source.status
    key = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if key in _without_plans():
        return plans
    if not any(True for _ in _lines(source, _PLANNING)):
        if len(_without_plans()) >= REMEMBERED_AT_MOST:
            _without_plans().clear()
        _without_plans()[key] = None
        return plans
    for line in _lines(source, _TELLING):
        record = parsed(line)
        if record is not None:
            plans.take(record)
    return plans


@lru_cache(maxsize=1)
def _without_plans() -> dict[tuple[int, int, int, int], None]:
    """Return the files, as they were, that are known to plan nothing: an idle one is searched once."""
    return {}


def _lines(source: Source, needles: tuple[bytes, ...]) -> Iterator[bytes]:
    """Yield the whole records that have one of some texts in them. Raise Unresolved."""
    rest = b""
    for start in range(0, source.size, _BLOCK):
        block = rest + source.read(start, min(source.size, start + _BLOCK))
        whole, newline, rest = block.rpartition(b"\n")
        if len(rest) > BYTES_AT_MOST:
            raise Unresolved("a record of the transcript is too big to be read")
        if newline and any(needle in whole for needle in needles):
            yield from (line for line in whole.split(b"\n") if any(needle in line for needle in needles))


def _cleared_at(source: Source) -> float | None:
    """Return when a session began, if it did so by /clear."""
    head = source.read(0, min(source.size, 1 << 16)).split(b"\n")[:-1]
    records = [record for line in head if (record := parsed(line)) is not None]
    for record in records:
        message = record.get("message")
        content = message.get("content") if isinstance(message, dict) else None
        if record.get("type") == "assistant":
            return None
        if isinstance(content, str) and _CLEAR in content:
            return epoch(record.get("timestamp"))
    return None


def _cleared(path: Path, since: float | None, until: float) -> list[tuple[str, int]]:
    """Return the transcripts beside one, with their sizes, that ended in its process before it began."""
    found = []
    try:
        with os.scandir(path.parent) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl") and entry.name != path.name and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    if (since or 0.0) <= status.st_mtime <= until + CLEAR_S:
                        found.append((entry.path, status.st_size))
    except OSError as error:
        raise Unresolved(f"the transcripts before /clear cannot be listed: {error.strerror}") from error
    return found
