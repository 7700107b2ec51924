"""Files that the user edits, too: changed by a function from text to text, and given back on uninstall."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from instar.errors import InstarError
from migrator.changes import Change, Content, Note
from migrator.files import look, pristine
from migrator.json_spans import JsonTextError, parse, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from migrator.project import Project

OUR_NAME: Final = b"instar"  # in everything of ours but the block cap


class Part(NamedTuple):
    """Our part in a file of the user's: how it is put into the text, and how it is taken out again."""

    path: str
    put: Callable[[str | None], str]  # from the text as it is (None: no file) to the text with our part in it
    take: Callable[[str, str | None], str | None]  # from the text as it is and was at first, to it without our part
    kinds: Mapping[tuple[str, ...], type] = {}  # of a JSON file: what has to be of which type for our part to go in


def edited(project: Project, part: Part, why: str) -> Iterator[Change | Note]:
    """Yield the change that puts our part into a file; a note where the file cannot be edited."""
    try:
        before = look(project.root, part.path)
    except InstarError as error:
        yield Note("error", f"cannot edit {part.path}: {error}")
        return
    try:
        text = None if before is None else _decoded(before.data)
        after = part.put(text)
        is_first = after != text and (text is None or part.take(text, text) == text)
    except (InstarError, JsonTextError) as error:
        if before is None or not (project.repairs and part.kinds):
            yield _left(part, error)
            return
        text, after, is_first = None, part.put(rebuilt(before.data, part.kinds)), True
        why = f"set up anew, a copy is kept: {error}"
    if after != text:
        mode = _new_mode() if before is None else before.mode
        yield Change(part.path, before, Content(after.encode(), mode), why, is_users=True, is_first=is_first)


def rebuilt(data: bytes, kinds: Mapping[tuple[str, ...], type]) -> str:
    """Return a JSON object that our part can go into: what of the old one can be read and is of the right type."""
    try:
        values = parse(data.decode())
    except (JsonTextError, UnicodeDecodeError):
        values = {}
    if not isinstance(values, dict):
        values = {}
    for path, kind in kinds.items():
        inner = values
        for key in path[:-1]:
            inner = inner.get(key, {})
        if not isinstance(inner.get(path[-1], kind()), kind):
            del inner[path[-1]]
    text = "{}\n"
    for key, value in values.items():
        text = put(text, (key,), value)
    return text


def _new_mode() -> int:
    """Return the mode that the person wants new files to have: into these, secrets may be written later."""
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def restored(project: Project, part: Part, why: str) -> Iterator[Change | Note]:
    """Yield the change that takes our part out again.

    A file that nobody edited since becomes what it was before our part came in, to the byte; an edited one loses our
    part only. One that we never changed and that does not name us is none of our business, broken or not.
    """
    known, original = pristine(project.root, part.path)
    try:
        before = _look_for_ours(project, part, known=known)
        if before is None:
            return
        text = _decoded(before.data)
        at_first = None if original is None else _editable(original, part)
        after = at_first if known and _is_untouched(text, at_first, part) else part.take(text, at_first)
    except (InstarError, JsonTextError) as error:
        yield _left(part, error)
        return
    if after != text:
        content = None if after is None else Content(after.encode(), before.mode)
        yield Change(part.path, before, content, why, is_users=True)


def _look_for_ours(project: Project, part: Part, *, known: bool) -> Content | None:
    try:
        found = look(project.root, part.path)
    except InstarError:
        if known:
            raise
        return None
    return found if found and (known or OUR_NAME in found.data) else None


def _editable(original: bytes, part: Part) -> str:
    """Return what a file was at first, as far as our part could go into it: a repaired one is not broken again."""
    try:
        text = _decoded(original)
        part.put(text)
    except (InstarError, JsonTextError):
        if part.kinds:
            return rebuilt(original, part.kinds)
        raise
    return text


def _is_untouched(text: str, at_first: str | None, part: Part) -> bool:
    try:
        return part.put(at_first) == text
    except (InstarError, JsonTextError):  # of another release, which could edit what this one cannot
        return False


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InstarError(f"byte {error.start} is not UTF-8") from error


def _left(part: Part, error: Exception) -> Note:
    mend = "mend it, or let --repair set it up anew beside a copy," if part.kinds else "mend it"
    advice = f"it is left as it is: {mend} and run instar-migrate again"
    return Note("error", f"cannot edit {part.path}: {error}; {advice}")
