"""One event as it is kept, and the segments of one class of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from edge_agent import segments
from edge_agent.segments import Read, Segment

AGENT = "agent"
"""the pipeline that gap events stand under"""
KINDS = ("alert", "telemetry")
"""In the order in which they are sent; quota takes them from the other end."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event as it is kept."""

    seq: int
    kind: str
    pipeline: str
    mark: int | None
    """where the pipeline's source resumes behind it"""
    payload: bytes
    """the event's JSON"""

    def packed(self) -> bytes:
        """As it stands in a segment: u8 length and name of the pipeline, i64 mark (-1: none), the JSON."""
        name = self.pipeline.encode()
        mark = (-1 if self.mark is None else self.mark).to_bytes(8, "little", signed=True)
        return segments.pack(self.seq, bytes([len(name)]) + name + mark + self.payload)


@dataclass(frozen=True, slots=True)
class Lost:
    """Numbers that will never come: `count` of those from `first` to `last`."""

    first: int
    last: int
    count: int
    why: str
    known: int = 0
    """how many of them a gap event had declared that is itself lost by this"""


class _Gap(msgspec.Struct):
    first: int
    last: int
    count: int


@dataclass(slots=True)
class Queue:
    """The segments of one class, oldest first; the last one is appended to unless it is sealed."""

    kind: str
    segments: list[Segment]
    dirty: bool = False
    """written, not yet confirmed by the disk"""
    since: float = 0.0
    """monotonic time of the first write that is not confirmed"""
    before: int = 0
    """the last seq that the reader met in this class: damage behind it may hold the numbers that follow"""
    last: int = 0
    """the highest seq appended since the store was opened"""

    @property
    def active(self) -> Segment | None:
        """The one that is appended to."""
        return self.segments[-1] if self.segments and not self.segments[-1].sealed else None

    @property
    def unread(self) -> bool:
        """Whether the reader has something before it."""
        return any(s.offset < s.size for s in self.segments)

    def around(self, first: int, last: int) -> list[Segment]:
        """The segments that may hold a seq from `first` to `last`."""
        bounds = [s.first for s in self.segments[1:]] + [last + 1]
        pairs = zip(self.segments, bounds, strict=False)
        return [segment for segment, following in pairs if segment.first <= last and following > first]

    def between(self, first: int, last: int) -> Iterator[Read]:
        """The readable records with a seq from `first` to `last`."""
        for segment in self.around(first, last):
            yield from (item for item in readable(segment) if first <= item.seq <= last)


def entry(item: Read, kind: str) -> Entry:
    """A record's body taken apart (see Entry.packed)."""
    body = item.body or b"\0"
    n = 1 + body[0]
    mark = int.from_bytes(body[n : n + 8], "little", signed=True)
    return Entry(item.seq, kind, body[1:n].decode(errors="replace"), None if mark < 0 else mark, body[n + 8 :])


def readable(segment: Segment) -> list[Read]:
    """The records of a whole segment, whatever its reader has seen."""
    return [item for item in segments.scan(segment) if item.body is not None]


def declaration(gone: list[Entry], why: str, numbers: set[int] | None = None) -> Lost:
    """What the dropping of these entries, and of more numbers, is declared as; gap events among them count anew."""
    numbers = (numbers or set()) | {item.seq for item in gone}
    gaps = [msgspec.json.decode(item.payload, type=_Gap) for item in gone if item.pipeline == AGENT]
    known = sum(gap.count for gap in gaps)
    first = min([*numbers, *(gap.first for gap in gaps)])
    last = max([*numbers, *(gap.last for gap in gaps)])
    return Lost(first, last, len(numbers) + known, why, known)


def unsent(segment: Segment) -> list[Read]:
    """What the reader of a segment has not come to, damage too, without what is struck off."""
    rest = Segment(segment.path, segment.first, segment.size, offset=segment.offset)
    try:
        return rest.read(1 << 30)
    finally:
        rest.close()
