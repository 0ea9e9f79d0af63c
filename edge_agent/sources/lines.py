"""``lines:PATH``: a file followed as it grows, a FIFO, or ``lines:-``, standard input.

Options: ``follow=false`` reads a file once to its end; ``from=end`` skips what is there at first; ``rate=N`` gives N
lines a second. A file is followed by name, like tail -F: through rotation (another file takes the name) and
truncation. What cannot be told apart from a file that merely grew: one that was cut and refilled beyond the old place
within TICK seconds.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import threading
import time
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
    """Cuts bytes into lines, keeping at most LONGEST bytes of each however long it is."""

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
        room = LONGEST - len(self._kept)
        self._kept += piece[:room]
        self._lost += max(0, len(piece) - room)

    def _take(self, mark: int) -> tuple[bytes, int, int]:
        line = bytes(self._kept), self._lost, mark
        self._kept.clear()
        self._lost = 0
        return line


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
        begin: int | None = resume_at
        said = ""
        while not stop.is_set():
            try:
                # without O_NONBLOCK, opening a FIFO waits for a writer
                fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                why = f"waiting for {self.path}: {error.strerror}"
                if not self.follow:
                    raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None
                if said != why:
                    yield StreamState("reconnecting", why)
                said, begin, from_end = why, begin or 0, False
                stop.wait(TICK)
                continue
            try:
                if said != "ok":
                    yield StreamState("ok")
                said = "ok"
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    yield from self._stream(fd, stop, forever=self.follow)
                else:
                    begin, skip = _begin(fd, begin, from_end)
                    begin = yield from self._file(fd, begin, skip, stop)
                    said = "" if begin else said
            finally:
                os.close(fd)
            from_end = False
            if not self.follow:
                break
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

    def _file(self, fd: int, begin: int, skip: bool, stop: threading.Event) -> Generator[Text | StreamState, None, int]:
        """Lines of a regular file until it is left for another, or its end when it is not followed.

        Returns where to begin in what is opened next: 0, or the last mark when this file cannot be read on.
        """
        split, mark = Splitter(begin), begin
        quiet_since: float | None = None
        while not stop.is_set():
            try:
                if os.fstat(fd).st_size < split.at:
                    log.warning("%s: was cut; reading from its new beginning", self.path)
                    yield from self._texts(split.rest(), stop)
                    split, skip = Splitter(), False
                chunk = os.pread(fd, CHUNK, split.at)
            except OSError as error:
                if not self.follow:
                    raise SourceError(f"{self.path}: cannot be read on ({error.strerror})") from None
                yield StreamState("reconnecting", f"{self.path}: {error.strerror}")
                stop.wait(GRACE)
                return mark
            if chunk:
                found = split.feed(chunk)
                if skip and found:
                    found, skip = found[1:], False
                yield from self._texts(found, stop)
                mark = found[-1][2] if found else mark
                quiet_since = None
                continue
            if not self.follow or (quiet_since and time.monotonic() - quiet_since > GRACE):
                yield from self._texts([] if skip else split.rest(), stop)
                return 0
            if _replaced(fd, self.path):
                quiet_since = quiet_since or time.monotonic()
            stop.wait(TICK)
        return 0

    def _stream(self, fd: int, stop: threading.Event, *, forever: bool) -> Iterator[Text]:
        """Lines of a FIFO, a terminal or standard input until its end; `forever`: until the next writer, and so on.

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
            if not forever:
                return
            stop.wait(TICK)
        yield from self._once(split.rest(), stop)


def _begin(fd: int, resume_at: int | None, from_end: bool) -> tuple[int, bool]:
    """Where to begin, and whether what comes first is the rest of a line that began before.

    Another file than the one that was left, being shorter or without a line that ends at the mark, is read from 0.
    """
    size = os.fstat(fd).st_size
    if resume_at is not None:
        if not 0 <= resume_at <= size:
            return 0, False
        known = resume_at in (0, size) or os.pread(fd, 1, resume_at - 1) == b"\n"
        return (resume_at if known else 0), False
    if not from_end or not size:
        return 0, False
    return size, os.pread(fd, 1, size - 1) != b"\n"


def _replaced(fd: int, path: str) -> bool:
    """Whether another file has the name now. A name without a file is waited for."""
    try:
        there = Path(path).stat()
    except OSError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
