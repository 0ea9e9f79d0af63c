"""Every Event waits on disk until the broker acknowledges it.

The way of an event: `put` numbers and queues it; the committer thread writes it to a segment of its class (an alert is
confirmed by the disk before `put` returns); `take` hands it to the link in order, alerts first; `done` strikes it off.

What holds through a kill, a power cut and a damaged file:

- A number is given out once. Numbers are reserved on disk 8,192 ahead; after a power cut the next one lies beyond
  the reservation and a gap event declares those in between, because some of them may have been sent.
- A killed process loses what the committer had not yet written, and none of that was ever sent.
- A power cut costs an alert never, telemetry at most what was written in the last second (journal.SYNC_EVERY).
- What cannot be read is passed over and declared; nothing is deleted because of damage.
When the disk refuses (full, read-only, broken) events wait in RAM, are sent from there, and go to disk once it takes
them again. What no longer fits goes oldest first, telemetry before alerts, declared by a gap event. See docs/outbox.md.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from functools import partial
from pathlib import Path

import msgspec

from edge_agent.errors import StoreError
from edge_agent.events import JSON, Encoding, Event, GapEvent, rfc3339
from edge_agent.outbox.committer import Committer
from edge_agent.outbox.entries import AGENT, QUEUES, Counts, Entry, Lost, Record, declaration
from edge_agent.outbox.journal import Journal
from edge_agent.outbox.quota import bound, give_spare, keep_spare
from edge_agent.outbox.reader import oldest, read
from edge_agent.outbox.waiting import Waiting

log = logging.getLogger("edge_agent")

PATIENCE = 10.0
"""seconds that `put` waits for a disk that neither confirms nor refuses"""


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

        `encoding` makes the bytes that are kept, and sent as they are; `bound` changes quotas and expiry later.
        Raises StoreError when the folder cannot be made, takes no writes, or another process holds it.
        """
        self.path, self.device, self.encoding = path, device, encoding
        self.counts = Counts()
        self.on_ready: Callable[[], None] = lambda: None
        """called, from any thread, when there is something to take"""
        self.on_noted: Callable[[], None] = lambda: None
        """called, from the committer, when some were noted"""
        self.on_done: Callable[[int], None] = lambda seq: None
        """called, from the link, with the number of each that is done"""
        self.gaps: deque[Lost] = deque(maxlen=50)
        """what was declared lost since the start; the last of it"""
        self._journal = Journal(path)
        self.bound = partial(bound, self._journal)
        self.bound(max_bytes, expire_hours, max_events)
        self._waiting = Waiting(self._journal)
        self._state = self._waiting.state
        self.oldest = partial(oldest, self._journal, self._waiting)
        self.before = self._journal.last
        """the highest number that was given out when the store was opened"""
        self._opened_at = time.time()
        told = (lambda: self.on_ready()), (lambda: self.on_noted())
        self._committer = Committer(self._journal, self._waiting, self._declare, encoding.decode, *told)
        self.lost_at_start = list(self._journal.lost)
        """what the opening missed, and declared"""
        self._declare_at_start()
        keep_spare(path)
        self._committer.thread.start()

    def _declare_at_start(self) -> None:
        """Write down what the opening missed, before anything else is. Raises StoreError."""
        if not self.lost_at_start:
            return
        for lost in self.lost_at_start:
            self._declare(lost)
        try:
            try:
                self._committer.write(list(self._waiting.pending))
            except OSError:
                if not give_spare(self.path):
                    raise
                self._committer.write(list(self._waiting.pending))
            self._journal.declared(self._waiting.given)
            self._waiting.confirmed = self._waiting.given
        except OSError as error:
            self._journal.close()
            raise StoreError(f"{self.path}: the disk takes no writes ({error.strerror}); free it") from None

    # ── in ───────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, event: Event, kind: str = "alert", mark: int | None = None) -> Event:
        """Number the event and keep it; an alert is confirmed by the disk (or known to be refused) on return.

        `mark` is where the pipeline's source is to resume once this event is kept: see `marks`.
        Returns the event as it will be sent. Never raises for the disk's sake; StoreError after `close`.
        """
        with self._state:
            if self._waiting.full:
                self._state.wait_for(lambda: not self._waiting.full or self._waiting.closing, PATIENCE)
            if self._waiting.closing:
                raise StoreError(f"{self.path}: the store is closed")
            event = self._number(event, kind, mark)
            self._state.notify_all()
            if kind == "alert":
                self._state.wait_for(lambda: self._waiting.confirmed >= event.seq or self._waiting.closing, PATIENCE)
        return event

    def passed(self, pipeline: str, mark: int) -> None:
        """The pipeline is done with what lies before `mark`, and more than its events tell was without an event.

        The disk knows of it from the next segment on, or once the store is closed: a kill has it answered once more.
        """
        with self._state:
            self._waiting.passed[pipeline] = self._waiting.given, mark

    def _number(self, event: Event, kind: str, mark: int | None = None) -> Event:
        seq = self._waiting.given + 1
        stamped = msgspec.structs.replace(
            event, device=self.device, epoch=self.epoch, seq=seq, id=f"{self.device}/{self.epoch}/{seq}"
        )
        item = Entry(seq, kind, event.pipeline, mark, self.encoding.encode(stamped))
        self._waiting.add(item)  # not before: what cannot be encoded takes no number
        self.counts.put += 1
        return stamped

    def _declare(self, lost: Lost) -> int:
        """Put a gap event; its number."""
        at = rfc3339(time.time())
        gap = GapEvent(pipeline=AGENT, at=at, first=lost.first, last=lost.last, count=lost.count, why=lost.why)
        with self._state:
            self.counts.dropped += lost.count - lost.known
            self.gaps.append(lost)
            seq = self._number(gap, "alert").seq
            self._state.notify_all()
        log.warning("outbox: %d events from %d to %d are lost: %s", lost.count, lost.first, lost.last, lost.why)
        return seq

    def miss(self, why: str) -> None:
        """No event will come of what was begun: it takes a number, which is declared before this returns."""
        with self._state:
            self._waiting.given = missed = self._waiting.given + 1
            seq = self._declare(Lost(missed, missed, 1, why))
            self._state.wait_for(lambda: self._waiting.confirmed >= seq or self._waiting.closing, PATIENCE)

    # ── out ──────────────────────────────────────────────────────────────────────────────────────────────

    def take(self, limit: int, kinds: tuple[str, ...] = QUEUES, but: Container[str] = ()) -> list[Record]:
        """Up to `limit` events of these kinds to send next, alerts first, oldest first; none of the pipelines in `but`.

        Each is the caller's until done or again. What stands on disk before others and is of a pipeline in `but` is
        kept aside in memory, a segment's worth of each kind; behind more of it that kind waits.
        """
        out: list[Record] = []
        with self._state:
            for kind in kinds:
                out += self._waiting.take_again(kind, limit - len(out), but)
                found, lost, damaged = read(self._journal, self._waiting, kind, limit - len(out), but)
                out += found
                self.counts.damaged += damaged
                for gap in lost:
                    self._declare(gap)
                if not self._journal.queues[kind].unread:
                    out += self._waiting.take_ram(kind, limit - len(out), but, self._journal.numbers.mark.reserved)
            self._waiting.taken.update(out)
        return out

    def done(self, *records: Record) -> None:
        """They have arrived: strike them off."""
        with self._state:
            for record in records:
                if record not in self._waiting.taken:
                    continue
                self._waiting.taken.discard(record)
                self.counts.done += 1
                self.on_done(record.seq)
                if record.segment is not None:
                    self._waiting.done.append(record)
                elif not self._waiting.holds_before(record):
                    self._journal.keep_mark(record.entry)
            if self._waiting.done:
                self._state.notify_all()

    def refuse(self, record: Record, why: str) -> None:
        """It will never be accepted: keep it aside in refused.jsonl, declare it (and what it declared) and go on."""
        with self._state:
            if record not in self._waiting.taken:
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
            self._waiting.give_back(records, but)

    def clock_set(self, jump: float) -> None:
        """The clock was set forward by so many seconds: what was written since the store was opened is no older."""
        with self._state:
            for queue in self._journal.queues.values():
                for segment in queue.segments:
                    if segment.written >= self._opened_at - 1:
                        with contextlib.suppress(OSError):
                            os.utime(segment.path, (segment.written + jump,) * 2)
            self._opened_at += jump

    @property
    def epoch(self) -> int:
        """Grows only when the store began anew."""
        return self._journal.epoch

    @property
    def last(self) -> int:
        """The highest number given out."""
        return self._waiting.given

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
        return self._waiting.unnoted

    @property
    def unwritten(self) -> int:
        """Events that the disk has refused so far: in memory, or on their way from there, they end with the process."""
        return self._waiting.unwritten

    @property
    def empty(self) -> bool:
        """Everything that was put is done."""
        with self._state:
            return self._waiting.empty and not self._journal.unread

    @property
    def alive(self) -> bool:
        """False when the committer has died, of a bug: nothing is written any more."""
        return self._committer.thread.is_alive() or self._waiting.closing

    @property
    def trouble(self) -> str:
        """Why the disk refuses, one line; empty while it works."""
        return self._committer.trouble

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._journal.size

    @property
    def waiting(self) -> int:
        """Events that are neither done nor dropped."""
        with self._state:
            return self._journal.waiting + sum(map(len, [self._waiting.pending, *self._waiting.ram.values()]))

    @property
    def marks(self) -> dict[str, int]:
        """Pipeline -> the mark of its last event that is kept: where its source resumes, nothing lost or doubled."""
        with self._state:
            return dict(self._journal.marks)

    def close(self) -> None:
        """Write what is pending, confirm it, and say so in the mark."""
        with self._state:
            if self._waiting.closing:
                return
            self._waiting.closing = True
            self._state.notify_all()
        self._committer.thread.join(PATIENCE)
        self._journal.close()
