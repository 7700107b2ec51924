"""The server of a project as commands see it: found by its place, and asked over HTTP."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from instar.errors import InstarError
from instar.server.endpoint import endpoint, token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SECONDS: Final = 10.0


class ServerError(InstarError):
    """The server is there and gives no answer that can be used."""


@dataclass(frozen=True)
class Server:
    """The server of a project, by its port; its process was alive when it was looked for."""

    root: Path
    port: int

    @classmethod
    def of(cls, root: Path) -> Server | None:
        """Return the server that runs for a project; None when none does."""
        found = endpoint(root)
        return cls(root, found.port) if found else None

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Return the status and the object of an answer, whatever the status. Raise ServerError where there is none.

        Nothing of the environment makes the request go elsewhere, and no answer does. Without a token it is not made.
        """
        import httpx  # noqa: PLC0415 - only what finds a server waits for it

        said = token(self.root)
        if not said:
            raise ServerError("the server's token is not known: .instar/server-data/token cannot be read")
        try:
            with httpx.Client(trust_env=False, follow_redirects=False, timeout=SECONDS) as client:
                answer = client.request(
                    method, f"http://127.0.0.1:{self.port}{path}", json=body, params=query,
                    headers={"Authorization": f"Bearer {said}", **_agent(self.root)},
                )  # fmt: skip
                values = answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
            raise ServerError(f"the server at port {self.port} gives no answer ({error})") from error
        if not isinstance(values, dict):
            raise ServerError(f"the server at port {self.port} gives no answer that is one")
        return answer.status_code, values


def _agent(root: Path) -> dict[str, str]:
    """Return the header that names the project, so that no other project's server answers for it."""
    try:
        name = json.loads((root / ".instar" / "config.json").read_text(encoding="utf-8-sig")).get("projectName")
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    is_fit = isinstance(name, str) and name.isascii() and name.isprintable() and name == name.strip() and name
    return {"X-Instar-AgentId": name} if is_fit else {}
