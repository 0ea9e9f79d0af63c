"""Every Event waits on disk until the broker acknowledges it.

The way of an event: `put` gives it the next number and queues it; the committer thread writes it to a segment of
its class (and, for an alert, has the disk confirm it before `put` returns); `take` hands it to the link in order,
alerts first; `done` strikes it off; a segment whose records are all struck off is deleted.

What holds through a kill, a power cut and a damaged file:

- A number is given out once. Numbers are reserved on disk 8,192 ahead; after a power cut the next one lies beyond
  the reservation and a gap event declares those in between, because some of them may have been sent.
- A killed process loses at most what the committer had not yet written, and none of that was ever sent.
- A power cut costs an alert never, telemetry at most what was written in the last second (SYNC_EVERY).
- What cannot be read is passed over and declared; nothing is deleted because of damage.

When the disk refuses (full, read-only, broken) events wait in RAM, are still sent from there, and go to disk as
soon as it takes them again. What no longer fits (quota, RAM) goes oldest first, telemetry before alerts, and a gap
event says how many and why. The decision for this form over SQLite: docs/outbox.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from edge_agent import segments
from edge_agent.errors import StoreError
from edge_agent.segments import CLOSED, HOMELESS, OPEN, Mark, Segment
from edge_agent.types import Event, GapEvent, rfc3339

log = logging.getLogger("edge_agent")

KINDS = ("alert", "telemetry")
"""In the order in which they are sent; quota takes them from the other end."""

RESERVE = 8192
"""numbers that may be given out between two confirmed writes of the mark"""
SYNC_EVERY = 1.0
"""seconds between telemetry being written and the disk confirming it"""
RAM_BYTES = 16_000_000
"""what may wait in RAM while the disk refuses"""
PATIENCE = 10.0
"""seconds that `put` waits for a disk that neither confirms nor refuses"""
BATCH = 256
"""events written, and confirmed, at once"""
RETRY = 1.0
"""seconds between tries to reach a disk that refuses"""

AGENT = "agent"
"""the pipeline that gap events stand under"""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One event on its way out."""

    seq: int
    pipeline: str
    payload: bytes
    """the event's JSON"""
    mark: int | None
    kind: str
    segment: Segment | None
    """where it lies; None while it waits in RAM only"""


@dataclass(slots=True)
class Counts:
    """What happened since the outbox was opened."""

    put: int = 0
    done: int = 0
    dropped: int = 0
    damaged: int = 0
    """stretches of bytes that could not be read"""


class _Marks(msgspec.Struct, frozen=True):
    """marks.json: the marks of all events up to `seq`."""

    seq: int
    marks: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Pending:
    seq: int
    kind: str
    body: bytes


@dataclass(slots=True)
class _Queue:
    """The segments of one class, oldest first; the last one is appended to unless it is sealed."""

    kind: str
    segments: list[Segment]
    dirty: bool = False
    """written, not yet confirmed by the disk"""
    before: int = 0
    """the last seq that the reader met in this class: damage behind it may hold the numbers that follow"""
    ram: deque[Record] = field(default_factory=deque)
    """what the disk refused, oldest first"""

    @property
    def active(self) -> Segment | None:
        return self.segments[-1] if self.segments and not self.segments[-1].sealed else None


class Outbox:
    """The store of one device. All methods may be called from any thread; one process at a time holds a store."""

    def __init__(self, path: Path, device: str, max_bytes: int = 256_000_000) -> None:
        """Open or begin the store at `path`.

        Raises StoreError when the folder cannot be made or another process holds it.
        """
        self.path, self.device, self.max_bytes = path, device, max_bytes
        self.segment_bytes = max(64 * 1024, min(1_000_000, max_bytes // 16))
        self.counts = Counts()
        self.on_ready: Callable[[], None] = lambda: None
        """called, from any thread, when there is something to take"""
        self.trouble = ""
        """why the disk refuses, one line; empty while it works"""
        self._state = threading.Condition()
        self._pending: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._acks: list[Record] = []
        self._again: deque[Record] = deque()
        self._taken: set[Record] = set()
        self._given = 0
        """the last number given out"""
        self._confirmed = 0
        """the disk confirmed (or has refused) every alert up to this one"""
        self._marks: dict[str, int] = {}
        self._marks_saved = 0
        """seq up to which the marks are in the file of marks"""
        self._closing = False
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
        self._queues = {kind: _Queue(kind, segments.listed(path, kind)) for kind in KINDS}
        gap = self._recover()
        self._read_marks()
        self._committer = threading.Thread(target=self._commit, name="outbox", daemon=True)
        self._committer.start()
        if gap:
            self._declare(*gap)

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, event: Event, kind: str = "alert", mark: int | None = None) -> Event:
        """Number the event and keep it; an alert is confirmed by the disk (or known to be refused) on return.

        `mark` is where the pipeline's source is to resume once this event is kept: see `marks`.

        Returns the event as it will be sent. Never raises for the disk's sake; StoreError after `close`.
        """
        with self._state:
            if self._pending_bytes > RAM_BYTES:
                self._state.wait_for(lambda: self._pending_bytes <= RAM_BYTES or self._closing, PATIENCE)
            if self._closing:
                raise StoreError(f"{self.path}: the store is closed")
            event = self._number(event, kind, mark)
            self._state.notify_all()
            if kind == "alert":
                self._state.wait_for(lambda: self._confirmed >= event.seq or self._closing, PATIENCE)
        return event

    def _number(self, event: Event, kind: str, mark: int | None = None) -> Event:
        self._given = seq = self._given + 1
        stamped = msgspec.structs.replace(
            event, device=self.device, epoch=self.epoch, seq=seq, id=f"{self.device}/{self.epoch}/{seq}"
        )
        body = _body(event.pipeline, mark, msgspec.json.encode(stamped))
        self._pending.append(_Pending(seq, kind, body))
        self._pending_bytes += len(body)
        self.counts.put += 1
        return stamped

    def _declare(self, first: int, last: int, count: int, why: str) -> None:
        """Put a gap event."""
        gap = GapEvent(pipeline=AGENT, at=rfc3339(time.time()), first=first, last=last, count=count, why=why)
        with self._state:
            self._number(gap, "alert")
            self._state.notify_all()
        log.warning("outbox: %d events between %d and %d are lost: %s", count, first, last, why)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, limit: int) -> list[Record]:
        """Up to `limit` events to send next, alerts first, oldest first; each is the caller's until done or again."""
        out: list[Record] = []
        with self._state:
            while self._again and len(out) < limit:
                out.append(self._again.popleft())
            for kind in KINDS:
                self._take_from(self._queues[kind], limit, out)
            self._taken.update(out)
        return out

    def _take_from(self, queue: _Queue, limit: int, out: list[Record]) -> None:
        for segment in list(queue.segments):
            while len(out) < limit and segment.offset < segment.size:
                before = segment.offset
                for item in segment.read(limit - len(out)):
                    if item.body is None:
                        self.counts.damaged += 1
                        self._declare_damage(queue, segment)
                        continue
                    queue.before = item.seq
                    segment.outstanding += 1
                    out.append(_record(item.seq, item.body, queue.kind, segment))
                if segment.offset == before:
                    break
            if len(out) >= limit or segment.offset < segment.size:
                return
        while queue.ram and len(out) < limit:
            out.append(queue.ram.popleft())

    def _declare_damage(self, queue: _Queue, segment: Segment) -> None:
        """Damage was met: the numbers that the other class does not hold, up to the next readable one, are lost."""
        here = queue.segments.index(segment)
        after = next((r.seq for s in queue.segments[here:] for r in _readable(s) if r.seq > queue.before), 0)
        first = max(queue.before + 1, segment.first)
        last = (after or self._opened_at + 1) - 1
        if last < first:
            return
        lost = sorted(set(range(first, last + 1)) - self._on_disk(first, last))
        queue.before = last
        if lost:
            self._declare(lost[0], lost[-1], len(lost), f"{segment.path.name} is damaged")
            self.counts.dropped += len(lost)

    def _on_disk(self, first: int, last: int) -> set[int]:
        """The numbers from `first` to `last` that can be read from any segment."""
        held: set[int] = set()
        for queue in self._queues.values():
            bounds = [s.first for s in queue.segments[1:]] + [last + 1]
            for segment, following in zip(queue.segments, bounds, strict=False):
                if segment.first <= last and following > first:
                    held.update(r.seq for r in _readable(segment) if first <= r.seq <= last)
        return held

    def done(self, record: Record) -> None:
        """The broker has it: strike it off."""
        with self._state:
            if record not in self._taken:
                return
            self._taken.discard(record)
            self.counts.done += 1
            self._acks.append(record)
            self._state.notify_all()

    def refuse(self, record: Record, why: str) -> None:
        """It will never be accepted: keep it aside in refused.jsonl, declare it and go on."""
        with self._state:
            if record not in self._taken:
                return
        try:
            with (self.path / "refused.jsonl").open("ab") as file:
                file.write(record.payload + b"\n")
        except OSError as error:
            log.warning("outbox: event %d could not be set aside: %s", record.seq, error)
        self.counts.dropped += 1
        self._declare(record.seq, record.seq, 1, why)
        self.done(record)

    def again(self, records: list[Record] | None = None) -> None:
        """These (by default all) that were taken and are not done are to be taken again: the connection is gone."""
        with self._state:
            back = sorted(self._taken if records is None else records, key=lambda r: r.seq)
            for record in back:
                if record not in self._taken:
                    continue
                self._taken.discard(record)
                if record.segment is not None:
                    self._again.append(record)
            for kind, queue in self._queues.items():
                homeless = [r for r in back if r.segment is None and r.kind == kind]
                queue.ram.extendleft(reversed(homeless))

    # ── about ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def epoch(self) -> int:
        """Grows only when the store began anew."""
        return self._mark.epoch

    @property
    def last(self) -> int:
        """The highest number given out."""
        return self._given

    @property
    def empty(self) -> bool:
        """Everything that was put is done."""
        with self._state:
            return not (self._pending or self._taken or self._again) and not any(
                q.ram or any(s.offset < s.size for s in q.segments) for q in self._queues.values()
            )

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with self._state:
            return sum(s.size for q in self._queues.values() for s in q.segments)

    def close(self) -> None:
        """Write what is pending, confirm it, and say so in the mark."""
        with self._state:
            if self._closing:
                return
            self._closing = True
            self._state.notify_all()
        self._committer.join(PATIENCE)
        os.close(self._mark_fd)
        os.close(self._lock_fd)
        for queue in self._queues.values():
            for segment in queue.segments:
                segment.close()

    @property
    def marks(self) -> dict[str, int]:
        """Pipeline -> the mark of its last event that is kept: where its source resumes, nothing lost or doubled."""
        with self._state:
            return dict(self._marks)

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────

    def _recover(self) -> tuple[int, int, int, str] | None:
        """Find out how far the numbers went; returns the gap to declare, if there is one."""
        boot = segments.boot_id()
        old = segments.read_mark(self.path / "mark")
        newest, epoch = self._newest()
        why, first, top = "", 1, 0
        if old is None and newest == 0:  # a store that begins
            old = Mark(max(1, int(time.time())), 0, 0, 0, CLOSED, boot)
        elif old is None:
            why, first, top = "the store's mark was damaged", newest + 1, newest + 2 * RESERVE
            old = Mark(epoch, newest, newest, top, OPEN, boot)
        elif old.state == OPEN and old.boot == boot != bytes(16):
            why, first, top = "the process was killed", old.last + 1, max(newest, old.last)
        elif old.state == HOMELESS and old.boot == boot != bytes(16):
            why, first, top = "the disk had refused them", old.confirmed + 1, max(newest, old.last)
        elif old.state != CLOSED:
            why, first, top = "power cut", old.confirmed + 1, max(newest, old.reserved)
        elif newest > old.last:
            why, first, top = "the store's mark was damaged", old.last + 1, newest
        self._given = max(old.last, top)
        self._opened_at = first - 1 if why else self._given
        self._confirmed = self._given
        self._mark = replace(old, last=self._given, confirmed=self._given, state=OPEN, boot=boot)
        try:
            self._mark_fd = os.open(self.path / "mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._reserve()
        except OSError as error:
            raise StoreError(f"{self.path}: the disk takes no writes ({error.strerror}); free or remount it") from None
        lost = sorted(set(range(first, top + 1)) - self._on_disk(first, top)) if why else []
        return (lost[0], lost[-1], len(lost), f"{why}: these may be lost") if lost else None

    def _newest(self) -> tuple[int, int]:
        """Highest seq in the newest segments (0: there are none), and the highest epoch in the headers."""
        newest = epoch = 0
        for queue in self._queues.values():
            for segment in queue.segments[-1:]:
                newest = max([newest, segment.first - 1, *(r.seq for r in _readable(segment))])
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
        self._marks, self._marks_saved = dict(saved.marks), saved.seq
        newest = dict.fromkeys(self._marks, saved.seq)
        for queue in self._queues.values():
            bounds = [s.first for s in queue.segments[1:]] + [self._given + 1]
            for segment, following in zip(queue.segments, bounds, strict=False):
                for item in _readable(segment) if following > saved.seq else ():
                    record = _record(item.seq, item.body or b"", queue.kind, None)
                    if record.mark is not None and item.seq > newest.get(record.pipeline, 0):
                        newest[record.pipeline], self._marks[record.pipeline] = item.seq, record.mark

    def _save_marks(self) -> None:
        """Keep the marks of events whose segments are about to go."""
        with self._state:
            marks = _Marks(self._mark.last, dict(self._marks))
        if not marks.marks or marks.seq == self._marks_saved:
            return
        fresh = self.path / "marks.new"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(marks))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / "marks.json")
        self._marks_saved = marks.seq

    # ── the committer ────────────────────────────────────────────────────────────────────────────────────

    def _commit(self) -> None:
        """Write, confirm, strike off, make room; the only thread that writes to the disk."""
        while True:
            with self._state:
                busy = any(q.dirty or q.ram for q in self._queues.values())
                self._state.wait_for(
                    lambda: self._pending or self._acks or self._closing, RETRY if self.trouble or busy else None
                )
                batch = list(itertools.islice(self._pending, BATCH))
                acks, self._acks = self._acks, []
                closing = self._closing
            try:
                self._write(batch)
                self._strike(acks)
                self._make_room()
                self._sync(now=closing)
                if self.trouble:
                    log.warning("outbox: the disk takes events again")
                    self.trouble = ""
            except OSError as error:
                if not self.trouble:
                    log.error("outbox: %s: %s; events wait in RAM", self.path, error.strerror)
                self.trouble = f"{error.strerror}"
                self._to_ram(batch)
                if not closing:
                    time.sleep(0.05)
            with self._state:
                if batch:
                    self._confirmed = max(self._confirmed, batch[-1].seq)
                self._state.notify_all()
                done = closing and not self._pending and not self._acks
            if batch:
                self.on_ready()
            if done:
                self._finish()
                return

    def _write(self, batch: list[_Pending]) -> None:
        """Append a batch to its segments, what waits in RAM first, and have the disk confirm alerts."""
        if batch and batch[-1].seq > self._mark.reserved:
            self._reserve()
        for queue in self._queues.values():
            self._from_ram(queue)
        for kind, queue in self._queues.items():
            mine = [item for item in batch if item.kind == kind]
            if mine:
                self._append(queue, mine[0].seq, b"".join(segments.pack(p.seq, p.body) for p in mine))
                if kind == "alert":
                    active = queue.active
                    assert active is not None
                    os.fdatasync(active.fd)
                    queue.dirty = False
                with self._state:
                    for item in mine:
                        self._pending.remove(item)
                        self._pending_bytes -= len(item.body)
                        record = _record(item.seq, item.body, kind, None)
                        if record.mark is not None:
                            self._marks[record.pipeline] = record.mark
        if batch:
            homeless = any(q.ram for q in self._queues.values())
            self._write_mark(last=batch[-1].seq, state=HOMELESS if homeless else OPEN)

    def _append(self, queue: _Queue, first: int, blob: bytes) -> None:
        """Append packed records to the class's active segment, or to a new one."""
        active = queue.active
        if active is not None and active.size + len(blob) > self.segment_bytes and active.size > segments.HEADER.size:
            if queue.dirty:
                os.fdatasync(active.fd)
            with self._state:
                active.sealed = True
            active = None
        if active is None:
            active = segments.create(self.path, queue.kind, first, self.epoch)
            self._sync_folder()
            with self._state:
                queue.segments.append(active)
        segments.write_all(active.fd, blob)
        queue.dirty = True
        with self._state:
            active.size += len(blob)

    def _from_ram(self, queue: _Queue) -> None:
        """Put to disk what had to wait in RAM."""
        with self._state:
            waiting = list(queue.ram)
        for record in waiting:
            body = _body(record.pipeline, record.mark, record.payload)
            self._append(queue, record.seq, segments.pack(record.seq, body))
            with self._state:
                if queue.ram and queue.ram[0] is record:
                    queue.ram.popleft()
                else:  # taken meanwhile: the copy on disk is struck off at once, the one in RAM is on its way
                    active = queue.active
                    assert active is not None
                    active.acked = (active.acked or set()) | {record.seq}

    def _to_ram(self, batch: list[_Pending]) -> None:
        """The disk refused: keep the batch where it can still be sent from; what does not fit goes, declared."""
        gaps: list[Record] = []
        with self._state:
            refused = {item.seq for item in batch}
            for item in [p for p in self._pending if p.seq in refused]:
                self._pending.remove(item)
                self._pending_bytes -= len(item.body)
                self._queues[item.kind].ram.append(_record(item.seq, item.body, item.kind, None))
            waiting = sum(len(r.payload) for q in self._queues.values() for r in q.ram)
            room = RAM_BYTES if waiting <= RAM_BYTES else RAM_BYTES * 3 // 4  # a quarter at once: one gap, not many
            for kind in reversed(KINDS):
                ram = self._queues[kind].ram
                while waiting > room and len(ram) > 1:
                    gaps.append(ram.popleft())
                    waiting -= len(gaps[-1].payload)
        if batch:
            with contextlib.suppress(OSError):  # a full disk still takes this: the blocks are there
                self._write_mark(last=batch[-1].seq, state=HOMELESS)
        if gaps:
            seqs = [record.seq for record in gaps]
            self.counts.dropped += len(seqs)
            self._declare(min(seqs), max(seqs), len(seqs), f"the disk refuses ({self.trouble}) and memory is full")

    def _strike(self, acks: list[Record]) -> None:
        """Note what was acknowledged and delete what is finished."""
        entries: dict[int, tuple[Segment, list[bytes]]] = {}
        for record in acks:
            if record.segment is not None:
                entries.setdefault(id(record.segment), (record.segment, []))[1].append(segments.ack_entry(record.seq))
        for segment, lines in entries.values():
            with self._state:
                segment.outstanding -= len(lines)
            if segment.finished or not segment.path.exists():
                continue
            if segment.ack_fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                segment.ack_fd = os.open(segment.path.with_suffix(".ack"), flags, 0o600)
            segments.write_all(segment.ack_fd, b"".join(lines))
        for queue in self._queues.values():
            self._delete_finished(queue)

    def _delete_finished(self, queue: _Queue) -> None:
        with self._state:
            active = queue.active
            if active is not None and active.offset >= active.size > 64 * 1024 and not active.outstanding:
                active.sealed = True
                queue.dirty = False
            finished = [s for s in queue.segments if s.finished]
            queue.segments = [s for s in queue.segments if not s.finished]
        if finished:
            self._save_marks()
        for segment in finished:
            segment.remove()

    def _make_room(self) -> None:
        """Hold the quota: the oldest telemetry goes first, then the oldest alerts, and a gap event says so."""
        while self.size > self.max_bytes:
            victim = next(
                (
                    (queue, segment)
                    for queue in (self._queues[kind] for kind in reversed(KINDS))
                    for segment in queue.segments
                    if segment.sealed and not segment.outstanding
                ),
                None,
            )
            if victim is None:
                return
            queue, segment = victim
            with self._state:
                held = {r.seq for r in (*self._again, *self._taken)}
                lost = [r.seq for r in _unsent(segment) if r.seq not in held]
                queue.segments.remove(segment)
            self._save_marks()
            segment.remove()
            if lost:
                self.counts.dropped += len(lost)
                why = f"the store is full ({self.max_bytes} bytes): oldest {queue.kind} dropped"
                self._declare(lost[0], lost[-1], len(lost), why)

    def _sync(self, now: bool) -> None:
        """Have the disk confirm what telemetry was written, at most SYNC_EVERY seconds after."""
        if not now and time.monotonic() - self._synced_at < SYNC_EVERY:
            return
        self._synced_at = time.monotonic()
        synced = False
        for queue in self._queues.values():
            active = queue.active
            if queue.dirty and active is not None and (now or active.offset < active.size or active.outstanding):
                os.fdatasync(active.fd)
                synced = True
            queue.dirty = False
        if synced and self._mark.state == OPEN:
            self._write_mark(confirmed=self._mark.last)
            os.fdatasync(self._mark_fd)

    def _reserve(self) -> None:
        """Let the disk confirm that numbers up to a new bound may be written."""
        self._write_mark(reserved=self._given + RESERVE)
        os.fdatasync(self._mark_fd)
        self._sync_folder()

    def _write_mark(self, **changes: int) -> None:
        self._mark = replace(self._mark, counter=self._mark.counter + 1, **changes)  # type: ignore[arg-type]
        os.pwrite(self._mark_fd, self._mark.pack(), segments.SLOT * (self._mark.counter % 2))

    def _sync_folder(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _finish(self) -> None:
        """The last act of the committer: say in the mark that the store was closed in order."""
        with self._state:
            homeless = [r.seq for q in self._queues.values() for r in q.ram]
        if homeless:
            log.error("outbox: %s: %d events could not be written before the end", self.path, len(homeless))
        try:
            self._save_marks()
            if homeless:
                self._write_mark(state=HOMELESS)
            else:
                self._write_mark(state=CLOSED, confirmed=self._mark.last)
            os.fdatasync(self._mark_fd)
        except OSError as error:
            log.error("outbox: %s: %s; closed without a clean mark", self.path, error.strerror)


def _body(pipeline: str, mark: int | None, payload: bytes) -> bytes:
    """What a record holds: u8 length and name of the pipeline, i64 mark (-1: none), the event's JSON."""
    name = pipeline.encode()
    return bytes([len(name)]) + name + (-1 if mark is None else mark).to_bytes(8, "little", signed=True) + payload


def _record(seq: int, body: bytes, kind: str, segment: Segment | None) -> Record:
    n = 1 + body[0]
    mark = int.from_bytes(body[n : n + 8], "little", signed=True)
    return Record(seq, body[1:n].decode(), body[n + 8 :], None if mark < 0 else mark, kind, segment)


def _readable(segment: Segment) -> list[segments.Read]:
    return [item for item in segments.scan(segment) if item.body is not None]


def _unsent(segment: Segment) -> list[segments.Read]:
    """The records of a segment that the reader has not come to and that are not struck off."""
    rest = Segment(segment.path, segment.first, segment.size, offset=segment.offset)
    try:
        return [item for item in rest.read(1 << 30) if item.body is not None]
    finally:
        rest.close()
