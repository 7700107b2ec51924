"""What went wrong while something was let pass: every such failure is open, and leaves a trace."""

from __future__ import annotations

import os
import time

from hooks.common.clock import now_iso
from hooks.common.files import make_folder, write_all

AN_HOUR_S = 3600


class Trouble(Exception):  # noqa: N818 - it is told, not raised to the top
    """Something that cannot be used or done now. `code` is stable, the text is one sentence for a person."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def tell(root: str, role: str, trouble: Trouble) -> str:
    """Log `trouble` and return what to tell the person: the same trouble at most once an hour, else "".

    Where not even the log can be written the person is told each time: there is no other trace.
    """
    logs = os.path.join(root, ".instar", "logs")
    told = os.path.join(logs, f".told-{role}-{trouble.code}")
    try:
        if 0 <= time.time() - os.stat(told).st_mtime < AN_HOUR_S:
            return ""
    except OSError:
        pass
    try:
        make_folder(root, logs)
        append(os.path.join(logs, f"{role}.log"), f"{now_iso()} {trouble.code} {trouble}\n")
        append(told, "")
        os.utime(told)
    except OSError as error:
        complain(f"{role}: cannot write its log: {error}")
    return f"instar {role}: {trouble} ({trouble.code})."


def append(path: str, text: str) -> None:
    """Write at the end of a file that is nobody else's to read, and through no link: a repository can bring links."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        write_all(fd, text.encode("utf-8", "backslashreplace"))
    finally:
        os.close(fd)


def complain(text: str) -> None:
    """Write a line to standard error, which may be a file on the very disk that is full."""
    try:
        os.write(2, text.encode("utf-8", "backslashreplace") + b"\n")
    except OSError:
        pass
