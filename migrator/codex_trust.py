"""Codex's trust in the hooks of one project, read and granted through its own `codex app-server`.

Codex runs a project's hook only if the folder is trusted and `hooks.state` in the user's config.toml holds
the hash of this very definition. Hash and file are Codex's own, so it is asked to do both. Trust in the folder
is the user's to give: it is reported here, never written. "Measured" means on Codex 0.169.0, Linux.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

DEADLINE_S = 20.0  # for a whole exchange; measured: 0.1 s, and up to 0.6 s for the first in a CODEX_HOME
_GRACE_S = 1.0  # to end by itself once its stdin is closed; measured: 0.02 s
_LONGEST_MESSAGE = 8 * 1024 * 1024
_LONGEST_EXCERPT = 300  # of Codex's words in an error of ours
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # in its log on stderr, terminal or not

# With plugins on, every start asks GitHub for their newest version and leaves one more `.tmp/git-*` folder in
# CODEX_HOME. Given as a setting, a feature that this Codex does not have is ignored. (Both measured.)
_ARGUMENTS = ("-c", "features.plugins=false", "app-server")

_T = TypeVar("_T")


class CodexTrustError(Exception):
    """Codex could not be asked, or did not do as asked; the text is one sentence for a person."""


@dataclass(frozen=True)
class HookTrust:
    """One hook as Codex sees it."""

    event: str  # spelled as in hooks.json: "SessionStart"
    command: str  # empty for a hook that is not a command
    key: str  # its name in `hooks.state`: file, event and position
    current_hash: str
    status: str  # "trusted", "untrusted", "modified", or the word of another Codex as it came
    enabled: bool  # False once the user has switched it off; Codex does not run it then


@dataclass(frozen=True)
class Granted:
    """The hooks of a project's hooks.json after `grant`, each in one of the lists."""

    newly_trusted: list[HookTrust]
    already_trusted: list[HookTrust]
    disabled: list[HookTrust]  # ours, switched off by the user and left so
    foreign: list[HookTrust]  # not ours, left as they are


def find_codex(environ: Mapping[str, str]) -> str | None:
    """Return the absolute path of the `codex` on the PATH of `environ`."""
    found = shutil.which("codex", path=environ.get("PATH", ""))
    return str(Path(found).absolute()) if found else None


def read(
    project: Path, codex: str, environ: Mapping[str, str], deadline_s: float = DEADLINE_S
) -> list[HookTrust] | None:
    """Return the hooks that Codex loads from the project's own hooks.json, and of no other file.

    `None`: Codex ignores that file, since the user has not trusted the folder. An empty list: there is no hook
    in it, or hooks are switched off (`[features] hooks = false`). A file that Codex rejects raises.
    Codex keeps databases in CODEX_HOME and makes them, and `~/.codex`, when asked for the first time.
    """
    with _app_server(codex, environ, deadline_s) as server:
        folder = project.resolve()
        hooks = _list_hooks(server, folder)
        return hooks if hooks or _reason_for_distrust(server, folder) is None else None


def grant(
    project: Path,
    wanted: AbstractSet[str],
    codex: str,
    environ: Mapping[str, str],
    deadline_s: float = DEADLINE_S,
) -> Granted:
    """Have Codex trust the hooks of the project's own hooks.json whose command is exactly one of `wanted`.

    Writes nothing when they are trusted already. Raises when the folder is not trusted, when Codex loads none
    of these hooks, and when it does not call them trusted afterwards.
    """
    with _app_server(codex, environ, deadline_s) as server:
        folder = project.resolve()
        hooks = _list_hooks(server, folder)
        ours = [hook for hook in hooks if hook.command in wanted]
        if not ours:
            raise CodexTrustError(_reason_for_nothing(server, folder))
        enabled = [hook for hook in ours if hook.enabled]
        return Granted(
            newly_trusted=_trust(server, folder, [hook for hook in enabled if hook.status != "trusted"]),
            already_trusted=[hook for hook in enabled if hook.status == "trusted"],
            disabled=[hook for hook in ours if not hook.enabled],
            foreign=[hook for hook in hooks if hook.command not in wanted],
        )


def _trust(server: _AppServer, folder: Path, hooks: list[HookTrust]) -> list[HookTrust]:
    """Return the same hooks as they are then."""
    if not hooks:
        return []
    # A table written to `hooks.state` restyles the user's other entries in it; single values leave every other
    # byte alone (measured), but where tables are written inline. One batch is one write.
    edits = [
        {
            "keyPath": f"hooks.state.{_quoted_key(hook.key)}.trusted_hash",
            "mergeStrategy": "upsert",
            "value": hook.current_hash,
        }
        for hook in hooks
    ]
    server.ask("config/batchWrite", {"edits": edits}, lambda _: None)
    keys = {hook.key for hook in hooks}
    now = [hook for hook in _list_hooks(server, folder) if hook.key in keys]
    if [hook.status for hook in now] != ["trusted"] * len(hooks):
        statuses = ", ".join(f"{hook.event} is {hook.status}" for hook in now)
        raise CodexTrustError(
            f"Codex did not take the trust in {_hooks_file(folder)} ({statuses or 'no hook is left'}); "
            "start codex there and answer its review of the hooks"
        )
    return now


def _list_hooks(server: _AppServer, folder: Path) -> list[HookTrust]:
    file = _hooks_file(folder)

    def parse(result: dict[str, Any]) -> tuple[list[HookTrust], list[str]]:
        (listing,) = result["data"]
        hooks = [_parse_hook(hook) for hook in listing["hooks"] if hook["sourcePath"] == file]
        # A hooks.json that does not parse is a mere warning, told apart by the path in its text (measured).
        warnings = [warning for warning in listing["warnings"] if file in warning]
        return hooks, [error["message"] for error in listing["errors"]] + warnings

    hooks, complaints = server.ask("hooks/list", {"cwds": [str(folder)]}, parse)
    if complaints and not hooks:
        raise CodexTrustError(f"Codex cannot load {file}: {_excerpt('; '.join(complaints))}; mend that and try again")
    return hooks


def _parse_hook(hook: dict[str, Any]) -> HookTrust:
    event: str = hook["eventName"]
    return HookTrust(
        event=event[:1].upper() + event[1:],
        command=hook.get("command", ""),
        key=hook["key"],
        current_hash=hook["currentHash"],
        status=hook["trustStatus"],
        enabled=hook["enabled"],
    )


def _reason_for_distrust(server: _AppServer, folder: Path) -> str | None:
    """Return Codex's words on why it ignores the folder's `.codex`; `None` when it does not.

    The list of hooks cannot tell: it is empty for an untrusted folder as for one without hooks (measured).
    """

    def parse(result: dict[str, Any]) -> str | None:
        layers = (layer for layer in result["layers"] if layer["name"].get("dotCodexFolder") == str(folder / ".codex"))
        return next((layer.get("disabledReason") for layer in layers), None)

    return server.ask("config/read", {"cwd": str(folder), "includeLayers": True}, parse)


def _reason_for_nothing(server: _AppServer, folder: Path) -> str:
    reason = _reason_for_distrust(server, folder)
    if reason is None:
        return (
            f"Codex loads no hook of ours from {_hooks_file(folder)}; install them first, "
            "and see that its config.toml does not switch hooks off"
        )
    return (
        f"Codex does not trust the folder {folder}, so its hooks cannot be trusted either; start codex there "
        f'once and accept, or put trust_level = "trusted" below [projects.{_quoted_key(str(folder))}] in its '
        f"config.toml (Codex says: {_excerpt(reason)})"
    )


def _hooks_file(folder: Path) -> str:
    return str(folder / ".codex" / "hooks.json")


def _quoted_key(name: str) -> str:
    """Return a TOML key that also does in a `keyPath`, where Codex undoes these two escapes only (measured)."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _excerpt(text: str) -> str:
    return " ".join(_COLOUR.sub("", text).split())[:_LONGEST_EXCERPT].rstrip(".;")


@contextmanager
def _app_server(codex: str, environ: Mapping[str, str], deadline_s: float) -> Iterator[_AppServer]:
    """Run an app-server that has been greeted; nothing is left of its process group afterwards."""
    try:
        process = subprocess.Popen(
            [codex, *_ARGUMENTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise CodexTrustError(f"cannot start {codex}: {error.strerror}; install Codex, or put it on PATH") from error
    with process:
        try:
            server = _AppServer(process, codex, deadline_s)
            server.ask("initialize", {"clientInfo": {"name": "instar-migrate", "version": "1"}}, lambda _: None)
            server.send({"method": "initialized"})
            yield server
            server.hang_up()
        finally:
            # npm's `codex` is a node process around the native one, hence the group. Its id is still ours:
            # the leader is reaped only when `with` ends. macOS answers EPERM when all of it are zombies.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)


class _AppServer:
    """The talk with a running app-server: JSON-RPC, a message a line. No wait outlasts the deadline."""

    def __init__(self, process: subprocess.Popen[bytes], codex: str, deadline_s: float) -> None:
        self._stdin = cast("IO[bytes]", process.stdin)
        self._stdout = cast("IO[bytes]", process.stdout)
        self._open_outputs = [self._stdout, cast("IO[bytes]", process.stderr)]
        self._codex = codex
        self._deadline_s = deadline_s
        self._ends_at = time.monotonic() + deadline_s
        self._unsent = self._received = self._stderr_tail = b""
        self._id = 0
        self._method = ""

    def ask(self, method: str, params: object, parse: Callable[[Any], _T]) -> _T:
        """Return what `parse` makes of the result."""
        self._id += 1
        self._method = method
        self.send({"id": self._id, "method": method, "params": params})
        answer = self._receive()
        # Notifications have no id. A request of the server's own has, perhaps the same as ours, and a method.
        while answer.get("id") != self._id or "method" in answer:
            answer = self._receive()
        try:
            if "error" not in answer:
                return parse(answer["result"])
            refusal = _excerpt(answer["error"]["message"])
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._error(f"answered {method} in an unknown form") from error
        raise self._error(f"answered {method} with an error: {refusal}")

    def send(self, message: dict[str, object]) -> None:
        """Have the message sent along with the next wait."""
        try:
            self._unsent += json.dumps(message, ensure_ascii=False).encode() + b"\n"
        except UnicodeEncodeError as error:
            raise self._error("cannot be asked about a path that is not UTF-8") from error

    def hang_up(self) -> None:
        """Let it end by itself, rather than be killed in the middle of its housekeeping."""
        self._unsent = b""
        self._stdin.close()
        self._drain()

    def _receive(self) -> dict[str, Any]:
        line = self._read_line()
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise self._error(f"answered {self._method} with no JSON-RPC: {_excerpt(line.decode(errors='replace'))}")
        return message

    def _read_line(self) -> bytes:
        while b"\n" not in self._received:
            if self._stdout not in self._open_outputs:
                self._drain()
                said = _excerpt(self._stderr_tail.decode(errors="replace"))
                raise self._error(f"ended before it answered {self._method}: {said or 'no word on stderr'}")
            if len(self._received) > _LONGEST_MESSAGE:
                raise self._error(f"flooded its output instead of answering {self._method}")
            left_s = self._ends_at - time.monotonic()
            if left_s <= 0:
                raise self._error(f"did not answer {self._method} within {self._deadline_s:g} s")
            self._move_bytes(left_s)
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _drain(self) -> None:
        """Let it speak to its end, for a moment at most; only stderr is kept."""
        ends_at = min(self._ends_at, time.monotonic() + _GRACE_S)
        while self._open_outputs and (left_s := ends_at - time.monotonic()) > 0:
            self._move_bytes(left_s)
            self._received = b""

    def _move_bytes(self, wait_s: float) -> None:
        """Read and write what can be without blocking, having waited for the first chance."""
        inputs = [self._stdin] if self._unsent else []
        readable, writable, _ = select.select(self._open_outputs, inputs, [], wait_s)
        for output in readable:
            chunk = os.read(output.fileno(), 65536)
            if not chunk:
                self._open_outputs.remove(output)
            elif output is self._stdout:
                self._received += chunk
            else:
                self._stderr_tail = (self._stderr_tail + chunk)[-_LONGEST_EXCERPT:]
        if writable:
            try:
                sent = os.write(self._stdin.fileno(), self._unsent[: select.PIPE_BUF])
            except BrokenPipeError:  # it has ended, and its closed stdout will say so
                sent = len(self._unsent)
            self._unsent = self._unsent[sent:]

    def _error(self, what: str) -> CodexTrustError:
        return CodexTrustError(f"{self._codex} app-server {what}; see whether codex starts by hand and is up to date")
