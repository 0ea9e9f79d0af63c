"""The events of a store that are in memory, and where each of them stands."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Container, Iterable

from edge_agent.outbox.entries import QUEUES, Entry, Record
from edge_agent.outbox.journal import Journal

RAM_BYTES = 16_000_000
"""what may wait in RAM while the disk refuses"""


class Waiting:
    """What was put, refused by the disk, taken, given back and done. `state` guards all of it, and is to be held."""

    def __init__(self, journal: Journal) -> None:
        self.state = threading.Condition(journal.lock)
        self.given = journal.last
        """the highest number given out"""
        self.confirmed = journal.last
        """the disk confirmed (or has refused) every alert up to this one"""
        self.closing = False
        self.pending: deque[Entry] = deque()
        """put, and not yet on disk"""
        self.pending_bytes = 0
        self.passed: dict[str, tuple[int, int]] = {}
        """pipeline -> the last number given out when it had passed a mark, and the mark"""
        self.ram: dict[str, deque[Entry]] = {kind: deque() for kind in QUEUES}
        """what the disk refused, oldest first"""
        self.again: deque[Record] = deque()
        """on disk, and given back"""
        self.taken: set[Record] = set()
        self.done: list[Record] = []
        self.noting: list[Record] = []
        """those that were done which the committer is noting on disk"""

    def add(self, item: Entry) -> None:
        """It was put."""
        self.given = item.seq
        if item.mark is not None:
            self.passed.pop(item.pipeline, None)
        self.pending.append(item)
        self.pending_bytes += len(item.payload)

    def no_longer_pending(self, items: Iterable[Entry]) -> None:
        """They are on disk, or were refused by it."""
        with self.state:
            for item in items:
                self.pending.remove(item)
                self.pending_bytes -= len(item.payload)

    @property
    def full(self) -> bool:
        """What is pending takes all the memory that it may."""
        return self.pending_bytes > RAM_BYTES

    @property
    def unwritten(self) -> int:
        """Events that the disk has refused so far: in memory, or on their way from there, they end with the process."""
        with self.state:
            return sum(len(ram) for ram in self.ram.values()) + sum(r.segment is None for r in self.taken)

    @property
    def unnoted(self) -> int:
        """Alerts that are done, which the disk does not know yet: a kill has them sent once more."""
        with self.state:
            return sum(record.kind == "alert" for record in (*self.done, *self.noting))

    @property
    def empty(self) -> bool:
        """Nothing is here that is not done."""
        return not (self.pending or self.taken or self.again or any(self.ram.values()))

    def spill(self, batch: list[Entry]) -> list[Entry]:
        """The disk refused a batch: what of it is pending waits in RAM. Returns what goes, as it does not fit."""
        dropped: list[Entry] = []
        refused = [item for item in batch if item in self.pending]
        self.no_longer_pending(refused)
        for item in refused:
            self.ram[item.kind].append(item)
        waiting = sum(len(item.payload) for ram in self.ram.values() for item in ram)
        room = RAM_BYTES if waiting <= RAM_BYTES else RAM_BYTES * 3 // 4  # a quarter at once: one gap, not many
        for kind in reversed(QUEUES):
            ram = self.ram[kind]
            while waiting > room and len(ram) > 1:
                item = ram.popleft()
                dropped.append(item)
                waiting -= len(item.payload)
        return dropped

    def take_again(self, kind: str, limit: int, but: Container[str]) -> list[Record]:
        """Up to `limit` of what was given back, oldest first; none of the pipelines in `but`."""
        back = [record for record in self.again if record.kind == kind and record.pipeline not in but]
        back = sorted(back, key=lambda record: record.seq)[:limit]
        gone = set(back)
        self.again = deque(record for record in self.again if record not in gone)
        return back

    def take_ram(self, kind: str, limit: int, but: Container[str], reserved: int) -> list[Record]:
        """Up to `limit` of what waits in RAM, with a number up to `reserved`, as far as the first of a pipeline in
        `but`.
        """
        ram, out = self.ram[kind], list[Record]()
        # above `reserved` a power cut would have the number given out again
        while ram and len(out) < limit and ram[0].pipeline not in but and ram[0].seq <= reserved:
            out.append(Record(ram.popleft(), None))
        return out

    def give_back(self, records: list[Record] | None, but: Iterable[Record]) -> None:
        """These (None: all, without those in `but`) that were taken and are not done are to be taken again."""
        given_back = (self.taken if records is None else self.taken.intersection(records)).difference(but)
        back = sorted(given_back, key=lambda record: record.seq)
        self.taken.difference_update(back)
        self.again.extend(record for record in back if record.segment is not None)
        for kind, ram in self.ram.items():
            ram.extendleft(reversed([r.entry for r in back if r.segment is None and r.kind == kind]))

    def holds_before(self, record: Record) -> bool:
        """Whether an earlier event of its pipeline is in memory only: after a crash its source is to give it again."""
        held = [r.entry for r in self.taken if r.segment is None] + [item for ram in self.ram.values() for item in ram]
        return any(item.pipeline == record.pipeline and item.seq < record.seq for item in held)
