"""Lines of text as pictures: where a map of probabilities is high, and each such place cut out upright."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_agent.pictures.read import cv2
from edge_agent.types import Floats, Pixels

SMALLEST = 2.0
"""pixels of the shorter side of a region that is looked at"""


class Regions(NamedTuple):
    """Where a map is high: n rectangles, the largest first."""

    rects: Floats
    """(n, 5): middle across and down, length, thickness (length >= thickness), angle in degrees of the longer side"""
    scores: Floats
    """(n,) mean of the map in each, 0..1"""
    left_out: int
    """regions beyond the most that are looked at, the smallest"""


def regions(heat: Pixels, level: int, most: int) -> Regions:
    """Of `heat` (h, w) uint8, 255 for sure, each connected region above `level`, at most so many, the largest.

    A rectangle is the smallest one around the region, at any angle.
    """
    found, _ = cv2.findContours((heat > level).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    sizes = np.array([max(cv2.boundingRect(one)[2:]) for one in found], np.float32)
    kept = np.flatnonzero(sizes >= SMALLEST)
    order = kept[np.argsort(-sizes[kept], kind="stable")]
    rects = [_rect(found[i]) for i in order[:most]]
    scores = [_mean(heat, found[i]) for i in order[:most]]
    return Regions(np.array(rects, np.float32).reshape(-1, 5), np.array(scores, np.float32), max(0, len(order) - most))


def _rect(contour: Pixels) -> tuple[float, float, float, float, float]:
    """The smallest rectangle around it. Pixels are squares, whose middles the contour runs through: hence the 1."""
    (x, y), (width, height), angle = cv2.minAreaRect(contour)
    if width < height:
        width, height, angle = height, width, angle + 90
    return x + 0.5, y + 0.5, width + 1, height + 1, angle


def _mean(heat: Pixels, contour: Pixels) -> float:
    """Mean of the map within a contour, 0..1."""
    left, top, width, height = cv2.boundingRect(contour)
    inside = np.zeros((height, width), np.uint8)
    cv2.fillPoly(inside, [contour - [left, top]], 1)
    return float(cv2.mean(heat[top : top + height, left : left + width], inside)[0]) / 255


def upright(image: Pixels, corners: Floats, height: int, widest: int) -> Pixels:
    """What lies between four corners of `image`, (4, 2) from the top left clockwise as it is read, as a picture of that
    height, and as wide as keeps its shape, `widest` at most. What is outside of the image is as its border.
    """
    long = (np.linalg.norm(corners[1] - corners[0]) + np.linalg.norm(corners[2] - corners[3])) / 2
    thick = (np.linalg.norm(corners[3] - corners[0]) + np.linalg.norm(corners[2] - corners[1])) / 2
    width = int(np.clip(round(float(height * long / max(thick, 1))), height // 4, widest))
    low = np.clip(np.floor(corners.min(0)).astype(int) - 2, 0, None)
    high = np.ceil(corners.max(0)).astype(int) + 3
    part, corners = image[low[1] : high[1], low[0] : high[0]], (corners - low).astype(np.float32)
    # one step of a warp looks at four pixels (16 if cubic): what is much larger is made smaller first
    if (shrink := thick / height) > 1.5:
        size = [max(1, round(side / shrink)) for side in (part.shape[1], part.shape[0])]
        corners *= np.array(size, np.float32) / [part.shape[1], part.shape[0]]
        part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    # of continuous coordinates, where a pixel's middle is at 0.5
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    turn = cv2.getPerspectiveTransform(corners - np.float32(0.5), target)
    out = cv2.warpPerspective(part, turn, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out, np.uint8)


def shrunk(image: Pixels, times: float) -> Pixels:
    """The picture `times` smaller, each pixel the mean of what it covers; itself where that is no change."""
    if times <= 1:
        return image
    size = [max(1, round(side / times)) for side in (image.shape[1], image.shape[0])]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def moved_onto(picture: Pixels, other: Floats) -> tuple[Pixels, float]:
    """A picture moved, by parts of a pixel, so that it lies best on `other` of the same size (h, w, 3), and how much
    alike they are then: the correlation of their brightness, -1 to 1.

    By the phases of their spectra (Kuglin and Hines 1975); by at most a height along and a third of it across.
    """
    one, two = (np.ascontiguousarray(each.mean(axis=2, dtype=np.float32)) for each in (other, picture))
    height, width = one.shape
    (x, y), _ = cv2.phaseCorrelate(one, two, cv2.createHanningWindow((width, height), cv2.CV_32F))
    if abs(x) > height or abs(y) > height / 3:
        x = y = 0.0
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float32)
    moved = cv2.warpAffine(picture, move, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    both = np.stack([one.ravel(), moved.mean(axis=2, dtype=np.float32).ravel()])
    alike = float(np.corrcoef(both)[0, 1]) if (both.std(axis=1) > 0).all() else 0.0
    return np.asarray(moved, np.uint8), alike
