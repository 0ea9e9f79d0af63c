"""Pictures out of a stream of bytes: the parts of a multipart stream, or JPEGs one behind the other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

from edge_agent.errors import SourceError
from edge_agent.pictures.formats import END_OF_JPEG, JPEG, jpeg_frame

LONGEST_LINE = 8192
"""bytes of one header line of a part"""
TAIL = 4096
"""bytes at the end of a body in which its end marker is looked for, behind which may stand zeros and line ends"""
HEADER = re.compile(rb"content[-_](type|length)\s*:", re.IGNORECASE)
"""what a part of a camera's stream begins with, behind its delimiter"""
LENGTH = re.compile(rb"content-length\s*:\s*(\d{1,9})", re.IGNORECASE)


class _Bytes:
    """What has come and is not taken yet."""

    def __init__(self, more: Callable[[], bytes], what: str, limit: float, most: int, first: bytes) -> None:
        self.held = bytearray(first)
        self.more, self.what, self.limit, self.most = more, what, limit, most
        self.until = 0.0

    def renew(self) -> None:
        """The next picture may take as long again."""
        self.until = time.monotonic() + self.limit

    def grow(self) -> None:
        """Add the next bytes. SourceError when they come too late or are too many."""
        if time.monotonic() > self.until:
            raise SourceError(f"{self.what}: no whole picture within {self.limit:g} s")
        self.bound(len(self.held))
        self.held += self.more()

    def bound(self, size: int) -> None:
        """SourceError for a picture of so many bytes."""
        if size > self.most:
            raise SourceError(f"{self.what}: a picture of more than {self.most / (1 << 20):.3g} MiB")

    def take(self, count: int) -> bytes:
        """The first bytes, which are taken away."""
        taken = bytes(self.held[:count])
        del self.held[:count]
        return taken

    def line(self) -> bytes:
        """The next line without its end, or as much of it as a line may have."""
        looked = 0
        while (end := self.held.find(b"\n", looked)) < 0:
            looked = len(self.held)
            if looked > LONGEST_LINE:
                return self.take(looked)
            self.grow()
        return self.take(end + 1).strip()


def multipart(
    more: Callable[[], bytes],
    what: str,
    limit: float,
    most: int,
    arrived: Callable[[], bool] = lambda: False,
    boundary: str = "",
    first: bytes = b"",
) -> Iterator[bytes]:
    """The bodies of a multipart stream (RFC 2046, section 5.1), as cameras send them.

    The delimiter is the first line that begins with --, or is the stated `boundary`, or stands before a header of a
    part: cameras leave out its dashes, misstate it, or begin without it. A stated length is believed unless the body
    does not end as a JPEG does and shows that it is wrong. A body of no stated length that ends as a JPEG does, with
    nothing behind it yet, is whole: its delimiter comes with the next one.

    `first`: what was read already; `more` gives the next bytes or raises; `arrived` says whether it has some at once. A
    body behind which another whole one has arrived already is left out: the consumer is slower than they come,
    and would get ever older ones. SourceError when no whole part comes within `limit` seconds, or one is larger than
    `most` bytes.
    """
    come = _Bytes(more, what, limit, most, first)
    held = come.held
    delimiter, named = b"", boundary.encode("latin-1", "replace").strip(b"-")
    while True:
        come.renew()
        found = _delimiter(come, delimiter, named)
        if found is None:
            return
        delimiter, line = found
        end = b"\n" + delimiter if delimiter else b""
        length = _whole(come, _stated(come, line), end, arrived)
        body = come.take(length)
        # the delimiter of the next body and that of the one after it
        yield from _newest(come, body, arrived, lambda end=end: bool(end) and held.count(end) >= 2)  # type: ignore[misc]


def _delimiter(come: _Bytes, delimiter: bytes, named: bytes) -> tuple[bytes, bytes] | None:
    """The delimiter, once a part begins, and the first line behind it; None behind the last part."""
    line, before = come.line(), b""
    while not _begins(line, delimiter, named):
        if HEADER.match(line):
            # a part without its delimiter, or with one that looks like nothing
            return delimiter or before, line
        line, before = come.line(), line
    if delimiter and line == delimiter + b"--":
        return None
    return delimiter or line, come.line()


def _stated(come: _Bytes, line: bytes) -> int:
    """The length of the body that the headers from `line` on state; 0 for none."""
    length = 0
    while line:
        stated = LENGTH.fullmatch(line)
        length = int(stated[1]) if stated else length
        line = come.line()
    come.bound(length)
    return length


def _whole(come: _Bytes, length: int, end: bytes, arrived: Callable[[], bool]) -> int:
    """The length of the body, once all of it is here; `length`: as it is stated, 0 where it is not."""
    held = come.held
    if length:
        while len(held) < length:
            come.grow()
        length = _right(held, length, end)
    if length:
        return length
    looked = 0
    while (length := _ends(held, end, looked)) < 0:
        looked = max(0, len(held) - len(end))
        tail = held[-TAIL:]
        if not arrived() and tail.rstrip().endswith(END_OF_JPEG):
            return len(held) - len(tail) + len(tail.rstrip())
        come.grow()
    return length


def _begins(line: bytes, delimiter: bytes, named: bytes) -> bool:
    if delimiter:
        return line.startswith(delimiter)
    return (line.startswith(b"--") and len(line) > 2) or (bool(named) and line.strip(b"-") == named)


def _right(held: bytearray, length: int, end: bytes) -> int:
    """The length of a body that was said to be `length`; 0: it is to be found."""
    tail = held[max(0, length - TAIL) : length]
    if not held.startswith(JPEG) or tail.rstrip(b"\0\r\n").endswith(END_OF_JPEG) or not end:
        return length
    inside = held.find(end, 0, length)
    if inside >= 0:
        return inside
    behind = held[length : length + 2]
    return length if behind[:1] in (b"", b"\r", b"\n", end[1:2]) else 0


def _ends(held: bytearray, end: bytes, looked: int) -> int:
    """Where a body without a length ends; -1: not yet."""
    if end:
        return held.find(end, looked)
    frame = jpeg_frame(held)
    at = held.find(END_OF_JPEG, frame.scan) if frame else -1
    return at + len(END_OF_JPEG) if at >= 0 else -1


def _newest(come: _Bytes, body: bytes, arrived: Callable[[], bool], another: Callable[[], bool]) -> Iterator[bytes]:
    """The body, unless what has arrived by now holds `another` whole one."""
    try:
        while arrived() and len(come.held) <= come.most:
            come.held += come.more()
    except SourceError:
        yield body
        raise
    if not another():
        yield body


def jpegs(
    more: Callable[[], bytes],
    what: str,
    limit: float,
    most: int,
    arrived: Callable[[], bool] = lambda: False,
    first: bytes = b"",
) -> Iterator[bytes]:
    """JPEGs that follow each other with nothing between them, or with anything; as `multipart` otherwise.

    One that is cut off by the next is left out.
    """
    come = _Bytes(more, what, limit, most, first)
    held = come.held
    while True:
        come.renew()
        while (end := _to_the_first(held)) < 0:
            come.grow()
        body = come.take(end)
        again = body.rfind(JPEG + b"\xff", scan.scan) if (scan := jpeg_frame(body)) else -1
        yield from _newest(come, body[max(0, again) :], arrived, lambda: _to_the_first(held) >= 0)


def _to_the_first(held: bytearray) -> int:
    """Where the first JPEG ends; -1: not yet. What lies before it is thrown away."""
    begin = held.find(JPEG + b"\xff")
    del held[: begin if begin >= 0 else max(0, len(held) - len(JPEG))]
    return _ends(held, b"", 0) if begin >= 0 else -1
