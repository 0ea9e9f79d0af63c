"""``lines:PATH``: a file followed as it grows, a FIFO, or ``lines:-``, standard input.

Options: ``follow=false`` reads a file once to its end; ``from=end`` skips what is there at first; ``rate=N`` gives N
lines a second. A file is followed by name, like tail -F: through rotation (another file takes the name) and
truncation. What cannot be told apart from a file that merely grew: one that was cut and refilled beyond the old place
within TICK seconds.

A mark is an offset and a checksum of what stands before it, so that another file under the name is known as another
one, and the file that was left is found again beside it under the name that a rotation gave it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import select
import stat
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.options import choice, number, switch
from edge_agent.sources.text import LONGEST, cleaner
from edge_agent.types import StreamState, Text, Uri

KNOWN = {"follow": "true", "from": "start", "rate": ""}

CHUNK = 1 << 16
"""bytes a read"""
TICK = 0.1
"""seconds between looks at a file that does not grow, and at `stop`"""
GRACE = 1.0
"""seconds that a file must be quiet after another took its name, before it is left: its writer may not know yet"""

LINGER = 60.0
"""seconds without a line after which a file that was left is no longer looked at"""
OFFSET = (1 << 40) - 1
"""the bits of a mark that hold the offset, so up to 1 TB; the checksum, from 1 to 2**23 - 1, stands above them"""
CHECKED = 256
"""bytes at the beginning of a file, and before a mark, that its checksum covers"""

log = logging.getLogger("edge_agent")

Lines = Iterator[Text | StreamState]


def lines(uri: Uri, here: Here) -> Opened:
    """Bind ``lines:PATH``; yields Texts, each once. `here.resume_at` is where to go on in a file that has grown.

    ConfigError for the address; SourceError for a folder, a file that may not be read, or, with follow=false, a
    missing one. Followed, a missing file is waited for.
    """
    if not uri.rest:
        raise ConfigError(f'"{uri}": give the path of a file or FIFO, or "lines:-" for standard input')
    follow = switch(uri, KNOWN, "follow")
    from_end = choice(uri, KNOWN, "from", ("start", "end")) == "end"
    walk = _Walk(
        path=uri.rest if uri.rest == "-" else str(Path(uri.rest).expanduser()),
        follow=follow,
        clean=cleaner(f"lines:{uri.rest}"),
        pause=1 / rate if (rate := number(uri, KNOWN, "rate", 0.001, 100_000)) else 0.0,
    )
    if walk.path != "-":
        path = Path(walk.path)
        if path.is_dir():
            raise SourceError(f"{path}: is a folder; give a file")
        if path.exists() and not os.access(path, os.R_OK):
            raise SourceError(f"{path}: may not be read; check its owner and mode")
        if not follow and not path.exists():
            raise SourceError(f"{path}: no such file; with follow=true it would be waited for")
    return Opened(
        run=lambda stop: walk.run(stop, here.resume_at, from_end),
        yields=Text,
        live=False,
        left=lambda: len(walk.once),
    )


class Splitter:
    """Cuts bytes into lines, keeping at most LONGEST bytes of each however long it is, without NULs before it."""

    __slots__ = ("_kept", "_lost", "at")

    def __init__(self, at: int = 0) -> None:
        self._kept = bytearray()
        self._lost = 0
        self.at = at
        """offset behind the last byte fed"""

    def feed(self, chunk: bytes) -> list[tuple[bytes, int, int]]:
        """The lines that `chunk` completes: (bytes without the newline, bytes dropped, offset of the next line)."""
        found, begin = [], 0
        while (end := chunk.find(b"\n", begin)) >= 0:
            self._keep(chunk[begin:end])
            begin = end + 1
            found.append(self._take(self.at + begin))
        self._keep(chunk[begin:])
        self.at += len(chunk)
        return found

    def rest(self) -> list[tuple[bytes, int, int]]:
        """The line that no newline will end any more, if there is one."""
        return [self._take(self.at)] if self._kept else []

    def _keep(self, piece: bytes) -> None:
        if not self._kept:  # a file that was cut while its writer holds its place begins with a hole of any size
            piece = piece.lstrip(b"\0")
        room = LONGEST - len(self._kept)
        self._kept += piece[:room]
        self._lost += max(0, len(piece) - room)

    def _take(self, mark: int) -> tuple[bytes, int, int]:
        line = bytes(self._kept), self._lost, mark
        self._kept.clear()
        self._lost = 0
        return line


class _File:
    """An open regular file, and how far it is read."""

    def __init__(self, fd: int, at: int = 0) -> None:
        self.fd = fd
        self.leave_at = 0.0
        """monotonic time from which it is no longer looked at, once another has its name"""
        self.begin(at)

    def begin(self, at: int) -> None:
        """Read on from an offset."""
        self._split = Splitter(at)
        self._head = os.pread(self.fd, CHECKED, 0)
        self._tail = os.pread(self.fd, min(CHECKED, at), max(0, at - CHECKED))
        self.mark = _mark(at, self._head, self._tail)
        """behind the last whole line"""

    @property
    def cut(self) -> bool:
        """Whether it is shorter than what was read."""
        return os.fstat(self.fd).st_size < self._split.at

    def read(self) -> list[tuple[bytes, int, int]] | None:
        """The lines that the next bytes complete, as of Splitter.feed but with their marks; None at the end."""
        chunk = os.pread(self.fd, CHUNK, self._split.at)
        if not chunk:
            return None
        if len(self._head) < CHECKED:
            self._head = os.pread(self.fd, CHECKED, 0)
        known = self._tail + chunk
        before = self._split.at - len(self._tail)
        found = [
            (raw, lost, _mark(at, self._head, known[max(0, at - before - CHECKED) : at - before]))
            for raw, lost, at in self._split.feed(chunk)
        ]
        self._tail = known[-CHECKED:]
        self.mark = found[-1][2] if found else self.mark
        return found

    def rest(self) -> list[tuple[bytes, int, int]]:
        """The line that no newline will end any more, if there is one."""
        return [(raw, lost, _mark(at, self._head, self._tail)) for raw, lost, at in self._split.rest()]


@dataclass(frozen=True, slots=True)
class _Walk:
    """What was asked for."""

    path: str
    follow: bool
    clean: Callable[[bytes, int], str]
    pause: float
    once: deque[tuple[bytes, int, int]] = field(default_factory=deque)
    """lines of a stream that were read and not yet given; nobody can read them again"""

    def run(self, stop: threading.Event, resume_at: int | None, from_end: bool) -> Lines:
        """Open what has the name, read it, and when another takes the name, read that."""
        if self.path == "-":
            yield StreamState("ok")
            yield from self._stream(0, stop, forever=False)
            if not stop.is_set():
                yield StreamState("ended")
            return
        mark = resume_at
        said = ""
        old: _File | None = None
        try:
            while not stop.is_set():
                try:
                    fd = _open(self.path)
                except OSError as error:
                    why = f"waiting for {self.path}: {error.strerror}"
                    if not self.follow:
                        raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None
                    if said != why:
                        yield StreamState("reconnecting", why)
                    said, mark, from_end = why, mark or 0, False
                    stop.wait(TICK)
                    continue
                if said != "ok":
                    yield StreamState("ok")
                said = "ok"
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    file = _File(fd)
                    try:
                        if mark and mark > OFFSET and self.follow and not _holds(fd, mark):
                            yield from self._rotated(mark, stop)
                        begin, skip = _begin(fd, mark, from_end)
                        file.begin(begin)
                        mark = yield from self._file(file, skip, stop, old)
                    finally:
                        if old is not None:
                            os.close(old.fd)
                        old = file
                    if mark:  # it could not be read on: not left for another, but to be opened again
                        os.close(old.fd)
                        old, said = None, ""
                else:
                    try:
                        yield from self._stream(fd, stop, forever=self.follow)
                    finally:
                        os.close(fd)
                    mark = 0
                from_end = False
                if not self.follow:
                    break
        finally:
            if old is not None:
                os.close(old.fd)
        if not stop.is_set():
            yield StreamState("ended")

    def _texts(self, found: list[tuple[bytes, int, int]], stop: threading.Event) -> Iterator[Text]:
        """Lines of a file as Texts, those without a word left out, at the rate asked for."""
        for raw, lost, mark in found:
            if stop.is_set():
                return
            text = self.clean(raw, lost)
            if text:
                yield Text(text, time.time(), time.monotonic(), mark)
                if self.pause:
                    stop.wait(self.pause)

    def _once(self, found: list[tuple[bytes, int, int]], stop: threading.Event) -> Iterator[Text]:
        """The same of a stream: without a mark, and all of them, whatever `stop` says."""
        self.once.extend(found)
        while self.once:
            raw, lost, _ = self.once.popleft()
            text = self.clean(raw, lost)
            if text:
                yield Text(text, time.time(), time.monotonic())
                if self.pause:
                    stop.wait(self.pause)

    def _file(
        self, file: _File, skip: bool, stop: threading.Event, old: _File | None
    ) -> Generator[Text | StreamState, None, int]:
        """Lines of a regular file until it is left for another, or its end when it is not followed; and those that
        still come into `old`, the one that was left for it.

        Returns where to begin in what is opened next: 0, or the last mark when this file cannot be read on.
        """
        quiet_since: float | None = None
        while not stop.is_set():
            try:
                if old is not None:
                    yield from self._late(old, file.mark, stop)
                if file.cut:
                    log.warning("%s: was cut; reading from its new beginning", self.path)
                    yield from self._texts(file.rest(), stop)
                    file.begin(0)
                    skip = False
                found = file.read()
            except OSError as error:
                if not self.follow:
                    raise SourceError(f"{self.path}: cannot be read on ({error.strerror})") from None
                yield StreamState("reconnecting", f"{self.path}: {error.strerror}")
                stop.wait(GRACE)
                return file.mark
            if found is not None:
                if skip and found:
                    found, skip = found[1:], False
                yield from self._texts(found, stop)
                quiet_since = None
                continue
            if not self.follow or (quiet_since and time.monotonic() - quiet_since > GRACE):
                yield from self._texts([] if skip else file.rest(), stop)
                file.leave_at = time.monotonic() + LINGER
                return 0
            if _replaced(file.fd, self.path):
                quiet_since = quiet_since or time.monotonic()
            stop.wait(TICK)
        return 0

    def _late(self, old: _File, mark: int, stop: threading.Event) -> Iterator[Text]:
        """What a writer that has not been told puts into a file that was left; `mark` is where the new one is read."""
        if time.monotonic() > old.leave_at:
            yield from self._texts([(raw, lost, mark) for raw, lost, _ in old.rest()], stop)
            return
        while found := old.read():
            old.leave_at = time.monotonic() + LINGER
            yield from self._texts([(raw, lost, mark) for raw, lost, _ in found], stop)

    def _rotated(self, mark: int, stop: threading.Event) -> Iterator[Text]:
        """The rest of the file that was read before the start, where it stands beside its old name."""
        for path in _siblings(Path(self.path)):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode) or not _holds(fd, mark):
                    continue
                log.info("%s: reading the rest of %s first", self.path, path)
                file = _File(fd, mark & OFFSET)
                while not stop.is_set() and (found := file.read()) is not None:
                    yield from self._texts(found, stop)
                yield from self._texts(file.rest(), stop)
                return
            finally:
                os.close(fd)

    def _stream(self, fd: int, stop: threading.Event, *, forever: bool) -> Iterator[Text]:
        """Lines of a FIFO, a terminal or standard input until its end; `forever`: of one writer after the other, until
        something else has the name.

        A writer that closes ends its last line, newline or not. The FIFO stays open, so that no writer is ever cut off.
        Once `stop` is set, what was written before is read (a pipe holds CHUNK bytes) and given, the last line too.
        """
        split = Splitter()
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        stopping = False
        while not stopping:
            stopping = stop.is_set()
            events = poller.poll(0 if stopping else 1000 * TICK)
            if not events:
                if forever and _replaced(fd, self.path):
                    return
                continue
            if events[0][1] & select.POLLNVAL:
                raise SourceError("lines:- but standard input is closed; pipe something into it")
            try:
                chunk = os.read(fd, CHUNK)
            except BlockingIOError:
                continue
            except OSError as error:
                raise SourceError(f"lines:{self.path}: cannot be read on ({error.strerror})") from None
            if chunk:
                yield from self._once(split.feed(chunk), stop)
                continue
            yield from self._once(split.rest(), stop)
            if not forever or _replaced(fd, self.path):
                return
            stop.wait(TICK)
        yield from self._once(split.rest(), stop)


def _open(path: str) -> int:
    """A descriptor of what has the name. OSError when there is nothing to read."""
    # without O_NONBLOCK, opening a FIFO waits for a writer
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return fd


def _mark(at: int, head: bytes, tail: bytes) -> int:
    """The mark of an offset in a file that begins with `head` and has `tail` before the offset, CHECKED bytes each."""
    check = zlib.crc32(tail, zlib.crc32(head[:at]))
    return at & OFFSET | (1 + check % ((1 << 23) - 1)) << 40


def _holds(fd: int, mark: int) -> bool:
    """Whether a mark was made in this file, as far as can be told."""
    at = mark & OFFSET
    if mark < 0 or at > os.fstat(fd).st_size:
        return False
    head, tail = os.pread(fd, CHECKED, 0), os.pread(fd, min(CHECKED, at), max(0, at - CHECKED))
    if mark > OFFSET:
        return mark == _mark(at, head, tail)
    # one without a checksum, of an older version
    return at in (0, os.fstat(fd).st_size) or tail.endswith(b"\n")


def _begin(fd: int, mark: int | None, from_end: bool) -> tuple[int, bool]:
    """Where to begin, and whether what comes first is the rest of a line that began before.

    Another file than the one that was left is read from 0.
    """
    if mark is not None:
        return (mark & OFFSET if _holds(fd, mark) else 0), False
    size = os.fstat(fd).st_size
    if not from_end or not size:
        return 0, False
    return size, os.pread(fd, 1, size - 1) != b"\n"


def _siblings(path: Path) -> list[Path]:
    """What rotations may have made of a file, newest first: log.1, log-20260101, and for a.log also a-20260101.log."""
    dated = re.compile(rf"{re.escape(path.stem)}[-._][\d\-_.T]+{re.escape(path.suffix)}")
    found: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith((f"{path.name}.", f"{path.name}-")) or dated.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime, Path(entry.path)))
    return [path for _, path in sorted(found, reverse=True)]


def _replaced(fd: int, path: str) -> bool:
    """Whether another file has the name now. A name without a file is waited for."""
    try:
        there = Path(path).stat()
    except OSError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
