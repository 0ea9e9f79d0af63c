"""A day's bytes on a metered link: alerts may use all of them, telemetry four fifths."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.files import write_private

TELEMETRY_SHARE = 0.8
"""of the day's bytes; the rest is kept for alerts"""
OVERHEAD = 60
"""bytes of a message besides topic and payload: MQTT header, PUBACK, and its share of TCP and IP"""
SAVE_EVERY = 4096
"""bytes between two writes of the file: what a crash may forget"""


class _Spent(msgspec.Struct, frozen=True):
    day: int
    """days since 1970, UTC"""
    bytes: int


class Budget:
    """Counts what is sent today, from any thread. A day begins at midnight UTC; the count survives a restart."""

    def __init__(
        self, per_day: int | None = None, path: Path | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`per_day` None: no bound. `path`: the file that remembers the day's count."""
        self.per_day, self.path, self._clock = per_day, path, clock
        self._lock = threading.RLock()
        self._spent = _Spent(self._today(), 0)
        self._saved = 0
        if path is not None and per_day is not None:
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                kept = msgspec.json.decode(path.read_bytes(), type=_Spent)
                # a clock that was set back does not give a new day, and one that was far ahead does not take them all
                if kept.day >= self._spent.day:
                    self._spent = kept
        self._saved = self._spent.bytes

    def _today(self) -> int:
        return int(self._clock() // 86400)

    @property
    def left(self) -> float:
        """Bytes that may still be sent today."""
        if self.per_day is None:
            return float("inf")
        with self._lock:
            today = self._today()
            if today > self._spent.day:
                self._spent, self._saved = _Spent(today, 0), 0
            elif today < self._spent.day:
                self._spent = _Spent(today, self._spent.bytes)
                self._save()
            return self.per_day - self._spent.bytes

    @property
    def saving(self) -> bool:
        """Whether telemetry has to wait for tomorrow."""
        return self.per_day is not None and self.left <= self.per_day * (1 - TELEMETRY_SHARE)

    def spares(self, size: int) -> bool:
        """Whether something of `size` bytes may be sent now that is no event: it may not take what alerts have."""
        return self.per_day is None or self.left - size > self.per_day * (1 - TELEMETRY_SHARE)

    def open(self, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """Which of these kinds may be sent now."""
        if self.left <= 0:
            return ()
        return tuple(kind for kind in kinds if kind == "alert" or not self.saving)

    def spend(self, size: int) -> None:
        """A message of `size` bytes (topic and payload) was sent."""
        with self._lock:
            if self.per_day is None or self.left is None:
                return
            self._spent = _Spent(self._spent.day, self._spent.bytes + size + OVERHEAD)
            if self._spent.bytes - self._saved >= SAVE_EVERY:
                self._save()

    def _save(self) -> None:
        self._saved = self._spent.bytes
        if self.path is not None:
            fresh = self.path.with_suffix(".new")
            with contextlib.suppress(OSError):  # the disk refuses: the count goes on in memory
                write_private(fresh, msgspec.json.encode(self._spent))
                fresh.replace(self.path)
