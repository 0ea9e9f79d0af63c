"""``lines:PATH``: a file followed as it grows, a FIFO, or ``lines:-``, standard input.

Options: ``follow=false`` reads a file once to its end; ``from=end`` skips what is there at first; ``rate=N`` gives N
lines a second. A file is followed by name, like tail -F: through rotation (another file takes the name) and
truncation. What cannot be told apart from a file that merely grew: one that was cut and refilled with the same bytes.
A line ends with LF, CR LF or CR; UTF-16 is known by its byte order mark, or by the zeros in it.

A mark is an offset and a checksum of what stands before it, so that another file under the name is known as another
one, and the file that was left is found again beside it under the name that a rotation gave it, compressed or not.
Those that took its name after it and were rotated too are read after it. What cannot be found is said.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.fifo import TICK, Stream
from edge_agent.sources.followed import Followed, check
from edge_agent.sources.packed import packed_as
from edge_agent.sources.rotation import (
    OFFSET,
    holds,
    is_replaced,
    is_rotated,
    newer,
    opened,
    rotated_since,
    siblings_of,
    where_to_begin,
)
from edge_agent.sources.text import cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri, choice, number, switch

KNOWN = {"follow": "true", "from": "start", "rate": ""}

GRACE = 1.0
"""seconds that a file must be quiet after another took its name, before it is left: its writer may not know yet"""

LINGER = 60.0
"""seconds without a line after which a file that was left is no longer looked at"""

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
    name = uri.rest if uri.rest == "-" else str(Path(uri.rest).expanduser())
    rate = number(uri, KNOWN, "rate", 0.001, 100_000)
    clean, pause = cleaner(f"lines:{uri.rest}"), 1 / rate if rate else 0.0
    walk = _Walk(name, follow, clean, pause, Stream(name, clean, pause))
    if name != "-":
        check(Path(name), follow)
    return Opened(
        run=lambda stop: walk.run(stop, here.resume_at, from_end),
        yields=Text,
        live=False,
        left=lambda: len(walk.stream.once),
    )


@dataclass(frozen=True, slots=True)
class _Walk:
    """What was asked for."""

    path: str
    follow: bool
    clean: Callable[[bytes, int], str]
    pause: float
    stream: Stream
    """of the same path, where it is no file"""

    def run(self, stop: threading.Event, resume_at: int | None, from_end: bool) -> Lines:
        """Open what has the name, read it, and when another takes the name, read that."""
        if self.path == "-":
            yield StreamState("ok")
            yield from self.stream.lines(0, stop, forever=False)
        else:
            yield from self._by_name(stop, resume_at, from_end)
        if not stop.is_set():
            yield StreamState("ended")

    def _by_name(self, stop: threading.Event, mark: int | None, from_end: bool) -> Lines:
        said = ""
        old: Followed | None = None
        try:
            while not stop.is_set():
                try:
                    fd = _open(self.path)
                except OSError as error:
                    if not self.follow:
                        raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None
                    why = f"waiting for {self.path}: {error.strerror}"
                    if said != why:
                        yield StreamState("reconnecting", why)
                    said, mark, from_end = why, mark or 0, False
                    stop.wait(TICK)
                    continue
                # what comes from now on is read: known before anybody hears that all is well
                end = os.fstat(fd).st_size if from_end else None
                if said != "ok":
                    yield StreamState("ok")
                said = "ok"
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    file = Followed(partial(os.pread, fd), fd)
                    try:
                        mark = yield from self._regular(file, old, mark, end, stop)
                    finally:
                        if old is not None:
                            os.close(old.fd)
                        old = file
                    if mark:  # it could not be read on: not left for another, but to be opened again
                        os.close(old.fd)
                        old, said = None, ""
                else:
                    try:
                        yield from self.stream.lines(fd, stop, forever=self.follow)
                    finally:
                        os.close(fd)
                    mark = 0
                from_end = False
                if not self.follow:
                    break
        finally:
            if old is not None:
                os.close(old.fd)

    def _regular(
        self, file: Followed, old: Followed | None, mark: int | None, end: int | None, stop: threading.Event
    ) -> Generator[Text | StreamState, None, int]:
        """Lines of the file that has the name now, first of those that had it since `mark` or `old`; as `_file`."""
        if packed := packed_as(file.pread(8, 0)):
            yield from self._packed(packed, stop)
            return 0
        if mark and mark > OFFSET and self.follow and not holds(file.pread, mark):
            yield from self._rotated(mark, stop)
        elif old is not None and not mark:
            yield from self._between(rotated_since(old.fd, self.path), stop)
        begin, skip = where_to_begin(file.pread, mark, end)
        file.begin(begin)
        return (yield from self._file(file, skip, stop, old))

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

    def _file(
        self, file: Followed, skip: bool, stop: threading.Event, old: Followed | None
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
                    yield from self._cut(file, stop)
                    skip = False
                found = file.read()
            except OSError as error:
                if not self.follow:
                    raise SourceError(f"{self.path}: cannot be read on ({error.strerror})") from None
                yield StreamState("reconnecting", f"{self.path}: {error.strerror}")
                stop.wait(GRACE)
                return file.mark
            if found is not None:
                yield from self._texts(found[skip:], stop)
                skip, quiet_since = skip and not found, None
                continue
            if not self.follow or (quiet_since and time.monotonic() - quiet_since > GRACE):
                yield from self._texts([] if skip else file.rest(), stop)
                file.leave_at = time.monotonic() + LINGER
                return 0
            if is_replaced(file.fd, self.path):
                quiet_since = quiet_since or time.monotonic()
            stop.wait(TICK)
        return 0

    def _cut(self, file: Followed, stop: threading.Event) -> Iterator[Text]:
        """A file that was cut is read from its new beginning, after what a copy of it holds."""
        log.warning("%s: was cut; reading from its new beginning", self.path)
        # its copy may hold what came just before; then also the line that had begun
        if not self.follow or not (yield from self._rotated(file.mark, stop, cut=True)):
            yield from self._texts(file.rest(), stop)
        file.begin(0)

    def _late(self, old: Followed, mark: int, stop: threading.Event) -> Iterator[Text]:
        """What a writer that has not been told puts into a file that was left; `mark` is where the new one is read."""
        if time.monotonic() > old.leave_at:
            yield from self._texts([(raw, lost, mark) for raw, lost, _ in old.rest()], stop)
            return
        while found := old.read():
            old.leave_at = time.monotonic() + LINGER
            yield from self._texts([(raw, lost, mark) for raw, lost, _ in found], stop)

    def _rotated(
        self, mark: int, stop: threading.Event, cut: bool = False, tries: int = 3
    ) -> Generator[Text, None, bool]:
        """The rest of the file that was read before, where it lies under another name, and the files that had the
        name between then and now; whether it was found.

        `cut`: it is the one that is open, of which a copy may have been made before it was cut.
        """
        found = None
        refused, moved = "", False
        siblings = siblings_of(Path(self.path)) if mark & OFFSET else []
        # a copy that somebody made may hold less than what the rotation kept
        for path in sorted(siblings, key=lambda path: not is_rotated(path, self.path)):
            try:
                with opened(path) as pread:
                    if not holds(pread, mark):
                        continue
                    found = path
                    log.info("%s: reading the rest of %s first", self.path, path)
                    yield from self._whole(Followed(pread), mark & OFFSET, stop)
            except SourceError as error:
                refused = refused or f"; {path} {error}"
            except OSError as error:
                moved = moved or isinstance(error, FileNotFoundError)
                if found:
                    log.warning("%s: %s cannot be read to its end (%s)", self.path, path, error)
            if found:
                yield from self._between(newer(siblings, found, self.path), stop)
                return True
        if moved and tries:  # renamed or compressed since the folder was read
            return (yield from self._rotated(mark, stop, cut, tries - 1))
        if refused or not cut:
            lost = "what came into it after the last text that was dealt with is not read"
            log.warning("%s: the file that was read before is gone, and %s%s", self.path, lost, refused)
        return False

    def _between(self, paths: list[Path], stop: threading.Event) -> Iterator[Text]:
        """All of the files that were never read, as each had the name only while nobody looked."""
        for path in paths:
            try:
                with opened(path) as pread:
                    log.info("%s: reading %s, which had its name meanwhile", self.path, path)
                    yield from self._whole(Followed(pread), 0, stop)
            except (SourceError, OSError) as error:
                log.warning("%s: %s is not read to its end: %s", self.path, path, error)

    def _whole(self, file: Followed, at: int, stop: threading.Event) -> Iterator[Text]:
        """Lines of a file that nobody writes any more, from an offset on."""
        file.begin(at)
        while not stop.is_set() and (found := file.read()) is not None:
            yield from self._texts(found, stop)
        yield from self._texts(file.rest(), stop)

    def _packed(self, name: str, stop: threading.Event) -> Iterator[Text]:
        """Lines of a compressed file that stands under the name itself. SourceError where it cannot be read."""
        if self.follow:
            raise SourceError(f"{self.path}: is compressed ({name}) and cannot be followed; add ?follow=false")
        try:
            with opened(Path(self.path)) as pread:
                yield from self._whole(Followed(pread), 0, stop)
        except (SourceError, OSError) as error:
            raise SourceError(f"{self.path}: cannot be read to its end: {error}") from None


def _open(path: str) -> int:
    """A descriptor of what has the name. OSError when there is nothing to read."""
    # without O_NONBLOCK, opening a FIFO waits for a writer
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return fd
