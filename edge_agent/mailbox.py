"""Between two threads: the newest frame wins, words are never lost."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Holds up to `size` items. `newest`: a full box drops its oldest and counts it; else `put` waits for room."""

    def __init__(self, size: int, newest: bool) -> None:
        self.size, self.newest = size, newest
        self.dropped = 0
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
            self._state.notify_all()
            return True

    def close(self) -> None:
        """Nothing more comes in; what is in it is still handed out."""
        with self._state:
            self._closed = True
            self._state.notify_all()

    def __iter__(self) -> Iterator[T]:
        """Items in order, waiting for each, until the box is closed and empty."""
        while True:
            with self._state:
                while not self._items and not self._closed:
                    self._state.wait()
                if not self._items:
                    return
                item = self._items.popleft()
                self._state.notify_all()
            yield item

    def __len__(self) -> int:
        return len(self._items)
