"""How `instar-gate` reaches a project's gate: through its server, or, where none runs, its files.

Without a server the database is read only; but that a person changed the mode is written down there, too.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from instar import config as configuration
from instar.cli.listing import printable
from instar.cli.moments import now_ms
from instar.cli.options import warn
from instar.errors import InstarError
from instar.gate.mode import DATABASE, FOLDER, Switch
from instar.server.endpoint import prepare
from instar.server.remote import Server, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from instar.gate.mode import Mode
    from instar.gate.report import Threshold
    from instar.gate.store import Store

BASE: Final = "/internal/stop-gate"
OK: Final = 200
WRONG: Final = 400
BUSY_S: Final = 2.0


class Access:
    """The gate of a project, for one command. What cannot be used on the way is told on standard error."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = configuration.effective(_configured(root))
        self.server = Server.of(root)
        self.switch = Switch(root, self.config, lambda _, reason: warn(reason))
        if self.server is None:
            warn(f"no server runs for {root}: this is from its files (instar-server start)")

    @property
    def are_rules_mute(self) -> bool:
        """Whether rules judge that nobody allowed to hold a session: then enforce is shadow."""
        authority = self.config["unjustifiedStopGate"]["authority"]
        return authority["provider"] == "rules" and not authority["rulesMayEnforce"]

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | None:
        """Return what the server answers; None where the files must do. Raise InstarError for what it calls wrong."""
        if self.server is None:
            return None
        given = {key: value for key, value in (query or {}).items() if value is not None}
        try:
            status, values = self.server.ask(method, BASE + path, body, given)
        except ServerError as error:
            warn(f"{error}: this is from the files")
            self.server = None
            return None
        if status == OK:
            return values
        said = printable(str(values.get("error") or f"status {status}"))
        if status == WRONG:
            raise InstarError(f"the server refuses: {said}")
        warn(f"the server cannot do it ({said}): this is from the files")
        return None

    @contextmanager
    def records(self) -> Iterator[Store | None]:
        """Give the database to be read, None where nothing is on record yet. Raise StoreError."""
        from instar.gate.store import Store  # noqa: PLC0415 - it takes longer than asking the server

        path = self.root / FOLDER / DATABASE
        if not path.exists():
            yield None
            return
        with closing(Store.open(path, is_read_only=True, busy_s=BUSY_S)) as store:
            yield store

    def thresholds(self) -> list[Threshold]:
        """Return what enforce asks for, and how far it is met. Raise StoreError."""
        from instar.gate.report import thresholds, thresholds_of  # noqa: PLC0415 - as above

        with self.records() as store:
            if store is None:
                return thresholds_of([], [], now_ms(), self.config, [])
            return thresholds(store, now_ms(), self.config, store.audits())

    def set_mode(self, mode: Mode, operator: str, reason: str, *, is_forced: bool) -> None:
        """Set the mode, and write down who did. Raise InstarError where that is not so, or would not last."""
        answer = self.ask("POST", "/mode", {"mode": mode, "operator": operator, "reason": reason})
        if answer is None:
            prepare(self.root)
            self._audit("mode", self.switch.mode(), mode, operator, reason, must=is_forced)
            answer = {"persisted": self.switch.set_mode(mode)}
            self.switch.keep_gate_on(is_serving=False)
        if answer.get("persisted") is False:
            raise InstarError("the mode cannot be written down: it is lost when the server ends")

    def set_kill(self, *, value: bool, expires_in_ms: int | None, operator: str, reason: str) -> None:
        """Set or clear the kill switch. Raise InstarError where that would not last."""
        prior = str(self.switch.kill()["value"]).lower()
        body = {"value": value, "operator": operator, "reason": reason}
        answer = self.ask("POST", "/kill-switch", {**body, **({"expiresInMs": expires_in_ms} if expires_in_ms else {})})
        if answer is None:
            prepare(self.root)
            answer = {"persisted": self.switch.set_kill(value, expires_in_ms, operator, reason)}
            self.switch.keep_gate_on(is_serving=False)
            self._audit("kill-switch", prior, str(value).lower(), operator, reason)
        if answer.get("persisted") is False:
            raise InstarError("the kill switch cannot be written down: it is lost when the server ends")

    def _audit(self, kind: str, *change: str, must: bool = False) -> None:
        """Write down a change that no server wrote down; only a forced one waits for that."""
        from instar.gate.store import Store, StoreError  # noqa: PLC0415 - as above

        prior, next_, operator, reason = change
        try:
            with closing(Store.open(self.root / FOLDER / DATABASE, busy_s=BUSY_S)) as store:
                for each in store.troubles:
                    warn(each)
                store.audit(kind, prior, next_, operator, reason)
        except StoreError as error:
            if must:
                raise
            warn(f"who did this is not on record: {error}")


def _configured(root: Path) -> dict[str, Any]:
    """Return the configuration; nothing where it cannot be read, for a kill switch has to work then, too."""
    try:
        return configuration.load(root)
    except InstarError as error:
        warn(f"{error}: the defaults hold")
        return {}
