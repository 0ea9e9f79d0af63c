"""Down at once, up with care: which rung a device stands on, so that no reading passes its limit.

It begins near the bottom, and goes up one rung at a time as long as what is expected there stays below the limits. A
rung that had to be left soon after is not tried again for a while, each time for twice as long. Only arithmetic: it
knows no clock and no sensor.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

SOON = 0.92
ROOM = 0.85
"""of a limit of processor, memory or watts: from SOON on it goes down, and what is expected a rung higher has to stay
below ROOM of it"""
WARM_C, COOL_C = 2.5, 3.0
"""degrees below the limit at which it goes down, and below which it has to stay, as is expected, to go up"""
LOOK_S, SLOPE_S = 45.0, 20.0
"""seconds that heat is looked ahead, and over which its slope is taken"""
DOWN_S, HOT_S = 6.0, 15.0
"""seconds between two steps down: what was saved has to show first; of heat, which shows later, unless it is urgent"""
UP_S, LONGEST_S = 20.0, 3600.0
"""seconds without trouble before a step up, and at most after rungs that had to be left"""
START = 4
"""rung that it begins on"""
C_PER_CORE, MOST_RISE_C = 40.0, 10.0
"""degrees that a core more is expected to heat a board by, and at most that a rung does; a board that warms up by more
shows it in its slope"""


@dataclass(slots=True)
class Bounds:
    """What must not be passed; None: no such limit."""

    cpu_percent: float | None = None
    memory_mb: float | None = None
    watts: float | None = None
    celsius: float | None = None


@dataclass(slots=True)
class Reading:
    """How it is now; None: not known."""

    cpu_percent: float | None = None
    """of one core"""
    memory_mb: float | None = None
    watts: float | None = None
    celsius: float | None = None
    blind: str = ""
    """why a limit cannot be watched, one line; empty where each can"""


@dataclass(slots=True)
class Ladder:
    """Of one device. `costs`: of the processor time, rung by rung, as a share of the first; those behind are pauses."""

    bounds: Bounds
    costs: list[float]
    rung: int = field(init=False)
    why: str = "it has just started, and begins with little"
    over: str = ""
    """what is above its limit, one line; empty where nothing is"""
    _moved: float = -math.inf
    _calm: float = math.inf
    """since when nothing is near its limit"""
    _wait: float = UP_S
    _left: dict[int, float] = field(default_factory=dict)
    """rung that had to be left -> seconds that it is kept from"""
    _up_at: float = -math.inf
    _heat: deque[tuple[float, float]] = field(default_factory=deque)
    """when and how warm it was"""

    def __post_init__(self) -> None:
        self.rung = min(START, len(self.costs) - 1)

    def step(self, now: float, is_: Reading) -> bool:
        """Look at a reading of the time `now` (seconds of any clock); whether it stands on another rung then."""
        near, urgent, slow = self._near(now, is_)
        self.over = "; ".join(self._over(is_))
        self.why = is_.blind or self.why
        if near:
            self._calm = math.inf
            pause = 0.0 if urgent else HOT_S if slow else DOWN_S
            return now - self._moved >= pause and self._to(self.rung + 1 + urgent, now, near)
        self._calm = min(self._calm, now)
        if now - max(self._calm, self._moved) < max(self._wait, self._left.get(self.rung - 1, 0.0)):
            return False
        if self.rung == 0 or (lack := self._lack(is_)):
            self.why = self.why if self.rung == 0 else f"no step up: {lack}"
            return False
        return self._to(self.rung - 1, now, "there is room again")

    def _to(self, rung: int, now: float, why: str) -> bool:
        rung = max(0, min(len(self.costs) - 1, rung))
        if rung == self.rung:
            self.why = f"{why}; no step is left" if self.over else why
            return False
        if rung > self.rung and now - self._up_at < 2 * max(UP_S, self._left.get(self.rung, 0.0)):
            self._left[self.rung] = min(LONGEST_S, 2 * max(UP_S, self._left.get(self.rung, 0.0)))
        elif rung < self.rung:
            self._up_at = now
        self.rung, self._moved, self.why = rung, now, why
        return True

    def _near(self, now: float, is_: Reading) -> tuple[str, bool, bool]:
        """What is near its limit, one line; whether that is urgent, and whether it is heat alone."""
        rows = _rows(is_, self.bounds)
        told = [f"{value:.0f} of {limit:g} {unit}" for _, value, limit, unit in rows if value > SOON * limit]
        hot, boils = self._hot(now, is_.celsius)
        if is_.blind:
            self._calm = math.inf
            told += [is_.blind] * (self.rung < START)
        urgent = boils or any(value > limit for _, value, limit, _ in rows)
        return ", ".join([*told, *([hot] if hot else [])]), urgent, not told

    def _hot(self, now: float, celsius: float | None) -> tuple[str, bool]:
        """That it is too warm, or soon will be, one line; and whether that is urgent."""
        limit = self.bounds.celsius
        if limit is None or celsius is None:
            return "", False
        slope = self._slope(now, celsius)
        soon = celsius + max(0.0, slope) * LOOK_S
        if soon < limit - WARM_C:
            return "", False
        rising = f", rising by {60 * slope:.1f} a minute" if soon > celsius + 0.5 else ""
        return f"{celsius:.0f} of {limit:g} °C{rising}", celsius >= limit - WARM_C / 2

    def _slope(self, now: float, celsius: float) -> float:
        """Degrees a second."""
        self._heat.append((now, celsius))
        while now - self._heat[0][0] > SLOPE_S:
            self._heat.popleft()
        (then, was), span = self._heat[0], now - self._heat[0][0]
        return (celsius - was) / span if then < now and span >= SLOPE_S / 2 else 0.0

    def _lack(self, is_: Reading) -> str:
        """Why there is no room for one rung more; empty where there is."""
        here, there = self.costs[self.rung], self.costs[self.rung - 1]
        used = 100.0 * here if is_.cpu_percent is None else is_.cpu_percent
        more = used * (there / here - 1)
        watts = None if is_.watts is None else is_.watts * (1 + more / max(100.0, 2 * used))
        expected = Reading(used + more, None if is_.memory_mb is None else is_.memory_mb * ROOM / SOON, watts)
        for _, value, limit, unit in _rows(expected, self.bounds):
            if value > ROOM * limit:
                return f"{value:.0f} of {limit:g} {unit} would be too near"
        limit_c, rise = self.bounds.celsius, min(MOST_RISE_C, more / 100 * C_PER_CORE)
        if limit_c is not None and is_.celsius is not None and is_.celsius + rise > limit_c - COOL_C:
            return f"{is_.celsius:.0f} °C, and {rise:.0f} more would be too near {limit_c:g} °C"
        return ""

    def _over(self, is_: Reading) -> list[str]:
        heat = [("celsius", is_.celsius, self.bounds.celsius, "°C")]
        rows = [*_rows(is_, self.bounds), *heat]
        return [f"{v:.0f} of {n:g} {unit}" for _, v, n, unit in rows if v is not None and n is not None and v > n]


def _rows(is_: Reading, bounds: Bounds) -> list[tuple[str, float, float, str]]:
    """What is known and limited, but for heat: name, value, limit, unit."""
    rows = [
        ("cpu_percent", is_.cpu_percent, bounds.cpu_percent, "% of a core"),
        ("memory_mb", is_.memory_mb, bounds.memory_mb, "MB of memory"),
        ("watts", is_.watts, bounds.watts, "W"),
    ]
    return [(what, value, limit, unit) for what, value, limit, unit in rows if value is not None and limit is not None]
