"""What a peer may be called, and what its sessions go by: `<client>-<name>`."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from instar.errors import InstarError

Runtime = Literal["claude-code", "codex-cli"]
RUNTIMES: Final[tuple[Runtime, ...]] = get_args(Runtime)
NAMES: Final = "take small letters, digits and hyphens, 32 at most, and no hyphen first"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def is_name(text: str) -> bool:
    """Say whether a peer may be called so."""
    return _NAME.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """Return the name if it is one of a peer. Raise InstarError."""
    if not is_name(name):
        raise InstarError(f"{name!r:.80} is no name of a peer: {NAMES}")
    return name


def identities(name: str) -> tuple[str, ...]:
    """Return all that the sessions of a peer of this name may go by."""
    return tuple(f"{runtime}-{name}" for runtime in RUNTIMES)


def name_in(identity: str) -> str | None:
    """Return the name of the peer that goes by this; None where no peer can, as for a session that is none's."""
    _, name = names_of(identity)
    return name if is_name(name) else None


def names_of(identity: str) -> tuple[str, str]:
    """Return the runtime and the name of an identity, fit or not; ("", "") for what begins with no runtime."""
    for runtime in RUNTIMES:
        if identity.startswith(f"{runtime}-"):
            return runtime, identity[len(runtime) + 1 :]
    return "", ""
