"""The outbox's disk: segments of each class, the mark that remembers the numbers, the marks that sources resume at.

One thread writes (the outbox's committer); others read under `lock`. Writing raises OSError as the disk does, and
what was asked for is then not done; opening raises StoreError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

from edge_agent import marks, segments
from edge_agent.entries import KINDS, Entry, Lost, Queue, declaration, entry, readable, unsent
from edge_agent.errors import StoreError
from edge_agent.segments import CLOSED, HOMELESS, OPEN, Mark, Segment
from edge_agent.types import KNOWN_TIME

RESERVE = 8192
"""numbers that may be given out between two confirmed writes of the mark"""
SYNC_EVERY = 1.0
"""seconds between telemetry being written and the disk confirming it"""


class Journal:
    """One store on disk. `lock` guards what the reader and the writer share."""

    def __init__(self, path: Path, max_bytes: int, expire_hours: float | None = None) -> None:
        """Take the store at `path`, or begin one; `make_room` holds it to `max_bytes` and `expire_hours`.

        Raises StoreError when it cannot be had."""
        self.path, self.max_bytes, self.expire_hours = path, max_bytes, expire_hours
        self.segment_bytes = max(64 * 1024, min(1_000_000, max_bytes // 16))
        self.lock = threading.RLock()
        self.marks: dict[str, int] = {}
        """pipeline -> the mark of its last event that is kept"""
        self._marks_saved = 0
        self._scanned: dict[Path, tuple[int, list[int]]] = {}
        try:
            if not path.is_dir():
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
                _sync(path.parent)
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
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._mark_fd, self._copy_fd = (os.open(path / name, flags, 0o600) for name in ("mark", "mark.copy"))
            self._recover()
            self._read_marks()
        except OSError as error:
            os.close(self._lock_fd)
            raise StoreError(f"{path}: the disk takes no writes ({error.strerror}); free or remount it") from None

    # ── opening ──────────────────────────────────────────────────────────────────────────────────────────

    def _recover(self) -> None:
        """Find out how far the numbers went: `last`, and `lost`, which is to be declared before anything else."""
        boot = segments.boot_id()
        old, whole = segments.read_mark(self.path / "mark")
        copy, _ = segments.read_mark(self.path / "mark.copy")
        if old is None or (copy is not None and copy.counter > old.counter):
            old, whole = copy, False
        elif old.state == CLOSED and copy is not None:
            whole = True  # an opening since would have left a newer copy
        newest, epoch = self._newest()
        why, first, top = "", 1, 0
        if old is None and newest == 0:  # a store that begins
            old = Mark(max(1, int(time.time())), 0, 0, 0, CLOSED, boot)
        elif old is None:
            why, first, top = "the store's mark was damaged", newest + 1, newest + 2 * RESERVE
            old = Mark(epoch, newest, newest, top, HOMELESS, bytes(16))
        elif not whole:
            same = old.boot == boot != bytes(16) and old.state != HOMELESS
            why, first = "the store's mark was damaged", (old.last if same else old.confirmed) + 1
            top = max(newest, old.last, old.reserved, copy.reserved if copy else 0)
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
        self._told = set(missing)
        for queue in self.queues.values():  # a power cut from here on must not take what a kill has left in memory
            for segment in queue.segments[-1:] if old.state != CLOSED else []:
                _sync(segment.path)
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
        saved = marks.load(self.path)
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
                            queue.before = max(queue.before, item.seq)
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
        after = next((n for s in queue.segments[here:] for n in self._numbers(s) if n > queue.before), 0)
        first = max(queue.before + 1, segment.first)
        last = (after or max(self.opened_at, queue.last) + 1) - 1
        if last < first:
            return []
        known = self.on_disk(first, last) | self._told | (segment.acked or set())
        missing = sorted(set(range(first, last + 1)) - known)
        queue.before = last
        return [Lost(missing[0], missing[-1], len(missing), f"{segment.path.name} is damaged")] if missing else []

    def on_disk(self, first: int, last: int) -> set[int]:
        """The numbers from `first` to `last` that can be read from any segment."""
        around = [segment for queue in self.queues.values() for segment in queue.around(first, last)]
        return {n for segment in around for n in self._numbers(segment) if first <= n <= last}

    def _numbers(self, segment: Segment) -> list[int]:
        """The readable numbers of a segment; kept for a few, because damage in many places asks again and again."""
        size, numbers = self._scanned.get(segment.path, (-1, []))
        if size != segment.size:
            if len(self._scanned) >= 8:
                self._scanned.clear()
            numbers = [item.seq for item in readable(segment)]
            self._scanned[segment.path] = segment.size, numbers
        return numbers

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def append(self, kind: str, entries: list[Entry]) -> None:
        """Write entries of one class, in the order of their numbers; an alert is confirmed on return."""
        if entries[-1].seq > self._mark.reserved:
            self.reserve(entries[-1].seq)
        queue, blob = self.queues[kind], b"".join(item.packed() for item in entries)
        active = queue.active
        if (
            active is not None
            and active.size > segments.HEADER.size
            and (active.size + len(blob) > self.segment_bytes or self._aged(active))
        ):
            if queue.dirty:
                os.fdatasync(active.fd)
                queue.dirty = False
            with self.lock:
                active.sealed = True
            active = None
            self.save_marks()  # so that an opening need not read older segments for them
        if active is None:
            active = segments.create(self.path, kind, entries[0].seq, self.epoch)
            _sync(self.path)
            with self.lock:
                queue.segments.append(active)
        segments.write_all(active.fd, blob)
        if not queue.dirty:
            queue.dirty, queue.since = True, time.monotonic()
        try:
            if kind == "alert":
                os.fdatasync(active.fd)
                queue.dirty = False
        except OSError:  # what it holds behind its size is uncertain, and will be written again, elsewhere
            with self.lock:
                active.sealed = True
            raise
        with self.lock:
            active.size += len(blob)
            queue.last = max(queue.last, entries[-1].seq)
            for item in entries:
                if item.mark is not None:
                    self.marks[item.pipeline] = item.mark

    def _aged(self, segment: Segment) -> bool:
        """A segment holds a sixteenth of the expiry at most, so that what expires goes in small parts."""
        return bool(self.expire_hours) and time.time() - segment.began > 3600 * (self.expire_hours or 0) / 16

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

    def strike(self, done: list[tuple[int, Segment]]) -> None:
        """Note which seqs were acknowledged, and delete the segments that are finished.

        What the disk refuses (OSError) is made up for the next time.
        """
        with self.lock:
            for seq, segment in done:
                segment.outstanding -= 1
                segment.to_note += segments.ack_entry(seq)
        for queue in self.queues.values():  # first, because it makes room
            self._delete_finished(queue)
        for segment in [s for queue in self.queues.values() for s in queue.segments if s.to_note]:
            if segment.ack_fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                segment.ack_fd = os.open(segment.path.with_suffix(".ack"), flags, 0o600)
            segments.write_all(segment.ack_fd, segment.to_note)
            segment.to_note = b""

    def _delete_finished(self, queue: Queue) -> None:
        with self.lock:
            active = queue.active
            if active is not None and active.offset >= active.size > 64 * 1024 and not active.outstanding:
                active.sealed = True
                queue.dirty = False
            finished = [s for s in queue.segments if s.finished]
        for segment in finished:
            # unsaved, a crash would have lines read twice; undeleted, a full disk would never get room
            with contextlib.suppress(OSError):
                self.save_marks()
            segment.remove()
            with self.lock:
                queue.segments.remove(segment)

    def make_room(self, held: set[int]) -> list[tuple[Segment, Lost | None]]:
        """Hold the quota and the expiry: whole segments go, with what is unsent in them but not the `held` seqs.

        The oldest telemetry goes first, then the oldest alerts. A segment is to be declared first and buried then.
        """
        going: list[tuple[Segment, Lost | None]] = []
        while (victim := self._victim()) is not None:
            queue, segment, why = victim
            with self.lock:
                rest = unsent(segment)
                gone = [entry(item, queue.kind) for item in rest if item.body is not None and item.seq not in held]
                numbers = set[int]()
                if len(rest) > sum(item.body is not None for item in rest):  # what is damaged cannot be told one by one
                    following = [s.first for s in queue.segments if s.first > segment.first]
                    last = min(following, default=max(self.opened_at, queue.last) + 1) - 1
                    first = max(queue.before + 1, segment.first)
                    known = self.on_disk(first, last) | self._told | (segment.acked or set()) | held
                    numbers = set(range(first, last + 1)) - known
                    queue.before = max(queue.before, last)
                queue.segments.remove(segment)
            going.append((segment, declaration(gone, why, numbers) if gone or numbers else None))
        return going

    def bury(self, segment: Segment) -> None:
        """Delete a segment whose loss is declared."""
        with contextlib.suppress(OSError):
            self.save_marks()
        segment.remove()

    def _victim(self) -> tuple[Queue, Segment, str] | None:
        """The segment that goes next, and why; None while everything may stay."""
        full = self.size > self.max_bytes
        before = time.time() - 3600 * self.expire_hours if self.expire_hours else 0.0
        for kind in reversed(KINDS):
            queue = self.queues[kind]
            for segment in queue.segments:
                if not segment.sealed or segment.outstanding:
                    continue
                if full:
                    return queue, segment, f"the store is full ({self.max_bytes} bytes): oldest {kind} dropped"
                if before and KNOWN_TIME <= segment.written < before:
                    return queue, segment, f"{kind} that waited longer than {self.expire_hours:g} hours"
                break
        return None

    def confirm(self, now: bool) -> None:
        """Have the disk confirm what telemetry was written SYNC_EVERY seconds ago and is still here."""
        synced = False
        for queue in self.queues.values():
            active = queue.active
            if queue.dirty and active is not None and (now or active.offset < active.size or active.outstanding):
                if not now and time.monotonic() - queue.since < SYNC_EVERY:
                    continue
                os.fdatasync(active.fd)
                synced = True
            queue.dirty = False
        if self._mark.state == OPEN and self._mark.confirmed < self._mark.last and not self.dirty:
            self.note(confirmed=self._mark.last)
        if synced:
            os.fdatasync(self._mark_fd)

    @property
    def dirty(self) -> bool:
        """Whether `confirm` has something to do."""
        return any(queue.dirty for queue in self.queues.values())

    def reserve(self, seq: int) -> None:
        """Let the disk confirm that numbers up to a bound beyond `seq` may be written, in the mark and its copy."""
        self.note(reserved=seq + RESERVE)
        os.fdatasync(self._mark_fd)
        os.pwrite(self._copy_fd, self._mark.pack(), 0)
        os.fdatasync(self._copy_fd)
        _sync(self.path)

    @property
    def noted(self) -> int:
        """The highest number that the mark tells."""
        return self._mark.last

    @property
    def reserved(self) -> int:
        """No number above it may be given to anyone."""
        return self._mark.reserved

    def note(self, **changes: int | bytes) -> None:
        """Write the mark with these fields changed (see segments.Mark); the disk confirms it when it likes."""
        self._mark = replace(self._mark, counter=self._mark.counter + 1, **changes)  # type: ignore[arg-type]
        os.pwrite(self._mark_fd, self._mark.pack(), segments.SLOT * (self._mark.counter % 2))

    def save_marks(self) -> None:
        """Keep the marks of events whose segments are about to go."""
        with self.lock:
            seq, now = self._mark.last, dict(self.marks)
        if seq == self._marks_saved:
            return
        for queue in self.queues.values():  # a mark must not outlive its event
            if queue.dirty and queue.segments:
                os.fdatasync(queue.segments[-1].fd)
                queue.dirty = False
        marks.save(self.path, seq, now)
        _sync(self.path)
        self._marks_saved = seq

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
        for fd in (self._mark_fd, self._copy_fd, self._lock_fd):
            os.close(fd)


def _sync(path: Path) -> None:
    """Have the disk confirm a file's contents, or a folder's names."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
