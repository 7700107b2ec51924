"""Why a session of a peer is not there any more, and whether that counts as a crash: told by what is found of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from instar.sessions.machine.processes import Liveness

Cause = Literal["parked", "host-reboot", "server-dead", "clean-exit", "crash"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

# What Claude Code says of an end that its user chose.
CHOSEN: Final = ("prompt_input_exit", "logout")


@dataclass(frozen=True)
class Remains:
    """What is found of a session that is dead.

    `is_parked` is whether its record or its marker says that we ended it. `is_of_this_boot` is None where nothing tells
    when it ran. `server` is what became of the tmux server it ran in. `status` and `signal` are those its command ended
    with, None where nobody knows. `reason` is the client's own word on its end, "" where it had none.
    """

    is_parked: bool = False
    is_of_this_boot: bool | None = None
    server: Liveness = "unknown"
    status: int | None = None
    signal: int | None = None
    reason: str = ""
    is_turn_over: bool = False


@dataclass(frozen=True)
class End:
    """Why a session ended; `text` says how, for people. `server` names the tmux server that died with it, else ""."""

    cause: Cause
    text: str
    server: str = ""

    @property
    def is_crash(self) -> bool:
        """Whether nothing explains it."""
        return self.cause == "crash"


def end(remains: Remains, server: str = "") -> End:
    """Return why a session ended; what nothing explains is a crash."""
    if remains.is_parked:
        return End("parked", "it was parked, stopped or killed on purpose")
    if remains.is_of_this_boot is False:
        return End("host-reboot", "the machine was started anew")
    if remains.server == "dead":
        return End("server-dead", "its tmux server ended", server)
    if _is_clean(remains):
        return End("clean-exit", "it ended by itself, with nothing left to do")
    return End("crash", _how(remains))


def _how(remains: Remains) -> str:
    if remains.signal is not None:
        return f"signal {remains.signal}"
    return "unknown" if remains.status is None else f"status {remains.status}"


def _is_clean(remains: Remains) -> bool:
    if not remains.is_turn_over or remains.signal is not None:
        return False
    return remains.status == 0 or (remains.status is None and remains.reason in CHOSEN)
