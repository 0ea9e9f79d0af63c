"""Where a file that is followed went when a rotation took its name, and how far it was read: its mark."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from edge_agent.errors import SourceError
from edge_agent.files import open_regular
from edge_agent.sources.packed import ENDINGS, Packed, packed_as

OFFSET = (1 << 40) - 1
"""the bits of a mark that hold the offset, so up to 1 TB; the checksum, from 1 to 2**23 - 1, stands above them"""
CHECKED = 256
"""bytes at the beginning of a file, and before a mark, that its checksum covers"""
Pread = Callable[[int, int], bytes]
"""(bytes at most, offset) -> bytes; b"" at the end"""


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    with contextlib.suppress(OSError), os.fdopen(open_regular(path), "rb") as file:
        return file.read(8)
    return b""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Pread]:
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


def mark_of(at: int, head: bytes, tail: bytes) -> int:
    """The mark of an offset in a file that begins with `head` and has `tail` before the offset, CHECKED bytes each."""
    check = zlib.crc32(tail, zlib.crc32(head[:at]))
    return at & OFFSET | (1 + check % ((1 << 23) - 1)) << 40


def holds(pread: Pread, mark: int) -> bool:
    """Whether a mark was made in this file, as far as can be told."""
    at = mark & OFFSET
    head, tail = pread(CHECKED, 0), pread(min(CHECKED, at), max(0, at - CHECKED))
    if mark < 0 or len(tail) < min(CHECKED, at):
        return False
    if mark > OFFSET:
        return mark == mark_of(at, head, tail)
    # one without a checksum, of an older version
    return at == 0 or not pread(1, at) or tail.endswith(b"\n")


def where_to_begin(pread: Pread, mark: int | None, size: int | None) -> tuple[int, bool]:
    """Where to begin, and whether what comes first is the rest of a line that began before.

    Another file than the one that was left is read from 0. `size`: of the file, where it is to begin at its end.
    """
    if mark is not None:
        return (mark & OFFSET if holds(pread, mark) else 0), False
    if not size:
        return 0, False
    return size, not pread(2, max(0, size - 2)).endswith((b"\n", b"\r", b"\n\0", b"\r\0"))


def siblings_of(path: Path) -> list[Path]:
    """What rotations may have made of a file, newest first: log.1, log-20260101, and for a.log also a-20260101.log; of
    one that is being compressed only the plain one.
    """
    found: dict[str, tuple[float, Path]] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(path.parent):
            if entry.name.startswith((f"{path.name}.", f"{path.name}-")) or is_rotated(Path(entry.path), str(path)):
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_mtime, Path(entry.path)
    plain = [(at, one) for name, (at, one) in found.items() if _plain(name) == name or _plain(name) not in found]
    return [one for _, one in sorted(plain, reverse=True)]


def _plain(name: str) -> str:
    """A file's name before it was compressed."""
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def rotated_since(fd: int, path: str) -> list[Path]:
    """Files that had the name between the open one that was left and the one that has it now."""
    siblings = siblings_of(Path(path))
    left = os.fstat(fd)
    for one in siblings:
        with contextlib.suppress(OSError):
            there = one.stat()
            if (there.st_dev, there.st_ino) == (left.st_dev, left.st_ino):
                return newer(siblings, one, path)
    return []


def newer(siblings: list[Path], than: Path, path: str) -> list[Path]:
    """Those of the siblings that the same kind of rotation made after this one, the oldest first: by their numbers or
    dates, as what compresses them may not keep their times.
    """

    def turn(one: Path) -> tuple[str, int]:
        digits = "".join(re.findall(r"\d+", _plain(one.name).replace(Path(path).stem, "", 1)))
        return ("number", -int(digits)) if len(digits) < 4 else (f"date of {len(digits)}", int(digits))

    kind, mine = turn(than) if is_rotated(than, path) else ("", 0)
    turns = [(*turn(one), one) for one in siblings if is_rotated(one, path)]
    return [one for its_kind, its, one in sorted(turns) if its_kind == kind and its > mine]


def is_rotated(path: Path, of: str) -> bool:
    """Whether a file has the name that a rotation gives, with a number or a date; not any copy that somebody made."""
    log, given = Path(of), r"[-._]\d[\d\-_.T:]*"
    name = _plain(path.name)
    return bool(
        re.fullmatch(re.escape(log.name) + given, name)
        or re.fullmatch(re.escape(log.stem) + given + re.escape(log.suffix), name)
    )


def is_replaced(fd: int, path: str) -> bool:
    """Whether another file has the name now. A name without a file is waited for."""
    try:
        there = Path(path).stat()
    except OSError:
        return False
    mine = os.fstat(fd)
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
