"""A project whose plan is older than every session in it, and its server: driven by the installed commands."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from instar.gate.rules import Pointer, reminder
from instar.server.endpoint import endpoint
from support import BIN

from .builds import commit_all
from .waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from support import Project

PLAN = "docs/plans/alpha.md"
OPEN = "# Alpha\n\n- [x] lay the rafters\n- [ ] lay the slates\n"
FINISHED = OPEN.replace("[ ]", "[x]")
EXCUSE = "I'll stop here to preserve context; the rest can be done in a fresh session."
RULE = "U2_PLAN_FILE_NEXT_STEP_EXPLICIT"
REMINDER = reminder(RULE, Pointer(PLAN))
HELD = {"decision": "block", "reason": REMINDER}
PATIENT = {"budgetMs": 8000}  # that a machine is slow is no verdict
RULES = {"provider": "rules", "rulesMayEnforce": True, **PATIENT}
LONG_AGO = "2020-01-01T00:00:00+0000"


@dataclass(frozen=True)
class Gated:
    """A project with a gate."""

    project: Project

    @classmethod
    def create(cls, project: Project, authority: Mapping[str, Any]) -> Gated:
        """Give a project its plan, committed long ago, and the judge of its stops."""
        gated = cls(project)
        gated.write_plan(OPEN)
        config = {"unjustifiedStopGate": {"authority": dict(authority)}}
        (project.root / ".instar/config.json").write_text(json.dumps(config))
        commit_all(project, GIT_AUTHOR_DATE=LONG_AGO, GIT_COMMITTER_DATE=LONG_AGO)
        return gated

    def write_plan(self, text: str) -> None:
        """Have the plan say this, in the main checkout."""
        plan = self.project.root / PLAN
        plan.parent.mkdir(parents=True, exist_ok=True)
        plan.write_text(text)

    @contextmanager
    def serving(self, mode: str, **env: str) -> Iterator[Gated]:
        """Have the server run, with the gate in a mode; no server is left after the block."""
        try:
            self.start(**env)
            self.set_mode(mode)
            yield self
        finally:
            self.stop()

    def start(self, *options: str, **env: str) -> int:
        """Have the server run, and return its port."""
        port = self._said("instar-server", "start", *options, **env)["port"]
        assert isinstance(port, int)
        return port

    def stop(self) -> None:
        """Stop the server, if there is one."""
        self._said("instar-server", "stop")

    def kill(self) -> None:
        """Kill the server: it tidies nothing."""
        os.kill(self.server, signal.SIGKILL)
        wait_until(lambda: endpoint(self.project.root) is None, "the server is dead")

    @property
    def server(self) -> int:
        """The process of the server that runs."""
        found = endpoint(self.project.root)
        assert found
        return found.pid

    def set_mode(self, mode: str) -> None:
        """Set the mode, as a person does who insists."""
        self._said("instar-gate", "mode", mode, "--force", "test")

    def throw_kill_switch(self) -> None:
        """Have every stop let go."""
        self._said("instar-gate", "kill-switch", "--set")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The stops on record, the oldest first."""
        rows = self._said("instar-gate", "log", "--tail", "1000")
        assert isinstance(rows, list)
        return rows[::-1]

    def wait_for_rows(self, count: int) -> list[dict[str, Any]]:
        """Return the rows once there are so many: in shadow nobody waits for them."""
        return wait_until(lambda: rows if len(rows := self.rows) >= count else None, f"{count} stops are on record")

    @property
    def outcomes(self) -> list[tuple[str | None, str | None]]:
        """What was decided and by which rule, the oldest first."""
        return [(row["decision"], row["rule"]) for row in self.rows]

    @property
    def passed(self) -> dict[str, int]:
        """How many stops were asked about and let go without a look, by the reason."""
        return dict(self._said("instar-gate", "report")["counters"])

    @property
    def troubles(self) -> list[str]:
        """The lines in the log of the router."""
        log = self.project.root / ".instar/logs/stop-gate-router.log"
        return log.read_text().splitlines() if log.exists() else []

    def _said(self, program: str, *words: str, **env: str) -> Any:
        return json.loads(self.project.run(str(BIN / program), *words, "--json", **env).stdout)
