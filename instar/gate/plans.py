"""Files that may be plans: their names, what is known of them without opening, what they leave open.

No link is followed to one. Their texts are foreign words.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from fnmatch import translate
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Final

from instar.gate.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

GLOBS: Final = (
    "docs/specs/*.md", "docs/plans/*.md", ".instar/plans/*.md", ".claude/plans/*.md", "PLAN.md", "TODO.md",
    "**/PLAN.md", "**/TODO.md", ".instar/state/build/plan.md",
)  # fmt: skip
PATH_CHARACTERS: Final = 200
PLAN_BYTES_READ: Final = 256 * 1024
EXCERPT_BYTES: Final = 2048
FOLDER_NAMES_READ: Final = 10_000

_HARMLESS: Final = re.compile(r"[\w.+@/ -]+")
_BLANKS: Final = 3
_BOX: Final = re.compile(r"(?:[-*+]|\d{1,9}[.)]) \[([ xX])\](?:[ \t]+(\S.*))?")
_HEADING: Final = re.compile(r"#{1,6}[ \t]+\S")
_NEXT: Final = re.compile(r"\b(?:next|remaining)\b", re.IGNORECASE)
_TODO: Final = re.compile(r"\bTODO\b")


def is_plan(path: str, globs: tuple[str, ...]) -> bool:
    """Say whether a path is one of a plan, and can be told without harm.

    That is a short, relative one of letters and digits (of any script), the signs of file names, and few blanks: what
    could read as a sentence, or end a quotation, is no name to repeat to a model.
    """
    if not path or len(path) > PATH_CHARACTERS or path.startswith("/") or path.count(" ") > _BLANKS:
        return False
    return _matcher(globs).match(path) is not None and ".." not in path.split("/") and _is_harmless(path)


def listed(root: Path, globs: tuple[str, ...], known: Container[str]) -> Iterator[str]:
    """Yield the plans in those folders that the globs name, other than the known."""
    for folder in sorted({os.path.dirname(each) for each in globs if "*" not in os.path.dirname(each)}):  # noqa: PTH120
        try:
            with os.scandir(root / folder) as entries:
                names = sorted(entry.name for _, entry in zip(range(FOLDER_NAMES_READ), entries, strict=False))
        except (OSError, ValueError):
            continue
        paths = (f"{folder}/{name}".lstrip("/") for name in names)
        yield from (path for path in paths if path not in known and is_plan(path, globs))


def plan_status(root: Path, path: str) -> os.stat_result | None:
    """Return what is known of a regular file that lies in the checkout by its real path; None for anything else."""
    try:
        status = os.lstat(f"{root}/{path}")
        return status if stat.S_ISREG(status.st_mode) and _is_inside(root, path) else None
    except (OSError, ValueError):
        return None


def is_finished(text: str) -> bool:
    """Say whether a plan shows that all of it is done: boxes, and none of them open."""
    boxes = [box[1] for line in _prose(text) if (box := _BOX.match(line))]
    return bool(boxes) and " " not in boxes and not has_open_item(text)


def read_plan(root: Path, path: str) -> str:
    """Return the beginning of a plan, "" where it cannot be read."""
    try:
        fd = os.open(root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return file.read(PLAN_BYTES_READ).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""


def has_open_item(text: str) -> bool:
    """Say whether a plan names something still to be done.

    That is an unchecked box with words to it, a TODO that is no heading and no checked box, or something below a
    heading with "next" or "remaining" other than checked boxes. What stands in a block of code does not count.
    """
    is_below_next = False
    for line in _prose(text):
        box = _BOX.match(line)
        if box:
            if box[1] == " " and box[2]:
                return True
        elif _HEADING.match(line):
            is_below_next = _NEXT.search(line) is not None
        elif line and (is_below_next or _TODO.search(line)):
            return True
    return False


def excerpt(text: str) -> str:
    """Return the headings and steps of a plan, the open ones first, without secrets."""
    lines = [line for line in _prose(text) if _BOX.match(line) or _HEADING.match(line) or _TODO.search(line)]
    ordered = redacted("\n".join(sorted(lines, key=lambda line: not _is_open(line))))
    return ordered.encode("utf-8", "replace")[:EXCERPT_BYTES].decode("utf-8", "ignore")


def _is_open(line: str) -> bool:
    box = _BOX.match(line)
    if box:
        return box[1] == " "
    return bool(_NEXT.search(line) if _HEADING.match(line) else _TODO.search(line))


def _prose(text: str) -> Iterator[str]:
    """Yield the lines that are not in a block of code, without the blanks around them."""
    fence = ""
    for line in map(str.strip, text.split("\n")):
        if fence:
            fence = "" if line.startswith(fence) else fence
        elif line.startswith(("```", "~~~")):
            fence = line[:3]
        else:
            yield line


def _is_inside(root: Path, path: str) -> bool:
    """Say whether no link below the root leads a path out of it."""
    folders = accumulate(path.split("/")[:-1], lambda above, name: f"{above}/{name}", initial=str(root))
    if not any(os.path.islink(folder) for folder in list(folders)[1:]):  # noqa: PTH114 - asked for every plan
        return True
    return Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root))


def _is_harmless(path: str) -> bool:
    """Say whether there are letters, digits, blanks and signs of file names in a path, and nothing else."""
    # What some scripts write vowels and accents with is no letter by itself.
    return all(unicodedata.category(each).startswith("M") for each in _HARMLESS.sub("", path))


@lru_cache(maxsize=16)
def _matcher(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{translate(each)})" for each in globs) or r"(?!)")
