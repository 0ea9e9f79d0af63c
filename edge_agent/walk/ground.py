"""How fast things go over the ground of a scene of which somebody has measured four points and more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import numpy as np

from edge_agent.config.zones import Point, Zone

OVER_S = 1.0
"""seconds over which a speed is taken, and half of it is the least"""


class Ground:
    """The ground of one camera's picture, a plane."""

    def __init__(self, zone: Zone) -> None:
        """`zone`: one with `metres`. The plane's homography by direct linear transformation (Hartley and Zisserman,
        Multiple View Geometry, 2nd edition, 4.1), least squares where more than four points are given.
        """
        rows = []
        for (x, y), (u, v) in zip(zone.points, zone.metres, strict=True):
            rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
        self._plane = np.linalg.svd(np.array(rows, np.float64))[2][-1].reshape(3, 3)
        middle = np.append(np.mean(np.array(zone.points), axis=0), 1.0)
        self._side = np.sign((self._plane @ middle)[2])
        """of the horizon on which the ground is"""

    def __call__(self, foot: Point, size: tuple[int, int]) -> Point | None:
        """Where a point of the picture (pixels; `size`: its width and height) is on the ground, metres; None at the
        horizon and above it.
        """
        x, y, w = self._plane @ (foot[0] / size[0], foot[1] / size[1], 1.0)
        return (float(x / w), float(y / w)) if w * self._side > 1e-9 else None


def ground_of(zones: Iterable[Zone]) -> Callable[[Point, tuple[int, int]], Point | None]:
    """The ground of the zone among them that has metres; where none has, nobody can tell where anything stands."""
    measured = next((zone for zone in zones if zone.metres), None)
    return Ground(measured) if measured is not None else lambda foot, size: None


class Speedometer:
    """How fast one thing goes."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, Point]] = deque()

    def to(self, clock: float, place: Point | None) -> None:
        """It is there now (metres; None: nobody can tell); `clock`: seconds."""
        if place is None:
            self._steps.clear()
            return
        self._steps.append((clock, place))
        while clock - self._steps[0][0] > OVER_S:
            self._steps.popleft()

    @property
    def speed(self) -> float | None:
        """Metres a second over the last OVER_S; None while it is seen too short for that."""
        if len(self._steps) < 2:
            return None
        (began, start), (ended, end) = self._steps[0], self._steps[-1]
        if ended - began < OVER_S / 2:
            return None
        return float(np.hypot(end[0] - start[0], end[1] - start[1]) / (ended - began))
