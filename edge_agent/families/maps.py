"""Decoders of networks that were stopped before their tail (graphs/cut.py): maps instead of rows.

Each level of the head gives its last convolution as it is, [1, channels, rows, columns], with logits where a whole
network gives probabilities. The threshold is asked as a logit, once a cell, and only what passes is ever decoded. The
outputs' names say what they are: ``boxes0``, ``classes0``, ``objects0`` of the finest level, or ``all0`` where one map
holds everything; ``anchors`` where the family needs them. The same contract as in families/yolo.py.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache

import numpy as np

from edge_agent.families.candidates import (
    Array,
    Candidates,
    HeadLayout,
    Outputs,
    around,
    candidates,
    finite,
    grid,
    reached,
    sigmoid,
)


def distances(outputs: Outputs, head: HeadLayout, threshold: float, *, least: float = -np.inf) -> Candidates:
    """boxes [1, 4*B, h, w] and classes [1, C, h, w]: distances left, top, right, bottom from the cell's centre.

    In strides, and not below `least`; with B > 1 a distance is the mean of 0..B-1 under the softmax of its B logits
    (DFL; Li et al., arXiv 2006.04388). YOLOv6, v8, v9, 11, 12, edge-yolo.
    """
    classes, boxes = _maps(outputs, "classes"), _maps(outputs, "boxes")
    keep, score, label = _by_class(classes, threshold)
    reach = np.maximum(_mean(_columns(boxes, keep)), least)
    return candidates(around(reach.T, 0.5, keep, _strides(outputs, head, "classes"), head), score, label)


def nanodet(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """all [1, C + 4*B, h, w], classes first; distances as above. With four levels from the cell's corner."""
    maps, n = _maps(outputs, "all"), head.classes
    keep, score, label = _by_class([level[:n] for level in maps], threshold)
    reach = _mean(_columns([level[n:] for level in maps], keep))
    shift = 0.0 if len(maps) == 4 else 0.5
    return candidates(around(reach.T, shift, keep, _strides(outputs, head, "all"), head), score, label)


def yolox(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """boxes [1, 4, h, w], objects [1, 1, h, w], classes [1, C, h, w]; see `yolo.yolox`."""
    objects, classes, boxes = (_maps(outputs, role) for role in ("objects", "classes", "boxes"))
    keep, score, label = _by_object([level[0] for level in objects], classes, threshold)
    cells, stride = grid(head.width, head.height, _strides(outputs, head, "objects"))
    at, step = _columns(boxes, keep).T, stride[keep]
    with np.errstate(over="ignore"):
        half = np.exp(at[:, 2:]) * (step / 2)
    centre = (at[:, :2] + cells[keep]) * step
    return candidates(np.concatenate([centre - half, centre + half], axis=1), score, label)


def yolov5(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """all [1, A * (5+C), h, w] and anchors, width and height of each in pixels, level by level.

    centre = (2 sigmoid(x) - 0.5 + cell) * stride, size = (2 sigmoid(w))^2 * anchor, score = objectness * class
    (YOLOv5 and v7, `Detect.forward`).
    """
    levels = _maps(outputs, "all")
    anchors = outputs["anchors"].reshape(-1, 2)
    count = len(anchors) // len(levels)
    rows = [row for level in levels for row in level.reshape(count, 5 + head.classes, -1)]
    keep, score, label = _by_object([row[4] for row in rows], [row[5:] for row in rows], threshold)
    strides = _strides(outputs, head, "all")
    cells, stride = grid(head.width, head.height, tuple(stride for stride in strides for _ in range(count)))
    at = sigmoid(_columns([row[:4] for row in rows], keep).T) * 2
    sizes = np.repeat(anchors, [row.shape[1] for row in rows], axis=0)[keep]
    centre, half = (at[:, :2] - 0.5 + cells[keep]) * stride[keep], at[:, 2:] ** 2 * sizes / 2
    return candidates(np.concatenate([centre - half, centre + half], axis=1), score, label)


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────

Part = tuple[Array, Array, Array]
"""indices of cells, their scores, their class indices; cells are counted through all levels, finest first"""


def _maps(outputs: Outputs, role: str) -> list[Array]:
    """A role's map of each level as (C, h * w), views."""
    found: list[Array] = []
    while (array := outputs.get(f"{role}{len(found)}")) is not None:
        found.append(array.reshape(array.shape[1], -1))
    return found


def _strides(outputs: Outputs, head: HeadLayout, role: str) -> tuple[int, ...]:
    rows: tuple[int, ...] = ()
    while (array := outputs.get(f"{role}{len(rows)}")) is not None:
        rows += (array.shape[2],)
    return _powers(head.height, rows)


@lru_cache(maxsize=32)
def _powers(height: int, rows: tuple[int, ...]) -> tuple[int, ...]:
    """The power of two that is nearest to what a row of each level stands for, in pixels."""
    return tuple(1 << round(math.log2(height / count)) for count in rows)


def _by_class(classes: list[Array], threshold: float) -> Part:
    """The cells whose best class (logits (C, n) a level) reaches the threshold."""
    best = np.concatenate([level.max(axis=0) for level in classes])
    keep = reached(best, threshold)
    return keep, sigmoid(best[keep]), _columns(classes, keep).argmax(axis=0)


def _by_object(objects: list[Array], classes: list[Array], threshold: float) -> Part:
    """The cells whose objectness * best class reaches the threshold, both logits: (n,) and (C, n) a level.

    No probability exceeds 1, so objectness alone rules most cells out before their classes are looked at.
    """
    every = np.concatenate(objects)
    keep = reached(every, threshold)
    logits = _columns(classes, keep)
    finite(logits)
    label = logits.argmax(axis=0)
    score = sigmoid(every[keep]) * sigmoid(logits[label, np.arange(len(keep))])
    passed = score >= threshold
    return keep[passed], score[passed], label[passed]


def _columns(maps: list[Array], keep: Array) -> Array:
    """The columns of the cells `keep`, ascending, out of the maps (C, n) of all levels: (C, len(keep))."""
    parts: list[Array] = []
    first, at, cells = 0, 0, keep.tolist()
    for level in maps:
        after = first + level.shape[1]
        end = bisect_left(cells, after, at)
        if end > at or (level is maps[-1] and not parts):
            parts.append(level.take(keep[at:end] - first, axis=1))
        first, at = after, end
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _mean(logits: Array) -> Array:
    """(4 * B, n) -> (4, n): the mean of 0..B-1 under the softmax of B logits; of B = 1 the number itself."""
    bins = logits.reshape(4, len(logits) // 4, logits.shape[1])
    if bins.shape[1] == 1:
        return bins[:, 0]
    weight = np.exp(bins - bins.max(axis=1, keepdims=True))
    mean: Array = np.einsum("sbn,b->sn", weight, np.arange(bins.shape[1], dtype=np.float32)) / weight.sum(axis=1)
    return mean
