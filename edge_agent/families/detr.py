"""Decoders of queries: DETR and its descendants. The contract stands in families/yolo.py."""

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
    sigmoid,
)
from edge_agent.families.outputs import corners, rows_of, shapes


def detr(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """Queries: boxes [1, N, 4] as centre x, centre y, width, height in 0..1, logits [1, N, C+1], the last of which is
    "no object": score = the best class under a softmax over all of them (Carion et al., DETR, arXiv 2005.12872).
    """
    boxes, logits = (rows_of(array, n) for array, n in zip(_pair(outputs), (4, head.classes + 1), strict=True))
    finite(logits)
    power = np.exp(logits - logits.max(axis=1, keepdims=True))
    return _queries(boxes, (power / power.sum(axis=1, keepdims=True))[:, : head.classes], head, threshold)


def detr_sigmoid(outputs: Outputs, head: HeadLayout, threshold: float) -> Candidates:
    """As `detr`, but C logits [1, N, C], each of which stands for itself: score = sigmoid of the best (RT-DETR, arXiv
    2304.08069, RF-DETR and other descendants that are trained with a focal loss).
    """
    boxes, logits = (rows_of(array, n) for array, n in zip(_pair(outputs), (4, head.classes), strict=True))
    finite(logits)
    return _queries(boxes, sigmoid(logits.astype(np.float32)), head, threshold)


def _queries(boxes: Array, scores: Array, head: HeadLayout, threshold: float) -> Candidates:
    """The queries (N, 4) in 0..1 whose best score (N, C) reaches the threshold."""
    best = scores.max(axis=1)
    keep = np.flatnonzero(best >= threshold)
    at = boxes[keep] * np.array([head.width, head.height] * 2, np.float32)
    return candidates(corners(at[:, :2], at[:, 2:]), best[keep], scores[keep].argmax(axis=1))


def _pair(outputs: Outputs) -> tuple[Array, Array]:
    """Boxes [1, N, 4] and logits among the outputs, whatever they are called."""
    flat = {name: array for name, array in outputs.items() if array.ndim == 3}
    boxes = [name for name, array in flat.items() if array.shape[2] == 4]
    if not boxes or len(flat) != 2:
        raise RefusedError(f"this head has outputs {shapes(outputs)}; a DETR has boxes [1, N, 4] and logits [1, N, C]")
    chosen = boxes[0] if len(boxes) == 1 else _likeliest(boxes, flat)
    (other,) = flat.keys() - {chosen}
    logits = flat[other]
    if logits.shape[:2] != flat[chosen].shape[:2]:
        raise RefusedError(f"this head has outputs {shapes(outputs)}; a DETR has as many boxes as rows of logits")
    return flat[chosen], logits


def _likeliest(boxes: list[str], flat: Outputs) -> str:
    """Which are the boxes where the logits are of four classes: what is called so, or what lies in 0..1."""
    named = [name for name in boxes if "box" in name.lower()]
    within = [name for name in boxes if -0.1 <= flat[name].min() <= flat[name].max() <= 1.1]
    return (named or within or boxes)[0]
