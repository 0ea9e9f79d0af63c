"""Whether anything has moved since the picture that was looked at last.

The picture becomes a grid of block means. A block has moved when it differs from what it was at the last look by more
than its own noise explains, which is estimated from one picture to the next: leaves raise it where they are. What all
blocks share is light, and is taken out. One block alone is noise: a few beside each other count, and unless they are
many, in a few pictures in a row, which drops of rain are not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_agent.pictures.read import cv2
from edge_agent.types import Pixels

Grid = npt.NDArray[np.float32]

CELLS = 96
"""blocks along the longer side"""
STEPS = 5.0
"""of a block's noise (the mean of its differences) from which on it has moved"""
FLOOR = 1.5
"""levels of 255 that a block has to differ by at least"""
STAYS, TOGETHER, MANY = 3, 4, 12
"""pictures in a row in which blocks have to have moved; how many of three by three; of five by five, in one picture"""
LEARN = 0.05
"""share of a new difference in the noise, more at first"""
CLIPPED = 3.0
"""times the noise that one difference may count for in it: what moves is no noise"""
FILLS = 0.8
"""share of the sides of a quarter of the picture that what moves takes up at most, to be looked at closer"""
LINGER_S = 1.0
"""seconds that are looked at after the last motion: what the detector missed then, it may see now"""


class Gate:
    """Of one camera, on one thread."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: the longest time without a look."""
        self._seconds = seconds
        nothing = np.zeros((0, 0), np.float32)
        self._last, self._seen = [nothing, nothing], nothing
        """the grids of the last two pictures; the median of those of the last three at the last look"""
        self._noise = self._over = self._moving = nothing
        """of each block; and for how many pictures it has been moved"""
        self._learned, self._size = 0, (-1, -1)
        self._looked_at = self._moved_at = -np.inf

    def __call__(self, image: Pixels, clock: float, *, seldom: bool = False) -> bool:
        """Whether to look at this picture, (h, w, 3), at `clock` seconds. One of another size, or of before the last,
        is looked at. `seldom`: pictures come with seconds between them, so one alone counts, whatever it is of.
        """
        new, size = _grid(image), image.shape[:2]
        if self._size != size or clock < self._looked_at:
            self._size, self._last, self._seen, self._moved_at = size, [new, new], new, clock
            self._noise, self._over, self._learned = np.zeros_like(new), np.zeros_like(new), 0
        one, two = self._last
        grid = new if seldom else np.maximum(np.minimum(one, two), np.minimum(np.maximum(one, two), new))
        self._last = [two, new]
        self._learn(np.abs(_without_light(new, two)))
        if self._moved(np.abs(_without_light(grid, self._seen))):
            self._moved_at = clock
        look = clock - self._moved_at <= LINGER_S or clock - self._looked_at >= self._seconds
        if look:
            self._seen, self._looked_at, self._over = grid, clock, np.zeros_like(grid)
        return look

    def region(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom of the quarter of the last picture in whose middle it moved; None where nothing did,
        or not in so small a part.
        """
        (height, width), rows, columns = self._size, *np.nonzero(self._moving)
        if not len(rows):
            return None
        cell, corner = max(height, width) / CELLS, []
        for places, side in ((columns, width), (rows, height)):
            first, last = float(places.min()) * cell, float(places.max() + 1) * cell
            if last - first > FILLS * side / 2:
                return None
            corner.append(int(np.clip((first + last) / 2 - side / 4, 0, side - side // 2)))
        return corner[0], corner[1], corner[0] + width // 2, corner[1] + height // 2

    def _learn(self, step: Grid) -> None:
        """How much each block differs from one picture to the next."""
        limit = CLIPPED * np.maximum(self._noise, np.float32(np.median(step)))
        share = np.float32(max(LEARN, 1 / (1 + self._learned)))
        self._learned += 1
        self._noise += share * (np.minimum(step, limit) - self._noise)

    def _moved(self, off: Grid) -> bool:
        """Whether enough blocks beside each other differ."""
        over = (off > np.maximum(FLOOR, STEPS * self._noise)).astype(np.float32)
        self._over = (self._over + 1) * over
        stays = (self._over >= STAYS).astype(np.float32)
        self._moving = over * (cv2.boxFilter(over, -1, (3, 3), normalize=False) >= TOGETHER)
        few = stays.any() and cv2.boxFilter(stays, -1, (3, 3), normalize=False).max() >= TOGETHER
        return bool(few or (over.any() and cv2.boxFilter(over, -1, (5, 5), normalize=False).max() >= MANY))


def _grid(image: Pixels) -> Grid:
    """The mean green of each block, of every other row and column."""
    height, width = image.shape[:2]
    scale = CELLS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    green = np.ascontiguousarray(image[::2, ::2, 1]) if min(height, width) > 2 * CELLS else image[:, :, 1].copy()
    return np.asarray(cv2.resize(green.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)


def _without_light(now: Grid, before: Grid) -> Grid:
    """What differs once all of the picture is as bright as before; a sample of the blocks says how much it is."""
    gain = np.median((now[::3, ::3] + 1) / (before[::3, ::3] + 1))
    return np.asarray(now - before * np.float32(gain), np.float32)
