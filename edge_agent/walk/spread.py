"""How times are spread: counts between fixed bounds, which take no more memory the longer they are kept."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

BOUNDS = (1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0)
"""milliseconds"""


class Spread(msgspec.Struct):
    """Of one thread; others may read it."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """how many were at most as long as each bound and longer than the one before; the last: longer than all"""
    total: float = 0.0
    """of all of them, milliseconds"""

    def add(self, ms: float) -> None:
        """One more."""
        self.counts[bisect_left(BOUNDS, ms)] += 1
        self.total += ms
