"""Decoders of distributions over distances: NanoDet and PicoDet. The contract stands in families/yolo.py."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.families.candidates import (
    STRIDES,
    Array,
    Candidates,
    HeadLayout,
    Outputs,
    candidates,
    finite,
    grid,
    points,
)
from edge_agent.families.outputs import rows_of, volume


def nanodet(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Distribution head: class scores (sigmoided), then B logits for each of the distances left, top, right, bottom.

    [1, C+4*B] for each of N cells, the last two axes in either order; or each level in a tensor of its own, as rows or
    as a map; or in two, the classes and the distances. A distance is the mean of 0..B-1 under the softmax of its
    logits, in strides (Li et al., Generalized Focal Loss, arXiv 2006.04388). With strides 8 to 64 (NanoDet-Plus) a
    point is its cell's corner, with 8 to 32 (NanoDet) its centre.
    """
    rows, strides = distributions(outputs, head)
    return _by_bins(rows, strides, 0.0 if strides == STRIDES[1] else 0.5, head, threshold)


def picodet(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """As `nanodet`, with strides 8 to 64 and each point its cell's centre (Yu et al., PP-PicoDet, arXiv 2111.00902)."""
    rows, strides = distributions(outputs, head)
    return _by_bins(rows, strides, 0.5, head, threshold)


def _by_bins(rows: Array, strides: tuple[int, ...], shift: float, head: HeadLayout, threshold: float) -> Candidates:
    """Rows (N, C+4*B) of classes and distributions, of points that lie `shift` within their cells."""
    bins, rest = divmod(rows.shape[1] - head.classes, 4)
    if rest or bins < 2:
        raise RefusedError(
            f"the head gives {rows.shape[1]} numbers a cell, not {head.classes} classes and 4 times some bins; "
            "correct family or labels in the manifest"
        )
    cells, stride = grid(head.width, head.height, strides)
    best = rows[:, : head.classes].max(axis=1)
    finite(best)
    keep = np.flatnonzero(best >= threshold)
    logits = rows[keep, head.classes :].reshape(-1, 4, bins).astype(np.float32)
    finite(logits)
    weight = np.exp(logits - logits.max(axis=2, keepdims=True))
    reach = (weight @ np.arange(bins, dtype=np.float32)) / weight.sum(axis=2) * stride[keep]
    centre = (cells[keep] + shift) * stride[keep]
    xyxy = np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1)
    return candidates(xyxy, best[keep], rows[keep, : head.classes].argmax(axis=1))


def distributions(outputs: Outputs, head: HeadLayout) -> tuple[Array, tuple[int, ...]]:
    """The rows (N, C+4*B) of all cells, and the strides of their levels."""
    for turned in (False, True):
        levels = _levels(outputs, head, turned) if len(outputs) > 1 else {}
        if tuple(levels) in STRIDES and len({sum(part.shape[1] for part in parts) for parts in levels.values()}) == 1:
            return np.concatenate([np.concatenate(parts, axis=1) for parts in levels.values()]), tuple(levels)
    return _of_one(volume(outputs), head)


def _of_one(whole: Array, head: HeadLayout) -> tuple[Array, tuple[int, ...]]:
    """The same of one tensor [1, cells, C+4*B] or [1, C+4*B, cells]."""
    counts = {count: strides for strides in STRIDES if (count := points(head, strides)) in whole.shape[1:]}
    if not counts:
        raise RefusedError(f"the head gives {list(whole.shape)}, no axis of it counts the cells of the input")
    n = max(counts)
    return rows_of(whole, whole.shape[1] if whole.shape[2] == n else whole.shape[2]), counts[n]


def _levels(outputs: Outputs, head: HeadLayout, turned: bool) -> dict[int, list[Array]]:
    """Stride -> the rows of its cells in each of the tensors that are of this level, classes first; finest level first.

    `turned`: rows or maps whose cells come last. Empty where a tensor is of no level.
    """
    sides = {stride: (-(-head.height // stride), -(-head.width // stride)) for stride in (8, 16, 32, 64)}
    found: dict[int, list[Array]] = {}
    for array in outputs.values():
        place = array.shape[2:] if turned else array.shape[1:-1]
        stride = next((s for s, (high, wide) in sides.items() if place in ((high, wide), (high * wide,))), 0)
        if not stride:
            return {}
        rows = array[0].reshape(array.shape[1], -1).T if turned else array[0].reshape(-1, array.shape[-1])
        found.setdefault(stride, []).append(rows)
    for parts in found.values():
        # where there are as many numbers for the distances, scores are those that are never below 0
        parts.sort(key=lambda rows: (rows.shape[1] != head.classes, bool(rows.min() < 0)))
    return dict(sorted(found.items()))
