"""What `instar-sessions tokens` tells: how many tokens sessions used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from instar.cli.listing import print_rows
from instar.cli.moments import moment_option, now_ms, told
from instar.cli.options import json_option, project_option, refusals, respond
from instar.cli.patience import patience
from instar.cli.session_look import recorded
from instar.cli.session_views import name
from instar.project import open_root
from instar.sessions import registry
from instar.sessions.assembly import Assembly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.sessions.registry import Session

DAY_MS: Final = 86_400_000
COLUMNS: Final = ("tokens", "calls", "session", "client", "last", "")


@click.command()
@click.argument("session_id", metavar="[ID]", required=False)
@project_option
@click.option("--since", "since_ms", metavar="TIME", callback=moment_option,
              help="Since 7d ago, a date, or milliseconds. [default: 24h]")  # fmt: skip
@json_option
def tokens(session_id: str | None, folder: str | None, *, since_ms: int | None, as_json: bool) -> None:
    """Count the tokens that sessions used, by what their transcripts tell: input, output and cache."""
    since = now_ms() - DAY_MS if since_ms is None else since_ms
    with refusals():
        root = open_root(folder)
        chosen = [recorded(root, session_id)] if session_id else registry.sessions(root)
        used = _used(Assembly(root), chosen, since)
    totals = {key: sum(each[key] for each in used) for key in ("tokens", "eventCount")}
    names = {each.id: name(each) for each in chosen}
    rows = [
        [f"{each['tokens']}", f"{each['eventCount']}", names[each["sessionId"]], each["client"] or "-",
         told(each["lastTs"]), "" if each["known"] else "not all of it is read"]
        for each in used if session_id or each["tokens"] or not each["known"]
    ]  # fmt: skip
    rows.append([f"{totals['tokens']}", f"{totals['eventCount']}", "all", "-", "-", ""])
    values = {"since": since, "sessions": used, "totals": totals}
    respond(values, lambda: print_rows(COLUMNS, rows), as_json=as_json)


def _used(assembly: Assembly, chosen: Sequence[Session], since: int) -> list[dict[str, Any]]:
    """Return what each session used, the one with the most first. Raise InstarError."""
    with patience("reading transcripts"):
        try:
            assembly.scan_tokens(chosen)
            found = [
                {"sessionId": each.id, "client": each.text("client"), **assembly.ledger.since(each.id, since)}
                for each in chosen if each.text("transcriptPath")
            ]  # fmt: skip
        finally:
            assembly.ledger.close()
    return sorted(found, key=lambda each: -each["tokens"])
