"""Which boxes belong together: how far they overlap, which labels are alike, and the best pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]

GROW = 0.5
"""share of its sides by which a box grows on each side before it is compared"""
NEVER, MOST_PAIRS = -9.0, 50_000
"""worth of a pair that cannot be; pairs of objects and boxes that are looked at in a crowd, best first"""

LIKE = (
    "car truck bus van train lorry",
    "bicycle motorcycle motorbike scooter",
    "cat dog sheep cow horse bear fox",
    "bottle cup wine_glass vase",
    "bowl cup",
    "couch chair bed bench",
    "backpack handbag suitcase",
    "tv laptop",
)
"""labels between which a detector flickers on one thing; a _ is a space"""


def kinds_of(names: Mapping[int, str]) -> Numbers:
    """Class id -> bits of the groups of LIKE that it is in."""
    groups = [{word.replace("_", " ") for word in group.split()} for group in LIKE]
    kinds = np.zeros(max(names, default=0) + 1, np.int64)
    for key, name in names.items():
        kinds[key] = sum(1 << at for at, group in enumerate(groups) if name.casefold() in group)
    return kinds


def overlap(a: Array, b: Array) -> Array:
    """(n, 4) and (m, 4), centre and sides -> (n, m) intersection over union once they are grown."""
    both: Array | float = 1.0
    for axis in (0, 1):
        half_a, half_b = a[:, 2 + axis] * (0.5 + GROW), b[:, 2 + axis] * (0.5 + GROW)
        reach = np.add.outer(half_a, half_b)
        reach -= np.abs(np.subtract.outer(a[:, axis], b[:, axis]))
        np.minimum(reach, 2 * np.minimum.outer(half_a, half_b), out=reach)
        both = both * np.maximum(reach, 0, out=reach)
    areas_a, areas_b = a[:, 2] * a[:, 3], b[:, 2] * b[:, 3]
    whole = np.add.outer(areas_a, areas_b) * (1 + 2 * GROW) ** 2 - both
    return np.asarray(both / np.maximum(whole, 1e-9), np.float64)


def match(worth: Array) -> tuple[Numbers, Numbers]:
    """Rows and columns that belong together: the best pair first, then the best of what is left, and so on."""
    rows, columns = np.nonzero(worth > NEVER)
    best = np.argsort(-worth[rows, columns], kind="stable")[:MOST_PAIRS]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(rows[best].tolist(), columns[best].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return np.array([*pairs], np.int64), np.array([*pairs.values()], np.int64)
