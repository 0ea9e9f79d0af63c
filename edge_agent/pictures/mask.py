"""Parts of a picture that nobody is to see."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from edge_agent.pictures.read import cv2
from edge_agent.types import Frame

Corners = Sequence[tuple[float, float]]


def masker(areas: Sequence[Corners]) -> Callable[[Frame], Frame]:
    """-> a frame with these areas black. Corners are fractions of its width and height.

    A pixel that an edge goes through is black, too.
    """

    def mask(frame: Frame) -> Frame:
        image = frame.image.copy()
        sides = np.array([frame.width - 1, frame.height - 1])
        for area in areas:
            cv2.fillPoly(image, [np.rint(np.asarray(area) * sides).astype(np.int32)], (0, 0, 0))
        return msgspec.structs.replace(frame, image=image)

    return mask
