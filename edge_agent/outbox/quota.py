"""Room on the disk: what is kept spare, and what goes when the store is full or it waited too long.

Whole segments go, the oldest telemetry first.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.events import KNOWN_TIME, Event
from edge_agent.files import write_private
from edge_agent.outbox.entries import QUEUES, Lost, Queue, declaration, entry, unsent
from edge_agent.outbox.journal import Journal
from edge_agent.outbox.segments import Segment

SPARE_BYTES = 64 * 1024
"""a segment of gap events, and what a file system takes for it"""


def keep_spare(store: Path) -> None:
    """Keep a few blocks of the disk, to be able to say on a full one what is lost."""
    spare = store / "spare"
    with contextlib.suppress(OSError):
        # a disk that was full may have taken a part of them
        if not spare.exists() or spare.stat().st_size < SPARE_BYTES:
            write_private(spare, bytes(SPARE_BYTES))


def give_spare(store: Path) -> bool:
    """Give these blocks back to the disk; False where there were none."""
    try:
        (store / "spare").unlink()
    except OSError:
        return False
    return True


def bound(journal: Journal, max_bytes: int, expire_hours: float | None = None, max_events: int | None = None) -> None:
    """Have the store held to these from now on: bytes on disk, hours that an event waits, events that wait."""
    journal.max_bytes, journal.max_events, journal.expire_hours = max_bytes, max_events, expire_hours
    # whole segments go: the largest is a small part of what may be there
    journal.segment_bytes = max(64 * 1024, min(1_000_000, max_bytes // 16))
    journal.segment_events = max(1, (max_events or 1 << 40) // 16)


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
                numbers = _damaged(journal, queue, segment) - held
            queue.segments.remove(segment)
        going.append((segment, declaration(gone, why, decode, numbers) if gone or numbers else None))
    return going


def _damaged(journal: Journal, queue: Queue, segment: Segment) -> set[int]:
    """The numbers that the damage in a segment may hold; the reader is not to declare them again."""
    following = [s.first for s in queue.segments if s.first > segment.first]
    last = min(following, default=max(journal.opened_at, queue.last) + 1) - 1
    first = max(queue.before + 1, segment.first)
    queue.before = max(queue.before, last)
    return set(range(first, last + 1)) - journal.queues.on_disk(first, last) - journal.told - (segment.acked or set())


def _victim(journal: Journal) -> tuple[Queue, Segment, str] | None:
    """The segment that goes next, and why; None while everything may stay."""
    full = _exceeded(journal)
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


def _exceeded(journal: Journal) -> str:
    """The quota that the store exceeds; "" while it exceeds none."""
    if journal.size > journal.max_bytes:
        return f"{journal.max_bytes} bytes"
    if journal.max_events is not None and journal.waiting > journal.max_events:
        return f"{journal.max_events} events"
    return ""
