"""Every Event waits on disk until the broker acknowledges it.

The way of an event: `put` gives it the next number and queues it; the committer thread writes it to a segment of
its class (and, for an alert, has the disk confirm it before `put` returns); `take` hands it to the link in order,
alerts first; `done` strikes it off; a segment whose records are all struck off is deleted.

What holds through a kill, a power cut and a damaged file:

- A number is given out once. Numbers are reserved on disk 8,192 ahead; after a power cut the next one lies beyond
  the reservation and a gap event declares those in between, because some of them may have been sent.
- A killed process loses at most what the committer had not yet written, and none of that was ever sent.
- A power cut costs an alert never, telemetry at most what was written in the last second (journal.SYNC_EVERY).
- What cannot be read is passed over and declared; nothing is deleted because of damage.

When the disk refuses (full, read-only, broken) events wait in RAM, are still sent from there, and go to disk as
soon as it takes them again. What no longer fits (quota, RAM) goes oldest first, telemetry before alerts, and a gap
event says how many and why. The decision for this form over SQLite: docs/outbox.md.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from pathlib import Path

import msgspec

from edge_agent.errors import StoreError
from edge_agent.events import JSON, Encoding, Event, GapEvent, rfc3339
from edge_agent.outbox.entries import AGENT, QUEUES, Counts, Entry, Lost, Record, declaration
from edge_agent.outbox.journal import SYNC_EVERY, Journal
from edge_agent.outbox.numbering import HOMELESS, OPEN
from edge_agent.outbox.quota import make_room
from edge_agent.outbox.segments import Segment

log = logging.getLogger("edge_agent")

RAM_BYTES = 16_000_000
"""what may wait in RAM while the disk refuses"""
PATIENCE = 10.0
"""seconds that `put` waits for a disk that neither confirms nor refuses"""
BATCH = 256
"""events written, and confirmed, at once"""
RETRY = 1.0
"""seconds between tries to reach a disk that refuses"""


class Outbox:
    """The store of one device. All methods may be called from any thread; one process at a time holds a store."""

    def __init__(
        self,
        path: Path,
        device: str,
        max_bytes: int = 256_000_000,
        expire_hours: float | None = None,
        max_events: int | None = None,
        encoding: Encoding = JSON,
    ) -> None:
        """Open or begin the store at `path`; what waited longer than `expire_hours` is dropped and declared.

        `encoding` makes the bytes that are kept, and sent as they are.

        Raises StoreError when the folder cannot be made, takes no writes, or another process holds it.
        """
        self.path, self.device, self.encoding = path, device, encoding
        self.counts = Counts()
        self.on_ready: Callable[[], None] = lambda: None
        """called, from any thread, when there is something to take"""
        self.trouble = ""
        """why the disk refuses, one line; empty while it works"""
        self._journal = journal = Journal(path, max_bytes, expire_hours, max_events)
        self._state = threading.Condition(journal.lock)
        self._given = self.before = journal.last
        """the highest number given out, and the highest that was when the store was opened"""
        self._confirmed = journal.last
        """the disk confirmed (or has refused) every alert up to this one"""
        self._pending: deque[Entry] = deque()
        self._pending_bytes = 0
        self._passed: dict[str, tuple[int, int]] = {}
        """pipeline -> the last number given out when it had passed a mark, and the mark"""
        self._ram: dict[str, deque[Entry]] = {kind: deque() for kind in QUEUES}
        """what the disk refused, oldest first"""
        self._again: deque[Record] = deque()
        self._taken: set[Record] = set()
        self._done: list[Record] = []
        self._noting: list[Record] = []
        """those of them that the committer is noting on disk"""
        self.on_noted: Callable[[], None] = lambda: None
        """called, from the committer, when some were noted"""
        self.gaps: deque[Lost] = deque(maxlen=50)
        """what was declared lost since the start; the last of it"""
        self._condemned: list[tuple[int, Segment]] = []
        """segments that go once the gap event of this number is written"""
        self._closing = False
        self._opened_at = time.time()
        self.lost_at_start = list(journal.lost)
        """what the opening missed, and declared"""
        if journal.lost:
            for lost in journal.lost:
                self._declare(lost)
            try:
                try:
                    self._write(list(self._pending))
                except OSError:
                    if not journal.give_spare():
                        raise
                    self._write(list(self._pending))
                journal.declared(self._given)
                self._confirmed = self._given
            except OSError as error:
                journal.close()
                raise StoreError(f"{path}: the disk takes no writes ({error.strerror}); free it") from None
        journal.spare()
        self._committer = threading.Thread(target=self._commit, name="outbox", daemon=True)
        self._committer.start()

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

    def passed(self, pipeline: str, mark: int) -> None:
        """The pipeline is done with what lies before `mark`, and more than its events tell was without an event.

        The disk knows of it from the next segment on, or once the store is closed: a kill has it answered once more.
        """
        with self._state:
            self._passed[pipeline] = self._given, mark

    def _number(self, event: Event, kind: str, mark: int | None = None) -> Event:
        seq = self._given + 1
        stamped = msgspec.structs.replace(
            event, device=self.device, epoch=self.epoch, seq=seq, id=f"{self.device}/{self.epoch}/{seq}"
        )
        item = Entry(seq, kind, event.pipeline, mark, self.encoding.encode(stamped))
        self._given = seq  # not before: what cannot be encoded takes no number
        if mark is not None:
            self._passed.pop(event.pipeline, None)
        self._pending.append(item)
        self._pending_bytes += len(item.payload)
        self.counts.put += 1
        return stamped

    def _declare(self, lost: Lost) -> int:
        """Put a gap event; its number."""
        gap = GapEvent(
            pipeline=AGENT,
            at=rfc3339(time.time()),
            first=lost.first,
            last=lost.last,
            count=lost.count,
            why=lost.why,
        )
        with self._state:
            self.counts.dropped += lost.count - lost.known
            self.gaps.append(lost)
            seq = self._number(gap, "alert").seq
            self._state.notify_all()
        log.warning("outbox: %d events from %d to %d are lost: %s", lost.count, lost.first, lost.last, lost.why)
        return seq

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, limit: int, kinds: tuple[str, ...] = QUEUES, but: Container[str] = ()) -> list[Record]:
        """Up to `limit` events of these kinds to send next, alerts first, oldest first; none of the pipelines in `but`.

        Each is the caller's until done or again. What stands on disk before others and is of a pipeline in `but` is
        kept aside in memory, a segment's worth of each kind; behind more of it that kind waits.
        """
        out: list[Record] = []
        with self._state:
            for kind in kinds:
                back = [record for record in self._again if record.kind == kind and record.pipeline not in but]
                back = sorted(back, key=lambda record: record.seq)[: limit - len(out)]
                out += back
                gone = set(back)
                self._again = deque(record for record in self._again if record not in gone)
                while len(out) < limit and self._may_pass_over(kind):
                    found, lost, damaged = self._journal.read(kind, limit - len(out))
                    fresh = [Record(item, segment) for item, segment in found]
                    passed = [record for record in fresh if record.pipeline in but]
                    self._again.extend(passed)
                    out += [record for record in fresh if record.pipeline not in but]
                    self.counts.damaged += damaged
                    for gap in lost:
                        self._declare(gap)
                    if not passed:
                        break
                ram = self._ram[kind]
                while (
                    ram
                    and len(out) < limit
                    and ram[0].pipeline not in but
                    and not self._journal.queues[kind].unread
                    and ram[0].seq <= self._journal.reserved  # else a power cut would have it given out again
                ):
                    out.append(Record(ram.popleft(), None))
            self._taken.update(out)
        return out

    def _may_pass_over(self, kind: str) -> bool:
        """Whether what is kept aside of a kind leaves room; its segments cannot go while it is in memory."""
        return sum(len(r.payload) for r in self._again if r.kind == kind) < self._journal.segment_bytes

    def done(self, *records: Record) -> None:
        """They have arrived: strike them off."""
        with self._state:
            for record in records:
                if record not in self._taken:
                    continue
                self._taken.discard(record)
                self.counts.done += 1
                if record.segment is not None:
                    self._done.append(record)
                elif not self._holds_before(record):
                    self._journal.keep_mark(record.entry)
            if self._done:
                self._state.notify_all()

    def _holds_before(self, record: Record) -> bool:
        """Whether an earlier event of its pipeline is in memory only: after a crash its source is to give it again."""
        held = [r.entry for r in self._taken if r.segment is None] + [
            item for ram in self._ram.values() for item in ram
        ]
        return any(item.pipeline == record.pipeline and item.seq < record.seq for item in held)

    def refuse(self, record: Record, why: str) -> None:
        """It will never be accepted: keep it aside in refused.jsonl, declare it (and what it declared) and go on."""
        with self._state:
            if record not in self._taken:
                return
        try:
            self._journal.set_aside(record.payload)
        except OSError as error:
            log.warning("outbox: event %d could not be set aside: %s", record.seq, error)
        self._declare(declaration([record.entry], why, self.encoding.decode))
        self.done(record)

    def again(self, records: list[Record] | None = None, but: Iterable[Record] = ()) -> None:
        """These (by default all, without those in `but`) that were taken and are not done are to be taken again."""
        with self._state:
            given_back = (self._taken if records is None else self._taken.intersection(records)).difference(but)
            back = sorted(given_back, key=lambda record: record.seq)
            self._taken.difference_update(back)
            self._again.extend(record for record in back if record.segment is not None)
            for kind, ram in self._ram.items():
                ram.extendleft(reversed([r.entry for r in back if r.segment is None and r.kind == kind]))

    def clock_set(self, jump: float) -> None:
        """The clock was set forward by so many seconds: what was written since the store was opened is no older."""
        with self._state:
            for queue in self._journal.queues.values():
                for segment in queue.segments:
                    if segment.written >= self._opened_at - 1:
                        with contextlib.suppress(OSError):
                            os.utime(segment.path, (segment.written + jump,) * 2)
            self._opened_at += jump

    # ── about ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def epoch(self) -> int:
        """Grows only when the store began anew."""
        return self._journal.epoch

    @property
    def last(self) -> int:
        """The highest number given out."""
        return self._given

    def name(self, record: Record) -> str:
        """The event's id."""
        return f"{self.prefix}{record.seq}"

    @property
    def prefix(self) -> str:
        """What each event's id begins with."""
        return f"{self.device}/{self.epoch}/"

    @property
    def unnoted(self) -> int:
        """Alerts that are done, which the disk does not know yet: a kill has them sent once more."""
        with self._state:
            return sum(record.kind == "alert" for record in (*self._done, *self._noting))

    @property
    def unwritten(self) -> int:
        """Events that the disk has refused so far: in memory, or on their way from there, they end with the process."""
        with self._state:
            return sum(len(ram) for ram in self._ram.values()) + sum(r.segment is None for r in self._taken)

    @property
    def empty(self) -> bool:
        """Everything that was put is done."""
        with self._state:
            waiting = self._pending or self._taken or self._again or any(self._ram.values())
            return not waiting and not self._journal.unread

    @property
    def alive(self) -> bool:
        """False when the committer has died, of a bug: nothing is written any more."""
        return self._committer.is_alive() or self._closing

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._journal.size

    @property
    def waiting(self) -> int:
        """Events that are neither done nor dropped."""
        with self._state:
            return self._journal.waiting + len(self._pending) + sum(len(ram) for ram in self._ram.values())

    @property
    def marks(self) -> dict[str, int]:
        """Pipeline -> the mark of its last event that is kept: where its source resumes, nothing lost or doubled."""
        with self._state:
            return dict(self._journal.marks)

    def close(self) -> None:
        """Write what is pending, confirm it, and say so in the mark."""
        with self._state:
            if self._closing:
                return
            self._closing = True
            self._state.notify_all()
        self._committer.join(PATIENCE)
        self._journal.close()

    # ── the committer ────────────────────────────────────────────────────────────────────────────────────

    def _commit(self) -> None:
        """Write, confirm, strike off, make room; the only thread that writes to the disk."""
        while True:
            with self._state:
                busy = self.trouble or self.unwritten or self._journal.homeless
                wait = SYNC_EVERY / 4 if self._journal.dirty else RETRY if busy else None
                self._state.wait_for(lambda: self._pending or self._done or self._closing, wait)
                batch = list(itertools.islice(self._pending, BATCH))
                self._noting, self._done = self._done, []
                held = {record.seq for record in (*self._again, *self._taken)}
                closing = self._closing
            try:
                refused = self._strike()
                self._write(batch)
                self._pass()
                self._bury()
                for segment, lost in make_room(self._journal, held, self.encoding.decode):
                    self._condemned.append((self._declare(lost) if lost else 0, segment))
                self._journal.confirm(now=closing)
                if refused is not None:
                    raise refused
                if self.trouble:
                    log.warning("outbox: the disk takes events again")
                    self._journal.spare()
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
                ended = closing and not self._pending and not self._done
            if batch:
                self.on_ready()
            if ended:
                self._finish()
                return

    def _strike(self) -> OSError | None:
        """Strike off before anything is written: a full disk gets room by it, even where it refuses the notes."""
        try:
            self._journal.strike(self._noting)
        except OSError as error:
            return error
        finally:
            # noted or not: a disk that takes no notes is no reason to send nothing
            if self._noting:
                self._noting = []
                self.on_noted()
        return None

    def _write(self, batch: list[Entry]) -> None:
        """Append a batch, after what waits in RAM; what was appended is no longer pending, even if the rest fails."""
        for kind in QUEUES:
            self._from_ram(kind)
        for kind in QUEUES:
            mine = [item for item in batch if item.kind == kind]
            if mine:
                self._journal.append(kind, mine)
                self._no_longer_pending(mine)
        if batch or self.trouble or self._journal.homeless:
            last = max(self._journal.noted, batch[-1].seq if batch else 0)
            # what is on its way from memory is as little safe as what waits there
            self._journal.note(last=last, state=HOMELESS if self.unwritten else OPEN)

    def _pass(self) -> None:
        """Move marks over what had no event, once the events before it are written."""
        with self._state:
            if self.unwritten:
                return
            for pipeline, (seq, mark) in list(self._passed.items()):
                if not self._pending or self._pending[0].seq > seq:
                    self._journal.marks[pipeline] = mark
                    del self._passed[pipeline]

    def _bury(self) -> None:
        """Delete the segments whose loss is written down."""
        while self._condemned and self._condemned[0][0] <= self._journal.noted:
            self._journal.bury(self._condemned[0][1])
            self._condemned.pop(0)

    def _no_longer_pending(self, items: list[Entry]) -> None:
        with self._state:
            for item in items:
                self._pending.remove(item)
                self._pending_bytes -= len(item.payload)

    def _from_ram(self, kind: str) -> None:
        """Put to disk what had to wait in RAM."""
        ram = self._ram[kind]
        with self._state:
            waiting = list(ram)
        for item in waiting:
            self._journal.unskip(kind, item.seq)
            self._journal.append(kind, [item])
            with self._state:
                if ram and ram[0] is item:
                    ram.popleft()
                else:  # taken meanwhile: it is on its way from RAM
                    self._journal.skip(kind, item.seq)

    def _to_ram(self, batch: list[Entry]) -> None:
        """The disk refused: keep the batch where it can still be sent from; what does not fit goes, declared."""
        if batch:  # before any of it can be sent
            with contextlib.suppress(OSError):  # a full disk still takes this: the blocks are there
                self._journal.note(last=batch[-1].seq, state=HOMELESS)
                if batch[-1].seq + BATCH > self._journal.reserved:
                    self._journal.reserve(batch[-1].seq)
        dropped: list[Entry] = []
        with self._state:
            refused = [item for item in batch if item in self._pending]
            self._no_longer_pending(refused)
            for item in refused:
                self._ram[item.kind].append(item)
            waiting = sum(len(item.payload) for ram in self._ram.values() for item in ram)
            room = RAM_BYTES if waiting <= RAM_BYTES else RAM_BYTES * 3 // 4  # a quarter at once: one gap, not many
            for kind in reversed(QUEUES):
                ram = self._ram[kind]
                while waiting > room and len(ram) > 1:
                    item = ram.popleft()
                    dropped.append(item)
                    waiting -= len(item.payload)
        if dropped:
            why = f"the disk refuses ({self.trouble}) and memory is full"
            self._declare(declaration(dropped, why, self.encoding.decode))

    def _finish(self) -> None:
        """The last act of the committer: say in the mark that the store was closed in order."""
        homeless = self.unwritten
        if homeless:
            log.error("outbox: %s: %d events could not be written before the end", self.path, homeless)
        try:
            self._journal.finish(whole=not homeless and not self.trouble)
        except OSError as error:
            log.error("outbox: %s: %s; closed without a clean mark", self.path, error.strerror)
