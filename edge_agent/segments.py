"""Files of checksummed records, and the small file that remembers how far the numbers went.

A segment is a header and then records, appended and never changed::

    header   8 bytes "EDGELOG1", u64 epoch
    record   4 bytes marker, u32 length of the body, u64 seq, u32 CRC-32 of (length, seq, body), body

All little-endian. A reader that meets a bad record looks for the next marker whose record checks out, so damage
costs what was hit and nothing behind it. Beside each segment, NAME.ack lists the seqs that need not be sent again
(u64 seq, u32 CRC-32 each); a bad entry there costs a duplicate, never an event.

The mark is one 68-byte record in two slots, 4096 bytes apart and written in turn, so that a torn write leaves the
other one: counter, epoch, last seq written, last seq up to which the disk confirmed everything, highest seq that
may be written before the disk confirms the mark again, whether the store was closed in order, the kernel's boot id,
CRC-32. A file that is lost whole must not let numbers be given out again, so mark.copy holds the mark as it was when
numbers were last reserved.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MAGIC = b"EDGELOG1"
HEADER = struct.Struct("<8sQ")
MARKER = b"\xed\x6e\x10\xc5"
RECORD = struct.Struct("<4sIQI")
CHECKED = struct.Struct("<IQ")
ACK = struct.Struct("<QI")
MARK = struct.Struct("<QQQQQB7x16s")
SLOT = 4096
LONGEST = 256 * 1024
"""bytes of a body; anything longer is damage"""
CHUNK = 64 * 1024


def pack(seq: int, body: bytes) -> bytes:
    """One record as it stands in the file."""
    crc = zlib.crc32(body, zlib.crc32(CHECKED.pack(len(body), seq)))
    return RECORD.pack(MARKER, len(body), seq, crc) + body


@dataclass(frozen=True, slots=True)
class Read:
    """One step of reading: a record, or a stretch of damage (`body` None)."""

    seq: int
    """of damage: the highest one read before it in its segment, 0 where that is not known"""
    body: bytes | None
    end: int
    """offset in `data` behind it"""


def parse(data: bytes, final: bool) -> Iterator[Read]:
    """The records in `data`; what cannot be one is yielded as damage.

    `final` says that nothing follows, so that a record cut short is damage too; else parsing stops before it.
    """
    at = 0
    while at < len(data):
        damage = at
        while True:
            at = data.find(MARKER, at)
            if at < 0 or at + RECORD.size > len(data):
                at = len(data) if final else max(damage, len(data) - RECORD.size if at < 0 else at)
                break
            _, length, seq, crc = RECORD.unpack_from(data, at)
            end = at + RECORD.size + length
            if length <= LONGEST and end > len(data) and not final:
                break
            body = data[at + RECORD.size : end]
            if len(body) == length and zlib.crc32(body, zlib.crc32(CHECKED.pack(length, seq))) == crc:
                if damage < at:
                    yield Read(0, None, at)
                yield Read(seq, body, end)
                at = damage = end
                continue
            at += 1
        if damage < at:
            yield Read(0, None, at)
        return


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
    began: float = field(default_factory=time.time)
    """when it was created or, after a restart, found"""
    to_note: bytes = field(default=b"", repr=False)
    """entries that NAME.ack is to have yet"""
    fd: int = field(default=-1, repr=False)
    ack_fd: int = field(default=-1, repr=False)

    @property
    def finished(self) -> bool:
        """All that it held was read and acknowledged."""
        return self.sealed and self.offset >= self.size and not self.outstanding

    @property
    def written(self) -> float:
        """When it was last written to, seconds since 1970; now, if that cannot be told."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return time.time()

    def read(self, limit: int) -> list[Read]:
        """Up to `limit` records from where the reader stands, damage in between, and the reader moves on."""
        found: list[Read] = []
        if self.acked is None:
            self.acked = set(read_acks(self.path.with_suffix(".ack")))
        size = CHUNK
        while len(found) < limit and self.offset < self.size:
            wanted = min(size, self.size - self.offset)
            data = self._bytes(wanted)
            if not data:
                found.append(Read(self.last, None, 0))
                break
            final = self.sealed and self.offset + len(data) >= self.size
            start = self.offset
            for item in parse(data, final):
                self.offset = start + item.end
                if item.body is None:
                    found.append(Read(self.last, None, item.end))
                else:
                    self.last = max(self.last, item.seq)
                    if item.seq not in self.acked:
                        found.append(item)
                if len(found) >= limit:
                    break
            if self.offset == start and len(data) < wanted:  # a bad sector follows, and this record reaches into it
                self.offset += len(data)
                found.append(Read(self.last, None, len(data)))
            elif self.offset == start:  # one record longer than the chunk
                if size > 2 * LONGEST:
                    break
                size *= 2
        return found

    def _bytes(self, n: int) -> bytes:
        """The next n bytes; b"" where they cannot be had, and the reader then stands behind them."""
        if self.fd < 0:
            try:
                self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                self.offset = self.size
                return b""
        try:
            return os.pread(self.fd, n, self.offset)
        except OSError:  # a bad sector: what lies in this block cannot be had, what lies behind it can
            self.offset = min(self.size, self.offset + 4096)
            return b""

    def close(self) -> None:
        """Let go of its files."""
        for fd in (self.fd, self.ack_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self.ack_fd = -1

    def remove(self) -> None:
        """Delete its files, the records first: acknowledgements alone do no harm."""
        self.close()
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".ack").unlink(missing_ok=True)


def create(folder: Path, kind: str, first: int, epoch: int) -> Segment:
    """A new segment, open for appending. Raises OSError."""
    path = folder / f"{kind}-{first:016d}.log"
    while path.exists():  # a file that was cut short by a full disk, say
        first += 1
        path = folder / f"{kind}-{first:016d}.log"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, HEADER.pack(MAGIC, epoch))
    except OSError:
        os.close(fd)
        path.unlink(missing_ok=True)
        raise
    return Segment(path, first, HEADER.size, sealed=False, fd=fd)


def listed(folder: Path, kind: str) -> list[Segment]:
    """The segments that lie in `folder`, oldest first; files with foreign names are left alone."""
    found = []
    for path in folder.glob(f"{kind}-*.log"):
        number = path.stem.removeprefix(f"{kind}-")
        if number.isdigit():
            found.append(Segment(path, int(number), path.stat().st_size))
    return sorted(found, key=lambda s: s.first)


def scan(segment: Segment) -> Iterator[Read]:
    """Each record and each stretch of damage of a whole segment, without moving its reader."""
    whole = Segment(segment.path, segment.first, segment.size, sealed=True, acked=set())
    try:
        while items := whole.read(1000):
            yield from items
    finally:
        whole.close()


def write_all(fd: int, data: bytes) -> None:
    """Write all of it, or raise OSError and leave the file as long as it was."""
    before = os.fstat(fd).st_size
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError:
        os.ftruncate(fd, before)
        raise


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


OPEN, CLOSED, HOMELESS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the numbers went."""

    epoch: int
    last: int
    """every seq up to it was given out and written, or refused by the disk and kept in RAM"""
    confirmed: int
    """everything up to it is safe: confirmed by the disk, or done"""
    reserved: int
    """no seq above it was written since the disk last confirmed the mark"""
    state: int
    """CLOSED in order; OPEN; HOMELESS: open, and the disk had refused some that waited in RAM"""
    boot: bytes
    """16 bytes of the kernel's boot id: while it is the same, what was written is there, synced or not"""
    counter: int = 0

    def pack(self) -> bytes:
        """The bytes of a slot."""
        raw = MARK.pack(self.counter, self.epoch, self.last, self.confirmed, self.reserved, self.state, self.boot)
        return raw + zlib.crc32(raw).to_bytes(4, "little")


def read_mark(path: Path) -> tuple[Mark | None, bool]:
    """The newest slot that checks out, or None; and whether the other one is the one before it, as it should be."""
    try:
        data = path.read_bytes()
    except OSError:
        return None, False
    best: Mark | None = None
    counters = []
    for at in (0, SLOT):
        raw = data[at : at + MARK.size]
        crc = data[at + MARK.size : at + MARK.size + 4]
        if len(raw) == MARK.size and zlib.crc32(raw).to_bytes(4, "little") == crc:
            counter, epoch, last, confirmed, reserved, state, boot = MARK.unpack(raw)
            mark = Mark(epoch, last, confirmed, reserved, state, boot, counter)
            counters.append(counter)
            if best is None or mark.counter > best.counter:
                best = mark
    return best, best is not None and (best.counter <= 1 or best.counter - 1 in counters)


def boot_id() -> bytes:
    """16 bytes that change with each boot; zeros where the kernel tells none (then no two boots look alike)."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))[:16]
    except (OSError, ValueError):
        return bytes(16)
