"""What a picture looks like from afar: enough to tell scenes apart, and pictures that were letterboxed before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError
from edge_agent.manifest import Input
from edge_agent.pictures.read import cv2
from edge_agent.types import Floats, Frame
from edge_agent.workshop.data.feed import Item

SCENE = 12.0
"""mean difference of grey values, 0..255, of two pictures at 16x16 below which one follows the other in a scene: of a
standing camera's frames it is up to 6 (vtest.avi), of unlike photographs 38 and more (96 of COCO)"""
BAR = 0.04
"""share of a side that a border of one grey takes at least, to be called one"""
GREYS = (24, 235)
"""greys between which a border is no black bar and no white background"""


def look(item: Item) -> Floats | None:
    """A picture as 16x16 grey values, 0..255, each the mean of its cell: (256,) float32; None for a text."""
    if not isinstance(item, Frame):
        return None
    grey = item.image.mean(axis=2, dtype=np.float32)
    found: Floats = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA).ravel()
    return found


def scenes(looks: Sequence[Floats | None]) -> list[list[int]]:
    """Numbers of the samples that follow each other and look alike; one that has no look stands alone."""
    runs: list[list[int]] = []
    for place, own in enumerate(looks):
        before = looks[place - 1] if place else None
        if own is not None and before is not None and float(np.abs(own - before).mean()) < SCENE:
            runs[-1].append(place)
        else:
            runs.append([place])
    return runs


def groups(looks: Sequence[Floats | None]) -> list[list[int]]:
    """What an interval draws together: scenes, long ones in blocks of the root of all samples (Kuensch 1989)."""
    most = max(1, round(len(looks) ** 0.5))
    return [run[start : start + most] for run in scenes(looks) for start in range(0, len(run), most)]


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
