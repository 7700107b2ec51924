"""Codex's trust in the hooks of one project, read and granted in its config.toml, where there is no `codex` to ask.

An editor's extension, or a client on another machine with the same home, obeys the same file. What is known of it here
was measured on Codex 0.169.0, as in `codex_trust`, which is asked wherever it can be: it also knows what this module
does not look at, such as a value elsewhere in config.toml, or a matcher, that Codex rejects.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instar.errors import InstarError
from migrator import files
from migrator.changes import Content
from migrator.codex_hooks_file import FormError, hooks_file, load, typed
from migrator.codex_trust import CodexTrustError, Granted, HookTrust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from collections.abc import Set as AbstractSet

_TRIES = 3
_BOM = "\ufeff"


def home(environ: Mapping[str, str]) -> Path:
    """Return the folder that Codex keeps its configuration in; it need not exist."""
    return Path(environ.get("CODEX_HOME") or Path(environ.get("HOME") or Path.home()) / ".codex")


def read(project: Path, environ: Mapping[str, str]) -> list[HookTrust] | None:
    """Return the commands that Codex loads from the project's own hooks.json, in its order. Nothing is written.

    `None`: Codex ignores that file, since the user has not trusted the folder. An empty list: there is no hook
    in it, or hooks are switched off (`[features] hooks = false`). A file that Codex rejects raises.
    """
    folder = _utf8(project.resolve())
    place = home(environ) / "config.toml"
    try:
        config = _values(place)
        states = _states(config)
        if not _is_trusted(config, folder):
            return None
    except FormError as error:
        raise _unloadable(folder, f"{place}: {error}") from error
    if not _has_hooks_on(config, folder):
        return []
    return [
        HookTrust(
            event=hook.event,
            command=hook.command,
            key=(key := f"{hooks_file(folder)}:{hook.position}"),
            current_hash=hook.hash,
            status=_status(states.get(key, {}).get("trusted_hash"), hook.hash),
            enabled=states.get(key, {}).get("enabled", True),
        )
        for hook in load(folder)
    ]


def grant(project: Path, wanted: AbstractSet[str], environ: Mapping[str, str]) -> Granted:
    """Trust the hooks of the project's own hooks.json whose command is exactly one of `wanted`.

    Writes nothing but the `trusted_hash` of those that are not trusted yet; a hook that the user switched off stays
    off. Raises, with nothing written, when the folder is not trusted, when Codex would load none of these hooks, and
    when config.toml cannot be edited.
    """
    folder, place = project.resolve(), home(environ) / "config.toml"
    hooks = read(project, environ)
    ours = [hook for hook in hooks or [] if hook.command in wanted]
    if not ours:
        raise CodexTrustError(_reason_for_nothing(folder, place, is_trusted=hooks is not None))
    enabled = [hook for hook in ours if hook.enabled]
    return Granted(
        newly_trusted=_trust(project, environ, [hook for hook in enabled if hook.status != "trusted"]),
        already_trusted=[hook for hook in enabled if hook.status == "trusted"],
        disabled=[hook for hook in ours if not hook.enabled],
        foreign=[hook for hook in hooks or [] if hook.command not in wanted],
    )


def _trust(project: Path, environ: Mapping[str, str], hooks: list[HookTrust]) -> list[HookTrust]:
    """Return the same hooks as they are then."""
    if not hooks:
        return []
    hashes = {hook.key: hook.current_hash for hook in hooks}
    _rewrite(home(environ) / "config.toml", lambda text: _edited(text, hashes))
    now = [hook for hook in read(project, environ) or [] if hook.key in hashes]
    if [hook.status for hook in now] != ["trusted"] * len(hooks):
        statuses = ", ".join(f"{hook.event} is {hook.status}" for hook in now)
        raise CodexTrustError(
            f"the trust in {hooks_file(project.resolve())} was overwritten meanwhile "
            f"({statuses or 'no hook is left'}); try again"
        )
    return now


# What the user's configuration says


def _values(place: Path) -> dict[str, Any]:
    """Return what is in a config.toml; nothing where there is none. Raise FormError where it cannot be read."""
    content = _look(place) if place.parent.is_dir() else None
    return {} if content is None else _parse(_text(content)).unwrap()


def _states(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return `hooks.state`, of which Codex takes all entries or none."""
    hooks = typed(config.get("hooks", {}), dict, "hooks")
    states: dict[str, dict[str, Any]] = typed(hooks.get("state", {}), dict, "hooks.state")
    for key, state in states.items():
        typed(state, dict, f'hooks.state."{key}"')
        for name, kind in (("trusted_hash", str), ("enabled", bool)):
            if name in state:
                typed(state[name], kind, f'{name} of hooks.state."{key}"')
    return states


def _is_trusted(config: dict[str, Any], folder: Path) -> bool:
    """Say whether the user trusts the folder, or else, where that says nothing, the repository that it lies in."""
    projects = typed(config.get("projects", {}), dict, "projects")
    markers = typed(config.get("project_root_markers", [".git"]), list, "project_root_markers")
    roots = [
        each for each in (folder, *folder.parents) if any(os.path.lexists(each / str(marker)) for marker in markers)
    ]
    for each in (folder, *roots[:1]):
        entry = typed(projects.get(str(each), {}), dict, f'projects."{each}"')
        level = entry.get("trust_level")
        if level not in ("trusted", "untrusted", None):
            raise FormError(f'trust_level of projects."{each}" is neither "trusted" nor "untrusted"')
        if level:
            return bool(level == "trusted")
    return False


def _has_hooks_on(config: dict[str, Any], folder: Path) -> bool:
    """Say whether hooks run at all. A trusted project decides over its user, the name over the one of old."""
    place = folder / ".codex" / "config.toml"
    try:
        layers = (config, _values(place))
        features = {name: on for layer in layers for name, on in typed(layer.get("features", {}), dict, "it").items()}
        is_on = features.get("hooks", features.get("codex_hooks", True))
        return typed(is_on, bool, "hooks of [features]")
    except FormError as error:
        raise _unloadable(folder, f"{place}: {error}") from error


def _status(trusted_hash: str | None, current_hash: str) -> str:
    if trusted_hash is None:
        return "untrusted"
    return "trusted" if trusted_hash == current_hash else "modified"


# The file


def _look(place: Path) -> Content | None:
    try:
        return files.look(place.parent, place.name)
    except InstarError as error:
        raise CodexTrustError(f"in {place.parent}: {error}") from error


def _text(content: Content) -> str:
    try:
        return content.data.decode().removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise FormError(f"line {content.data[: error.start].count(10) + 1} is not UTF-8") from error


def _parse(text: str) -> Any:  # noqa: ANN401 - a TOMLDocument, whose items are of any kind
    import tomlkit  # noqa: PLC0415 - most machines have the program
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    try:
        document = tomlkit.parse(text)
        document.unwrap()  # some releases notice only then that a table stands twice
    except (TOMLKitError, ValueError, RecursionError) as error:
        raise FormError(str(error)) from error
    return document


def _edited(text: str, hashes: dict[str, str]) -> str:
    """Return the text with these hashes in `hooks.state`. Raise FormError where that would change anything else."""
    wanted = _parse(text).unwrap()
    states = wanted.setdefault("hooks", {}).setdefault("state", {})
    missing = [key for key in hashes if key not in states]
    for key, value in hashes.items():
        states.setdefault(key, {})["trusted_hash"] = value
    for with_tables in (True, False):
        edited = _with_hashes(text, hashes, missing if with_tables else [])
        if edited is not None and _is_like(edited, text, wanted):
            return edited
    raise FormError("it cannot be edited without moving other tables; put those of hooks.state one below the other")


def _with_hashes(text: str, hashes: dict[str, str], apart: list[str]) -> str | None:
    """Return the text with entries that are `apart` as tables at its end, and the others where tomlkit puts them.

    At the end nothing else can be touched, while tomlkit moves tables that are written in pieces. But where `hooks`
    or `hooks.state` are written on one line, there can be no table of theirs elsewhere.
    """
    from tomlkit import inline_table, item  # noqa: PLC0415 - as in `_parse`
    from tomlkit.exceptions import TOMLKitError  # noqa: PLC0415

    document = _parse(text)
    inside = [key for key in hashes if key not in apart]
    try:
        for key in inside:
            place = document
            for step in ("hooks", "state", key):
                place = place.setdefault(step, inline_table())
            place["trusted_hash"] = hashes[key]
        edited: str = document.as_string() if inside else text
    except (TOMLKitError, ValueError, LookupError):
        return None
    if apart and not edited.endswith("\n"):
        edited += "\n"
    for key in apart:
        edited += f"\n[hooks.state.{item(key).as_string()}]\ntrusted_hash = {item(hashes[key]).as_string()}\n"
    is_crlf = "\r\n" in text and text.count("\n") == text.count("\r\n")
    return edited.replace("\r\n", "\n").replace("\n", "\r\n") if is_crlf else edited


def _is_like(edited: str, text: str, wanted: dict[str, Any]) -> bool:
    """Say whether the values are those that are wanted, and all headers and comments stand in their old order."""
    try:
        values = _parse(edited).unwrap()
    except FormError:
        return False
    lines = iter(edited.splitlines())
    is_in_order = all(line in lines for line in text.splitlines() if line.lstrip().startswith(("[", "#")))
    return is_in_order and _comparable(values) == _comparable(wanted)


def _comparable(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, default=repr)  # where NaN is like NaN


def _rewrite(place: Path, edit: Callable[[str], str]) -> None:
    """Edit a config.toml in one move, through links to it; mode and owner stay."""
    with _alone_in(place.resolve().parent):
        for _ in range(_TRIES):
            before = _look(place)
            if before is None:
                break
            try:
                edited = edit(_text(before))
            except FormError as error:
                raise CodexTrustError(f"cannot edit {place}: {error}") from error
            bom = _BOM if before.data.startswith(_BOM.encode()) else ""
            if _look(place) == before:
                files.replace(place, Content((bom + edited).encode(), before.mode))
                return
    raise CodexTrustError(f"{place} changes all the time; end what writes it and try again")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other migrations from editing there, without a file that would stay behind."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
    except OSError as error:
        raise CodexTrustError(f"cannot write in {folder}: {error.strerror}") from error


# In words


def _utf8(folder: Path) -> Path:
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise CodexTrustError("Codex cannot be told about a path that is not UTF-8") from error
    return folder


def _unloadable(folder: Path, why: str) -> CodexTrustError:
    return CodexTrustError(f"Codex cannot load {hooks_file(folder)}: {why}; mend that and try again")


def _reason_for_nothing(folder: Path, place: Path, *, is_trusted: bool) -> str:
    if is_trusted:
        return (
            f"Codex loads no hook of ours from {hooks_file(folder)}; install them first, "
            f"and see that {place} does not switch hooks off"
        )
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"Codex does not trust the folder {folder}, so its hooks cannot be trusted either; start codex there "
        f'once and accept, or put trust_level = "trusted" below [projects."{quoted}"] in {place}'
    )
