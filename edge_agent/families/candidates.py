"""What all decoders share: the head that they read, the candidates that they give, the cells of its grid."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, RefusedError
from edge_agent.types import Floats, Ints

Array = npt.NDArray[Any]
Outputs = Mapping[str, Array]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (16, 32))
"""of the levels of a head, the usual ones first"""
AWAY = np.array([-1, -1, 1, 1], np.float32)
"""where left, top, right and bottom lie from a point"""


class HeadLayout(msgspec.Struct, frozen=True):
    """What a decoder knows of the network besides its outputs."""

    width: int
    """of the canvas, pixels"""
    height: int
    classes: int
    """how many the head tells apart"""


class Candidates(msgspec.Struct, frozen=True):
    """n boxes that reach the threshold, in no order."""

    xyxy: Floats
    """(n, 4) float32, pixels of the canvas, not clipped"""
    score: Floats
    """(n,) float32"""
    label: Ints
    """(n,) class index of the head"""


Decoder = Callable[[Outputs, HeadLayout, float], Candidates]


@functools.lru_cache(maxsize=32)
def grid(width: int, height: int, strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Cell column and row (N, 2) and stride (N, 1) of each point: levels in order, cells row-major.

    A cell that the edge of the canvas cuts off counts, as a padded convolution keeps it.
    """
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)].astype(np.float32)
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        steps.append(np.full((rows.size, 1), stride, np.float32))
    return np.concatenate(cells), np.concatenate(steps)


@functools.lru_cache(maxsize=32)
def anchors(width: int, height: int, strides: tuple[int, ...], shift: float) -> tuple[Floats, Floats]:
    """Point x, y, x, y (N, 4) in pixels, `shift` within its cell, and what a distance of one stride left, top, right
    and bottom adds to it (N, 4), ordered as in `grid`.
    """
    cells, stride = grid(width, height, strides)
    return np.tile((cells + np.float32(shift)) * stride, 2), stride * AWAY


def around(reach: Array, shift: float, keep: Array, strides: tuple[int, ...], head: HeadLayout) -> Array:
    """Distances left, top, right, bottom (n, 4) in strides from the points of the cells `keep` -> the same as
    coordinates in pixels.
    """
    point, away = anchors(head.width, head.height, strides, shift)
    xyxy: Array = point.take(keep, axis=0) + reach * away.take(keep, axis=0)
    return xyxy


def points(head: HeadLayout, strides: tuple[int, ...]) -> int:
    """How many cells the levels of these strides have together."""
    return sum(-(-head.width // s) * -(-head.height // s) for s in strides)


def bar(threshold: float) -> float:
    """The logit of a score: what passes `threshold` behind a sigmoid passes this before it."""
    return math.log(threshold / (1 - threshold)) if 0 < threshold < 1 else math.inf * (threshold - 0.5)


def sigmoid(logits: Array) -> Array:
    """1 / (1 + exp(-x)), float32; written with tanh, as that never overflows."""
    scores: Array = np.tanh(logits.astype(np.float32, copy=False) * np.float32(0.5))
    scores *= np.float32(0.5)
    scores += np.float32(0.5)
    return scores


def reached(best: Array, threshold: float) -> Array:
    """Indices of the logits (N,) whose score reaches the threshold. InputError where one is NaN or infinite."""
    finite(best)
    found: Array = (best >= bar(threshold)).nonzero()[0]
    return found


def candidates(xyxy: Array, score: Array, label: Array) -> Candidates:
    """Columns of the right type. RefusedError for scores that are no probabilities; a quantized one may exceed 1."""
    finite(xyxy)
    highest = score.max(initial=0)
    if highest > 1.5:
        raise RefusedError(
            f"the head gives scores up to {highest:.3g} where 0..1 is meant: it is of another family, "
            "or was exported without its sigmoid"
        )
    if highest > 1:
        score = np.minimum(score, 1)
    return Candidates(
        xyxy.astype(np.float32, copy=False), score.astype(np.float32, copy=False), label.astype(np.int32, copy=False)
    )


def finite(array: Array) -> None:
    """InputError if a number in it is NaN (which is then its maximum, too) or infinite."""
    if not (array.max(initial=0) < math.inf and array.min(initial=0) > -math.inf):
        raise InputError("the network gave numbers that are not finite (NaN or infinity); the result is refused")
