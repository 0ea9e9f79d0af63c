"""Reading in a folder in which somebody else may change anything at any time: no link in it is followed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class Below:
    """One such folder; paths are relative to it."""

    def __init__(self, home: Path) -> None:
        """OSError."""
        self._base = self._folder(str(home), None)

    def close(self) -> None:
        """Give back what it holds."""
        os.close(self._base)

    def _folder(self, name: str, at: int | None) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)

    def _within(self, names: list[str]) -> int:
        """A folder, step by step, as a link may be anywhere."""
        at = os.dup(self._base)
        for name in names:
            try:
                inner = self._folder(name, at)
            finally:
                os.close(at)
            at = inner
        return at

    def open(self, path: str) -> BinaryIO:
        """A regular file that no link leads to. OSError."""
        *folders, name = path.split("/")
        at = self._within(folders)
        try:
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=at)
        finally:
            os.close(at)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(0, "no regular file", path)
        return os.fdopen(file, "rb")

    def read(self, path: str, most: int) -> bytes:
        """All of such a file. OSError, also for a larger one."""
        with self.open(path) as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise OSError(0, f"larger than {most} bytes", path)
        return data

    def names(self, path: str) -> list[str]:
        """What stands in a folder. OSError."""
        at = self._within(path.split("/"))
        try:
            return sorted(os.listdir(at))  # noqa: PTH208, of a descriptor
        finally:
            os.close(at)

    def remove(self, path: str) -> None:
        """Take away a name; nothing, where there is none."""
        *folders, name = path.split("/")
        try:
            at = self._within(folders)
        except OSError:
            return
        with suppress(OSError):
            os.unlink(name, dir_fd=at)
        os.close(at)
