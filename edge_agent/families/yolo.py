"""Decoders of heads that have a row for each cell: what the output tensors of a detector mean.

A decoder takes the outputs by name, the Head they belong to and the score threshold, and gives the candidates that
reach it: boxes in pixels of the canvas (left, top, right, bottom), scores in 0..1, class indices of the head; one
class a box, the best one. Nothing is decoded before it has passed the threshold. A head that does not look like its
family raises RefusedError, numbers that are not finite raise InputError.
"""

from __future__ import annotations

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.families.candidates import (
    STRIDES,
    Array,
    Candidates,
    HeadLayout,
    Outputs,
    around,
    bar,
    candidates,
    finite,
    grid,
    points,
    sigmoid,
)
from edge_agent.families.outputs import corners, pixels, rows_of, shapes, volume
from edge_agent.types import Floats


def yolox(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Raw grid head [1, N, 5+C] or [1, 5+C, N]: dx, dy, log w, log h, objectness, class scores (both sigmoided).

    Anchor-free, one point a cell, cells row-major, strides 8, 16, 32 (and 64) one after the other:
    centre = (cell + d) * stride, size = exp(log) * stride, score = objectness * class
    (Ge et al., YOLOX, arXiv 2107.08430; `demo_postprocess` of the reference implementation).
    """
    rows = rows_of(volume(outputs), 5 + head.classes)
    cells, stride = grid(head.width, head.height, _strides(len(rows), head))
    keep, score, label = _objects(rows, threshold)
    at = rows[keep, :4]
    step = stride[keep]
    with np.errstate(over="ignore"):
        size = np.exp(at[:, 2:]) * step
    return candidates(corners((at[:, :2] + cells[keep]) * step, size), score, label)


def yolov5(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Decoded head [1, N, 5+C] or [1, 5+C, N]: centre x, centre y, width, height, objectness, class scores.

    score = objectness * class (YOLOv5, v7, and YOLOX exported with its decoding). Coordinates are pixels of the
    canvas (ONNX exports) or 0..1 of it (TFLite exports): see `pixels`.
    """
    rows = rows_of(volume(outputs), 5 + head.classes)
    keep, score, label = _objects(rows, threshold)
    at = rows[keep, :4] * pixels(rows[:, :4], head)
    return candidates(corners(at[:, :2], at[:, 2:]), score, label)


def yolov8(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Decoded head [1, 4+C, N] or [1, N, 4+C]: centre x, centre y, width, height, class scores (sigmoided).

    No objectness: score = the best class (YOLOv8, v9, 11, 12). Coordinates as in `yolov5`.
    """
    columns = rows_of(volume(outputs), 4 + head.classes).T
    best = columns[4:].max(axis=0)
    finite(best)
    keep = np.flatnonzero(best >= threshold)
    found = columns[:, keep]
    finite(found)
    at = found[:4].T * pixels(columns[:4].T, head)
    label = found[4:].argmax(axis=0)
    return candidates(corners(at[:, :2], at[:, 2:]), best[keep], label)


def edge_yolo(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """This project's own head: `boxes` [1, N, 4] and `logits` [1, N, C], cells ordered as in `yolox`.

    boxes are the distances left, top, right, bottom from the cell's centre, in strides; score = sigmoid(logit),
    compared as a logit so that only what passes is ever put through the sigmoid (FCOS's form, arXiv 1904.01355).
    """
    boxes, scores = _boxes_and_logits(outputs, head)
    distances, logits = rows_of(boxes, 4), rows_of(scores, head.classes)
    strides = _strides(len(logits), head)
    finite(logits)
    hits = np.flatnonzero(logits >= bar(threshold)) // head.classes
    first = np.ones(len(hits), bool)
    np.not_equal(hits[1:], hits[:-1], out=first[1:])
    keep = hits[first]  # np.unique would import numpy.ma first
    passed = logits[keep]
    label = passed.argmax(axis=1)
    best = passed[np.arange(len(keep)), label].astype(np.float32)
    return candidates(around(distances[keep], 0.5, keep, strides, head), sigmoid(best), label)


def _strides(n: int, head: HeadLayout) -> tuple[int, ...]:
    """The strides whose grids have n points together."""
    for strides in STRIDES:
        if n == points(head, strides):
            return strides
    raise RefusedError(
        f"the head has {n} points, which a {head.width}x{head.height} input with strides 8, 16, 32 does not give; "
        "correct width, height or family in the manifest"
    )


def _boxes_and_logits(outputs: Outputs, head: HeadLayout) -> tuple[Array, Array]:
    """The two outputs of edge-yolo by their names, else by their shapes."""
    if "boxes" in outputs and "logits" in outputs:
        return outputs["boxes"], outputs["logits"]
    flat = [array for array in outputs.values() if array.ndim == 3]
    boxes = [array for array in flat if 4 in array.shape[1:]]
    if len(flat) != 2 or len(boxes) != 1:
        seen = shapes(outputs)
        raise RefusedError(f"this head has outputs {seen}; edge-yolo has boxes [1, N, 4] and logits [1, N, C]")
    return boxes[0], flat[1] if flat[0] is boxes[0] else flat[0]


def _objects(rows: Array, threshold: float) -> tuple[Array, Floats, Array]:
    """Rows whose objectness * best class reaches the threshold: indices, scores, class indices.

    No class score exceeds 1, so objectness alone rules most rows out before their classes are looked at.
    """
    objectness = np.ascontiguousarray(rows[:, 4])
    finite(objectness)
    keep = np.flatnonzero(objectness >= threshold)
    classes = rows[keep, 5:]
    finite(classes)
    label = classes.argmax(axis=1)
    score = objectness[keep] * classes[np.arange(len(keep)), label]
    passed = score >= threshold
    return keep[passed], score[passed], label[passed]
