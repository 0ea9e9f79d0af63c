"""What of a store is to be sent next, and what is damaged in it."""

from __future__ import annotations

from collections.abc import Container

from edge_agent.outbox.entries import Entry, Lost, Queue, Record, entry
from edge_agent.outbox.journal import Journal
from edge_agent.outbox.segments import Segment
from edge_agent.outbox.waiting import Waiting


def read(
    journal: Journal, waiting: Waiting, kind: str, limit: int, but: Container[str]
) -> tuple[list[Record], list[Lost], int]:
    """Up to `limit` events of a class to send next, what damage was met, and in how many places.

    What is of a pipeline in `but` is kept aside, to be taken again, as long as there is room. The lock is held.
    """
    out: list[Record] = []
    lost: list[Lost] = []
    damaged = 0
    while len(out) < limit and _may_pass_over(journal, waiting, kind):
        found, gaps, places = _read(journal, kind, limit - len(out))
        fresh = [Record(item, segment) for item, segment in found]
        passed = [record for record in fresh if record.pipeline in but]
        waiting.again.extend(passed)
        out += [record for record in fresh if record.pipeline not in but]
        lost += gaps
        damaged += places
        if not passed:
            break
    return out, lost, damaged


def oldest(journal: Journal, waiting: Waiting) -> list[bytes]:
    """JSON of the event that has waited longest, of each class and in each place: the oldest of all is among them."""
    with journal.lock:
        return _oldest(journal, waiting)


def _oldest(journal: Journal, waiting: Waiting) -> list[bytes]:
    found = [items[0].payload for items in (waiting.pending, *waiting.ram.values()) if items]
    for queue in journal.queues.values():
        first = next((segment for segment in queue.segments if segment.waiting), None)
        if first is None:
            continue
        # read anew, as its own reader has gone on
        own = Segment(first.path, first.first, first.size, sealed=first.sealed)
        try:
            found += [entry(item, queue.kind).payload for item in own.read(1) if item.body is not None]
        finally:
            own.close()
    return found


def _may_pass_over(journal: Journal, waiting: Waiting, kind: str) -> bool:
    """Whether what is kept aside of a kind leaves room; its segments cannot go while it is in memory."""
    return sum(len(r.payload) for r in waiting.again if r.kind == kind) < journal.segment_bytes


def _read(journal: Journal, kind: str, limit: int) -> tuple[list[tuple[Entry, Segment]], list[Lost], int]:
    """Up to `limit` entries of a class to send next, what damage was met, and in how many places.

    Each entry's segment counts it as outstanding until it is struck off.
    """
    found: list[tuple[Entry, Segment]] = []
    lost: list[Lost] = []
    damaged = 0
    queue = journal.queues[kind]
    with journal.lock:
        for segment in list(queue.segments):
            while len(found) < limit and segment.offset < segment.size:
                before = segment.offset
                for item in segment.read(limit - len(found)):
                    if item.body is None:
                        damaged += 1
                        queue.before = max(queue.before, item.seq)
                        lost += _behind_damage(journal, queue, segment)
                        continue
                    queue.before = item.seq
                    segment.outstanding += 1
                    found.append((entry(item, kind), segment))
                if segment.offset == before:
                    break
            if len(found) >= limit or segment.offset < segment.size:
                break
            if segment is not queue.segments[-1]:
                segment.close_records()
    return found, lost, damaged


def _behind_damage(journal: Journal, queue: Queue, segment: Segment) -> list[Lost]:
    """Damage was met: the numbers that the other class does not hold, up to the next readable one, are lost."""
    here = queue.segments.index(segment)
    after = next((n for s in queue.segments[here:] for n in journal.queues.numbers(s) if n > queue.before), 0)
    first = max(queue.before + 1, segment.first)
    last = (after or max(journal.opened_at, queue.last) + 1) - 1
    if last < first:
        return []
    known = journal.queues.on_disk(first, last) | journal.told | (segment.acked or set())
    missing = sorted(set(range(first, last + 1)) - known)
    queue.before = last
    return [Lost(missing[0], missing[-1], len(missing), f"{segment.path.name} is damaged")] if missing else []
