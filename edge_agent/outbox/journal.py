"""The outbox's disk: segments of each class, the mark that remembers the numbers, the marks that sources resume at.

One thread writes (the outbox's committer); others read under `lock`, see reader.py. Writing raises OSError as the disk
does, and what was asked for is then not done; opening raises StoreError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from pathlib import Path

from edge_agent import files
from edge_agent.errors import StoreError
from edge_agent.outbox import marks, numbering, segments
from edge_agent.outbox.entries import Entry, Queue, Queues, Record, add, preface
from edge_agent.outbox.marks import Marks
from edge_agent.outbox.numbering import CLOSED, HOMELESS, OPEN, Numbers
from edge_agent.outbox.recovery import recover
from edge_agent.outbox.segments import Segment

SYNC_EVERY = 1.0
"""seconds between telemetry being written and the disk confirming it"""
KEPT = ("refused.jsonl", "refused.old")
"""what the broker would never take, and what of it was kept before that"""


class Journal:
    """One store on disk. `lock` guards what the reader and the writer share."""

    max_bytes: int  # these five are set by `quota.bound`, before anything is written
    expire_hours: float | None
    max_events: int | None
    segment_bytes: int
    segment_events: int

    def __init__(self, path: Path) -> None:
        """Take the store at `path`, or begin one. Raises StoreError when it cannot be had."""
        self.path = path
        self.lock = threading.RLock()
        try:
            if not path.is_dir():
                files.folder(path, files.PRIVATE)
                files.sync(path.parent)
            self._lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}: no store can stand here ({error.strerror}); set [store] path") from None
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_fd)
            raise StoreError(f"{path}: another edge-agent uses this store; stop it or set [store] path") from None
        try:
            self.queues = Queues(path)
            self.numbers = Numbers(path, self.queues)
            self._open()
        except OSError as error:
            os.close(self._lock_fd)
            raise StoreError(f"{path}: the disk takes no writes ({error.strerror}); free or remount it") from None

    def _open(self) -> None:
        """Go on from what is there. `lost` is to be declared before anything else, and then `declared` called."""
        found = recover(self.path, self.queues)
        self.last, self.opened_at, self.lost, self.told = found.last, found.before, found.lost, found.told
        self.marks = found.marks
        """pipeline -> the mark of its last event that is kept"""
        self._marked: dict[str, int] = {}
        """pipeline -> the number of that event, where it was kept since"""
        self._saved = found.saved
        self._kept_bytes = sum((self.path / name).stat().st_size for name in KEPT if (self.path / name).exists())
        for queue in self.queues.values():  # a power cut from here on must not take what a kill has left in memory
            for segment in queue.segments[-1:] if found.mark.state != CLOSED else []:
                files.sync(segment.path)
        self.numbers.begin(found.mark, self.last, declared=not self.lost)

    def declared(self, seq: int) -> None:
        """The gaps that the opening found stand in the store up to `seq`: from here on the numbers are whole."""
        self.lost = []
        self.numbers.declared = True
        self.numbers.note(last=seq, confirmed=seq, state=OPEN, boot=numbering.boot_id())

    # ── about ────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def epoch(self) -> int:
        """Grows only when the store began anew."""
        return self.numbers.mark.epoch

    @property
    def size(self) -> int:
        """Bytes on disk: events, what was acknowledged of them, and what was set aside."""
        with self.lock:
            return self._kept_bytes + sum(s.size + s.ack_size for q in self.queues.values() for s in q.segments)

    @property
    def waiting(self) -> int:
        """Events on disk that are not struck off."""
        with self.lock:
            return sum(s.waiting for q in self.queues.values() for s in q.segments)

    @property
    def unread(self) -> bool:
        """Whether a reader has something before it."""
        with self.lock:
            return any(queue.unread for queue in self.queues.values())

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def append(self, kind: str, entries: list[Entry]) -> None:
        """Write entries of one class, in the order of their numbers; an alert is confirmed on return."""
        if entries[-1].seq > self.numbers.mark.reserved:
            self.numbers.reserve(entries[-1].seq)
        queue, blob = self.queues[kind], b"".join(item.packed() for item in entries)
        active = queue.active
        if active is not None and self._full(active, len(blob)):
            queue.confirm()
            with self.lock:
                active.sealed = True
                active.close_records()
            active = None
        if fresh := active is None:
            active = self._begin(queue, entries[0].seq)
        files.write_all(active.fd, blob)
        queue.note_written(time.monotonic())
        try:
            if kind == "alert":
                queue.confirm()
        except OSError:  # what it holds behind its size is uncertain, and will be written again, elsewhere
            with self.lock:
                active.sealed = True
            raise
        with self.lock:
            active.size += len(blob)
            active.count += len(entries)
            queue.last = max(queue.last, entries[-1].seq)
            for item in entries:
                add(active.numbers, item.seq)
                self.keep_mark(item)
        if fresh:
            self._save_if_possible()

    def _begin(self, queue: Queue, first: int) -> Segment:
        """A new segment behind the others of its class, whose preface tells of the one before it."""
        before = queue.segments[-1] if queue.segments else None
        head = preface(self._saved.seq, self._saved.marks, before).packed()
        fresh = segments.create(self.path, queue.kind, first, self.epoch, head)
        files.sync(self.path)
        with self.lock:
            queue.segments.append(fresh)
            if before is not None:  # told by the preface now
                before.numbers = []
        return fresh

    def keep_mark(self, item: Entry) -> None:
        """Where its pipeline's source resumes, now that this event is kept, or has arrived; the latest one counts."""
        if item.mark is not None and item.seq > self._marked.get(item.pipeline, 0):
            self.marks[item.pipeline], self._marked[item.pipeline] = item.mark, item.seq

    def _full(self, segment: Segment, more: int) -> bool:
        """Whether one with events has its share of the quotas and the expiry, so that what goes goes in small parts."""
        if segment.size <= segment.begin:
            return False
        aged = self.expire_hours and time.time() - segment.began > 3600 * self.expire_hours / 16
        return segment.size + more > self.segment_bytes or segment.count >= self.segment_events or bool(aged)

    def skip(self, kind: str, seq: int) -> None:
        """The entry just appended is on its way already: the reader is to pass it over."""
        active = self.queues[kind].active
        if active is not None:
            with self.lock:
                active.acked = (active.acked or set()) | {seq}

    def unskip(self, kind: str, seq: int) -> None:
        """An entry that was skipped came back unsent and is appended once more."""
        with self.lock:
            for segment in self.queues[kind].segments:
                if segment.acked is not None:
                    segment.acked.discard(seq)

    def strike(self, done: list[Record]) -> None:
        """Note which records were acknowledged, and delete the segments that are finished.

        What the disk refuses (OSError) is made up for the next time.
        """
        with self.lock:
            for record in done:
                assert record.segment is not None
                record.segment.outstanding -= 1
                record.segment.to_note += segments.ack_entry(record.seq)
        for queue in self.queues.values():  # first, because it makes room
            self._delete_finished(queue)
        for queue in self.queues.values():
            for segment in queue.segments:
                if segment.to_note:
                    if segment.ack_fd < 0:
                        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                        segment.ack_fd = os.open(segment.path.with_suffix(".ack"), flags, 0o600)
                    files.write_all(segment.ack_fd, segment.to_note)
                    segment.ack_size += len(segment.to_note)
                    segment.to_note = b""
                elif segment.ack_fd >= 0:
                    segment.close_acks()

    def _delete_finished(self, queue: Queue) -> None:
        with self.lock:
            active = queue.active
            if active is not None and active.size > 64 * 1024 and active.used_up:
                active.sealed = True
                queue.dirty = False
            finished = [s for s in queue.segments if s.finished]
            queue.segments = [s for s in queue.segments if s not in finished]
        if finished:
            self._save_if_possible()
        for segment in finished:
            segment.remove()

    def set_aside(self, payload: bytes) -> None:
        """Keep what the broker would never take, for people to look at: the newest of it. Raises OSError."""
        new, old = (self.path / name for name in KEPT)
        if new.exists() and new.stat().st_size + len(payload) > self.segment_bytes:
            new.replace(old)
        files.write_private(new, payload + b"\n", append=True)
        self._kept_bytes = sum(path.stat().st_size for path in (new, old) if path.exists())

    def bury(self, segment: Segment) -> None:
        """Delete a segment whose loss is declared."""
        self._save_if_possible()
        segment.remove()

    def confirm(self, now: bool) -> None:
        """Have the disk confirm what telemetry was written SYNC_EVERY seconds ago and is still here."""
        synced = False
        for queue in self.queues.values():
            active = queue.active
            if queue.dirty and active is not None and (now or not active.used_up):
                if not now and time.monotonic() - queue.since < SYNC_EVERY:
                    continue
                os.fdatasync(active.fd)
                synced = True
            queue.dirty = False
        if not self.dirty:
            self.numbers.confirm()
        if synced:
            self.numbers.sync()

    @property
    def dirty(self) -> bool:
        """Whether `confirm` has something to do."""
        return any(queue.dirty for queue in self.queues.values())

    def save_marks(self, closing: bool = False) -> None:
        """Keep the marks of events whose segments are about to go, and which segments there are."""
        with self.lock:
            now = self._marks_now(closing)
        if now == self._saved and self.numbers.mark.listed:
            return
        for queue in self.queues.values():  # a mark must not outlive its event
            queue.confirm()
        marks.save(self.path, now)
        files.sync(self.path)
        self._saved = now
        if not self.numbers.mark.listed and not self.lost:
            self.numbers.note(listed=1)

    def _marks_now(self, closing: bool) -> Marks:
        """What is to be saved; asked for under the lock."""
        live = {
            kind: [(s.first, s.size if closing or s.sealed else 0, s.count) for s in queue.segments]
            for kind, queue in self.queues.items()
        }
        newest = {kind: queue.segments[-1].numbers for kind, queue in self.queues.items() if queue.segments}
        return Marks(self.numbers.mark.last, dict(self.marks), live, newest if closing else {})

    def _save_if_possible(self) -> None:
        """Unsaved, a crash would have lines read twice; but what is sent must go, or a full disk never gets room."""
        try:
            self.save_marks()
        except OSError:
            with contextlib.suppress(OSError):
                self.numbers.note(listed=0)

    def finish(self, whole: bool) -> None:
        """Say in the mark that the store was closed in order; `whole`: nothing waits that could not be written."""
        self.save_marks(closing=True)
        if whole:
            self.numbers.note(state=CLOSED, confirmed=self.numbers.mark.last)
        else:
            self.numbers.note(state=HOMELESS)
        self.numbers.sync()

    def close(self) -> None:
        """Let go of every file, and of the store."""
        for queue in self.queues.values():
            for segment in queue.segments:
                segment.close()
        self.numbers.close()
        os.close(self._lock_fd)
