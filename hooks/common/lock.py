"""The lock for what is written below `.instar` by many at once: `flock`, as the package filelock takes it, too."""

from __future__ import annotations

import fcntl
import os
import time

from hooks.common.files import make_folder
from hooks.common.trouble import Trouble


class Lock:
    """The lock of a folder below `.instar`, held from `with` to its end; `Trouble` if it is not free in `seconds`."""

    def __init__(self, root: str, folder: str, seconds: float, name: str = ".lock") -> None:
        self.root = root
        self.folder = folder
        self.seconds = seconds
        self.name = name
        self.fd = -1

    def __enter__(self) -> None:
        try:
            make_folder(self.root, self.folder)
            path = os.path.join(self.folder, self.name)
            self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            self.wait()
        except OSError as error:
            self.__exit__()
            raise Trouble("unwritable", f"{self.folder} cannot be locked: {error.strerror}") from error
        except Trouble:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def wait(self) -> None:
        """Take the lock as soon as it is free."""
        deadline = time.monotonic() + self.seconds
        while True:
            try:
                return fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    text = f"{self.folder} was locked by another process for {self.seconds:g} s"
                    raise Trouble("lock_timeout", text) from None
                time.sleep(0.005)
