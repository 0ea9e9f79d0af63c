"""``crop:?grow=0.1&least=16``: what a detector found in a Frame -> a Frame of each box, for the task behind it.

It runs no model, so there is nothing to prove or to compare, and nothing of its own to show: what the task behind it
finds is shown, under the name of the picture and the place of the box in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, ModelError
from edge_agent.types import Detections, Finding, Frame, Task
from edge_agent.uri import Uri, option

OPTIONS = {"grow": "0", "least": "16"}
"""share of its sides by which a box grows on each side; pixels that a side has at least"""
MOST = {"grow": 1.0, "least": 8192.0}


class Crop(msgspec.Struct):
    """The task."""

    grow: float
    least: float
    takes: tuple[type, ...] = (Finding,)
    gives: type = Frame

    def __call__(self, item: Finding) -> Iterator[Frame]:
        """A Frame of each box, best score first; its name says what of, and where. ModelError for what is no boxes."""
        frame, what = item.of, item.what
        if not isinstance(frame, Frame) or not isinstance(what, Detections):
            raise ModelError(f"crop takes boxes in pictures, not {type(what).__name__} of {frame.words}")
        reach = np.tile((what.xyxy[:, 2:] - what.xyxy[:, :2]) * self.grow, 2) * [-1, -1, 1, 1]
        corners = np.rint(what.xyxy + reach).astype(int).clip(0, [frame.width, frame.height] * 2)
        for (left, top, right, bottom), label in zip(corners.tolist(), what.label.tolist(), strict=True):
            if min(right - left, bottom - top) < max(self.least, 1):
                continue
            name = f"{what.names.get(label, label)} {left},{top},{right},{bottom}"
            name, cut = f"{frame.name}#{name}" if frame.name else name, (frame.cut[0] + left, frame.cut[1] + top)
            image = frame.image[top:bottom, left:right].copy()
            yield msgspec.structs.replace(frame, image=image, name=name, cut=cut)


def crop(uri: Uri, model: None, home: Path) -> Task:
    """Make the task. ConfigError for its options."""
    if uri.rest:
        raise ConfigError(f'"{uri}": crop runs no model; name "{uri.rest}" in the task behind it')
    return Crop(_number(uri, "grow"), _number(uri, "least"))


def _number(uri: Uri, key: str) -> float:
    text = option(uri, OPTIONS, key)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= MOST[key]:
        raise ConfigError(f'"{uri}": {key}={text} is no number from 0 to {MOST[key]:g}; write one')
    return value
