"""Where lines of text are in a picture: a network that marks them (DBNet, as PaddleOCR trains it), and rectangles.

A picture goes in as it is, tile by tile, never enlarged. It goes in a second time at a quarter of its size, and so on:
letters that are larger than what the network looks at are found there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_agent.errors import InputError
from edge_agent.pictures.lines import regions, shrunk
from edge_agent.types import Floats, Net, Pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""of ImageNet, on blue, green, red in this order, as PaddleOCR has it"""
STEP = 32
"""sides of what goes in are multiples of it"""
TILE, OVERLAP, RIM = 736, 128, 16
"""pixels: the longest side of a tile, as a larger one finds no more and takes more memory; the strip that two of them
share; and what of it, beside the inner border, does not count"""
MOST_PIXELS = 12_600_000
"""of a picture; a larger one is made smaller first"""
LEVEL, LEAST, GROW = 0.3, 0.5, 1.6
"""of the map, where a line begins; the least mean of one; and area / perimeter times this is how far its letters reach
beyond what the network marks, which is a line's core (DBNet, arXiv 1911.08947, section 3.5)"""
THIN = 3.0
"""pixels of a line's thickness that can be read"""
COARSE, SHORTEST, THICK = 4, 320, 20.0
"""times that each further look is smaller, as long as the longest side has more than so many pixels; and how thick a
line has to be there, as the look before has seen others"""
MOST = 1000
"""lines of one picture"""
STEEP = 60.0
"""degrees from which on a line that goes up is read downwards"""


class Spot(NamedTuple):
    """Where a line may be."""

    corners: Floats
    """(4, 2) pixels, from its top left clockwise as it is read"""
    coarse: bool
    """found in a smaller picture"""


@dataclass(slots=True)
class Finder:
    """The network as a function from a picture to places of lines."""

    net: Net

    def find(self, image: Pixels) -> tuple[list[Spot], int]:
        """The places, those of large letters last, and how many more there were than are looked at."""
        height, width = image.shape[:2]
        found: list[Spot] = []
        left_out, scale = 0, max(1.0, (height * width / MOST_PIXELS) ** 0.5)
        coarse = False
        while True:
            look = shrunk(image, scale)
            rects, more = self._rects(look, THICK if coarse else THIN)
            rects[:, :4] *= scale
            found += [Spot(corners, coarse) for corners in _corners(rects)]
            left_out += more
            if max(look.shape) <= SHORTEST:
                return found, left_out
            coarse, scale = True, scale * COARSE

    def _rects(self, image: Pixels, thinnest: float) -> tuple[Floats, int]:
        """(n, 5) rectangles of lines (see `Regions`), grown to what is written there, and how many were left out."""
        found = regions(self._map(image), round(LEVEL * 255), MOST)
        rects = found.rects[found.scores >= LEAST]
        reach = rects[:, 2] * rects[:, 3] * GROW / (rects[:, 2] + rects[:, 3])
        rects[:, 2:4] += reach[:, None]
        return rects[rects[:, 3] >= thinnest], found.left_out

    def _map(self, image: Pixels) -> Pixels:
        """(h, w) uint8: how likely each pixel is in the core of a line, 255 for sure; put together from tiles."""
        height, width = image.shape[:2]
        whole = np.zeros((height, width), np.uint8)
        for top, bottom in spans(height):
            for left, right in spans(width):
                told = self._tile(image[top:bottom, left:right])
                y, x = (RIM if top else 0), (RIM if left else 0)
                told = told[y : None if bottom == height else -RIM, x : None if right == width else -RIM]
                part = whole[top + y :, left + x :][: told.shape[0], : told.shape[1]]
                np.maximum(part, told, out=part)
        return whole

    def _tile(self, image: Pixels) -> Pixels:
        """As `_map`, of a picture that goes in at once. InputError for numbers that are none."""
        height, width = image.shape[:2]
        tensor = np.zeros((1, 3, -(-height // STEP) * STEP, -(-width // STEP) * STEP), np.float32)
        for plane, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
            inside = tensor[0, plane, :height, :width]
            np.multiply(image[:, :, plane], np.float32(1 / (255 * std)), out=inside)
            inside -= np.float32(mean / std)
        (told,) = self.net.run({self.net.inputs[0].name: tensor}).values()
        told = told.reshape(told.shape[-2:])[:height, :width]
        if told.shape != (height, width) or not np.isfinite(told).all():
            raise InputError("the network that finds lines gave no map of the picture; the result is refused")
        return (np.clip(told, 0, 1) * 255).astype(np.uint8)


def spans(size: int) -> Iterator[tuple[int, int]]:
    """From and to of each tile along one side: as few as there can be, alike long, each sharing a strip."""
    count = max(1, -(-(size - OVERLAP) // (TILE - OVERLAP)))
    length = -(-(size + (count - 1) * OVERLAP) // count)
    for number in range(count):
        start = round(number * (size - length) / max(1, count - 1))
        yield start, start + length


def _corners(rects: Floats) -> Iterator[Floats]:
    """The corners of each rectangle, (4, 2), in the direction in which it is read.

    That is along its longer side; of one that is about as long as thick, a letter or two, as most of the long ones go.
    """
    angles = (rects[:, 4] + 90) % 180 - 90
    main = direction(angles, rects[:, 2] * (rects[:, 2] >= 2 * rects[:, 3]))
    for (x, y, long, thick, _), own in zip(rects.tolist(), angles.tolist(), strict=True):
        angle, sides = own, (long, thick)
        if long < 1.5 * thick:
            quarters = round((main - own) / 90)
            angle, sides = own + 90 * quarters, (thick, long) if quarters % 2 else (long, thick)
        turn = np.deg2rad(angle + 180 if angle < -STEEP else angle)
        along = np.array([np.cos(turn), np.sin(turn)]) * sides[0] / 2
        down = np.array([-np.sin(turn), np.cos(turn)]) * sides[1] / 2
        middle = np.array([x, y])
        yield np.stack(
            [middle - along - down, middle + along - down, middle + along + down, middle - along + down]
        ).astype(np.float32)


def direction(angles: Floats, weights: Floats) -> float:
    """The mean of directions in degrees, of which those that differ by 180 are one; 0 where none has a weight."""
    twice = np.deg2rad(2 * angles.astype(np.float64))
    return float(np.rad2deg(np.arctan2((np.sin(twice) * weights).sum(), (np.cos(twice) * weights).sum())) / 2)
