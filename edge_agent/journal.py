"""The outbox's disk: segments of each class, the mark that remembers the numbers, the marks that sources resume at.

One thread writes (the outbox's committer); others read under `lock`. Writing raises OSError as the disk does, and
what was asked for is then not done; opening raises StoreError.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edge_agent import segments
from edge_agent.errors import StoreError
from edge_agent.segments import CLOSED, HOMELESS, OPEN, Mark, Segment

KINDS = ("alert", "telemetry")
"""In the order in which they are sent; quota takes them from the other end."""

RESERVE = 8192
"""numbers that may be given out between two confirmed writes of the mark"""
SYNC_EVERY = 1.0
"""seconds between telemetry being written and the disk confirming it"""


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


@dataclass(slots=True)
class Queue:
    """The segments of one class, oldest first; the last one is appended to unless it is sealed."""

    kind: str
    segments: list[Segment]
    dirty: bool = False
    """written, not yet confirmed by the disk"""
    before: int = 0
    """the last seq that the reader met in this class: damage behind it may hold the numbers that follow"""

    @property
    def active(self) -> Segment | None:
        """The one that is appended to."""
        return self.segments[-1] if self.segments and not self.segments[-1].sealed else None

    @property
    def unread(self) -> bool:
        """Whether the reader has something before it."""
        return any(s.offset < s.size for s in self.segments)

    def between(self, first: int, last: int) -> Iterator[segments.Read]:
        """The readable records with a seq from `first` to `last`; segments that hold none are not opened."""
        bounds = [s.first for s in self.segments[1:]] + [last + 1]
        for segment, following in zip(self.segments, bounds, strict=False):
            if segment.first <= last and following > first:
                yield from (item for item in readable(segment) if first <= item.seq <= last)


class _Marks(msgspec.Struct, frozen=True):
    """marks.json: the marks of all events up to `seq`."""

    seq: int
    marks: dict[str, int]


class Journal:
    """One store on disk. `lock` guards what the reader and the writer share."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Take the store at `path`, or begin one. Raises StoreError when it cannot be had."""
        self.path, self.max_bytes = path, max_bytes
        self.segment_bytes = max(64 * 1024, min(1_000_000, max_bytes // 16))
        self.lock = threading.RLock()
        self.marks: dict[str, int] = {}
        """pipeline -> the mark of its last event that is kept"""
        self._marks_saved = 0
        self._synced_at = time.monotonic()
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: no store can stand here ({error.strerror}); set [store] path") from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_fd)
            raise StoreError(f"{path}: another edge-agent uses this store; stop it or set [store] path") from None
        try:
            self.queues = {kind: Queue(kind, segments.listed(path, kind)) for kind in KINDS}
            self._mark_fd = os.open(path / "mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._recover()
            self._read_marks()
        except OSError as error:
            os.close(self._lock_fd)
            raise StoreError(f"{path}: the disk takes no writes ({error.strerror}); free or remount it") from None

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────

    def _recover(self) -> None:
        """Find out how far the numbers went: `last`, and `lost`, which is to be declared before anything else."""
        boot = segments.boot_id()
        old = segments.read_mark(self.path / "mark")
        newest, epoch = self._newest()
        why, first, top = "", 1, 0
        if old is None and newest == 0:  # a store that begins
            old = Mark(max(1, int(time.time())), 0, 0, 0, CLOSED, boot)
        elif old is None:
            why, first, top = "the store's mark was damaged", newest + 1, newest + 2 * RESERVE
            old = Mark(epoch, newest, newest, top, HOMELESS, bytes(16))
        elif old.state == OPEN and old.boot == boot != bytes(16):
            why, first, top = "the process was killed", old.last + 1, max(newest, old.last)
        elif old.state == HOMELESS and old.boot == boot != bytes(16):
            why, first, top = "the disk had refused them", old.confirmed + 1, max(newest, old.last)
        elif old.state != CLOSED:
            why, first, top = "power cut", old.confirmed + 1, max(newest, old.reserved)
        elif newest > old.last:
            why, first, top = "the store's mark was damaged", old.last + 1, newest
        self.last = max(old.last, top)
        self.opened_at = first - 1 if why else self.last
        missing = sorted(set(range(first, top + 1)) - self.on_disk(first, top)) if why else []
        self.lost = Lost(missing[0], missing[-1], len(missing), f"{why}: these may be lost") if missing else None
        # while something is to be declared the old mark stands, so that a second crash declares it again
        self._mark = old if self.lost else replace(old, last=self.last, confirmed=self.last, state=OPEN, boot=boot)
        self.reserve(self.last)

    def declared(self, seq: int) -> None:
        """The gap that the opening found stands in the store as event `seq`: from here on the numbers are whole."""
        self.note(last=seq, confirmed=seq, state=OPEN, boot=segments.boot_id())

    def _newest(self) -> tuple[int, int]:
        """Highest seq in the newest segments (0: there are none), and the highest epoch in the headers."""
        newest = epoch = 0
        for queue in self.queues.values():
            for segment in queue.segments[-1:]:
                newest = max([newest, segment.first - 1, *(r.seq for r in readable(segment))])
            for segment in queue.segments:
                with segment.path.open("rb") as file:
                    head = file.read(segments.HEADER.size)
                if len(head) == segments.HEADER.size and head.startswith(segments.MAGIC):
                    epoch = max(epoch, segments.HEADER.unpack(head)[1])
                    break
        return newest, epoch or max(1, int(time.time()))

    def _read_marks(self) -> None:
        """The marks as saved, and then those of the events written since."""
        try:
            saved = msgspec.json.decode((self.path / "marks.json").read_bytes(), type=_Marks)
        except (OSError, msgspec.MsgspecError):
            saved = _Marks(0, {})
        self.marks, self._marks_saved = dict(saved.marks), saved.seq
        newest = dict.fromkeys(self.marks, saved.seq)
        for queue in self.queues.values():
            for item in queue.between(saved.seq + 1, self.last):
                kept = entry(item, queue.kind)
                if kept.mark is not None and item.seq > newest.get(kept.pipeline, 0):
                    newest[kept.pipeline], self.marks[kept.pipeline] = item.seq, kept.mark

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def epoch(self) -> int:
        """Grows only when the store began anew."""
        return self._mark.epoch

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with self.lock:
            return sum(s.size for q in self.queues.values() for s in q.segments)

    @property
    def unread(self) -> bool:
        """Whether a reader has something before it."""
        with self.lock:
            return any(queue.unread for queue in self.queues.values())

    def read(self, kind: str, limit: int) -> tuple[list[tuple[Entry, Segment]], list[Lost], int]:
        """Up to `limit` entries of a class to send next, what damage was met, and in how many places.

        Each entry's segment counts it as outstanding until it is struck off.
        """
        found: list[tuple[Entry, Segment]] = []
        lost: list[Lost] = []
        damaged = 0
        queue = self.queues[kind]
        with self.lock:
            for segment in list(queue.segments):
                while len(found) < limit and segment.offset < segment.size:
                    before = segment.offset
                    for item in segment.read(limit - len(found)):
                        if item.body is None:
                            damaged += 1
                            lost += self._behind_damage(queue, segment)
                            continue
                        queue.before = item.seq
                        segment.outstanding += 1
                        found.append((entry(item, kind), segment))
                    if segment.offset == before:
                        break
                if len(found) >= limit or segment.offset < segment.size:
                    break
        return found, lost, damaged

    def _behind_damage(self, queue: Queue, segment: Segment) -> list[Lost]:
        """Damage was met: the numbers that the other class does not hold, up to the next readable one, are lost."""
        here = queue.segments.index(segment)
        after = next((r.seq for s in queue.segments[here:] for r in readable(s) if r.seq > queue.before), 0)
        first = max(queue.before + 1, segment.first)
        last = (after or self.opened_at + 1) - 1
        if last < first:
            return []
        missing = sorted(set(range(first, last + 1)) - self.on_disk(first, last))
        queue.before = last
        return [Lost(missing[0], missing[-1], len(missing), f"{segment.path.name} is damaged")] if missing else []

    def on_disk(self, first: int, last: int) -> set[int]:
        """The numbers from `first` to `last` that can be read from any segment."""
        return {item.seq for queue in self.queues.values() for item in queue.between(first, last)}

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def append(self, kind: str, entries: list[Entry]) -> None:
        """Write entries of one class, in the order of their numbers; an alert is confirmed on return."""
        if entries[-1].seq > self._mark.reserved:
            self.reserve(entries[-1].seq)
        queue, blob = self.queues[kind], b"".join(item.packed() for item in entries)
        active = queue.active
        if active is not None and active.size + len(blob) > self.segment_bytes and active.size > segments.HEADER.size:
            if queue.dirty:
                os.fdatasync(active.fd)
            with self.lock:
                active.sealed = True
            active = None
        if active is None:
            active = segments.create(self.path, kind, entries[0].seq, self.epoch)
            self._sync_folder()
            with self.lock:
                queue.segments.append(active)
        segments.write_all(active.fd, blob)
        queue.dirty = True
        if kind == "alert":
            os.fdatasync(active.fd)
            queue.dirty = False
        with self.lock:
            active.size += len(blob)
            for item in entries:
                if item.mark is not None:
                    self.marks[item.pipeline] = item.mark

    def skip(self, kind: str, seq: int) -> None:
        """The entry just appended is on its way already: the reader is to pass it over."""
        active = self.queues[kind].active
        if active is not None:
            with self.lock:
                active.acked = (active.acked or set()) | {seq}

    def strike(self, done: list[tuple[int, Segment]]) -> None:
        """Note which seqs were acknowledged, and delete the segments that are finished."""
        entries: dict[int, tuple[Segment, list[bytes]]] = {}
        for seq, segment in done:
            entries.setdefault(id(segment), (segment, []))[1].append(segments.ack_entry(seq))
        for segment, lines in entries.values():
            with self.lock:
                segment.outstanding -= len(lines)
            if segment.finished or not segment.path.exists():
                continue
            if segment.ack_fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                segment.ack_fd = os.open(segment.path.with_suffix(".ack"), flags, 0o600)
            segments.write_all(segment.ack_fd, b"".join(lines))
        for queue in self.queues.values():
            self._delete_finished(queue)

    def _delete_finished(self, queue: Queue) -> None:
        with self.lock:
            active = queue.active
            if active is not None and active.offset >= active.size > 64 * 1024 and not active.outstanding:
                active.sealed = True
                queue.dirty = False
            finished = [s for s in queue.segments if s.finished]
            queue.segments = [s for s in queue.segments if not s.finished]
        if finished:
            self.save_marks()
        for segment in finished:
            segment.remove()

    def make_room(self, held: set[int]) -> list[Lost]:
        """Hold the quota: the oldest telemetry goes first, then the oldest alerts; not the `held` seqs."""
        lost: list[Lost] = []
        while self.size > self.max_bytes:
            victim = next(
                (
                    (queue, segment)
                    for queue in (self.queues[kind] for kind in reversed(KINDS))
                    for segment in queue.segments
                    if segment.sealed and not segment.outstanding
                ),
                None,
            )
            if victim is None:
                break
            queue, segment = victim
            with self.lock:
                gone = [r.seq for r in _unsent(segment) if r.seq not in held]
                queue.segments.remove(segment)
            self.save_marks()
            segment.remove()
            if gone:
                why = f"the store is full ({self.max_bytes} bytes): oldest {queue.kind} dropped"
                lost.append(Lost(gone[0], gone[-1], len(gone), why))
        return lost

    def confirm(self, now: bool) -> None:
        """Have the disk confirm what telemetry was written, at most SYNC_EVERY seconds after."""
        if not now and time.monotonic() - self._synced_at < SYNC_EVERY:
            return
        self._synced_at = time.monotonic()
        synced = False
        for queue in self.queues.values():
            active = queue.active
            if queue.dirty and active is not None and (now or active.offset < active.size or active.outstanding):
                os.fdatasync(active.fd)
                synced = True
            queue.dirty = False
        if synced and self._mark.state == OPEN:
            self.note(confirmed=self._mark.last)
            os.fdatasync(self._mark_fd)

    @property
    def dirty(self) -> bool:
        """Whether `confirm` has something to do."""
        return any(queue.dirty for queue in self.queues.values())

    def reserve(self, seq: int) -> None:
        """Let the disk confirm that numbers up to a bound beyond `seq` may be written."""
        self.note(reserved=seq + RESERVE)
        os.fdatasync(self._mark_fd)
        self._sync_folder()

    def note(self, **changes: int | bytes) -> None:
        """Write the mark with these fields changed (see segments.Mark); the disk confirms it when it likes."""
        self._mark = replace(self._mark, counter=self._mark.counter + 1, **changes)  # type: ignore[arg-type]
        os.pwrite(self._mark_fd, self._mark.pack(), segments.SLOT * (self._mark.counter % 2))

    def save_marks(self) -> None:
        """Keep the marks of events whose segments are about to go."""
        with self.lock:
            marks = _Marks(self._mark.last, dict(self.marks))
        if not marks.marks or marks.seq == self._marks_saved:
            return
        fresh = self.path / "marks.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(marks))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "marks.json")
        self._marks_saved = marks.seq

    def _sync_folder(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def finish(self, whole: bool) -> None:
        """Say in the mark that the store was closed in order; `whole`: nothing waits that could not be written."""
        self.save_marks()
        if whole:
            self.note(state=CLOSED, confirmed=self._mark.last)
        else:
            self.note(state=HOMELESS)
        os.fdatasync(self._mark_fd)

    def close(self) -> None:
        """Let go of every file, and of the store."""
        for queue in self.queues.values():
            for segment in queue.segments:
                segment.close()
        os.close(self._mark_fd)
        os.close(self._lock_fd)


def entry(item: segments.Read, kind: str) -> Entry:
    """A record's body taken apart (see Entry.packed)."""
    body = item.body or b"\0"
    n = 1 + body[0]
    mark = int.from_bytes(body[n : n + 8], "little", signed=True)
    return Entry(item.seq, kind, body[1:n].decode(errors="replace"), None if mark < 0 else mark, body[n + 8 :])


def readable(segment: Segment) -> list[segments.Read]:
    """The records of a whole segment, whatever its reader has seen."""
    return [item for item in segments.scan(segment) if item.body is not None]


def _unsent(segment: Segment) -> list[segments.Read]:
    """The records of a segment that the reader has not come to and that are not struck off."""
    rest = Segment(segment.path, segment.first, segment.size, offset=segment.offset)
    try:
        return [item for item in rest.read(1 << 30) if item.body is not None]
    finally:
        rest.close()
