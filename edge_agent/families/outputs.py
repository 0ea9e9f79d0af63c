"""What decoders ask of the outputs: their rows, the unit of their boxes, and what is said of those that do not fit."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.families.candidates import (
    Array,
    HeadLayout,
    Outputs,
)
from edge_agent.types import Floats


def shapes(outputs: Outputs) -> str:
    """Name and shape of each, for a message."""
    return ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())


def volume(outputs: Outputs) -> Array:
    """The one output of three axes (exports may carry raw feature maps beside it)."""
    found = [array for array in outputs.values() if array.ndim == 3]
    if len(found) != 1:
        raise RefusedError(
            f"the head needs one output [1, N, M], but there is {shapes(outputs)}; correct family in the manifest"
        )
    return found[0]


def rows_of(array: Array, columns: int) -> Array:
    """[1, N, columns] or [1, columns, N] -> (N, columns), a view."""
    if array.ndim != 3 or array.shape[0] != 1 or columns not in array.shape[1:]:
        raise RefusedError(
            f"the head gives {list(array.shape)}, but its family and its labels ask for [1, N, {columns}]; "
            "correct family or labels in the manifest"
        )
    rows: Array = array[0] if array.shape[2] == columns else array[0].T
    return rows


def pixels(coordinates: Array, head: HeadLayout) -> Floats:
    """What (n, 4) x, y, width, height have to be multiplied by to be pixels: 1, or the canvas.

    A head gives a box for every cell of its grid, so in pixels the largest coordinate is near the canvas's size,
    and in 0..1 it never reaches 2. A look at some hundred rows is enough.
    """
    if coordinates[:: max(1, len(coordinates) // 256)].max(initial=0.0) > 2:
        return np.ones(4, np.float32)
    return np.array([head.width, head.height] * 2, np.float32)


def table(outputs: Outputs, width: int) -> Array:
    """The one output that is a table of `width` columns, whatever axes of 1 stand before it, or the same turned:
    (N, width).
    """
    found = [array for array in outputs.values() if array.ndim > 1 and width in array.shape[-2:]]
    if len(found) != 1 or any(axis != 1 for axis in found[0].shape[:-2]):
        raise RefusedError(f"its family and its labels ask for rows of {width} numbers, but there is {shapes(outputs)}")
    flat: Array = found[0].reshape(found[0].shape[-2:])
    return flat if flat.shape[1] == width else flat.T


def corners(centre: Array, size: Array) -> Array:
    """Centre and size (n, 2) -> left, top, right, bottom (n, 4)."""
    half = size / 2
    return np.concatenate([centre - half, centre + half], axis=1)
