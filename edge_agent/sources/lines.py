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

import codecs
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
from functools import partial
from pathlib import Path

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import Here, Opened
from edge_agent.sources.packed import ENDINGS, Packed, open_regular, packed_as
from edge_agent.sources.text import LONGEST, cleaner
from edge_agent.types import StreamState, Text
from edge_agent.uri import Uri, choice, number, switch

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
Pread = Callable[[int, int], bytes]
"""(bytes at most, offset) -> bytes; b"" at the end"""


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
        if path.exists() and not _has_lines(path):
            raise SourceError(f"{path}: a device that has no lines; give a file, a FIFO or a terminal")
        if follow and path.is_file() and (name := packed_as(_begins(path))):
            raise SourceError(f"{path}: is compressed ({name}) and cannot be followed; add ?follow=false")
        if not follow and not path.exists():
            raise SourceError(f"{path}: no such file; with follow=true it would be waited for")
    return Opened(
        run=lambda stop: walk.run(stop, here.resume_at, from_end),
        yields=Text,
        live=False,
        left=lambda: len(walk.once),
    )


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


class Splitter:
    """Cuts bytes into lines, keeping at most LONGEST bytes of each however long it is, without NULs before it."""

    __slots__ = ("_kept", "_lost", "_odd", "at", "wide")

    def __init__(self, at: int = 0, wide: str = "") -> None:
        self._kept = bytearray()
        self._odd = b""
        """half a character of UTF-16, which the next bytes complete"""
        self._lost = 0
        self.at = at
        """offset behind the last byte fed"""
        self.wide = wide
        """utf-16-le or utf-16-be; "" for UTF-8 and what is like it"""

    def feed(self, chunk: bytes) -> list[tuple[bytes, int, int]]:
        """The lines that `chunk` completes: (bytes of it in UTF-8 without its end, bytes dropped, offset of the next
        line). CR LF ends a line and an empty one.
        """
        found, begin = [], 0
        at, size = self.at - len(self._odd), 1
        self.at += len(chunk)
        if self.wide:
            size, chunk = 2, self._odd + chunk
            whole = len(chunk) & ~1
            chunk, self._odd = chunk[:whole], chunk[whole:]
            ends = [end.start() for end in _ENDS[self.wide].finditer(chunk) if not end.start() % 2]
        else:
            ends = [end.start() for end in _ENDS[""].finditer(chunk)]
        for end in ends:
            self._keep(chunk[begin:end])
            begin = end + size
            found.append(self._take(at + begin))
        self._keep(chunk[begin:])
        return found

    def rest(self) -> list[tuple[bytes, int, int]]:
        """The line that nothing will end any more, if there is one."""
        return [self._take(self.at)] if self._kept else []

    def _keep(self, piece: bytes) -> None:
        if not self._kept:  # a file that was cut while its writer holds its place begins with a hole of any size
            zeros = len(piece) - len(piece.lstrip(b"\0"))
            piece = piece[zeros & ~1 if self.wide else zeros :]
        room = LONGEST - len(self._kept)
        self._kept += piece[:room]
        self._lost += max(0, len(piece) - room)

    def _take(self, mark: int) -> tuple[bytes, int, int]:
        raw = bytes(self._kept)
        line = (raw.decode(self.wide, "replace").encode() if self.wide else raw), self._lost, mark
        self._kept.clear()
        self._lost = 0
        return line


_ENDS = {
    "": re.compile(rb"[\n\r]"),
    "utf-16-le": re.compile(rb"[\n\r]\0"),
    "utf-16-be": re.compile(rb"\0[\n\r]"),
}
"""the end of a line; two that overlap are never both aligned"""


def width(head: bytes) -> str:
    """`Splitter.wide` of a text that begins with `head`, which may end anywhere."""
    for mark, name in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return ""
    pairs = len(head) // 2
    zeros = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    for name, mine, other in (("utf-16-le", zeros[1], zeros[0]), ("utf-16-be", zeros[0], zeros[1])):
        # each letter of a western script has one
        if mine >= 0.4 * pairs and mine > other * 10:
            return name
    # of other scripts only spaces and line ends have; and UTF-8 with stray zeros is text without them
    fits = [name for name in ("utf-16-le", "utf-16-be") if _is_text(head, name, "\n\r ")]
    return fits[0] if len(fits) == 1 and not _is_text(head.replace(b"\0", b""), "utf-8", "") else ""


def _is_text(head: bytes, code: str, among: str) -> bool:
    """Whether `head` can be text in this code: all printable, with one of the signs `among`, where there are any."""
    try:
        text = codecs.getincrementaldecoder(code)().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\n\r\x1b\ufeff" for c in text) and (
        not among or any(c in text for c in among)
    )


class _File:
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
        self.mark = _mark(at, self._head, self._tail)
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
            (raw, lost, _mark(at, self._head, known[max(0, at - before - CHECKED) : at - before]))
            for raw, lost, at in self._split.feed(chunk)
        ]
        self._tail = known[-CHECKED:]
        self.mark = found[-1][2] if found else self.mark
        return found

    def rest(self) -> list[tuple[bytes, int, int]]:
        """The line that nothing will end any more, if there is one."""
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
                    file = _File(partial(os.pread, fd), fd)
                    try:
                        if packed := packed_as(file.pread(8, 0)):
                            yield from self._packed(packed, stop)
                            break
                        if mark and mark > OFFSET and self.follow and not _holds(file.pread, mark):
                            yield from self._rotated(mark, stop)
                        elif old is not None and not mark:
                            yield from self._between(_since(old, self.path), stop)
                        begin, skip = _begin(file.pread, mark, os.fstat(fd).st_size if from_end else None)
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
                    # its copy may hold what came just before; then also the line that had begun
                    if not self.follow or not (yield from self._rotated(file.mark, stop, cut=True)):
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

    def _rotated(
        self, mark: int, stop: threading.Event, cut: bool = False, tries: int = 3
    ) -> Generator[Text, None, bool]:
        """The rest of the file that was read before, where it stands beside its old name, and the files that had the
        name between then and now; whether it was found.

        `cut`: it is the one that is open, of which a copy may have been made before it was cut.
        """
        found = None
        refused, moved = "", False
        siblings = _siblings(Path(self.path)) if mark & OFFSET else []
        # a copy that somebody made may hold less than what the rotation kept
        for path in sorted(siblings, key=lambda path: not _is_rotated(path, self.path)):
            try:
                with _sibling(path) as pread:
                    if not _holds(pread, mark):
                        continue
                    found = path
                    log.info("%s: reading the rest of %s first", self.path, path)
                    yield from self._whole(_File(pread), mark & OFFSET, stop)
            except SourceError as error:
                refused = refused or f"; {path} {error}"
            except OSError as error:
                moved = moved or isinstance(error, FileNotFoundError)
                if found:
                    log.warning("%s: %s cannot be read to its end (%s)", self.path, path, error)
            if found:
                yield from self._between(_newer(siblings, found, self.path), stop)
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
                with _sibling(path) as pread:
                    log.info("%s: reading %s, which had its name meanwhile", self.path, path)
                    yield from self._whole(_File(pread), 0, stop)
            except (SourceError, OSError) as error:
                log.warning("%s: %s is not read to its end: %s", self.path, path, error)

    def _whole(self, file: _File, at: int, stop: threading.Event) -> Iterator[Text]:
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
            with _sibling(Path(self.path)) as pread:
                yield from self._whole(_File(pread), 0, stop)
        except (SourceError, OSError) as error:
            raise SourceError(f"{self.path}: cannot be read to its end: {error}") from None

    def _stream(self, fd: int, stop: threading.Event, *, forever: bool) -> Iterator[Text]:
        """Lines of a FIFO, a terminal or standard input until its end; `forever`: of one writer after the other, until
        something else has the name.

        A writer that closes ends its last line, newline or not. The FIFO stays open, so that no writer is ever cut off.
        Once `stop` is set, what was written before is read (a pipe holds CHUNK bytes) and given, the last line too.
        """
        split: Splitter | None = None
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
                split = split or Splitter(0, width(chunk[:CHECKED]))
                yield from self._once(split.feed(chunk), stop)
                continue
            yield from self._once(split.rest() if split else [], stop)
            if not forever or _replaced(fd, self.path):
                return
            stop.wait(TICK)
        yield from self._once(split.rest() if split else [], stop)


def _begins(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(8)
    return b""


@contextlib.contextmanager
def _sibling(path: Path) -> Iterator[Pread]:
    """The bytes of a file beside the one that is followed. OSError; SourceError for a format that is not read."""
    fd = open_regular(path)
    try:
        packed = Packed(path) if packed_as(os.pread(fd, 8, 0)) else None
        if packed is None and path.name.endswith(ENDINGS):
            raise SourceError("is not compressed as its name says")
        try:
            yield packed.pread if packed else partial(os.pread, fd)
        finally:
            if packed:
                packed.close()
    finally:
        os.close(fd)


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


def _holds(pread: Pread, mark: int) -> bool:
    """Whether a mark was made in this file, as far as can be told."""
    at = mark & OFFSET
    head, tail = pread(CHECKED, 0), pread(min(CHECKED, at), max(0, at - CHECKED))
    if mark < 0 or len(tail) < min(CHECKED, at):
        return False
    if mark > OFFSET:
        return mark == _mark(at, head, tail)
    # one without a checksum, of an older version
    return at == 0 or not pread(1, at) or tail.endswith(b"\n")


def _begin(pread: Pread, mark: int | None, size: int | None) -> tuple[int, bool]:
    """Where to begin, and whether what comes first is the rest of a line that began before.

    Another file than the one that was left is read from 0. `size`: of the file, where it is to begin at its end.
    """
    if mark is not None:
        return (mark & OFFSET if _holds(pread, mark) else 0), False
    if not size:
        return 0, False
    return size, not pread(2, max(0, size - 2)).endswith((b"\n", b"\r", b"\n\0", b"\r\0"))


def _siblings(path: Path) -> list[Path]:
    """What rotations may have made of a file, newest first: log.1, log-20260101, and for a.log also a-20260101.log; of
    one that is being compressed only the plain one.
    """
    found: dict[str, tuple[float, Path]] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith((f"{path.name}.", f"{path.name}-")) or _is_rotated(Path(entry.path), str(path)):
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_mtime, Path(entry.path)
    plain = [(at, one) for name, (at, one) in found.items() if _plain(name) == name or _plain(name) not in found]
    return [one for _, one in sorted(plain, reverse=True)]


def _plain(name: str) -> str:
    """A file's name before it was compressed."""
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def _since(old: _File, path: str) -> list[Path]:
    """Files that had the name between the one that was left and the one that has it now, and were rotated at once."""
    siblings = _siblings(Path(path))
    left = os.fstat(old.fd)
    for one in siblings:
        with contextlib.suppress(OSError):
            there = one.stat()
            if (there.st_dev, there.st_ino) == (left.st_dev, left.st_ino):
                return _newer(siblings, one, path)
    return []


def _newer(siblings: list[Path], than: Path, path: str) -> list[Path]:
    """Those of the siblings that the same kind of rotation made after this one, the oldest first: by their numbers or
    dates, as what compresses them may not keep their times.
    """

    def turn(one: Path) -> tuple[str, int]:
        digits = "".join(re.findall(r"\d+", _plain(one.name).replace(Path(path).stem, "", 1)))
        return ("number", -int(digits)) if len(digits) < 4 else (f"date of {len(digits)}", int(digits))

    kind, mine = turn(than) if _is_rotated(than, path) else ("", 0)
    turns = [(*turn(one), one) for one in siblings if _is_rotated(one, path)]
    return [one for its_kind, its, one in sorted(turns) if its_kind == kind and its > mine]


def _is_rotated(path: Path, of: str) -> bool:
    """Whether a file has the name that a rotation gives, with a number or a date; not any copy that somebody made."""
    log, given = Path(of), r"[-._]\d[\d\-_.T:]*"
    name = _plain(path.name)
    return bool(
        re.fullmatch(re.escape(log.name) + given, name)
        or re.fullmatch(re.escape(log.stem) + given + re.escape(log.suffix), name)
    )


def _replaced(fd: int, path: str) -> bool:
    """Whether another file has the name now. A name without a file is waited for."""
    try:
        there = Path(path).stat()
    except OSError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
