"""In which order the lines of a page are read: column by column where there are columns, else row by row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edge_agent.types import Floats

GUTTER = 1.0
"""times the thickness of a line that is free between two columns"""
PROSE = 5.0
"""times as long as thick is the usual line of a column; a table has shorter ones, and goes by rows"""


def in_order(boxes: Floats) -> list[int]:
    """The numbers of boxes, (n, 4) left, top, right, bottom, as they are read.

    The page falls into bands that no line crosses. Bands in a row that share a gutter are columns, read one by one;
    what stands above and below, such as a heading, comes before and after.
    """
    return [int(i) for i in _read(boxes, np.arange(len(boxes)))]


def _read(boxes: Floats, among: np.ndarray) -> Iterator[int]:
    bands = _bands(boxes, among)
    at = 0
    while at < len(bands):
        split, end = None, at + 1
        for stop in range(at + 1, len(bands) + 1):
            wider = _columns(boxes, np.concatenate(bands[at:stop]))
            if wider is None and (split or stop > at + 1):
                break
            split, end = wider or split, stop if wider else end
        if split:
            for column in split:
                yield from _read(boxes, column)
        else:
            yield from _rows(boxes, bands[at])
        at = end


def _bands(boxes: Floats, among: np.ndarray) -> list[np.ndarray]:
    """The lines in groups from the top down, between which no line reaches."""
    order = among[np.argsort(boxes[among, 1], kind="stable")]
    ends = np.maximum.accumulate(boxes[order, 3])
    # letters reach a little into the line above
    slack = 0.2 * np.median(boxes[among, 3] - boxes[among, 1]) if len(among) else 0
    return np.split(order, np.flatnonzero(boxes[order[1:], 1] >= ends[:-1] - slack) + 1) if len(order) else []


def _columns(boxes: Floats, among: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What lies left and right of a gutter; None where there is none, or a side of it is no column."""
    order = among[np.argsort(boxes[among, 0], kind="stable")]
    ends = np.maximum.accumulate(boxes[order, 2])
    thick = boxes[:, 3] - boxes[:, 1]
    gaps = boxes[order[1:], 0] - ends[:-1]
    for cut in np.flatnonzero(gaps >= GUTTER * np.median(thick[among])) + 1:
        sides = order[:cut], order[cut:]
        long = [np.median((boxes[side, 2] - boxes[side, 0]) / thick[side]) for side in sides]
        if min(map(len, sides)) >= 2 and min(long) >= PROSE:
            return sides
    return None


def _rows(boxes: Floats, among: np.ndarray) -> Iterator[int]:
    """Row by row, each from the left: a line belongs to a row where its middle lies within the first line of it."""
    middles = (boxes[:, 1] + boxes[:, 3]) / 2
    left = list(among[np.argsort(middles[among], kind="stable")])
    while left:
        first = left[0]
        row = [
            i
            for i in left
            if middles[i] <= max(boxes[first, 3] - 0.3 * (boxes[first, 3] - boxes[first, 1]), middles[first])
        ]
        yield from sorted(row, key=lambda i: boxes[i, 0])
        left = [i for i in left if i not in row]
