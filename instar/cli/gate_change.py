"""How `instar-gate` changes the mode: to hold sessions it asks for proof, or for a reason that is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from instar.cli import gate_views as views
from instar.cli.gate_access import Access
from instar.cli.options import default_operator, refusals, respond, warn
from instar.errors import InstarError
from instar.project import open_root

if TYPE_CHECKING:
    from instar.gate.mode import Mode


@dataclass(frozen=True)
class Change:
    """What was said beside the mode; `force` is a reason to enforce although not enough was seen."""

    is_check: bool
    force: str | None
    reason: str
    operator: str | None
    as_json: bool


def change_mode(folder: str | None, mode: Mode | None, change: Change) -> None:
    """Set the mode, or only show what enforce asks for. End the command where that is not met."""
    if change.force is not None and not change.force.strip():
        raise click.UsageError("--force needs a reason")
    with refusals():
        access = Access(open_root(folder))
        if change.is_check or mode is None:
            raise click.exceptions.Exit(0 if _is_enough_seen(access, change) else 1)
        prior = access.switch.mode()
        if mode == "enforce" and prior != "enforce" and not change.force and not _is_enough_seen(access, change):
            raise InstarError("enforce asks for more than was seen; instar-gate mode enforce --force REASON insists")
        is_forced = mode == "enforce" and bool(change.force)
        who = change.operator or default_operator(access.root)
        reason = f"forced: {change.force}" if is_forced else change.reason
        access.set_mode(mode, who, reason, is_forced=is_forced)
        if access.switch.kill()["value"]:
            warn("the kill switch is set: every stop is let go until it is cleared")
        if mode == "enforce" and access.are_rules_mute:
            warn("the rules hold nobody before unjustifiedStopGate.authority.rulesMayEnforce is set to true")
    values = {"mode": mode, "prior": prior, "changed": prior != mode, "forced": is_forced}
    text = f"{mode}: {views.MODES[mode]} (was {prior})" if prior != mode else f"no change: {mode}"
    respond(values, text, as_json=change.as_json)


def _is_enough_seen(access: Access, change: Change) -> bool:
    """Return whether all that enforce asks for is met; show it where that was asked, or something is missing."""
    from instar.gate.report import as_json as plain  # noqa: PLC0415 - with it comes the database

    found = plain(access.thresholds())
    is_met = all(each["met"] for each in found)
    if change.is_check or not is_met:
        values = {"met": is_met, "thresholds": found}
        respond(values, lambda: views.print_thresholds(found), as_json=change.as_json)
    return is_met
