"""Files of checksummed records.

A segment is a header (8 bytes "EDGELOG1", u64 epoch) and then records (see records.py), appended and never changed. All
little-endian. The first record, of seq 0, is no event but what the store knew when the segment was begun (see
entries.Preface). Beside each segment, NAME.ack lists the seqs that need not be sent again (u64 seq, u32 CRC-32 each); a
bad entry there costs a duplicate, never an event.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.files import write_all
from edge_agent.outbox.records import LONGEST, RECORD, SegmentRead, pack, parse

MAGIC = b"EDGELOG1"
HEADER = struct.Struct("<8sQ")
ACK = struct.Struct("<QI")
CHUNK = 64 * 1024


@dataclass(slots=True)
class Segment:
    """One file of records, and how far it has been sent."""

    path: Path
    first: int
    """no record in it has a lower seq"""
    size: int
    """bytes that may be read: what is written and visible"""
    offset: int = HEADER.size
    """the reader stands here"""
    outstanding: int = 0
    """records read and not yet acknowledged"""
    sealed: bool = True
    """nothing more is appended"""
    acked: set[int] | None = None
    """seqs to skip, from NAME.ack; read when the reader first comes here"""
    last: int = 0
    """the highest seq read so far"""
    begin: int = HEADER.size
    """bytes before the first event, where it was created by this process"""
    count: int = 0
    """events in it, struck off or not"""
    ack_size: int = 0
    """bytes of NAME.ack"""
    numbers: list[list[int]] = field(default_factory=list)
    """the seqs in it as runs [first, last], while it is the newest of its class"""
    began: float = field(default_factory=time.time)
    """when it was created or, after a restart, found"""
    to_note: bytes = field(default=b"", repr=False)
    """entries that NAME.ack is to have yet"""
    fd: int = field(default=-1, repr=False)
    ack_fd: int = field(default=-1, repr=False)
    _chunk: bytes = field(default=b"", repr=False)
    _chunk_at: int = 0
    """the bytes read last, and their place in the file"""

    @property
    def waiting(self) -> int:
        """Events in it that are not struck off."""
        return max(0, self.count - (self.ack_size + len(self.to_note)) // ACK.size)

    @property
    def used_up(self) -> bool:
        """All that it holds was read and acknowledged."""
        return self.offset >= self.size and not self.outstanding

    @property
    def finished(self) -> bool:
        """It is used up, and nothing more is appended."""
        return self.sealed and self.used_up

    @property
    def written(self) -> float:
        """When it was last written to, seconds since 1970; now, if that cannot be told."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return time.time()

    def read(self, limit: int) -> list[SegmentRead]:
        """Up to `limit` records from where the reader stands, damage in between, and the reader moves on."""
        found: list[SegmentRead] = []
        if self.acked is None:
            self.acked = set(read_acks(self.path.with_suffix(".ack")))
        size, fresh = CHUNK, False
        while len(found) < limit and self.offset < self.size:
            start = self.offset
            if fresh or not self._chunk_at <= start < self._chunk_at + len(self._chunk):
                wanted = min(size, self.size - start)
                chunk = self._bytes(wanted)
                if chunk is None:
                    break
                self._chunk, self._chunk_at, fresh = chunk, start, True
                if not self._chunk:
                    found.append(SegmentRead(self.last, None, 0))
                    break
            final = self.sealed and self._chunk_at + len(self._chunk) >= self.size
            for item in parse(self._chunk, final, start - self._chunk_at):
                self.offset = self._chunk_at + item.end
                if item.body is None:
                    found.append(SegmentRead(self.last, None, item.end))
                elif item.seq:
                    self.last = max(self.last, item.seq)
                    if item.seq not in self.acked:
                        found.append(item)
                if len(found) >= limit:
                    break
            if self.offset > start:
                size, fresh = CHUNK, False
            elif not fresh:  # what is left of the chunk is less than a record
                fresh = True
            elif len(self._chunk) < wanted:  # a bad sector follows, and this record reaches into it
                self.offset += len(self._chunk)
                found.append(SegmentRead(self.last, None, len(self._chunk)))
            else:  # one record longer than the chunk
                if size > 2 * LONGEST:
                    break
                size *= 2
        if self.offset >= self.size:
            self._chunk = b""
        return found

    def _bytes(self, n: int) -> bytes | None:
        """The next n bytes; b"" where they cannot be had, and the reader then stands behind them; None: not now."""
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EIO):
                    return None  # no file can be opened just now: nothing is wrong with this one
                self.offset = self.size
                return b""
        try:
            return os.pread(self.fd, n, self.offset)
        except OSError:  # a bad sector: what lies in this block cannot be had, what lies behind it can
            self.offset = min(self.size, self.offset + 4096)
            return b""

    def close(self) -> None:
        """Let go of its files."""
        self.close_records()
        self.close_acks()

    def close_records(self) -> None:
        """Close its file: nothing more is appended, and a later read opens it again. Many segments may wait."""
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1

    def close_acks(self) -> None:
        """Let go of NAME.ack until more is noted."""
        if self.ack_fd >= 0:
            os.close(self.ack_fd)
        self.ack_fd = -1

    def remove(self) -> None:
        """Delete its files, the records first: acknowledgements alone do no harm."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".ack").unlink(missing_ok=True)


def create(folder: Path, kind: str, first: int, epoch: int, preface: bytes = b"") -> Segment:
    """A new segment, open for appending. Raises OSError."""
    path = folder / name(kind, first)
    while path.exists():  # a file that was cut short by a full disk, say
        first += 1
        path = folder / name(kind, first)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        head = HEADER.pack(MAGIC, epoch) + (pack(0, preface) if preface else b"")
        write_all(fd, head)
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return Segment(path, first, len(head), len(head), sealed=False, begin=len(head), fd=fd)


def name(kind: str, first: int) -> str:
    """A segment's file name."""
    return f"{kind}-{first:016d}.log"


def head(path: Path) -> tuple[int, bytes]:
    """The epoch and the preface of a segment; 0 and b"" where they cannot be read. Raises OSError."""
    with path.open("rb") as file:
        raw = file.read(HEADER.size)
        if len(raw) < HEADER.size or not raw.startswith(MAGIC):
            return 0, b""
        frame = file.read(RECORD.size)
        length = RECORD.unpack(frame)[1] if len(frame) == RECORD.size else 0
        data = frame + file.read(min(length, LONGEST))
    first = next(parse(data, final=True), None)
    return int(HEADER.unpack(raw)[1]), (first.body or b"") if first is not None and first.seq == 0 else b""


def listed(folder: Path, kind: str) -> list[Segment]:
    """The segments that lie in `folder`, oldest first; files with foreign names are left alone."""
    found = []
    for path in folder.glob(f"{kind}-*.log"):
        number = path.stem.removeprefix(f"{kind}-")
        if number.isdigit():
            acks = path.with_suffix(".ack")
            ack_size = acks.stat().st_size if acks.exists() else 0
            found.append(Segment(path, int(number), path.stat().st_size, ack_size=ack_size))
    return sorted(found, key=lambda s: s.first)


def scan(segment: Segment) -> Iterator[SegmentRead]:
    """Each record and each stretch of damage of a whole segment, without moving its reader."""
    whole = Segment(segment.path, segment.first, segment.size, sealed=True, acked=set())
    try:
        while items := whole.read(1000):
            yield from items
    finally:
        whole.close()


def read_acks(path: Path) -> Iterator[int]:
    """The seqs in an .ack file; entries that do not check out are passed over."""
    try:
        data = path.read_bytes()
    except OSError:
        return
    at = 0
    while at + ACK.size <= len(data):
        seq, crc = ACK.unpack_from(data, at)
        good = zlib.crc32(data[at : at + 8]) == crc
        if good:
            yield seq
        at += ACK.size if good else 1  # an entry cut short shifts those behind it


def ack_entry(seq: int) -> bytes:
    """One entry of an .ack file."""
    number = seq.to_bytes(8, "little")
    return number + zlib.crc32(number).to_bytes(4, "little")
