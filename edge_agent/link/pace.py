"""How much may be on its way to a broker at once: little at first, more as it answers soon, less where it is late.

After a restart of the broker a whole fleet comes back with what waited. A broker that is sent all of it at once closes
connections, so each device begins with one event and lets the answers say how fast the rest may follow, as TCP does
(slow start, then a halving on each sign of congestion: RFC 5681 section 3.1; the sign is the delay, RFC 6817).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

MOST = 40
"""events sent and not yet acknowledged: 20 to 100 is fastest, and a lost connection repeats no more than these"""
LATE_S = (0.5, 4.0)
"""seconds, least and most, from which an answer is late; within them four times the quickest of this connection"""


class Pace:
    """The window of one connection. Of one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """A new connection."""
        self.window = 1.0
        self._sent: dict[int, float] = {}
        """packet id -> when it was sent"""
        self._quickest = LATE_S[1]
        self._halved_at = self._from = 0.0

    def room(self) -> int:
        """How many more may be sent now."""
        return 0 if self._clock() < self._from else max(0, int(self.window) - len(self._sent))

    def sent(self, packet: int) -> None:
        """An event goes out."""
        self._sent[packet] = self._clock()

    def answered(self, packet: int) -> None:
        """The broker has answered one."""
        sent_at = self._sent.pop(packet, None)
        if sent_at is None:
            return
        now = self._clock()
        took = now - sent_at
        self._quickest = min(self._quickest, took)
        if took < min(LATE_S[1], max(LATE_S[0], 4 * self._quickest)):
            self.window = min(MOST, self.window + 1)
        elif sent_at >= self._halved_at:  # of those that were on their way together the first one counts
            self.window, self._halved_at = max(1.0, self.window / 2), now
        if self.window == 1:  # less than one at a time: rest for about as long as it took
            self._from = now + took * random.uniform(0.5, 1.5)
