"""The project that a migration is about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from instar.errors import InstarError
from instar.project import open_root
from migrator.links import leads_out
from migrator.record import read
from migrator.registration import CLIENTS, Client

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A folder, the clients it is set up for, and what the migration before remembered."""

    root: Path
    clients: tuple[Client, ...] = CLIENTS
    record: dict[str, Any] = field(default_factory=dict)
    takes_over: bool = False  # the peer's hooks give way to ours
    repairs: bool = False  # a settings file that cannot be edited is set up anew


def open_project(
    folder: str | None, clients: tuple[Client, ...], *, takes_over: bool = False, repairs: bool = False
) -> Project:
    """Return the project in `folder`, or the one that the working folder lies in.

    Raise InstarError for what is none, and for one that is not to be written to.
    """
    root = open_root(folder)
    if leads_out(root, ".instar"):
        raise InstarError(f"{root / '.instar'} leads out of the project; remove that link and run instar-migrate again")
    record = read(root)
    takes_over = takes_over or record.get("takeOver") is True
    return Project(root, clients or _remembered(record) or CLIENTS, record, takes_over, repairs)


def _remembered(record: dict[str, Any]) -> tuple[Client, ...]:
    clients = record.get("clients")
    return tuple(client for client in CLIENTS if isinstance(clients, list) and client in clients)
