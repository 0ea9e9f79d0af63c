"""How far the numbers went: the mark, a small file that is written in place.

The mark is one record in two slots, 4096 bytes apart and written in turn, so that a torn write leaves the other one:
see Mark for its fields; CRC-32 at its end. Writing in place needs no room, so it works on a full disk too. A file that
is lost whole must not let numbers be given out again, so mark.copy holds the mark as it was when numbers were last
reserved.

A disk that takes no writes at all takes no mark either. How far the numbers went is then noted aside, in memory that
the kernel keeps while it runs (/dev/shm), so that a killed process does not give numbers out again once the disk is
back. After a reboot they lie behind the reservation anyway.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent import files
from edge_agent.outbox.entries import Queues

MARK = struct.Struct("<QQQQQQQBB6x16s")
OLD_MARK = struct.Struct("<QQQQQB7x16s")
"""as the first builds of 0.1.0 wrote it: without the highest seq of each class, and with no list of segments"""
SLOT = 4096
ASIDE = struct.Struct("<16sQQI")
SHARED = Path("/dev/shm")
RESERVE = 8192
"""numbers that may be given out between two confirmed writes of the mark, at most"""
FEWEST = 512
"""and at least: what a power cut declares as perhaps lost, though most of it was never given out"""
AHEAD_S = 10.0
"""seconds that a reservation is to last at the rate of the last one"""

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
    alert: int = 0
    """the highest seq written as an alert"""
    telemetry: int = 0
    """the highest seq written as telemetry"""
    listed: int = 0
    """1: marks.json tells which segments there are"""
    counter: int = 0

    def pack(self) -> bytes:
        """The bytes of a slot."""
        numbers = (self.counter, self.epoch, self.last, self.confirmed, self.reserved, self.alert, self.telemetry)
        raw = MARK.pack(*numbers, self.state, self.listed, self.boot)
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
        mark = _slot(data[at : at + SLOT])
        if mark is not None:
            counters.append(mark.counter)
            if best is None or mark.counter > best.counter:
                best = mark
    return best, best is not None and (best.counter <= 1 or best.counter - 1 in counters)


def _slot(data: bytes) -> Mark | None:
    """The mark in a slot, of either form; None where neither checks out."""
    if raw := _whole(data, MARK):
        counter, epoch, last, confirmed, reserved, alert, telemetry, state, listed, boot = MARK.unpack(raw)
        return Mark(epoch, last, confirmed, reserved, state, boot, alert, telemetry, listed, counter)
    if raw := _whole(data, OLD_MARK):
        counter, epoch, last, confirmed, reserved, state, boot = OLD_MARK.unpack(raw)
        return Mark(epoch, last, confirmed, reserved, state, boot, counter=counter)
    return None


def _whole(data: bytes, form: struct.Struct) -> bytes:
    """The bytes of this form, b"" where the checksum behind them is another."""
    raw, crc = data[: form.size], data[form.size : form.size + 4]
    return raw if len(raw) == form.size and zlib.crc32(raw).to_bytes(4, "little") == crc else b""


def boot_id() -> bytes:
    """16 bytes that change with each boot; zeros where the kernel tells none (then no two boots look alike)."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))[:16]
    except (OSError, ValueError):
        return bytes(16)


def _aside(store: Path) -> Path:
    return SHARED / f"edge-agent-{os.getuid()}-{zlib.crc32(os.fsencode(store.resolve())):08x}"


def note_aside(store: Path, epoch: int, last: int) -> None:
    """Note, outside of a store that takes no writes, the highest number given out. Raises OSError."""
    raw = ASIDE.pack(boot_id(), epoch, last, 0)[:-4]
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(_aside(store), flags, 0o600)
    try:
        if os.fstat(fd).st_uid == os.getuid():
            os.pwrite(fd, raw + zlib.crc32(raw).to_bytes(4, "little"), 0)
    finally:
        os.close(fd)


def read_aside(store: Path, epoch: int) -> int:
    """The highest number noted aside for this store since the boot; 0 when there is none."""
    with contextlib.suppress(OSError):
        fd = os.open(_aside(store), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            raw = os.pread(fd, ASIDE.size, 0)
            mine = os.fstat(fd).st_uid == os.getuid()
        finally:
            os.close(fd)
        if mine and len(raw) == ASIDE.size and zlib.crc32(raw[:-4]).to_bytes(4, "little") == raw[-4:]:
            boot, of, last, _ = ASIDE.unpack(raw)
            if boot == boot_id() != bytes(16) and of == epoch:
                return int(last)
    return 0


def forget_aside(store: Path) -> None:
    """The store's own mark tells it again."""
    with contextlib.suppress(OSError):
        _aside(store).unlink(missing_ok=True)


class Numbers:
    """How far the numbers of an open store went; `mark` is what its files tell. Of one thread, the writer's."""

    def __init__(self, path: Path, queues: Queues) -> None:
        """Raises OSError."""
        self._path, self._queues = path, queues
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd, self._copy_fd = (os.open(path / name, flags, 0o600) for name in ("mark", "mark.copy"))
        self.mark = Mark(0, 0, 0, 0, CLOSED, bytes(16))
        self.declared = False
        """what the opening missed is declared"""
        self._aside = False
        """something is noted outside of the store"""
        self._reserved_at = (0.0, 0)
        """when numbers were last reserved, monotonic, and the number then"""

    def begin(self, found: Mark, last: int, declared: bool) -> None:
        """Go on behind `last`. Raises OSError.

        While something is to be declared the mark that was found stands, so that a second crash declares it again.
        """
        self._aside = read_aside(self._path, found.epoch) > 0
        self._reserved_at, self.declared = (time.monotonic(), last), declared
        fresh = replace(found, last=last, confirmed=last, state=OPEN, boot=boot_id())
        self.mark = fresh if declared else found
        self.reserve(last)

    def reserve(self, seq: int) -> None:
        """Let the disk confirm that numbers up to a bound beyond `seq` may be written, in the mark and its copy.

        The bound lies as far as AHEAD_S seconds go at the present rate: a power cut declares what lies before it.
        """
        now, (then, first) = time.monotonic(), self._reserved_at
        rate = (seq - first) / max(now - then, 0.001)
        before, self._reserved_at = self.mark.reserved, (now, seq)
        try:
            self.note(reserved=seq + int(min(RESERVE, max(FEWEST, AHEAD_S * rate))))
            self.sync()
            os.pwrite(self._copy_fd, self.mark.pack(), 0)
            os.fdatasync(self._copy_fd)
            files.sync(self._path)
        except OSError:
            self.mark = replace(self.mark, reserved=before)
            raise

    @property
    def homeless(self) -> bool:
        """Whether the mark tells that some events are in memory only."""
        return self.mark.state == HOMELESS

    def note(self, **changes: int | bytes) -> None:
        """Write the mark with these fields changed (see Mark); the disk confirms it when it likes."""
        ends = {kind: max(getattr(self.mark, kind), queue.last) for kind, queue in self._queues.items()}
        self.mark = replace(self.mark, **ends, **changes)  # type: ignore[arg-type]
        written = replace(self.mark, counter=self.mark.counter + 1)
        try:
            os.pwrite(self._fd, written.pack(), SLOT * (written.counter % 2))
        except OSError:
            with contextlib.suppress(OSError):
                note_aside(self._path, self.mark.epoch, self.mark.last)
                self._aside = True
            raise
        self.mark = written
        if self._aside and self.declared:
            forget_aside(self._path)
            self._aside = False

    def confirm(self) -> None:
        """Note that the disk has confirmed all events, where the store is open and that is news."""
        if self.mark.state == OPEN and self.mark.confirmed < self.mark.last:
            self.note(confirmed=self.mark.last)

    def sync(self) -> None:
        """Have the disk confirm the mark."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the files."""
        os.close(self._fd)
        os.close(self._copy_fd)
