"""Pictures and films on disk, in a folder that is theirs: bounded by bytes and days, the oldest deleted first.

What events name that are not yet sent is deleted last. A disk that is full, or refuses, costs pictures and nothing
else: events go without.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import stat
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from edge_agent import files
from edge_agent.events import KNOWN_TIME

NAME = re.compile(r"[0-9a-f]{8}-[0-9]{1,12}\.(jpg|mp4)")
"""of all files here: nothing in it is anybody else's word"""
SPARE_BYTES = 32_000_000
"""that stay free on the disk: events come first"""
MOST_FILES = 50_000
TIDY_S = 60.0
"""seconds between two looks at how old they are"""
JUMP_S = 60.0
"""seconds by which the clock has to be off to count as set"""

log = logging.getLogger("edge_agent")


@dataclass(slots=True)
class _Kept:
    """One file."""

    size: int
    at: float
    """when it was written, seconds since 1970"""
    earlier: bool = False
    """by another run"""
    unsure: bool = False
    """an event that waited when this run began may name it"""


class Pictures:
    """The folder. May be used from any thread."""

    def __init__(
        self,
        folder: Path,
        most_bytes: int,
        days: float,
        all_sent: Callable[[], bool] = lambda: True,
        clock: Callable[[], tuple[float, float]] = lambda: (time.time(), time.monotonic()),
    ) -> None:
        """`all_sent`: whether no event waits to be sent. `clock`: seconds since 1970, and those of a clock that is
        never set.
        """
        self.folder, self.most_bytes, self.seconds = folder, most_bytes, days * 86400
        self.trouble = ""
        """why nothing can be kept, one line; empty while it can"""
        self._all_sent, self._clock = all_sent, clock
        self._run, self._numbers = secrets.token_hex(4), count(1)
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        """name -> what is known of it, oldest first"""
        self._bytes = 0
        self._unsent: dict[int, tuple[str, ...]] = {}
        """number of an event -> the names in it"""
        self._needed: Counter[str] = Counter()
        self._arrived: deque[int] = deque()
        """numbers of events that are sent; noted without the lock, as the outbox holds its own then"""
        self._wall, self._mono = clock()
        self._tidied = float("-inf")
        with contextlib.suppress(OSError):
            self._find()

    def _find(self) -> None:
        """Note what earlier runs left, and delete halves of files."""
        found = []
        for entry in os.scandir(self.folder):
            about = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(about.st_mode):
                continue
            if NAME.fullmatch(entry.name):
                found.append((about.st_mtime, entry.name, about.st_size))
            elif entry.name.startswith("."):
                Path(entry.path).unlink()
        for at, name, size in sorted(found):
            self._note(name, _Kept(size, at, earlier=True, unsure=True))

    def _note(self, name: str, kept: _Kept) -> None:
        """It lies there now, as the newest."""
        before = self._kept.pop(name, None)
        self._bytes += kept.size - (before.size if before else 0)
        self._kept[name] = kept

    # ── in and out ───────────────────────────────────────────────────────────────────────────────────────

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._bytes

    def path(self, name: str) -> Path | None:
        """Where the picture or film of this name is; None where there is none (any more, or yet)."""
        if not NAME.fullmatch(name):
            return None
        path = self.folder / name
        try:
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except OSError:
            return None

    def name(self, kind: str = "jpg") -> str:
        """A new name."""
        return f"{self._run}-{next(self._numbers)}.{kind}"

    def keep(self, name: str, data: bytes) -> bool:
        """Have the disk hold `data` under `name`, whole or not at all, in place of what was there; whether it does."""
        with self._lock:
            self._tidy()
            try:
                self._make_room(len(data))
                self._write(name, data)
            except OSError as error:
                self._refused(error.strerror or str(error))
                return False
            self._note(name, _Kept(len(data), self._now()))
            if self.trouble:
                log.info("pictures: %s takes them again", self.folder)
            self.trouble = ""
            return True

    def _write(self, name: str, data: bytes) -> None:
        """Raises OSError."""
        part = self.folder / f".{name}"
        try:
            try:
                files.write_private(part, data, confirm=True)
            except FileNotFoundError:  # nobody made it yet, or somebody took it away
                files.folder(self.folder, files.PRIVATE)
                files.write_private(part, data, confirm=True)
            part.replace(self.folder / name)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def _refused(self, why: str) -> None:
        if not self.trouble:
            log.warning("pictures: %s: %s; events go without pictures until that is mended", self.folder, why)
        self.trouble = why

    # ── what events name ─────────────────────────────────────────────────────────────────────────────────

    def named(self, seq: int, *names: str) -> None:
        """An event of this number, which is still to be sent, names these."""
        with self._lock:
            self._unsent[seq] = names
            self._needed.update(names)

    def arrived(self, seq: int) -> None:
        """That event has arrived. Returns at once."""
        if seq in self._unsent:
            self._arrived.append(seq)

    def _see_arrived(self) -> None:
        while self._arrived:
            self._needed.subtract(self._unsent.pop(self._arrived.popleft(), ()))

    def _is_needed(self, name: str) -> bool:
        return self._kept[name].unsure or self._needed[name] > 0

    # ── bounds ───────────────────────────────────────────────────────────────────────────────────────────

    def _now(self) -> float:
        """The time, on a clock that nobody sets after the start."""
        return self._wall + self._clock()[1] - self._mono

    def tidy(self) -> None:
        """Delete what is too old."""
        with self._lock:
            self._tidy()

    def _tidy(self) -> None:
        wall, mono = self._clock()
        if mono - self._tidied < TIDY_S:
            return
        self._tidied = mono
        self._see_jump(wall, mono)
        self._see_arrived()
        if self._all_sent():
            self._unsent.clear()
            self._needed.clear()
            for kept in self._kept.values():
                kept.unsure = False
        if wall < KNOWN_TIME:  # nobody has set it yet
            return
        for name, kept in list(self._kept.items()):
            if kept.earlier and not KNOWN_TIME <= kept.at <= wall:  # by a run that had no clock, or a wrong one
                self._date(name, kept, wall)
            if wall - kept.at > self.seconds * (2 if self._is_needed(name) else 1):
                self._delete(name)

    def _see_jump(self, wall: float, mono: float) -> None:
        """Where the clock was set: what this run wrote is as old as it was."""
        jump = wall - (self._wall + mono - self._mono)
        if abs(jump) < JUMP_S:
            return
        self._wall += jump
        for name, kept in self._kept.items():
            if not kept.earlier:
                self._date(name, kept, kept.at + jump)

    def _date(self, name: str, kept: _Kept, at: float) -> None:
        kept.at = at
        with contextlib.suppress(OSError):
            os.utime(self.folder / name, (at, at))

    def _make_room(self, size: int) -> None:
        """Delete so many of the oldest that `size` more bytes are within the bounds. OSError where they never are."""
        over = max(self._bytes + size - self.most_bytes, size - self._free())
        if over <= 0 and len(self._kept) < MOST_FILES:
            return
        if over > self._bytes:  # deleting all of them would not help
            raise OSError(errno.ENOSPC, f"less than {SPARE_BYTES // 1_000_000} MB are free, or it is too large")
        self._see_arrived()
        order = sorted(self._kept, key=self._is_needed)  # which keeps them in their order else
        least = len(self._kept) - MOST_FILES + 1
        for number, name in enumerate(order):
            if over <= 0 and number >= least:
                return
            over -= self._kept[name].size
            self._delete(name)

    def _free(self) -> float:
        """Bytes that may be taken of the disk."""
        try:
            about = os.statvfs(self.folder)
        except OSError:
            return float("inf")
        return about.f_bavail * about.f_frsize - SPARE_BYTES

    def _delete(self, name: str) -> None:
        self._bytes -= self._kept.pop(name).size
        with contextlib.suppress(OSError):
            (self.folder / name).unlink()
