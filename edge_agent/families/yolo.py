"""Decoders: what the output tensors of a detector mean, one function and one row a family.

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
from edge_agent.families.family import Family
from edge_agent.types import Floats


def yolox(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Raw grid head [1, N, 5+C] or [1, 5+C, N]: dx, dy, log w, log h, objectness, class scores (both sigmoided).

    Anchor-free, one point a cell, cells row-major, strides 8, 16, 32 (and 64) one after the other:
    centre = (cell + d) * stride, size = exp(log) * stride, score = objectness * class
    (Ge et al., YOLOX, arXiv 2107.08430; `demo_postprocess` of the reference implementation).
    """
    rows = _rows(_volume(outputs), 5 + head.classes)
    cells, stride = grid(head.width, head.height, _strides(len(rows), head))
    keep, score, label = _objects(rows, threshold)
    at = rows[keep, :4]
    step = stride[keep]
    with np.errstate(over="ignore"):
        size = np.exp(at[:, 2:]) * step
    return candidates(_corners((at[:, :2] + cells[keep]) * step, size), score, label)


def yolov5(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Decoded head [1, N, 5+C] or [1, 5+C, N]: centre x, centre y, width, height, objectness, class scores.

    score = objectness * class (YOLOv5, v7, and YOLOX exported with its decoding). Coordinates are pixels of the
    canvas (ONNX exports) or 0..1 of it (TFLite exports): see `_pixels`.
    """
    rows = _rows(_volume(outputs), 5 + head.classes)
    keep, score, label = _objects(rows, threshold)
    at = rows[keep, :4] * _pixels(rows[:, :4], head)
    return candidates(_corners(at[:, :2], at[:, 2:]), score, label)


def yolov8(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Decoded head [1, 4+C, N] or [1, N, 4+C]: centre x, centre y, width, height, class scores (sigmoided).

    No objectness: score = the best class (YOLOv8, v9, 11, 12). Coordinates as in `yolov5`.
    """
    columns = _rows(_volume(outputs), 4 + head.classes).T
    best = columns[4:].max(axis=0)
    finite(best)
    keep = np.flatnonzero(best >= threshold)
    found = columns[:, keep]
    finite(found)
    at = found[:4].T * _pixels(columns[:4].T, head)
    label = found[4:].argmax(axis=0)
    return candidates(_corners(at[:, :2], at[:, 2:]), best[keep], label)


def finished(outputs: Outputs, head: HeadLayout, threshold: float, *, order: str) -> Candidates:
    """Finished boxes [1, N, M] or [N, M], one a row. `order` names the columns: ``xyxy`` (left, top, right, bottom) or
    ``xywh`` (centre, width, height), ``s`` the score, ``c`` the class index, ``-`` what is not looked at.

    Coordinates as in `yolov5`; rows beyond the last box are zeros. Without ``c`` there is one class.
    """
    rows = _table(outputs, len(order))
    finite(rows)
    score, first = rows[:, order.index("s")], order.index("x")
    keep = score >= threshold
    boxes = rows[:, first : first + 4]
    at = _form(boxes[keep], order[first : first + 4]) * _pixels(boxes, head)
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
    scale = np.array([head.width, head.height] * 2, np.float32) if unit else _pixels(boxes, head)
    return candidates(_form(boxes[keep], form) * scale, score[keep], _whole(label[keep], head))


def scores(outputs: Outputs, head: HeadLayout, threshold: float, *, background: bool = False) -> Candidates:
    """Boxes left, top, right, bottom [1, N, 4] (or [1, N, 1, 4]) and class scores in 0..1 [1, N, C], either of them
    also with its last two axes turned: score = the best class. `background`: a first column counts for none.

    Coordinates as in `yolov5` (YOLO-NAS, PP-YOLOE and darknet's exports without NMS; SSD with its boxes decoded).
    """
    classes = head.classes + background
    flat = {name: array[:, :, 0] if array.ndim == 4 else array for name, array in outputs.items()}
    found = [array for array in flat.values() if array.ndim == 3 and 4 in array.shape[1:]]
    others = [array for array in flat.values() if array.ndim == 3 and classes in array.shape[1:]]
    if not found or not others:
        seen = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise RefusedError(f"this head has outputs {seen}; boxes [1, N, 4] and scores [1, N, {classes}] are asked for")
    chosen = next((array for name, array in flat.items() if "box" in name.lower() and 4 in array.shape[1:]), found[0])
    rest = [array for array in others if array is not chosen]
    if len(rest) != 1:
        raise RefusedError("it is open which of its outputs are the scores; correct family in the manifest")
    boxes, rows = _rows(chosen, 4), _rows(rest[0], classes)[:, int(background) :]
    best = rows.max(axis=1)
    finite(best)
    keep = np.flatnonzero(best >= threshold)
    return candidates(boxes[keep] * _pixels(boxes, head), best[keep], rows[keep].argmax(axis=1))


def edge_yolo(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """This project's own head: `boxes` [1, N, 4] and `logits` [1, N, C], cells ordered as in `yolox`.

    boxes are the distances left, top, right, bottom from the cell's centre, in strides; score = sigmoid(logit),
    compared as a logit so that only what passes is ever put through the sigmoid (FCOS's form, arXiv 1904.01355).
    """
    boxes, scores = _boxes_and_logits(outputs, head)
    distances, logits = _rows(boxes, 4), _rows(scores, head.classes)
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


def detr(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Queries: boxes [1, N, 4] as centre x, centre y, width, height in 0..1, logits [1, N, C+1], the last of which is
    "no object": score = the best class under a softmax over all of them (Carion et al., DETR, arXiv 2005.12872).
    """
    boxes, logits = (_rows(array, n) for array, n in zip(_pair(outputs), (4, head.classes + 1), strict=True))
    finite(logits)
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    return _queries(boxes, (power / power.sum(axis=1, keepdims=True))[:, : head.classes], head, threshold)


def detr_sigmoid(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """As `detr`, but C logits [1, N, C], each of which stands for itself: score = sigmoid of the best (RT-DETR, arXiv
    2304.08069, RF-DETR and other descendants that are trained with a focal loss).
    """
    boxes, logits = (_rows(array, n) for array, n in zip(_pair(outputs), (4, head.classes), strict=True))
    finite(logits)
    return _queries(boxes, sigmoid(logits.astype(np.float32)), head, threshold)


def _queries(boxes: Array, scores: Array, head: HeadLayout, threshold: float) -> Candidates:
    """The queries (N, 4) in 0..1 whose best score (N, C) reaches the threshold."""
    best = scores.max(axis=1)
    keep = np.flatnonzero(best >= threshold)
    at = boxes[keep] * np.array([head.width, head.height] * 2, np.float32)
    return candidates(_corners(at[:, :2], at[:, 2:]), best[keep], scores[keep].argmax(axis=1))


def _pair(outputs: Outputs) -> tuple[Array, Array]:
    """Boxes [1, N, 4] and logits among the outputs, whatever they are called."""
    flat = {name: array for name, array in outputs.items() if array.ndim == 3}
    boxes = [name for name, array in flat.items() if array.shape[2] == 4]
    named = [name for name in boxes if "box" in name.lower()]
    # logits of four classes: of the two, boxes are what lies in 0..1
    inside = [name for name in boxes if len(boxes) == 1 or -0.1 <= flat[name].min() <= flat[name].max() <= 1.1]
    chosen = (named or inside or boxes)[:1]
    others = [array for name, array in flat.items() if name not in chosen]
    if not chosen or len(others) != 1:
        seen = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise RefusedError(f"this head has outputs {seen}; a DETR has boxes [1, N, 4] and logits [1, N, C]")
    return flat[chosen[0]], others[0]


def nanodet(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Distribution head: class scores (sigmoided), then B logits for each of the distances left, top, right, bottom.

    [1, C+4*B] for each of N cells, the last two axes in either order; or each level in a tensor of its own, as rows or
    as a map; or in two, the classes and the distances. A distance is the mean of 0..B-1 under the softmax of its
    logits, in strides (Li et al., Generalized Focal Loss, arXiv 2006.04388). With strides 8 to 64 (NanoDet-Plus) a
    point is its cell's corner, with 8 to 32 (NanoDet) its centre.
    """
    rows, strides = _distributions(outputs, head)
    return _by_bins(rows, strides, 0.0 if strides == STRIDES[1] else 0.5, head, threshold)


def picodet(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """As `nanodet`, with strides 8 to 64 and each point its cell's centre (Yu et al., PP-PicoDet, arXiv 2111.00902)."""
    rows, strides = _distributions(outputs, head)
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


def _distributions(outputs: Outputs, head: HeadLayout) -> tuple[Array, tuple[int, ...]]:
    """The rows (N, C+4*B) of all cells, and the strides of their levels."""
    for turned in (False, True):
        levels = _levels(outputs, head, turned) if len(outputs) > 1 else {}
        if tuple(levels) in STRIDES and len({sum(part.shape[1] for part in parts) for parts in levels.values()}) == 1:
            return np.concatenate([np.concatenate(parts, axis=1) for parts in levels.values()]), tuple(levels)
    volume = _volume(outputs)
    counts = {count: strides for strides in STRIDES if (count := points(head, strides)) in volume.shape[1:]}
    if not counts:
        raise RefusedError(f"the head gives {list(volume.shape)}, no axis of it counts the cells of the input")
    n = max(counts)
    return _rows(volume, volume.shape[1] if volume.shape[2] == n else volume.shape[2]), counts[n]


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


def shares(outputs: Outputs, family: Family, head: HeadLayout) -> Array | None:
    """All scores of a head whose family has them in one tensor with the boxes; None for others."""
    if family.order:
        return _table(outputs, len(family.order))[:, [family.order.index("s")]]
    if family.decode in (nanodet, picodet):
        return _distributions(outputs, head)[0][:, : head.classes]
    return _rows(_volume(outputs), family.before + head.classes)[:, 4:] if family.before else None


# ── what they share ──────────────────────────────────────────────────────────────────────────────────────


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
        seen = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise RefusedError(f"this head has outputs {seen}; edge-yolo has boxes [1, N, 4] and logits [1, N, C]")
    return boxes[0], flat[1] if flat[0] is boxes[0] else flat[0]


def _volume(outputs: Outputs) -> Array:
    """The one output of three axes (exports may carry raw feature maps beside it)."""
    found = [array for array in outputs.values() if array.ndim == 3]
    if len(found) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise RefusedError(
            f"the head needs one output [1, N, M], but there is {shapes}; correct family in the manifest"
        )
    return found[0]


def _rows(array: Array, columns: int) -> Array:
    """[1, N, columns] or [1, columns, N] -> (N, columns), a view."""
    if array.ndim != 3 or array.shape[0] != 1 or columns not in array.shape[1:]:
        raise RefusedError(
            f"the head gives {list(array.shape)}, but its family and its labels ask for [1, N, {columns}]; "
            "correct family or labels in the manifest"
        )
    rows: Array = array[0] if array.shape[2] == columns else array[0].T
    return rows


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


def _pixels(coordinates: Array, head: HeadLayout) -> Floats:
    """What (n, 4) x, y, width, height have to be multiplied by to be pixels: 1, or the canvas.

    A head gives a box for every cell of its grid, so in pixels the largest coordinate is near the canvas's size,
    and in 0..1 it never reaches 2. A look at some hundred rows is enough.
    """
    if coordinates[:: max(1, len(coordinates) // 256)].max(initial=0.0) > 2:
        return np.ones(4, np.float32)
    return np.array([head.width, head.height] * 2, np.float32)


def _table(outputs: Outputs, width: int) -> Array:
    """The one output that is a table of `width` columns, whatever axes of 1 stand before it, or the same turned:
    (N, width).
    """
    found = [array for array in outputs.values() if array.ndim > 1 and width in array.shape[-2:]]
    if len(found) != 1 or any(axis != 1 for axis in found[0].shape[:-2]):
        seen = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise RefusedError(f"its family and its labels ask for rows of {width} numbers, but there is {seen}")
    table: Array = found[0].reshape(found[0].shape[-2:])
    return table if table.shape[1] == width else table.T


def _form(boxes: Array, form: str) -> Array:
    """Boxes (n, 4) in that form -> left, top, right, bottom (n, 4)."""
    if form == "xywh":
        return _corners(boxes[:, :2], boxes[:, 2:])
    return boxes[:, [1, 0, 3, 2]] if form == "yxyx" else boxes


def _corners(centre: Array, size: Array) -> Array:
    """Centre and size (n, 2) -> left, top, right, bottom (n, 4)."""
    half = size / 2
    return np.concatenate([centre - half, centre + half], axis=1)


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
    flat = {name: array[0] if array.shape[:1] == (1,) and array.ndim > 1 else array for name, array in outputs.items()}
    boxes = [array for array in flat.values() if array.ndim == 2 and array.shape[1] in (4, 5)]
    names = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
    if len(boxes) != 1:
        raise RefusedError(f"such a head has boxes [1, N, 4], classes, scores and a count, but there is {names}")
    pair = {name: array for name, array in flat.items() if array.shape == (len(boxes[0]),)}
    named = {
        kind: array
        for kind, words in (("score", ("score", "conf")), ("class", ("class", "label", "categor")))
        for name, array in pair.items()
        if any(word in name.lower() for word in words)
    }
    if boxes[0].shape[1] == 5 and len(pair) >= 1:
        label = named.get("class", next(iter(pair.values())))
        return boxes[0][:, :4], label, boxes[0][:, 4]
    if len(named) == 2:
        return boxes[0], named["class"], named["score"]
    if len(pair) != 2:
        raise RefusedError(f"such a head has classes and scores [1, N] beside its boxes, but there is {names}")
    first, second = pair.values()
    if (second == np.rint(second)).all() and not (first == np.rint(first)).all():
        first, second = second, first
    return boxes[0], first, second
