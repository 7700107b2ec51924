"""Files that the user edits, too: changed by a function from text to text, and given back on uninstall."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from instar.errors import InstarError
from migrator.changes import Change, Content, Note
from migrator.files import look, pristine
from migrator.json_spans import JsonTextError

if TYPE_CHECKING:
    from migrator.project import Project

Edit = Callable[[str | None], str]  # from the text as it is (None: no file) to the text with our part in it
Undo = Callable[[str, str | None], str | None]  # from the text as it is and was at first, to it without our part


def edited(project: Project, path: str, edit: Edit, why: str) -> Iterator[Change | Note]:
    """Yield the change that puts our part into a file; a note where the file cannot be edited."""
    try:
        before = look(project.root, path)
        text = None if before is None else _decoded(before)
        after = edit(text)
    except (InstarError, JsonTextError) as error:
        yield Note("error", f"cannot edit {path}: {error}; it is left as it is")
        return
    if after != text:
        mode = 0o644 if before is None else before.mode
        yield Change(path, before, Content(after.encode(), mode), why, is_users=True)


def restored(project: Project, path: str, edit: Edit, undo: Undo, why: str) -> Iterator[Change | Note]:
    """Yield the change that takes our part out again.

    A file that nobody edited since becomes what it was before the first installation, to the byte; an edited one loses
    our part only.
    """
    try:
        before = look(project.root, path)
        if before is None:
            return
        text = _decoded(before)
        known, original = pristine(project.root, path)
        at_first = None if original is None else original.decode()
        after = at_first if known and _is_untouched(text, at_first, edit) else undo(text, at_first)
    except (InstarError, JsonTextError, UnicodeDecodeError) as error:
        yield Note("error", f"cannot edit {path}: {error}; it is left as it is")
        return
    if after != text:
        content = None if after is None else Content(after.encode(), before.mode)
        yield Change(path, before, content, why, is_users=True)


def _is_untouched(text: str, at_first: str | None, edit: Edit) -> bool:
    try:
        return edit(at_first) == text
    except (InstarError, JsonTextError):  # it could not be edited at first, and was mended since
        return False


def _decoded(content: Content) -> str:
    try:
        return content.data.decode()
    except UnicodeDecodeError as error:
        raise InstarError(f"byte {error.start} is not UTF-8") from error
