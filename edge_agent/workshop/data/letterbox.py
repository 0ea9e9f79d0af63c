"""Pictures that were letterboxed before they came here: they are found by their border and refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError
from edge_agent.manifest import Input
from edge_agent.types import Frame
from edge_agent.workshop.data.feed import Item

BAR = 0.04
"""share of a side that a border of one grey takes at least, to be called one"""
GREYS = (24, 235)
"""greys between which a border is no black bar and no white background"""


def refuse_letterboxed(items: Sequence[Item], spec: Input, data: Path) -> None:
    """InputError where most pictures are squares (or of the network's size) with a border of one and the same grey.

    The agent would put a border around the border, and the network would be calibrated on what it never sees.
    """
    frames = [item for item in items if isinstance(item, Frame)]
    greys = _greys(frames, (spec.width, spec.height))
    if greys and len(greys) > len(frames) / 2 and np.ptp(greys) <= 6:
        raise InputError(
            f"{data}: {len(greys)} of {len(frames)} pictures have a border of grey {np.median(greys):.0f}: they were "
            "letterboxed before, not as the agent does it; give them as they come from the camera"
        )


def _greys(frames: list[Frame], size: tuple[int, int]) -> list[float]:
    """The grey of each border, black and white ones left out, of the pictures that are squares or of `size`."""
    fitting = [f for f in frames if f.width == f.height or (f.width, f.height) == size]
    borders = [border(frame.image) for frame in fitting]
    return [grey for grey in borders if grey is not None and GREYS[0] < grey < GREYS[1]]


def border(image: npt.NDArray[np.uint8]) -> float | None:
    """The grey of a border of one colour that takes more than BAR of one side; None where there is none."""
    for turned in (image, image[::-1], image.transpose(1, 0, 2), image.transpose(1, 0, 2)[::-1]):
        lines = turned[: max(2, int(np.ceil(len(turned) * BAR)))].reshape(-1, 3).astype(np.int16)
        # JPEG makes a grey waver
        if np.ptp(lines) <= 8:
            return float(lines.mean())
    return None
