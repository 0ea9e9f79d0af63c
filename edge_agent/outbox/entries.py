"""One event as it is kept, and the segments of each class of them."""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.events import Event, GapEvent
from edge_agent.outbox import records, segments
from edge_agent.outbox.records import SegmentRead
from edge_agent.outbox.segments import Segment

AGENT = "agent"
"""the pipeline that gap events stand under"""
QUEUES = ("alert", "telemetry")
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
    """the event, encoded"""

    def packed(self) -> bytes:
        """As it stands in a segment: u8 length and name of the pipeline, i64 mark (-1: none), the event."""
        name = self.pipeline.encode()
        mark = (-1 if self.mark is None else self.mark).to_bytes(8, "little", signed=True)
        return records.pack(self.seq, bytes([len(name)]) + name + mark + self.payload)


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One event on its way out; two records are never equal, even of the same event."""

    entry: Entry
    segment: Segment | None
    """where it lies; None while it waits in RAM only"""

    @property
    def seq(self) -> int:
        """The event's number."""
        return self.entry.seq

    @property
    def kind(self) -> str:
        """alert or telemetry."""
        return self.entry.kind

    @property
    def pipeline(self) -> str:
        """Under which topic it goes."""
        return self.entry.pipeline

    @property
    def payload(self) -> bytes:
        """The event, encoded."""
        return self.entry.payload


@dataclass(slots=True)
class Counts:
    """What happened since the outbox was opened."""

    put: int = 0
    done: int = 0
    dropped: int = 0
    damaged: int = 0
    """stretches of bytes that could not be read"""


Runs = list[list[int]]
"""numbers as [first, last], [first, last] and so on"""


def add(runs: Runs, seq: int) -> None:
    """One more number."""
    if runs and runs[-1][1] + 1 == seq:
        runs[-1][1] = seq
    else:
        runs.append([seq, seq])


def numbers(runs: Runs) -> set[int]:
    """Each of them."""
    return {n for first, last in runs for n in range(first, last + 1)}


class Preface(msgspec.Struct, frozen=True, array_like=True):
    """What a segment says, before its first event, of the store as it was then."""

    seq: int
    marks: dict[str, int]
    """where the sources resume when the events up to `seq` are kept"""
    before: int = 0
    """first seq of the segment before it in its class; 0: there was none"""
    count: int = 0
    """events in that one"""
    runs: bytes = b""
    """their seqs, see Runs; compressed"""

    def packed(self) -> bytes:
        """As it stands in the segment."""
        return msgspec.msgpack.encode(self)

    @property
    def numbers(self) -> set[int]:
        """The seqs in the segment before."""
        return numbers(msgspec.msgpack.decode(zlib.decompress(self.runs), type=Runs)) if self.runs else set()


def preface(seq: int, marks: dict[str, int], before: Segment | None) -> Preface:
    """For a segment that follows `before`."""
    if before is None or not before.numbers:
        return Preface(seq, marks)
    runs = zlib.compress(msgspec.msgpack.encode(before.numbers))
    # many small runs would make it too long for a record; it is then told as one
    return Preface(seq, marks, before.first, before.count, runs if len(runs) < records.LONGEST // 2 else b"")


def preface_of(path: Path) -> Preface | None:
    """What a segment says of the store; None when that cannot be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.msgpack.decode(segments.head(path)[1], type=Preface)
    return None


@dataclass(frozen=True, slots=True)
class Lost:
    """Numbers that will never come: `count` of those from `first` to `last`."""

    first: int
    last: int
    count: int
    why: str
    known: int = 0
    """how many of them a gap event had declared that is itself lost by this"""


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

    def note_written(self, now: float) -> None:
        """Something was written at `now`, monotonic, that the disk is to confirm yet."""
        if not self.dirty:
            self.dirty, self.since = True, now

    def confirm(self) -> None:
        """Have the disk confirm what was written to the last segment. Raises OSError."""
        if self.dirty and self.segments:
            os.fdatasync(self.segments[-1].fd)
            self.dirty = False

    def around(self, first: int, last: int) -> list[Segment]:
        """The segments that may hold a seq from `first` to `last`."""
        bounds = [s.first for s in self.segments[1:]] + [last + 1]
        pairs = zip(self.segments, bounds, strict=False)
        return [segment for segment, following in pairs if segment.first <= last and following > first]

    def between(self, first: int, last: int) -> Iterator[SegmentRead]:
        """The readable records with a seq from `first` to `last`."""
        for segment in self.around(first, last):
            yield from (item for item in readable(segment) if first <= item.seq <= last)


class Queues(dict[str, Queue]):
    """The segments of a store, class by class."""

    def __init__(self, path: Path) -> None:
        super().__init__({kind: Queue(kind, segments.listed(path, kind)) for kind in QUEUES})
        self._scanned: dict[Path, tuple[int, list[int]]] = {}

    def on_disk(self, first: int, last: int) -> set[int]:
        """The numbers from `first` to `last` that can be read from any segment."""
        around = [segment for queue in self.values() for segment in queue.around(first, last)]
        return {n for segment in around for n in self.numbers(segment) if first <= n <= last}

    def numbers(self, segment: Segment) -> list[int]:
        """The readable numbers of a segment; kept for a few, because damage in many places asks again and again."""
        size, seqs = self._scanned.get(segment.path, (-1, []))
        if size != segment.size:
            if len(self._scanned) >= 8:
                self._scanned.clear()
            seqs = [item.seq for item in readable(segment)]
            self._scanned[segment.path] = segment.size, seqs
        return seqs


def fill(segment: Segment, seqs: Iterable[int]) -> None:
    """Note which events a segment holds."""
    segment.numbers, segment.count = [], 0
    for seq in seqs:
        add(segment.numbers, seq)
        segment.count += 1


def entry(item: SegmentRead, kind: str) -> Entry:
    """A record's body taken apart (see Entry.packed)."""
    body = item.body or b"\0"
    n = 1 + body[0]
    mark = int.from_bytes(body[n : n + 8], "little", signed=True)
    return Entry(item.seq, kind, body[1:n].decode(errors="replace"), None if mark < 0 else mark, body[n + 8 :])


def readable(segment: Segment) -> list[SegmentRead]:
    """The records of a whole segment, whatever its reader has seen."""
    return [item for item in segments.scan(segment) if item.body is not None]


def declaration(gone: list[Entry], why: str, decode: Callable[[bytes], Event], numbers: Set[int] = frozenset()) -> Lost:
    """What the dropping of these entries, and of more numbers, is declared as; gap events among them count anew."""
    numbers = numbers | {item.seq for item in gone}
    events = [decode(item.payload) for item in gone if item.pipeline == AGENT]
    gaps = [event for event in events if isinstance(event, GapEvent)]
    known = sum(gap.count for gap in gaps)
    first = min([*numbers, *(gap.first for gap in gaps)])
    last = max([*numbers, *(gap.last for gap in gaps)])
    return Lost(first, last, len(numbers) + known, why, known)


def unsent(segment: Segment) -> list[SegmentRead]:
    """What the reader of a segment has not come to, damage too, without what is struck off."""
    rest = Segment(segment.path, segment.first, segment.size, offset=segment.offset)
    try:
        return rest.read(1 << 30)
    finally:
        rest.close()
