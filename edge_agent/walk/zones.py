"""Where things are: inside of an area, on which side of a line. Points in pixels, many at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_agent.config.zones import Zone

Array = npt.NDArray[np.float64]

GRID = 6
"""points a side by which the share of a box in an area is taken"""
ENTERS, LEAVES = 0.5, 0.3
"""share of its box from which on a thing is in an area by overlap, and below which it is there no more"""
MARGIN, LINE_MARGIN = 0.1, 0.2
"""of its height: so far a thing is behind an edge before it has come in or gone out, and behind a line before it has
crossed that; what walks along a line would cross it again and again"""


class Area:
    """One zone, in pictures of any size."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.labels = frozenset(label.casefold() for label in zone.labels)

    def states(self, boxes: Array, size: tuple[int, int]) -> list[int]:
        """Of each box (n, 4): 1 it is in the area (or on the right-hand side of a line), -1 it is out, 0 it is at an
        edge, where it stays what it was.
        """
        if self.zone.by == "overlap":
            share = self._share(boxes, size)
            into, out = share >= ENTERS, share < LEAVES
        else:
            margin = (LINE_MARGIN if self.zone.line else MARGIN) * (boxes[:, 3] - boxes[:, 1])
            depth = self.depth(feet_of(boxes, size), size)
            into, out = depth >= margin, depth <= -margin
        return [int(one) - int(other) for one, other in zip(into, out, strict=True)]

    def depth(self, points: Array, size: tuple[int, int]) -> Array:
        """How far each point (n, 2) is inside: pixels to the nearest edge, below 0 outside; of a line: to the right of
        it, and of those that lie beyond its ends, too.
        """
        a = np.asarray(self.zone.points, np.float64) * size
        if self.zone.line:
            way = a[1] - a[0]
            off = points - a[0]
            return np.asarray((way[0] * off[:, 1] - way[1] * off[:, 0]) / np.hypot(*way), np.float64)
        b = np.roll(a, -1, 0)
        way, off = b - a, points[:, None] - a
        along = np.clip((off * way).sum(2) / np.maximum((way * way).sum(1), 1e-9), 0, 1)
        near = np.hypot(*np.moveaxis(off - along[..., None] * way, 2, 0)).min(1)
        return np.asarray(np.where(_inside(points, a, b), near, -near), np.float64)

    def over(self, start: tuple[float, float], end: tuple[float, float], size: tuple[int, int]) -> bool:
        """Whether the way between two points on both sides of a line goes over it, not past its ends."""
        ends = np.asarray(self.zone.points, np.float64) * size
        one, two = np.asarray(start), np.asarray(end)
        way = two - one
        sides = [float(way[0] * (p[1] - one[1]) - way[1] * (p[0] - one[0])) for p in ends]
        return sides[0] * sides[1] <= 0

    def _share(self, boxes: Array, size: tuple[int, int]) -> Array:
        a = np.asarray(self.zone.points, np.float64) * size
        steps = (np.arange(GRID) + 0.5) / GRID
        grid = np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)
        points = boxes[:, None, :2] + grid * (boxes[:, None, 2:] - boxes[:, None, :2])
        inside = _inside(points.reshape(-1, 2), a, np.roll(a, -1, 0))
        return np.asarray(inside.reshape(len(boxes), GRID * GRID).mean(1), np.float64)


def feet_of(boxes: Array, size: tuple[int, int]) -> Array:
    """The middle of each lower edge, (n, 2); of a box that is cut off at the picture's edge, a little inside of it."""
    margin = MARGIN * (boxes[:, 3] - boxes[:, 1]) + 1e-6
    x = np.clip((boxes[:, 0] + boxes[:, 2]) / 2, margin, np.maximum(margin, size[0] - margin))
    return np.stack([x, np.minimum(boxes[:, 3], size[1] - margin)], 1)


def _inside(points: Array, a: Array, b: Array) -> npt.NDArray[np.bool_]:
    """Which points (n, 2) lie in the polygon with edges from `a` to `b`: a ray to the right crosses an odd number."""
    x, y = points[:, :1], points[:, 1:]
    spans = (a[:, 1] > y) != (b[:, 1] > y)
    rise = np.where(b[:, 1] == a[:, 1], 1.0, b[:, 1] - a[:, 1])
    at = a[:, 0] + (y - a[:, 1]) * (b[:, 0] - a[:, 0]) / rise
    return np.asarray((spans & (x < at)).sum(1) % 2 == 1, bool)
