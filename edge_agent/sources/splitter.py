"""Bytes become lines, in UTF-8 or UTF-16, of bounded length."""

from __future__ import annotations

import codecs
import re

from edge_agent.sources.text import LONGEST


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
    return _by_zeros(head) or _by_signs(head)


def _by_zeros(head: bytes) -> str:
    """The same where each letter of a western script has one zero."""
    pairs = len(head) // 2
    zeros = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    for name, mine, other in (("utf-16-le", zeros[1], zeros[0]), ("utf-16-be", zeros[0], zeros[1])):
        if mine >= 0.4 * pairs and mine > other * 10:
            return name
    return ""


def _by_signs(head: bytes) -> str:
    """Of other scripts only spaces and line ends have zeros; and UTF-8 with stray zeros is text without them."""
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
