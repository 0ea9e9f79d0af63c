"""Did everything arrive? A consumer's count of one or many devices' events.

Within an epoch a device's numbers start at 1 and each is either delivered or declared by a gap event, so what is
neither is missing. A gap event declares `count` of the numbers from `first` to `last`; where more of them did not come,
or of several ranges that overlap more than their counts together, the rest is missing too. Duplicates carry the same id
and are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_agent.events import UNREADABLE


class _Seen(msgspec.Struct):
    """What of an event is counted."""

    device: str
    epoch: int
    seq: int
    kind: str
    first: int = 0
    last: int = 0
    count: int = 0


@dataclass(slots=True)
class _Ranges:
    """A set of numbers as ranges [first, last], ascending: a million numbers in a few entries."""

    spans: list[list[int]] = field(default_factory=list)

    def add(self, first: int, last: int) -> bool:
        """Add first..last; False when all of them were in already."""
        spans = self.spans
        at = len(spans)
        while at and spans[at - 1][1] + 1 >= first:
            at -= 1
        if at < len(spans) and spans[at][0] <= first and spans[at][1] >= last:
            return False
        behind = at
        while behind < len(spans) and spans[behind][0] <= last + 1:
            first, last = min(first, spans[behind][0]), max(last, spans[behind][1])
            behind += 1
        spans[at:behind] = [[first, last]]
        return True

    def missing(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """The ranges from `first` to `last` that are not in."""
        for low, high in self.spans:
            if low > last:
                break
            if low > first:
                yield first, low - 1
            first = max(first, high + 1)
        if first <= last:
            yield first, last


@dataclass(slots=True)
class _Count:
    seen: _Ranges = field(default_factory=_Ranges)
    declared: list[tuple[int, int, int]] = field(default_factory=list)
    """first, last and count of each gap event"""
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    first: int = 0
    last: int = 0


class DeviceAudit(msgspec.Struct, frozen=True):
    """The account of one device's epoch."""

    device: str
    epoch: int
    first: int
    last: int
    received: int
    duplicates: int
    gaps: int
    """gap events"""
    declared: int
    """numbers that a gap event declared and that did not come"""
    missing: int
    """numbers between first and last that neither came nor were declared"""


class Audit:
    """Hand it each event's payload; ask for the rows at the end."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], _Count] = {}

    def add(self, payload: bytes) -> None:
        """Count one event. What is no event of ours is passed over."""
        try:
            event = msgspec.json.decode(payload, type=_Seen)
        except UNREADABLE:
            return
        count = self._counts.setdefault((event.device, event.epoch), _Count())
        if not count.seen.add(event.seq, event.seq):
            count.duplicates += 1
            return
        count.received += 1
        count.first = min(count.first or event.seq, event.seq)
        count.last = max(count.last, event.seq)
        if event.kind == "gap" and 0 < event.first <= event.last:
            count.gaps += 1
            count.declared.append((event.first, event.last, event.count))

    def rows(self) -> list[DeviceAudit]:
        """One row a device and epoch."""
        rows = []
        for (device, epoch), count in sorted(self._counts.items()):
            outside, declared, missing = _Ranges([list(span) for span in count.seen.spans]), 0, 0
            for first, last, most in _joined(count.declared):
                outside.add(first, last)
                absent = _numbers(count.seen, first, last)
                declared += min(most, absent)
                # those before the first that came may have come to someone else
                missing += max(0, _numbers(count.seen, max(first, count.first), min(last, count.last)) - most)
            missing += _numbers(outside, count.first, count.last)
            rows.append(
                DeviceAudit(
                    device,
                    epoch,
                    count.first,
                    count.last,
                    count.received,
                    count.duplicates,
                    count.gaps,
                    declared,
                    missing,
                )
            )
        return rows


def _joined(declared: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Ranges that overlap as one, with the sum of their counts."""
    joined: list[tuple[int, int, int]] = []
    for first, last, count in sorted(declared):
        if joined and first <= joined[-1][1]:
            low, high, before = joined.pop()
            first, last, count = low, max(high, last), before + count
        joined.append((first, last, count))
    return joined


def _numbers(ranges: _Ranges, first: int, last: int) -> int:
    """How many numbers from `first` to `last` are not in."""
    return sum(high - low + 1 for low, high in ranges.missing(first, last))


def as_json(rows: list[DeviceAudit]) -> list[dict[str, Any]]:
    """The rows as plain values."""
    plain: list[dict[str, Any]] = msgspec.to_builtins(rows)
    return plain
