"""A gate without any judgement, and a program that serves it: `python gate_stand_in.py run|start FOLDER [SECONDS]`.

It evaluates for so many seconds, and writes each session that it is done with to `evaluated` beside the project.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, Any]]


class StandIn:
    """What the server needs of a gate, remembering what it was asked."""

    def __init__(self, root: Path, seconds: float = 0.0) -> None:
        self.root = root
        self.seconds = seconds
        self.asked: list[Any] = []
        self.evaluated: list[str] = []
        self.error: BaseException | None = None
        self.go_on = threading.Event()
        self.go_on.set()
        self.ticks = 0
        self.is_closed = False

    def evaluate(self, body: dict[str, Any], budget_ms: int | None) -> Answer:
        self._ask(body, budget_ms)
        time.sleep(self.seconds)
        assert self.go_on.wait(30)
        session = str(body.get("sessionId"))
        self.evaluated.append(session)
        with (self.root.parent / "evaluated").open("a", encoding="utf-8") as file:
            file.write(f"{session}\n")
        return 200, {"decision": "allow", "budget": budget_ms}

    def hot_path(self, session: str) -> dict[str, Any]:
        self._ask(session)
        return {"mode": "shadow", "session": session, "sessionStartTs": 7 if session == "known" else None}

    def kill_switch(self) -> dict[str, Any]:
        self._ask()
        return {"killSwitch": False}

    def set_kill_switch(self, body: dict[str, Any]) -> Answer:
        return self._taken(body)

    def set_mode(self, body: dict[str, Any]) -> Answer:
        return self._taken(body)

    def log(self, query: dict[str, str]) -> Answer:
        return self._taken(query)

    def annotate(self, body: dict[str, Any]) -> Answer:
        return self._taken(body)

    def annotations(self, event_id: str) -> dict[str, Any]:
        self._ask(event_id)
        return {"annotations": []}

    def reset_breaker(self) -> Answer:
        return self._taken()

    def report(self, query: dict[str, str]) -> Answer:
        return self._taken(query)

    def health(self) -> dict[str, Any]:
        return {"status": "ok", "degradations": 3, "secret": "for the owner"}

    def hook_event(self, body: dict[str, Any]) -> Answer:
        return self._taken(body)

    def open(self) -> None:
        self._ask()

    def retire(self) -> None:
        pass

    def tick(self) -> None:
        self.ticks += 1

    def close(self) -> None:
        self.is_closed = True
        with (self.root.parent / "evaluated").open("a", encoding="utf-8") as file:
            file.write("closed\n")

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.error:
            raise self.error

    def _taken(self, *what: Any) -> Answer:
        self._ask(*what)
        return 200, {"took": list(what)}


def main(verb: str, folder: str, seconds: str = "0") -> None:
    """Do as the command `instar-server` does, with the stand-in."""
    from instar.errors import InstarError
    from instar.server import process, service
    from instar.server.endpoint import Taken

    root = Path(folder)
    try:
        if verb == "run":
            process.run(root, None, lambda where, _: StandIn(where, float(seconds)))
        else:
            now, is_new = service.start(root, command=[sys.executable, __file__, "run", folder, seconds])
            sys.stdout.write(json.dumps({**now.as_json(), "started": is_new}))
    except Taken as taken:
        sys.stderr.write(f"{taken}\n")
    except InstarError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
