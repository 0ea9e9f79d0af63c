"""What ends a source or lets it rest, and tells whether it hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stop(threading.Event):
    """Ends a source, and knows whether that looks at it: a source does so every few moments, with nothing to give too,
    so one that does not for long hangs, inside of a driver or a network.

    `set` ends it for good (`over`); `pause` for a while, until `go_on`. May be called from any thread.
    """

    def __init__(self) -> None:
        super().__init__()
        self._looked = time.monotonic()
        self._away: set[object] = set()
        """calls that wait for something else, one each"""
        self.over = False
        """it is ended for good"""
        self._free = threading.Event()
        self._free.set()
        self._turning = threading.Lock()

    def set(self) -> None:
        with self._turning:
            self.over = True
            self._free.set()
            super().set()

    def pause(self, ends: bool) -> None:
        """Let it rest. `ends`: the source is ended and begun again afterwards, as a camera is closed; else whoever
        takes what it gives waits in `until_free`, as a file is read on from where it was.
        """
        with self._turning:
            if not self.over:
                self._free.clear()
                super().set() if ends else None

    def go_on(self) -> None:
        """The rest is over."""
        with self._turning:
            if not self.over:
                super().clear()
            self._free.set()

    @property
    def paused(self) -> bool:
        """Whether it rests."""
        return not self._free.is_set()

    def until_free(self) -> None:
        """Wait while it rests."""
        with self.elsewhere():
            self._free.wait()

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
