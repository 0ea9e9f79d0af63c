"""Where a thing went, in few points."""

from __future__ import annotations

MOST = 32
"""points"""
STEP = 0.5
"""heights of the thing from one point to the next"""

Point = tuple[float, float]


class Path:
    """The points of a way, from the first to the last; those that say least go where there are too many."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._fixed = 0
        """points of them that stay; one behind them is where the thing is now"""

    def to(self, point: Point, height: float) -> None:
        """It is here now, and so high."""
        del self.points[self._fixed :]
        self.points.append(point)
        before = self.points[-2] if self._fixed else None
        if before is None or max(abs(point[0] - before[0]), abs(point[1] - before[1])) >= STEP * height:
            self._fixed = len(self.points)
        if self._fixed > MOST - 1:
            del self.points[self._least()]
            self._fixed -= 1

    def _least(self) -> int:
        """Which of the inner points makes the smallest triangle with its neighbours (Visvalingam and Whyatt, 1993)."""

        def area(at: int) -> float:
            (ax, ay), (bx, by), (cx, cy) = self.points[at - 1 : at + 2]
            return abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))

        return min(range(1, len(self.points) - 1), key=area)
