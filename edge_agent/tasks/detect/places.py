"""Which boxes are where the things in a picture are known to be."""

from __future__ import annotations

import numpy as np

from edge_agent.samples.carried import Scene, thing_of
from edge_agent.types import Detections, Floats

OVERLAP = 0.5
"""IoU with where the thing is from which on a box is a find"""
FIRST = 10
"""of the best boxes of a picture, those that may be a find where classes have no names that are known"""
SURE = 0.25
"""score of a find that counts against a reading where it is in the wrong place"""


def in_places(found: list[Detections], proofs: list[Scene], known: list[str]) -> tuple[dict[str, list[float]], int]:
    """Name -> score in each picture of what is found where that thing is (0: it is not), and how many sure finds are
    elsewhere. Of the things that are `known`; where none is, of whatever class.
    """
    scores: dict[str, list[float]] = {}
    wrong = 0
    for what, scene in zip(found, proofs, strict=True):
        for thing, where in scene.things:
            if thing in known:
                score, placed = _thing(what, thing, where)
                wrong += score >= SURE and not placed
                scores.setdefault(thing, []).append(score * placed)
            elif not known:
                score, name = there(what, where)
                scores.setdefault(name or thing, []).append(score)
    return scores, wrong


def _thing(what: Detections, thing: str, where: Floats) -> tuple[float, bool]:
    """Score of the best box of this name, and whether it is in its place.

    Only the best one: wrongly placed boxes are many, and one of them lies anywhere.
    """
    for box, score, label in zip(what.xyxy, what.score, what.label, strict=True):
        if thing_of(what.names[int(label)]) == thing:
            return float(score), iou(box, where) >= OVERLAP
    return 0.0, False


def there(what: Detections, where: Floats) -> tuple[float, str]:
    """Score and name of the best box that is in this place, of the first ones; (0, "") for none."""
    for box, score, label in list(zip(what.xyxy, what.score, what.label, strict=True))[:FIRST]:
        if iou(box, where) >= OVERLAP:
            return float(score), what.names[int(label)]
    return 0.0, ""


def iou(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes left, top, right, bottom."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-9)
