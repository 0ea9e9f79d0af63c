"""Steps of the wall clock: a board without a battery starts in 1970, or days behind, until it is told the time."""

from __future__ import annotations

import logging
import time
from datetime import datetime

import msgspec

from edge_agent.events import JSON, Encoding, rfc3339

log = logging.getLogger("edge_agent")

STEP_S = 2.0
"""seconds: a change that is smaller is the clock being steered, which is left alone"""
ATOMIC_S = 0.1
"""seconds at most between two clocks being read"""


def _boottime() -> float:
    """Seconds since the boot, those in which the machine slept too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """Notices steps and corrects the times from before. Of one thread."""

    def __init__(self, encoding: Encoding = JSON) -> None:
        self._encoding = encoding
        self._offset = time.time() - _boottime()
        self._steps: list[tuple[int, float, float]] = []
        """the last number given out before a step, what the clock showed then, and by how many seconds it was set"""

    def notice(self, last: int) -> float:
        """Look at the clock; by how many seconds it was set since this was asked last. `last`: of the numbers."""
        before = _boottime()
        now = time.time()
        if _boottime() - before > ATOMIC_S:
            return 0.0
        jump, self._offset = now - before - self._offset, now - before
        if abs(jump) < STEP_S:
            return 0.0
        self._steps.append((last, now - jump, jump))
        log.warning("the clock was set by %+.0f s; times of events from before that are corrected", jump)
        return jump

    def right(self, seq: int, payload: bytes) -> bytes:
        """An event as it is encoded, its `at` corrected by the steps that came after it."""
        jumps = [(shown, jump) for last, shown, jump in self._steps if seq <= last]
        if not jumps:
            return payload
        event = self._encoding.decode(payload)
        at = right = datetime.fromisoformat(event.at.replace("Z", "+00:00")).timestamp()
        for shown, jump in jumps:
            # put after the step and before it was noticed: its time is right
            if jump < 0 or right < shown + jump / 2:
                right += jump
        if right != at:
            payload = self._encoding.encode(msgspec.structs.replace(event, at=rfc3339(right)))
        return payload
