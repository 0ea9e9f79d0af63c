"""What goes when the store is full, or what waited too long: whole segments, oldest telemetry first."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge_agent.events import KNOWN_TIME, Event
from edge_agent.outbox.entries import QUEUES, Lost, Queue, declaration, entry, unsent
from edge_agent.outbox.journal import Journal
from edge_agent.outbox.segments import Segment


def make_room(journal: Journal, held: set[int], decode: Callable[[bytes], Event]) -> list[tuple[Segment, Lost | None]]:
    """Hold the quota and the expiry: whole segments go, with what is unsent in them but not the `held` seqs.

    The oldest telemetry goes first, then the oldest alerts. A segment is to be declared first and buried then.
    """
    going: list[tuple[Segment, Lost | None]] = []
    while (victim := _victim(journal)) is not None:
        queue, segment, why = victim
        with journal.lock:
            rest = unsent(segment)
            gone = [entry(item, queue.kind) for item in rest if item.body is not None and item.seq not in held]
            numbers = set[int]()
            if len(rest) > sum(item.body is not None for item in rest):  # what is damaged cannot be told one by one
                following = [s.first for s in queue.segments if s.first > segment.first]
                last = min(following, default=max(journal.opened_at, queue.last) + 1) - 1
                first = max(queue.before + 1, segment.first)
                known = journal.queues.on_disk(first, last) | journal.told | (segment.acked or set()) | held
                numbers = set(range(first, last + 1)) - known
                queue.before = max(queue.before, last)
            queue.segments.remove(segment)
        going.append((segment, declaration(gone, why, decode, numbers) if gone or numbers else None))
    return going


def _victim(journal: Journal) -> tuple[Queue, Segment, str] | None:
    """The segment that goes next, and why; None while everything may stay."""
    full = ""
    if journal.size > journal.max_bytes:
        full = f"{journal.max_bytes} bytes"
    elif journal.max_events is not None and journal.waiting > journal.max_events:
        full = f"{journal.max_events} events"
    before = time.time() - 3600 * journal.expire_hours if journal.expire_hours else 0.0
    for kind in reversed(QUEUES):
        queue = journal.queues[kind]
        for segment in queue.segments:
            if not segment.sealed or segment.outstanding:
                continue
            if full:
                return queue, segment, f"the store is full ({full}): oldest {kind} dropped"
            if before and KNOWN_TIME <= segment.written < before:
                return queue, segment, f"{kind} that waited longer than {journal.expire_hours:g} hours"
            break
    return None
