"""Whose turn on the processor it is.

Two networks that run at once on the same cores slow each other down more than taking turns does. So each run takes as
many of the lane's slots as it has threads: networks of one thread run side by side, one that uses every core runs
alone. There is one slot more than there are cores, as one that has just run holds on to the interpreter for a moment,
and who waits for it cannot begin: without it two pipelines that never rest do a tenth less. Turns go in the order in
which they were asked for.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Lane:
    """`cores` to share."""

    def __init__(self, cores: int = 1) -> None:
        if cores < 1:
            raise ValueError("a lane needs a core")
        self.cores = cores
        self.slots = cores + 1 if cores > 1 else 1
        self._free = self.slots
        self._state = threading.Condition()
        self._queue: deque[object] = deque()

    @contextmanager
    def turn(self, threads: int = 1) -> Iterator[None]:
        """Wait for as many free slots (all of them, where that is every core), and hold them."""
        wanted = threads if threads < self.cores else self.slots
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
