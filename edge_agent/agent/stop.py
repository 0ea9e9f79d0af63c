"""What ends a source, and tells whether it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(threading.Event):
    """Ends a source, and knows whether that looks at it: a source does so every few moments, with nothing to give too,
    so one that does not for long hangs, inside of a driver or a network.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looked = time.monotonic()
        self._away: set[object] = set()
        """calls that wait for something else, one each"""

    def is_set(self) -> bool:
        self._looked = time.monotonic()
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        with self.elsewhere():
            return super().wait(timeout)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Within, somebody else is waited for."""
        call = object()
        self._away.add(call)
        try:
            yield
        finally:
            self._looked = time.monotonic()
            self._away.discard(call)

    @property
    def unseen(self) -> float:
        """Seconds since the source looked; 0 while it waits."""
        return 0.0 if self._away else time.monotonic() - self._looked
