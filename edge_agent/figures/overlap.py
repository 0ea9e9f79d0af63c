"""How far two lists of boxes are the same."""

from __future__ import annotations

from collections.abc import Sequence

OVERLAP = 0.5
"""of two boxes that are of one thing"""
Row = tuple[str, Sequence[float]]
"""label; left, top, right, bottom"""


def shared(mine: Sequence[Row], theirs: Sequence[Row]) -> float:
    """2 matched / all of both: 1 where both are the same (or empty), 0 where nothing is."""
    return 2 * matched(mine, theirs) / (len(mine) + len(theirs)) if mine or theirs else 1.0


def matched(mine: Sequence[Row], theirs: Sequence[Row]) -> int:
    """How many of mine are of one thing with one of theirs, each with another one."""
    left, count = list(theirs), 0
    for label, box in mine:
        best = max((row for row in left if row[0] == label), key=lambda row: overlap(box, row[1]), default=None)
        if best is not None and overlap(box, best[1]) >= OVERLAP:
            left.remove(best)
            count += 1
    return count


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0.0, wide) * max(0.0, high)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - inside
    return float(inside / whole) if whole > 0 else 0.0
