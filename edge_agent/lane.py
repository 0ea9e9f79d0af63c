"""Whose turn on the processor it is.

Two networks that run at once on the same cores slow each other down more than taking turns does, so each run of a
network takes a turn here. The next turn goes to the highest priority, then to the earliest deadline, then to who
came first. Between two turns is the safe moment to swap a model: `exclusive` waits for it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Lane:
    """`slots` turns at a time."""

    def __init__(self, slots: int = 1) -> None:
        if slots < 1:
            raise ValueError("a lane needs a slot")
        self.slots = slots
        self._free = slots
        self._state = threading.Condition()
        self._queue: list[tuple[int, float, int]] = []
        self._tickets = itertools.count()

    @contextmanager
    def turn(self, priority: int = 0, deadline: float = float("inf")) -> Iterator[None]:
        """Wait for one slot; a higher `priority` and an earlier `deadline` (monotonic seconds) go first."""
        yield from self._hold(1, priority, deadline)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until nobody runs, ahead of everybody who waits, and keep it so."""
        yield from self._hold(self.slots, 1 << 30, float("-inf"))

    def _hold(self, slots: int, priority: int, deadline: float) -> Iterator[None]:
        me = (-priority, deadline, next(self._tickets))
        with self._state:
            heapq.heappush(self._queue, me)
            try:
                self._state.wait_for(lambda: self._queue[0] == me and self._free >= slots)
                heapq.heappop(self._queue)
            except BaseException:
                self._queue.remove(me)
                heapq.heapify(self._queue)
                self._state.notify_all()
                raise
            self._free -= slots
            self._state.notify_all()
        try:
            yield
        finally:
            with self._state:
                self._free += slots
                self._state.notify_all()
