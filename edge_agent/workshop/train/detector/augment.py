"""Pictures put together anew for each step.

Mosaic of four (Bochkovskiy et al., arXiv 2004.10934), mix-up (Zhang et al., arXiv 1710.09412), scale, stretch, crop,
mirror, colour, blur and noise. Every tile is moved by an axis-aligned map only, so boxes stay exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edge_agent.pictures.read import cv2

GREY = 114
Size = tuple[int, int]
"""width and height of what a network sees, in pixels"""


class Picture(NamedTuple):
    """A training picture and what is known to be in it."""

    name: str
    "where it is from"
    pixels: np.ndarray
    "(h, w, 3) uint8 BGR"
    boxes: np.ndarray
    "(k, 6) float32: x1, y1, x2, y2 in these pixels, class index, score"


def plain(picture: Picture, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """As at inference: fitted into (height, width, 3) uint8 at the top left; its boxes moved with it."""
    scale = _fit(picture, size)
    canvas = np.full((size[1], size[0], 3), GREY, np.uint8)
    boxes: list[np.ndarray] = [np.zeros((0, 6), np.float32)]
    _tile(canvas, boxes, picture, (0, 0, *size), (scale, scale), (0.0, 0.0), False)
    return canvas, np.concatenate(boxes)


def _fit(picture: Picture, size: Size) -> float:
    """The scale at which the whole picture just fits."""
    height, width = picture.pixels.shape[:2]
    return min(size[0] / float(width), size[1] / float(height))


def augmented(pictures: list[Picture], size: Size, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A new (height, width, 3) uint8 picture and its boxes (k, 6): half of them mosaics, one in eight is mixed."""
    canvas, boxes = composed(pictures, size, random)
    if random.random() < 1 / 8:
        other, ghosts = composed(pictures, size, random)
        share = random.uniform(0.5, 0.85)
        canvas = cv2.addWeighted(canvas, share, other, 1 - share, 0)
        boxes[:, 5] *= share
        ghosts[:, 5] *= 1 - share
        boxes = np.concatenate([boxes, ghosts])
    return _coloured(canvas, random), boxes


def composed(pictures: list[Picture], size: Size, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A new picture and its boxes before mixing and colours: one picture or, half of the time, a mosaic of four."""
    wide, high = size
    canvas = np.full((high, wide, 3), GREY, np.uint8)
    boxes: list[np.ndarray] = [np.zeros((0, 6), np.float32)]
    mosaic = random.random() < 0.5
    x, y = (int(v) for v in random.uniform(0.25, 0.75, 2) * size) if mosaic else size
    for left, top, right, bottom in ((0, 0, x, y), (x, 0, wide, y), (0, y, x, high), (x, y, wide, high)):
        if right <= left or bottom <= top:
            continue
        picture = pictures[random.integers(len(pictures))]
        height, width = picture.pixels.shape[:2]
        zoom = np.exp(random.uniform(-0.75, 0.55)) if mosaic else np.exp(random.uniform(-0.35, 0.6))
        stretch = np.exp(random.uniform(-0.15, 0.15))
        fit = _fit(picture, size) * zoom
        scale = float(fit * stretch), float(fit / stretch)
        # room to spare: anywhere inside the tile; too little: any crop
        room = right - left - width * scale[0], bottom - top - height * scale[1]
        offset = left + float(room[0] * random.random()), top + float(room[1] * random.random())
        _tile(canvas, boxes, picture, (left, top, right, bottom), scale, offset, random.random() < 0.5)
    return canvas, np.concatenate(boxes)


def _tile(
    canvas: np.ndarray,
    boxes: list[np.ndarray],
    picture: Picture,
    area: tuple[int, int, int, int],
    scale: tuple[float, float],
    offset: tuple[float, float],
    mirror: bool,
) -> None:
    """Draw `picture` into `area` (x1, y1, x2, y2) of `canvas`, scaled, its top left at `offset`; append its boxes,
    cut at the area. A box of which less than a third is left is dropped.
    """
    x1, y1, x2, y2 = area
    pixels, width = picture.pixels, picture.pixels.shape[1]
    # pixel centres: new + 0.5 = (old + 0.5) * scale + offset
    shift = [(0.5 * s) + o - 0.5 for s, o in zip(scale, offset, strict=True)]
    matrix = np.array([[scale[0], 0, shift[0] - x1], [0, scale[1], shift[1] - y1]])
    if mirror:
        matrix[0] = [-scale[0], 0, shift[0] - x1 + (width - 1) * scale[0]]
    canvas[y1:y2, x1:x2] = cv2.warpAffine(
        pixels, matrix, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR, borderValue=(GREY, GREY, GREY)
    )
    if not len(picture.boxes):
        return
    moved = picture.boxes.copy()
    if mirror:
        moved[:, [0, 2]] = width - moved[:, [2, 0]]
    moved[:, :4] = moved[:, :4] * np.tile(scale, 2) + np.tile(offset, 2)
    before = np.prod(moved[:, 2:4] - moved[:, :2], 1)
    moved[:, [0, 2]] = moved[:, [0, 2]].clip(x1, x2)
    moved[:, [1, 3]] = moved[:, [1, 3]].clip(y1, y2)
    boxes.append(moved[np.prod(moved[:, 2:4] - moved[:, :2], 1) * 3 > before])


def _coloured(pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and a cast for every picture; blur or noise for some."""
    saturation = 0.0 if random.random() < 0.04 else random.uniform(0.4, 1.5)
    matrix = np.eye(3) * saturation + (1 - saturation) / 3
    contrast = random.uniform(0.65, 1.35)
    mean = float(pixels.mean())
    offset = mean * (random.uniform(0.6, 1.4) - contrast)
    matrix = np.concatenate([matrix * contrast, np.full((3, 1), offset)], 1) * random.uniform(0.88, 1.12, (3, 1))
    pixels = cv2.transform(pixels, matrix)
    if random.random() < 0.15:
        pixels = cv2.blur(pixels, (3, 3)) if random.random() < 0.7 else cv2.blur(pixels, (5, 5))
    if random.random() < 0.15:
        noise = random.standard_normal(pixels.shape, np.float32) * np.float32(random.uniform(1, 12))
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    return pixels
