"""A file that is followed: whether its path can be, and how far it is read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edge_agent.errors import SourceError
from edge_agent.sources.packed import packed_as
from edge_agent.sources.rotation import CHECKED, Pread, first_bytes, mark_of
from edge_agent.sources.splitter import Splitter, width

CHUNK = 1 << 16
"""bytes a read"""


class Followed:
    """A regular file, open or compressed, and how far it is read."""

    def __init__(self, pread: Pread, fd: int = -1) -> None:
        self.pread, self.fd = pread, fd
        self.leave_at = 0.0
        """monotonic time from which it is no longer looked at, once another has its name"""
        self.begin(0)

    def begin(self, at: int) -> None:
        """Read on from an offset."""
        self._head = self.pread(CHECKED, 0)
        self._tail = self.pread(min(CHECKED, at), max(0, at - CHECKED))
        self._split = Splitter(at, width(self._head))
        self.mark = mark_of(at, self._head, self._tail)
        """behind the last whole line"""

    @property
    def cut(self) -> bool:
        """Whether what was read is no longer there: it is shorter, or was cut and refilled at once."""
        return self.pread(len(self._tail), self._split.at - len(self._tail)) != self._tail

    def read(self) -> list[tuple[bytes, int, int]] | None:
        """The lines that the next bytes complete, as of Splitter.feed but with their marks; None at the end."""
        chunk = self.pread(CHUNK, self._split.at)
        if not chunk:
            return None
        if len(self._head) < CHECKED:
            self._head = self.pread(CHECKED, 0)
        if not self._split.at:
            self._split.wide = width(self._head)
        known = self._tail + chunk
        before = self._split.at - len(self._tail)
        found = [
            (raw, lost, mark_of(at, self._head, known[max(0, at - before - CHECKED) : at - before]))
            for raw, lost, at in self._split.feed(chunk)
        ]
        self._tail = known[-CHECKED:]
        self.mark = found[-1][2] if found else self.mark
        return found

    def rest(self) -> list[tuple[bytes, int, int]]:
        """The line that nothing will end any more, if there is one."""
        return [(raw, lost, mark_of(at, self._head, self._tail)) for raw, lost, at in self._split.rest()]


def check(path: Path, follow: bool) -> None:
    """SourceError for what cannot be read line by line."""
    there = path.exists()
    packed = packed_as(first_bytes(path)) if follow and path.is_file() else ""
    problems = (
        (path.is_dir(), "is a folder; give a file"),
        (there and not os.access(path, os.R_OK), "may not be read; check its owner and mode"),
        (there and not _has_lines(path), "a device that has no lines; give a file, a FIFO or a terminal"),
        (packed, f"is compressed ({packed}) and cannot be followed; add ?follow=false"),
        (not there and not follow, "no such file; with follow=true it would be waited for"),
    )
    for is_so, problem in problems:
        if is_so:
            raise SourceError(f"{path}: {problem}")


def _has_lines(path: Path) -> bool:
    """Whether it is a file, a FIFO or a terminal (a serial line, too); other devices have no end, or no lines."""
    mode = path.stat().st_mode
    if not stat.S_ISCHR(mode):
        return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return True  # it says why when it is read
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)
