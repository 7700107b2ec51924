"""What the doctor says: a line a finding for people, one object for programs."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from migrator.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from migrator.doctor.findings import Finding

_COLOURS: Final = {"error": "red", "warning": "yellow", "ok": "green", "fixed": "green"}
_PATIENCE_S: Final = 1.0


class Told(NamedTuple):
    """A finding, and whether it was there and is mended now."""

    finding: Finding
    is_fixed: bool = False


def show(root: Path, told: list[Told], *, as_json: bool) -> None:
    """Print the findings and how many are left."""
    lines = [_for_programs(root, told)] if as_json else list(_for_people(root, told))
    click.echo("\n".join(lines))


def refuse(text: str) -> None:
    """Say why nothing could be looked at."""
    click.echo(f"Error: {plain(text)}", err=True)


@contextmanager
def patience(name: str) -> Iterator[None]:
    """Tell a person at a terminal what they wait for, once it takes longer than a moment."""
    if not sys.stderr.isatty():
        yield
        return
    timer = Timer(_PATIENCE_S, click.secho, [f"looking at {name} ..."], {"err": True, "dim": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def left(told: list[Told], level: str) -> int:
    """Return how many findings of a level are not mended."""
    return sum(not each.is_fixed and each.finding.level == level for each in told)


def _for_people(root: Path, told: list[Told]) -> Iterator[str]:
    yield f"project {plain(click.format_filename(root))}"
    for finding, is_fixed in told:
        word = "fixed" if is_fixed else finding.level
        words = plain(finding.text)
        text = click.style(words, dim=True) if finding.level == "ok" else words
        yield f"  {click.style(f'{word:<7}', fg=_COLOURS[word])} {text}  ({finding.code})"
        if finding.fix and not is_fixed:
            yield f"          {plain(finding.fix)}"
    counts = [_count(left(told, level), level) for level in ("error", "warning")]
    fixed = sum(each.is_fixed for each in told)
    yield ", ".join([*counts, *([f"{fixed} fixed"] if fixed else [])])


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _for_programs(root: Path, told: list[Told]) -> str:
    findings = [
        {"code": each.code, "level": each.level, "text": each.text, "fix": each.fix, "fixed": is_fixed}
        for each, is_fixed in told
    ]
    counts = {f"{level}s": left(told, level) for level in ("error", "warning")}
    return json.dumps({"project": str(root), "findings": findings, **counts}, indent=2)
