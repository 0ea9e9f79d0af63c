"""Did everything arrive? A consumer's count of one or many devices' events.

Within an epoch a device's numbers start at 1 and each is either delivered or declared by a gap event, so what is
neither is missing. Duplicates carry the same id and are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec


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
    declared: _Ranges = field(default_factory=_Ranges)
    received: int = 0
    duplicates: int = 0
    gaps: int = 0
    first: int = 0
    last: int = 0


class Row(msgspec.Struct, frozen=True):
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
        except (msgspec.MsgspecError, ValueError, RecursionError):
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
            count.declared.add(event.first, event.last)

    def rows(self) -> list[Row]:
        """One row a device and epoch."""
        rows = []
        for (device, epoch), count in sorted(self._counts.items()):
            holes = list(count.seen.missing(count.first, count.last))
            missing = [span for low, high in holes for span in count.declared.missing(low, high)]
            undeclared = sum(high - low + 1 for low, high in missing)
            declared = sum(
                high - low + 1 for span in count.declared.spans for low, high in count.seen.missing(span[0], span[1])
            )
            rows.append(
                Row(
                    device,
                    epoch,
                    count.first,
                    count.last,
                    count.received,
                    count.duplicates,
                    count.gaps,
                    declared,
                    undeclared,
                )
            )
        return rows


def as_json(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows as plain values."""
    plain: list[dict[str, Any]] = msgspec.to_builtins(rows)
    return plain
