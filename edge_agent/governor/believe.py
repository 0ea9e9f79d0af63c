"""Whether a sensor of heat is to be believed: some say 0 or 255 °C, some jump, some vanish."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_C, MOST_C = -40.0, 125.0
"""between which a board can be; exactly 0 is what a sensor says that does not work"""
JUMP_C, AGAIN = 25.0, 3
"""degrees from one look to the next that no board warms up by, unless it is said so often in a row"""
HOLD_S = 20.0
"""seconds for which the last believed one stands in"""


@dataclass(slots=True)
class Believed:
    """The warmest sensor, from look to look."""

    what: str = ""
    """why there is none, one line; empty while there is"""
    _last: float | None = None
    _at: float = -math.inf
    _odd: int = 0

    def __call__(self, now: float, values: Sequence[float]) -> float | None:
        """The warmest of the `values` (°C) at `now` (seconds); None where none is believed."""
        warmest = max(filter(_can_be, values), default=None)
        if warmest is not None and not self._jumps(warmest):
            self._last, self._at, self._odd, self.what = warmest, now, 0, ""
            return warmest
        if now - self._at <= HOLD_S:
            return self._last
        told = ", ".join(f"{value:g}" for value in values)
        self.what = f"no sensor of heat is to be believed: {told} °C" if told else "no sensor of heat is there"
        return None

    def _jumps(self, value: float) -> bool:
        """Whether it is too far from the last one, and was not said often enough for that."""
        if self._last is None or abs(value - self._last) <= JUMP_C or self._odd >= AGAIN:
            return False
        self._odd += 1
        return True


def _can_be(celsius: float) -> bool:
    return LEAST_C < celsius < MOST_C and celsius != 0
