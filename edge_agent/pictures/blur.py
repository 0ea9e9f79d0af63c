"""What nobody is to recognise in a picture becomes coarse blocks."""

from __future__ import annotations

import numpy as np

from edge_agent.pictures.read import cv2
from edge_agent.types import Floats, Pixels

BLOCKS = 8
"""along the longer side of a box: a face in the box of its person is then one block, or a few"""
LEAST = 8
"""pixels a side that a block has at least"""
LEVELS = 16
"""of each colour that are left: what changes less from frame to frame shows nothing"""
GROW = 0.1
"""share of its sides by which a box grows before: boxes are a little too small now and then"""


def pixelated(image: Pixels, boxes: Floats) -> Pixels:
    """A copy of `image` (h, w, 3 BGR) in which what lies in `boxes` (n, 4; left, top, right, bottom) is coarse blocks.

    Each block is the mean of its pixels, of few levels: what it was made of cannot be computed back.
    """
    out = image.copy()
    height, width = image.shape[:2]
    # the coarsest last: where boxes overlap nothing finer is left
    corners = sorted(_corners(boxes, width, height), key=lambda box: max(box[2] - box[0], box[3] - box[1]))
    for left, top, right, bottom in corners:
        wide, high = right - left, bottom - top
        side = max(LEAST, -(-max(wide, high) // BLOCKS))
        small = (-(-wide // side), -(-high // side))
        means = np.asarray(cv2.resize(image[top:bottom, left:right], small, interpolation=cv2.INTER_AREA), np.uint8)
        means = means // (256 // LEVELS) * (256 // LEVELS) + 128 // LEVELS
        cv2.resize(means, (wide, high), dst=out[top:bottom, left:right], interpolation=cv2.INTER_NEAREST)
    return np.asarray(out, np.uint8)


def _corners(boxes: Floats, width: int, height: int) -> list[list[int]]:
    """The boxes grown, in whole pixels of the picture; without those that have none of it."""
    if not len(boxes):
        return []
    grow = GROW * (boxes[:, 2:] - boxes[:, :2])
    low = np.floor(np.maximum(boxes[:, :2] - grow, 0))
    high = np.ceil(np.minimum(boxes[:, 2:] + grow, [width, height]))
    inside = (high > low).all(axis=1)
    return [[int(value) for value in box] for box in np.concatenate([low, high], 1)[inside]]
