"""Pictures of text, made with the letters that cv2 brings."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_agent.types import Pixels


def page(lines: Sequence[str], size: float = 0.9, margin: int = 20, paper: int = 250, ink: int = 20) -> Pixels:
    """Dark lines on light paper, one below the other."""
    thick = max(1, round(2 * size))
    sizes = [cv2.getTextSize(line, cv2.FONT_HERSHEY_SIMPLEX, size, thick)[0] for line in lines]
    high = round(1.8 * max(height for _, height in sizes))
    image = np.full((high * len(lines) + 2 * margin, max(width for width, _ in sizes) + 2 * margin, 3), paper, np.uint8)
    for number, line in enumerate(lines):
        at = (margin, margin + round(high * (number + 0.75)))
        cv2.putText(image, line, at, cv2.FONT_HERSHEY_SIMPLEX, size, (ink,) * 3, thick, cv2.LINE_AA)
    return image
