"""Whose turn on the processor it is.

Two networks that run at once on the same cores slow each other down more than taking turns does. So each run takes as
many of the lane's slots, one a core, as it has threads: networks of one thread run side by side, one that uses every
core runs alone. Turns go in the order in which they were asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Lane:
    """`slots` cores to share."""

    def __init__(self, slots: int = 1) -> None:
        if slots < 1:
            raise ValueError("a lane needs a slot")
        self.slots = slots
        self._free = slots
        self._state = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def turn(self, slots: int = 1) -> Iterator[None]:
        """Wait for `slots` free slots (all of them, where that is more than there are), and hold them."""
        wanted = min(slots, self.slots)
        with self._state:
            if self._queue or self._free < wanted:
                self._wait(wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._state:
                self._free += wanted
                if self._queue:
                    self._state.notify_all()

    def _wait(self, wanted: int) -> None:
        """Until it is this one's turn; the state is held."""
        me = object()
        self._queue.append(me)
        try:
            self._state.wait_for(lambda: self._queue[0] is me and self._free >= wanted)
        finally:
            self._queue.remove(me)
            self._state.notify_all()
