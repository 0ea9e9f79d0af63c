"""Pictures of a scene with a gate, drawn into a carried picture: shut, or open."""

from __future__ import annotations

import cv2
import numpy as np

from edge_agent.pictures.read import read_picture
from edge_agent.types import Pixels
from tests.conftest import ROOT

REGION = (0.1, 0.2, 0.5, 0.8)
"""where the gate is"""


def gate(state: str, number: int) -> Pixels:
    """One picture, in daylight of its own."""
    rng = np.random.default_rng(1000 * len(state) + number)
    picture = read_picture(ROOT / "deploy" / "demo" / "coffee.png").image[:240, :320].copy()
    left, right = 60, 140 if state == "shut" else 72
    for bar in range(9):
        x = round(left + (right - left) * bar / 8)
        cv2.line(picture, (x, 70), (x, 170), (30, 30, 30), 3)
    for y in (70, 120, 170):
        cv2.line(picture, (left, y), (right, y), (30, 30, 30), 3)
    lit = picture * rng.uniform(0.6, 1.2) + rng.normal(0, 4, picture.shape)
    return np.asarray(np.clip(lit, 0, 255), np.uint8)
