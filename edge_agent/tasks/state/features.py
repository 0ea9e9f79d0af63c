"""What a network makes of a part of a picture, in a few hundred numbers.

The network is a detector that is stopped before its tail: its maps say how strongly it sees each of its things, and how
large, at each place. Of each map the largest number counts: over the whole of it, and over each of its quarters, which
tells where.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, RefusedError
from edge_agent.manifest import Input
from edge_agent.pictures.boxes import preparer
from edge_agent.types import Floats, Net, Pixels

Region = tuple[float, float, float, float]
"""left, top, right, bottom in fractions of the picture"""
WHOLE: Region = (0.0, 0.0, 1.0, 1.0)
LEAST = 8
"""pixels of a side of a region"""


def cut(image: Pixels, region: Region) -> Pixels:
    """The part of a picture, as a view. InputError where it has too few pixels."""
    height, width = image.shape[:2]
    left, right = round(region[0] * width), round(region[2] * width)
    top, bottom = round(region[1] * height), round(region[3] * height)
    if right - left < LEAST or bottom - top < LEAST:
        size = f"{right - left}x{bottom - top} of a picture of {width}x{height} pixels"
        raise InputError(f"the region is {size}: {LEAST} a side is the least")
    return image[top:bottom, left:right]


def reader(net: Net, picture: Input) -> Callable[[Pixels], Floats]:
    """A function from a picture to its features, (d,) float32; of one thread at a time, InputError for numbers that are
    not finite. RefusedError for a network that gives no maps.
    """
    prepare = preparer(picture, net.inputs[0])
    if any(len(spec.shape) != 4 for spec in net.outputs):
        raise RefusedError("its outputs are no maps; teach the state anew")

    def read(image: Pixels) -> Floats:
        tensor, _ = prepare(image)
        return pooled(net.run({net.inputs[0].name: tensor}))

    return read


def pooled(maps: dict[str, npt.NDArray[Any]]) -> Floats:
    """The features of maps (1, channels, height, width), in the order of their names."""
    found = []
    for name in sorted(maps):
        one = maps[name][0]
        high, wide = (max(1, side // 2) for side in one.shape[1:])
        parts = one, one[:, :high, :wide], one[:, :high, -wide:], one[:, -high:, :wide], one[:, -high:, -wide:]
        found += [part.max(axis=(1, 2)) for part in parts]
    features: Floats = np.concatenate(found).astype(np.float32)
    if not np.isfinite(features).all():
        raise InputError("the network gave numbers that are not finite (NaN or infinity); the result is refused")
    return features
