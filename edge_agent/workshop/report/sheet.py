"""The worst cases side by side: pictures with a line under each, as one JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_agent.pictures.draw import save_jpeg
from edge_agent.pictures.read import cv2, read_picture
from edge_agent.types import Pixels
from edge_agent.workshop.data.labelled import LabelledSample
from edge_agent.workshop.imagine import tiled

MOST = 12
"""pictures"""
WIDE, HIGH, LINE = 320, 240, 24
"""pixels of each one, and of the line under it"""


def sheet(path: Path, shown: Sequence[tuple[LabelledSample, str]]) -> None:
    """Write the pictures with their captions; no file for none. UsageError when it cannot be written."""
    if shown:
        save_jpeg(tiled([_tile(row, caption) for row, caption in shown]), path)


def _tile(row: LabelledSample, caption: str) -> Pixels:
    assert isinstance(row.what, Path)
    image = read_picture(row.what).image
    share = min(WIDE / image.shape[1], HIGH / image.shape[0])
    small = cv2.resize(image, (max(1, int(image.shape[1] * share)), max(1, int(image.shape[0] * share))))
    tile: Pixels = np.full((HIGH + LINE, WIDE, 3), 255, np.uint8)
    tile[: small.shape[0], : small.shape[1]] = small
    plain = caption.encode("ascii", "replace").decode()[:48]
    cv2.putText(tile, plain, (4, HIGH + LINE - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return tile
