"""Decoders of networks that were stopped before their tail (backends/cut.py): maps instead of rows.

Each level of the head gives its last convolution as it is, [1, channels, rows, columns], with logits where a whole
network gives probabilities. The threshold is asked as a logit, once a cell, and only what passes is ever decoded. The
outputs' names say what they are: ``boxes0``, ``classes0``, ``objects0`` of the finest level, or ``all0`` where one map
holds everything; ``anchors`` where the family needs them. The same contract as in yolo.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from edge_agent.tasks.candidates import Array, Candidates, Family, Head, Outputs, bar, candidates, finite, grid, sigmoid
from edge_agent.types import Floats


def distances(outputs: Outputs, head: Head, threshold: float, *, least: float = -np.inf) -> Candidates:
    """boxes [1, 4*B, h, w] and classes [1, C, h, w]: distances left, top, right, bottom from the cell's centre.

    In strides, and not below `least`; with B > 1 a distance is the mean of 0..B-1 under the softmax of its B logits
    (DFL; Li et al., arXiv 2006.04388). YOLOv6, v8, v9, 11, 12, edge-yolo.
    """

    def decode(level: int, keep: Array, cells: Floats, stride: float) -> Array:
        reach = np.maximum(_mean(_flat(outputs[f"boxes{level}"])[:, keep], 4), least)
        return _around(cells + 0.5, reach, stride)

    return _by_class(outputs, head, threshold, lambda level: _flat(outputs[f"classes{level}"]), decode)


def nanodet(outputs: Outputs, head: Head, threshold: float) -> Candidates:
    """all [1, C + 4*B, h, w], classes first; distances as above. With four levels from the cell's corner."""
    shift = 0.0 if "all3" in outputs else 0.5

    def decode(level: int, keep: Array, cells: Floats, stride: float) -> Array:
        return _around(cells + shift, _mean(_flat(outputs[f"all{level}"])[head.classes :, keep], 4), stride)

    return _by_class(outputs, head, threshold, lambda level: _flat(outputs[f"all{level}"])[: head.classes], decode)


def yolox(outputs: Outputs, head: Head, threshold: float) -> Candidates:
    """boxes [1, 4, h, w], objects [1, 1, h, w], classes [1, C, h, w]; see `yolo.yolox`."""
    found = []
    for level, cells, stride in _levels(outputs, head, "objects"):
        objects, classes = _flat(outputs[f"objects{level}"])[0], _flat(outputs[f"classes{level}"])
        keep, score, label = _objects(objects, classes, threshold)
        at = _flat(outputs[f"boxes{level}"])[:, keep].T
        with np.errstate(over="ignore"):
            half = np.exp(at[:, 2:]) * (stride / 2)
        centre = (at[:, :2] + cells[keep]) * stride
        found.append((np.concatenate([centre - half, centre + half], axis=1), score, label))
    return _joined(found)


def yolov5(outputs: Outputs, head: Head, threshold: float) -> Candidates:
    """all [1, A * (5+C), h, w] and anchors, width and height of each in pixels, level by level.

    centre = (2 sigmoid(x) - 0.5 + cell) * stride, size = (2 sigmoid(w))^2 * anchor, score = objectness * class
    (YOLOv5 and v7, `Detect.forward`).
    """
    levels = list(_levels(outputs, head, "all"))
    anchors = outputs["anchors"].reshape(len(levels), -1, 2)
    found = []
    for level, cells, stride in levels:
        maps = _flat(outputs[f"all{level}"]).reshape(anchors.shape[1], 5 + head.classes, -1)
        for rows, anchor in zip(maps, anchors[level], strict=True):
            keep, score, label = _objects(rows[4], rows[5:], threshold)
            at = sigmoid(rows[:4, keep].T) * 2
            centre, half = (at[:, :2] - 0.5 + cells[keep]) * stride, at[:, 2:] ** 2 * anchor / 2
            found.append((np.concatenate([centre - half, centre + half], axis=1), score, label))
    return _joined(found)


FAMILIES: dict[str, Family] = {
    "yolov8-maps": Family(distances, nms=True),
    "edge-yolo-maps": Family(partial(distances, least=0.0), nms=True),
    "yolox-maps": Family(yolox, nms=True),
    "yolov5-maps": Family(yolov5, nms=True),
    "nanodet-maps": Family(nanodet, nms=True),
}


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────

Part = tuple[Array, Array, Array]
"""boxes (n, 4), scores (n,), class indices (n,) of one level"""


def _levels(outputs: Outputs, head: Head, what: str) -> Iterator[tuple[int, Floats, float]]:
    """Number, cells (h * w, 2) and stride of each level."""
    level = 0
    while (array := outputs.get(f"{what}{level}")) is not None:
        stride = 1 << round(np.log2(head.height / array.shape[2]))
        yield level, grid(head.width, head.height, (stride,))[0], float(stride)
        level += 1


def _flat(array: Array) -> Array:
    """[1, C, h, w] -> (C, h * w), a view."""
    return array.reshape(array.shape[1], -1)


def _by_class(
    outputs: Outputs,
    head: Head,
    threshold: float,
    logits: Callable[[int], Array],
    decode: Callable[[int, Array, Floats, float], Array],
) -> Candidates:
    """Heads without objectness: the cells whose best class passes; `decode` gives their boxes."""
    found, least = [], bar(threshold)
    for level, cells, stride in _levels(outputs, head, "all" if "all0" in outputs else "classes"):
        classes = logits(level)
        best = classes.max(axis=0)
        finite(best)
        keep = np.flatnonzero(best >= least)
        if len(keep):
            label = classes[:, keep].argmax(axis=0)
            found.append((decode(level, keep, cells[keep], stride), sigmoid(best[keep]), label))
    return _joined(found)


def _objects(objects: Array, classes: Array, threshold: float) -> Part:
    """Indices, scores and classes of the cells whose objectness * best class reaches the threshold.

    `objects` (n,) and `classes` (C, n) are logits. No probability exceeds 1, so objectness alone rules most cells out
    before their classes are looked at.
    """
    finite(objects)
    keep = np.flatnonzero(objects >= bar(threshold))
    logits = classes[:, keep]
    finite(logits)
    label = logits.argmax(axis=0)
    score = sigmoid(objects[keep]) * sigmoid(logits[label, np.arange(len(keep))])
    passed = score >= threshold
    return keep[passed], score[passed], label[passed]


def _mean(logits: Array, sides: int) -> Array:
    """(sides * B, n) -> (sides, n): the mean of 0..B-1 under the softmax of B logits; of B = 1 the number itself."""
    bins = logits.reshape(sides, -1, logits.shape[1])
    if bins.shape[1] == 1:
        return bins[:, 0]
    weight = np.exp(bins - bins.max(axis=1, keepdims=True))
    mean: Array = np.einsum("sbn,b->sn", weight, np.arange(bins.shape[1], dtype=np.float32)) / weight.sum(axis=1)
    return mean


def _around(points: Array, reach: Array, stride: float) -> Array:
    """Points (n, 2) and distances (4, n), both in strides -> left, top, right, bottom (n, 4) in pixels."""
    away = reach.T
    return np.concatenate([points - away[:, :2], points + away[:, 2:]], axis=1) * stride


def _joined(found: list[Part]) -> Candidates:
    if not found:
        return candidates(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))
    xyxy, score, label = (np.concatenate(column) for column in zip(*found, strict=True))
    return candidates(xyxy, score, label)
