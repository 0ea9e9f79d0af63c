"""Checksummed records: how one stands in a file, and how they are found again.

A record is 4 bytes marker, u32 length of the body, u64 seq, u32 CRC-32 of (length, seq, body), body, all little-endian.
A reader that meets a bad one looks for the next marker whose record checks out, so damage costs what was hit and
nothing behind it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MARKER = b"\xed\x6e\x10\xc5"
RECORD = struct.Struct("<4sIQI")
CHECKED = struct.Struct("<IQ")
LONGEST = 256 * 1024
"""bytes of a body; anything longer is damage"""


def pack(seq: int, body: bytes) -> bytes:
    """One record as it stands in the file."""
    crc = zlib.crc32(body, zlib.crc32(CHECKED.pack(len(body), seq)))
    return RECORD.pack(MARKER, len(body), seq, crc) + body


@dataclass(frozen=True, slots=True)
class SegmentRead:
    """One step of reading: a record, or a stretch of damage (`body` None)."""

    seq: int
    """of damage: the highest one read before it in its segment, 0 where that is not known"""
    body: bytes | None
    end: int
    """offset in `data` behind it"""


def parse(data: bytes, final: bool, at: int = 0) -> Iterator[SegmentRead]:
    """The records in `data` from `at` on; what cannot be one is yielded as damage.

    `final` says that nothing follows, so that a record cut short is damage too; else parsing stops before it.
    """
    damage = at
    while at < len(data):
        at = data.find(MARKER, at)
        if at < 0 or at + RECORD.size > len(data):
            at = len(data) if final else max(damage, at, len(data) - RECORD.size)
            break
        item = _record(data, at)
        if item.body is not None:
            if damage < at:
                yield SegmentRead(0, None, at)
            yield item
            at = damage = item.end
        elif not final and len(data) < item.end <= at + RECORD.size + LONGEST:
            break
        else:
            at += 1
    if damage < at:
        yield SegmentRead(0, None, at)


def _record(data: bytes, at: int) -> SegmentRead:
    """What begins at `at`, and where it would end; `body` is None when it does not check out."""
    _, length, seq, crc = RECORD.unpack_from(data, at)
    end = at + RECORD.size + length
    body = data[at + RECORD.size : end]
    good = len(body) == length and zlib.crc32(body, zlib.crc32(CHECKED.pack(length, seq))) == crc
    return SegmentRead(seq, body if good else None, end)
