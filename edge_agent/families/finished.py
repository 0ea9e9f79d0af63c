"""Decoders of boxes that are finished, or have their scores beside them. The contract stands in families/yolo.py."""

from __future__ import annotations

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.families.candidates import (
    Array,
    Candidates,
    HeadLayout,
    Outputs,
    candidates,
    finite,
)
from edge_agent.families.outputs import corners, pixels, rows_of, shapes, table


def finished(outputs: Outputs, head: HeadLayout, threshold: float, *, order: str) -> Candidates:
    """Finished boxes [1, N, M] or [N, M], one a row. `order` names the columns: ``xyxy`` (left, top, right, bottom) or
    ``xywh`` (centre, width, height), ``s`` the score, ``c`` the class index, ``-`` what is not looked at.

    Coordinates as in `yolov5`; rows beyond the last box are zeros. Without ``c`` there is one class.
    """
    rows = table(outputs, len(order))
    finite(rows)
    score, first = rows[:, order.index("s")], order.index("x")
    keep = score >= threshold
    boxes = rows[:, first : first + 4]
    at = _form(boxes[keep], order[first : first + 4]) * pixels(boxes, head)
    label = _whole(rows[keep, order.index("c")], head) if "c" in order else np.zeros(int(keep.sum()), np.int32)
    return candidates(at, score[keep], label)


def columns(outputs: Outputs, head: HeadLayout, threshold: float, *, form: str, unit: bool = False) -> Candidates:
    """Boxes [1, N, 4], class indices [1, N] and scores [1, N] (or boxes [1, N, 5] with the score last), and a count
    that may be missing: of how many rows are meant. `form`: ``yxyx`` or ``xyxy``; `unit`: always 0..1, else as in
    `yolov5`. They are told apart by shape and name, not by place, which differs between exporters; all may lack the 1.

    The TFLite_Detection_PostProcess op and TensorFlow's detection API give ``yxyx`` in 0..1; TensorRT's EfficientNMS,
    torchvision, mmdeploy, RT-DETR and D-FINE with their post-processor, YOLOv5's TensorFlow export ``xyxy``.
    """
    boxes, label, score = _columns(outputs)
    deep = max(array.ndim for array in outputs.values())
    counts = [array for array in outputs.values() if array.size == 1 and (len(score) != 1 or array.ndim < deep - 1)]
    count = counts[0].reshape(-1)[0] if counts else len(score)
    for array in (boxes, label, score, np.asarray(count)):
        finite(array)
    n = max(0, int(count))
    boxes, label, score = boxes[:n], label[:n], score[:n]
    keep = score >= threshold
    scale = np.array([head.width, head.height] * 2, np.float32) if unit else pixels(boxes, head)
    return candidates(_form(boxes[keep], form) * scale, score[keep], _whole(label[keep], head))


def scores(outputs: Outputs, head: HeadLayout, threshold: float, *, background: bool = False) -> Candidates:
    """Boxes left, top, right, bottom [1, N, 4] (or [1, N, 1, 4]) and class scores in 0..1 [1, N, C], either of them
    also with its last two axes turned: score = the best class. `background`: a first column counts for none.

    Coordinates as in `yolov5` (YOLO-NAS, PP-YOLOE and darknet's exports without NMS; SSD with its boxes decoded).
    """
    classes = head.classes + background
    chosen, rest = _boxes_and_scores(outputs, classes)
    boxes, rows = rows_of(chosen, 4), rows_of(rest, classes)[:, int(background) :]
    best = rows.max(axis=1)
    finite(best)
    keep = np.flatnonzero(best >= threshold)
    return candidates(boxes[keep] * pixels(boxes, head), best[keep], rows[keep].argmax(axis=1))


def _boxes_and_scores(outputs: Outputs, classes: int) -> tuple[Array, Array]:
    """The two by their shapes; of two that may be boxes, the one whose name says so."""
    flat = _of_three_axes(outputs)
    boxes = {name: array for name, array in flat.items() if 4 in array.shape[1:]}
    scores = [array for array in flat.values() if classes in array.shape[1:]]
    if not boxes or not scores:
        raise RefusedError(
            f"this head has outputs {shapes(outputs)}; boxes [1, N, 4] and scores [1, N, {classes}] are asked for"
        )
    chosen = _called_boxes(boxes)
    rest = [array for array in scores if array is not chosen]
    if len(rest) != 1:
        raise RefusedError("it is open which of its outputs are the scores; correct family in the manifest")
    return chosen, rest[0]


def _called_boxes(boxes: Outputs) -> Array:
    """The first whose name says so; else the first."""
    named = [array for name, array in boxes.items() if "box" in name.lower()]
    return (named or list(boxes.values()))[0]


def _of_three_axes(outputs: Outputs) -> Outputs:
    """The outputs [1, N, M]; [1, N, 1, M] is one, too."""
    flat = {name: array[:, :, 0] if array.ndim == 4 else array for name, array in outputs.items()}
    return {name: array for name, array in flat.items() if array.ndim == 3}


def _form(boxes: Array, form: str) -> Array:
    """Boxes (n, 4) in that form -> left, top, right, bottom (n, 4)."""
    if form == "xywh":
        return corners(boxes[:, :2], boxes[:, 2:])
    return boxes[:, [1, 0, 3, 2]] if form == "yxyx" else boxes


def _whole(label: Array, head: HeadLayout) -> Array:
    """Class indices that come as floats."""
    index = np.rint(label).astype(np.int32)
    if len(index) and np.abs(label - index).max() > 1e-4:
        raise RefusedError("what should be class indices are no whole numbers; correct family in the manifest")
    if len(index) and not 0 <= index.min() <= index.max() < head.classes:
        raise RefusedError(
            f"the head gives class {index.max()}, but there are {head.classes} labels; correct labels in the manifest"
        )
    return index


def _columns(outputs: Outputs) -> tuple[Array, Array, Array]:
    """Boxes (N, 4), class indices (N,) and scores (N,) among the outputs.

    By shape; of two [1, N], by a name that says "score" or "class"; else the classes are the ones that are all whole
    numbers; else, as the TFLite op documents its order, the classes come first.
    """
    flat = _without_batch(outputs)
    found = [array for array in flat.values() if array.ndim == 2 and array.shape[1] in (4, 5)]
    if len(found) != 1:
        raise RefusedError(
            f"such a head has boxes [1, N, 4], classes, scores and a count, but there is {shapes(outputs)}"
        )
    (boxes,) = found
    beside = {name: array for name, array in flat.items() if array.shape == (len(boxes),)}
    if boxes.shape[1] == 5 and beside:
        label = _named(beside, CLASS)
        return boxes[:, :4], next(iter(beside.values())) if label is None else label, boxes[:, 4]
    return boxes, *_classes_and_scores(beside, outputs)


CLASS, SCORE = ("class", "label", "categor"), ("score", "conf")
"""words in the names of outputs"""


def _classes_and_scores(beside: Outputs, outputs: Outputs) -> tuple[Array, Array]:
    """Which of the columns (N,) beside the boxes are which."""
    label, score = _named(beside, CLASS), _named(beside, SCORE)
    if score is not None and label is not None:
        return label, score
    if len(beside) != 2:
        raise RefusedError(
            f"such a head has classes and scores [1, N] beside its boxes, but there is {shapes(outputs)}"
        )
    first, second = beside.values()
    return (second, first) if _are_whole(second) and not _are_whole(first) else (first, second)


def _without_batch(outputs: Outputs) -> Outputs:
    """[1, N, M] or [1, N] -> [N, M] or [N]; others as they are."""
    return {name: array[0] if array.shape[:1] == (1,) and array.ndim > 1 else array for name, array in outputs.items()}


def _named(pair: Outputs, words: tuple[str, ...]) -> Array | None:
    """The last of these whose name has one of the words."""
    found = [array for name, array in pair.items() if any(word in name.lower() for word in words)]
    return found[-1] if found else None


def _are_whole(numbers: Array) -> bool:
    return bool((numbers == np.rint(numbers)).all())
