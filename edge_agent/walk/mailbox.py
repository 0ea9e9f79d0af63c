"""Between two threads: the newest frame wins, words are never lost."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

TOO_OLD = 1.0
"""seconds since its capture after which a live frame is not answered any more"""


class Mailbox(Generic[T]):
    """Holds up to `size` items. `newest`: a full box drops its oldest and counts it; else `put` waits for room.

    `fresh`, for a newest box of one: a reader that comes when a quarter of the time to the next item has gone by waits
    for that one. What is worked on is younger then, by up to three quarters of that time, and less of it gets done.
    `too_old`, for a newest box of one: seconds after which an item that nobody took is dropped and counted, as when the
    camera hangs while the task is busy.
    """

    def __init__(self, size: int, newest: bool, fresh: bool = False, too_old: float = float("inf")) -> None:
        self.size, self.newest, self.fresh, self.too_old = size, newest, fresh, too_old
        self.dropped = 0
        self._came, self._every = 0.0, 0.0
        self._items: deque[T] = deque()
        self._state = threading.Condition()
        self._closed = False

    def put(self, item: T) -> bool:
        """Leave an item; False when the box is closed and the item was not taken."""
        with self._state:
            while len(self._items) >= self.size and not self._closed:
                if self.newest:
                    self._items.popleft()
                    self.dropped += 1
                else:
                    self._state.wait()
            if self._closed:
                return False
            self._items.append(item)
            now = time.monotonic()
            if self._came:
                # no camera is that regular, and one late item makes the way to the next one short
                self._every += (now - self._came - self._every) * (0.1 if self._every else 1.0)
            self._came = now
            self._state.notify_all()
            return True

    def close(self) -> None:
        """Nothing more comes in; what is in it is still handed out."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    def clear(self) -> None:
        """Nothing more comes in, and what is in it is thrown away."""
        with self._state:
            self._items.clear()
        self.close()

    def __iter__(self) -> Iterator[T]:
        """Items in order, waiting for each, until the box is closed and empty."""
        while True:
            with self._state:
                while not self._items and not self._closed:
                    self._state.wait()
                if not self._items:
                    return
                if self.fresh:
                    self._wait_for_a_younger()
                item = self._items.popleft()
                self._state.notify_all()
                if time.monotonic() - self._came > self.too_old:
                    self.dropped += 1
                    continue
            yield item

    def _wait_for_a_younger(self) -> None:
        """Until the next item has come, or is late by a quarter of the time between two; the state is held."""
        last, age = self._came, time.monotonic() - self._came
        if self._every / 4 < age < 1.25 * self._every:
            self._state.wait_for(lambda: self._came != last or self._closed, 1.25 * self._every - age)

    def __len__(self) -> int:
        return len(self._items)
