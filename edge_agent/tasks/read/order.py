"""In which order the lines of a page are read: column by column where there are columns, else row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

Numbers: TypeAlias = npt.NDArray[np.int64]
"""of boxes"""

GUTTER = 1.0
"""times the thickness of a line that is free between two columns"""
FAR = 2.0
"""times the thickness of a line that ends a column"""
PROSE = 5.0
"""times as long as thick is the usual line of a column; a table has shorter ones, and goes by rows"""


def in_order(boxes: Floats) -> list[int]:
    """The numbers of boxes, (n, 4) left, top, right, bottom, as they are read.

    The page falls into bands that no line crosses. Bands in a row that share a gutter are columns, read one by one;
    what stands above and below, such as a heading, comes before and after.
    """
    return [int(i) for i in _read(boxes, np.arange(len(boxes)))]


def _read(boxes: Floats, among: Numbers) -> Iterator[int]:
    bands = _bands(boxes, among)
    at = 0
    while at < len(bands):
        split, end = _split(boxes, bands, at)
        if split:
            for column in split:
                yield from _read(boxes, column)
        else:
            yield from _rows(boxes, bands[at])
        at = end


def _split(boxes: Floats, bands: list[Numbers], at: int) -> tuple[tuple[Numbers, Numbers] | None, int]:
    """The columns of as many bands from the one `at` on as share a gutter, None for no columns; and the band behind."""
    split, end = None, at + 1
    for stop in range(at + 1, len(bands) + 1):
        wider = _columns(boxes, np.concatenate(bands[at:stop]))
        far = stop > at + 1 and _is_far(boxes, np.concatenate(bands[at : stop - 1]), bands[stop - 1])
        if far or (wider is None and (split or stop > at + 1)):
            break
        split, end = wider or split, stop if wider else end
    return split, end


def _is_far(boxes: Floats, above: Numbers, below: Numbers) -> bool:
    """Whether a line of the band below stands so far under those above that it belongs to no column of theirs."""
    thick = FAR * np.median(boxes[above, 3] - boxes[above, 1])
    for left, top, right, _ in boxes[below]:
        over = above[(boxes[above, 0] < right) & (boxes[above, 2] > left)]
        if len(over) and top - boxes[over, 3].max() > thick:
            return True
    return False


def _bands(boxes: Floats, among: Numbers) -> list[Numbers]:
    """The lines in groups from the top down, between which no line reaches."""
    order = among[np.argsort(boxes[among, 1], kind="stable")]
    ends = np.maximum.accumulate(boxes[order, 3])
    # letters reach a little into the line above
    slack = 0.2 * np.median(boxes[among, 3] - boxes[among, 1]) if len(among) else 0
    return np.split(order, np.flatnonzero(boxes[order[1:], 1] >= ends[:-1] - slack) + 1) if len(order) else []


def _columns(boxes: Floats, among: Numbers) -> tuple[Numbers, Numbers] | None:
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


def _rows(boxes: Floats, among: Numbers) -> Iterator[int]:
    """Row by row, each from the left: a line belongs to a row where its middle is above the foot of the first of it."""
    middles = (boxes[:, 1] + boxes[:, 3]) / 2
    left = among[np.argsort(middles[among], kind="stable")]
    while len(left):
        is_in = middles[left] <= max(boxes[left[0], 3], middles[left[0]])
        row, left = left[is_in], left[~is_in]
        yield from row[np.argsort(boxes[row, 0], kind="stable")]
